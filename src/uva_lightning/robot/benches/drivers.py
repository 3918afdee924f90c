"""What drives the arm in an episode: the model that is being trained, or a script that needs no model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from uva_lightning.robot.benches.base import Bench, Session
from uva_lightning.robot.control import Control
from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.robot.reaching import ReachingPolicy
from uva_lightning.robot.rollout import ChunkPolicy
from uva_lightning.robot.sight import History
from uva_lightning.robot.tool_poses import ACTION
from uva_lightning.types import DataSpec

SEEN = {"eef_pos": 3, "eef_rot": 6, "gripper_width": 1, "eef_rot_wrt_start": 6}
"""Widths of what an arm can say of itself, see ``tool_poses.proprioception``."""


@dataclass
class Driving:
    """A policy that is ready to drive.

    Args:
        policy: Decides.
        control: Its pace.
        history: What it sees.
        constant: Further entries of every observation.
    """

    policy: ChunkPolicy
    control: Control
    history: History
    constant: Mapping[str, Any] = field(default_factory=dict)


class Driver(ABC):
    """Makes a policy, in the process in which episodes run. Subclass it as a dataclass of plain values."""

    trained = True  # no annotation: jsonargparse would look it up in the modules of subclasses
    """Whether it needs the weights of the model."""

    @abstractmethod
    def check(self, bench: Bench, control: Control, spec: DataSpec) -> None:
        """Refuse a bench or a model with which it cannot drive, before training begins.

        Raises:
            RobotConfigError: It cannot.
        """

    @abstractmethod
    def build(self, session: Session, control: Control, weights: Path, seed: int) -> Driving:
        """Make the policy.

        Args:
            session: Where it will drive.
            control: Pace that is asked for.
            weights: Checkpoint with the averaged weights, where ``trained``.
            seed: Of its noise.
        """


@dataclass(frozen=True)
class TrainedModel(Driver):
    """The model that is being trained, with its averaged weights.

    Args:
        device: Where it runs: ``cpu``, or a GPU that training leaves free.
        instruction: What it is told, where it was trained with instructions.
        set: Of a mixture, the data set that is like the bench; the only one with actions if not given.
    """

    device: str = "cpu"
    instruction: str | None = None
    set: str | None = None

    def check(self, bench: Bench, control: Control, spec: DataSpec) -> None:
        """See the base class."""
        spec = spec.of(self.set)
        if spec.action_dim != ACTION or dict(spec.state_dims) != SEEN:
            raise RobotConfigError(
                f"The model has actions of {spec.action_dim} numbers and proprioception {dict(spec.state_dims)}, the "
                f"arm expects {ACTION} and {SEEN}; train on data of UMI's kind."
            )
        if missing := sorted(set(spec.cameras) - set(bench.camera_names)):
            raise RobotConfigError(
                f"The model sees cameras {list(spec.cameras)}, the bench has {list(bench.camera_names)}; name "
                f"'{missing[0]}' in bench.cameras."
            )
        if bool(spec.text_dim) != (self.instruction is not None):
            told = "without" if self.instruction is None else "with"
            trained = "with" if spec.text_dim else "without"
            raise RobotConfigError(
                f"The driver is {told} an instruction, the model is trained {trained} them; set or remove "
                "driver.instruction."
            )
        self._paced(control, spec)

    def build(self, session: Session, control: Control, weights: Path, seed: int) -> Driving:
        """See the base class."""
        from uva_lightning.model.checkpoint import load_module
        from uva_lightning.policy.windows import WindowPolicy

        module, data = load_module(weights)
        policy = WindowPolicy(module.to(self.device).eval(), seed, set=self.set)
        spec, constant = policy.spec, {}
        if self.instruction is not None:
            text = data.chosen(module.spec.chosen(self.set)).text
            if text is None:
                raise RobotConfigError("The model was trained without instructions; remove driver.instruction.")
            constant = {"text": {"instruction": text.embed([self.instruction]).float().cpu().numpy()}}
        session.cameras = [camera for camera in session.cameras if camera.name in spec.cameras]
        history = History(spec.frames, spec.stride, spec.proprio_steps, spec.image_size)
        return Driving(policy, self._paced(control, spec), history, constant)

    def _paced(self, control: Control, spec: DataSpec) -> Control:
        """Take from the data how long a chunk is and when it begins."""
        return replace(control, predict=spec.horizon, shift=int("chunk" in spec.conventions))


@dataclass(frozen=True)
class Reaching(Driver):
    """The script that fetches the cube: proof that all around a policy works, and what a good policy would reach.

    Args:
        speed: Of the tool in the middle of a way, m/s.
    """

    trained = False

    speed: float = 0.12

    def check(self, bench: Bench, control: Control, spec: DataSpec) -> None:
        """See the base class."""
        if not bench.knows_cube:
            raise RobotConfigError(
                f"{type(bench).__name__} does not know where the cube is, Reaching has to; use SimBench or another "
                "driver."
            )

    def build(self, session: Session, control: Control, weights: Path, seed: int) -> Driving:
        """See the base class."""
        if session.cube is None:
            raise RobotConfigError("The bench does not know where the cube is, Reaching has to; use SimBench.")

        station = session.station
        policy = ReachingPolicy(
            lambda: station.model.chain.forward(station.state().q),
            session.cube,
            control,
            session.clock,
            speed=self.speed,
        )
        return Driving(policy, control, History(frames=1, states=1, image_side=None))
