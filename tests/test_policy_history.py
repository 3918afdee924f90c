"""The policy at run time: instructions, past actions and states of the whole history."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fitted_models import fitted
from observed import STEPS, episode, together

from uva_lightning.datamodules.instructions import RandomInstructions
from uva_lightning.datamodules.windows import Window
from uva_lightning.policy.policy import UVAPolicy


@pytest.fixture(scope="module")
def module(tiny_data, tiny_module):
    return fitted(tiny_data(), tiny_module)


@pytest.fixture(scope="module")
def told(tiny_data, tiny_module):
    """A model of 4 frames that hears instructions and sees past actions and every state of the history."""
    seen = Window(4, past_action=True, state_steps=16)
    spec = tiny_data(window=seen, text=RandomInstructions()).spec
    return fitted(tiny_data(window=seen), tiny_module, spec)


@pytest.fixture
def policy(module):
    return UVAPolicy(module, torch.float32)


@pytest.mark.parametrize("strides", [(1,), (8,), (8, 4, 16, 3, 8), (16,)])
def test_each_frame_is_encoded_once_whatever_the_stride(told, strides, monkeypatch):
    policy, encoded = UVAPolicy(told, torch.float32, embed=RandomInstructions().embed), []
    encode = policy.windows.engine.encode
    monkeypatch.setattr(
        policy.windows.engine, "encode", lambda frames: (encoded.append(len(frames)), encode(frames))[1]
    )
    policy.reset("push")
    seen, now, shown = episode(steps=80), 0, set()
    for step in range(now + 1):
        policy.observe(seen[step])
    for stride in strides:
        chunk = policy.act(temperature=0.0)
        wanted = {max(0, now + offset) for offset in (-12, -8, -4, 0)}
        assert sum(encoded) == len(wanted - shown)
        shown |= wanted
        encoded.clear()
        fresh = UVAPolicy(told, torch.float32, embed=RandomInstructions().embed)
        fresh.reset("push")
        for step in range(now + 1):
            fresh.observe(seen[step])
        assert fresh.act(temperature=0.0).actions == pytest.approx(chunk.actions, abs=1e-2)
        for step in range(now + 1, now + stride + 1):
            policy.observe(seen[step])
        now += stride


def test_the_instruction_is_heard_and_checked(told, policy):
    heard = UVAPolicy(told, torch.float32, embed=RandomInstructions().embed)
    with pytest.raises(ValueError, match=r"Environment 0 has no instruction, the checkpoint was trained with one"):
        heard.act(episode()[0])
    chunks = []
    for instruction in ("left", "right", RandomInstructions().embed(["left"])[0].numpy()):
        heard.reset(instruction, seed=1)
        chunks.append(heard.act(episode()[0]).actions)
    assert not np.array_equal(chunks[0], chunks[1])
    assert np.array_equal(chunks[0], chunks[2])
    heard.reset(["left", "right"])
    each = heard.act(together(episode()[0], episode()[0]), temperature=0.0).actions
    assert not np.allclose(each[0], each[1])
    with pytest.raises(ValueError, match=r"The instruction 'left' cannot be embedded, as this policy has no text"):
        UVAPolicy(told, torch.float32).reset("left")
    with pytest.raises(ValueError, match=r"The instruction is \[3\], the checkpoint was trained with \[512\]"):
        heard.reset(np.zeros(3))
    with pytest.raises(ValueError, match=r"is 'push', the checkpoint was trained without instructions"):
        policy.reset("push")


def test_an_unknown_instruction_is_refused_by_a_sentence(told):
    def embed(sentences):
        raise ValueError(f"there is no vector for '{sentences[0]}'")

    with pytest.raises(ValueError, match=r"'fly' cannot be embedded: there is no vector for 'fly'"):
        UVAPolicy(told, torch.float32, embed=embed).reset("fly")


def test_past_actions_count_once_all_are_told(told):
    def act(action, begin=1):
        policy = UVAPolicy(told, torch.float32, embed=RandomInstructions().embed)
        policy.reset("push", seed=1)
        for step, seen in enumerate(episode()):
            policy.observe(seen if step < begin or action is None else {**seen, "last_action": action})
        return policy.act(temperature=0.0).actions

    hidden = act(None)
    assert not np.allclose(act([9, 500]), hidden)
    assert not np.allclose(act([9, 500]), act([400, 9]))
    assert np.allclose(act([9, 500], begin=STEPS - 3), hidden), "a past that is partly unknown is hidden"


def test_states_of_every_step_are_seen(told):
    def act(change):
        policy = UVAPolicy(told, torch.float32, embed=RandomInstructions().embed)
        policy.reset("push", seed=1)
        for step, seen in enumerate(episode()):
            policy.observe({**seen, "state": {"agent": np.zeros(2)}} if step == change else seen)
        return policy.act(temperature=0.0).actions

    assert not np.allclose(act(STEPS - 6), act(None)), "a state between two frames"
    assert np.allclose(act(STEPS - 17), act(None)), "older than the history"


def test_ever_new_instructions_take_no_more_memory(told):
    from uva_lightning.policy.instructions import REMEMBERED

    policy = UVAPolicy(told, torch.float32, embed=lambda sentences: torch.zeros(len(sentences), told.spec.text_dim))
    for number in range(REMEMBERED + 9):
        policy.reset(f"put {number} down")
    assert len(policy._tell._known) == REMEMBERED
