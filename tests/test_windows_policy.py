"""The five functions of a model at run time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from uva_lightning.datamodules.instructions import RandomInstructions
from uva_lightning.datamodules.windows import Window
from uva_lightning.model.fitted import fit_together
from uva_lightning.model.heads.aggregate import ConvFC
from uva_lightning.model.heads.base import ActionHead
from uva_lightning.model.heads.flow import FlowMatching
from uva_lightning.objectives.inverse_dynamics import InverseDynamics
from uva_lightning.objectives.robot_policy import RobotPolicy
from uva_lightning.policy.planner import Planner
from uva_lightning.policy.windows import WindowPolicy, observed

CHUNK, FRAMES = (16, 2), (2, 96, 96, 3)


@pytest.fixture(scope="module")
def module(tiny_data, tiny_module):
    data = tiny_data()
    data.setup("fit")
    module = tiny_module(data.spec)
    module.tokenizer.fit(data.training_frames())
    fit_together([module.actions, module.proprioception], data.training_numbers())
    rng = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng)
    return module.eval()


@pytest.fixture
def policy(module):
    return WindowPolicy(module, seed=3)


def observation(samples=3, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "video": {"top": rng.integers(0, 256, (samples, *FRAMES), dtype=np.uint8)},
        "state": {"agent": rng.uniform(0, 512, (samples, 2, 2)).astype(np.float32)},
    }


def row(observed, index):
    return {
        kind: {name: value[index : index + 1] for name, value in entries.items()} for kind, entries in observed.items()
    }


def pictures(samples=3, seed=1):
    return observation(samples, seed)["video"]


def chunks(samples=3, seed=2):
    return np.random.default_rng(seed).uniform(0, 512, (samples, *CHUNK)).astype(np.float32)


def first_is_best(past, futures):
    proposals, samples = futures["top"].shape[:2]
    return -np.arange(proposals * samples, dtype=np.float64).reshape(proposals, samples)


FUNCTIONS = {
    "act": lambda policy, seen, **options: policy.act(seen, **options),
    "imagine": lambda policy, seen, **options: policy.imagine(seen, **options)["top"],
    "predict_next": lambda policy, seen, **options: policy.predict_next(
        seen, chunks(3)[: len(seen["video"]["top"])], **options
    )["top"],
    "explain": lambda policy, seen, **options: policy.explain(
        seen, {"top": pictures(3)["top"][: len(seen["video"]["top"])]}, **options
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_functions_give_actions_or_frames(policy, name):
    made = FUNCTIONS[name](policy, observation())
    if name in ("act", "explain"):
        assert (made.shape, made.dtype) == ((3, *CHUNK), np.float32)
        assert np.isfinite(made).all()
    else:
        assert (made.shape, made.dtype) == ((3, *FRAMES), np.uint8)


def test_the_planner_gives_one_chunk_per_observation(policy):
    made = Planner(policy, first_is_best, 4).act(observation())
    assert (made.shape, made.dtype) == ((3, *CHUNK), np.float32)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_row_alone_is_a_row_of_the_batch_at_temperature_zero(policy, name):
    together = FUNCTIONS[name](policy, observation(), temperature=0.0)
    alone = FUNCTIONS[name](policy, row(observation(), 0), temperature=0.0)
    largest = 1 if together.dtype == np.uint8 else 1e-2
    assert np.abs(together[:1].astype(np.float64) - alone).max() <= largest
    assert not np.array_equal(together[:1], together[1:2])


def test_the_seed_decides_the_noise(module):
    def act(seed):
        return WindowPolicy(module, seed).act(observation())

    assert np.array_equal(act(1), act(1))
    assert not np.array_equal(act(1), act(2))
    policy = WindowPolicy(module, 1)
    first, second = policy.act(observation()), policy.act(observation())
    assert not np.array_equal(first, second)
    policy.reset(1)
    assert np.array_equal(policy.act(observation()), first)


def test_each_function_looks_at_what_it_is_given(policy):
    seen, other = observation(), observation(seed=9)
    mixed = {"video": other["video"], "state": seen["state"]}

    def differ(one, two):
        return not np.array_equal(one, two)

    assert differ(policy.act(seen, 0.0), policy.act(mixed, 0.0))
    assert differ(policy.imagine(seen, 0.0)["top"], policy.imagine(mixed, 0.0)["top"])
    futures = [policy.predict_next(seen, chunks(seed=seed), 0.0)["top"] for seed in (2, 4)]
    assert differ(*futures)
    explained = [policy.explain(seen, pictures(seed=seed), 0.0) for seed in (1, 5)]
    assert differ(*explained)
    assert not differ(policy.explain(seen, pictures(), 0.0), policy.explain(mixed, pictures(), 0.0)), "past is hidden"


def test_the_planner_takes_the_best_proposal_of_each_observation(module):
    calls = []

    def score(past, futures):
        calls.append((past, futures))
        return np.array([[9, 0], [8, 7], [3, 9]], np.float64) * 99  # by proposal, then by observation

    seen = observation(2)
    planned = Planner(WindowPolicy(module, 7), score, 3).act(seen)
    first = WindowPolicy(module, 7).act(seen)
    past, futures = calls[0]
    assert np.array_equal(past["top"], seen["video"]["top"])
    assert futures["top"].shape == (3, 2, *FRAMES)
    assert np.allclose(planned[0], first[0], atol=1e-3)  # the first proposal is what the policy would do
    assert not np.allclose(planned[1], first[1], atol=1.0)


def test_the_callers_arrays_are_not_changed(policy):
    seen, before = observation(), observation()
    policy.act(seen)
    policy.explain(seen, pictures())
    assert np.array_equal(seen["video"]["top"], before["video"]["top"])
    assert np.array_equal(seen["state"]["agent"], before["state"]["agent"])


def test_numbers_may_have_any_precision(policy):
    seen = observation()
    double = {"video": seen["video"], "state": {"agent": seen["state"]["agent"].astype(np.float64)}}
    assert np.allclose(policy.act(seen, 0.0), policy.act(double, 0.0), atol=1e-3)
    futures = [policy.predict_next(seen, actions, 0.0)["top"] for actions in (chunks(), chunks().astype(np.float64))]
    assert np.array_equal(*futures)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"video": {}}, r"Observation video\.top is missing, expected \(2, 96, 96, 3\)"),
        ({"video": {"top": np.zeros((3, 4, 96, 96, 3), np.uint8)}}, r"video\.top is \(4, 96, 96, 3\) per sample"),
        ({"video": {"top": np.zeros((3, 2, 48, 48, 3), np.uint8)}}, r"video\.top is \(2, 48, 48, 3\) per sample"),
        ({"video": {"top": np.zeros((3, *FRAMES), np.float32)}}, r"video\.top is float32, expected uint8"),
        ({"state": {}}, r"Observation state\.agent is missing, expected \(2, 2\)"),
        ({"state": {"agent": np.zeros((3, 2, 7), np.float32)}}, r"state\.agent is \(2, 7\) per sample"),
    ],
)
def test_an_observation_unlike_those_of_training_is_refused_by_name(policy, change, words):
    with pytest.raises(ValueError, match=words):
        policy.act(observation() | change)


def test_an_observation_without_a_kind_is_refused_by_name(policy):
    with pytest.raises(ValueError, match=r"Observation state\.agent is missing"):
        policy.act({"video": observation()["video"]})


def test_actions_and_futures_of_another_shape_are_refused_by_name(policy):
    with pytest.raises(ValueError, match=r"Action chunk is \(8, 2\) per sample, expected \(16, 2\)"):
        policy.predict_next(observation(), chunks()[:, :8])
    with pytest.raises(ValueError, match=r"Future video\.top is missing"):
        policy.explain(observation(), {})
    with pytest.raises(ValueError, match=r"Future video\.top is \(1, 96, 96, 3\) per sample"):
        policy.explain(observation(), {"top": pictures()["top"][:, :1]})


def test_a_function_without_a_head_is_named(tiny_data, tiny_module, module):
    def head(shape):
        return ActionHead(shape, lambda c, k: FlowMatching(c, k, width=8, depth=1), ConvFC, steps=2)

    silent = tiny_module(tiny_data().spec, objectives={"policy": RobotPolicy()}, heads={"action": head})
    silent.tokenizer, silent.actions, silent.proprioception = module.tokenizer, module.actions, module.proprioception
    with pytest.raises(ValueError, match=r"no head for video, only action; train one with model\.heads\.video"):
        WindowPolicy(silent.eval()).imagine(observation())


@pytest.fixture(scope="module")
def told(tiny_data, tiny_module, module):
    """A model that takes past actions and an instruction, and keeps the past when it explains."""
    data = tiny_data(window=Window(2, past_action=True), text=RandomInstructions())
    heads = {name: (lambda shape, name=name: module.heads[name]) for name in module.heads}
    objectives = {"inverse": InverseDynamics(keeps=["past_video"])}
    told = tiny_module(data.spec, heads=heads, objectives=objectives)
    told.tokenizer, told.actions, told.proprioception = module.tokenizer, module.actions, module.proprioception
    rng = torch.Generator().manual_seed(0)
    for parameter in told.transformer.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng)
    return WindowPolicy(told.eval(), seed=3)


def instructed(seed=0):
    return {**observation(), "text": {"instruction": RandomInstructions().embed([f"task {seed}"] * 3).numpy()}}


def test_the_model_hears_its_instruction(told):
    assert not np.array_equal(told.act(instructed(0), 0.0), told.act(instructed(1), 0.0))
    with pytest.raises(ValueError, match=r"Observation text\.instruction is missing, expected \(512,\)"):
        told.act(observation(), 0.0)


def test_past_actions_that_are_not_given_are_hidden(told):
    def act(past, temperature=0.0):
        return told.act({**instructed(), "action": {"past": past}}, temperature)

    hidden = told.act(instructed(), 0.0)
    middle = told.module.actions.decode(torch.zeros(3, *CHUNK), {}).numpy()  # zeros, as the model sees actions
    assert not np.array_equal(act(middle), hidden), "a past of zeros is a past"
    assert not np.array_equal(act(middle), act(chunks()))
    with pytest.raises(ValueError, match=r"Observation action\.past is \(8, 2\) per sample, expected \(16, 2\)"):
        act(chunks()[:, :8])


def test_explaining_shows_what_the_objective_showed(told):
    other = {**instructed(), "video": pictures(seed=9)}
    assert not np.array_equal(told.explain(instructed(), pictures(), 0.0), told.explain(other, pictures(), 0.0))


def test_what_may_be_seen_of_windows(tiny_data):
    data = tiny_data(window=Window(2, past_action=True))
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    seen = observed(batch)
    assert np.array_equal(seen["video"]["top"], batch.video["top"][:, :2])
    assert np.array_equal(seen["action"]["past"], batch.past_action)
    assert "text" not in seen
    text = torch.randn(len(batch), 512)
    assert np.array_equal(observed(replace(batch, text=text))["text"]["instruction"], text)


def test_noise_follows_the_episode_and_not_the_place_in_the_batch(module):
    seen = {**observation(3), "episode": {"seed": np.array([11, 12, 13])}}
    together = WindowPolicy(module, 7).act(seen)
    last = {kind: {name: value[2:] for name, value in entries.items()} for kind, entries in seen.items()}
    assert WindowPolicy(module, 7).act(last) == pytest.approx(together[2:], abs=1e-3)
    renamed = {**last, "episode": {"seed": np.array([14])}}
    assert not np.allclose(WindowPolicy(module, 7).act(renamed), together[2:], atol=1.0)
