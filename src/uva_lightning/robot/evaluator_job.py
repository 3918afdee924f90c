"""What trainer and evaluator tell each other, as files that are whole or absent: jobs one way, results the other.

``FOLDER/jobs/step_00000500/`` holds ``job.json`` and, for a trained model, ``weights.ckpt``;
``FOLDER/results/step_00000500/`` holds ``result.json`` and films; ``FOLDER/episodes/`` recordings, where the bench is
not one that has its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from uva_lightning.results import write_json
from uva_lightning.robot.benches.base import Bench
from uva_lightning.robot.benches.drivers import Driver
from uva_lightning.robot.control import Control
from uva_lightning.robot.errors import RobotConfigError

JOBS, RESULTS, EPISODES = "jobs", "results", "episodes"
JOB, WEIGHTS, RESULT, FILM = "job.json", "weights.ckpt", "result.json", "film.gif"
CLASSES = ("bench", "driver")
"""Entries of a job that are objects of a class of choice."""


@dataclass(frozen=True)
class Job:
    """Episodes to run.

    Args:
        step: Of the training whose weights these are.
        bench: Where.
        driver: What drives.
        control: Its pace.
        episodes: How many.
        seed: Of scenes and noise; the same for every job of a run, so that its steps can be compared.
        budget: Longest time for all episodes, s.
        films: Episodes of which a film is kept, the first ones.
        faults: Of the arm, after which no further episode begins.
        dry_run: Whether nothing is sent to the arm.
    """

    step: int
    bench: Bench
    driver: Driver
    control: Control
    episodes: int = 5
    seed: int = 0
    budget: float = 900.0
    films: int = 2
    faults: int = 2
    dry_run: bool = True

    @property
    def name(self) -> str:
        """Name of its folders."""
        return f"step_{self.step:08d}"

    def record(self) -> dict[str, Any]:
        """Give it as plain values.

        Raises:
            RobotConfigError: A part of it is no dataclass of plain values.
        """
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: recipe(value) if name in CLASSES else plain(value, name) for name, value in found.items()}

    def write(self, folder: Path) -> None:
        """Write it into its folder."""
        write_json(folder / JOB, self.record())

    @classmethod
    def parsed(cls, content: Mapping[str, Any]) -> Job:
        """Build it from plain values.

        Raises:
            RobotConfigError: They do not describe one.
        """
        parser = ArgumentParser(exit_on_error=False)
        for name, base in (("bench", Bench), ("driver", Driver)):
            parser.add_subclass_arguments(base, name, required=True)
        parser.add_argument("--control", type=Control)
        numbers = {field.name: type(field.default) for field in fields(cls) if isinstance(field.default, int | float)}
        for name, kind in {"step": int, **numbers}.items():
            parser.add_argument(f"--{name}", type=kind, required=True)
        try:
            parts = parser.instantiate(parser.parse_object(dict(content)))
        except (ArgumentError, TypeError, ValueError) as error:
            raise RobotConfigError(f"The job cannot be built again from {dict(content)}: {error}") from error
        return cls(**{field.name: parts[field.name] for field in fields(cls)})

    @classmethod
    def read(cls, folder: Path) -> Job:
        """Read it from its folder."""
        return cls.parsed(json.loads((folder / JOB).read_text()))


def recipe(made: object) -> dict[str, Any]:
    """Say how to build an object anew: its class and the values of its fields."""
    if not is_dataclass(made) or isinstance(made, type):
        raise RobotConfigError(
            f"{type(made).__name__} is no dataclass, expected one: the process in which episodes run builds it anew "
            "from its fields."
        )
    where = f"{type(made).__module__}.{type(made).__qualname__}"
    return {"class_path": where, "init_args": plain(made, type(made).__name__)}


def plain(value: object, name: str) -> Any:
    """Turn dataclasses, mappings and sequences into what JSON has.

    Raises:
        RobotConfigError: There is something else in it.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name), f"{name}.{field.name}") for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(entry, f"{name}.{key}") for key, entry in value.items()}
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Sequence):
        return [plain(entry, f"{name}[{number}]") for number, entry in enumerate(value)]
    raise RobotConfigError(f"{name} is a {type(value).__name__}, expected numbers, text, lists or mappings.")


def waiting(folder: Path) -> list[Path]:
    """Give the jobs that are not done, the oldest first."""
    return sorted(path.parent for path in (folder / JOBS).glob(f"step_*/{JOB}"))
