import os
import types

import numpy as np
from robosuite.utils.errors import RandomizationError

NO_ROOM = 0.0


class Point:
    """Goes half of the way to its target in a step; done within 1 cm of (0.2, 0, 0.3)."""

    def __init__(self, scene, controller_configs, **options):
        assert controller_configs["control_delta"] is False
        assert options["has_offscreen_renderer"] is False
        self.sim = self
        self.body_pos, self.body_quat = np.zeros((2, 3)), np.zeros((2, 4))
        self.data = self
        self._render_context_offscreen = self
        controller = types.SimpleNamespace(update=lambda force: None, reset_goal=lambda: None)
        self.robots = [types.SimpleNamespace(controller=controller)]

    def reset(self):
        self.place = np.random.uniform(-0.1, 0.1, 3)
        if self.place[0] < NO_ROOM:
            raise RandomizationError("Cannot place all objects ):")
        return self._get_observations()

    def step(self, action):
        assert len(action) == 7
        if action[2] < -9:
            os._exit(3)  # as a simulator does that runs out of memory
        if action[2] < -8 and os.environ.get("CRASH_ONCE") and not os.path.exists(os.environ["CRASH_ONCE"]):
            open(os.environ["CRASH_ONCE"], "w").close()
            os._exit(3)
        self.place = (self.place + action[:3]) / 2
        near = np.linalg.norm(self.place - [0.2, 0, 0.3]) < 0.01
        return self._get_observations(), float(near), False, {}

    def _get_observations(self, force_update=False):
        found = {"eef_pos": self.place, "eef_quat": np.array([0, 0, 0, 1.0]), "gripper_qpos": np.zeros(2)}
        return {f"robot0_{name}": value for name, value in found.items()}

    def get_site_xpos(self, name):
        return self.place

    def get_site_xmat(self, name):
        return np.eye(3)

    def get_state(self):
        return np.concatenate([[0.0], self.place])

    def set_state_from_flattened(self, state):
        self.place = state[1:].copy()

    @property
    def model(self):
        return self

    body_names = ("world", "shelf")

    def body_name2id(self, name):
        return self.body_names.index(name)

    def forward(self):
        pass

    def _check_success(self):
        return False

    def _post_process(self):
        pass

    def render(self, width, height, camera_name):
        picture = np.zeros((height, width, 3), np.uint8)
        picture[0] = 255  # the lowest row, as OpenGL gives it
        picture[:, 0] = 0 if camera_name == "agentview" else 255
        return picture


TASK_MAPPING = {"point": Point}
