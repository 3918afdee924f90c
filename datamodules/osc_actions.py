"""Actions of robosuite's operational-space controller: absolute targets and relative commands must not be mixed up.

Both are seven numbers, and files do not say which: robomimic's ``image_abs.hdf5`` still describes the relative
controller. What tells them apart is the hand: an absolute target lies within a few centimetres of it, whereas relative
commands lie around 0 and never leave [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from uva_lightning.datamodules.faults import Broken
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.rotations import from_axis_angle, to_six

Meaning = Literal["absolute", "delta"]
WIDTH = 7
POSITION = slice(0, 3)
REACH = 0.12
"""Farthest target from the hand in m: the controller goes at most 0.05 m along each axis in a step, 0.087 in all."""
MOST = 0.95
"""Share of the steps that must be near the hand."""
ATTRIBUTE = "actions_are"
"""Attribute of ``data`` in files that ``uva convert libero_absolute`` has written."""


@dataclass(frozen=True)
class OscActions:
    """Reads the actions of a demonstration and refuses those that mean something else.

    Args:
        meaning: What they must be. Absolute ones, position, axis-angle and gripper, become position, rotation-6d
            (first two rows of the matrix) and gripper, f32[n, 10]; relative ones stay f32[n, 7].
        hand: Field with the position of the hand in m.
        fix: What to do about files of the other kind.
        checked: Whether to look at the numbers at all; the attribute of converted files is always heeded.
    """

    meaning: Meaning
    hand: str
    fix: str
    checked: bool = True

    def __call__(self, demo: Any, where: str) -> NDArray[np.float32]:
        """Give f32[n, 10] or f32[n, 7].

        Raises:
            Broken: There are not seven numbers.
            ValueError: They are of the other kind, which is never one demonstration's fault alone.
        """
        actions = np.asarray(demo["actions"][:], dtype=np.float64)
        if actions.ndim != 2 or actions.shape[1] != WIDTH:
            raise Broken(
                f"{where} has actions {list(actions.shape)}, expected [n, {WIDTH}]: position, axis-angle, gripper."
            )
        if np.isfinite(actions).all():  # otherwise the reader says so
            hand = np.asarray(demo[self.hand][:]) if self.hand in demo else None
            self._check(actions, hand, demo.parent.attrs.get(ATTRIBUTE), where)
        return to_ten(actions) if self.meaning == "absolute" else actions.astype(np.float32)

    def _check(self, actions: NDArray[Any], hand: NDArray[Any] | None, stated: str | None, where: str) -> None:
        found = stated or (guess(actions, hand) if self.checked else self.meaning)
        if found == self.meaning:
            return
        low, high = actions[:, POSITION].min(), actions[:, POSITION].max()
        seen = f"the first three from {low:.2f} to {high:.2f}"
        if hand is not None:
            seen += f", {np.median(distance(actions, hand)):.2f} m from the hand in the middle"
        if found is None:
            raise ValueError(
                f"{where} does not show whether its actions are absolute or relative ({seen}), expected "
                f"{self.meaning} ones; if you know that they are, set data.files.check_actions=false."
            )
        raise ValueError(f"{where} has {found} actions ({seen}), expected {self.meaning} ones; {self.fix}")


def guess(actions: NDArray[Any], hand: NDArray[Any] | None) -> Meaning | None:
    """Tell what actions f[n, 7] are from their numbers, or None where these do not show it.

    Args:
        actions: f[n, 7].
        hand: f[n, 3] in m; without it only numbers beyond [-1, 1] tell something.
    """
    commands = np.abs(actions[:, POSITION]).max(initial=0) <= 1
    if hand is None or len(hand) != len(actions):
        return None if commands else "absolute"
    if (distance(actions, hand) <= REACH).mean() >= MOST:
        return "absolute"
    return "delta" if commands else None


def distance(actions: NDArray[Any], hand: NDArray[Any]) -> NDArray[np.float64]:
    """Measure how far from the hand the first three numbers would be as a position: f64[n] in m."""
    lengths: NDArray[np.float64] = np.linalg.norm(actions[:, POSITION] - hand[:, :3], axis=1)
    return lengths


def following(store: EpisodeStore) -> EpisodeStore:
    """Give each frame the action after it, f32[n, a], where frames were recorded after their action.

    The last frame of an episode keeps its own, which is the best that is known.
    """
    if store.action is None:
        return store
    rows = np.minimum(np.arange(store.steps) + 1, np.repeat(store.ends - 1, store.lengths))
    return replace(store, action=store.action[rows])


def to_ten(actions: NDArray[Any]) -> NDArray[np.float32]:
    """Turn position, axis-angle and gripper f[n, 7] into position, rotation-6d and gripper f32[n, 10], as UVA."""
    place, turn, gripper = torch.from_numpy(np.asarray(actions, dtype=np.float64)).split((3, 3, 1), dim=-1)
    ten: NDArray[np.float32] = torch.cat((place, to_six(from_axis_angle(turn)), gripper), dim=-1).float().numpy()
    return ten
