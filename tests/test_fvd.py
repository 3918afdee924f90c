"""Frechet video distance against numbers of the official code, and over several processes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from uva_lightning.metrics.fvd import (
    I3D,
    FrechetVideoDistance,
    RandomVideoFeatures,
    VideoFeatures,
    clips,
    frechet,
    lengthened,
)

NUMBERS = np.load(Path(__file__).parent / "fixtures" / "fvd.npz")


def test_distance_is_that_of_the_official_code():
    one, other = (torch.from_numpy(NUMBERS[name]) for name in "ab")
    assert float(frechet(one, other)) == pytest.approx(float(NUMBERS["fd"]), rel=1e-5)
    assert float(frechet(one, one)) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="1 and 48 clips, expected at least 2"):
        frechet(one[:1], other)


class Given(VideoFeatures):
    """Features that are known, whatever the clips."""

    def __init__(self, *rows: torch.Tensor):
        super().__init__()
        self.rows, self.width = list(rows), rows[0].shape[1]

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.rows.pop(0)


def test_the_metric_gives_the_number_of_the_official_code():
    one, other = (torch.from_numpy(NUMBERS[name]) for name in "ab")
    metric = FrechetVideoDistance(Given(one[:9], other[:20], one[9:], other[20:]))
    for _ in range(2):
        metric.update(*torch.zeros(2, 1, 1, 8, 8, 3, dtype=torch.uint8))
    assert float(metric.compute()) == pytest.approx(float(NUMBERS["fd"]), rel=1e-5)


def test_clips_are_prepared_as_in_the_official_code():
    prepared = clips(torch.from_numpy(NUMBERS["video_uint8"]))
    assert prepared.shape == (1, 3, 4, 224, 224)
    np.testing.assert_allclose(prepared[..., ::8, ::8], NUMBERS["preprocessed_224_stride8"], atol=1e-6)


def test_long_pictures_are_cut_in_the_middle_as_in_the_official_code():
    frames = torch.randint(0, 256, (1, 2, 24, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    wide = torch.nn.functional.interpolate(frames[0].permute(0, 3, 1, 2) / 255.0, (224, 299), mode="bilinear")
    expected = 2 * wide[..., 37:261] - 1  # 298.67 px are rounded up
    assert torch.allclose(clips(frames)[0].transpose(0, 1), expected, atol=1e-5)
    turned = clips(frames.transpose(2, 3))[0].transpose(0, 1)
    assert torch.allclose(turned.transpose(2, 3), expected, atol=1e-5)


def test_short_clips_repeat_their_frames():
    frames = torch.arange(8).view(2, 4, 1, 1, 1)
    assert lengthened(frames)[1, :, 0, 0, 0].tolist() == [4] * 4 + [5] * 4 + [6] * 4 + [7] * 4
    with pytest.raises(ValueError, match="3 frames, expected a divisor of 16"):
        lengthened(frames[:, :3])


def films(seed, count, speed):
    """Squares that move to the right."""
    rng = np.random.default_rng(seed)
    films = np.zeros((count, 4, 32, 32, 3), np.uint8)
    for film in films:
        row, column = rng.integers(0, 12, 2)
        for number, frame in enumerate(film):
            frame[row : row + 8, column + speed * number : column + speed * number + 8] = 255
    return torch.from_numpy(films)


def test_random_features_tell_motions_apart():
    distances = {}
    for speed in (2, 0):
        metric = FrechetVideoDistance(RandomVideoFeatures(16))
        metric.update(films(1, 10, speed), films(2, 10, 2))
        distances[speed] = float(metric.compute())
    assert distances[0] > 3 * distances[2]


def test_parts_of_a_data_set_add_up():
    features, metric = RandomVideoFeatures(8), FrechetVideoDistance(RandomVideoFeatures(8))
    generated, real = films(1, 12, 1), films(2, 10, 2)
    for part in (slice(0, 5), slice(5, 12)):
        metric.update(generated[part], real[part])
    whole = frechet(*(features(clips(lengthened(x))) for x in (generated, real)))
    assert float(metric.compute()) == pytest.approx(float(whole), rel=1e-6)
    metric.reset()
    metric.update(generated[:1], real[:1])
    with pytest.raises(ValueError, match="1 generated clips, expected at least 2"):
        metric.compute()


class Logits(torch.nn.Module):
    """Gives logits as I3D does, of the mean colour."""

    def __init__(self, width: int):
        super().__init__()
        self.linear = torch.nn.Linear(3, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.mean(dim=(2, 3, 4)))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_i3d_from_a_file(tmp_path):
    path = tmp_path / "i3d.pt"
    torch.jit.script(Logits(400)).save(path)
    metric = FrechetVideoDistance(I3D(path))
    metric.update(films(1, 3, 1), films(2, 3, 1))
    assert np.isfinite(float(metric.compute()))
    torch.jit.script(Logits(7)).save(path)
    with pytest.raises(ValueError, match=r"gives \(3, 7\), expected \[n, 400\]"):
        FrechetVideoDistance(I3D(path)).update(films(1, 3, 1), films(2, 3, 1))
    with pytest.raises(ValueError, match="no I3D network at .*none.pt"):
        I3D(tmp_path / "none.pt")
