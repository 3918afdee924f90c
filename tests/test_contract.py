"""What every objective, head, denoiser, aggregator, balancer and sampler must keep, the ones not yet written too."""

from __future__ import annotations

import inspect
import itertools

import pytest
import torch
from every_part import (
    ACTION_HEADS,
    BALANCERS,
    COVERED,
    OBJECTIVES,
    SAMPLERS,
    VIDEO_HEADS,
    batch,
    build,
    fit,
    tokens,
)

from uva_lightning.balance import FixedWeights, means
from uva_lightning.draws import seeded
from uva_lightning.model.heads.base import Sampling
from uva_lightning.sampler import ObjectiveSampler
from uva_lightning.types import Tokens, Visible


def hidden_changed(values, seen, how):
    """The same tokens with other numbers wherever they are hidden."""

    def change(value, mask):
        mask = mask.view(*mask.shape, 1)
        other = value * torch.nan if how == "nan" else 1e4 * torch.randn_like(value)
        return value.where(mask, other)

    return Tokens({name: change(value, seen[name]) for name, value in values.items()})


def head_losses(module, objective, latent, values, seen):
    return {name: module.heads[name].loss(latent, values, seen).means.mean() for name in objective.predicts}


def copied(values):
    return {name: value.clone() for name, value in values.items()}


def reached(part):
    """Parameters with a gradient."""
    return {name for name, p in part.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


def idle(module, masks):
    """Parameters of the trunk that have nothing to do: placeholders never shown, projections of nothing visible."""
    names = set()
    for name, stream in module.transformer.streams.items():
        if all(seen[name].all() for seen in masks):
            names |= {f"streams.{name}.placeholder"}
        if not any(seen[name].any() for seen in masks):
            names |= {f"streams.{name}.project.{n}" for n, _ in stream.project.named_parameters()}
    return names


def concrete(base):
    kinds = {base} if not inspect.isabstract(base) else set()
    return kinds.union(*(concrete(kind) for kind in base.__subclasses__()))


each_objective = pytest.mark.parametrize("kind", OBJECTIVES.values(), ids=OBJECTIVES.keys())
each_video_head = pytest.mark.parametrize("video", VIDEO_HEADS)
each_pair = pytest.mark.parametrize(
    ("video", "action"), list(itertools.zip_longest(VIDEO_HEADS, ACTION_HEADS, fillvalue="diffusion"))
)
each_action_head = pytest.mark.parametrize("action", ACTION_HEADS)


@pytest.mark.parametrize("base", COVERED, ids=lambda base: base.__name__)
def test_every_part_is_covered_here(base):
    """Add a new one to the tables above; the tests of this file then hold it to the contract."""
    ours = {kind for kind in concrete(base) if kind.__module__.startswith("uva_lightning.")}
    assert ours == COVERED[base]


# -- no leak ----------------------------------------------------------------------------------------------------------


@each_objective
@pytest.mark.parametrize("how", ["nan", "other"])
def test_hidden_values_never_reach_the_latents(kind, how):
    module = build(objectives={"it": kind()})
    values = tokens(module)
    seen = kind().visible(values, seeded(0))
    latent = module.transformer(values, seen)
    changed = module.transformer(hidden_changed(values, seen, how), seen)
    assert latent.isfinite().all()
    assert latent.equal(changed)


@each_objective
def test_every_visible_modality_reaches_the_latents(kind):
    module = build(objectives={"it": kind()})
    values = tokens(module)
    seen = kind().visible(values, seeded(0))
    latent = module.transformer(values, seen)
    for name in values:
        other = Tokens({**values, name: values[name] + 1})
        assert latent.equal(module.transformer(other, seen)) == (not seen[name].any()), name


@each_objective
def test_hidden_nans_reach_no_gradient(kind):
    module = build(objectives={"it": kind()})
    values = tokens(module)
    seen = kind().visible(values, seeded(0))
    broken = hidden_changed(values, seen, "nan")
    targets = Tokens({name: values[name] if name in kind.predicts else broken[name] for name in values})
    losses = head_losses(module, kind, module.transformer(broken, seen), targets, seen)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


@each_objective
@pytest.mark.parametrize("name", ["video", "action"])
def test_sampling_reads_nothing_hidden(kind, name):
    module = build("flow-residual", objectives={"it": kind()})
    values = tokens(module)
    seen, noise = kind().visible(values, seeded(0)), torch.randn_like(values[name])
    broken, head = hidden_changed(values, seen, "nan"), module.heads[name]
    with torch.no_grad():
        made = head.sample(module.transformer(values, seen), values, seen, noise)
        assert made.isfinite().all()
        assert made.equal(head.sample(module.transformer(broken, seen), broken, seen, noise))


# -- losses and gradients ---------------------------------------------------------------------------------------------


@each_objective
@each_pair
def test_losses_are_finite_and_gradients_reach_the_trunk_and_the_heads(kind, video, action):
    module = build(video, action, {"it": kind()})
    values = tokens(module)
    seen, before = kind().visible(values, seeded(0)), copied(values)
    latent = module.transformer(values, seen)
    sum(head_losses(module, kind, latent, values, seen).values()).backward()
    assert all(value.equal(before[name]) for name, value in values.items())
    for name in kind.predicts:
        assert reached(module.heads[name]) == {n for n, p in module.heads[name].named_parameters() if p.requires_grad}
    for name in set(module.heads) - set(kind.predicts):
        assert not reached(module.heads[name])
    trunk = {name for name, _ in module.transformer.named_parameters()}
    assert reached(module.transformer) == trunk - idle(module, [seen])


@each_pair
def test_a_step_of_all_objectives_is_finite_and_repeatable(video, action):
    module = fit(build(video, action))
    data = batch()
    results = []
    for seed in (0, 0, 1):
        module.seed = seed
        plan, terms, latent = module.losses(data, step=2)
        results.append(module.balancer(plan, terms, latent).item())
        assert set(terms) == {(name, m) for name in plan.served for m in OBJECTIVES[name].predicts}
        assert all(value.isfinite() and value.ndim == 0 for term in terms.values() for value in term)
    assert results[0] == results[1] != results[2]


@pytest.mark.parametrize(
    ("sampler", "balancer"),
    [(kind, FixedWeights) for kind in SAMPLERS] + [(ObjectiveSampler, kind) for kind in BALANCERS],
    ids=lambda kind: kind.__name__,
)
def test_every_sampler_and_balancer_gives_a_loss_that_trains(sampler, balancer):
    options = {"balancer": BALANCERS[balancer](), "sampler": SAMPLERS[sampler]}
    module = fit(build("diffusion", "diffusion-each", **options))
    module.balancer.train()
    data = batch()
    before = (copied(data.video), data.action.clone(), copied(data.state), copied(data.present))
    for step in range(2 * len(OBJECTIVES)):  # so that each is served, one in a batch too
        plan, terms, latent = module.losses(data, step)
        loss = module.balancer(plan, terms, latent)
        loss.backward()
        module.sampler.observe(step, means(plan, terms))
        assert loss.isfinite()
        assert loss.ndim == 0
    values = tokens(module)
    unused = idle(module, [kind().visible(values, seeded(0)) for kind in OBJECTIVES.values()])
    assert reached(module) == {name for name, _ in module.named_parameters()} - {f"transformer.{n}" for n in unused}
    video, action, state, present = before
    assert data.action.equal(action)
    for now, old in ((data.video, video), (data.state, state), (data.present, present)):
        assert all(value.equal(old[name]) for name, value in now.items())


# -- heads ------------------------------------------------------------------------------------------------------------


@each_video_head
def test_videos_have_the_right_shape_and_keep_what_is_visible(video):
    module = build(video)
    values = tokens(module)
    seen, noise = OBJECTIVES["VideoModel"]().visible(values, seeded(5)), torch.randn_like(values.video)
    assert seen.video.any()
    with torch.no_grad():
        latent = module.transformer(values, seen)
        made = [_sampled(module.heads["video"], latent, values, seen, noise) for _ in range(2)]
    assert made[0].shape == values.video.shape
    assert made[0].dtype == torch.float32
    assert made[0].isfinite().all()
    assert made[0].equal(made[1])
    assert made[0][seen.video].equal(values.video[seen.video])
    assert not (made[0][~seen.video] == values.video[~seen.video]).any()


@each_action_head
def test_actions_have_the_right_shape_and_repeat(action):
    module = build(action=action)
    values = tokens(module)
    seen, noise = Visible.only(values, "history"), torch.randn_like(values.action)
    with torch.no_grad():
        latent = module.transformer(values, seen)
        made = [_sampled(module.heads["action"], latent, values, seen, noise) for _ in range(2)]
    assert made[0].shape == values.action.shape
    assert made[0].dtype == torch.float32
    assert made[0].isfinite().all()
    assert made[0].equal(made[1])
    assert not made[0][0].allclose(made[0][1])


@each_action_head
def test_samples_do_not_see_each_other(action):
    module = build("diffusion", action)
    values = tokens(module)
    seen, noise = Visible.only(values, "history"), torch.randn_like(values.action)
    with torch.no_grad():
        every = module.heads["action"].sample(module.transformer(values, seen), values, seen, noise, Sampling(0.0))
        one, shown = values.rows(slice(2, 3)), seen.rows(slice(2, 3))
        alone = module.heads["action"].sample(module.transformer(one, shown), one, shown, noise[2:3], Sampling(0.0))
    assert torch.allclose(every[2:3], alone, rtol=1e-4, atol=1e-4 * float(every.abs().max()))


def _sampled(head, latent, values, seen, noise):
    torch.manual_seed(0)
    return head.sample(latent, values, seen, noise)
