"""Where the environments of simulators lie, and whether they are whole."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

PLACE = "UVA_ENVS"
"""Variable that names the folder of all environments."""
MARKER, ASSETS, CONFIG, STARTS, LOG = "installed.json", "assets", "config", "init_states", "install.log"
TASKS = "tasks.json"
"""File in LIBERO's folder: by suite the name of each task and its instruction."""
FILLED = "filled"
"""File in a virtual environment with the hash of the pins that were installed."""
PINS = {"libero": "libero.txt", "toolhang": "toolhang.txt"}
"""What is installed, by simulator: every package with its version."""
_PURELIB = "import sysconfig; print(sysconfig.get_path('purelib'))"


@dataclass(frozen=True)
class Installed:
    """The environment of a simulator.

    Args:
        name: Of the simulator.
        folder: Holds the virtual environment, the assets, and the marker that is written last.
    """

    name: str
    folder: Path

    @property
    def venv(self) -> Path:
        """Virtual environment."""
        return self.folder / "venv"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.venv / "bin" / "python"

    @property
    def pins(self) -> Path:
        """Packages with their versions, one a line."""
        return Path(__file__).with_name(PINS[self.name])

    @property
    def record(self) -> dict[str, Any]:
        """What the last installation wrote when it was whole; nothing otherwise."""
        try:
            content: dict[str, Any] = json.loads((self.folder / MARKER).read_text())
        except (OSError, ValueError):
            return {}
        return content

    @property
    def pinned(self) -> str:
        """Hash of the pins of this version of the package."""
        return sha256(self.pins.read_bytes()).hexdigest()

    @property
    def filled(self) -> bool:
        """Whether all packages are there, with the present pins."""
        filled = self.venv / FILLED
        return filled.exists() and filled.read_text() == self.pinned and self.python.exists()

    @property
    def whole(self) -> bool:
        """Whether it is installed, with the present pins, and has run."""
        return self.filled and self.record.get("pins") == self.pinned

    def packages(self) -> Path:
        """Ask the interpreter where packages lie."""
        done = subprocess.run(
            [str(self.python), "-I", "-c", _PURELIB], capture_output=True, text=True, check=True, timeout=60
        )
        return Path(done.stdout.strip())


def place_of(name: str, folder: Path | None = None) -> Installed:
    """Say where the environment of a simulator is, or would be.

    Args:
        name: One of ``PINS``.
        folder: Folder of all environments; ``UVA_ENVS`` or the user's data folder where left out.
    """
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    above = folder or Path(os.environ.get(PLACE) or Path(data) / "uva_lightning" / "envs")
    return Installed(name, (above / name).absolute())


def ready(name: str) -> Installed:
    """Give the environment of a simulator.

    Raises:
        ImportError: It is not installed, or not with the pins of this version.
    """
    place = place_of(name)
    if not place.whole:
        what = "was installed by another version or is not whole" if place.folder.exists() else "is not installed"
        raise ImportError(
            f"The simulator '{name}' {what} in {place.folder}, expected its own environment there; run: "
            f"uva env install {name}  (or set {PLACE} to the folder that has it)."
        )
    return place
