"""A rank that dies ends the run, by name."""

import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from uva_lightning.callbacks import rank_watch
from uva_lightning.callbacks.rank_watch import RankWatch

MINUTE = 60.0


def ranks(leader):
    """Give the processes of a group whose command line is that of the leader: the ranks, no workers."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) == leader and b"fit" in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except (ProcessLookupError, FileNotFoundError):
            continue
    return sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_rank_ends_the_run_within_a_minute_by_name(tiny_run, tmp_path, victim, signum):
    folder = tmp_path / "run"
    process = tiny_run.start(folder, 100_000, devices=2)
    try:
        while not (folder / "last.ckpt").exists():
            assert process.poll() is None, (folder / "output.txt").read_text()[-3000:]
            time.sleep(0.1)
        pids = ranks(process.pid)
        assert len(pids) == 2
        os.kill(pids[victim], signum)
        start, stopped = time.monotonic(), pids[victim] if signum == signal.SIGSTOP else None
        while (alive := [pid for pid in ranks(process.pid) if pid != stopped]) and time.monotonic() - start < MINUTE:
            process.poll()
            time.sleep(0.2)
        seconds, output = time.monotonic() - start, (folder / "output.txt").read_text()
        assert not alive, output[-3000:]
        assert re.search(rf"rank:? {victim}\b", output), output[-3000:]
        print(f"{signal.Signals(signum).name} of rank {victim}: {seconds:.1f} s")  # noqa: T201
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(("period", "silence"), [(0.0, 40.0), (10.0, 20.0)])
def test_a_period_that_cannot_be_heard_is_refused(period, silence):
    with pytest.raises(ValueError, match=rf"period is {period} s"):
        RankWatch(period, silence)


def test_a_stranger_who_says_nothing_is_turned_away(monkeypatch):
    monkeypatch.setattr(rank_watch, "_GREETING", 0.2)
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    found = []
    gather = threading.Thread(target=lambda: found.extend(rank_watch._gather(listener, 1, "token")))
    with socket.create_connection(address) as stranger:
        gather.start()
        assert stranger.recv(1) == b""  # hung up
        with socket.create_connection(address) as rank:
            rank.sendall(b"token rank 1\n")
            gather.join(10)
    assert [peer.name for peer in found] == ["rank 1"]
    found[0].connection.close()
