"""From a pose to joint angles: damped least squares, which refuses what it cannot reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from uva_lightning.robot.chain import Array, Chain
from uva_lightning.robot.errors import NonFinite, Unreachable

STEP_LIMIT = 0.3
"""Largest change of an angle in one iteration, rad: the linearisation holds only nearby."""


@dataclass(frozen=True)
class InverseKinematics:
    """Solve for the joint angles nearest to a start (Nakamura 1986, Levenberg-Marquardt damping).

    Args:
        chain: The arm.
        lower: Smallest angles f64[j], rad.
        upper: Largest angles f64[j], rad.
        iterations: At most.
        tolerance: Residual at which it stops, in m and rad.
        position_limit: Residual above which a pose counts as unreachable, m.
        rotation_limit: The same in rad.
    """

    chain: Chain
    lower: Array
    upper: Array
    iterations: int = 100
    tolerance: float = 1e-9
    position_limit: float = 1e-6
    rotation_limit: float = 1e-6

    def __call__(self, target: Array, start: Array, jump: float | None = None) -> Array:
        """Find the angles f64[j] of a pose.

        Args:
            target: f64[4, 4], in m.
            start: f64[j] to begin from, such as the last command.
            jump: Largest change of an angle from the start that is accepted, rad; any if not given.

        Raises:
            NonFinite: The target or the start has infinite numbers or NaN.
            Unreachable: It is out of reach, beyond a limit, or too far from the start. Nothing is clipped.
        """
        target, start = np.asarray(target, float), np.asarray(start, float)
        if not (np.isfinite(target).all() and np.isfinite(start).all()):
            raise NonFinite("The target pose or the start has numbers that are not finite; nothing was solved.")
        q = self._solve(target, start.clip(self.lower, self.upper))
        position, rotation = (float(np.linalg.norm(part)) for part in np.split(self._error(target, q), 2))
        if position > self.position_limit or rotation > self.rotation_limit:
            raise Unreachable(
                f"The pose at {target[:3, 3].round(3).tolist()} m is missed by {position * 1000:.3g} mm and "
                f"{rotation:.3g} rad, expected at most {self.position_limit * 1000:g} mm and {self.rotation_limit:g} "
                "rad; move it into reach, within the joint limits."
            )
        change = np.abs(q - start)
        if jump is not None and change.max() > jump:
            joint = int(change.argmax())
            raise Unreachable(
                f"Joint {joint + 1} would turn by {change[joint]:.3f} rad, expected at most {jump:g} from where it is; "
                "come nearer in smaller steps."
            )
        return q

    def _solve(self, target: Array, q: Array) -> Array:
        damping, error = 1e-3, self._error(target, q)
        for _ in range(self.iterations):
            if np.abs(error).max() < self.tolerance:
                break
            jacobian = self.chain.jacobian(q)
            inner = jacobian.T @ jacobian
            step = np.linalg.solve(inner + damping * np.eye(len(q)), jacobian.T @ error)
            # an angle at its limit that would leave it takes no part, so that the others can make up for it
            stuck = ((q <= self.lower) & (step < 0)) | ((q >= self.upper) & (step > 0))
            if stuck.any() and not stuck.all():
                free = np.flatnonzero(~stuck)
                step = np.zeros_like(step)
                some = inner[np.ix_(free, free)] + damping * np.eye(len(free))
                step[free] = np.linalg.solve(some, (jacobian.T @ error)[free])
            step *= min(1.0, STEP_LIMIT / max(float(np.abs(step).max()), STEP_LIMIT))
            tried = (q + step).clip(self.lower, self.upper)
            after = self._error(target, tried)
            if after @ after < error @ error:
                q, error, damping = tried, after, max(damping * 0.2, 1e-12)
            else:
                damping *= 5.0
                if damping > 1e6:
                    break
        return q

    def _error(self, target: Array, q: Array) -> Array:
        """What is missing, f64[6]: m, then rad as axis times angle, in the frame of the base."""
        pose = self.chain.forward(q)
        return np.concatenate((target[:3, 3] - pose[:3, 3], rotation_vector(target[:3, :3] @ pose[:3, :3].T)))


def rotation_vector(rotation: Array) -> Array:
    """Turn a matrix f64[3, 3] into axis times angle f64[3], in rad; also near half a turn."""
    skew = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]])
    sine, cosine = 0.5 * float(np.linalg.norm(skew)), 0.5 * (float(np.trace(rotation)) - 1.0)
    angle = float(np.arctan2(sine, cosine))
    if sine > 1e-6:
        return skew * (0.5 * angle / sine)
    if cosine > 0:
        return 0.5 * skew
    outer = 0.25 * (rotation + rotation.T) + 0.5 * np.eye(3)  # axis times axis
    column = int(np.diagonal(outer).argmax())
    axis: Array = outer[:, column] / np.sqrt(outer[column, column])
    return axis * (angle if axis @ skew >= 0 else -angle)


def rotation_angles(rotations: Array) -> Array:
    """Give by how much matrices f64[n, 3, 3] turn, f64[n] in rad."""
    skew = rotations - rotations.transpose(0, 2, 1)
    sines = 0.5 * np.linalg.norm(np.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], axis=1), axis=1)
    angles: Array = np.arctan2(sines, 0.5 * (np.trace(rotations, axis1=1, axis2=2) - 1.0))
    return angles
