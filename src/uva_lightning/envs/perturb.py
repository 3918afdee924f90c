"""Visual perturbations: what looks different and does not matter to the task (UVA section 4.3).

``make("pusht:goal_color")`` gives Push-T with another look, drawn by the simulator itself. The changes ``picture_...``
are made to finished pictures and work for any environment. The paper does not tell its colours; these are ours.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from uva_lightning.envs.look import Colour, Look

Picture = NDArray[np.uint8]
Floor = NDArray[np.bool_]

LIGHT_BLUE, LIGHT_RED, BROWN, VIOLET = (173, 216, 230), (240, 128, 128), (160, 82, 45), (123, 104, 238)
LOOKS: dict[str, Look] = {
    "background_color": Look(floor=LIGHT_BLUE),
    "background_object": Look(
        objects=(
            (BROWN, ((60, 60), (130, 45), (145, 115), (75, 130))),
            (VIOLET, ((390, 420), (470, 400), (450, 480))),
        )
    ),
    "goal_color": Look(goal=LIGHT_RED),
}
"""Looks that a simulator draws, by name; polygons in px of Push-T's plane of 512 px."""
NEAR = 24
"""Largest difference of a channel from the most frequent colour, of 255, within which a pixel belongs to the floor."""
_LEVELS = 16  # of 255, within which colours count as one when the most frequent one is looked for
_TRIES = 64
_LUMA = np.array([0.299, 0.587, 0.114])


class PictureEdit(ABC):
    """A change of finished pictures u8[H, W, 3], the same through an episode."""

    @abstractmethod
    def begin(self, first: Picture, seed: int) -> None:
        """Look at the first picture of an episode; what is random follows from its seed."""

    @abstractmethod
    def __call__(self, picture: Picture) -> Picture:
        """Give the changed picture; the given one is left alone."""


class FloorColor(PictureEdit):
    """Shift the colour of the floor, which is the most frequent one of the first picture.

    Args:
        colour: What it becomes, RGB.
    """

    def __init__(self, colour: Colour = LIGHT_BLUE) -> None:
        self.colour = np.array(colour, dtype=np.int16)

    def begin(self, first: Picture, seed: int) -> None:
        """Find the floor."""
        self._floor = most_frequent(first)

    def __call__(self, picture: Picture) -> Picture:
        """See the base class."""
        shifted = picture + (self.colour - self._floor)
        mixed = np.where(floor_of(picture, self._floor)[..., None], shifted, picture)
        return mixed.clip(0, 255).astype(np.uint8)


class FloorObject(PictureEdit):
    """Lay a square on the floor where the first picture shows little else; what passes over it hides it.

    Args:
        colour: Of the square, RGB.
        size: Its side as a share of the picture's.
    """

    def __init__(self, colour: Colour = BROWN, size: float = 0.16) -> None:
        if not 0 < size < 1:
            raise ValueError(f"size is {size}, expected a share of the picture's side between 0 and 1.")
        self.colour, self.size = np.array(colour, dtype=np.uint8), size

    def begin(self, first: Picture, seed: int) -> None:
        """Choose the place, one of those drawn that has most floor."""
        self._floor = most_frequent(first)
        height, width = first.shape[:2]
        side = max(1, round(self.size * min(height, width)))
        drawn = np.random.default_rng(seed).integers(0, (height - side + 1, width - side + 1), (_TRIES, 2))
        free = floor_of(first, self._floor)
        row, column = max(drawn.tolist(), key=lambda at: free[at[0] : at[0] + side, at[1] : at[1] + side].sum())
        self._place = slice(row, row + side), slice(column, column + side)

    def __call__(self, picture: Picture) -> Picture:
        """See the base class."""
        changed = picture.copy()
        patch = changed[self._place]
        patch[floor_of(patch, self._floor)] = self.colour
        return changed


class Hue(PictureEdit):
    """Turn all hues; brightness and greys stay.

    Args:
        turn: Share of the whole circle: a third makes red green and green blue.
    """

    def __init__(self, turn: float = 1 / 3) -> None:
        axis, angle = np.ones(3) / np.sqrt(3), 2 * np.pi * turn
        cross = np.cross(axis, np.eye(3))
        self._matrix = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * np.outer(axis, axis)

    def begin(self, first: Picture, seed: int) -> None:
        """All episodes are changed alike."""

    def __call__(self, picture: Picture) -> Picture:
        """See the base class."""
        brightness = picture @ _LUMA
        turned = picture @ self._matrix
        turned += (brightness - turned @ _LUMA)[..., None]
        return turned.round().clip(0, 255).astype(np.uint8)


EDITS: dict[str, Callable[[], PictureEdit]] = {
    "picture_background_color": FloorColor,
    "picture_background_object": FloorObject,
    "picture_hue": Hue,
}
"""Changes of the pictures of any environment, by name."""


class Pictured(gym.Wrapper[Any, Any, Any, Any]):
    """Change the pictures of an environment, those of each of its cameras by an edit of its own.

    Args:
        env: Draws; one with several cameras has ``cameras``, and draws the one that its attribute ``camera`` names.
        edit: Makes an edit.
    """

    def __init__(self, env: gym.Env[Any, Any], edit: Callable[[], PictureEdit]) -> None:
        super().__init__(env)
        self.edits = {camera: edit() for camera in getattr(env.unwrapped, "cameras", (None,))}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        for camera, edit in self.edits.items():
            if camera is not None:
                self.env.unwrapped.camera = camera  # type: ignore[attr-defined]
            edit.begin(np.asarray(self.env.render(), dtype=np.uint8), seed or 0)
        return observation, info

    def render(self) -> Picture:  # always a picture
        """Draw the scene, changed."""
        edit = self.edits[getattr(self.env.unwrapped, "camera", None)]
        return edit(np.asarray(self.env.render(), dtype=np.uint8))


def perturbed(env: gym.Env[Any, Any], name: str, change: str) -> gym.Env[Any, Any]:
    """Give an environment another look.

    Args:
        env: As ``make`` makes it.
        name: What it is called, for messages.
        change: Name of a look or of a change of pictures.

    Raises:
        ValueError: There is no such change for this environment.
    """
    if change in EDITS:
        return Pictured(env, EDITS[change])
    known = [*(LOOKS if hasattr(env.unwrapped, "look") else ()), *EDITS]
    if change not in known:
        near = difflib.get_close_matches(change, known, n=1)
        hint = f"; did you mean '{name}:{near[0]}'?" if near else "."
        raise ValueError(f"'{name}' has no change '{change}', only {', '.join(known)}{hint}")
    env.unwrapped.look = LOOKS[change]  # type: ignore[attr-defined]
    return env


def most_frequent(picture: Picture) -> NDArray[np.int16]:
    """Give the most frequent colour of u8[H, W, 3], i16[3]; the mean of those that are nearly alike."""
    pixels = picture.reshape(-1, 3)
    kinds = (pixels // _LEVELS) @ np.array([1, _LEVELS, _LEVELS**2])
    chosen = pixels[kinds == np.bincount(kinds).argmax()]
    return chosen.mean(axis=0).round().astype(np.int16)


def floor_of(picture: Picture, colour: NDArray[np.int16]) -> Floor:
    """Tell which pixels of u8[H, W, 3] have nearly this colour: bool[H, W]."""
    near: Floor = (np.abs(picture.astype(np.int16) - colour) <= NEAR).all(axis=-1)
    return near
