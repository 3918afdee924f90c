"""Results as files: what was measured, with which versions, never half written."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uva_lightning import __version__

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
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a name to write under; the file gets its real name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write into; it gets its real name when it is whole, and vanishes after an error.

    Raises:
        FileExistsError: There is something at the path already, other than an empty folder.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise FileExistsError(f"{path} exists and is not empty, expected a new folder; name another one or remove it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    partial.mkdir()
    try:
        yield partial
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
