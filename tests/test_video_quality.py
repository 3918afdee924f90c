"""Quality of frames equals torchmetrics' own numbers, picture by picture."""

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from uva_lightning.metrics.video_quality import LPIPS, PSNR, SSIM

RNG = torch.Generator().manual_seed(0)
REAL = torch.randint(0, 256, (2, 3, 24, 32, 3), generator=RNG, dtype=torch.uint8)
SEEN = (REAL.float() * 0.8 + torch.rand(REAL.shape, generator=RNG) * 40).to(torch.uint8)


@pytest.mark.parametrize(
    ("metric", "function"), [(PSNR(), peak_signal_noise_ratio), (SSIM(), structural_similarity_index_measure)]
)
def test_frames_are_compared_as_torchmetrics_does(metric, function):
    metric.update(SEEN, REAL)
    one, other = (x[1, 2].permute(2, 0, 1)[None].float() for x in (SEEN, REAL))
    assert float(metric.samples()[1, 2]) == pytest.approx(float(function(one, other, data_range=255.0)), rel=1e-5)
    assert len(metric.compute()["per_step"]) == 3


def test_equal_frames():
    for metric, best in ((PSNR(), 100.0), (SSIM(), 1.0)):
        metric.update(REAL[:1], REAL[:1])
        assert metric.compute()["mean"] == pytest.approx(best)
    with pytest.raises(ValueError, match="expected at least 16 a side"):
        SSIM().update(REAL[:, :, :8], REAL[:, :, :8])


class Difference(torch.nn.Module):
    """Mean difference of pictures, or one number for all of them."""

    def __init__(self, whole: bool):
        super().__init__()
        self.whole = whole

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        each = (one - other).abs().mean(dim=(1, 2, 3))
        return each.mean() if self.whole else each[:, None, None, None]


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_lpips_from_a_file(tmp_path):
    path = tmp_path / "lpips.pt"
    torch.jit.script(Difference(False)).save(path)
    metric = LPIPS(path, at_once=4)
    metric.update(SEEN, REAL)
    expected = (SEEN.float() - REAL.float()).abs().mean(dim=(2, 3, 4)) / 127.5
    assert torch.allclose(metric.samples().float(), expected, atol=1e-6)
    torch.jit.script(Difference(True)).save(path)
    with pytest.raises(ValueError, match=r"gives .* for 6 pictures, expected one for each"):
        LPIPS(path).update(SEEN, REAL)
    with pytest.raises(ValueError, match="no LPIPS network at .*none.pt"):
        LPIPS(tmp_path / "none.pt")
