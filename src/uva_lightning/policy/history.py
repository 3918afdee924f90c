"""What an environment showed lately: a ring buffer of time steps, each frame encoded at most once."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from uva_lightning.policy.contract import ContractError
from uva_lightning.types import DataSpec

JITTER = 0.25
"""Part of a control step by which a time stamp may lie beside the grid of control steps."""
DRIFT = 0.1
"""Share by which the rate of observations may differ from that of training."""
MEASURABLE = 8
"""Control steps over which the rate is measured."""


@dataclass
class TimeStep:
    """One observation.

    Attributes:
        step: Control step.
        time: In s, by the clock of the observations.
        video: u8[H, W, 3] per camera.
        state: f32[p] per entry.
        action: f32[a], the action before the first of the chunk that follows from here; None where not told.
        moments: [s, m] per camera, from the first use on.
    """

    step: int
    time: float
    video: Mapping[str, NDArray[np.uint8]]
    state: Mapping[str, NDArray[np.float32]]
    action: NDArray[np.float32] | None = None
    moments: dict[str, Tensor] = field(default_factory=dict)


class History:
    """Time steps of one environment since its last reset, as far as a policy looks back.

    Before the first step of an episode the first observation is repeated, as in training. Where an observation was
    dropped the one before it stands in, if it is no older than ``patience``.

    Args:
        spec: Contract of the checkpoint.
        patience: Control steps by which an earlier observation may stand in for a missing one.
        every: Control steps from one observation to the next, where they have neither number nor time.
    """

    def __init__(self, spec: DataSpec, patience: int, every: int) -> None:
        self.spec, self.patience, self.every = spec, patience, every
        self._steps: deque[TimeStep] = deque()
        self._first = 0

    def __len__(self) -> int:
        """Time steps held."""
        return len(self._steps)

    @property
    def now(self) -> TimeStep:
        """The newest time step.

        Raises:
            ContractError: There is none.
        """
        if not self._steps:
            raise ContractError(
                "There is no observation yet, the policy decides from at least one; give an observation first."
            )
        return self._steps[-1]

    def add(
        self,
        video: Mapping[str, NDArray[np.uint8]],
        state: Mapping[str, NDArray[np.float32]],
        step: int | None = None,
        time: float | None = None,
        action: NDArray[np.float32] | None = None,
    ) -> None:
        """Take an observation; arrays are copied. The newest one may be given again.

        Raises:
            ContractError: It is older than the newest one, or its time does not fit the control rate of training.
        """
        step, time = self._place(step, time)
        if self._steps and step == self.now.step:
            self._same(video)
            return
        self._first = step if not self._steps else self._first
        copied = {name: np.array(picture, dtype=np.uint8) for name, picture in video.items()}
        numbers = {name: np.array(values, dtype=np.float32) for name, values in state.items()}
        last = None if action is None else np.array(action, dtype=np.float32)
        self._steps.append(TimeStep(step, time, copied, numbers, last))
        oldest = step - self.spec.horizon + 1
        while len(self._steps) > 1 and self._steps[1].step <= oldest:  # the one before may stand in for the oldest
            self._steps.popleft()

    def frames(self) -> list[TimeStep]:
        """Give the time steps whose frames the policy sees, oldest first.

        Raises:
            ContractError: Observations are missing.
        """
        spec = self.spec
        return [self._at(self.now.step + offset) for offset in range(-(spec.frames - 1) * spec.stride, 1, spec.stride)]

    def states(self) -> list[TimeStep]:
        """Give the time steps whose state the policy sees, oldest first.

        Raises:
            ContractError: Observations are missing.
        """
        if self.spec.proprio_steps == self.spec.frames:
            return self.frames()
        return [self._at(self.now.step + offset) for offset in range(1 - self.spec.horizon, 1)]

    def actions(self) -> NDArray[np.float32] | None:
        """Give the actions before the chunk, f32[h, a]; None where they were not told, or not all of them."""
        told = {entry.step: entry.action for entry in self._steps if entry.action is not None}
        oldest = self.now.step - self.spec.horizon + 1
        if not told or min(told) > max(oldest, self._first + 1):
            return None
        rows = []
        for step in range(oldest, self.now.step + 1):
            wanted = max(step, min(told))  # before the first action it is repeated, as in training
            found = next((told[at] for at in range(wanted, wanted - self.patience - 1, -1) if at in told), None)
            if found is None:
                return None
            rows.append(found)
        return np.stack(rows)

    def _at(self, step: int) -> TimeStep:
        """Give a time step, or the one before it that stands in."""
        if step <= self._first:
            step = self._first
        earlier = [entry for entry in self._steps if entry.step <= step]
        if earlier and step - earlier[-1].step <= self.patience:
            return earlier[-1]
        near = f"the last one before it is of step {earlier[-1].step}" if earlier else "there is none before it"
        raise ContractError(
            f"The history has no observation of step {step}, {self.now.step - step} before now, and {near}; the "
            f"checkpoint was trained with frames every {self.spec.stride} steps at {self.spec.rate_hz:g} Hz: observe() "
            "every step, or at least these, or reset() where an episode begins."
        )

    def _place(self, step: int | None, time: float | None) -> tuple[int, float]:
        """Find control step and time of an observation."""
        rate = self.spec.rate_hz
        if not self._steps:
            first = 0 if step is None else step
            return first, first / rate if time is None else time
        now, allowed = self.now, JITTER
        if time is None:
            step = now.step + self.every if step is None else step
            self._check_later(step)
            return step, now.time + (step - now.step) / rate
        passed = (time - now.time) * rate
        if step is None:
            step = now.step + round(passed)
        else:
            allowed += DRIFT * (step - now.step)
        self._check_later(step)
        if abs(passed - (step - now.step)) > allowed:
            raise ContractError(
                f"The observation came {passed / rate:.3f} s after the one before it, which is {passed:.2f} control "
                f"steps and not {step - now.step or 1}; the checkpoint was trained at {rate:g} Hz: observe at that "
                "rate, or every so many steps."
            )
        span, oldest = step - self._steps[0].step, self._steps[0].time
        if span >= MEASURABLE and abs(span / rate - (time - oldest)) > DRIFT * span / rate:
            raise ContractError(
                f"The last {span} observations came at {span / (time - oldest):.1f} Hz, the checkpoint was trained at "
                f"{rate:g} Hz; run the control loop at that rate."
            )
        return step, time

    def _check_later(self, step: int) -> None:
        if step < self.now.step:
            raise ContractError(
                f"The observation is of step {step} and the one before it of step {self.now.step}, expected a later "
                "one; call reset() where an episode begins."
            )

    def _same(self, video: Mapping[str, NDArray[np.uint8]]) -> None:
        for name, picture in video.items():
            if not np.array_equal(picture, self.now.video[name]):
                raise ContractError(
                    f"There are two observations of step {self.now.step} with different pictures of '{name}', expected "
                    f"one per control step at {self.spec.rate_hz:g} Hz; observe at that rate, or number the steps."
                )


def stacked(rows: Sequence[NDArray[np.float32] | None], spec: DataSpec) -> dict[str, NDArray[np.float32]]:
    """Put past actions of several environments into one window; those not told become zeros that are not known."""
    empty = np.zeros((spec.horizon, spec.action_dim), dtype=np.float32)
    return {
        "past": np.stack([empty if row is None else row for row in rows]),
        "known": np.array([row is not None for row in rows]),
    }
