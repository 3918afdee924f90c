"""A job is run as it was written, and whatever happens there is a result."""

import json
import threading

import numpy as np
import pytest

from uva_lightning.robot import evaluation
from uva_lightning.robot.benches.drivers import Reaching, TrainedModel
from uva_lightning.robot.benches.fake import TABLE, FakeBench
from uva_lightning.robot.benches.sim import SimBench
from uva_lightning.robot.control import Control
from uva_lightning.robot.errors import CameraLost, RobotConfigError, RobotUnavailable
from uva_lightning.robot.evaluation import jerk, run, serve, tried
from uva_lightning.robot.evaluator_job import JOBS, RESULT, RESULTS, Job, recipe, waiting
from uva_lightning.robot.limits import Limits
from uva_lightning.robot.operator import Label, ScriptedOperator

CONTROL = Control(max_steps=6)


def job(step=10, **changes):
    from tests.test_benches import StraightDriver

    options = {"bench": FakeBench(), "driver": StraightDriver(), "control": CONTROL, "episodes": 2, "films": 1}
    return Job(step, **{**options, "dry_run": False, **changes})


def put(folder, one):
    one.write(folder / JOBS / one.name)
    return folder / JOBS / one.name


def test_a_job_is_the_same_on_the_other_side(tmp_path):
    bench = SimBench(cameras={"camera0": "wrist", "top": "scene"}, limits=Limits(eef_speed=0.1), cube_max=(0.4, 0.1))
    for one in (
        job(bench=FakeBench(limits=Limits())),
        job(bench=bench, driver=Reaching(0.1)),
        job(driver=TrainedModel("cuda", "lift it"), seed=3),
    ):
        again = Job.read(put(tmp_path, one))
        assert again.record() == one.record()
        assert type(again.bench) is type(one.bench)
        assert (again.bench.limits or TABLE).digest() == (one.bench.limits or TABLE).digest()
        assert again.driver == one.driver


def test_what_cannot_be_built_again_is_refused():
    class Lamp:
        pass

    with pytest.raises(RobotConfigError, match="Lamp is no dataclass"):
        recipe(Lamp())
    with pytest.raises(RobotConfigError, match=r"FakeBench\.width is a Lamp, expected numbers"):
        recipe(FakeBench(width=Lamp()))
    with pytest.raises(RobotConfigError, match="cannot be built again"):
        Job.parsed({**job().record(), "bench": {"class_path": "no.such.Bench"}})


def test_episodes_of_a_job_become_rows_and_films(tmp_path):
    content = run(job(), tmp_path / "none", tmp_path / "out", tmp_path / "episodes", lambda: False)
    assert (content["step"], content["available"], content["reason"]) == (10, True, "")
    first, second = content["episodes"]
    assert (first["episode"], second["episode"], first["label"], first["steps"]) == (0, 1, "failure", 6)
    assert len(first["latency"]["inference"]) == first["chunks"] == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["episode_000.mp4", "film.gif"]
    json.dumps(content, allow_nan=False)
    recorded = sorted((tmp_path / "episodes").iterdir())
    first, second = (json.loads((folder / "meta.json").read_text()) for folder in recorded)
    assert (first["episode"], second["episode"], second["arm"]) == (0, 1, "X5_umi")
    assert Limits(**second["limits"]).digest() == TABLE.digest()
    assert Job.parsed(second["config"]).record() == job().record()
    files = {path.name for path in recorded[1].iterdir()}
    assert files == {"meta.json", "steps.parquet", "video_camera0.mp4", "events.jsonl"}
    kinds = [json.loads(line)["kind"] for line in (recorded[1] / "events.jsonl").read_text().splitlines()]
    assert [kind for kind in kinds if kind in ("armed", "running", "hold")] == ["armed", "running", "hold"]


def test_a_dry_job_has_no_labels(tmp_path):
    content = run(job(dry_run=True, films=0), tmp_path / "none", tmp_path / "out", tmp_path / "episodes", lambda: False)
    assert [row["label"] for row in content["episodes"]] == ["invalid"] * 2
    assert [row["rejected"] for row in content["episodes"]] == [0, 0]


def test_the_budget_ends_episodes_in_the_middle(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(evaluation.time, "monotonic", lambda: now.__setitem__(0, now[0] + 1.0) or now[0])
    content = run(
        job(budget=5.0, films=0, episodes=3), tmp_path / "none", tmp_path / "out", tmp_path / "episodes", lambda: False
    )
    assert len(content["episodes"]) == 1
    (cut,) = content["episodes"]
    assert (cut["label"], cut["ended"]) == ("invalid", "operator")
    assert cut["steps"] < 6
    assert "Time was up after 1 of 3" in content["reason"]


class Blind(FakeBench):
    """Its camera is lost at the third look of every episode."""

    def open(self, seed):
        session, looks = super().open(seed), []
        (camera,) = session.cameras
        see = camera.latest

        def latest(count=1):
            looks.append(count)
            if len(looks) % 3 == 0:
                raise CameraLost("no picture")
            return see(count)

        camera.latest = latest
        return session


def test_an_arm_that_faults_is_left_alone(tmp_path):
    content = run(
        job(bench=Blind(), episodes=5, faults=2),
        tmp_path / "none",
        tmp_path / "out",
        tmp_path / "episodes",
        lambda: False,
    )
    assert [(row["ended"], row["label"]) for row in content["episodes"]] == [("fault", "invalid")] * 2
    assert content["episodes"][0]["reason"] == "CameraLost: no picture"
    assert "2 faults" in content["reason"]


class Stuck(FakeBench):
    """Its arm does not get home any more after the first episode."""

    def open(self, seed):
        session, operator = super().open(seed), ScriptedOperator(lambda episode: True, lambda: Label.FAILURE)
        prepare = session.operator.confirm

        def confirm(episode):
            if episode:
                raise RobotUnavailable("stuck")
            return prepare(episode)

        operator.confirm, session.operator = confirm, operator
        return session


def test_episodes_that_were_run_count_where_the_next_cannot_begin(tmp_path):
    content = run(
        job(bench=Stuck(), episodes=3, films=0),
        tmp_path / "none",
        tmp_path / "out",
        tmp_path / "episodes",
        lambda: False,
    )
    assert (len(content["episodes"]), content["reason"]) == (
        1,
        "Episode 1 failed: RobotUnavailable: stuck",
    )


class Absent(FakeBench):
    """Nobody is there."""

    def open(self, seed):
        raise RobotUnavailable("No server at 127.0.0.1:8790.")


class Wrong(FakeBench):
    """A defect."""

    def open(self, seed):
        raise KeyError("oops")


@pytest.mark.parametrize(("bench", "error"), [(Absent(), False), (Wrong(), True)])
def test_there_is_a_result_whatever_happens(tmp_path, bench, error):
    place = put(tmp_path, job(bench=bench))
    content = tried(place, tmp_path / RESULTS / "one", lambda: False)
    stored = json.loads((tmp_path / RESULTS / "one" / RESULT).read_text())
    assert stored["available"] is content["available"] is False
    assert stored["error"] is error
    assert "RobotUnavailable: No server" in stored["reason"] or "KeyError" in stored["reason"]


def test_jobs_are_served_in_order_until_the_end(tmp_path):
    for step in (20, 10):
        put(tmp_path, job(step, films=0, episodes=1))
    pauses, over = [], threading.Event()

    def pause():
        pauses.append(sorted(path.name for path in (tmp_path / RESULTS).iterdir()))
        over.set()

    serve(tmp_path, over.is_set, pause)
    assert pauses == [["step_00000010", "step_00000020"]]
    assert waiting(tmp_path) == []


def test_jerk_is_the_third_derivative():
    time = 0.2 * np.arange(16)
    chunk = np.zeros((16, 10))
    chunk[:, 0] = 0.5 * time**3  # its third derivative is 3
    assert jerk(chunk, 0.2) == pytest.approx(3.0)
    assert jerk(np.zeros((16, 10)), 0.2) == 0.0
