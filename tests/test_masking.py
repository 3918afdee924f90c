"""The random masks of the future: UVA's distribution of the ratio, one spatial mask for all frames."""

from __future__ import annotations

import math

import pytest
import torch

from uva_lightning.draws import seeded
from uva_lightning.masking import spatial_mask, truncated_normal
from uva_lightning.objective import registry
from uva_lightning.objectives.random_mask import RandomMask
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.types import Tokens


def ratios(count):
    return truncated_normal(1.0, 0.25, 0.7, 1.0, torch.rand(count, generator=seeded(0)))


def tokens(samples=3, frames=4, places=16):
    shape = (samples, frames, places, 2)
    return Tokens({"past_video": torch.zeros(shape), "video": torch.zeros(shape), "action": torch.zeros(samples, 8, 2)})


def test_the_ratio_has_uvas_mean_and_spread():
    drawn = ratios(20_000)
    assert drawn.min() >= 0.7
    assert drawn.max() <= 1.0
    assert drawn.mean() == pytest.approx(0.867, abs=0.002)
    assert drawn.std() == pytest.approx(0.084, abs=0.002)


@pytest.mark.parametrize("value", [0.75, 0.85, 0.95])
def test_the_ratio_follows_a_normal_distribution_cut_on_both_sides(value):
    def below(x):
        return 0.5 * (1 + math.erf((x - 1.0) / 0.25 / math.sqrt(2)))

    expected = (below(value) - below(0.7)) / (below(1.0) - below(0.7))
    assert (ratios(20_000) < value).float().mean() == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize(("ratio", "count"), [(0.0, 0), (0.7, 180), (0.75, 192), (0.7501, 193), (1.0, 256)])
def test_the_hidden_share_is_rounded_up(ratio, count):
    assert (spatial_mask(torch.full((3,), ratio).double(), torch.rand(3, 256)).sum(dim=1) == count).all()


def test_samples_have_masks_of_their_own_that_favour_no_place():
    mask = spatial_mask(torch.full((4000,), 0.75), torch.rand(4000, 16, generator=seeded(0)))
    assert not mask[0].equal(mask[1])
    assert mask.float().mean(dim=0) == pytest.approx(torch.full((16,), 0.75).numpy(), abs=0.04)


def test_all_future_frames_have_the_same_mask():
    seen = VideoModel().visible(tokens(3, 4, 256), seeded(0)).video
    assert seen.shape == (3, 4, 256)
    assert seen.any()
    assert seen.equal(seen[:, :1].expand_as(seen))


def test_the_ratio_is_drawn_for_each_sample_and_anew_in_each_call():
    rng = seeded(0)
    shown = [VideoModel().visible(tokens(8, 2, 256), rng).video[:, 0].sum(dim=1) for _ in range(2)]
    assert all(len(set(counts.tolist())) > 4 for counts in shown)
    assert not shown[0].equal(shown[1])


def test_the_smallest_ratio_is_respected():
    rng = seeded(1)
    shares = [(~VideoModel(mask_ratio_min=0.95).visible(tokens(1), rng).video).float().mean() for _ in range(50)]
    assert min(shares) == 1.0, "ceil(16 * 0.95) = 16"
    assert min((~VideoModel(mask_ratio_min=0.1).visible(tokens(1), rng).video).float().mean() for _ in range(200)) < 0.6


@pytest.mark.parametrize("ratio", [0.25, 0.5])
def test_equal_bounds_make_one_ratio(ratio):
    rng, same = seeded(0), {"mask_ratio_min": ratio, "mask_ratio_max": ratio}
    assert ((~VideoModel(**same).visible(tokens(50), rng).video).float().mean(dim=2) == ratio).all()
    seen = RandomMask(**same).visible(tokens(400), rng)
    assert seen.past_video.all()
    assert ((~seen.video).float().mean(dim=2) == ratio).all()
    assert ((~seen.action).float().mean(dim=1) == ratio).all()
    assert (~seen.action).float().mean(dim=0) == pytest.approx(torch.full((8,), ratio).numpy(), abs=0.1)
    assert not seen.action.equal(seen.video[:, 0, :8]), "frames and actions have masks of their own"


def test_the_largest_ratio_is_respected():
    hidden = [(~VideoModel(1.0, 0.1, (), 0.4).visible(tokens(1), seeded(n)).video).float().mean() for n in range(50)]
    assert 0.1 < min(hidden) < max(hidden) <= 0.4375, "ceil(16 * 0.4) = 7"


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.4), (0.0, 0.0), (0.5, 1.1)])
def test_a_largest_ratio_out_of_range_is_refused(low, high):
    with pytest.raises(ValueError, match=f"mask_ratio_max is {high}, expected a share above 0, from mask_ratio_min"):
        VideoModel(mask_ratio_min=low, mask_ratio_max=high)


@pytest.mark.parametrize("wrong", [-0.1, 1.0])
def test_a_ratio_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=f"mask_ratio_min is {wrong}, expected a share"):
        VideoModel(mask_ratio_min=wrong)


def test_the_base_class_is_no_objective():
    assert "VideoModel" in registry()
    assert "MaskedFuture" not in registry()
