"""Checkpoints survive whatever kills their writer."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from uva_lightning.checkpoint_files import WholeCheckpoints, newest_whole, remove_leftovers

ROOT = Path(__file__).parents[1]
KILLS, STEPS = 3, 12
WHOLE = {"state_dict": {"a": torch.ones(3)}, "optimizer_states": [], "loops": {}}


def trained(tiny_run, tmp_path, kills):
    """Train one run that is killed so many times and one that is not; gives the report and both last checkpoints."""
    folders = {tmp_path / "killed": kills, tmp_path / "whole": 0}
    for folder in folders:
        folder.mkdir()
        tiny_run(folder, STEPS)
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    runs = json.dumps([(str(folder), kills) for folder, kills in folders.items()])
    program = [sys.executable, str(ROOT / "tests" / "killed_run.py"), runs]
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (*stops, end), (whole,) = json.loads(done.stdout.splitlines()[-1])
    assert end == whole == {"status": 0}
    return stops, *(torch.load(folder / "last.ckpt", weights_only=True) for folder in folders)


def same(left, right):
    """Compare two checkpoints' training state, bit for bit."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


STATE = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "global_step")


def check(stops, killed, whole):
    """Compare a run that was killed with one that was not."""
    assert all(stop["steps"]["last.ckpt"] for stop in stops), stops  # every file could be loaded
    reached = [max(stop["steps"].values()) for stop in stops]
    assert reached == sorted(set(reached)), "each life goes on from the one before"
    assert any(stop["left"] for stop in stops), "no kill hit a file half written; the test shows nothing"
    assert killed["global_step"] == STEPS
    assert all(same(killed[key], whole[key]) for key in STATE)


def test_a_run_killed_while_saving_equals_one_that_was_not(tiny_run, tmp_path):
    check(*trained(tiny_run, tmp_path, KILLS))
    assert not list(tmp_path.glob("*/*.partial"))


@pytest.mark.slow
def test_two_processes_killed_while_saving_equal_two_that_were_not(tiny_run, tmp_path):
    folder, stops = tmp_path / "killed", []
    for _ in range(2):
        process, last, before = tiny_run.start(folder, STEPS, devices=2), folder / "last.ckpt", time.time()
        while not (last.exists() and last.stat().st_mtime > before and list(folder.glob("*.partial"))):
            assert process.poll() is None, (folder / "output.txt").read_text()[-3000:]
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        left = " ".join(path.name for path in folder.glob("*.partial"))
        files = [path for path in folder.glob("*.ckpt*") if path.suffix != ".partial"]
        steps = {path.name: torch.load(path, weights_only=True)["global_step"] for path in files}
        stops.append({"left": left, "steps": steps})
    assert tiny_run.start(folder, STEPS, devices=2).wait(timeout=200) == 0
    assert tiny_run.start(tmp_path / "whole", STEPS, devices=2).wait(timeout=200) == 0
    check(stops, *(torch.load(path / "last.ckpt", weights_only=True) for path in (folder, tmp_path / "whole")))


# -- the files themselves --------------------------------------------------------------------------------------------


def test_the_file_before_is_kept_until_it_is_removed(tmp_path):
    files, path = WholeCheckpoints(), tmp_path / "below" / "last.ckpt"
    for step in (1, 2, 3):
        files.save_checkpoint({**WHOLE, "global_step": step}, path)
    kept = path.with_name("last.ckpt.previous")
    assert files.load_checkpoint(path, weights_only=True)["global_step"] == 3
    assert files.load_checkpoint(kept, weights_only=True)["global_step"] == 2
    files.remove_checkpoint(path)
    assert not list(path.parent.iterdir())


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    files, path = WholeCheckpoints(), tmp_path / "last.ckpt"
    files.save_checkpoint(WHOLE, path)
    with pytest.raises(Exception, match="pickle"):
        files.save_checkpoint({"state_dict": (number for number in range(3))}, path)
    assert files.load_checkpoint(path, weights_only=True).keys() == WHOLE.keys()
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_newest_whole_file_is_found(tmp_path):
    files = WholeCheckpoints()
    for seconds, name in enumerate(("old", "good", "weights", "broken", "empty"), start=1000):
        path = tmp_path / f"{name}.ckpt"
        files.save_checkpoint({"state_dict": {}} if name == "weights" else WHOLE, path)
        if name in ("broken", "empty"):
            path.write_bytes(path.read_bytes()[: 0 if name == "empty" else -40])
        os.utime(path, (seconds, seconds))
    assert newest_whole([tmp_path, tmp_path / "missing"]) == tmp_path / "good.ckpt"
    assert newest_whole([tmp_path], since=1001) == tmp_path / "good.ckpt"
    assert newest_whole([tmp_path], since=1002) is None


@pytest.mark.parametrize("content", [b"no checkpoint", b"hello world" * 100, b"\x80\x02e."])
def test_where_the_last_file_is_broken_the_one_before_serves(tmp_path, content):
    files, path = WholeCheckpoints(), tmp_path / "last.ckpt"
    for _ in range(2):
        files.save_checkpoint(WHOLE, path)
    path.write_bytes(content)
    assert newest_whole([tmp_path]) == tmp_path / "last.ckpt.previous"


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    for name in ("last.ckpt.partial", "last.ckpt.link.partial", "last.ckpt", "notes.partial"):
        (tmp_path / name).touch()
    remove_leftovers([tmp_path, tmp_path / "missing"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "notes.partial"]
