"""Where robosuite's controller would have sent the hand: absolute goals of recorded relative commands.

The recorded scene is loaded without its meshes: the goal follows from joints and links alone, which a recording has,
while meshes and textures of LIBERO are 200 MB elsewhere. States, commands and the controller are robosuite's own.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

HAND, ARM = r".*grip_site", r"robot0_joint\d+"
"""Names of the hand's site and of the arm's joints in a scene."""
LIGHT = {"pos": "0 0 0", "mass": "0.01", "diaginertia": "1e-5 1e-5 1e-5"}
"""Inertia of a body that had only meshes; the arm's links have their own."""
DEFAULT_HZ = 20.0

Array = NDArray[np.float64]


def without_meshes(model: str) -> str:
    """Take meshes, textures and materials out of a scene; joints, and with them the states, stay as they are.

    Raises:
        ValueError: It is no MuJoCo scene.
    """
    try:
        root = ET.fromstring(model)
    except ET.ParseError as error:
        raise ValueError(f"The recorded scene is no XML ({error}), expected a MuJoCo model.") from error
    for tag in ("asset", "sensor"):
        for part in root.findall(tag):
            root.remove(part)
    for parent in list(root.iter()):
        for child in list(parent):
            child.attrib.pop("material", None)
            mesh = child.tag == "geom" and (child.get("type") == "mesh" or child.get("mesh") is not None)
            if mesh or child.tag == "pair":
                parent.remove(child)
            if mesh and parent.tag == "body" and parent.find("inertial") is None:
                ET.SubElement(parent, "inertial", LIGHT)
    return ET.tostring(root, encoding="unicode")


class OscGoals:
    """The recorded arm under robosuite's controller for the pose of the hand (``OSC_POSE``).

    Args:
        model: The scene, an attribute of every recorded demonstration.
        env_args: What the environment was made with, JSON; the controller's settings are taken from it.

    Raises:
        ImportError: robosuite or MuJoCo is not installed.
        ValueError: There is no such arm in the scene, or another controller was recorded.
    """

    def __init__(self, model: str, env_args: str = "{}") -> None:
        try:
            from robosuite.controllers import load_controller_config
            from robosuite.controllers.osc import OperationalSpaceController
            from robosuite.utils.binding_utils import MjSim
        except ImportError as error:
            raise ImportError(
                f"Replaying LIBERO's commands needs robosuite 1.4.0 ({error}); install it beside the training "
                "environment: pip install 'uva_lightning[libero]' -c constraints-libero.txt"
            ) from error
        settings: Mapping[str, Any] = json.loads(env_args).get("env_kwargs", {})
        controller = load_controller_config(default_controller="OSC_POSE")
        controller |= settings.get("controller_configs") or {}
        if controller["type"] != "OSC_POSE" or not controller["control_delta"]:
            raise ValueError(
                f"The recorded controller is {controller['type']} with control_delta={controller['control_delta']}, "
                "expected OSC_POSE with relative commands; its actions are something else, or absolute already."
            )
        self.sim: Any = MjSim.from_xml_string(without_meshes(model))
        joints, (self._hand, *_) = self._found("joint", ARM), self._found("site", HAND)
        self._motors = [self._motor(joint) for joint in joints]
        limits = self.sim.model._model.actuator_ctrlrange[self._motors]
        self.controller: Any = OperationalSpaceController(
            self.sim,
            eef_name=self._hand,
            joint_indexes={
                "joints": [self.sim.model.joint_name2id(name) for name in joints],
                "qpos": [self.sim.model.get_joint_qpos_addr(name) for name in joints],
                "qvel": [self.sim.model.get_joint_qvel_addr(name) for name in joints],
            },
            actuator_range=(limits[:, 0], limits[:, 1]),
            **controller,
        )
        rate = float(settings.get("control_freq", DEFAULT_HZ))
        self._substeps = round(1 / rate / self.sim.model._model.opt.timestep)
        self._fresh = True

    @property
    def width(self) -> int:
        """Numbers of a state: time, positions, velocities."""
        return 1 + int(self.sim.model._model.nq) + int(self.sim.model._model.nv)

    def begin(self) -> None:
        """Start an episode: the controller forgets the goal that it still had."""
        self._fresh = True

    def hand(self) -> Array:
        """Give the position of the hand in the state that was set last, f64[3] in m."""
        place: Array = self.controller.ee_pos.copy()
        return place

    def goal(self, state: Array, command: Array) -> Array:
        """Give the goal of a command f64[6] in [-1, 1]: position in m and axis-angle in rad, f64[6].

        A command without any turning keeps the orientation of the goal before it, as the controller does.
        """
        self._set(state)
        if self._fresh:
            self.controller.update_initial_joints(self.controller.joint_pos)  # also makes the present pose the goal
            self._fresh = False
        self.controller.set_goal(command)
        return np.concatenate([self.controller.goal_pos, _axis_angle(self.controller.goal_ori)])

    def gap(self, state: Array, command: Array, goal: Array) -> float:
        """Step the arm once with the command and once with its goal as an absolute action; distance in m."""
        before = self.controller.goal_pos, self.controller.goal_ori
        ends = []
        for relative, action in ((True, command), (False, goal)):
            self._set(state)
            if relative:  # the goal of this command, also where it keeps an older orientation
                self.controller.goal_pos, self.controller.goal_ori = before
            else:
                self.controller.use_delta = False
                self.controller.set_goal(action)
            for _ in range(self._substeps):
                low, high = self.controller.actuator_min, self.controller.actuator_max
                self.sim.data.ctrl[self._motors] = np.clip(self.controller.run_controller(), low, high)
                self.sim.step()
            self.controller.update(force=True)
            ends.append(self.controller.ee_pos.copy())
        self.controller.use_delta = True
        self.controller.goal_pos, self.controller.goal_ori = before
        return float(np.linalg.norm(ends[0] - ends[1]))

    def _set(self, state: Array) -> None:
        self.sim.set_state_from_flattened(np.asarray(state, dtype=np.float64))
        self.sim.forward()
        self.controller.update(force=True)

    def _found(self, kind: str, pattern: str) -> list[str]:
        names = [name for name in getattr(self.sim.model, f"{kind}_names") if name and re.fullmatch(pattern, name)]
        if not names:
            raise ValueError(f"The recorded scene has no {kind} '{pattern}', expected robosuite's Panda arm.")
        return names

    def _motor(self, joint: str) -> int:
        driven = self.sim.model._model.actuator_trnid[:, 0]
        motors = np.flatnonzero(driven == self.sim.model.joint_name2id(joint))
        if len(motors) != 1:
            raise ValueError(f"Joint '{joint}' of the recorded scene has {len(motors)} motors, expected one.")
        return int(motors[0])


def _axis_angle(matrix: Array) -> Array:
    from scipy.spatial.transform import Rotation  # comes with robosuite

    vector: Array = Rotation.from_matrix(matrix).as_rotvec()
    return vector
