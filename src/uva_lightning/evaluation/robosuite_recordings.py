"""Demonstrations of LIBERO and Tool Hang: HDF5 with the states of the simulation, and absolute actions."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.hdf5 import FILE_END, demo_names, files_in
from uva_lightning.datamodules.hdf5_frames import h5py_for
from uva_lightning.datamodules.libero10 import Libero10
from uva_lightning.datamodules.toolhang import ToolHang
from uva_lightning.datamodules.windows import Window
from uva_lightning.envs import LIBERO
from uva_lightning.envs.games import Start
from uva_lightning.evaluation.recordings import Recorded, Recordings
from uva_lightning.evaluation.suites.libero import tasks

IDENTITY = "1 0 0 0"


class RobosuiteRecordings(Recordings, ABC):
    """Episodes begin in the first recorded state."""

    def __init__(self, env: str, path: Path) -> None:
        super().__init__(env, self.file(env, path))

    @abstractmethod
    def file(self, env: str, path: Path) -> Path:
        """Give the file with the demonstrations of an environment."""

    @abstractmethod
    def options(self, demo: Any) -> Mapping[str, Any]:
        """Say what a reset needs besides the state."""

    def episodes(self) -> Sequence[Recorded]:
        """See the base class."""
        found = []
        try:
            with h5py_for(self.path).File(self.path, "r") as content:
                for number, name in enumerate(demo_names(content["data"])):
                    demo = content["data"][name]
                    state = tuple(map(float, demo["states"][0]))
                    score = float(demo["rewards"][:].max()) if "rewards" in demo else None
                    options = {"state": state, **self.options(demo)}
                    found.append(Recorded(Start(number, options, len(demo["actions"])), score))
        except (OSError, KeyError, ET.ParseError) as error:
            raise UserError(
                f"{self.path} does not tell how its demonstrations began ({error}), expected recordings with states; "
                "take the original file, or what uva convert libero_absolute made of it."
            ) from error
        return found


class LiberoRecordings(RobosuiteRecordings):
    """One task of LIBERO: its file, or the folder that has it; things that do not move are put where they stood."""

    envs = tuple(LIBERO)

    def file(self, env: str, path: Path) -> Path:
        """See the base class."""
        suite, _, number = env.partition(":")[0].partition("/")
        names = [name for name, _ in tasks(suite)]
        if not number.isdigit() or int(number) >= len(names):
            raise UserError(f"'{env}' names no task, expected {suite}/0 to {suite}/{len(names) - 1}; set --env.")
        wanted = f"{names[int(number)]}{FILE_END}"
        found = {file.stem: file for file in files_in(path)}
        if wanted not in found:
            others = [f"{suite}/{names.index(stem.removesuffix(FILE_END))}" for stem in found if _of(stem, names)]
            hint = f"; it has {', '.join(others)}: set --env to one of these." if others else "; set --data to it."
            raise UserError(f"{path} has no {wanted}.hdf5, expected the demonstrations of {env}{hint}")
        return found[wanted]

    def data(self) -> RobotDataModule:
        """See the base class."""
        return Libero10(self.path, window=Window(frames=1))

    def options(self, demo: Any) -> Mapping[str, Any]:
        """See the base class."""
        return {"bodies": standing(str(demo.attrs["model_file"]))} if "model_file" in demo.attrs else {}


class ToolHangRecordings(RobosuiteRecordings):
    """robomimic's file; its simulator was an older one, so that the replay tells what that is worth."""

    envs = ("toolhang",)

    def file(self, env: str, path: Path) -> Path:
        """See the base class."""
        files = files_in(path)
        if len(files) != 1:
            raise UserError(
                f"{path} has {len(files)} HDF5 files, expected robomimic's image_abs.hdf5; set --data to it."
            )
        return files[0]

    def data(self) -> RobotDataModule:
        """See the base class."""
        return ToolHang(self.path, window=Window(frames=1))

    def options(self, demo: Any) -> Mapping[str, Any]:
        """See the base class."""
        return {}


def standing(model: str) -> dict[str, tuple[float, ...]]:
    """Give where the bodies of a scene stand that have no joint of their own: position in m and quaternion w, x, y, z.

    The state does not hold them, and LIBERO draws them anew for each recording.
    """
    world = ET.fromstring(model).find("worldbody")
    found: dict[str, tuple[float, ...]] = {}
    for body in () if world is None else world.findall("body"):
        name = body.get("name")
        if name and body.find("joint") is None and body.find("freejoint") is None:
            numbers = f"{body.get('pos', '0 0 0')} {body.get('quat', IDENTITY)}".split()
            found[name] = tuple(map(float, numbers))
    return found


def _of(stem: str, names: Sequence[str]) -> bool:
    return stem.endswith(FILE_END) and stem.removesuffix(FILE_END) in names
