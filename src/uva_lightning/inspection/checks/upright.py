"""Pictures the wrong way up, against a reference or against one another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
ENOUGH = 4
"""Episodes that can be compared with one another,"""
RELATED = 0.7
"""where they fit so well in the median: other scenes in each episode do not tell what is upright."""
FEW = 30
"""Episodes up to which each one is left out of the median that it is compared with."""


class Upright(Check):
    """Compare each episode's mean picture, in all ways it may have been turned, with the reference.

    Without one, the median of the other episodes takes its place: this finds those that differ from most others.
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
            if camera in given or not given:
                fits = [compare(mean, reference) for _, mean, reference in self._pairs(camera)]
                if not given and (len(means) < ENOUGH or np.median([fit for _, _, fit in fits]) < RELATED):
                    continue
                for (look, _), (best, lead, _) in zip(means, fits, strict=True):
                    compared += 1
                    if best != "upright" and lead > WRONG:
                        wrong.add(look, what=f"{camera} is {best}")
                    elif best != "upright" or lead < CLEAR:
                        unclear.add(look, what=camera)
        return self._finding(wrong, unclear, compared, bool(given))

    def _pairs(self, camera: str) -> Iterator[tuple[Look, Thumb, Thumb]]:
        """Give each episode's mean picture and what it is compared with."""
        pictures = np.stack([mean for _, mean in self.means[camera]]) if self.means[camera] else np.zeros(0)
        reference = self.subject.references.get(camera)
        if reference is None and len(pictures) > FEW:
            reference = np.median(pictures, axis=0).astype(np.float32)
        for number, (look, mean) in enumerate(self.means[camera]):
            other = reference
            if other is None:
                other = np.median(np.delete(pictures, number, axis=0) if len(pictures) > 1 else pictures, axis=0)
            yield look, mean.astype(np.float32), other.astype(np.float32)

    @staticmethod
    def _finding(wrong: Tally, unclear: Tally, compared: int, given: bool) -> Finding:
        against = "the reference" if given else "one another"
        if not compared:
            return Finding("-", "episodes have too little in common to compare them; give --reference PICTURE")
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


def compare(picture: Thumb, reference: Thumb) -> tuple[str, float, float]:
    """Say which way a picture fits a reference best, both f32[32, 32, 3], by how much better, and how well, up to 1.

    The lead is over the next way; where the picture fits best in a wrong way, it is the one over upright, and 0 if it
    does not fit well at all.
    """
    target = _features(reference)
    fits = {way: float(_features(np.ascontiguousarray(turn(picture))) @ target) for way, turn in TURNS.items()}
    best = max(fits, key=lambda way: fits[way])
    if best != "upright":
        return best, fits[best] - fits["upright"] if fits[best] > ALIKE else 0.0, fits[best]
    return best, fits[best] - max(value for way, value in fits.items() if way != "upright"), fits[best]


def _features(picture: Thumb) -> NDArray[np.float64]:
    """Brightness and colour, and how much they change from place to place; each of mean 0, together of length 1."""
    values = picture.astype(np.float64)
    slope = np.hypot(*np.gradient(values, axis=(0, 1)))
    parts = [part - part.mean(axis=(0, 1)) for part in (values, slope)]
    return np.concatenate([part.ravel() / (np.linalg.norm(part) + 1e-9) for part in parts]) / np.sqrt(2)
