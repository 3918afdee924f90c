"""Pictures that are read when asked for: joined, chosen, resized, flipped; and windows whose pictures are broken."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from uva_lightning.datamodules import frames as frames_module
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.faults import Broken, Faults
from uva_lightning.datamodules.frames import JoinedFrames, LazyFrames, held
from uva_lightning.datamodules.pictures import Flipped, Resized, resize
from uva_lightning.datamodules.reading import Reading
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.types import DataSpec


class Numbered(LazyFrames):
    """Pictures that show their step, some of them broken."""

    def __init__(self, steps, broken=(), first=0):
        super().__init__((steps, 4, 4, 3))
        self.broken, self.first = set(broken), first

    def _read(self, steps):
        if bad := self.broken & set(steps.tolist()):
            raise Broken(f"file.mp4 lacks frame {min(bad)}; copy it again.")
        return np.broadcast_to((steps + self.first).astype(np.uint8)[:, None, None, None], (len(steps), 4, 4, 3)).copy()


class Lazy(RobotDataModule):
    """Six episodes of 40 steps whose pictures are read when asked for."""

    facts = DataSpec(cameras=("top",), image_size=4, action_dim=1, state_dims={}, rate_hz=10)
    broken = ()

    def read(self):
        steps = 6 * 40
        action = np.arange(steps, dtype=np.float32)[:, None]
        return EpisodeStore({"top": Numbered(steps, self.broken)}, action, {}, np.arange(40, steps + 1, 40))


class PartlyBroken(Lazy):
    """Frame 50 cannot be read."""

    broken = (50,)


def test_joined_and_chosen_pictures_are_those_of_their_sources():
    frames = JoinedFrames([Numbered(5), Numbered(4, first=10), np.full((2, 4, 4, 3), 99, np.uint8)])
    assert frames.shape == (11, 4, 4, 3)
    steps = np.array([10, 0, 6, 6, 4])
    np.testing.assert_array_equal(frames[steps][:, 0, 0, 0], [99, 0, 11, 11, 4])
    np.testing.assert_array_equal(frames[3:7][:, 0, 0, 0], [3, 4, 10, 11])
    with pytest.raises(IndexError, match="Steps 0 to 11 were asked for, expected 0 to 10"):
        frames[np.array([0, 11])]
    store = EpisodeStore({"top": frames}, None, {}, np.array([5, 9, 11]), names=["a", "b", "c"])
    part = store.select([2, 0])
    np.testing.assert_array_equal(part.video["top"][1:4][:, 0, 0, 0], [99, 0, 1])
    assert part.names == ["c", "a"]
    both = EpisodeStore.joined([part, store])
    assert (both.steps, both.names, both.action) == (18, ["c", "a", "a", "b", "c"], None)
    with pytest.raises(ValueError, match="sizes"):
        JoinedFrames([Numbered(5), np.zeros((2, 8, 8, 3), np.uint8)])


def test_resizing_keeps_what_it_says():
    wide = np.zeros((2, 40, 80, 3), np.uint8)
    wide[:, :, 20:60] = 200  # the middle square
    assert (Resized(wide, 10, "crop")[:] == 200).all()
    padded = Resized(wide, 80, "pad")[:]
    assert padded[:, :20].max() == 0
    np.testing.assert_array_equal(padded[:, 20:60], wide)
    assert abs(float(Resized(wide, 20, "stretch")[:].mean()) - 100) < 2
    np.testing.assert_array_equal(resize(torch.from_numpy(wide), 40, "crop"), wide[:, :, 20:60])
    with pytest.raises(ValueError, match="fit is 'squeeze', expected crop, pad or stretch"):
        resize(torch.from_numpy(wide), 8, "squeeze")
    assert Resized(wide, 8)[:0].shape == (0, 8, 8, 3)


def test_flipped_pictures_are_flipped_once():
    pictures = np.random.default_rng(0).integers(0, 255, (3, 4, 4, 3), np.uint8)
    np.testing.assert_array_equal(Flipped(pictures)[np.array([2, 0])], pictures[[2, 0], ::-1])


def test_windows_with_broken_pictures_stop_the_run_or_are_replaced():
    data = PartlyBroken("x", reading=Reading(on_error="stop"))
    data.setup("fit")
    every = torch.arange(85)
    with pytest.raises(Broken, match="lacks frame 50"):
        data._batches(data._train, None)[every]
    data = PartlyBroken("x", reading=Reading(on_error="skip"))
    data.setup("fit")
    batches = data._batches(data._train, None)
    with pytest.warns(UserWarning, match="1 faults so far"):
        batch = batches[every]
    whole = Lazy("x")
    whole.setup("fit")
    expected = whole._batches(whole._train, None)[every]
    broken = (expected.video["top"] == 50).flatten(1).any(1)
    assert broken.any()
    assert not (batch.video["top"] == 50).any()
    assert batch.action[~broken].equal(expected.action[~broken])
    np.testing.assert_array_equal(batch.video["top"][:, 3, 0, 0, 0], batch.action[:, 0, 0])  # still of one window


def test_faults_are_counted():
    with pytest.raises(Broken, match="b"):
        Faults().add(Broken("b"))
    faults = Faults("skip")
    for number in range(5):
        faults.add(Broken(f"file {number} is cut off."))
    with pytest.warns(UserWarning, match=r"set: 5 broken episodes were left out, 7 are whole\. file 0 .* And 2 more"):
        faults.report("set", 7)
    with pytest.raises(Broken, match="0 are whole"):
        faults.report("set", 0)
    with pytest.raises(ValueError, match="on_error is 'go', expected stop or skip"):
        Faults("go")


def test_some_episodes_by_number():
    data = Lazy("x", reading=Reading(episodes=[5, 1]))
    np.testing.assert_array_equal(data.store.action[[0, 40], 0], [200, 40])
    with pytest.raises(ValueError, match="There is no episode 6, expected 0 to 5"):
        _ = Lazy("x", reading=Reading(episodes=[1, 6])).store


def test_few_pictures_are_read_once_where_every_step_needs_some(monkeypatch):
    lazy = {"top": Numbered(300)}
    read = held(lazy)["top"]
    assert isinstance(read, np.ndarray)
    np.testing.assert_array_equal(read, lazy["top"][:])
    broken = {"top": Numbered(300, [7])}
    assert held(broken) is broken  # the window that needs it tells
    monkeypatch.setattr(frames_module, "IN_MEMORY_BYTES", 300 * 48 - 1)
    assert held(lazy) is lazy
