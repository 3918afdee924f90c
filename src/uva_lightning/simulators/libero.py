"""LIBERO in its own environment (Liu et al., 2023): hf-libero with robosuite 1.4."""

from __future__ import annotations

import importlib.util
import os
import re
import runpy
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np

from .installed import ASSETS, CONFIG, STARTS
from .scene import Answer, Scene, placed
from .wire import Refused
from .worker import choose_gl

RATE_HZ = 20
TASKS = "benchmark/libero_suite_task_map.py"
"""File with the names of all tasks; the package around it would import torch."""
LISTED = 5
"""Missing files that are named."""
_GONE = re.compile(r"Error opening file|No such file|resource not found|file not found", re.IGNORECASE)


class Libero(Scene):
    """One task of a suite; see ``Scene`` for what can be asked."""

    site = "gripper0_grip_site"
    imports = ("robosuite", "libero.libero.envs")
    packages = (*Scene.packages, "hf-libero", "bddl")

    def __init__(self, folder: Path) -> None:
        os.environ["LIBERO_CONFIG_PATH"] = str(folder / CONFIG)  # without it the first import asks questions
        super().__init__(folder, choose_gl())
        root = _root()
        self._tasks: dict[str, list[str]] = runpy.run_path(str(root / TASKS))["libero_task_map"]
        self._scenes = root / "bddl_files"
        self._starts: Any = None

    def make(self, task: str) -> Answer:
        """Load a task, ``SUITE/NUMBER``; gives its name and its instruction.

        The order is that of LIBERO's benchmark classes without a task order, which is the order of the suite's list.
        """
        suite, _, number = task.partition("/")
        names = self._tasks.get(suite)
        if names is None or not number.isdigit() or int(number) >= len(names):
            known = ", ".join(f"{name}/0 to {len(tasks) - 1}" for name, tasks in self._tasks.items())
            raise Refused(f"There is no task '{task}' in LIBERO, only {known}.")
        name = names[int(number)]
        if not (self.folder / ASSETS).is_dir():
            raise Refused(
                f"LIBERO's meshes and textures are not in {self.folder / ASSETS}, expected the folder 'assets' of "
                "LIBERO; run: uva env install libero --assets PATH, or without --assets to download them."
            )
        try:
            self.env, told = placed(lambda: self._make(self._scenes / suite / f"{name}.bddl"))
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError) and not _GONE.search(str(error)):
                raise
            raise Refused(lacking(self.folder / ASSETS, str(error))) from error
        path = self.folder / STARTS / suite / f"{name}.npy"
        self._starts = np.load(path, allow_pickle=False) if path.exists() else np.zeros((0, 0))
        return {"name": name, "instruction": told, "starts": len(self._starts)}, {}

    def start(self, number: int, seed: int, settle: int) -> Answer:
        """Begin from one of the benchmark's fixed initial states."""
        if not 0 <= number < len(self._starts):
            raise Refused(
                f"There is no initial state {number}, only 0 to {len(self._starts) - 1} for this task; run: "
                "uva env install libero, where there are none at all."
            )
        return self.reset(seed, settle, self._starts[number])

    def _make(self, scene: Path) -> tuple[Any, str]:
        import libero.libero.envs  # noqa: F401  # registers the problems
        import libero.libero.envs.bddl_utils as bddl
        from libero.libero.envs.bddl_base_domain import TASK_MAPPING
        from robosuite.controllers import load_controller_config

        problem = bddl.get_problem_info(str(scene))
        controller = load_controller_config(default_controller="OSC_POSE")
        controller["control_delta"] = False
        env = TASK_MAPPING[problem["problem_name"]](
            str(scene),
            robots=["Panda"],
            controller_configs=controller,
            gripper_types="default",
            initialization_noise=None,  # the hand begins where it is in the recordings
            use_camera_obs=False,
            has_offscreen_renderer=False,  # a picture is drawn when one is asked for
            control_freq=RATE_HZ,
            ignore_done=True,
            horizon=10**9,
        )
        return env, "".join(problem["language_instruction"])

    def _after_set(self) -> None:
        self.env._check_success()
        self.env._post_process()
        self.env.robots[0].controller.update(force=True)
        self.env.robots[0].controller.reset_goal()


def _root() -> Path:
    found = importlib.util.find_spec("libero.libero")
    if found is None or found.origin is None:
        raise Refused("LIBERO is not installed in this environment; run: uva env install libero")
    return Path(found.origin).parent


def listed(gone: list[str]) -> str:
    """Name the first of some files."""
    return ", ".join(gone[:LISTED]) + (f" and {len(gone) - LISTED} more" if len(gone) > LISTED else "")


def lacking(assets: Path, first: str) -> str:
    """Say in one sentence which files are not there.

    Args:
        assets: Folder of meshes, textures and scenes.
        first: What was not found first, in the simulator's words.
    """
    gone = missing(assets)
    what = f"lack {len(gone)} files that their own scenes name ({listed(gone)})" if gone else "are not all there"
    return (
        f"LIBERO's assets in {assets} {what}; it stopped at: {' '.join(first.split())[:300]}; get the whole folder "
        "'assets' of LIBERO and run: uva env install libero --assets PATH"
    )


def missing(assets: Path) -> list[str]:
    """List files that scenes in a folder name and that are not there, relative to the folder."""
    gone = set()
    for scene in sorted(assets.rglob("*.xml")):
        try:
            parts = ET.parse(scene).getroot().iter()
        except ET.ParseError:
            gone.add(f"{scene.relative_to(assets)} (damaged)")
            continue
        for part in parts:
            name = part.get("file")
            if name and not (scene.parent / name).exists():
                gone.add(os.path.relpath(scene.parent / name, assets))
    return sorted(gone)
