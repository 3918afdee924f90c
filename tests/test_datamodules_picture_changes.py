"""Each change of pictures equals an independent computation: PIL, colorsys or NumPy."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from uva_lightning.datamodules import picture_changes as changes
from uva_lightning.datamodules.picture_changes import AutoContrast, Blur, ColourJitter, Crop, Grey, Sharpness

LEVEL = 1 / 255
FACTORS = (0.0, 0.4, 1.0, 1.7)


def windows(samples=4, frames=2, size=12, low=40, high=200):
    """Random windows f32[b, t, 3, H, W] whose numbers are whole 255ths."""
    rng = torch.Generator().manual_seed(0)
    return torch.randint(low, high, (samples, frames, 3, size, size), generator=rng) / 255


def pil(picture):
    return Image.fromarray((picture.movedim(0, -1) * 255).round().byte().numpy())


def assert_frames_equal(ours, expected, levels):
    """Compare f32[b, t, 3, H, W] with a function that gives each frame's PIL picture, up to some levels of 255."""
    for sample, window in enumerate(ours):
        for frame, picture in enumerate(window):
            theirs = torch.from_numpy(np.array(expected(sample, frame))).movedim(-1, 0) / 255
            torch.testing.assert_close(picture, theirs, atol=levels * LEVEL, rtol=0)


@pytest.mark.parametrize(
    ("ours", "theirs", "levels"),
    [
        (changes.brightened, ImageEnhance.Brightness, 1.01),
        (changes.contrasted, ImageEnhance.Contrast, 2.01),  # PIL rounds the mean grey, too
        (changes.saturated, ImageEnhance.Color, 2.01),  # and the grey picture
        (changes.sharpened, ImageEnhance.Sharpness, 2.01),
    ],
)
def test_factors_do_what_pil_does(ours, theirs, levels):
    pictures = windows()
    changed = ours(pictures.clone(), torch.tensor(FACTORS))
    assert_frames_equal(changed, lambda s, f: theirs(pil(pictures[s, f])).enhance(FACTORS[s]), levels)
    torch.testing.assert_close(changed[2], pictures[2], atol=1e-6, rtol=0)


def test_grey_is_pil_s():
    pictures = windows()
    grey = Grey()(pictures.clone(), torch.zeros(4, 0))
    assert_frames_equal(grey, lambda s, f: pil(pictures[s, f]).convert("L").convert("RGB"), 1.01)


def test_auto_contrast_is_pil_s_and_leaves_a_plain_colour_alone():
    pictures = windows()
    pictures[1, 0, 2] = 0.25
    changed = AutoContrast()(pictures.clone(), torch.zeros(4, 0))
    assert_frames_equal(changed, lambda s, f: ImageOps.autocontrast(pil(pictures[s, f])), 1.01)
    assert (changed[1, 0, 2] == 0.25).all()


def test_hue_is_turned_as_in_colorsys():
    pictures = windows(size=6, low=0, high=256)
    pictures[0, 0, :, 0, 0] = 0.5  # grey has no hue
    pictures[0, 0, :, 0, 1] = 0.0
    turns = (0.5, -0.3, 0.0, 0.08)
    changed = changes.hue_turned(pictures.clone(), torch.tensor(turns))
    for sample, turn in enumerate(turns):
        before, after = (values[sample].movedim(1, -1).reshape(-1, 3) for values in (pictures, changed))
        for old, new in zip(before.double(), after, strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*old.tolist())
            assert new.tolist() == pytest.approx(colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), abs=1e-5)


@pytest.mark.parametrize("kernel", [3, 5])
def test_blur_is_a_gaussian_that_mirrors_the_edges(kernel):
    pictures, sigmas, reach = windows(), (0.1, 0.5, 1.0, 2.0), kernel // 2
    changed = changes.blurred(pictures.clone(), torch.tensor(sigmas), kernel)
    for sample, sigma in enumerate(sigmas):
        line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        plane = np.outer(line, line) / np.outer(line, line).sum()
        padded = np.pad(pictures[sample].numpy(), ((0, 0), (0, 0), (reach, reach), (reach, reach)), mode="reflect")
        expected = sum(plane[y, x] * padded[..., y : y + 12, x : x + 12] for y in range(kernel) for x in range(kernel))
        np.testing.assert_allclose(changed[sample], expected, atol=1e-6)


def test_blur_of_the_drawn_width():
    pictures = windows()
    drawn = torch.tensor([[0.0], [0.25], [0.5], [1.0]])
    changed = Blur(kernel=5, sigma=(0.1, 2.1))(pictures.clone(), drawn)
    assert changed.equal(changes.blurred(pictures, torch.tensor([0.1, 0.6, 1.1, 2.1]), 5))


def test_sharpness_of_the_drawn_strength():
    pictures = windows()
    drawn = torch.tensor([[0.0], [0.2], [0.5], [1.0]])
    changed = Sharpness(strength=2.0)(pictures.clone(), drawn)
    assert changed.equal(changes.sharpened(pictures, torch.tensor([0.0, 0.4, 1.0, 2.0])))


def test_crop_enlarges_the_drawn_square_linearly():
    size, side = 96, 91
    pictures = windows(size=size, low=0, high=256)
    drawn = torch.tensor([[0.0, 0.0], [0.999, 0.0], [0.0, 0.999], [0.5, 0.34]])
    changed = Crop(share=0.95)(pictures.clone(), drawn)
    places = ((np.arange(size) + 0.5) * side / size - 0.5).clip(0, side - 1)
    for sample, (y, x) in enumerate([(0, 0), (5, 0), (0, 5), (3, 2)]):
        cut = pictures[sample, :, :, y : y + side, x : x + side].numpy()
        for axis in (-2, -1):
            cut = np.apply_along_axis(lambda line: np.interp(places, np.arange(side), line), axis, cut)
        np.testing.assert_allclose(changed[sample], cut, atol=2e-5)


@pytest.mark.parametrize(("side", "share", "cut"), [(96, 0.95, 91), (224, 0.93, 208), (8, 1.0, 8)])
def test_crop_has_uva_s_sizes(side, share, cut):
    """The corner is the only pixel that does not vary when everything else of the square does."""
    picture = torch.zeros(1, 1, 3, side, side)
    picture[..., cut:, :] = picture[..., :, cut:] = 1
    assert Crop(share=share)(picture.clone(), torch.zeros(1, 2)).max() == 0
    picture[..., cut - 1, :] = 1
    assert Crop(share=share)(picture.clone(), torch.zeros(1, 2))[..., -1, 0].min() > 0.5


def test_crop_reaches_every_place_equally_often():
    ramp = torch.arange(10.0).expand(1, 1, 3, 10, 10) / 10
    draws = torch.linspace(0, 1 - 1e-7, 3000)[:, None].expand(-1, 2)
    left = Crop(share=0.8)(ramp.expand(3000, -1, -1, -1, -1).clone(), draws)[:, 0, 0, 0, 0]
    assert (left * 10).round().long().bincount().tolist() == [1000, 1000, 1000]


class TestColourJitter:
    def test_applies_its_factors_in_the_drawn_order(self):
        pictures = windows(2)
        jitter = ColourJitter(brightness=0.3, contrast=0.4, saturation=0.5, hue=0.08)
        draws = [[1.0, 0.0, 0.75, 0.5, 0.1, 0.2, 0.3, 0.4], [0.5, 1.0, 0.0, 0.25, 0.9, 0.1, 0.5, 0.3]]
        first, second = pictures[:1].clone(), pictures[1:].clone()
        for change, number in ((changes.brightened, 1.3), (changes.contrasted, 0.6), (changes.saturated, 1.25)):
            first = change(first, torch.tensor([number]))
        for change, number in ((changes.contrasted, 1.4), (changes.hue_turned, -0.04), (changes.saturated, 0.5)):
            second = change(second, torch.tensor([number]))
        changed = jitter(pictures.clone(), torch.tensor(draws))
        torch.testing.assert_close(changed, torch.cat([first, second]), atol=1e-6, rtol=0)

    def test_without_strength_changes_nothing(self):
        pictures = windows()
        assert ColourJitter()(pictures.clone(), torch.rand(4, 8)).equal(pictures)


@pytest.mark.parametrize(
    "change", [Crop(), ColourJitter(1.0, 1.0, 1.0, 0.5, 0.5), Blur(), Sharpness(), AutoContrast(), Grey()]
)
def test_every_change_keeps_shape_and_range(change):
    for pictures in (windows(size=16, low=0, high=256), torch.zeros(4, 2, 3, 16, 16), torch.ones(4, 2, 3, 16, 16)):
        changed = change(pictures.clone(), torch.rand(4, change.draws))
        assert changed.shape == pictures.shape
        assert changed.min() >= 0
        assert changed.max() <= 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Grey(probability=1.5), "Grey has probability 1.5, expected a share between 0 and 1"),
        (lambda: Crop(share=0.0), "Crop has share 0.0, expected more than 0 and at most 1"),
        (lambda: ColourJitter(hue=0.6), r"ColourJitter has hue 0.6, expected 0 to 0.5"),
        (lambda: ColourJitter(contrast=-0.1), r"ColourJitter has contrast -0.1, expected 0 to 1"),
        (lambda: Blur(kernel=4), "Blur has a kernel of 4 px, expected an odd number"),
        (lambda: Blur(sigma=(2.0, 0.1)), r"Blur has sigma \[2.0, 0.1\] px, expected 0 < least <= largest"),
        (lambda: Sharpness(strength=-1.0), "Sharpness has strength -1.0, expected at least 0"),
    ],
)
def test_impossible_settings_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
