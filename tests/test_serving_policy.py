"""A trained model behind the server: its functions, histories, names, and what clients may send."""

from __future__ import annotations

import contextlib
import os

import numpy as np
import pytest
import torch
from fitted_models import fitted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uva_lightning.datamodules.instructions import RandomInstructions
from uva_lightning.datamodules.windows import Window
from uva_lightning.policy.policy import UVAPolicy
from uva_lightning.serving.client import PolicyClient, ServerError
from uva_lightning.serving.keys import Keys
from uva_lightning.serving.policy import PolicyService, contract_of
from uva_lightning.serving.server import ServerOptions, running

FREE = ServerOptions(port=0)
FRAMES, CHUNK = (2, 96, 96, 3), (16, 2)
FUZZ = settings(
    max_examples=int(os.environ.get("UVA_FUZZ_EXAMPLES", "100")),
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def module(tiny_data, tiny_module):
    return fitted(tiny_data(), tiny_module)


@pytest.fixture(scope="module")
def told(tiny_data, tiny_module):
    """A model that hears instructions."""
    spec = tiny_data(window=Window(2), text=RandomInstructions()).spec
    return fitted(tiny_data(window=Window(2)), tiny_module, spec)


def least_bright(past, futures):
    """A reward: dark futures."""
    return -futures["top"].mean(axis=(2, 3, 4, 5))


def policy_of(module):
    return UVAPolicy(module, torch.float32, every=8)


def service(module, **options):
    return PolicyService(policy_of(module), reward=least_bright, **options)


def observation(seed=0, steps=()):
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (*steps, 96, 96, 3), dtype=np.uint8)
    return {"video/top": picture, "state/agent": rng.uniform(0, 512, (*steps, 2)).astype(np.float32)}


def nested(flat):
    return {"video": {"top": flat["video/top"]}, "state": {"agent": flat["state/agent"]}}


@pytest.fixture(scope="module")
def served(module):
    with running(service(module), FREE) as server:
        yield f"ws://127.0.0.1:{server.port}"


@pytest.fixture
def client(served):
    with PolicyClient(served) as client:
        client.reset(seed=5)
        yield client


@pytest.fixture
def local(module):
    policy = policy_of(module)
    policy.reset(environments=["it"], seed=5)
    return policy


def test_five_functions_are_those_of_the_python_interface(client, local):
    """Policy, planner, imagination, forward and inverse dynamics: the same numbers, one call after the other."""
    seen = [observation(number) for number in range(5)]
    it, actions = ["it"], np.random.default_rng(9).uniform(0, 512, CHUNK).astype(np.float32)
    future = {"top": np.random.default_rng(8).integers(0, 256, FRAMES, dtype=np.uint8)}
    assert set(client.functions) == {
        "policy", "imagine", "predict_next", "explain", "plan", "observe", "reset",
    }  # fmt: skip
    for ours, theirs in [
        (client.infer(seen[0])["actions"], local.act(nested(seen[0]), it).actions),
        (
            client.infer({"function": "imagine", **seen[1], "iterations": 2})["frames"]["top"],
            local.imagine(nested(seen[1]), iterations=2, environments=it)["top"],
        ),
        (
            client.infer({"function": "predict_next", **seen[2], "actions": actions, "iterations": 1})["frames"]["top"],
            local.predict_next(nested(seen[2]), actions, 1, it)["top"],
        ),
        (
            client.infer({"function": "explain", **seen[3], "frames": future})["actions"],
            local.explain(future, nested(seen[3]), it).actions,
        ),
        (
            client.infer({"function": "plan", **seen[4], "proposals": 3, "margin": 0.0})["actions"],
            local.plan(nested(seen[4]), 3, least_bright, 0.0, it).actions,
        ),
    ]:
        assert ours.dtype == theirs.dtype
        if ours.dtype == np.uint8:
            assert np.abs(ours.astype(int) - theirs).max() <= 1
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-2)


def test_replies_tell_times_and_durations(client):
    client.infer(observation(0))
    reply = client.infer(observation(1))
    assert reply["steps"].tolist() == list(range(8, 24))
    np.testing.assert_allclose(np.diff(reply["times"]), 0.1)
    assert reply["policy_timing"]["infer_ms"] > 0
    assert {"encode_ms", "trunk_ms", "action_head_ms"} <= set(reply["policy_timing"])


def test_metadata_say_what_is_expected(client, module):
    said = client.metadata
    assert said["observation"]["video/top"] == {"dtype": "uint8", "shape": [96, 96, 3], "names": ["video/top"]}
    assert said["actions"]["shape"] == [16, 2]
    assert said["options"]["plan"] == ["proposals", "margin"]
    assert contract_of(said) == module.spec
    assert contract_of({"anything": 1}) is None
    with pytest.raises(ValueError, match="contract cannot be read"):
        contract_of({"contract": {"cameras": ["top"], "new": 1}})


def test_clients_in_one_call_are_each_alone(module):
    """Requests of different kinds and sessions in one call are answered as if each were alone."""
    several, alone = service(module), service(module)
    messages = [
        observation(0),
        {**observation(1), "temperature": 0.5},
        {"function": "imagine", **observation(2), "iterations": 1},
        observation(3),
        {"function": "reset"},
        {**observation(4), "committed": np.full((4, 2), 100, np.float32), "delay": 2},
    ]
    sessions = [several.open() for _ in messages]
    together = several.infer([s.prepare(message) for s, message in zip(sessions, messages, strict=True)])
    for message, got in zip(messages, together, strict=True):
        want = alone.infer([alone.open().prepare(message)])[0]
        assert set(got) == set(want)
        if "actions" in want:
            np.testing.assert_allclose(got["actions"], want["actions"], rtol=1e-4, atol=1e-2)
        if "frames" in want:
            assert np.abs(got["frames"]["top"].astype(int) - want["frames"]["top"]).max() <= 1
    np.testing.assert_allclose(together[-1]["actions"][:2], 100, atol=0.1)


def test_several_steps_in_one_message_are_the_same_one_by_one(module):
    whole, parts = observation(0, (3,)), service(module)
    one, other = parts.open(), parts.open()
    both = {"function": "reset", "seed": 3}
    one.prepare(both), other.prepare(both)
    for step in range(2):
        other.prepare({"function": "observe", **{name: x[step] for name, x in whole.items()}, "step": 4 * step})
    last = other.prepare({**{name: x[2] for name, x in whole.items()}, "step": 8})
    first = one.prepare({**whole, "step": np.array([0, 4, 8])})
    replies = parts.infer([first, last])
    np.testing.assert_allclose(replies[0]["actions"], replies[1]["actions"], rtol=1e-4, atol=1e-2)


def test_a_session_that_ends_leaves_nothing(served, module):
    known = service(module)
    with running(known, FREE) as server, PolicyClient(f"ws://127.0.0.1:{server.port}") as client:
        client.infer(observation())
        assert len(known.policy.environments) == 1
    assert known.policy.environments == []


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"video/front": 1}, "has 'video/front'; this server expects 'video/top', 'state/agent', and knows prompt"),
        ({"video/top": np.zeros((96, 96, 3), np.uint8)}, "lacks 'state/agent'; this server expects"),
        ({**observation(), "video": {"top": 1}}, "has 'video/top' twice"),
        ({**observation(), "video/top": np.zeros((64, 64, 3), np.uint8)}, r"\[64, 64, 3\], .* trained with \[96, 96"),
        ({**observation(), "video/top": np.zeros((96, 96, 3))}, "float64 pictures, .* trained with uint8"),
        ({**observation(), "video/top": "picture"}, "'top' is a str, expected a NumPy array"),
        ({**observation(), "state/agent": [1.0]}, r"state 'agent' is \[1\], .* trained with \[2\]"),
        ({**observation(), "state/agent": [np.nan, 1.0]}, "NaN or infinity"),
        ({**observation(), "state/agent": "x"}, "'state/agent' is no array of numbers"),
        ({**observation(), "rate_hz": 30}, "come at 30 Hz, .* trained at 10 Hz"),
        ({**observation(), "rate_hz": "10"}, "rate_hz is a str, expected a number"),
        ({**observation(), "rate_hz": float("nan")}, "rate_hz is nan, expected a positive number in Hz"),
        ({**observation(), "rate_hz": float("inf")}, "rate_hz is inf, expected a positive"),
        ({**observation(), "rate_hz": np.float32(-10)}, "rate_hz is -10, expected a positive"),
        ({**observation(), "orientation": "upside down"}, "are 'upside down', .* trained with 'upright'"),
        ({**observation(), "orientation": {"top": 3}}, "orientation is a int, expected text"),
        ({**observation(), "step": [1, 2]}, r"'step' has the shape \(2,\), expected a number"),
        ({**observation(0, (3,)), "step": [1, 2]}, "'step' has 2 time steps, expected 3"),
        ({**observation(0, (65,))}, "has 65 time steps, expected 1 to 64"),
        (observation(0, (3,)), r"3 time steps without 'step', expected one number for each, such as \[0, 1, 2\]; one"),
        ({"function": "observe", **observation(0, (2,))}, "2 time steps without 'step'"),
        ({**observation(), "step": 1e30}, r"step is 1e\+30, expected whole numbers from 0 to 9007199254740991"),
        ({**observation(), "step": 2**53 + 1}, "step is 9007199254740992, expected whole"),
        ({**observation(), "step": 0.5}, "step is 0.5, expected whole numbers"),
        ({**observation(), "step": -1}, "step is -1, expected whole numbers"),
        ({**observation(0, (2,)), "step": [0, 8.25]}, "step is 8.25, expected whole numbers"),
        ({**observation(), "time": 1.7e18}, r"time is 1.7e\+18, expected seconds below 9.01e\+14"),
        ({"function": "dance"}, "function is 'dance', expected one of policy, imagine"),
        ({"function": ["policy"]}, r"function is \['policy'\]"),
        ({"function": "policy"}, "no observation yet"),
        ({"function": "imagine", **observation(), "iterations": 0}, "iterations is 0, expected a whole number from 1"),
        ({"function": "imagine", **observation(), "iterations": True}, "iterations is True"),
        ({"function": "imagine", **observation(), "guidance": 2.0}, "guidance is 2.0, but the model has no text"),
        ({"function": "predict_next", **observation()}, "'predict_next' lacks 'actions'"),
        ({"function": "predict_next", **observation(), "actions": np.zeros((3, 2))}, r"\[3, 2\], .* with \[16, 2\]"),
        ({"function": "explain", **observation()}, "'explain' lacks 'frames/top', expected it in the message"),
        ({**observation(), "proposals": 3}, "'policy' was given 'proposals', expected of temperature, committed"),
        ({**observation(), "committed": np.zeros((17, 2))}, r"committed is \[17, 2\], expected .*\[1 to 16, 2\]"),
        ({**observation(), "committed": np.zeros((2, 2)), "delay": 3}, "delay is 3 steps with 2 committed"),
        ({**observation(), "delay": 3}, "'policy' lacks 'committed'"),
        ({"function": "reset", "prompt": 3, **observation()}, "prompt is a int, expected text"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_sides(client, message, words):
    with pytest.raises(ServerError, match=words):
        client.infer(message)
    assert client.infer(observation())["actions"].shape == CHUNK  # the session goes on


def test_plan_without_a_goal_says_how_to_give_one(module):
    session = PolicyService(policy_of(module)).open()
    with pytest.raises(ValueError, match=r"'plan', expected one of policy, .*; start the server with --goal ENV"):
        session.prepare({"function": "plan", **observation()})
    with pytest.raises(ValueError, match=r"'dance', expected one of policy, .*reset\.$"):
        session.prepare({"function": "dance"})


def test_names_of_openpi_clients_are_translated(module):
    names = {"observation/image": "video/top", "observation/state": ["state/agent"], "task": "prompt"}
    flat = {"observation/image": observation()["video/top"], "observation/state": observation()["state/agent"]}
    with running(service(module, keys=names), FREE) as server, PolicyClient(f"ws://127.0.0.1:{server.port}") as one:
        actions = []
        for message in (flat, {"observation": {name.partition("/")[2]: x for name, x in flat.items()}, "task": "push"}):
            one.reset(seed=1)
            actions.append(one.infer(message)["actions"])
        np.testing.assert_array_equal(*actions)
        assert one.metadata["observation"]["video/top"]["names"] == ["video/top", "observation/image"]
        with pytest.raises(ServerError, match="expects 'video/top' or 'observation/image', 'state/agent' or"):
            one.infer({"observation/wrist": 1})


def test_one_vector_may_hold_several_states(module):
    from dataclasses import replace

    spec = replace(module.spec, state_dims={"arm": 3, "gripper": 1})
    keys = Keys(spec, renamed={"observation/state": ["state/arm", "state/gripper"]})
    found = keys.read({"observation/state": np.arange(4.0), "video/top": 0})
    assert found["state/arm"].tolist() == [0, 1, 2]
    assert found["state/gripper"].tolist() == [3]
    with pytest.raises(ValueError, match=r"shape \(3,\), expected 4 numbers"):
        keys.read({"observation/state": np.zeros(3), "video/top": 0})
    for wrong, words in [
        ({"a": "video/front"}, "maps 'a' to 'video/front', expected one of video/top, state/arm"),
        ({"a": ["video/top", "state/arm"]}, "expected one name, or several of"),
    ]:
        with pytest.raises(ValueError, match=words):
            Keys(spec, renamed=wrong)


def test_an_instruction_is_heard_and_another_one_begins_an_episode(told):
    vectors = np.random.default_rng(0).normal(size=(2, told.spec.text_dim)).astype(np.float32)
    with running(service(told), FREE) as server, PolicyClient(f"ws://127.0.0.1:{server.port}") as one:
        with pytest.raises(ServerError, match="no instruction"):
            one.infer(observation(0))
        first = one.infer({**observation(0), "prompt": vectors[0]})
        again = one.infer({**observation(1), "prompt": vectors[0]})
        other = one.infer({**observation(1), "prompt": vectors[1]})
        assert [int(reply["steps"][0]) for reply in (first, again, other)] == [0, 8, 0]
        with pytest.raises(ServerError, match="cannot be embedded, as this policy has no text encoder"):
            one.infer({**observation(0), "prompt": "push"})


NAMES = st.sampled_from([
    "video/top", "state/agent", "video", "state", "prompt", "step", "time", "last_action", "rate_hz", "orientation",
    "function", "actions", "committed", "delay", "seed", "iterations", "guidance", "temperature", "frames",
    "frames/top",
])  # fmt: skip
SHAPES = st.sampled_from([(), (2,), (16, 2), (96, 96, 3), (2, 96, 96, 3), (3, 2), (0,), (0, 96, 96, 3), (3,)])
VALUES = (
    st.none() | st.booleans() | st.integers(-5, 1 << 40) | st.floats() | st.text(max_size=5)
    | st.sampled_from(["policy", "imagine", "predict_next", "explain", "plan", "observe", "reset", "upright"])
    | st.builds(lambda shape, dtype: np.zeros(shape, dtype), SHAPES, st.sampled_from(["u1", "f4", "f8", "i8", "b1"]))
)  # fmt: skip
MESSAGES = st.dictionaries(
    NAMES | st.text(max_size=5), VALUES | st.lists(VALUES, max_size=3) | st.dictionaries(NAMES, VALUES, max_size=2)
)


@pytest.fixture(scope="module")
def fuzzed(module):
    return service(module)


@FUZZ
@given(MESSAGES, st.booleans())
def test_fuzz_messages_that_nobody_checked(fuzzed, message, whole):
    """Whatever the decoder lets through is answered or refused with a sentence: nothing else is raised."""
    session = fuzzed.open()
    with contextlib.suppress(ValueError):
        fuzzed.infer([session.prepare({**observation(), **message} if whole else message)])
    session.close()
