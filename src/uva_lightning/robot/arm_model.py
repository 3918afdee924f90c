"""What is known of an arm before it is there: geometry and limits."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from uva_lightning.robot.chain import Array, Chain, Link
from uva_lightning.robot.inverse import InverseKinematics

NUMBERS = Path(__file__).with_name("arms.yaml")


@dataclass(frozen=True)
class ArmModel:
    """Geometry and the manufacturer's limits of an arm.

    Args:
        name: Of the model, as ARX's SDK has it.
        chain: From the base to the tool frame (x forward, z up at zero angles).
        lower: Smallest angles f64[j], rad.
        upper: Largest angles f64[j], rad.
        velocity: Largest joint velocities f64[j], rad/s.
        torque: Largest joint torques f64[j], N m.
        gripper_width: Opening of the gripper, m.
    """

    name: str
    chain: Chain
    lower: Array
    upper: Array
    velocity: Array
    torque: Array
    gripper_width: float

    def inverse(self, margin: float = 0.0) -> InverseKinematics:
        """Give the solver, which stays so many rad within the limits."""
        return InverseKinematics(self.chain, self.lower + margin, self.upper - margin)


def arm_model(name: str, urdf: Path | str | None = None) -> ArmModel:
    """Look an arm up.

    Args:
        name: Of the model; limits and gripper are its.
        urdf: Its geometry where it differs from that of the SDK: revisions of the hardware do by millimetres.

    Raises:
        ValueError: It is not known, or the URDF has another number of joints.
    """
    numbers = _numbers()
    if name not in numbers["arms"]:
        raise ValueError(f"There is no arm model '{name}', expected one of {', '.join(numbers['arms'])}.")
    own = numbers["arms"][name]
    limits = {key: np.asarray(value, float) for key, value in numbers["limits"].items()}
    chain = _chain(own, numbers["families"][own["family"]]["links"]) if urdf is None else Chain.from_urdf(urdf)
    if chain.joints != len(limits["lower"]):
        raise ValueError(f"{urdf} has {chain.joints} joints, expected {len(limits['lower'])} as {name} has.")
    return ArmModel(name, chain, **limits, gripper_width=float(own["gripper_width"]))


@cache
def _numbers() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(NUMBERS.read_text())
    return loaded


def _chain(own: dict[str, Any], links: list[list[Any]]) -> Chain:
    last = [*links[-1], own["mass"], own["centre"]]
    tool = Link((own["tool"], 0.0, 0.0), (0.0, 0.0, 0.0), None, own.get("tip_mass", 0.0))
    return Chain([*(Link(*link) for link in (*links[:-1], last)), tool])


def urdf_model(urdf: Path | str, gripper_width: float, base: str = "base_link", tip: str = "eef_link") -> ArmModel:
    """Describe an arm by its URDF alone: geometry, and the limits of each joint that turns.

    Args:
        urdf: Of the arm; a joint's ``limit`` gives lower and upper in rad, velocity in rad/s, effort in N m.
        gripper_width: Opening of the gripper, m.
        base: Link that stands still.
        tip: Link of the tool frame, x forward.

    Raises:
        ValueError: It is no URDF, has no such chain, or a joint has no limits.
    """
    chain = Chain.from_urdf(urdf, base, tip)
    joints = {child.get("link", ""): joint for joint, child in _children(urdf)}
    limits, name = list[list[float]](), tip
    while name != base:
        joint = joints[name]
        if joint.get("type") != "fixed":
            limit = joint.find("limit")
            known = {} if limit is None else limit.attrib
            try:
                limits.append([float(known[key]) for key in ("lower", "upper", "velocity", "effort")])
            except (KeyError, ValueError) as error:
                raise ValueError(
                    f"Joint '{joint.get('name')}' of {urdf} has the limits {known}, expected numbers for lower, upper, "
                    "velocity and effort; write them into its <limit>."
                ) from error
        parent = joint.find("parent")
        name = base if parent is None else parent.get("link", "")
    lower, upper, velocity, torque = np.array(limits[::-1]).T
    return ArmModel(Path(urdf).stem, chain, lower, upper, velocity, torque, gripper_width)


def _children(urdf: Path | str) -> Iterator[tuple[ElementTree.Element, ElementTree.Element]]:
    for joint in ElementTree.parse(urdf).getroot().iter("joint"):
        child = joint.find("child")
        if child is not None:
            yield joint, child
