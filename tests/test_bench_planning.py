"""The table of planning: policy, planner and bound from the same starts, with paired gains."""

from __future__ import annotations

import json
from math import ceil

import numpy as np
import pytest
from fitted_models import fitted
from untrained import written

pytest.importorskip("pymunk")
pytest.importorskip("cv2")

from uva_lightning.benchmarks.judgement import Judgement
from uva_lightning.benchmarks.planning import BOUND, PLANNED, POLICY, TYPICAL, markdown, summary
from uva_lightning.cli import main
from uva_lightning.model.checkpoint import build
from uva_lightning.rollouts import Episode, RolloutResult

CONFIG = """
data: {class_path: BlockPush, init_args: {path: nowhere, window: {frames: 2}}}
model:
  tokenizer: {class_path: LinearPatches, init_args: {channels: 8}}
  objectives: {policy: RobotPolicy, forward: ForwardDynamics}
  transformer: {class_path: LatentTransformer, init_args: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1}}
  heads:
    video:
      class_path: VideoHead
      init_args: {steps: 1, denoiser: {class_path: FlowMatching, init_args: {width: 16, depth: 1}}}
    action:
      class_path: ActionHead
      init_args: {steps: 1, aggregator: ConvFC, denoiser: {class_path: FlowMatching, init_args: {width: 16, depth: 1}}}
"""


def result(env, solved):
    return RolloutResult(env, 8, tuple(Episode(seed, float(won), won, 10) for seed, won in enumerate(solved)))


def played(*solved):
    return {env: result(env, won) for env, won in zip("ab", solved, strict=True)}


def test_gains_are_paired_by_start_over_all_environments():
    many = 20
    alone = played([True, False] * many, [False, False] * many)
    planned = played([True, True] * many, [False, True] * many)
    rows = summary({POLICY: alone, PLANNED: planned})
    assert rows[POLICY]["success"] == pytest.approx(0.25)
    assert rows[PLANNED]["envs"]["b"]["success"] == pytest.approx(0.5)
    assert (rows[POLICY]["gain"], rows[POLICY]["gain_interval"]) == (0, [0, 0])
    assert rows[PLANNED]["gain"] == pytest.approx(0.5)  # 0 at every other start, 1 at the others
    low, high = rows[PLANNED]["gain_interval"]
    assert 0.3 < low < 0.5 < high < 0.7  # 40 starts, not 80 episodes: the two of a start are not independent
    same = summary({POLICY: alone, PLANNED: alone})
    assert same[PLANNED]["gain_interval"] == [0, 0]


def test_the_table_has_a_row_for_each_way_and_a_column_for_each_environment():
    rows = summary({POLICY: played([True, False], [False, False]), PLANNED: played([True, True], [True, False])})
    head, _, first, second = markdown(rows).splitlines()
    assert head == "| success | a | b | mean | gain over the policy |"
    assert first.startswith(f"| {POLICY} | 0.50 (0.09 to 0.91) | 0.00 (0.00 to 0.66) | 0.25 (0.00 to 0.50) |  |")
    assert "| +0.50 (" in second


def test_the_table_shows_how_much_of_the_bound_was_reached():
    alone, planned = played([True, False] * 9, [False] * 18), played([True, False] * 9, [True, False] * 9)
    rows = summary({POLICY: alone, PLANNED: planned, BOUND: played([True] * 18, [True, False] * 9)})
    assert rows[PLANNED]["share"] == pytest.approx(0.5)
    head, _, first, second, third = markdown(rows).splitlines()
    assert head.endswith(f"| share of the gain of {BOUND} |")
    assert "| 0.50 (" in second
    assert first.endswith("|  |")
    assert third.endswith("|  |")
    nothing = summary({POLICY: alone, PLANNED: planned, BOUND: alone})
    assert "the bound gains nothing" in markdown(nothing)


def test_imagination_is_judged_by_the_decisions_that_matter():
    judgement = Judgement(apart=14.2)
    assert "In none of 0 decisions" in str(judgement)
    true = np.array([[0.0, 0.0, 0.0, 30.0], [0.0, 20.0, 20.0, 0.0], [30.0, 40.0, 40.0, 0.0]])
    imagined = np.array([[9.0, 1.0, 7.0, 5.0], [9.0, 2.0, 7.0, 5.0], [0.0, 6.0, 7.0, 0.0]])
    judgement.add(imagined, true)  # of standard deviations 14.14, 16.3, 16.3 and 14.14
    right = np.corrcoef([1, 2, 6], [0, 20, 40])[0, 1]  # 0.94: in order, but not in proportion
    assert judgement.row() == {"decisions": 4, "matter": 2, "apart": 14.2, "correlation": pytest.approx(right / 2)}
    assert f"correlate by {right / 2:.2f}: mean of the 2 of 4 decisions" in str(judgement)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_data):
    """Write a checkpoint of a model with random weights into a run folder."""
    module = fitted(tiny_data(), lambda spec: build(CONFIG)[0])
    return written(module, CONFIG, tmp_path_factory.mktemp("run") / "checkpoints/last.ckpt")


def test_the_command_writes_the_table_the_numbers_and_films(checkpoint, capsys):
    argv = ["bench", "planning", "--ckpt", str(checkpoint), "--envs", "block_push_rg", "--episodes", "2"]
    assert not main([*argv, "--proposals", "2", "--execute", "16", "--device", "cpu"])
    folder = checkpoint.parent.parent / "planning"
    found = json.loads((folder / "results.json").read_text())
    assert list(found["ways"]) == [POLICY, TYPICAL, PLANNED, BOUND]
    assert found["seeds"] == [100000, 100001]
    assert found["judgement"]["decisions"] == 2 * ceil(200 / 16)  # those of the planner with the simulator
    for row in found["episodes"].values():
        assert [episode["seed"] for episode in row["block_push_rg"]] == found["seeds"]
        assert all(0 <= episode["score"] <= 1 for episode in row["block_push_rg"])
    table = (folder / "planning.md").read_text()
    assert table in capsys.readouterr().out + "\n"
    assert len(list(folder.glob("block_push_rg_100000_*.mp4"))) == 4
    assert np.isfinite(found["seconds"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--envs", "block_push_rx"], "no environment 'block_push_rx'"),
        (["--envs", "block_push"], "'block_push' has no fixed goal"),
        (["--envs", ","], "envs is empty, expected environments"),
        (["--episodes", "0"], "episodes is 0, expected at least 1"),
        (["--proposals", "0"], "proposals is 0, expected at least 1"),
    ],
)
def test_what_cannot_be_planned_is_refused_before_any_time_is_spent(options, message, capsys):
    assert main(["bench", "planning", "--ckpt", "nowhere.ckpt", *options]) == 2
    assert message in capsys.readouterr().err
