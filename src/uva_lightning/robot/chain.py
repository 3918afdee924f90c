"""Geometry of a serial arm: where its links are, how they move with its joints, and what gravity pulls."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

GRAVITY = (0.0, 0.0, -9.807)
"""m/s^2 in the frame of the base, the value of ARX's SDK."""


@dataclass(frozen=True)
class Link:
    """One link with the joint that carries it.

    Args:
        xyz: Place of the joint in the frame of the link before, m.
        rpy: Its orientation, R = Rz(yaw) Ry(pitch) Rx(roll), rad.
        axis: Axis of rotation in the joint's own frame; None where it is fixed.
        mass: Of the link, kg.
        centre: Of its mass, in its own frame, m.
    """

    xyz: Sequence[float]
    rpy: Sequence[float]
    axis: Sequence[float] | None
    mass: float = 0.0
    centre: Sequence[float] = (0.0, 0.0, 0.0)


class Chain:
    """A serial arm; angles are f64[j] in rad, poses f64[4, 4] of the last link in the frame of the base, in m.

    Args:
        links: From the base to the tip.
    """

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = tuple(links)
        self._fixed = [_pose(rpy_matrix(np.asarray(link.rpy, float)), link.xyz) for link in links]
        self.joints = sum(link.axis is not None for link in links)

    @classmethod
    def from_urdf(cls, path: Path | str, base: str = "base_link", tip: str = "eef_link") -> Chain:
        """Read the chain between two links of a URDF.

        Raises:
            ValueError: It is no URDF, has no such link, or has a joint that neither turns nor is fixed.
        """
        try:
            root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError) as error:
            raise ValueError(f"{path} cannot be read as URDF ({error}), expected the XML of a robot.") from error
        above = {_link(joint, "child"): joint for joint in root.iter("joint") if joint.find("child") is not None}
        bodies = {body.get("name"): body for body in root.iter("link")}
        links, name = list[Link](), tip
        while name != base:
            if name not in above:
                raise ValueError(
                    f"{path} has no chain from '{base}' to '{tip}': nothing carries '{name}'; its links are "
                    f"{', '.join(str(known) for known in bodies)}; name two of them."
                )
            links.append(_read(above[name], bodies[name], str(path)))
            name = _link(above[name], "parent")
        return cls(links[::-1])

    def forward(self, q: Array) -> Array:
        """Give the pose of the tip."""
        tip: Array = self.frames(q)[-1]
        return tip

    def frames(self, q: Array) -> Array:
        """Give the poses of all links, f64[k, 4, 4]."""
        return self.frames_along(self._checked(q)[None])[0]

    def frames_along(self, angles: Array) -> Array:
        """Give the poses of all links at many angles f64[n, j] at once, f64[n, k, 4, 4]."""
        pose, found, column = np.broadcast_to(np.eye(4), (len(angles), 4, 4)), list[Array](), 0
        for link, fixed in zip(self.links, self._fixed, strict=True):
            pose = pose @ fixed
            if link.axis is not None:
                turn = np.zeros((len(angles), 4, 4))
                turn[:, 3, 3] = 1.0
                turn[:, :3, :3] = axis_matrices(np.asarray(link.axis, float), angles[:, column])
                pose, column = pose @ turn, column + 1
            found.append(pose)
        return np.stack(found, axis=1)

    def jacobian(self, q: Array) -> Array:
        """Give the velocity of the tip per joint velocity, f64[6, j]: m/rad, then rad/rad, in the frame of the base."""
        return self.jacobians(self.frames(q)[None])[0]

    def jacobians(self, frames: Array) -> Array:
        """Give the same for many poses of all links f64[n, k, 4, 4] at once, f64[n, 6, j]."""
        turning = [number for number, link in enumerate(self.links) if link.axis is not None]
        own = np.stack([np.asarray(self.links[number].axis, float) for number in turning])
        own = own / np.linalg.norm(own, axis=1, keepdims=True)
        turned = frames[:, turning]
        axes = (turned[..., :3, :3] @ own[:, :, None])[..., 0]  # f64[n, j, 3]
        arms = frames[:, -1:, :3, 3] - turned[..., :3, 3]
        both: Array = np.concatenate((np.cross(axes, arms), axes), axis=2).transpose(0, 2, 1)
        return both

    def gravity_torque(self, q: Array, gravity: Sequence[float] = GRAVITY) -> Array:
        """Give the joint torques that hold the arm at rest, f64[j] in N m."""
        frames = self.frames(q)
        axes, places = self._axes(frames)
        torque = np.zeros(self.joints)
        turning = np.cumsum([link.axis is not None for link in self.links])  # joints up to and with this link
        for count, link, frame in zip(turning, self.links, frames, strict=True):
            arm = frame[:3, :3] @ np.asarray(link.centre, float) + frame[:3, 3] - places[:count]
            torque[:count] -= (np.cross(axes[:count], arm) * (link.mass * np.asarray(gravity))).sum(axis=1)
        return torque

    def _axes(self, frames: Array) -> tuple[Array, Array]:
        """Axes and places of the joints in the frame of the base, f64[j, 3] each."""
        turning = [(frame, link.axis) for frame, link in zip(frames, self.links, strict=True) if link.axis is not None]
        axes = np.stack([frame[:3, :3] @ (np.asarray(axis) / np.linalg.norm(axis)) for frame, axis in turning])
        return axes, np.stack([frame[:3, 3] for frame, _ in turning])

    def _checked(self, q: Array) -> Array:
        angles = np.asarray(q, dtype=np.float64)
        if angles.shape != (self.joints,):
            raise ValueError(f"q has shape {angles.shape}, expected ({self.joints},): one angle per joint, in rad.")
        return angles


def rpy_matrix(rpy: Array) -> Array:
    """Turn roll, pitch and yaw f64[3] in rad into a matrix, R = Rz(yaw) Ry(pitch) Rx(roll)."""
    roll, pitch, yaw = (
        axis_matrix(axis, float(angle)) for axis, angle in zip(np.eye(3), np.asarray(rpy, float), strict=True)
    )
    return yaw @ pitch @ roll


def axis_matrix(axis: Array, angle: float) -> Array:
    """Turn an axis f64[3] and an angle in rad into a matrix (Rodrigues)."""
    return axis_matrices(axis, np.array([angle]))[0]


def axis_matrices(axis: Array, angles: Array) -> Array:
    """Turn an axis f64[3] and angles f64[n] in rad into matrices f64[n, 3, 3]."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    sines, cosines = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    matrices: Array = np.eye(3) + sines * cross + (1 - cosines) * (cross @ cross)
    return matrices


def _pose(rotation: Array, xyz: Sequence[float]) -> Array:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, xyz
    return pose


def _link(joint: ElementTree.Element, which: str) -> str:
    end = joint.find(which)
    return "" if end is None else end.get("link", "")


def _numbers(element: ElementTree.Element | None, name: str) -> list[float]:
    text = "0 0 0" if element is None else element.get(name, "0 0 0")
    return [float(number) for number in text.split()]


def _read(joint: ElementTree.Element, body: ElementTree.Element, where: str) -> Link:
    kind, origin = joint.get("type"), joint.find("origin")
    if kind not in ("revolute", "continuous", "fixed"):
        raise ValueError(
            f"Joint '{joint.get('name')}' of {where} is '{kind}', expected revolute, continuous or fixed ones between "
            "base and tip; choose another tip."
        )
    axis = _numbers(joint.find("axis"), "xyz") if joint.find("axis") is not None else [1.0, 0.0, 0.0]
    mass, centre = body.find("inertial/mass"), body.find("inertial/origin")
    return Link(
        _numbers(origin, "xyz"),
        _numbers(origin, "rpy"),
        None if kind == "fixed" else axis,
        0.0 if mass is None else float(mass.get("value", 0.0)),
        _numbers(centre, "xyz"),
    )
