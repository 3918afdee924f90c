"""Each fault that an arm server has to survive, in simulated time: the arm stands within 0.3 s, within all limits."""

import contextlib
import re
from pathlib import Path

import numpy as np
import pytest
from arm_server_bench import Client, ServerBench

from uva_lightning.robot.errors import CameraLost, RobotError
from uva_lightning.robot.keeper import Mode
from uva_lightning.robot.wire import REQUEST

SOON = 0.3
"""Seconds within which the arm has to stand."""


class Case:
    """A client whose episode runs, and what it goes on to say every 50 ms."""

    def __init__(self):
        self.bench = ServerBench()
        self.client = self.bench.running()
        self.earlier = self.client.message("heartbeat")
        self.client.send(self.bench.chunk(np.full((16, 6), 0.03), valid=5))
        self.bench.run(0.5, self.client)

    def chunk(self, change=lambda chunk: {}):
        chunk = self.bench.chunk(np.full((2, 6), 0.01))
        self.client.send(chunk, **change(chunk))

    def far(self, by):
        self.chunk(lambda chunk: {"q": chunk.q + by})

    def stranger(self):
        other = Client(self.bench)
        other.session, other.lease = "guessed", self.client.lease
        other.say("traj", **vars(self.bench.chunk(np.full((2, 6), 0.01))), obs_seq=1)

    def copy(self):
        self.client.raw(self.client.last)

    def blind(self):
        self.bench.service.cameras["wrist"].close()
        try:
            self.client.say("observe", names=["wrist"], count=1)
        except CameraLost as error:
            self.client.say("hold", reason=str(error))  # as RolloutRunner does
            raise


SINGULAR = np.array([0.0, 0.0, -1.1, -0.2, 0.0, 0.0])
SAID = {
    "silence": lambda case: None,
    "late": lambda case: case.client.say("heartbeat", sent=case.bench.now - 0.3),
    "clock skew": lambda case: case.client.say("heartbeat", sent=case.bench.now + 0.1),
    "duplicated": lambda case: case.copy(),
    "out of order": lambda case: case.client.raw(case.earlier),
    "oversized": lambda case: case.client.raw(b"\0" * (REQUEST.message_bytes + 1)),
    "unauthenticated": lambda case: case.stranger(),
    "camera frozen": lambda case: case.blind(),
    "not a number": lambda case: case.chunk(lambda chunk: {"q": chunk.q * np.nan}),
    "stale": lambda case: case.chunk(lambda chunk: {"time": chunk.time - 1, "valid_until": chunk.valid_until}),
    "joint limit": lambda case: case.far(4.0),
    "joint velocity": lambda case: case.far(0.5),
    "gripper range": lambda case: case.chunk(lambda chunk: {"opening": chunk.opening + 0.1}),
    "singularity": lambda case: case.far(SINGULAR),
    "pace": lambda case: case.chunk(lambda chunk: {"time": chunk.time[0] + np.array([0.0, 30.0])}),
    "stop": lambda case: Client(case.bench).say("stop", reason="somebody else saw something"),
}
SILENT = ("silence", "late", "clock skew", "duplicated", "out of order", "oversized", "unauthenticated")
"""None of these is a sign of life: the watchdog holds the arm."""


@pytest.mark.parametrize("fault", SAID)
def test_the_arm_stands_soon_and_it_is_written_down(fault):
    case = Case()
    bench, begin = case.bench, case.bench.now
    assert np.abs(bench.keeper._tracker.velocity).max() > 0.05  # it was moving
    while bench.now < begin + SOON - 1e-9:
        bench.run(0.05)
        with contextlib.suppress(RobotError):
            SAID[fault](case)
    assert np.abs(bench.keeper._tracker.velocity).max() < 0.05
    bench.run(0.05)
    places = [place for time, place, _ in bench.arm.sent if time > begin + SOON + 0.025]
    assert np.ptp(places, axis=0).max() < 1e-3
    written = {kind for _, kind, _ in bench.log.lines}
    if fault in SILENT:
        assert bench.keeper.mode == Mode.HOLD
        assert "no heartbeat" in bench.events("hold")[0]
    elif fault not in ("camera frozen", "stop"):
        assert bench.keeper.mode == Mode.RUNNING  # the next good chunk goes on
        assert bench.events("paused")
    assert written & {"refused", "hold", "stop", "estop"}
    bench.check()


def test_after_a_refusal_the_next_good_chunk_goes_on():
    case = Case()
    bench = case.bench
    with pytest.raises(RobotError):
        case.far(4.0)
    bench.run(SOON, case.client)
    before = bench.arm.q.copy()
    case.client.send(bench.chunk(np.full((4, 6), 0.02)))
    bench.run(1.0, case.client)
    np.testing.assert_allclose(bench.arm.q, before + 0.08, atol=0.02)
    assert len(bench.events("paused")) == 1
    bench.check()


def test_a_client_that_has_nothing_to_follow_has_the_arm_stand():
    case = Case()
    case.client.say("pause", reason="The policy failed")
    case.bench.run(SOON, case.client)
    assert not case.bench.keeper._tracker.velocity.any()
    assert case.bench.events("paused") == ["The policy failed"]
    with pytest.raises(RobotError):
        Client(case.bench).say("pause", reason="a stranger")
    case.bench.check()


def test_each_test_that_the_documentation_names_is_there():
    tests = Path(__file__).parent
    text = (tests.parent / "docs" / "arm_server.md").read_text()
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", text)
    assert len(named) > 30
    for file, test in named:
        assert f"def {test}(" in (tests / file).read_text(), f"{file} has no {test}"
