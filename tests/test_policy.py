"""The policy at run time: observations come one by one, histories are its own, and the contract is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from fitted_models import fitted
from observed import STEPS, episode, numbered, together, window

from uva_lightning.action_space import ActionSpace
from uva_lightning.normalize import Limits, Standard
from uva_lightning.policy.committed import Rest
from uva_lightning.policy.contract import ContractError
from uva_lightning.policy.planner import Planner
from uva_lightning.policy.policy import UVAPolicy
from uva_lightning.policy.proposals import Given
from uva_lightning.policy.windows import WindowPolicy

FRAMES, CHUNK = (2, 96, 96, 3), (16, 2)


@pytest.fixture(scope="module")
def module(tiny_data, tiny_module):
    return fitted(tiny_data(), tiny_module)


@pytest.fixture
def policy(module):
    return UVAPolicy(module, torch.float32)


def first_is_best(past, futures):
    proposals, samples = futures["top"].shape[:2]
    return -np.arange(proposals * samples, dtype=np.float64).reshape(proposals, samples)


FUTURE = {"top": np.random.default_rng(5).integers(0, 256, FRAMES, dtype=np.uint8)}
ACTIONS = np.random.default_rng(6).uniform(0, 512, CHUNK).astype(np.float32)
FUNCTIONS = {
    "act": lambda policy: policy.act(temperature=0.0).actions,
    "imagine": lambda policy: policy.imagine(iterations=2, temperature=0.0)["top"],
    "predict_next": lambda policy: policy.predict_next(None, ACTIONS, 1, temperature=0.0)["top"],
    "explain": lambda policy: policy.explain(FUTURE, temperature=0.0).actions,
    "plan": lambda policy: policy.plan(None, np.stack([ACTIONS, ACTIONS + 1]), first_is_best).actions,
}
INNER = {
    "act": lambda policy, seen: policy.act(seen, 0.0)[0],
    "imagine": lambda policy, seen: policy.imagine(seen, 0.0, 2)["top"][0],
    "predict_next": lambda policy, seen: policy.predict_next(seen, ACTIONS[None], 0.0, 1)["top"][0],
    "explain": lambda policy, seen: policy.explain(seen, {"top": FUTURE["top"][None]}, 0.0)[0],
    "plan": lambda policy, seen: Planner(policy, first_is_best, Given(np.stack([ACTIONS, ACTIONS + 1])[:, None])).act(
        seen
    )[0],
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("now", [0, 3, 19])
def test_what_came_one_by_one_is_the_window_of_training(policy, module, name, now):
    seen = episode()
    policy.reset(seed=4)
    for step in range(now + 1):
        policy.observe(seen[step])
    history = window(seen, now, episode={"seed": [4], "call": [1]})
    expected = INNER[name](WindowPolicy(module), history)
    assert FUNCTIONS[name](policy) == pytest.approx(expected, abs=1 if expected.dtype == np.uint8 else 1e-2)


def test_a_chunk_has_its_unit_rate_and_times(policy):
    chunk = policy.act(numbered(episode(), 3, time=100.0))
    assert (chunk.actions.shape, chunk.actions.dtype, len(chunk)) == (CHUNK, np.float32, 16)
    assert (chunk.unit, chunk.rate_hz) == (policy.spec.action_meaning, 10.0)
    assert chunk.steps.tolist() == list(range(3, 19))
    assert chunk.times == pytest.approx(100 + np.arange(16) / 10)
    assert chunk.timing["total"] >= chunk.timing["encode"] + chunk.timing["trunk"] > 0
    assert np.asarray(chunk).shape == CHUNK


def test_several_environments_in_one_call_are_each_alone(policy, module):
    left, right = episode(1), episode(2)
    policy.reset(seed=7)
    for step in range(12):
        policy.observe(together(left[step], right[step]))
    both = policy.act()
    assert (both.actions.shape, both.steps.shape) == ((2, *CHUNK), (2, 16))
    alone = UVAPolicy(module, torch.float32)
    alone.reset(seed=8)
    for step in range(12):
        alone.observe(right[step])
    assert alone.act().actions == pytest.approx(both.actions[1], abs=1e-2)
    imagined = policy.imagine(iterations=1)["top"]
    assert imagined.shape == (2, *FRAMES)


def test_one_environment_begins_anew_and_the_others_go_on(policy, module):
    left, right = episode(1), episode(2)
    for step in range(10):
        policy.observe(together(left[step], right[step]), ["left", "right"])
    policy.reset(environments=["right"], seed=3)
    policy.observe(together(left[10], right[0]), ["left", "right"])
    chunk = policy.act(environments=["left", "right"], temperature=0.0)
    assert chunk.steps[:, 0].tolist() == [10, 0]
    for row, history in enumerate((window(left, 10), window(right, 0))):
        assert chunk.actions[row] == pytest.approx(WindowPolicy(module).act(history, 0.0)[0], abs=1e-2)


def test_what_is_forgotten_takes_no_memory(policy):
    for client in range(5):
        policy.act(episode()[0], [f"client {client}"])
        policy.forget([f"client {client}"])
    assert not policy.environments


def test_a_dropped_observation_is_replaced_by_the_one_before(policy, module):
    seen = episode()
    policy.reset(seed=4)
    for step in range(17):
        if step not in (7, 8):  # the frame 8 steps before now, and the one before it
            policy.observe(numbered(seen, step))
    standing_in = [*seen[:8], seen[6], *seen[9:]]
    expected = WindowPolicy(module).act(window(standing_in, 16), 0.0)[0]
    assert policy.act(temperature=0.0).actions == pytest.approx(expected, abs=1e-2)


def test_missing_history_is_refused(policy):
    seen = episode()
    policy.act(numbered(seen, 0))
    with pytest.raises(
        ValueError, match=r"no observation of step 12, 8 before now, .* of step 0; .* frames every 8 steps at 10 Hz"
    ):
        policy.act(numbered(seen, 20))
    patient = UVAPolicy(policy.module, torch.float32, patience=100)
    patient.act(numbered(seen, 0))
    assert np.isfinite(patient.act(numbered(seen, 20)).actions).all()


def test_observations_may_come_at_every_so_many_steps(module):
    seen = episode()
    slow, fast = UVAPolicy(module, torch.float32, every=8), UVAPolicy(module, torch.float32)
    for step in range(17):
        fast.observe(seen[step])
    for step in (0, 8, 16):
        slow.observe(seen[step])
    assert slow.act(temperature=0.0).actions == pytest.approx(fast.act(temperature=0.0).actions, abs=1e-3)


def test_the_orientation_is_that_of_the_contract(module):
    policy = UVAPolicy(module, torch.float32)
    policy.spec = replace(policy.spec, conventions={"orientation": "upside down (as OpenGL draws)"})
    policy.observe({**episode()[0], "orientation": "upside down"})
    with pytest.raises(ValueError, match=r"'top' are 'upright', the checkpoint was trained with 'upside down \(as"):
        policy.observe({**episode()[1], "orientation": "upright"})


@pytest.mark.parametrize(
    ("times", "words"),
    [
        ((0.0, 0.05), r"0.050 s after the one before it, which is 0.50 control steps and not 1; .* trained at 10 Hz"),
        ((0.0, 0.0333), r"0.33 control steps and not 1"),
        ((0.0, 0.333), r"3.33 control steps and not 3"),
        ((5.0, 4.0), r"of step -10 and the one before it of step 0, expected a later one; call reset"),
        (np.arange(20) / 12, r"observations came at 12.0 Hz, the checkpoint was trained at 10 Hz"),
        ((0.0, 0.01), r"two observations of step 0 with different pictures of 'top'"),
    ],
)
def test_another_rate_than_that_of_training_is_refused(policy, times, words):
    seen = episode()

    def run():
        for number, time in enumerate(times):
            policy.observe({**seen[number], "time": time})

    with pytest.raises(ValueError, match=words):
        run()


def test_a_clock_that_jitters_or_drifts_a_little_is_fine(policy):
    rng, seen = np.random.default_rng(0), episode()
    for step in range(STEPS):
        policy.observe({**seen[step], "time": 50 + step / 10.3 + rng.uniform(-0.008, 0.008)})
    assert policy.act().steps[0] == STEPS - 1


def test_a_step_number_with_a_time_that_does_not_fit_is_refused(policy):
    policy.observe(numbered(episode(), 0, time=0.0))
    with pytest.raises(ValueError, match=r"16.00 control steps and not 8; the checkpoint was trained at 10 Hz"):
        policy.observe(numbered(episode(), 8, time=1.6))


def test_an_environment_that_is_wrong_is_named(policy):
    seen = episode()
    policy.observe(together(seen[0], seen[0]) | {"step": [0, 0]}, ["a", "b"])
    policy.observe(together(seen[5], seen[3]) | {"step": [5, 3]}, ["a", "b"])
    with pytest.raises(ValueError, match=r"Environment 'b': The observation is of step 2 and the one before it of"):
        policy.observe(together(seen[6], seen[2]) | {"step": [6, 2]}, ["a", "b"])
    with pytest.raises(ValueError, match=r"There are 2 environments and 1 names"):
        policy.act(together(seen[7], seen[7]), ["a"])


def test_the_noise_follows_the_episode(module):
    def acts(policy, **options):
        policy.reset(**options)
        return [policy.act(seen).actions for seen in episode()[:2]]

    one, two = UVAPolicy(module, torch.float32), UVAPolicy(module, torch.float32)
    first = acts(one, seed=1)
    assert np.array_equal(first, acts(two, seed=1))
    assert np.array_equal(first, acts(one, seed=1)), "an episode can be repeated"
    assert not np.array_equal(first, acts(one, seed=2))
    assert not np.array_equal(acts(one), acts(one)), "without a seed each episode has noise of its own"


def test_frames_may_lie_in_a_buffer_that_is_used_again(policy, module):
    seen, buffer = episode(), np.zeros((96, 96, 3), np.uint8)
    for one in seen:
        buffer[:] = one["video"]["top"]
        policy.observe({"video": {"top": buffer}, "state": one["state"]})
    expected = WindowPolicy(module).act(window(seen, STEPS - 1), 0.0)[0]
    assert policy.act(temperature=0.0).actions == pytest.approx(expected, abs=1e-2)


def test_nothing_can_be_decided_before_the_first_observation(policy):
    with pytest.raises(ValueError, match=r"no observation yet, the policy decides from at least one"):
        policy.act()


def test_a_checkpoint_becomes_a_policy(imported):
    def calm(content):  # random weights of size 1 run out of range
        for state in content["state_dicts"].values():
            state |= {name: 0.1 * value for name, value in state.items() if value.is_floating_point()}

    folder, _ = imported(change=calm)
    policy = UVAPolicy.from_checkpoint(folder, dtype=torch.float32)
    spec = policy.spec
    picture = np.zeros((spec.image_size, spec.image_size, 3), np.uint8)
    seen = {
        "video": dict.fromkeys(spec.cameras, picture),
        "state": {n: np.zeros(w) for n, w in spec.state_dims.items()},
    }
    assert policy.act(seen).actions.shape == (spec.horizon, spec.action_dim)


def test_a_chunk_continues_what_is_committed(policy):
    """Real-time chunking: the first actions are those that are run meanwhile, whoever else is in the batch."""
    first, second = episode(0), episode(1)
    policy.reset(seed=1)
    free = policy.act(together(first[0], second[0]), ["a", "b"]).actions
    rest = np.linspace(free[0, 8], free[0, 15], 8) + 3
    policy.reset(seed=1)
    rests = [Rest(rest, 3), Rest(free[1, :1], 0)]
    made = policy.act(together(first[0], second[0]), ["a", "b"], committed=rests).actions
    np.testing.assert_allclose(made[0, :3], rest[:3], atol=1e-2)
    assert np.abs(made[0, 3:8] - rest[3:]).mean() < np.abs(free[0, 3:8] - rest[3:]).mean()
    with pytest.raises(ValueError, match="17 actions are committed"):
        policy.act(first[1], committed=[Rest(np.zeros((17, 2), np.float32), 1)])


def test_a_chunk_continues_where_actions_are_shown_as_motions_and_places(tiny_data, tiny_module):
    def make(spec):
        return tiny_module(spec, actions=ActionSpace(Standard(), relative_to="agent", place=Limits()))

    policy = UVAPolicy(fitted(tiny_data(), make), torch.float32)
    policy.observe(episode()[0])
    rest = policy.act().actions[8:] + 3
    policy.reset(seed=1)
    policy.observe(episode()[0])
    made = policy.act(committed=[Rest(rest, 3)]).actions
    np.testing.assert_allclose(made[:3], rest[:3], atol=1e-2)


def test_what_is_missing_is_told_before_a_decision(policy):
    with pytest.raises(ContractError, match="no observation yet"):
        policy.check(["new"])
    policy.observe(episode()[0], ["new"])
    policy.check(["new"])
