"""Temporal ensembling, and asking for the next chunk while the present one is run."""

from __future__ import annotations

import threading
from concurrent.futures import wait

import numpy as np
import pytest
from small_policies import Follower

from uva_lightning.serving.chunking import RealTimeChunking, TemporalEnsemble
from uva_lightning.serving.client import PolicyClient
from uva_lightning.serving.server import ServerOptions, running

HORIZON = 8


def ramp(start, length=HORIZON):
    return np.arange(start, start + length, dtype=np.float32)[:, None]


def test_predictions_of_one_step_are_averaged_oldest_first():
    """ACT: weights exp(-m i), with i = 0 for the oldest."""
    ensemble = TemporalEnsemble(decay=np.log(2))
    assert ensemble.add(np.zeros((4, 1)))[:, 0].tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(ensemble.add(np.full((4, 1), 3))[:, 0], [1, 1, 1, 3])  # (0 + 3 / 2) / (1 + 1 / 2)
    np.testing.assert_allclose(ensemble.add(np.full((4, 1), 7))[0, 0], (0 + 3 / 2 + 7 / 4) / 1.75)
    assert ensemble.add(np.full((4, 1), 5), steps=4)[:, 0].tolist() == [5, 5, 5, 5]


def test_chunks_that_agree_stay_as_they_are():
    ensemble = TemporalEnsemble()
    for start in range(0, 12, 3):
        np.testing.assert_allclose(ensemble.add(ramp(start), steps=3), ramp(start))
    ensemble.reset()
    np.testing.assert_allclose(ensemble.add(ramp(50)), ramp(50))
    with pytest.raises(ValueError, match="decay is -1, expected a number from 0 on"):
        TemporalEnsemble(-1)


class Teller:
    """Plans to be at the number of the step; answers only when let, and notes what it was told."""

    def __init__(self, length=HORIZON):
        self.length, self.asked, self.let = length, [], threading.Semaphore(0)

    def __call__(self, observation, rest):
        self.asked.append((observation["step"], rest))
        assert self.let.acquire(timeout=10)
        return ramp(observation["step"], self.length)


def run(control, step, late=None):
    return float(control.step({"step": step})[0])


def test_the_next_chunk_is_asked_for_while_the_present_one_is_run():
    ask = Teller()
    with RealTimeChunking(ask, execute=3, delay=2) as control:
        ask.let.release()
        for step in range(5):  # asked again at step 3, not answered yet
            assert run(control, step) == step
        assert control._asked is not None
        ask.let.release()
        control._asked.result(timeout=10)
        assert run(control, 5) == 5  # of the new chunk, which was asked for 2 steps ago
        assert run(control, 6) == 6
        ask.let.release(2)
        assert control.late == 0
    (first, nothing), (second, rest) = ask.asked[:2]
    assert (first, nothing, second) == (0, None, 3)
    assert rest.actions[:, 0].tolist() == [3, 4, 5, 6, 7]
    assert rest.delay == 2


def test_the_delay_is_the_longest_of_the_last_ones():
    ask = Teller()
    with RealTimeChunking(ask, execute=2, delay=1, remembered=2) as control:
        ask.let.release()
        for step in range(6):
            run(control, step)
        ask.let.release()
        control._asked.result(timeout=10)
        run(control, 6)
        assert control.delay == 4
        ask.let.release(10)


def test_where_a_chunk_runs_out_it_waits():
    ask = Teller(length=4)
    with RealTimeChunking(ask, execute=3) as control:
        ask.let.release()
        for step in range(4):
            run(control, step)
        timer = threading.Timer(0.1, ask.let.release)
        timer.start()
        assert run(control, 4) == 4
        assert control.late == 1
        timer.join()
        ask.let.release(5)


def test_a_chunk_that_is_too_late_is_refused_with_the_fix():
    ask = Teller(length=2)
    with RealTimeChunking(ask, execute=1, delay=1) as control:
        ask.let.release(5)
        control.step({"step": 0})
        control.step({"step": 1})
        control._asked.result(timeout=10)
        control._since = 5
        with pytest.raises(ValueError, match="came 6 steps after it was asked for and has 2 actions"):
            control.step({"step": 2})
        assert run(control, 3) == 3  # it goes on with a fresh one


def test_failures_of_the_policy_arrive_once():
    def ask(observation, rest):
        if observation["step"] == 2:
            raise ConnectionError("gone")
        return ramp(observation["step"])

    with RealTimeChunking(ask, execute=2) as control:
        for step in range(3):
            run(control, step)
        wait([control._asked])
        with pytest.raises(ConnectionError, match="gone"):
            run(control, 3)
        assert run(control, 9) >= 0


def test_a_new_episode_drops_what_was_asked():
    ask = Teller()
    with RealTimeChunking(ask, execute=1) as control:
        ask.let.release()
        run(control, 0)
        run(control, 1)
        control.reset()
        ask.let.release(2)
        assert run(control, 100) == 100
        ask.let.release(5)
    for wrong in ({"execute": 0}, {"delay": 0}, {"remembered": 0}):
        with pytest.raises(ValueError, match="expected at least 1 each"):
            RealTimeChunking(ask, **wrong)


def test_it_runs_a_policy_behind_a_server():
    with (
        running(Follower(history=1), ServerOptions(port=0)) as server,
        PolicyClient(f"ws://127.0.0.1:{server.port}") as client,
        RealTimeChunking(lambda seen, rest: client.infer(seen)["actions"], execute=2) as control,
    ):
        actions = [control.step({"state": np.ones(3, np.float32)}) for _ in range(10)]
    assert np.stack(actions).shape == (10, 3)
    assert set(np.unique(actions)) <= {0.0, 0.25, 0.5, 0.75}
