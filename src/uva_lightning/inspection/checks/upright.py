"""Pictures the wrong way up, against a reference or against one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from uva_lightning.inspection.checks.base import Check, Finding, Tally
from uva_lightning.inspection.subject import Look, Subject

Thumb = NDArray[np.float32]

TURNS: Mapping[str, Callable[[Thumb], Thumb]] = {
    "upright": lambda picture: picture,
    "upside down": lambda picture: picture[::-1],
    "mirrored": lambda picture: picture[:, ::-1],
    "turned by 180 degrees": lambda picture: picture[::-1, ::-1],
    "turned to the left": lambda picture: np.rot90(picture, 1),
    "turned to the right": lambda picture: np.rot90(picture, -1),
}
"""What may have happened to the pictures; undone or done again, the comparison is the same but for quarter turns."""
CLEAR = 0.02
"""Correlations that differ by less do not tell two ways apart."""
WRONG, ALIKE = 0.1, 0.4
"""Another way must fit by so much better, and so well, before an episode is called wrong."""
ENOUGH = 3


class Upright(Check):
    """Compare each episode's mean picture, in all ways it may have been turned, with the reference.

    Without one, the median of all episodes takes its place: this finds those that differ from most others.
    """

    title: ClassVar[str] = "upright pictures"

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.means: dict[str, list[tuple[Look, Thumb]]] = {camera: [] for camera in subject.store.video}

    def see(self, look: Look) -> None:
        """Keep the mean picture, which is small."""
        for camera, shots in look.shots.items():
            self.means[camera].append((Look(look.episode, look.name, {}, {}), np.rint(shots.mean).astype(np.uint8)))

    def finish(self) -> Finding:
        """See the base class."""
        wrong, unclear, compared = Tally(), Tally(), 0
        given = self.subject.references
        for camera, means in self.means.items():
            reference = given.get(camera)
            if reference is None:
                if given or len(means) < ENOUGH:
                    continue
                reference = np.median([mean for _, mean in means], axis=0).astype(np.float32)
            for look, mean in means:
                compared += 1
                best, lead = compare(mean.astype(np.float32), reference)
                if best != "upright" and lead > WRONG:
                    wrong.add(look, what=f"{camera} is {best}")
                elif best != "upright" or lead < CLEAR:
                    unclear.add(look, what=camera)
        return self._finding(wrong, unclear, compared, bool(given))

    @staticmethod
    def _finding(wrong: Tally, unclear: Tally, compared: int, given: bool) -> Finding:
        against = "the reference" if given else "one another"
        if not compared:
            return Finding("-", "nothing to compare with; give --reference PICTURE")
        if wrong.count:
            return Finding(
                "FAIL",
                f"pictures the wrong way up, compared with {against}",
                wrong.count,
                wrong.first,
                "turn them in read() (datamodules/pictures.py: Flipped), or leave the episodes out",
            )
        if given and 2 * unclear.count > compared:
            return Finding(
                "warn",
                "the reference fits as well the other way round",
                unclear.count,
                unclear.first,
                "give a picture of the same scene that is less symmetrical",
            )
        return Finding("ok", f"{compared - unclear.count} of {compared} are clearly upright against {against}")


def compare(picture: Thumb, reference: Thumb) -> tuple[str, float]:
    """Say which way a picture fits a reference best, both f32[32, 32, 3], and by how much better than the next.

    Where it fits best in a wrong way, the lead is the one over upright, and 0 if it does not fit well at all.
    """
    target = _features(reference)
    fits = {way: float(_features(np.ascontiguousarray(turn(picture))) @ target) for way, turn in TURNS.items()}
    best = max(fits, key=lambda way: fits[way])
    if best != "upright":
        return best, fits[best] - fits["upright"] if fits[best] > ALIKE else 0.0
    return best, fits[best] - max(value for way, value in fits.items() if way != "upright")


def _features(picture: Thumb) -> NDArray[np.float64]:
    """Brightness and colour, and how much they change from place to place; each of mean 0, together of length 1."""
    values = picture.astype(np.float64)
    slope = np.hypot(*np.gradient(values, axis=(0, 1)))
    parts = [part - part.mean(axis=(0, 1)) for part in (values, slope)]
    return np.concatenate([part.ravel() / (np.linalg.norm(part) + 1e-9) for part in parts]) / np.sqrt(2)
