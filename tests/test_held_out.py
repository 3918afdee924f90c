"""What a model does on held-out windows, as numbers with their n, and as a part of `uva eval`."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")

import untrained
from fitted_models import fitted

from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules.windows import Window
from uva_lightning.evaluation.held_out import Measuring, section
from uva_lightning.evaluation.suite import suite_of
from uva_lightning.metrics.comparison import HeldOut, psnr
from uva_lightning.metrics.fvd import FrechetVideoDistance, RandomVideoFeatures
from uva_lightning.metrics.held_out import COPY, measure
from uva_lightning.model.fitted import fit_together
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.types import Batch, DataSpec


@pytest.fixture(scope="module")
def windows(tiny_data):
    return HeldOut.from_data(tiny_data(window=Window(2)), 4)


@pytest.fixture(scope="module")
def policy(tiny_data, tiny_module):
    return WindowPolicy(fitted(tiny_data(), tiny_module).eval())


class Difference(torch.nn.Module):
    """Stands in the place of LPIPS."""

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (one - other).abs().mean(dim=(1, 2, 3))


@pytest.fixture(scope="module")
def measured(policy, windows, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "lpips.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(Difference()).save(path)
        return measure(policy, windows, [RandomVideoFeatures(8)], path)


def test_every_function_is_measured_step_by_step(measured, policy, windows):
    assert measured["left_out"] == {}
    assert set(measured["video"]) == {COPY, "video model", "forward dynamics"}
    assert set(measured["actions"]) == {"robot policy", "inverse dynamics"}
    copied = np.repeat(windows.observation["video"]["top"][:, -1:], 2, axis=1)
    found = measured["video"][COPY]["psnr"]
    assert found["per_step"][-1] == pytest.approx(psnr(copied, windows.future["top"]).mean())
    off = np.abs(copied.astype(float) - windows.future["top"]).mean(axis=(0, 2, 3, 4)) / 127.5
    assert measured["video"][COPY]["lpips"]["per_step"] == pytest.approx(off, rel=1e-4)
    guessed = psnr(policy.imagine(windows.observation, 0.0)["top"], windows.future["top"])
    assert measured["video"]["video model"]["psnr"]["per_step"][-1] == pytest.approx(guessed.mean())
    for row in [row for part in ("video", "actions") for one in measured[part].values() for row in one.values()]:
        assert row["n"] == 4
        assert row["interval"][0] <= row["mean"] <= row["interval"][1]
    assert set(measured["actions"]["robot policy"]) == {"l2", "l1"}
    assert len(measured["actions"]["robot policy"]["l2"]["per_step"]) == 16


def test_distances_are_of_all_clips_and_of_as_many_as_official(measured, windows):
    title = RandomVideoFeatures.title
    assert [row["n"] for row in measured["frechet"][title]["video model"]] == [4]
    metric = FrechetVideoDistance(RandomVideoFeatures(8))
    copied = np.repeat(windows.observation["video"]["top"][:, -1:], 2, axis=1)
    metric.update(torch.from_numpy(copied), torch.from_numpy(windows.future["top"]))
    assert measured["frechet"][title][COPY][0]["distance"] == pytest.approx(float(metric.compute()))


def test_poses_are_measured_in_cm_and_degrees(tiny_module):
    told = {"rotation": "rotation-6d, first two rows of the matrix"}
    spec = DataSpec(("wrist",), 96, 10, {"opening": 1}, 10.0, horizon=4, frames=2, conventions=told)
    rng = torch.Generator().manual_seed(0)
    video = torch.randint(0, 256, (3, 4, 96, 96, 3), generator=rng, dtype=torch.uint8)
    action, opening = torch.randn(3, 4, 10, generator=rng), torch.rand(3, 2, 1, generator=rng)
    module = tiny_module(spec)
    module.tokenizer.fit(video.flatten(0, 1))
    batch = Batch(action=action, state={"opening": opening}, present={"action": torch.ones(3).bool()})
    fit_together([module.actions, module.proprioception], [batch])
    policy, seen = WindowPolicy(module.eval()), {"wrist": video[:, :2].numpy()}
    windows = HeldOut(
        {"video": seen, "state": {"opening": opening.numpy()}}, {"wrist": video[:, 2:].numpy()}, action.numpy()
    )
    found = measure(policy, windows, [], seed=3)["actions"]["robot policy"]
    assert [row["title"] for row in found.values()][2:] == ["position error, cm", "rotation error, degrees"]
    policy.reset(3)
    for _ in range(3):  # frames of two functions, and clips
        policy.imagine(windows.observation)
    off = policy.act(windows.observation)[..., :3] - windows.action[..., :3]
    assert found["position"]["mean"] == pytest.approx(100 * np.linalg.norm(off, axis=-1).mean(), rel=1e-4)
    assert 0 < found["rotation"]["mean"] < 180


def test_the_report_has_a_row_for_each_number(measured):
    page = re.sub(
        " +", " ", section({"mine": {"data": "demos", **measured}, "other": {"skipped": "There are no data."}})
    )
    assert "mine: 4 windows of demos, camera 'top', 1 rounds of generation" in page
    assert "| function | measure | mean | step 1 | step 2 | step 4 | step 8 | step 16 |" in page
    assert f"{measured['video']['video model']['psnr']['mean']:.3f} (" in page
    assert f"| {RandomVideoFeatures.title} | video model | 4 |" in page
    assert "other: not measured. There are no data." in page
    assert section({}) == ""


def test_a_checkpoint_without_a_video_head_is_measured_as_far_as_it_goes(uva, tmp_path, tiny_data):
    path = untrained.checkpoint(tmp_path / "run/checkpoints/last.ckpt", tiny_data())
    out = tmp_path / "out"
    options = ("--ckpt", path, "--data", tiny_data.path, "--out", out, "--play.held.windows", 2, "--device", "cpu")
    status, said, complaint = uva("eval", "--suite", "offline", *options)
    assert status == 0, complaint
    found = json.loads((out / "results.json").read_text())
    row = found["held_out"]["run"]
    assert (row["windows"], found["scenarios"], found["played"]) == (2, {}, 0)
    assert row["actions"]["robot policy"]["l2"]["n"] == 2
    assert "video" in row["left_out"]["video model"]
    assert (out / "report.md").read_text() in said
    assert not (out / "scores.png").exists()
    before = (out / "journal.jsonl").read_bytes()
    assert uva("eval", "--suite", "offline", *options)[0] == 0
    assert (out / "journal.jsonl").read_bytes() == before, "it was measured already"


def test_what_is_missing_is_said(uva, tmp_path):
    assert "measures checkpoints, expected some; set --ckpt" in uva("eval", "--suite", "offline")[2]
    with pytest.raises(UserError, match="no LPIPS network at .*lpips.pt"):
        Measuring(lpips=tmp_path / "lpips.pt").features()
    with pytest.raises(UserError, match="no I3D network at .*i3d.pt"):
        Measuring(i3d=tmp_path / "i3d.pt").features()
    options = ("--suite", "paper", "--out", tmp_path / "out", "--play.held.i3d", tmp_path / "i3d.pt")
    assert "no I3D network at" in uva("eval", *options)[2]
    assert not (tmp_path / "out").exists(), "nothing was played"
    with pytest.raises(ValueError, match=r"rounds is 0, expected at least 1; set --play\.held\.rounds"):
        Measuring(rounds=0)
    assert suite_of("offline").held_out
    assert suite_of("paper").held_out
    assert not suite_of("pusht").held_out
