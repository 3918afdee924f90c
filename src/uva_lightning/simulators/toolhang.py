"""Tool Hang in its own environment: robosuite 1.5, whose controllers take absolute targets in another way than 1.4."""

from __future__ import annotations

from pathlib import Path

from .scene import Answer, Scene
from .worker import choose_gl

RATE_HZ = 20
INSTRUCTION = "insert the frame into the stand and hang the tool on it"


class ToolHang(Scene):
    """The task with one Panda; see ``Scene`` for what can be asked."""

    site = "gripper0_right_grip_site"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, choose_gl())

    def make(self, task: str) -> Answer:
        """Load the task."""
        import robosuite
        from robosuite.controllers import load_composite_controller_config

        config = load_composite_controller_config(controller="BASIC", robot="Panda")
        arm = config["body_parts"]["right"]
        arm["input_type"], arm["input_ref_frame"] = "absolute", "world"
        config["body_parts"] = {"right": arm}
        self.env = robosuite.make(
            "ToolHang",
            robots="Panda",
            controller_configs=config,
            use_camera_obs=False,
            has_renderer=False,
            has_offscreen_renderer=False,  # a picture is drawn when one is asked for
            control_freq=RATE_HZ,
            ignore_done=True,
        )
        return {"name": task, "instruction": INSTRUCTION, "starts": 0}, {}

    def _after_set(self) -> None:
        arm = self.env.robots[0].composite_controller.part_controllers["right"]
        arm.update(force=True)
        arm.reset_goal()
