"""Results as files: what was measured, with which versions, never half written."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uva_lightning import __version__
from uva_lightning.whole_files import whole

LIBRARIES = (
    "numpy",
    "torch",
    "lightning",
    "diffusers",
    "gymnasium",
    "pymunk",
    "shapely",
    "opencv-python-headless",
)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file; its folder is made where absent."""
    with whole(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def versions() -> dict[str, str]:
    """Give the versions of what a result depends on."""
    found = {"uva_lightning": __version__, "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "not installed"
    return found


def sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
