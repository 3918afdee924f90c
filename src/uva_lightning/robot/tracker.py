"""Follow a reference within limits of place, velocity and acceleration, always able to stop before a limit."""

from __future__ import annotations

import numpy as np

from uva_lightning.robot.chain import Array

GAIN = 6.0
"""Share of the remaining way that is made up per second, besides the reference's own velocity."""


class Tracker:
    """Set-points of independent axes, f64[k].

    At every step each axis keeps within its limits, and slow enough that braking at full strength would end before the
    nearest one: ``v dt + v^2 / (2 a)`` is at most what is left of the way. So it can be stopped at any time.

    Args:
        lower: Smallest places f64[k].
        upper: Largest places f64[k].
        velocity: Largest speeds f64[k].
        acceleration: Largest changes of speed per second f64[k].
        period: Between two steps, s.
    """

    def __init__(self, lower: Array, upper: Array, velocity: Array, acceleration: Array, period: float) -> None:
        self.lower, self.upper, self.period = lower, upper, period
        self.velocity_limit, self.acceleration = velocity, acceleration
        self.place, self.velocity = np.zeros_like(lower), np.zeros_like(lower)

    def start(self, place: Array) -> None:
        """Begin at rest; from beyond a limit the only way is back."""
        self.place, self.velocity = np.array(place, float), np.zeros_like(self.lower)

    def wish(self, reference: Array, speed: Array) -> Array:
        """Say how fast to go to follow a reference that moves with a speed, f64[k]."""
        wished: Array = np.clip(
            speed + GAIN * (reference - self.place) * self._near(reference), -self.velocity_limit, self.velocity_limit
        )
        return wished

    def step(self, wished: Array) -> Array:
        """Go on by one period, as near to the wished velocity f64[k] as all limits allow; give the new place."""
        change = wished - self.velocity
        # all axes alike: where old and new velocity keep a limit of the tool, so does what lies between them
        velocity = self.velocity + change / max(1.0, float((np.abs(change) / (self.acceleration * self.period)).max()))
        velocity = np.clip(velocity, -self._fastest(self.place - self.lower), self._fastest(self.upper - self.place))
        velocity = np.clip(velocity, -self.velocity_limit, self.velocity_limit)
        self.velocity = velocity
        low, high = np.minimum(self.lower, self.place), np.maximum(self.upper, self.place)
        self.place = np.clip(self.place + velocity * self.period, low, high)  # for rounding alone
        return self.place

    def _fastest(self, left: Array) -> Array:
        """Speed from which braking ends within what is left, after a period at that speed."""
        lost = self.acceleration * self.period
        fastest: Array = np.maximum(np.sqrt(lost**2 + 2 * self.acceleration * np.maximum(left, 0.0)) - lost, 0.0)
        return fastest

    def _near(self, reference: Array) -> Array:
        """Slow down in time where the reference is far: no overshoot at full braking."""
        left = np.abs(reference - self.place)
        allowed = np.sqrt(2 * self.acceleration * left)
        ratio: Array = np.minimum(1.0, allowed / np.maximum(GAIN * left, 1e-12))
        return ratio
