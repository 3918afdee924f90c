"""LIBERO's five suites as UVA counts, and from the benchmark's own initial states (UVA section 4.1)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules.hdf5_frames import h5py_for
from uva_lightning.envs import LIBERO
from uva_lightning.envs.games import Start
from uva_lightning.evaluation.suite import Scenario, Suite
from uva_lightning.rollouts import FIRST_TEST_SEED
from uva_lightning.simulators.installed import TASKS, ready

PAPER = {"DP-C": 0.53, "DP-T": 0.58, "OpenVLA": 0.54, "UniPi": 0.0, "UVA-action": 0.86, "UVA": 0.90}
"""Published scores on LIBERO-10, means over its ten tasks."""
UVA_STEPS, UVA_EPISODES = 500, 3
OFFICIAL_STEPS, OFFICIAL_EPISODES = 600, 50
SETTLE = 5
"""Steps in which LIBERO's evaluation lets things come to rest."""
SHOWN_SEED = 0
"""Stands for the start of the first demonstration."""


class LiberoSuite(Suite):
    """One suite as UVA's code counts: 3 random starts of each task, from seed 100000 on, 500 steps.

    Args:
        episodes: Episodes of each task.
        seed: Seed of the first one.
        instruction: What a policy is told: the task's ``file_name`` with its scene, as UVA's checkpoints know it, or
            the sentence of ``problem_info``.
        demonstrations: Folder of LIBERO's HDF5 files; each task then also starts as its first demonstration did, which
            UVA counts as well.
    """

    name = "libero_10"
    benchmark: ClassVar[str] = "libero_10"

    def __init__(
        self,
        episodes: int = UVA_EPISODES,
        seed: int = FIRST_TEST_SEED,
        instruction: Literal["file_name", "problem_info"] = "file_name",
        demonstrations: Path | None = None,
    ) -> None:
        super().__init__(episodes, seed)
        self.instruction, self.demonstrations = instruction, demonstrations

    def scenarios(self) -> Sequence[Scenario]:
        """See the base class."""
        return [
            Scenario(
                f"{self.benchmark}/{number}",
                f"{self.benchmark}/{number}",
                [*self.starts(), *self._shown(name)],
                paper=PAPER if self.benchmark == "libero_10" else {},
                protocol=self._protocol(),
                group=self.benchmark,
                instruction=name.replace("_", " ") if self.instruction == "file_name" else told,
            )
            for number, (name, told) in enumerate(tasks(self.benchmark))
        ]

    def starts(self) -> list[Start]:
        """See the base class."""
        return [Start(seed, steps=UVA_STEPS) for seed in range(self.seed, self.seed + self.episodes)]

    def _protocol(self) -> str:
        return (
            "Published scores are means over the ten tasks; LIBERO's own evaluation begins from 50 fixed states of "
            f"each task and plays 600 steps: {self.benchmark}_official."
        )

    def _shown(self, task: str) -> list[Start]:
        if self.demonstrations is None:
            return []
        file = self.demonstrations / f"{task}_demo.hdf5"
        try:
            with h5py_for(file).File(file, "r") as content:
                state = content["data/demo_0/states"][0]
        except (OSError, KeyError) as error:
            raise UserError(
                f"{file} does not tell how the first demonstration began ({error}), expected LIBERO's file of this "
                "task; leave demonstrations out, or name the folder that has all of the suite."
            ) from error
        return [Start(SHOWN_SEED, {"state": tuple(map(float, state))}, UVA_STEPS)]


class OfficialLiberoSuite(LiberoSuite):
    """One suite as LIBERO's own evaluation: from the 50 fixed initial states of each task, 600 steps.

    Args:
        episodes: Initial states of each task, at most 50.
        seed: Number of the first one.
        instruction: See the base class.
    """

    name = "libero_10_official"

    def __init__(
        self,
        episodes: int = OFFICIAL_EPISODES,
        seed: int = 0,
        instruction: Literal["file_name", "problem_info"] = "file_name",
    ) -> None:
        if seed + episodes > OFFICIAL_EPISODES:
            raise ValueError(
                f"Initial states {seed} to {seed + episodes - 1} were asked for, there are 0 to {OFFICIAL_EPISODES - 1}"
                "; lower --episodes or --seed."
            )
        super().__init__(episodes, seed, instruction)

    def starts(self) -> list[Start]:
        """See the base class."""
        numbers = range(self.seed, self.seed + self.episodes)
        return [Start(number, {"start": number, "settle": SETTLE}, OFFICIAL_STEPS) for number in numbers]

    def _protocol(self) -> str:
        return f"UVA counts 3 random starts of each task and plays 500 steps: {self.benchmark}."


for _suite in LIBERO:  # LIBERO-10 has its classes above
    if _suite != LiberoSuite.benchmark:
        type(f"Suite_{_suite}", (LiberoSuite,), {"name": _suite, "benchmark": _suite})
        type(f"Official_{_suite}", (OfficialLiberoSuite,), {"name": f"{_suite}_official", "benchmark": _suite})


def tasks(suite: str) -> list[tuple[str, str]]:
    """Give name and instruction of each task of a suite, in the benchmark's order.

    Raises:
        ImportError: LIBERO is not installed.
    """
    listed = json.loads((ready("libero").folder / TASKS).read_text())[suite]
    return [(str(name), str(told)) for name, told in listed]
