"""Jobs on an arm behind a server: with all three keys it moves, without one of them nothing is sent."""

import json
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from stand_ins import StillDriver

from uva_lightning.robot.benches.remote import RemoteBench
from uva_lightning.robot.control import Control
from uva_lightning.robot.errors import RobotConfigError
from uva_lightning.robot.evaluation import tried
from uva_lightning.robot.evaluator_job import JOBS, RESULT, RESULTS, Job

pytestmark = pytest.mark.skipif(find_spec("zmq") is None, reason="needs pyzmq, extra [arm]")
CONTROL = Control(rate_hz=2, execute=2, spare=4, lead=1.0, observation_age=2.0, max_steps=4, max_rejects=9)
"""Time enough for tests that share their processor with others."""
TIMES = {"connect_timeout": 5.0, "call_timeout": 3.0, "state_age": 2.0, "frame_age": 2.0}


@pytest.fixture
def server():
    from tests.test_arm_remote import Server

    with Server() as made:
        yield made


def run(folder, address, **changes):
    token = folder / "token.txt"
    bench = RemoteBench(address, token_file=str(token), run="run", cameras=("wrist",), **TIMES)
    job = Job(5, bench, StillDriver(), CONTROL, **{"episodes": 2, "films": 1, "dry_run": False, **changes})
    job.write(folder / JOBS / job.name)
    begin = time.monotonic()
    tried(folder / JOBS / job.name, folder / RESULTS / job.name, lambda: False)
    return json.loads((folder / RESULTS / job.name / RESULT).read_text()), time.monotonic() - begin


def test_with_all_keys_the_arm_moves_and_the_person_labels(server, tmp_path):
    (tmp_path / "token.txt").write_text(server.floor.lease.arm(time.monotonic(), "run") + "\n")
    content, _ = run(tmp_path, server.address)
    assert content["available"], content["reason"]
    rows = content["episodes"]
    assert [(row["label"], row["ended"]) for row in rows] == [("success", "length")] * 2
    assert all(row["rejected"] < row["chunks"] for row in rows), rows  # a busy machine may be late, but not always
    assert server.arm.sent
    assert (tmp_path / RESULTS / "step_00000005" / "film.gif").exists()
    assert server.arm.soft  # parked before it was given back


def test_without_a_token_nothing_is_sent(server, tmp_path):
    content, _ = run(tmp_path, server.address)
    assert not content["available"]
    assert "NotArmed" in content["reason"] or "LeaseLost" in content["reason"]
    assert server.arm.sent == []


def test_a_dry_run_looks_and_sends_nothing(server, tmp_path):
    (tmp_path / "token.txt").write_text(server.floor.lease.arm(time.monotonic(), "run"))
    content, _ = run(tmp_path, server.address, dry_run=True, episodes=1)
    assert content["available"], content["reason"]
    (row,) = content["episodes"]
    assert (row["label"], row["ended"], row["rejected"]) == ("invalid", "length", 0), row["reason"]
    assert row["chunks"] == 2
    assert server.arm.sent == []
    assert list((tmp_path / "episodes").iterdir())  # recorded here, since the server has seen no episode


def test_an_absent_server_costs_the_time_of_the_first_answer(tmp_path):
    bench = RemoteBench("127.0.0.1:9", connect_timeout=0.3)
    job = Job(5, bench, StillDriver(), CONTROL, dry_run=False)
    job.write(tmp_path / JOBS / job.name)
    content = tried(tmp_path / JOBS / job.name, tmp_path / RESULTS / job.name, lambda: False)
    assert (content["available"], content["error"]) == (False, False)
    assert "ConnectTimeout: No arm server answers at 127.0.0.1:9 within 0.3 s" in content["reason"]


def test_wrong_options_are_refused():
    with pytest.raises(RobotConfigError, match="expected HOST:PORT"):
        RemoteBench("robot")
    with pytest.raises(RobotConfigError, match="no folder nowhere with this client's keys"):
        RemoteBench(keys="nowhere").check()
    with pytest.raises(ValueError, match="no arm model 'X9'"):
        RemoteBench(model="X9")


def test_the_block_of_umi_multi_means_something(tmp_path):
    """Without its comment signs it builds the callback, which moves nothing yet."""
    from jsonargparse import ArgumentParser

    from uva_lightning.callbacks.hardware_rollout import HardwareRollout
    from uva_lightning.commands.discovery import import_components

    import_components()
    text = (Path(__file__).parents[1] / "configs/umi_multi.yaml").read_text()
    block = text[text.index("    # - class_path: HardwareRollout") :]
    (entry,) = yaml.safe_load("\n".join(line.removeprefix("    # ") for line in block.splitlines()))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(HardwareRollout, "callback")
    made = parser.instantiate(parser.parse_object({"callback": entry}))["callback"]
    assert made.enabled
    assert made._job.dry_run
    assert Job.parsed(made._job.record()).record() == made._job.record()
