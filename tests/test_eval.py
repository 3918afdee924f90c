"""`uva eval`: numbers with all that belongs to them, and an evaluation that is killed and goes on."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("pymunk")
pytest.importorskip("shapely")
pytest.importorskip("cv2")
pytest.importorskip("av")
pytest.importorskip("matplotlib")
pytest.importorskip("zarr")
pytest.importorskip("websockets")

import played_demos
import untrained
from short_suites import ShortSuite

from uva_lightning.commands.errors import UserError
from uva_lightning.envs.games import Start
from uva_lightning.envs.vector import Workers
from uva_lightning.evaluation.contenders import baseline, named
from uva_lightning.evaluation.content import difference
from uva_lightning.evaluation.journal import Journal, key_of
from uva_lightning.evaluation.run import Evaluation
from uva_lightning.evaluation.suite import Scenario, Suite, known_suites, suite_of
from uva_lightning.metrics.intervals import bootstrap_mean, wilson
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.rollouts import FIRST_TEST_SEED, Episode, RolloutResult, run_rollouts
from uva_lightning.video_files import safe

SHORT = "{class_path: short_suites.ShortSuite}"
SEEDS = range(FIRST_TEST_SEED, FIRST_TEST_SEED + 3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_data):
    return untrained.checkpoint(tmp_path_factory.mktemp("run") / "first/checkpoints/last.ckpt", tiny_data())


@pytest.fixture(scope="module")
def workers():
    with Workers(1) as pool:
        yield pool


@pytest.fixture
def evaluated(uva, tmp_path):
    """Give a function that evaluates and returns the results and what was said."""

    def run(*options, out=tmp_path / "out", fails=False):
        status, said, complaint = uva("eval", "--suite", SHORT, "--out", out, "--workers", 1, *options)
        assert (status != 0) == fails, complaint
        return (complaint if fails else json.loads((out / "results.json").read_text())), said

    return run


def test_results_have_all_that_belongs_to_them(evaluated, checkpoint, tmp_path):
    data = played_demos.replay_buffer(tmp_path / "set.zarr")
    found, said = evaluated("--ckpt", checkpoint, "--data", data, "--play.videos", 1, "--play.beside", 2)
    assert (found["suite"], found["played"], found["kept"], found["crashes"]) == (SHORT, 12, 0, 0)
    assert {"torch", "pymunk", "gymnasium", "uva_lightning"} <= set(found["versions"])
    first = found["contenders"]["first"]
    assert first["sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert first["contract"]["action_meaning"] == "absolute target of the agent, px"
    assert found["replay"]["score"] == pytest.approx(found["replay"]["own_score"], abs=1e-3)
    assert found["missing"] == {"The real table": "it needs a table."}

    policy = WindowPolicy.from_checkpoint(checkpoint, "cpu", FIRST_TEST_SEED)
    expected = run_rollouts(policy, "pusht", policy.spec, SEEDS, max_steps=24, progress=False)
    plain = found["scenarios"]["plain"]["results"]["first"]
    scores = [episode["score"] for episode in plain["episodes"]]
    assert scores == pytest.approx([episode.score for episode in expected.episodes], abs=1e-4)
    assert (plain["n"], plain["seeds"]) == (3, list(SEEDS))
    assert plain["score_interval"] == list(bootstrap_mean(scores))
    assert plain["success_interval"] == list(wilson(0, 3))
    assert plain["films"] == ["videos/first/plain_100000.mp4"]

    hue = found["scenarios"]["hue"]["results"]["first"]
    gains = np.array([episode["score"] for episode in hue["episodes"]]) - scores
    assert hue["change"] == {"n": 3, "mean": pytest.approx(gains.mean()), "interval": list(bootstrap_mean(gains))}
    held = found["scenarios"]["plain"]["results"]["hold"]
    assert held["difference"]["n"] == 3
    assert found["scenarios"]["hue"]["results"]["hold"]["change"]["mean"] == 0.0, "it does not look"

    page = (tmp_path / "out/report.md").read_text()
    assert page in said
    for part in (
        "first",
        "hold",
        "0.98",
        "Not in the paper.",
        "it needs a table.",
        f"{plain['score']:.3f} (",
        "replayed",
    ):
        assert part in page
    films = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").glob("videos/*/*.mp4"))
    assert films == [f"videos/{who}/{name}_100000.mp4" for who in ("first", "hold") for name in ("hue", "plain")]
    assert all(f"({film})" in page for film in films)
    assert (tmp_path / "out/scores.png").stat().st_size > 5000


def test_it_goes_on_and_plays_only_what_is_new(workers, tmp_path):
    def run(videos=0, execute=8, **options):
        with Journal(tmp_path / "journal") as journal:
            play = Evaluation(tmp_path, workers, videos)
            return play(ShortSuite(**options).scenarios(), [baseline("hold", execute)], journal)

    found, again, more = run(), run(), run(episodes=4)
    assert [(one.played, one.kept) for one in (found, again, more)] == [(6, 0), (0, 6), (2, 6)]
    assert again.results == found.results
    assert more.results["hue"]["hold"].episodes[:3] == found.results["hue"]["hold"].episodes
    other = run(videos=1, execute=4)
    assert (other.played, other.kept) == (6, 0), "what it follows from is another"
    (tmp_path / "videos/hold/plain_100000.mp4").unlink()
    filmed = run(videos=1, execute=4)
    assert (filmed.played, filmed.kept) == (1, 5), "a film that is gone is played again"
    assert filmed.results == other.results


def test_a_killed_journal_loses_the_torn_line_alone(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.add("a", {"x": 1})
        journal.add("b", {"x": 2})
    whole = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(whole[:-4])
    with Journal(tmp_path / "j") as journal:
        assert journal.known == {"a": {"x": 1}}
        journal.add("b", {"x": 2})
    assert (tmp_path / "j").read_bytes() == whole
    facts = {"state": np.array([1.5, 2])}
    assert key_of(facts) == key_of({"state": [1.5, 2.0]})
    assert key_of(facts) != key_of({"state": [1.5, 2.1]})


@pytest.mark.slow
def test_killed_and_started_again(tmp_path):
    """SIGKILL in the middle, then the same command: the numbers are those of an evaluation that nobody disturbed."""

    def command(out):
        own = ["--baselines", "hold", "--workers", "2", "--play.beside", "1", "--play.videos", "1"]
        suite = "{class_path: short_suites.ShortSuite, init_args: {steps: 200}}"
        return [sys.executable, "-m", "uva_lightning.cli", "eval", "--suite", suite, "--out", str(out), *own]

    root = Path(__file__).parents[1]
    env = os.environ | {"PYTHONPATH": f"{root / 'src'}:{root / 'tests/support'}"}
    out = tmp_path / "killed"
    process = subprocess.Popen(command(out), env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while time.monotonic() < until and not (
        (out / "journal.jsonl").exists() and (out / "journal.jsonl").stat().st_size
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = (out / "journal.jsonl").read_bytes().count(b"\n")
    assert 0 < before < 6
    for folder in (out, tmp_path / "whole"):
        subprocess.run(command(folder), env=env, check=True, capture_output=True)
    found, whole = (json.loads((folder / "results.json").read_text()) for folder in (out, tmp_path / "whole"))
    assert found["kept"] == before
    assert found["scenarios"] == whole["scenarios"]


def test_nobody_is_scored_where_demonstrations_fail(evaluated, checkpoint, tmp_path):
    path = played_demos.replay_buffer(
        tmp_path / "set.zarr", 2, lambda arrays: {**arrays, "img": arrays["img"][:, ::-1]}
    )
    complaint, _ = evaluated("--ckpt", checkpoint, "--data", path, fails=True)
    assert "No policy is scored" in complaint
    assert "pictures of 'top' are upside down" in complaint
    found, _ = evaluated("--baselines", "hold", "--replays", 0, "--episodes", 1, "--play.scenarios", "hue")
    assert list(found["scenarios"]) == ["hue"]
    assert found["replay"] == {"skipped": "--replays 0 was asked for."}


def test_demonstrations_are_repeated_beside_the_others(evaluated, tmp_path):
    data = played_demos.replay_buffer(tmp_path / "set.zarr")
    options = ("--baselines", "hold,replay", "--data", data, "--replays", 1, "--episodes", 2, "--play.videos", 0)
    found, said = evaluated(*options)
    results = found["scenarios"]["demonstrations"]["results"]
    best = [float(played_demos.play(number)["reward"].max()) for number in (0, 2)]
    assert [episode["score"] for episode in results["replay"]["episodes"]] == pytest.approx(best, abs=1e-3)
    assert results["hold"]["score"] < 0.25
    assert [(row["scenario"], row["contender"]) for row in found["left_out"]] == [
        ("plain", "replay"),
        ("hue", "replay"),
    ]
    assert "No demonstration begins as seed 100000 of 'plain'" in said


@pytest.mark.slow
def test_a_policy_over_the_network_is_a_contender(evaluated, checkpoint):
    from uva_lightning.policy.policy import UVAPolicy
    from uva_lightning.serving.policy import PolicyService
    from uva_lightning.serving.server import ServerOptions, running

    with running(PolicyService(UVAPolicy.from_checkpoint(checkpoint)), ServerOptions(port=0)) as server:
        found, _ = evaluated("--policy", f"far=ws://127.0.0.1:{server.port}", "--baselines", "", "--episodes", 1)
    assert found["contenders"]["far"]["kind"] == "server"
    assert found["contenders"]["far"]["contract"]["horizon"] == 16
    assert found["scenarios"]["plain"]["results"]["far"]["n"] == 1


def test_what_does_not_fit_is_left_out_with_the_reason(workers, tmp_path):
    scenarios = [
        Scenario("none", "hanoi", [Start(1)]),
        Scenario("blocks", "block_push_rr", [Start(1, steps=8)]),
        Scenario("late", "block_push_rr", [Start(1, steps=16)], latency=3),
        Scenario("continued", "block_push_rr", [Start(1)], latency=3, continued=True),
    ]
    with Journal(tmp_path / "j") as journal:
        outcome = Evaluation(tmp_path, workers, videos=0)(scenarios, [baseline("hold", 8)], journal)
    assert [row[:2] for row in outcome.left_out] == [("none", "hold"), ("continued", "hold")]
    assert "no environment 'hanoi'" in outcome.left_out[0][2]
    assert outcome.results["blocks"]["hold"].episodes[0].steps == 8
    assert outcome.results["late"]["hold"].episodes[0].jerk is not None


@pytest.mark.slow
def test_the_expert_is_a_baseline(workers, tmp_path):
    scenarios = [Scenario("blocks", "block_push", [Start(seed) for seed in (1, 2)])]
    with Journal(tmp_path / "j") as journal:
        outcome = Evaluation(tmp_path, workers, videos=0)(scenarios, [baseline("expert", 8)], journal)
    assert outcome.results["blocks"]["expert"].success == 1.0


def test_suites_of_the_paper():
    pusht = suite_of("pusht").scenarios()
    assert [scenario.name for scenario in pusht] == [
        "pusht",
        "pusht_m",
        "pusht:background_color",
        "pusht:background_object",
        "pusht:goal_color",
    ]
    assert all([start.seed for start in scenario.starts] == list(range(100000, 100050)) for scenario in pusht)
    assert pusht[4].paper["UVA"] == 0.64
    plain, shown, goals = suite_of("pusht_official").scenarios()
    assert [start.seed for start in shown.starts] == list(range(6))
    drawn = np.array([start.options["goal"] for start in goals.starts])
    assert len(np.unique(drawn[:, 0])) == 50
    assert np.abs(drawn[:, :2] - 256).max() <= 100
    assert suite_of("pusht_official").scenarios()[2].starts == goals.starts
    paper = suite_of("paper", episodes=2)
    assert [scenario.name for scenario in paper.scenarios()] == [scenario.name for scenario in pusht]
    for words in paper.missing().values():
        assert words.startswith("it needs")
        assert words.endswith(".")
        assert words.count(". ") == 0


def test_a_suite_registers_itself_and_yaml_makes_one(tmp_path):
    class Mine(Suite):
        name = "mine"

        def scenarios(self):
            return [Scenario("one", "pusht", self.starts())]

    assert known_suites()["mine"] is Mine
    assert len(suite_of("mine", 4).scenarios()[0].starts) == 4
    (tmp_path / "own.yaml").write_text("class_path: short_suites.ShortSuite\ninit_args: {steps: 7}\n")
    made = suite_of(str(tmp_path / "own.yaml"), seed=5)
    assert (made.steps, made.seed, made.episodes) == (7, 5, 3)
    with pytest.raises(UserError, match="no suite 'pushT_m'.*Did you mean 'pusht'"):
        suite_of("pushT_m")
    with pytest.raises(UserError, match=r"cannot be made .*stepps.* expected class_path"):
        suite_of("{class_path: short_suites.ShortSuite, init_args: {stepps: 7}}")


def test_differences_are_paired_by_seed():
    def result(scores):
        return RolloutResult("e", 8, tuple(Episode(seed, score, False, 1) for seed, score in scores.items()))

    found = difference(result({1: 0.5, 2: 0.8, 4: 0.1}), result({2: 0.6, 1: 0.1, 3: 0.0}))
    assert (found["n"], found["mean"]) == (2, pytest.approx(0.3))
    assert difference(result({1: 0.5}), result({2: 0.5})) == {"n": 0, "mean": None, "interval": None}


def test_errors_tell_the_fix(uva, checkpoint):
    assert "Nobody is to be evaluated" in uva("eval", "--baselines", "")[2]
    assert "'replay' has nothing to repeat: no demonstrations were given" in uva("eval", "--baselines", "replay")[2]
    assert "no baseline 'expart'. Did you mean 'expert'" in uva("eval", "--baselines", "expart")[2]
    assert "no scenario 'pushd'. Did you mean 'pusht'" in uva("eval", "--play.scenarios", "pushd")[2]
    assert "workers is -1, expected 0 or more; set --workers" in uva("eval", "--workers", -1)[2]
    assert (
        f"There is no checkpoint {checkpoint.parent}/lost.ckpt"
        in uva("eval", "--ckpt", f"{checkpoint.parent}/lost.ckpt")[2]
    )
    assert "Two contenders are called 'hold'" in uva("eval", "--ckpt", f"hold={checkpoint}", "--baselines", "hold")[2]
    assert [safe(name) for name in ("机械臂 1", "机械手 1", "a/b: c")] == ["机械臂_1", "机械手_1", "a_b_c"]
    assert named("UVA=a.ckpt, runs/x/checkpoints/last.ckpt,ws://h:1") == [
        ("UVA", "a.ckpt"),
        ("x", "runs/x/checkpoints/last.ckpt"),
        ("h:1", "ws://h:1"),
    ]
