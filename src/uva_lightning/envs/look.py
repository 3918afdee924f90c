"""How a scene looks apart from what matters to its task; drawn by the simulators that have an attribute ``look``."""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[int, int, int]
Polygon = tuple[tuple[float, float], ...]

WHITE, GREEN = (255, 255, 255), (144, 238, 144)


@dataclass(frozen=True)
class Look:
    """Colours, and things that lie around.

    Args:
        floor: Colour of the background, RGB.
        goal: Colour of the goal.
        objects: Things on the floor that nothing collides with, drawn below all else: colour and corners in the
            simulator's units.
    """

    floor: Colour = WHITE
    goal: Colour = GREEN
    objects: tuple[tuple[Colour, Polygon], ...] = ()
