"""What the person beside the robot types."""

import pytest
from arm_server_bench import Client, ServerBench

from uva_lightning.robot.errors import LeaseLost, NotArmed
from uva_lightning.robot.keeper import Mode
from uva_lightning.robot.server_console import Console


@pytest.fixture
def bench():
    made = ServerBench()
    made.console = Console(made.floor)
    return made


def test_a_token_and_answers_are_typed(bench):
    client = Client(bench)
    client.hello()
    client.say("ping", t_client=0.0)
    token = bench.console.line("arm run-7\n").split()[1].rstrip(":")
    with pytest.raises(NotArmed, match="for run 'run-7'"):
        client.say("acquire", token=token, run="run-8")
    client.lease = client.say("acquire", token=token, run="run-7")["lease"]
    assert bench.console.notice() == ""
    client.say("confirm", episode=4)
    assert bench.console.notice().startswith("Episode 4: is the scene set up")
    assert bench.console.notice() == ""  # it is asked once
    assert "Expected no or yes" in bench.console.line("s")
    assert "goes home" in bench.console.line("y")
    bench.run(0.1, client)
    assert client.say("confirm", episode=4)["answer"] == "yes"
    client.say("begin")
    assert "ends at its next step" in bench.console.line("end")
    assert client.say("state")["over"]
    client.say("hold", reason="over")
    client.say("label", episode=4)
    assert "how did it go" in bench.console.notice()
    bench.console.line("f")
    assert client.say("label", episode=4)["answer"] == "failure"


def test_what_the_driver_said_before_it_heard_is_no_answer(bench, monkeypatch):
    """It is another process: it may tick, and tell so, between being asked and hearing it."""
    told, status, ask, tick = [bench.driver.status()], bench.driver.status, bench.driver.ask, bench.driver.tick

    def ticked(now):
        tick(now)
        told.append(status())

    def asked(verb, now, **values):
        bench.now += 0.01
        ticked(bench.now)
        ask(verb, now, **values)

    for name, changed in (("tick", ticked), ("ask", asked), ("status", lambda: told[-1])):
        monkeypatch.setattr(bench.driver, name, changed)
    client = Client(bench).join()
    client.say("confirm", episode=0)
    bench.console.line("y")
    bench.floor.tick()
    assert client.say("confirm", episode=0)["answer"] == "waiting"
    bench.run(0.1, client)
    assert client.say("confirm", episode=0)["answer"] == "yes"


def test_enter_alone_stops_until_reset(bench):
    client = bench.running()
    assert bench.console.line("\n").startswith("stop: estop (stopped at the console)")
    bench.run(5, client)
    assert bench.keeper.mode == Mode.ESTOP
    assert "NotArmed" in bench.console.line("home")
    assert "hold (reset by the operator)" in bench.console.line("reset")
    bench.run(0.1, client)
    bench.console.line("park")
    bench.run(2, client)
    assert bench.keeper.mode == Mode.IDLE


def test_it_goes_soft_by_the_console(bench):
    bench.running()
    assert bench.console.line("damp").startswith("damp: idle (soft by the console)")
    assert bench.arm.soft


def test_disarming_takes_the_arm_away(bench):
    client = bench.running()
    bench.console.line("disarm")
    assert bench.keeper.mode == Mode.HOLD
    with pytest.raises(LeaseLost):
        client.say("heartbeat")


def test_held_by_hand_it_stands_before_it_parks(bench):
    bench.console.line("home")
    bench.arm.q = bench.arm.q + 0.2
    bench.keeper._tracker.place[:-1] += 0.2
    bench.run(0.1)
    bench.console.line("hold")
    bench.run(2.5)  # nobody beats, but somebody has just spoken
    assert bench.keeper.mode == Mode.HOLD
    bench.run(3)
    assert bench.keeper.mode in (Mode.PARKING, Mode.IDLE)


def test_what_is_not_understood_is_told(bench):
    assert "type 'help'" in bench.console.line("jump")
    assert "Enter alone" in bench.console.line("help")
    assert "idle (connected); nobody may move it, joints" in bench.console.line("status")
    assert bench.console.line("y") == "Nothing is asked."
    assert not bench.console.over
    bench.console.line("quit")
    assert bench.console.over
