"""Augmentation: one draw for all frames of a window, from the seed and the place in the run."""

from __future__ import annotations

import pytest
import torch

from uva_lightning.datamodules.augment import Augmentation
from uva_lightning.datamodules.picture_changes import (
    AutoContrast,
    Blur,
    ColourJitter,
    Crop,
    Grey,
    PictureChange,
    Sharpness,
)
from uva_lightning.datamodules.rows import Rows

UMI = Augmentation(
    [
        Crop(0.5, 0.93),
        ColourJitter(0.8, 0.3, 0.4, 0.5, 0.08),
        Sharpness(0.5),
        AutoContrast(0.5),
        Grey(0.2),
        Blur(0.5),
    ]
)


def rows(first=0, samples=12, total=12, batch=3, seed=1):
    return Rows(torch.arange(samples), seed, batch, first, total)


def film(samples=12, frames=4, size=16):
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (samples, frames, size, size, 3), dtype=torch.uint8, generator=rng)


def still(samples=12, frames=4):
    """Windows of one picture that stands still, the same in all."""
    return film(1, 1).expand(samples, frames, -1, -1, -1)


def test_all_frames_of_a_window_are_changed_alike_and_windows_differ():
    changed = UMI(still(), rows(), 0)
    assert changed.dtype == torch.uint8
    assert (changed == changed[:, :1]).all()
    assert len(changed[:, 0].unique(dim=0)) >= 10


def test_processes_together_do_what_one_does():
    video = film()
    parts = [UMI(video[first : first + 3], rows(first, 3), 0) for first in (0, 3, 6, 9)]
    assert torch.cat(parts).equal(UMI(video, rows(), 0))


def test_a_batch_repeats_and_another_differs():
    video = film()
    once = UMI(video, rows(), 0)
    assert UMI(video, rows(), 0).equal(once)
    for other in (rows(batch=4), rows(seed=2)):
        assert not UMI(video, other, 0).equal(once)
    assert not UMI(video, rows(), 1).equal(once), "each camera has draws of its own"


def test_neither_the_video_nor_the_global_generator_is_touched():
    video, state = film(), torch.get_rng_state()
    before = video.clone()
    UMI(video, rows(), 0)
    UMI.episode(video[0], 0, 0, 1)
    assert video.equal(before)
    assert torch.get_rng_state().equal(state)


def test_windows_are_changed_with_the_given_probability_and_others_stay_exactly():
    video = still(400, 1)
    changed = (Augmentation([Grey(0.2)])(video, rows(samples=400, total=400), 0) != video).flatten(1).any(dim=1)
    assert 0.14 < changed.float().mean() < 0.26
    assert Augmentation([change(0.0) for change in (Crop, Blur, Grey, Sharpness)])(
        video, rows(samples=400, total=400), 0
    ).equal(video)


def test_changes_follow_each_other_in_the_given_order():
    video = film(2)
    both = Augmentation([Grey(), AutoContrast()])(video, rows(samples=2, total=2), 0)
    assert (both[..., 0] == both[..., 1]).all()
    swapped = Augmentation([AutoContrast(), Grey()])(video, rows(samples=2, total=2), 0)
    assert not both.equal(swapped)
    assert (both.amax(dim=(2, 3)) == 255).all()


class TestEpisode:
    def test_is_changed_alike_in_all_frames_also_in_blocks(self):
        frames = film(1, 20)[0]
        whole = UMI.episode(frames, seed=5, episode=2, variant=1)
        blocks = [UMI.episode(block, 5, 2, 1) for block in frames.split(7)]
        assert torch.cat(blocks).equal(whole)
        same = UMI.episode(still(1, 20)[0], 5, 2, 1)
        assert (same == same[:1]).all()

    def test_differs_by_episode_variant_camera_and_seed(self):
        frames = film(1, 2)[0]
        places = [(5, 2, 1, 0), (6, 2, 1, 0), (5, 3, 1, 0), (5, 2, 2, 0), (5, 2, 1, 1)]
        drawn = torch.stack([UMI.episode(frames, *place) for place in places])
        assert len(drawn.unique(dim=0)) == len(places)

    def test_has_no_variant_zero(self):
        with pytest.raises(ValueError, match="The variant is 0, expected at least 1"):
            UMI.episode(film(1)[0], 5, 2, 0)


def test_the_identity_names_every_setting():
    assert UMI.identity() != Augmentation(UMI.changes[::-1]).identity()
    assert Augmentation([Blur(0.5)]).identity() == "Blur(probability=0.5, kernel=5, sigma=(0.1, 2.0))"


def test_no_changes_are_refused():
    with pytest.raises(ValueError, match="data.augment has no changes, expected at least one"):
        Augmentation([])


def test_every_change_is_a_change():
    assert {type(change) for change in UMI.changes} == set(PictureChange.__subclasses__())
