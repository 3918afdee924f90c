"""`uva analyze`: which checkpoints are compared, what is played and probed, and a whole analysis that goes on."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("pymunk")
pytest.importorskip("cv2")
pytest.importorskip("matplotlib")

import torch
import untrained

from uva_lightning import envs
from uva_lightning.analysis.checkpoints import gather, training
from uva_lightning.analysis.episodes import AHEAD, cut, record, velocity
from uva_lightning.analysis.probe import CONTACT, POSE, ROBOT, VELOCITY
from uva_lightning.analysis.run import Analysis, Asked, changes_of, summary
from uva_lightning.analysis.table import Cell, Column, columns, related
from uva_lightning.analysis.video import _mean
from uva_lightning.balance import FixedWeights
from uva_lightning.balancers.loss_scale import LossScale
from uva_lightning.commands.errors import UserError
from uva_lightning.envs.probing import Probed
from uva_lightning.evaluation.journal import Journal
from uva_lightning.model.checkpoint import build
from uva_lightning.model.fitted import fit_together
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.rollouts import Episode, RolloutResult
from uva_lightning.sampler import ObjectiveSampler

HEAD = """
    video:
      class_path: uva_lightning.model.heads.base.VideoHead
      init_args:
        steps: 2
        denoiser:
          class_path: uva_lightning.model.heads.flow.FlowMatching
          init_args: {width: 32, depth: 1}
"""


def config(path: Path) -> str:
    """A model with a video head, on data that are there."""
    both = "objectives: {policy: {class_path: RobotPolicy}, video: {class_path: VideoModel, init_args: {weight: 0.5}}}"
    text = untrained.CONFIG.rstrip() + HEAD
    return text.replace("objectives: {policy: {class_path: RobotPolicy}}", both).replace("nowhere", str(path))


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data):
    """The folder of a run with checkpoints of steps 5 and 20, the second also as the last one."""
    folder, data = tmp_path_factory.mktemp("run") / "first", tiny_data()
    data.setup("fit")
    text = config(tiny_data.path)
    module, _ = build(text)
    module.tokenizer.fit(data.training_frames())
    fit_together([module.actions, module.proprioception], data.training_numbers())
    for step, name in ((20, "step=20"), (5, "step=5"), (20, "last")):
        torch.manual_seed(step)
        for weights in module.transformer.parameters():
            torch.nn.init.normal_(weights, std=0.1)
        path = untrained.written(module, text, folder / f"checkpoints/{name}.ckpt")
        torch.save({**torch.load(path, weights_only=True), "global_step": step}, path)
    return folder


# -- which checkpoints --------------------------------------------------------------------------------------------


def test_a_run_means_its_checkpoints_in_the_order_of_their_steps(run):
    found = gather(str(run), "")
    assert [(one.run, one.step, one.path.name) for one in found] == [
        ("first", 5, "step=5.ckpt"),
        ("first", 20, "last.ckpt"),
    ]
    single = run / "checkpoints/step=5.ckpt"
    named = gather(f"a={run}", f"b={single},{single}")
    assert [one.name for one in named] == ["a 5", "a 20", "b 5", "first 5"]


def test_what_cannot_be_compared_is_refused_in_a_sentence(run, tmp_path, uva):
    other = torch.load(run / "checkpoints/step=5.ckpt", weights_only=True)
    other["contract"]["image_size"] = 64
    torch.save(other, tmp_path / "other.ckpt")
    with pytest.raises(
        UserError, match=r"image_size = 96, .*other.ckpt with 64: one table compares models of the same"
    ):
        gather(str(run), str(tmp_path / "other.ckpt"))
    with pytest.raises(UserError, match="has no checkpoints, expected the folder of a run"):
        gather(str(tmp_path / "empty"), "")
    one, two = torch.load(run / "checkpoints/step=20.ckpt", weights_only=True), tmp_path / "two.ckpt"
    torch.save({**one, "more": 1}, two)
    with pytest.raises(UserError, match="are both step 20 of 'x' but have other weights; give each run a name"):
        gather("", f"x={run / 'checkpoints/step=20.ckpt'},x={two}")
    assert "Nothing is to be analysed" in uva("analyze")[2]
    assert "probes is 3, expected at least 8, or 0 for none" in uva("analyze", run, "--probes", 3)[2]
    assert "windows is -1, expected at least 0" in uva("analyze", run, "--windows=-1")[2]
    wrong = uva("analyze", run, "--env", "block_push", "--changes", "picture_hew")
    assert (wrong[0], "'block_push' has no change 'picture_hew'" in wrong[2]) == (2, True)
    wrong = uva("analyze", run, "--env", "block_pusch", "--changes", "picture_hue")
    assert (wrong[0], "did you mean 'block_push'?" in wrong[2]) == (2, True)


def test_weight_and_share_of_video_follow_objectives_and_balancer(run):
    module, _ = build(config(run))
    found = training(module, 20)
    assert found["video_share"] == pytest.approx(0.5, abs=0.02)
    assert found["video_weight"] == pytest.approx(found["video_share"] * 0.5)
    assert found["objectives"]["policy"]["predicts"] == ["action"]
    module.balancer = FixedWeights({"video": 0.0})
    assert training(module, 20)["video_weight"] == 0.0
    module.balancer = LossScale()
    assert training(module, 20)["video_weight"] is None
    module.sampler = ObjectiveSampler(module.sampler.objectives, {"policy": 1.0, "video": 0.0})
    assert training(module, 20)["video_weight"] == 0  # whatever the balancer makes of a loss that is not there
    only, _ = build(untrained.CONFIG)
    assert training(only, 0)["video_share"] == 0


def test_video_is_not_measured_where_nothing_trained_its_head(run, tmp_path):
    module, _ = build(config(run))
    module.balancer = LossScale()
    module.sampler = ObjectiveSampler(module.sampler.objectives, {"policy": 1.0, "video": 0.0})
    with Journal(tmp_path / "journal.jsonl") as journal:
        analysis = Analysis(Asked("pusht", (), 0, 0, 16, "cpu"), tmp_path, journal)
        with pytest.raises(ValueError, match="no loss has trained a video head"):
            analysis._video(WindowPolicy(module))


def test_one_episode_has_a_mean_but_no_interval():
    assert _mean(np.array([1.0, 3.0]), np.array([7, 7])) == {"value": 2.0, "interval": None}
    low, high = _mean(np.array([1.0, 3.0]), np.array([7, 8]))["interval"]
    assert low < 2 < high


# -- what is probed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pusht", "block_push"])
def test_environments_offer_their_state(name):
    env = envs.make(name)
    env.reset(seed=3)
    game = env.unwrapped
    assert isinstance(game, Probed)
    targets = game.probe_targets()
    assert {*game.probed_moving, *game.probed_flags, *game.probed_robot} <= set(targets)
    assert targets["agent position"] == pytest.approx(game._observation()["agent"], abs=1e-3)
    for angle in (values for target, values in targets.items() if target.endswith("angle")):
        assert math.hypot(*angle) == pytest.approx(1)


def test_contact_is_a_touch():
    env = envs.make("pusht").unwrapped
    gaps = {}
    for gap in (-1.0, 0.5, 1.5, 30.0):  # the bar of the T ends 60 px left of its origin
        env.reset(options={"state": (300 - 60 - 15 - gap, 315, 300, 300, 0)})
        gaps[gap] = env.probe_targets()["contact"]
    assert gaps == {-1.0: [1.0], 0.5: [1.0], 1.5: [0.0], 30.0: [0.0]}


def test_episodes_are_recorded_with_their_state_and_cut_into_windows(tiny_data):
    spec = tiny_data().spec
    one = record("block_push", spec, 300_000)
    length = len(one["frames"])
    assert one["frames"].shape[1:] == (96, 96, 3)
    groups = {name.partition("/")[2]: str(value) for name, value in one.items() if name.startswith("group/")}
    assert groups["agent position"] == ROBOT
    assert groups["agent velocity"] == groups["red block velocity"] == VELOCITY
    assert (groups["contact with red"], groups["green block angle"]) == (CONTACT, POSE)
    assert 0 < one["target/contact with red"].mean() < 0.8
    assert np.abs(one["target/red block velocity"][one["target/contact with red"][:, 0] > 0]).max() > 1

    windows = cut([one, one], spec)
    count = len(range(0, length - spec.horizon, 8))
    assert windows.episodes.tolist() == [0] * count + [1] * count
    video, agent = windows.observation["video"]["top"], windows.observation["state"]["agent"]
    assert (video.shape[:2], agent.shape) == ((2 * count, 2), (2 * count, 2, 2))
    np.testing.assert_array_equal(video[0, 0], one["frames"][0])  # before the start stands the start
    np.testing.assert_array_equal(video[2], one["frames"][[8, 16]])
    by_name = {target.name: target for target in windows.targets}
    position = one["target/red block position"]
    np.testing.assert_array_equal(by_name["red block position"].values[2], position[16])
    np.testing.assert_array_equal(by_name[f"red block position{AHEAD}"].values[2], position[16 + spec.horizon])
    np.testing.assert_allclose(by_name["agent position"].values, agent[:, -1])
    with pytest.raises(ValueError, match="has 10 steps, expected more than the 16 of the horizon"):
        cut([{name: value[:10] if value.ndim else value for name, value in one.items()}], spec)


def test_velocities_are_differences_per_second():
    found = velocity(np.array([[0.0, 1.0], [2.0, 1.0], [3.0, 0.0]]), 10)
    assert found.tolist() == [[0, 0], [20, 0], [10, -10]]


def test_an_environment_without_state_is_refused(tiny_data, monkeypatch):
    from uva_lightning.envs.pusht import PushT

    monkeypatch.delattr(PushT, "probe_targets")
    with pytest.raises(ValueError, match="'pusht' cannot be probed: PushT lacks probe_targets"):
        record("pusht", tiny_data().spec, 0)


def test_changes_are_those_that_an_environment_draws():
    assert changes_of("pusht") == ("background_color", "background_object", "goal_color")
    assert changes_of("block_push")[0] == "picture_background_color"


# -- the table ----------------------------------------------------------------------------------------------------


def result(env, scores):
    return RolloutResult(env, 8, tuple(Episode(seed, score, score > 0.8, 9) for seed, score in enumerate(scores)))


def test_changes_are_compared_start_by_start():
    played = {"e": result("e", [0.5, 0.9]), "e:a": result("e:a", [0.1, 0.9]), "e:b": result("e:b", [0.3, 0.5])}
    found = summary(played, "e")
    assert found["changed"]["value"] == pytest.approx(0.45)
    assert found["change"]["value"] == pytest.approx(-0.25)
    assert found["success changed"]["value"] == pytest.approx(0.25)
    assert found["success change"]["value"] == pytest.approx(-0.25)
    cells = {column.name: column.cells[0] for column in columns([{"success": found}])}
    assert cells["success"].value == pytest.approx(0.5)
    assert cells["success changed"].value == pytest.approx(0.25)
    assert found["scenarios"]["e:a"]["change"]["mean"] == pytest.approx(-0.2)
    assert "changed" not in summary({"e": played["e"]}, "e")


def test_columns_are_there_where_something_was_measured():
    row = {"run": "a", "step": 1, "training": {"video_weight": None, "video_share": 0.25}, "video": None}
    found = {column.name: column.cells for column in columns([row])}
    assert found == {"video share": (Cell(0.25),)}


def test_rank_correlation_is_spearmans():
    def column(name, *values):
        return Column(name, "", tuple(None if value is None else Cell(value) for value in values))

    rising, falling = column("rising", 1, 2, 3, 40, 5), column("falling", 9, 8, 7, None, 1)
    ties, still, few = column("ties", 1, 1, 2, 3, 3), column("still", 2, 2, 2, 2, 2), column("few", 1, 2, 3, None, None)
    found = {(one, other): (value, count) for one, other, value, count in related([rising, falling, ties, still, few])}
    assert found["rising", "falling"] == (pytest.approx(-1), 4)
    ranks = np.array([[1, 2, 3, 5, 4], [1.5, 1.5, 3, 4.5, 4.5]])
    assert found["rising", "ties"] == (pytest.approx(np.corrcoef(ranks)[0, 1]), 5)
    assert not any({"still", "few"} & {*pair} for pair in found)


# -- all of it ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_analysis_goes_on_and_repeats_itself(uva, run, tmp_path):
    out = tmp_path / "out"
    sizes = ("--probes", 8, "--windows", 16, "--episodes", 1, "--workers", 1)
    again = ("--ckpts", f"again={run / 'checkpoints/step=5.ckpt'}")  # the same weights in another run cost nothing
    command = ("analyze", run, *again, "--out", out, "--env", "block_push_rr", "--changes", "picture_hue", *sizes)
    status, said, complaint = uva(*command)
    assert status == 0, complaint
    first = json.loads((out / "analysis.json").read_text())
    assert [(row["run"], row["step"]) for row in first["rows"]] == [("first", 5), ("first", 20), ("again", 5)]
    for part in ("training", "video", "latents", "untrained", "success"):
        assert first["rows"][2][part] == first["rows"][0][part]
    names = [column["name"] for column in first["columns"]]
    assert {"video weight", "video loss", "PSNR", "object pose", "contact", "entropy", "score", "change"} < set(names)
    latents = first["rows"][1]["latents"]
    assert list(latents["layers"]) == ["tokens", "input", "encoder 1", "decoder 1", "Z"]
    told = latents["layers"]["input"]["agent position"]["pooled"]
    assert set(told) == {"mean", "frame 1", "frame 2", "all"}
    assert np.shape(latents["layers"]["Z"]["agent position"]["map"]) == (2, 16)
    assert first["rows"][0]["untrained"] == first["rows"][1]["untrained"]
    assert first["rows"][0]["video"]["distance_left_out"] == "16 clips, expected at least 64; raise --windows."
    page = (out / "analysis.md").read_text()
    assert page in said
    assert "## Layers of first, step 20" in page
    assert (out / "analysis.png").stat().st_size > 10_000

    lines = (out / "journal.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 2 * (1 + 1 + 2) + 1
    (out / "journal.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:20])  # killed while it wrote
    status, _, complaint = uva(*command)
    assert status == 0, complaint
    assert (out / "journal.jsonl").read_bytes().splitlines(keepends=True)[:4] == lines[:4]
    assert json.loads((out / "analysis.json").read_text())["rows"] == first["rows"]
