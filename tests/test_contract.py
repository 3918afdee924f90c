"""What every objective, head, denoiser, aggregator, balancer and sampler must keep, the ones not yet written too."""

from __future__ import annotations

import inspect
import itertools
from functools import partial

import pytest
import torch

from uva_lightning.balance import Balancer, FixedWeights, means
from uva_lightning.balancers.dwa import DWA
from uva_lightning.balancers.famo import FAMO
from uva_lightning.balancers.grad_norm import GradNorm
from uva_lightning.balancers.gradient_surgery import GradientSurgery
from uva_lightning.balancers.loss_scale import LossScale
from uva_lightning.balancers.uncertainty_weighting import UncertaintyWeighting
from uva_lightning.commands.discovery import import_components
from uva_lightning.curriculum import Curriculum, Stage
from uva_lightning.draws import seeded
from uva_lightning.learning_progress import LearningProgress
from uva_lightning.model.fitted import fit_together
from uva_lightning.model.heads.aggregate import Aggregator, ConvFC, ConvOri, TokenConv, TokenFC, TokenMLP
from uva_lightning.model.heads.base import ActionChunkHead, ActionHead, Head, Sampling, VideoHead
from uva_lightning.model.heads.consistency import Consistency
from uva_lightning.model.heads.denoiser import Denoiser
from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.model.heads.flow import FlowMatching
from uva_lightning.model.heads.updates import DDIM, Ancestral, DPMSolver, Update
from uva_lightning.model.tokenizers.linear_patches import LinearPatches
from uva_lightning.model.transformer import LatentTransformer
from uva_lightning.module import UVAModule
from uva_lightning.objective import registry
from uva_lightning.ramp import Ramp
from uva_lightning.sampler import ObjectiveSampler, OneObjectivePerBatch
from uva_lightning.types import Batch, DataSpec, Tokens, Visible

import_components()

OBJECTIVES = {name: kind for name, kind in registry().items() if kind.__module__.startswith("uva_lightning.")}
SPEC = DataSpec(
    cameras=("top", "wrist"), image_size=16, action_dim=2, state_dims={"agent": 3}, rate_hz=10, horizon=4, frames=2
)
SAMPLES = 6


def diffusion(channels, condition, **options):
    return GaussianDiffusion(channels, condition, width=16, depth=1, **options)


def flow(channels, condition):
    return FlowMatching(channels, condition, width=16, depth=1)


def ddim(channels, condition):
    return diffusion(channels, condition, clip=1.0, update=DDIM())


token_mlp = partial(TokenMLP, squeeze=2, width=8)
conv_fc = partial(ConvFC, pooled=2)


def dpm(channels, condition):
    return diffusion(channels, condition, clip=1.0, update=DPMSolver())


def consistency(channels, condition):
    return Consistency(channels, condition, width=16, depth=1, teacher=flow, teacher_steps=3)


DENOISERS = {"diffusion": diffusion, "flow": flow, "ddim": ddim, "dpm": dpm, "consistency": consistency}
VIDEO_HEADS = {
    f"{name}{'-residual' * residual}": lambda shape, make=make, residual=residual: VideoHead(
        shape, make, residual=residual, steps=3
    )
    for (name, make), residual in itertools.product(DENOISERS.items(), (False, True))
}
ACTION_HEADS = {
    f"{name}-{label}": lambda shape, make=make, kind=kind, aggregator=aggregator: kind(shape, make, aggregator, steps=3)
    for (name, make), (label, kind, aggregator) in itertools.product(
        DENOISERS.items(),
        [
            ("each", ActionHead, conv_fc),
            ("chunk", ActionChunkHead, conv_fc),
            ("chunk-tokens", ActionChunkHead, token_mlp),
        ],
    )
} | {
    f"flow-{aggregator.__name__}": lambda shape, aggregator=aggregator: ActionHead(shape, flow, aggregator, steps=3)
    for aggregator in (ConvOri, TokenConv, TokenFC)
}


class Smallest(torch.nn.Module):
    """A weighting for ``GradientSurgery`` that needs no extra."""

    def forward(self, products):
        return 1 / products.diagonal().sqrt()


BALANCERS = {kind: kind for kind in (FixedWeights, LossScale, UncertaintyWeighting, DWA, GradNorm, FAMO)} | {
    GradientSurgery: lambda: GradientSurgery(Smallest())
}
SAMPLERS = {
    ObjectiveSampler: ObjectiveSampler,
    OneObjectivePerBatch: OneObjectivePerBatch,
    Curriculum: lambda o: Curriculum(o, {"a": Stage(dict.fromkeys(o, 1.0), steps=2), "b": Stage({next(iter(o)): 1.0})}),
    Ramp: lambda o: Ramp(o, {next(iter(o)): 1.0}, dict.fromkeys(o, 1.0), steps=3),
    LearningProgress: lambda o: LearningProgress(o, every=2),
}
COVERED = {
    Head: {VideoHead, ActionHead, ActionChunkHead},
    Denoiser: {GaussianDiffusion, FlowMatching, Consistency},
    Update: {Ancestral, DDIM, DPMSolver},
    Aggregator: {ConvFC, ConvOri, TokenConv, TokenFC, TokenMLP},
    Balancer: set(BALANCERS),
    ObjectiveSampler: set(SAMPLERS),
}


def build(video="flow", action="flow-each", objectives=None, **options):
    """A tiny model of two cameras and a proprioception entry, every weight shaken so that none is zero."""
    torch.manual_seed(0)
    module = UVAModule(
        SPEC,
        LinearPatches(patch=4, channels=5),
        {name: kind() for name, kind in OBJECTIVES.items()} if objectives is None else objectives,
        {"video": VIDEO_HEADS[video], "action": ACTION_HEADS[action]},
        lambda shapes: LatentTransformer(shapes, 16, heads=2, encoder_depth=1, decoder_depth=1),
        **options,
    )
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return module.eval()


def tokens(module, samples=SAMPLES, seed=0):
    """Random tokens of every modality that the model has."""
    rng, made = torch.Generator().manual_seed(seed), {}
    for name, shape in module.sizes.items():
        video = name.removeprefix("past_") in module.cameras
        sizes = (shape.steps, shape.places) if video else (shape.steps,)
        made[name] = torch.randn((samples, *sizes, shape.channels), generator=rng)
    return Tokens(made)


def batch(seed=0, samples=SAMPLES):
    rng = torch.Generator().manual_seed(seed)
    everything = torch.ones(samples, dtype=torch.bool)
    return Batch(
        video={
            name: torch.randint(0, 256, (samples, 4, 16, 16, 3), dtype=torch.uint8, generator=rng)
            for name in SPEC.cameras
        },
        action=torch.randn(samples, 4, 2, generator=rng),
        state={"agent": torch.randn(samples, 2, 3, generator=rng)},
        present={"video": everything, "action": everything.clone()},
    )


def fit(module):
    data = batch(samples=40)
    module.tokenizer.fit(torch.cat([frames.flatten(0, 1) for frames in data.video.values()]))
    fit_together([module.actions, module.proprioception], [data])
    return module


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
    for step in range(5):
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
