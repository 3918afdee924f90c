"""What robosuite's scenes have in common, whichever its version; runs in the simulator's own environment."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .wire import Arrays, Refused

Answer = tuple[dict[str, Any], Arrays]
"""What a verb gives: a head and arrays."""
WIDTH, HALF = 10, 0.5
"""Numbers of an action, and the least determinant of what counts as a rotation."""
OPEN = -1.0
"""Command of the gripper."""

PLACINGS = 100
"""Draws of a random start before it is given up."""

LOCAL = "macros_private.py"
"""File in robosuite's folder with its settings on this machine."""
SETTINGS = """# Written by uva env install. robosuite 1.4 imports this file but takes nothing from it, hence by hand.
import robosuite.macros as macros

macros.FILE_LOGGING_LEVEL = None  # /tmp/robosuite.log belongs to whoever came first
macros.CONSOLE_LOGGING_LEVEL = "ERROR"
macros.MUJOCO_GPU_RENDERING = False  # MUJOCO_GL alone says how pictures are drawn, and whether
"""


class Scene:
    """A robosuite environment with one arm, driven by absolute targets of its hand.

    Args:
        folder: Of the simulator's environment.
        no_pictures: Why there can be none; empty where there can.
    """

    site = ""
    """Name of the hand's site."""
    imports: tuple[str, ...] = ("robosuite",)
    """Modules without which it does not work."""
    packages: tuple[str, ...] = ("robosuite", "mujoco", "numpy")
    """Packages whose versions are told."""

    def __init__(self, folder: Path, no_pictures: str = "") -> None:
        self.folder, self._no_pictures = folder, no_pictures
        self.env: Any = None
        self._seen: dict[str, Any] = {}
        self._gripper = OPEN

    def check(self) -> Answer:
        """Import everything and step an arm that needs no assets; gives versions."""
        for module in self.imports:
            importlib.import_module(module)
        import robosuite

        env = robosuite.make(
            "Lift", robots="Panda", use_camera_obs=False, has_renderer=False, has_offscreen_renderer=False
        )
        env.reset()
        env.step(np.zeros(len(env.action_spec[0])))
        env.close()
        return {"versions": {name: version(name) for name in self.packages}, "no_pictures": self._no_pictures}, {}

    def reset(
        self,
        seed: int,
        settle: int = 0,
        state: NDArray[np.float64] | None = None,
        bodies: Mapping[str, Sequence[float]] | None = None,
    ) -> Answer:
        """Begin an episode.

        Args:
            seed: Of all that is random.
            settle: Steps in which the hand stays where it is, so that things come to rest.
            state: f64[n] of the simulation, time first, in the place of a random start.
            bodies: With a state, where bodies without joints stand: position, quaternion.
        """
        self._ready()
        np.random.seed(seed)
        self.env.rng = np.random.default_rng(seed)  # robosuite 1.5 draws from it, 1.4 from numpy's global state
        self._seen, self._gripper = placed(self.env.reset), OPEN
        if state is not None:
            self._stand(bodies or {})
            self._set(state)
        for _ in range(settle):
            self._seen, *_ = self.env.step(self._staying())
        return {"reward": 0.0}, self._numbers()

    def step(self, action: NDArray[np.float64]) -> Answer:
        """Run a control step: position in m, rotation-6d (two rows of the matrix), gripper from -1 to 1, f64[10]."""
        self._ready()
        self._seen, reward, _, _ = self.env.step(to_seven(action))
        self._gripper = float(action[-1])
        return {"reward": float(reward)}, self._numbers()

    def render(self, camera: str, size: int) -> Answer:
        """Draw what a camera sees, upright: u8[size, size, 3]."""
        self._ready()
        if self._no_pictures:
            raise Refused(self._no_pictures)
        if self.env.sim._render_context_offscreen is None:  # each reset makes a simulation anew
            from robosuite.utils.binding_utils import MjRenderContextOffscreen

            context: Any = MjRenderContextOffscreen(self.env.sim, device_id=-1)
            context.vopt.geomgroup[:2] = 0, 1  # what is seen, not what collides
        picture = self.env.sim.render(width=size, height=size, camera_name=camera)
        return {}, {"picture": picture[::-1]}  # OpenGL's rows go from bottom to top

    def state(self) -> Answer:
        """Give the state of the simulation, f64[n], time first."""
        self._ready()
        return {}, {"state": self.env.sim.get_state().flatten()}

    def restore(self, state: NDArray[np.float64]) -> Answer:
        """Set the state of the simulation."""
        self._ready()
        self._set(state)
        return {}, self._numbers()

    def _set(self, state: NDArray[np.float64]) -> None:
        width = len(self.env.sim.get_state().flatten())
        if state.shape != (width,):
            raise Refused(
                f"The state has {list(state.shape)} numbers, expected [{width}] as this scene has; take one of the "
                "same task, recorded with the same simulator."
            )
        self.env.sim.set_state_from_flattened(state)
        self.env.sim.forward()
        self._after_set()
        self._seen = self.env._get_observations(force_update=True)

    def _stand(self, bodies: Mapping[str, Sequence[float]]) -> None:
        model = self.env.sim.model
        if unknown := [name for name in bodies if name not in model.body_names]:
            raise Refused(
                f"The recorded scene has the bodies {', '.join(unknown)}, expected those of this task; take recordings "
                "of the same task and the same simulator."
            )
        for name, pose in bodies.items():
            body = model.body_name2id(name)
            model.body_pos[body], model.body_quat[body] = pose[:3], pose[3:]

    def _after_set(self) -> None:
        """Update what depends on the state."""

    def _ready(self) -> None:
        if self.env is None:
            raise Refused("No task was chosen, expected 'make' before anything else.")

    def _hand(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        data = self.env.sim.data
        return np.array(data.get_site_xpos(self.site)), np.array(data.get_site_xmat(self.site)).reshape(3, 3)

    def _staying(self) -> NDArray[np.float64]:
        place, turn = self._hand()
        return np.concatenate([place, axis_angle(turn), [self._gripper]])

    def _numbers(self) -> Arrays:
        """Tell proprioception, and the action that would keep the hand where it is."""
        place, turn = self._hand()
        found = {name: self._seen[f"robot0_{name}"] for name in ("eef_pos", "eef_quat", "gripper_qpos")}
        found["target"] = np.concatenate([place, turn[:2].ravel(), [self._gripper]])
        return {name: np.asarray(value, dtype=np.float32) for name, value in found.items()}


def placed(draw: Callable[[], Any]) -> Any:
    """Draw a start again where things found no room, from the same stream, as LIBERO's own evaluation does."""
    from robosuite.utils.errors import RandomizationError

    for _ in range(PLACINGS):
        try:
            return draw()
        except RandomizationError as error:
            said = str(error)
    raise Refused(f"No start has room for all things in {PLACINGS} draws ({said}), expected one; take another seed.")


def to_seven(action: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn position, rotation-6d and gripper f64[10] into position, axis-angle and gripper f64[7]."""
    first = action[3:6] / (np.linalg.norm(action[3:6]) or 1)
    second = action[6:9] - (first @ action[6:9]) * first
    second /= np.linalg.norm(second) or 1
    matrix = np.stack([first, second, np.cross(first, second)])
    if action.shape != (WIDTH,) or not np.isfinite(matrix).all() or np.linalg.det(matrix) < HALF:
        raise Refused(
            f"The action {action.round(3).tolist()} has no rotation, expected {WIDTH} finite numbers: position, two "
            "rows of a rotation matrix, gripper; look at the normaliser."
        )
    return np.concatenate([action[:3], axis_angle(matrix), action[9:]])


def axis_angle(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn a rotation matrix f64[3, 3] into an axis times an angle in rad, f64[3]."""
    from scipy.spatial.transform import Rotation

    vector: NDArray[np.float64] = Rotation.from_matrix(matrix).as_rotvec()
    return vector


def settle_settings(packages: Path) -> None:
    """Write robosuite's settings, which its first import else complains about."""
    (packages / "robosuite" / LOCAL).write_text(SETTINGS)
