"""Who is evaluated: policies at the other end of a network, and baselines; ``checkpoints.py`` has trained models."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from uva_lightning.action_space import ActionSpace
from uva_lightning.commands.errors import UserError, hint
from uva_lightning.commands.rollout import CHECKPOINTS, TOKEN, run_folder
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.envs.contract import contract_with
from uva_lightning.evaluation.play import Expert
from uva_lightning.evaluation.recordings import Recorded
from uva_lightning.evaluation.replay import Demonstrations, Replay
from uva_lightning.evaluation.suite import Scenario
from uva_lightning.policy.committed import Rest
from uva_lightning.rollouts import Actions, Actor, HoldPosition, Observation
from uva_lightning.types import DataSpec

if TYPE_CHECKING:
    from uva_lightning.serving.keys import Target


class Chunking(Protocol):
    """A policy that continues a chunk under way (real-time chunking, Black 2025)."""

    def act(self, observation: Observation, *, committed: Sequence[Rest]) -> Actions:
        """Decide, given what each robot is committed to."""
        ...


class Contender(ABC):
    """Something that acts.

    Args:
        name: A row of the tables.
        execute: Actions of a chunk that are run.
    """

    expert = False
    """Whether the environment's own expert acts."""
    place = ""
    """Where it is, for people; its episodes do not follow from it."""
    family, training = "", ""
    """Trainings that belong together, and which of them it is of."""

    def __init__(self, name: str, execute: int) -> None:
        self.name, self.execute = name, execute

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Say what it is: all that its episodes follow from."""

    @abstractmethod
    def spec(self, env: str) -> DataSpec:
        """Say what it wants to see of an environment."""

    @abstractmethod
    def actor(self, scenario: Scenario) -> Actor:
        """Give what decides.

        Raises:
            ValueError: It cannot play this.
        """

    def chunking(self, scenario: Scenario) -> Chunking:
        """Give what decides in a scenario and continues a chunk under way.

        Raises:
            ValueError: It cannot.
        """
        raise ValueError(f"{self.name} cannot continue a chunk under way, expected a checkpoint.")

    def close(self) -> None:  # noqa: B027  # most hold nothing
        """Let go of what it holds."""


class Remote(Contender):
    """A policy server, ours or one of openpi's protocol; a token comes from the environment variable ``UVA_TOKEN``.

    Args:
        name: See the base class.
        url: ``ws://HOST:PORT``.
        execute: See the base class.
        keys: For a server that is not ours, our names by its names.
        prompt: Instruction.
    """

    def __init__(self, name: str, url: str, execute: int, keys: Mapping[str, Target] | None, prompt: str) -> None:
        from uva_lightning.serving.remote import RemoteActor

        super().__init__(name, execute)
        self.place, self._asked = url, {"keys": dict(keys or {}), "prompt": prompt}
        self.remote = RemoteActor(url, execute, os.environ.get(TOKEN, ""), keys, prompt)

    def facts(self) -> dict[str, Any]:
        """See the base class."""
        contract = None if self.remote.contract is None else asdict(self.remote.contract)
        server = str(self.remote.metadata.get("server", "unknown"))
        return {"kind": "server", "url": self.remote.url, "server": server, "contract": contract, **self._asked}

    def spec(self, env: str) -> DataSpec:
        """See the base class."""
        return self.remote.contract or contract_with(env, self.execute)

    def actor(self, scenario: Scenario) -> Actor:
        """See the base class."""
        self.remote.prompt = str(self._asked["prompt"] or scenario.instruction)
        return self.remote

    def close(self) -> None:
        """End all sessions."""
        self.remote.reset(0)


class Hold(Contender):
    """Stay where the robot is: what a number is worth."""

    def facts(self) -> dict[str, Any]:
        """See the base class."""
        return {"kind": "baseline", "what": "holds the position it starts at"}

    def spec(self, env: str) -> DataSpec:
        """See the base class."""
        return contract_with(env, self.execute)

    def actor(self, scenario: Scenario) -> Actor:
        """See the base class."""
        spec = self.spec(scenario.env)
        same = [name for name, width in spec.state_dims.items() if width == spec.action_dim]
        if not same:
            raise ValueError(
                f"'{scenario.env}' has the states {dict(spec.state_dims)}, expected one {spec.action_dim} wide as the "
                "actions, to hold; leave the baseline out."
            )
        return HoldPosition(same[0], spec.horizon)


class StateExpert(Contender):
    """The environment's own expert, which sees the state."""

    expert = True

    def facts(self) -> dict[str, Any]:
        """See the base class."""
        return {"kind": "baseline", "what": "scripted expert that sees the state"}

    def spec(self, env: str) -> DataSpec:
        """See the base class."""
        return contract_with(env, self.execute)

    def actor(self, scenario: Scenario) -> Actor:
        """See the base class."""
        spec = self.spec(scenario.env)
        return Expert(spec.horizon, spec.action_dim)


class Replayer(Contender):
    """Repeat demonstrations, through the normaliser that a policy's actions pass.

    Args:
        name: See the base class.
        execute: See the base class.
        path: Where the demonstrations lie.
        data: Reads them.
        space: How the model sees actions.
        recorded: How those that are repeated began, by their numbers.
    """

    def __init__(
        self,
        name: str,
        execute: int,
        path: Path,
        data: RobotDataModule,
        space: ActionSpace,
        recorded: Mapping[int, Recorded],
    ) -> None:
        super().__init__(name, execute)
        self.place, self._data = str(path), data
        self._numbers = {one.start.seed: number for number, one in recorded.items()}
        self._starts = {one.start.seed: one.start for one in recorded.values()}
        self._cut = Demonstrations(data, space)

    def facts(self) -> dict[str, Any]:
        """See the base class."""
        action = self._data.store.action
        known = None if action is None else hashlib.sha256(action.tobytes()).hexdigest()
        return {"kind": "baseline", "what": "repeats the demonstrations", "sha256": known}

    def spec(self, env: str) -> DataSpec:
        """See the base class."""
        return self._data.spec

    def actor(self, scenario: Scenario) -> Actor:
        """See the base class."""
        for start in scenario.starts:
            mine = self._starts.get(start.seed)
            if mine is None or mine.options is not start.options:
                raise ValueError(
                    f"No demonstration begins as seed {start.seed} of '{scenario.name}'; they are repeated in the "
                    "scenario 'demonstrations'."
                )
        return Replay(self._cut, self._numbers, self.execute)


BASELINES: dict[str, type[Contender]] = {"hold": Hold, "expert": StateExpert}


def baseline(name: str, execute: int) -> Contender:
    """Make a baseline by its name."""
    if name not in BASELINES:
        raise UserError(f"There is no baseline '{name}'.{hint(name, BASELINES)}")
    return BASELINES[name](name, execute)


def named(given: str) -> list[tuple[str, str]]:
    """Split ``UVA=a.ckpt,b.ckpt`` into names and the rest; without a name it is that of the run, or the address."""
    found: list[tuple[str, str]] = []
    for one in given.split(","):
        name, equals, value = one.strip().partition("=")
        if not equals or "/" in name or ":" in name:  # paths and addresses may hold one, too
            name, value = called(one.strip()), one.strip()
        found.append((name, value))
    names = [name for name, _ in found]
    if double := {name for name in names if names.count(name) > 1}:
        raise UserError(f"'{sorted(double)[0]}' is named twice in '{given}'; give each a name of its own: NAME=PATH.")
    return found


def called(value: str) -> str:
    """Name a checkpoint by its run, and a server by its address."""
    if "://" in value:
        return value.partition("://")[2]
    path = Path(value)
    return run_folder(path).name if path.parent.name == CHECKPOINTS else path.stem
