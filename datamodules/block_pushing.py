"""Block pushing: push two blocks into two squares, in either order (Diffusion Policy; UVA section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from uva_lightning.datamodules import replay_buffer
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.fields import Fields, Range
from uva_lightning.datamodules.layouts import read_episodes
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.types import DataSpec

IMAGES = "img"
REACH = 0.1
"""The environment moves its target by at most so much in a step, m; its plane begins at x = 0.15 m."""


class BlockPushing(RobotDataModule):
    """Block pushing: 10 Hz, actions that move the effector's target, the positions of everything as state.

    Reads Diffusion Policy's ``multimodal_push_seed.zarr``, folder or ``.zip``. Its 16 numbers ``obs`` are, in the
    plane, which spans 0.15 to 0.7 m in x and -0.5 to 0.5 m in y: both blocks (each x, y in m and a yaw of 0 to pi rad),
    the effector (x, y), its target (x, y), and both squares (each x, y and yaw). An action is how far the effector's
    target moves, 2 numbers in m, at most 0.1. For ``multimodal_push_seed_abs.zarr`` take ``BlockPushingAbsolute``.

    These recordings have **no pictures**, and those that UVA trained on were not published: render one for each step
    in the environment and store them beside ``obs`` as ``data/img``, u8[n, H, W, 3]; any size will do.
    """

    facts: ClassVar[DataSpec] = DataSpec(
        cameras=("top",),
        image_size=96,
        action_dim=2,
        state_dims={"obs": 16},
        rate_hz=10,
        action_meaning="how far the effector's target moves in x and y, m",
        conventions={"orientation": "upright as stored", "yaw": "of blocks and squares, 0 to pi rad"},
    )
    fields: ClassVar[Mapping[str, Fields]] = {
        "replay_buffer": Fields(video={"top": IMAGES}, action="action", state={"obs": "obs"})
    }
    ranges: ClassVar[Mapping[str, Range]] = {"action": Range(-0.03, 0.04), "obs": Range(-0.5, 0.7)}

    def read(self) -> EpisodeStore:
        """Read all episodes from ``path``."""
        return _read(self, absolute=False)


class BlockPushingAbsolute(RobotDataModule):
    """Block pushing as ``BlockPushing``, with the target itself as action; ``multimodal_push_seed_abs.zarr``."""

    facts: ClassVar[DataSpec] = replace(
        BlockPushing.facts, action_meaning="absolute target of the effector, x and y in m"
    )
    fields: ClassVar[Mapping[str, Fields]] = BlockPushing.fields
    ranges: ClassVar[Mapping[str, Range]] = {"action": Range(0.2, 0.6), "obs": Range(-0.5, 0.7)}

    def read(self) -> EpisodeStore:
        """Read all episodes from ``path``."""
        return _read(self, absolute=True)


def _read(data: RobotDataModule, absolute: bool) -> EpisodeStore:
    """Read a recording and check what its actions are.

    Raises:
        ValueError: It has no pictures, or actions of the other kind.
    """
    path = data.path
    if replay_buffer.matches(path) and IMAGES not in (found := replay_buffer.field_names(path)):
        raise ValueError(
            f"{path} has no pictures: found {', '.join(sorted(found)) or 'nothing'} in data/, as in Diffusion Policy's "
            f"own files, expected data/{IMAGES} too, u8[n, H, W, 3], one picture per step; render them in the "
            "block-pushing environment from the recorded states and store them there (UVA did not publish its own)."
        )
    store = read_episodes(path, data.fields, data.facts, data.faults)
    if store.action is not None and bool((store.action[:, 0] > REACH).all()) != absolute:
        found_kind, other = ("displacements", "BlockPushing") if absolute else ("positions", "BlockPushingAbsolute")
        raise ValueError(
            f"The actions in {path} are {found_kind} (x from {store.action[:, 0].min():.3g} to "
            f"{store.action[:, 0].max():.3g} m), expected {data.facts.action_meaning}; set data.class_path={other}."
        )
    return store
