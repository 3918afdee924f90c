"""UMI's way to speak of a gripper, between a robot's poses and what a model sees and says.

A model sees poses of the tool frame relative to the newest one, and answers with poses relative to it: 10 numbers a
step, position in m, rotation-6d (the first two rows of the matrix) and opening of the gripper in m. Poses here are
f64[..., 4, 4] of the tool frame in that of the robot's base.
"""

from __future__ import annotations

import numpy as np

from uva_lightning.robot.chain import Array
from uva_lightning.robot.errors import ActionRejected, BadShape, NonFinite

ACTION = 10
"""Numbers of an action: 3 position, 6 rotation, 1 opening."""
TOOL = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
"""The tool frame in that of the arm's last link: z points where the arm's x does."""
ROW_LENGTH = (0.5, 2.0)
"""Lengths that a predicted row of a rotation may have: 1 in the data."""
PARALLEL = 0.1
"""Smallest sine between two predicted rows; nearer ones do not say where the third points."""


def tool_pose(eef: Array) -> Array:
    """Turn poses of the arm's last frame, f64[..., 4, 4], into those of the tool frame: the same place."""
    pose: Array = np.asarray(eef, float) @ TOOL
    return pose


def eef_pose(tool: Array) -> Array:
    """Undo ``tool_pose``."""
    pose: Array = np.asarray(tool, float) @ TOOL.T
    return pose


def to_six(rotation: Array) -> Array:
    """Keep the first two rows of f64[..., 3, 3]: f64[..., 6] (Zhou 2019)."""
    return rotation[..., :2, :].reshape(*rotation.shape[:-2], 6)


def from_six(six: Array) -> Array:
    """Make rotations f64[..., 3, 3] of two rows f64[..., 6]; the first keeps its direction.

    Raises:
        NonFinite: A number is not finite.
        ActionRejected: A row has no length to speak of, or both point the same way: it is no rotation.
    """
    if not np.isfinite(six).all():
        raise NonFinite("A rotation-6d has numbers that are not finite, expected two rows of a rotation.")
    first, second = six[..., :3], six[..., 3:]
    lengths = np.linalg.norm(np.stack((first, second)), axis=-1)
    if lengths.min() < ROW_LENGTH[0] or lengths.max() > ROW_LENGTH[1]:
        raise ActionRejected(
            f"Rows of a rotation-6d have lengths {lengths.min():.3g} to {lengths.max():.3g}, expected "
            f"{ROW_LENGTH[0]:g} to {ROW_LENGTH[1]:g}; the model's actions are no poses, check its normalizer."
        )
    first = first / lengths[0][..., None]
    second = second / lengths[1][..., None]
    third = np.cross(first, second)
    sine = np.linalg.norm(third, axis=-1, keepdims=True)
    if sine.min() < PARALLEL:
        raise ActionRejected(
            f"The rows of a rotation-6d are parallel (sine {sine.min():.3g}), expected them at right angles as far as "
            f"the model can, sine above {PARALLEL:g}."
        )
    third = third / sine
    return np.stack((first, np.cross(third, first), third), axis=-2)


def targets(action: Array, newest: Array) -> tuple[Array, Array]:
    """Turn a chunk f[h, 10] into tool poses f64[h, 4, 4] and openings f64[h] in m.

    Args:
        action: Relative to the newest observation, every step of it.
        newest: Tool pose f64[4, 4] at that observation.

    Raises:
        BadShape: It is not 10 wide.
        NonFinite: A number is not finite.
        ActionRejected: A rotation is none.
    """
    chunk = np.asarray(action, float)
    if chunk.ndim != 2 or chunk.shape[1] != ACTION:
        raise BadShape(f"The chunk has shape {chunk.shape}, expected (h, {ACTION}): position, rotation-6d, opening.")
    if not np.isfinite(chunk).all():
        raise NonFinite(f"{int((~np.isfinite(chunk)).sum())} of {chunk.size} numbers of the chunk are not finite.")
    relative = np.tile(np.eye(4), (len(chunk), 1, 1))
    relative[:, :3, :3], relative[:, :3, 3] = from_six(chunk[:, 3:9]), chunk[:, :3]
    return newest @ relative, chunk[:, 9]


def actions(poses: Array, openings: Array, newest: Array) -> Array:
    """Undo ``targets``: f64[h, 10] of tool poses f64[h, 4, 4] and openings f64[h] in m."""
    relative = np.linalg.inv(newest) @ poses
    return np.concatenate((relative[:, :3, 3], to_six(relative[:, :3, :3]), openings[:, None]), axis=1)


def proprioception(poses: Array, openings: Array, begin: Array) -> dict[str, Array]:
    """Give what a model sees of its own gripper, 16 numbers a frame.

    Args:
        poses: Tool poses f64[n, 4, 4] of the frames, the newest last.
        openings: f64[n], m.
        begin: Tool pose f64[4, 4] at the begin of the episode; its place is not used.

    Returns:
        ``eef_pos`` f64[n, 3] and ``eef_rot`` f64[n, 6] relative to the newest, ``gripper_width`` f64[n, 1],
        ``eef_rot_wrt_start`` f64[n, 6].
    """
    relative = np.linalg.inv(poses[-1]) @ poses
    return {
        "eef_pos": relative[:, :3, 3],
        "eef_rot": to_six(relative[:, :3, :3]),
        "gripper_width": openings[:, None],
        "eef_rot_wrt_start": to_six(begin[:3, :3].T @ poses[:, :3, :3]),
    }
