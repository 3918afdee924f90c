"""Demonstrations are deterministic, resumable and never half written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("pymunk")
pytest.importorskip("shapely")
pytest.importorskip("cv2")

from uva_lightning import demos
from uva_lightning.demos import DemoReport, write_demos
from uva_lightning.envs.pusht import PushT

FEW = 25


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demos")
    report = write_demos("pusht", folder, episodes=2, workers=1, candidates=FEW)
    assert report == DemoReport(2, 2, report.rejected)
    return folder


def test_an_episode_is_whole_and_replays(two):
    with np.load(two / "episode_000001.npz", allow_pickle=False) as file:
        episode = dict(file)
    steps = len(episode["action"])
    shapes = {name: (value.dtype.str[1:], value.shape) for name, value in episode.items()}
    assert shapes == {
        "action": ("f4", (steps, 2)),
        "agent": ("f4", (steps, 2)),
        "block": ("f4", (steps, 3)),
        "goal": ("f4", (3,)),
        "reward": ("f4", (steps,)),
        "frames": ("u1", (steps, 96, 96, 3)),
        "seed": ("i8", ()),
    }
    env = PushT()
    observation, _ = env.reset(seed=int(episode["seed"]))
    for step in range(steps):  # frames and positions precede the action of the same step
        np.testing.assert_array_equal(env.render(), episode["frames"][step])
        np.testing.assert_array_equal(observation["agent"], episode["agent"][step])
        observation, reward, solved, *_ = env.step(episode["action"][step])
        assert reward == pytest.approx(episode["reward"][step])
    assert solved


def test_workers_and_enlargement_change_nothing(two, tmp_path):
    write_demos("pusht", tmp_path, episodes=1, workers=1, candidates=FEW)
    report = write_demos("pusht", tmp_path, episodes=2, workers=2, candidates=FEW)
    assert report.new == 1
    assert contents(tmp_path) == contents(two)


def test_finished_episodes_are_kept_and_leftovers_removed(two):
    before = {path.name: path.stat().st_mtime_ns for path in two.glob("*.npz")}
    (two / ".episode_000001.npz.123.part").write_bytes(b"half")
    assert write_demos("pusht", two, episodes=2, workers=1, candidates=FEW).new == 0
    assert {path.name: path.stat().st_mtime_ns for path in two.glob("*.npz")} == before
    assert not list(two.glob(".*"))


def test_other_recipe_is_refused(two, tmp_path):
    with pytest.raises(ValueError, match="with seed=0, asked for seed=7; give another folder"):
        write_demos("pusht", two, episodes=2, seed=7, candidates=FEW)
    with pytest.raises(ValueError, match=f"candidates={FEW}, asked for candidates=30"):
        write_demos("pusht", two, episodes=2, candidates=30)
    with pytest.raises(ValueError, match="meant for 2 episodes, asked for 1"):
        write_demos("pusht", two, episodes=1, candidates=FEW)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty"):
        write_demos("pusht", tmp_path)
    with pytest.raises(ValueError, match="episodes is 0, expected at least 1"):
        write_demos("pusht", tmp_path, episodes=0)


def test_unknown_environment_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'pusht'"):
        write_demos("push", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    real = os.fsync
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 5:  # meta.json and the first episode fit, each with its folder
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(demos.os, "fsync", full)
    with pytest.raises(OSError, match="full after 1 of 2 episodes, expected room for about"):
        write_demos("pusht", tmp_path, episodes=2, workers=1, candidates=FEW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["episode_000000.npz", "meta.json"]
    monkeypatch.undo()
    assert write_demos("pusht", tmp_path, episodes=2, workers=1, candidates=FEW).new == 1


def test_interrupt_stops_workers_and_resumes(tmp_path):
    """Ctrl-C in a terminal signals the whole process group."""
    script = tmp_path / "record.py"
    folder = tmp_path / "demos"
    script.write_text(
        "from pathlib import Path\nfrom uva_lightning.demos import write_demos\n"
        "if __name__ == '__main__':\n"
        f"    write_demos('pusht', Path({str(folder)!r}), episodes=50, workers=2, candidates={FEW})\n"
    )
    run = subprocess.Popen(
        [sys.executable, script],
        start_new_session=True,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job inherits "ignore"
    )
    deadline = time.monotonic() + 60
    while not list(folder.glob("episode_*.npz")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode != 0
    finished = list(folder.glob("episode_*.npz"))
    assert 0 < len(finished) < 50
    assert not list(folder.glob(".*"))
    assert json.loads((folder / "meta.json").read_text())["episodes"] == 50
    for path in finished:
        with np.load(path, allow_pickle=False) as file:
            assert len(file["frames"]) == len(file["action"])
