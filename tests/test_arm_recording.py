"""Everything an arm does over a server is recorded, and where that fails it stands."""

import json
import time

import numpy as np
import pytest
from arm_server_bench import Client, ServerBench

from uva_lightning.robot import recorder as recorder_module
from uva_lightning.robot.errors import RecordingFailed
from uva_lightning.robot.keeper import Mode
from uva_lightning.robot.recorder import Recorder

pytest.importorskip("av")
parquet = pytest.importorskip("pyarrow.parquet")


def finished(client, label="success"):
    for _ in range(400):
        said = client.say("episode_end", label=label, reason="test")
        if said["done"]:
            return said["folder"]
        time.sleep(0.02)
    raise AssertionError("the recording is not finished")


def test_an_episode_is_recorded_whole(tmp_path):
    bench = ServerBench(recorder=Recorder(tmp_path, 1))
    client = Client(bench).join()
    name = client.say("episode_begin", meta={"task": "reach", "seed": 3})["episode"]
    client.say("confirm", episode=0)
    bench.floor.answered("yes")
    bench.run(0.1, client)
    client.say("confirm", episode=0)
    client.say("begin")
    bench.run(0.1, client)
    client.send(bench.chunk(np.full((2, 6), 0.01)))
    bench.run(0.5, client)
    folder = finished(client)
    assert bench.keeper.mode == Mode.HOLD
    assert folder == str(tmp_path / name)
    rows = parquet.read_table(tmp_path / name / "steps.parquet").to_pydict()
    assert sum(q is not None for q in rows["q"]) >= 8
    assert sum(q is not None for q in rows["sent_q"]) >= 8
    assert sum(asked is not None for asked in rows["asked_q"]) == 1
    events = [json.loads(line)["kind"] for line in (tmp_path / name / "events.jsonl").read_text().splitlines()]
    assert {"homing", "armed", "running", "hold"} <= set(events)
    meta = json.loads((tmp_path / name / "meta.json").read_text())
    assert (meta["label"], meta["task"], meta["run"], meta["client"]) == ("success", "reach", "run", "test")
    assert (tmp_path / name / "video_wrist.mp4").stat().st_size > 0


def test_nothing_moves_on_a_full_disk(tmp_path):
    bench = ServerBench(recorder=Recorder(tmp_path, 1 << 60))
    client = Client(bench).join()
    with pytest.raises(RecordingFailed, match="MiB free, expected at least"):
        client.say("episode_begin", meta={})
    client.say("confirm", episode=0)
    bench.floor.answered("yes")
    bench.run(0.1, client)
    client.say("confirm", episode=0)
    with pytest.raises(RecordingFailed):  # nor without a word about the episode
        client.say("begin")
    assert bench.keeper.mode == Mode.ARMED


def test_a_disk_that_fills_up_makes_the_arm_stand(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "SECOND", 0.02)
    bench = ServerBench(recorder=Recorder(tmp_path, 4))
    client = bench.running()
    client.send(bench.chunk(np.full((16, 6), 0.02), valid=5))
    bench.run(0.2, client)
    monkeypatch.setattr(recorder_module, "room_in", lambda folder: 0)
    for _ in range(400):
        bench.run(0.01, client)
        if bench.keeper.mode != Mode.RUNNING:
            break
        time.sleep(0.02)
    assert bench.keeper.mode == Mode.HOLD
    assert "the recording failed" in bench.keeper.reason
    assert any("0 MiB free" in text for text in bench.events("recording"))
    bench.check()


def test_an_episode_whose_client_is_lost_is_invalid(tmp_path):
    bench = ServerBench(recorder=Recorder(tmp_path, 1))
    bench.running()
    bench.run(3.5)
    bench.floor.close()
    [folder] = tmp_path.iterdir()
    meta = json.loads((folder / "meta.json").read_text())
    assert (meta["label"], folder.suffix) == ("invalid", "")
    assert "silent for 3 s" in (folder / "events.jsonl").read_text()
