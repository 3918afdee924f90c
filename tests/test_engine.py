"""The fast path gives what the plain path gives, for every function and every sampler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fast_policies import ACTIONS, EMBED, FUNCTIONS, SAMPLERS, maker, run

from uva_lightning.model.heads.aggregate import TokenMLP
from uva_lightning.model.heads.base import ActionChunkHead
from uva_lightning.model.tokenizers.kl_vae import KLVAE
from uva_lightning.policy.committed import Rest
from uva_lightning.policy.engine import FastEngine, Trunk, snapshot
from uva_lightning.policy.policy import UVAPolicy
from uva_lightning.types import Tokens, Visible


@pytest.fixture(scope="module")
def make(tiny_data, tiny_module):
    return maker(tiny_data, tiny_module)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_fast_is_plain(make, name, sampler):
    module = make(sampler)
    fast, plain = (run(UVAPolicy(module, torch.float32, embed=EMBED, fast=f), FUNCTIONS[name]) for f in (True, False))
    if plain.dtype == np.uint8:
        assert np.abs(fast.astype(int) - plain).max() <= 1
        assert plain.std() > 10
    else:
        assert fast == pytest.approx(plain, abs=0.05)  # px of 512
        assert plain.std() > 10


def continued(policy):
    rests = [Rest(ACTIONS[row, :8], 3) for row in range(2)]
    return policy.act(committed=rests).actions


def rms(values):
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


HALF = [*((sampler, "act", FUNCTIONS["act"]) for sampler in SAMPLERS), ("flow", "continued", continued)]


@pytest.mark.parametrize(("sampler", "name", "function"), HALF, ids=lambda value: value if type(value) is str else "")
def test_fast_is_plain_in_half_precision(make, sampler, name, function):
    module = make(sampler)
    policies = [UVAPolicy(module, torch.bfloat16, embed=EMBED, fast=fast) for fast in (True, False)]
    exact = run(UVAPolicy(module, torch.float32, embed=EMBED), function)
    fast, plain = (run(policy, function) for policy in policies)
    rounding = rms(plain - exact)
    assert 0 < rounding < 32  # px of 512; a sum in another order changes it, by the number of threads
    assert rms(fast - plain) <= 2 * rounding


def test_weights_that_were_cast_before_give_the_same_bits(make):
    module = make("flow")
    head, cast = module.heads["action"], snapshot(module.heads["action"], torch.bfloat16)
    latent, noise = torch.randn(2, 4, 16, 32), torch.randn(2, 16, 2)
    tokens, seen = Tokens({"action": noise}), Visible({"action": torch.zeros(2, 16, dtype=torch.bool)})
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert head.sample(latent, tokens, seen, noise).equal(cast.sample(latent, tokens, seen, noise))
    assert head.denoiser.net.input.weight.dtype == torch.float32
    assert cast.denoiser.net.input.weight.dtype == torch.bfloat16
    assert cast.denoiser.net.blocks[0].norm.weight is head.denoiser.net.blocks[0].norm.weight


def test_what_is_hidden_is_projected_once(make, monkeypatch):
    module = make("flow")
    trunk, calls = Trunk(snapshot(module.transformer, torch.float32)), []
    shape = {"past_video": 8, "video": 8, "action": 2, "past_action": 2, "agent": 2, "text": 512}
    steps = {
        "past_video": (4, 16),
        "video": (4, 16),
        "action": (16,),
        "past_action": (16,),
        "agent": (4,),
        "text": (1,),
    }
    tokens = Tokens({name: torch.randn(2, *steps[name], width) for name, width in shape.items()})
    seen = Visible.only(tokens, "history")
    for name, stream in trunk.streams.items():
        monkeypatch.setattr(stream, "forward", lambda *a, n=name, f=stream.forward: (calls.append(n), f(*a))[1])
    with torch.inference_mode():
        first, again = trunk(tokens, seen), trunk(tokens, seen)
        assert torch.allclose(first, module.transformer(tokens, seen), atol=1e-5)
        assert first.equal(again)
        assert sorted(calls) == sorted(["past_video", "past_action", "agent", "text", "text"])
        other = tokens.replaced({"past_video": torch.randn(2, 4, 16, 8)})
        assert torch.allclose(trunk(other, seen), module.transformer(other, seen), atol=1e-5)


def test_a_chunk_head_is_fast_too(make):
    denoiser, steps = SAMPLERS["flow"]
    heads = {"action": lambda shape: ActionChunkHead(shape, denoiser, TokenMLP, steps=steps)}
    module = make("flow", heads=heads, objectives={"policy": policy_objective()})
    fast, plain = (run(UVAPolicy(module, torch.float32, embed=EMBED, fast=f), FUNCTIONS["act"]) for f in (True, False))
    assert fast == pytest.approx(plain, abs=0.05)


def policy_objective():
    from uva_lightning.objectives.robot_policy import RobotPolicy

    return RobotPolicy()


def test_the_autoencoder_in_half_precision_is_close(tiny_vae):
    exact = KLVAE(tiny_vae, image_size=64)
    same, half = exact.in_use(torch.float32), exact.in_use(torch.bfloat16)
    frames = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    moments = exact.encode(frames)
    assert torch.allclose(same.encode(frames), moments, atol=1e-4)
    assert half.encode(frames).dtype == torch.float32
    assert (half.encode(frames) - moments).square().mean().sqrt() < 0.05 * moments.std()
    latents = exact.sample(moments)
    pictures = exact.decode(latents, 64).int()
    assert (same.decode(latents, 64).int() - pictures).abs().max() <= 1
    assert (half.decode(latents, 64).int() - pictures).abs().float().mean() < 1.5
    assert exact.vae.encoder.conv_in.weight.dtype == torch.float32, "the original is left alone"


def test_steps_can_be_chosen(make):
    module = make("ancestral")
    few, many = (UVAPolicy(module, torch.float32, embed=EMBED, steps={"action": steps}) for steps in (2, 10))
    assert not np.allclose(run(few, FUNCTIONS["act"]), run(many, FUNCTIONS["act"]))
    assert np.array_equal(
        run(many, FUNCTIONS["act"]), run(UVAPolicy(module, torch.float32, embed=EMBED), FUNCTIONS["act"])
    )


def test_what_is_kept_follows_resets_drops_and_strides(make):
    """Episodes begin anew, observations go missing, decisions come at ever other times: nothing stale is used."""
    module, rng = make("flow"), np.random.default_rng(1)
    fast, plain = (UVAPolicy(module, torch.float32, embed=EMBED, fast=fast) for fast in (True, False))
    now, decided = {"a": 0, "b": 0}, 0
    for policy in (fast, plain):
        policy.reset("push", ["a", "b"], seed=1)
    for moment in range(60):
        name = "a" if moment % 2 else "b"
        if rng.random() < 0.08:
            now[name] = 0
            for policy in (fast, plain):
                policy.reset("pull", [name], seed=moment)
        seen = {
            "video": {"top": rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)},
            "state": {"agent": rng.uniform(100, 400, 2)},
            "step": now[name],
        }
        now[name] += 1 if rng.random() < 0.8 else 2  # the next one is dropped
        chunks = []
        for policy in (fast, plain):
            policy.observe(seen, [name])
            if moment % 7 in (0, 3):
                chunks.append(policy.act(environments=[name]).actions)
        if chunks:
            decided += 1
            assert chunks[0] == pytest.approx(chunks[1], abs=0.05)
    assert decided > 12


@pytest.mark.slow
def test_compiled_is_plain(make):
    module = make("flow")
    plain = run(UVAPolicy(module, torch.float32, embed=EMBED), FUNCTIONS["act"])
    compiled = UVAPolicy(module, torch.float32, embed=EMBED, compile=True)
    assert isinstance(compiled.windows.engine, FastEngine)
    assert run(compiled, FUNCTIONS["act"]) == pytest.approx(plain, abs=0.05)
