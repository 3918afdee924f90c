"""A simulated arm that lifts a cube, recorded as UMI records: to try everything about arms without one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from uva_lightning.datamodules import umi_recordings as umi
from uva_lightning.datamodules.fields import Fields, Range
from uva_lightning.datamodules.generate import REPLAY_BUFFER, EpisodeMaker
from uva_lightning.datamodules.transform import WindowTransform
from uva_lightning.datamodules.umi_poses import RelativePoses
from uva_lightning.types import DataSpec
from uva_lightning.whole_files import whole

CAMERAS, GRIPPERS = ("camera0",), ("",)


class SimulatedArm(umi.UMIRecordings):
    """Lifting a cube in MuJoCo: a 64 px wrist camera and poses of the gripper at 5 Hz, the pace of episodes.

    An action is the pose that was reached, so ``window.shift_action`` must be false.
    """

    grippers: ClassVar[tuple[str, ...]] = GRIPPERS
    facts: ClassVar[DataSpec] = replace(umi.facts(CAMERAS, GRIPPERS), image_size=64, rate_hz=5.0)
    recorded: ClassVar[DataSpec | None] = umi.recorded(facts, GRIPPERS)
    fields: ClassVar[Mapping[str, Fields]] = umi.fields(CAMERAS, GRIPPERS)
    ranges: ClassVar[Mapping[str, Range]] = umi.ranges(GRIPPERS)
    transform: ClassVar[WindowTransform | None] = RelativePoses()

    def told(self, recording: Path) -> str | None:
        """Say nothing: there is one task."""
        return None


class ReachingDemos(EpisodeMaker):
    """Let the script that knows where the cube is fetch it, as ``SimBench`` puts it down.

    Only successes are kept. Written as a replay buffer.

    Args:
        episodes: How many.
        seed: Of the places of the cube; another one than that of episodes in which a model is tried.
    """

    def __init__(self, episodes: int = 60, seed: int = 1000) -> None:
        if episodes < 2:
            raise ValueError(f"There are {episodes} episodes, expected at least 2, since some are held out.")
        self.episodes, self.seed = episodes, seed

    def __call__(self, path: Path, data: Any) -> None:
        """See the base class; whatever is at ``path`` is left alone.

        Raises:
            ImportError: zarr is not installed.
            OSError: MuJoCo is not installed, or has no way to draw.
        """
        if path.exists():
            return
        import zarr

        rank_zero_info(f"A script fetches the cube {self.episodes} times; the episodes go to {path}.")
        played = play(self.episodes, self.seed, data.facts.image_size, data.facts.rate_hz)
        with whole(path) as part:
            root = zarr.open_group(zarr.storage.LocalStore(part), mode="w", zarr_format=2)
            names = data.fields[REPLAY_BUFFER]
            arrays = {names.video[camera]: values for camera, values in played.pop("video").items()}
            ends = played.pop("ends")
            arrays |= {names.state[entry]: values for entry, values in played.items()}
            for name, values in arrays.items():
                root.create_array(f"data/{name}", data=values, chunks=(min(len(values), 16), *values.shape[1:]))
            root.create_array("meta/episode_ends", data=ends)


def play(episodes: int, seed: int, image_size: int, rate_hz: float) -> dict[str, Any]:
    """Let the script play until there are so many successes.

    Returns:
        What is recorded of the gripper by the names of ``umi_poses.RECORDED``, f32[n, w]; ``video``: u8[n, H, W, 3] per
        camera; ``ends``: i64[e], exclusive.

    Raises:
        OSError: MuJoCo is not installed, or has no way to draw.
        RuntimeError: Most episodes are no successes.
    """
    from uva_lightning.robot.benches.drivers import Reaching
    from uva_lightning.robot.benches.sim import SimBench
    from uva_lightning.robot.control import Control
    from uva_lightning.robot.errors import RobotUnavailable
    from uva_lightning.robot.filming import Filmed
    from uva_lightning.robot.operator import Label
    from uva_lightning.robot.rollout import RolloutRunner

    try:
        session = SimBench(image_size=image_size).open(seed)
    except RobotUnavailable as error:
        raise OSError(str(error)) from error
    rows: list[dict[str, NDArray[np.float32]]] = []
    films: list[NDArray[np.uint8]] = []
    try:
        driving = Reaching().build(session, Control(rate_hz, max_steps=80), Path(), seed)
        (camera,) = (Filmed(camera) for camera in session.cameras)
        runner = RolloutRunner(
            driving.policy, session.station, [camera], session.operator, driving.control, driving.history,
            session.clock, session.wait,
        )  # fmt: skip
        for episode in range(2 * episodes):
            camera.begin()
            result = runner.run(episode)
            if result.label == Label.SUCCESS:
                forward = session.station.model.chain.forward
                rows.append(_recorded(np.stack([forward(step.q) for step in result.steps]),
                                      np.array([step.opening for step in result.steps])))  # fmt: skip
                films.append(np.stack(camera.frames[-len(result.steps) :]))
            if len(rows) == episodes:
                break
        else:
            raise RuntimeError(f"Only {len(rows)} of {2 * episodes} scripted episodes were successes.")
    finally:
        session.close()
    found: dict[str, Any] = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    found["video"] = {CAMERAS[0]: np.concatenate(films)}
    found["ends"] = np.cumsum([len(film) for film in films])
    return found


def _recorded(poses: NDArray[np.float64], openings: NDArray[np.float64]) -> dict[str, NDArray[np.float32]]:
    """Say of the arm's poses f64[n, 4, 4] and openings f64[n] in m what UMI records."""
    from uva_lightning.robot.inverse import rotation_vector
    from uva_lightning.robot.tool_poses import tool_pose

    tools = tool_pose(poses)
    place, turn = tools[:, :3, 3], np.stack([rotation_vector(pose[:3, :3]) for pose in tools])
    start = np.tile(np.concatenate((place[0], turn[0])), (len(tools), 1))
    values = {"eef_pos": place, "eef_axis_angle": turn, "gripper_width": openings[:, None], "start_pose": start}
    return {name: value.astype(np.float32) for name, value in values.items()}
