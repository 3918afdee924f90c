"""The whole chain without a robot: ``uva arm serve`` with a simulation, a client's episode, a recording."""

import json
import os
import signal
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path

import pytest

from uva_lightning.commands.configs import read_config, shipped
from uva_lightning.robot.benches.remote import RemoteBench
from uva_lightning.robot.control import Control
from uva_lightning.robot.evaluation import run
from uva_lightning.robot.evaluator_job import Job

pytestmark = [
    pytest.mark.skipif(find_spec("mujoco") is None or find_spec("zmq") is None, reason="needs extras [sim] and [arm]"),
    pytest.mark.slow,
]
ROOT = Path(__file__).parents[1]


class Console:
    """``uva arm serve`` in a process of its own, and a person who arms it, says yes and labels."""

    def __init__(self, folder):
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "uva_lightning.cli", "arm", "serve", "--config", "arms/simulated", "--port=0"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            env=environment,
            cwd=folder,
        )
        self.address, self.token, self.lines = "", "", []
        self.ready = threading.Event()
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("serving"):
                self.address = line.split()[3]
                self.type("arm")
            elif line.startswith("token"):
                self.token = line.split()[1].rstrip(":")
                self.ready.set()
            elif line.startswith("Episode 0: is"):
                self.type("y")
            elif "how did it go" in line:
                self.type("s")

    def type(self, said):
        self.process.stdin.write(f"{said}\n")

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return None


def test_a_served_simulation_is_driven_and_recorded(tmp_path):
    from stand_ins import StillDriver

    console = Console(tmp_path)
    try:
        if not console.ready.wait(60):
            said = "".join(console.lines)
            if "cannot draw" in said:
                pytest.skip(f"There is no OpenGL: {said}")
            pytest.fail(f"It does not serve: {said}")
        (tmp_path / "token.txt").write_text(console.token)
        bench = RemoteBench(
            console.address,
            token_file=str(tmp_path / "token.txt"),
            run="run",
            call_timeout=5.0,
            state_age=5.0,
            frame_age=5.0,
        )
        pace = Control(max_steps=8, observation_age=5.0)
        job = Job(0, bench, StillDriver(), pace, episodes=1, budget=60.0, films=0, dry_run=False)
        content = run(job, tmp_path / "no_weights", tmp_path, tmp_path / "unused", lambda: False)
        assert content["available"], content["reason"]
        (row,) = content["episodes"]
        assert (row["label"], row["steps"], row["rejected"]) == ("success", 8, 0), row
        assert row["points"] > 0
    finally:
        status = console.close()
    assert status == 0
    (episode,) = (tmp_path / "runs/arm/episodes").glob("*_*")
    meta = json.loads((episode / "meta.json").read_text())
    assert (meta["label"], meta["arm"]) == ("success", "X5_umi")
    assert (episode / "video_camera0.mp4").stat().st_size > 1000
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "runs/arm/events.jsonl").read_text().splitlines()]
    assert {"acquire", "running", "hold", "closed"} <= set(kinds)
    assert "fault" not in kinds


def test_the_overlay_drives_what_the_server_of_the_same_name_offers():
    served = read_config(shipped()["arms/simulated.yaml"])
    callbacks = read_config(shipped()["options/arm_server.yaml"])["trainer"]["callbacks"]
    (rollout,) = (entry for entry in callbacks if isinstance(entry, dict) and "bench" in entry.get("init_args", {}))
    options = rollout["init_args"]
    assert options["bench"]["init_args"]["cameras"] == [camera["init_args"]["name"] for camera in served["cameras"]]
    assert options["control"]["rate_hz"] == served["limits"]["rate_hz"]
