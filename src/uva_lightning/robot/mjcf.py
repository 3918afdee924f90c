"""An arm as a model for MuJoCo, made of its kinematic constants and capsules: no mesh, no file of a manufacturer."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

import numpy as np

from uva_lightning.robot.arm_model import ArmModel
from uva_lightning.robot.chain import GRAVITY, Array, Link, rpy_matrix

Element = ElementTree.Element

STEP = 0.002
"""Of the simulation and of the control in it, s: that of ARX's SDK."""
RADIUS = 0.03
"""Of the capsules, m."""
GYRATION = 0.04
"""Radius of gyration of every link, m: the SDK's URDFs have inertias that no body can have."""
ARMATURE = 0.02
"""Inertia of motors behind their gears, kg m^2."""
FINGER = (0.03, 0.005, 0.012)
"""Half the size of a finger, m: along the tool, across, up."""
FINGER_MASS = 0.02
PALM = 2 * FINGER[0] + RADIUS
"""From the tool back to where the last capsule's axis ends, m."""
CUBE = 0.02
"""Half the side of the cube, m."""
CUBE_MASS = 0.05
CUBE_PLACE = (0.4, 0.0)
"""x, y of the cube at first, m in the frame of the base, which stands on the table."""
SHADOW = 512
"""Side of the map of shadows, px: without a GPU MuJoCo's own 4096 takes ten times as long as all the rest."""
FIELD = 60.0
"""Angle of view of both cameras from top to bottom, degrees."""
ARM_BIT, WORLD_BIT = "1", "2"
"""The arm collides with the world, not with itself."""
HAND, JOINT, SLIDES = "hand", "joint{}", ("left", "right")
WRIST, SCENE = "wrist", "scene"
CAMERAS = (WRIST, SCENE)


def arm_mjcf(model: ArmModel) -> str:
    """Write the XML of a world with the arm on a table, a cube, a camera at the wrist and one beside.

    The body ``hand`` has the pose of the arm's tool; joints are ``joint1`` onwards, then the slides of two fingers.
    """
    root = Element("mujoco", model=model.name)
    _add(root, "compiler", angle="radian", autolimits="true")
    _add(root, "option", timestep=STEP, gravity=GRAVITY, integrator="implicitfast", cone="elliptic", impratio=10)
    visual = _add(root, "visual")
    _add(visual, "global", offwidth=1280, offheight=960)
    _add(visual, "headlight", ambient=(0.4, 0.4, 0.4), diffuse=(0.4, 0.4, 0.4))
    _add(visual, "quality", shadowsize=SHADOW)
    assets = _add(root, "asset")
    _add(assets, "texture", name="check", type="2d", builtin="checker", width=64, height=64, rgb1=(0.75, 0.7, 0.6),
         rgb2=(0.6, 0.55, 0.45))  # fmt: skip
    _add(assets, "texture", type="skybox", builtin="gradient", rgb1=(0.6, 0.7, 0.8), rgb2=(0.3, 0.35, 0.4), width=32,
         height=192)  # fmt: skip
    _add(assets, "material", name="table", texture="check", texrepeat=(8, 8))
    world = _add(root, "worldbody")
    _scene(world)
    above = _add(world, "body", name="base")
    _add(above, "geom", type="cylinder", fromto=(0, 0, 0, 0, 0, 0.05), size=(0.05,), rgba=(0.2, 0.2, 0.2, 1), contype=0,
         conaffinity=0)  # fmt: skip
    joint = 0
    for number, link in enumerate(model.chain.links):
        follows = model.chain.links[number + 1] if number + 1 < len(model.chain.links) else None
        above = _link(above, link, follows, HAND if follows is None else f"link{number + 1}")
        if link.axis is not None:
            limits = (model.lower[joint], model.upper[joint])
            joint += 1
            _add(above, "joint", name=JOINT.format(joint), axis=link.axis, range=limits, armature=ARMATURE)
    _hand(above, model.gripper_width)
    return ElementTree.tostring(root, encoding="unicode")


def _scene(world: Element) -> None:
    _add(world, "light", pos=(0.3, -0.5, 1.5), dir=(0, 0.3, -1), diffuse=(0.6, 0.6, 0.6))
    _add(world, "geom", name="table", type="box", size=(0.6, 0.6, 0.02), pos=(0.3, 0, -0.02), material="table",
         contype=WORLD_BIT, conaffinity="3")  # fmt: skip
    cube = _add(world, "body", name="cube", pos=(*CUBE_PLACE, CUBE))
    _add(cube, "freejoint", name="cube")
    _add(cube, "geom", name="cube", type="box", size=(CUBE,) * 3, mass=CUBE_MASS, rgba=(0.85, 0.15, 0.1, 1),
         friction=(1.2, 0.02, 0.001), condim=4, contype=WORLD_BIT, conaffinity="3")  # fmt: skip
    _add(world, "body", name="focus", pos=(0.35, 0, 0.1))
    _add(world, "camera", name=SCENE, pos=(0.95, -0.55, 0.6), mode="targetbody", target="focus", fovy=FIELD)


def _link(above: Element, link: Link, follows: Link | None, name: str) -> Element:
    body = _add(above, "body", name=name, pos=link.xyz, quat=_quaternion(rpy_matrix(np.asarray(link.rpy, float))))
    if link.mass > 0:
        inertia = (max(link.mass * GYRATION**2, 1e-8),) * 3
        _add(body, "inertial", mass=link.mass, pos=link.centre, diaginertia=inertia)
    if follows is not None:
        end = np.asarray(follows.xyz, float)
        if follows.axis is None:  # the hand: what is between the fingers stays free
            end = end * max(0.0, 1 - PALM / np.linalg.norm(end))
        kind = {"type": "capsule", "fromto": (0.0, 0.0, 0.0, *end)} if np.linalg.norm(end) > RADIUS else {}
        _add(body, "geom", size=(RADIUS,), mass=0, rgba=(0.9, 0.9, 0.92, 1), contype=ARM_BIT, conaffinity=0,
             **(kind or {"type": "sphere"}))  # fmt: skip
    return body


def _hand(hand: Element, width: float) -> None:
    """Put two fingers at the tool, which close to its x axis, and a camera that looks along it."""
    _add(hand, "camera", name=WRIST, pos=(-0.11, 0, 0.08), xyaxes=(0, -1, 0, 0.6, 0, 1), fovy=FIELD)
    for name, side in zip(SLIDES, (1, -1), strict=True):
        finger = _add(hand, "body", name=name, gravcomp=1)
        _add(finger, "joint", name=name, type="slide", axis=(0, side, 0), range=(0, 0.5 * width), armature=ARMATURE)
        _add(finger, "geom", name=name, type="box", size=FINGER, pos=(-FINGER[0], side * FINGER[1], 0),
             mass=FINGER_MASS, rgba=(0.1, 0.1, 0.12, 1), friction=(1.2, 0.02, 0.001), condim=4, contype=ARM_BIT,
             conaffinity=0)  # fmt: skip


def _add(parent: Element, tag: str, **attributes: str | float | Sequence[float] | Array) -> Element:
    """Add an element; numbers are written with all their digits."""
    written = {name: value if isinstance(value, str) else _numbers(value) for name, value in attributes.items()}
    return ElementTree.SubElement(parent, tag, written)


def _numbers(value: float | Sequence[float] | Array) -> str:
    if isinstance(value, int):
        return str(value)
    return " ".join(repr(float(number)) for number in np.atleast_1d(np.asarray(value, float)))


def _quaternion(rotation: Array) -> Array:
    """Give w, x, y, z of a rotation, f64[4]: the eigenvector of Bar-Itzhack's matrix (2000)."""
    r = rotation
    matrix = np.array(
        [
            [r[0, 0] + r[1, 1] + r[2, 2], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
            [0.0, r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0]],
            [0.0, 0.0, r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1]],
            [0.0, 0.0, 0.0, r[2, 2] - r[0, 0] - r[1, 1]],
        ]
    )
    quaternion: Array = np.linalg.eigh(matrix, UPLO="U")[1][:, -1]
    return quaternion
