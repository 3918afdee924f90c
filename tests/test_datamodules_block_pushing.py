"""Block pushing: recordings without pictures say so, and the two kinds of actions are told apart."""

from __future__ import annotations

import numpy as np
import pytest

from uva_lightning.datamodules.block_pushing import BlockPushing, BlockPushingAbsolute
from uva_lightning.datamodules.windows import Window

zarr = pytest.importorskip("zarr")


def write(path, absolute=False, pictures=True):
    """Write four episodes as Diffusion Policy has them, and pictures of another size."""
    rng, steps = np.random.default_rng(0), 4 * 40
    root = zarr.open_group(path, mode="w", zarr_format=2)
    obs = rng.uniform(-0.4, 0.6, (steps, 16)).astype(np.float32)
    obs[:, 8:10] = rng.uniform(0.2, 0.5, (steps, 2))
    action = obs[:, 8:10] if absolute else rng.uniform(-0.03, 0.03, (steps, 2)).astype(np.float32)
    root.create_array("data/obs", data=obs)
    root.create_array("data/action", data=action)
    root.create_array("meta/episode_ends", data=np.arange(1, 5) * 40)
    if pictures:
        root.create_array("data/img", data=rng.integers(0, 256, (steps, 60, 80, 3), dtype=np.uint8))
    return path


@pytest.mark.parametrize(("kind", "absolute"), [(BlockPushing, False), (BlockPushingAbsolute, True)])
def test_recordings_with_pictures_become_batches(tmp_path, kind, absolute):
    data = kind(write(tmp_path / "push.zarr", absolute), batch_size=4, window=Window(2))
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.action.shape == (4, 16, 2)
    assert batch.state["obs"].shape == (4, 2, 16)
    assert batch.video["top"].shape == (4, 4, 96, 96, 3)


def test_the_published_recordings_have_no_pictures(tmp_path):
    path = write(tmp_path / "multimodal_push_seed.zarr", pictures=False)
    with pytest.raises(ValueError, match=r"has no pictures: found action, obs in data/.*data/img.*render them"):
        BlockPushing(path).setup("fit")


def test_actions_of_the_other_kind_are_refused(tmp_path):
    write(tmp_path / "rel.zarr")
    write(tmp_path / "abs.zarr", absolute=True)
    with pytest.raises(ValueError, match=r"are displacements .*set data.class_path=BlockPushing\."):
        BlockPushingAbsolute(tmp_path / "rel.zarr").setup("fit")
    with pytest.raises(ValueError, match=r"are positions .*set data.class_path=BlockPushingAbsolute\."):
        BlockPushing(tmp_path / "abs.zarr").setup("fit")
    with pytest.raises(FileNotFoundError, match="no dataset at"):
        BlockPushing(tmp_path / "none.zarr").setup("fit")
