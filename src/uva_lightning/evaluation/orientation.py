"""How recorded pictures must be turned to look like the simulator's: upside down, mirrored, red for blue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]

UPRIGHT = "alike"
"""Name of the way that changes nothing."""
CLEARLY = 0.8
"""Share of the difference as recorded below which another way counts as the one in which they were recorded."""

_TURNS: dict[str, Callable[[Pictures], Pictures]] = {
    "": lambda p: p,
    "upside down (rows in reverse order)": lambda p: p[:, ::-1],
    "mirrored (columns in reverse order)": lambda p: p[:, :, ::-1],
    "turned by 180 degrees": lambda p: p[:, ::-1, ::-1],
    "with rows and columns swapped": lambda p: p.swapaxes(1, 2),
    "turned by 90 degrees": lambda p: p.swapaxes(1, 2)[:, ::-1],
    "turned by 270 degrees": lambda p: p.swapaxes(1, 2)[:, :, ::-1],
    "mirrored at the other diagonal": lambda p: p.swapaxes(1, 2)[:, ::-1, ::-1],
}
_COLOURS: dict[str, Callable[[Pictures], Pictures]] = {"": lambda p: p, "red and blue swapped": lambda p: p[..., ::-1]}


def differences(recorded: Pictures, simulated: Pictures) -> dict[str, float]:
    """Compare pictures in every way in which they are confused.

    Args:
        recorded: u8[n, S, S, 3].
        simulated: u8[n, S, S, 3], of the same moments.

    Returns:
        Mean absolute difference, 0 to 255, by the way in which the recorded ones are changed.
    """
    truth, found = simulated.astype(np.int16), {}
    for (turn, turned), (colour, coloured) in product(_TURNS.items(), _COLOURS.items()):
        name = ", ".join(part for part in (turn, colour) if part) or UPRIGHT
        found[name] = float(np.abs(coloured(turned(recorded)).astype(np.int16) - truth).mean())
    return found


def likeliest(found: Mapping[str, float]) -> str:
    """Name the way in which the pictures were recorded; ``UPRIGHT`` unless another one is clearly nearer."""
    best = min(found, key=lambda name: found[name])
    return best if found[best] < CLEARLY * found[UPRIGHT] else UPRIGHT
