"""Denoisers: against numbers of the official code, against diffusers, and on targets we know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from shaken import shake
from torch import nn

from uva_lightning.model.heads import network
from uva_lightning.model.heads.denoiser import Guide
from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.model.heads.flow import FlowMatching
from uva_lightning.model.heads.network import SteppedNetwork
from uva_lightning.model.heads.schedule import Schedule
from uva_lightning.model.heads.updates import DDIM

FIXTURES = Path(__file__).parent / "fixtures" / "official"


@pytest.fixture(scope="module")
def official():
    """Schedules, losses and samples of the official code; how they were made is told where they are used."""
    return dict(np.load(FIXTURES / "diffusion.npz"))


def diffusion(channels=10, **options):
    return GaussianDiffusion(channels, 4, **{"width": 8, "depth": 1, **options})


def flow(channels=3, condition=4, **options):
    return FlowMatching(channels, condition, **{"width": 8, "depth": 1, **options})


def error(value, reference):
    """Largest difference over the largest magnitude, which counts as 1 at least."""
    value, reference = np.asarray(value, np.float64), np.asarray(reference, np.float64)
    return np.abs(value - reference).max() / max(1.0, np.abs(reference).max())


class Linear(SteppedNetwork):
    """The network of the reference numbers: x @ W + t / 1000, 10 channels of noise and 10 of variance."""

    def __init__(self, weight):
        super().__init__()
        self.weight, self.condition = torch.from_numpy(weight), nn.Identity()

    def forward(self, x, time, condition):
        return x @ self.weight + time[:, None] / 1000


# -- schedule ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [250, 100, 50, 16, 10, "ddim16", "ddim20", "ddim50", "ddim100", "10,15,25"])
def test_the_kept_levels_are_uvas(official, steps):
    assert diffusion()._respace(steps).timesteps.tolist() == official[f"{steps}/timestep_map"].tolist()


def test_a_single_step_starts_from_pure_noise():
    assert diffusion()._respace(1).timesteps.tolist() == [999]


@pytest.mark.parametrize("name", ["full", "100", "16"])
def test_the_tables_are_uvas(official, name):
    levels = list(range(1000)) if name == "full" else official[f"{name}/timestep_map"].tolist()
    schedule = Schedule(levels)
    rows = torch.from_numpy(official["full/timestep_map"]) if name == "full" else torch.arange(len(levels))
    one, zero = torch.ones(len(rows)), torch.zeros(len(rows))
    found = {
        "alphas_cumprod": schedule.signal[rows] ** 2,
        "posterior_log_variance_clipped": schedule.log_variance(-one, rows),
        "posterior_mean_coef1": schedule.posterior_mean(one, zero, rows),
        "posterior_mean_coef2": schedule.posterior_mean(zero, one, rows),
        "sqrt_recip_alphas_cumprod": schedule.clean(one, zero, rows),
        "sqrt_recipm1_alphas_cumprod": -schedule.clean(zero, one, rows),
    }
    for table, values in found.items():
        assert values.numpy() == pytest.approx(official[f"{name}/{table}"], rel=1e-6, abs=2e-7), table
    assert schedule.log_variance(one, rows).numpy() == pytest.approx(np.log(official[f"{name}/betas"]), rel=1e-6)


LISTED = "expected a whole number from 1 on, such as 100, or a spacing: 10,15,25, ddim20 or dpm16; give one of these."


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (1001, "1001 denoising steps, expected 1 to 1000"),
        ("10,600,25", "600 denoising steps, expected 1 to 333 of 1000 levels in '10,600,25'"),
        ("ddim3x", f"steps is 'ddim3x', {LISTED}"),
        ("ddimm10", f"steps is 'ddimm10', {LISTED}"),
        ("dpm", f"steps is 'dpm', {LISTED}"),
        ("10,,5", f"steps is '10,,5', {LISTED}"),
        ("0", f"steps is '0', {LISTED}"),
        ("ddim600", "ddim600: no whole stride gives 600 of 1000 levels"),
        ("", f"steps is '', {LISTED}"),
        ("dpm999", "dpm999: 999 denoising steps, expected 1 to 99"),
        ("heun5", f"steps is 'heun5', {LISTED}"),
    ],
)
def test_a_spacing_that_cannot_be_is_refused(steps, words):
    with pytest.raises(ValueError, match=words):
        diffusion().sample(torch.zeros(1, 4), torch.zeros(1, 10), steps)


@pytest.mark.parametrize("make", [diffusion, flow])
def test_guidance_follows_the_condition_further(make):
    """Scale 1 is the condition alone, 0 the unconditional one alone, and between them the network is called twice."""
    process = shake(make(3))
    condition, other, start = torch.randn(2, 4), torch.randn(2, 4), torch.randn(2, 3)

    def sample(scale):
        return process.sample(condition, start, 1, guide=Guide(other, scale), temperature=1.0)

    assert torch.allclose(sample(1.0), process.sample(condition, start, 1), rtol=1e-4)
    assert torch.allclose(sample(0.0), process.sample(other, start, 1), rtol=1e-4)
    assert torch.allclose(sample(2.0), 2 * sample(1.0) - sample(0.0), rtol=1e-3)


# -- training ---------------------------------------------------------------------------------------------------------


def test_the_loss_is_uvas(official):
    process = diffusion()
    process.net = Linear(official["loss/W"])
    target, noise, time = (torch.from_numpy(official[f"loss/{name}"]) for name in ("x0", "noise", "t"))
    assert error(process.schedule.noised(target, noise, time[:, None]), official["loss/x_t"]) < 1e-6

    rows = process.loss_at(target, target, time, noise).numpy()
    for first, tolerance in ((False, 1e-5), (True, 2e-3)):  # t = 0 takes the logarithm of a small difference
        chosen = (time == 0).numpy() == first
        assert rows[chosen] == pytest.approx(official["loss/total"][chosen], rel=tolerance, abs=tolerance)
    process.variational_weight = 0.0
    assert error(process.loss_at(target, target, time, noise), official["loss/mse"]) < 1e-5


def test_the_variational_term_trains_the_variance_only():
    process = shake(diffusion(3))
    target, time, noise = torch.randn(5, 3), torch.tensor([0, 1, 10, 500, 999]), torch.randn(5, 3)
    condition = process.net.condition(torch.randn(5, 4))
    (with_term,) = torch.autograd.grad(process.loss_at(target, condition, time, noise).sum(), process.net.output.weight)
    process.variational_weight = 0.0
    (without,) = torch.autograd.grad(process.loss_at(target, condition, time, noise).sum(), process.net.output.weight)
    assert torch.allclose(with_term[:3], without[:3])
    assert not torch.allclose(with_term[3:], without[3:])


@pytest.mark.parametrize("make", [diffusion, flow])
def test_several_draws_are_averaged_per_row(make):
    process = shake(make(3, draws=64))
    single = shake(make(3, draws=1))
    target, condition = torch.randn(2, 3).clamp(-0.9, 0.9), torch.randn(2, 4)
    normal = torch.randn(2, 64, 4)
    rows = process.loss(target, condition, process.noising(normal))
    each = single.noising(normal.flatten(0, 1)[:, None])
    repeated = (
        single.loss(target.repeat_interleave(64, 0), condition.repeat_interleave(64, 0), each).view(2, 64).mean(1)
    )
    assert rows.shape == (2,)
    assert torch.allclose(rows, repeated, rtol=1e-4)


def test_levels_have_the_distribution_that_training_wants():
    normal = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    levels = diffusion(3).levels(normal)
    counts = torch.histc(levels.float(), 10, 0, 1000)
    assert levels.min() >= 0
    assert levels.max() <= 999
    assert counts.min() > 1800, "all as likely"
    assert diffusion(3).levels(torch.tensor([-20.0, 20.0])).tolist() == [0, 999]
    times = flow(3, time_mean=1.0, time_std=0.5).levels(normal).logit()
    assert float(times.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(times.std()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("make", [diffusion, flow])
def test_a_loss_of_no_rows_reaches_every_parameter(make):
    process = make(3)
    none = process.loss(torch.randn(0, 3), torch.randn(0, 4), process.noising(torch.randn(0, 2, 4)))
    none.sum().backward()
    assert none.shape == (0,)
    assert all(p.grad is not None and not p.grad.any() for p in process.parameters())


# -- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clip", "name"), [(1.0, "out_clip"), (None, "out_noclip")])
@pytest.mark.parametrize("levels", ["16", "ddim20"])
def test_ddim_is_the_official_one(official, levels, clip, name):
    process = diffusion(clip=clip, update=DDIM())
    process.net = Linear(official["loss/W"])
    start = torch.from_numpy(official[f"ddim_loop_{levels}/init"])
    assert error(process.sample(start, start, levels), official[f"ddim_loop_{levels}/{name}"]) < 1e-5


def test_ddim_is_that_of_diffusers():
    """A plain loop over diffusers' scheduler, with the network called as it is."""
    process = shake(diffusion(3, clip=1.0, update=DDIM()))
    scheduler = DDIMScheduler(1000, beta_schedule="squaredcos_cap_v2", timestep_spacing="leading", clip_sample=True)
    scheduler.set_timesteps(20)
    condition, x = torch.randn(4, 4), torch.randn(4, 3)
    ours = process.sample(condition, x, "ddim20")

    for time in scheduler.timesteps:
        noise = process.net(x, time.expand(4), process.net.condition(condition))[:, :3]
        x = scheduler.step(noise, time, x, use_clipped_model_output=True).prev_sample
    assert error(ours.detach(), x.detach()) < 1e-4


@pytest.mark.parametrize("steps", [1, 2, 10, 16])
def test_dpm_solver_is_that_of_diffusers(steps):
    process = shake(diffusion(3))
    scheduler = DPMSolverMultistepScheduler(1000, beta_schedule="squaredcos_cap_v2", lambda_min_clipped=-5.1)
    scheduler.set_timesteps(steps)
    assert process._respace(f"dpm{steps}").timesteps.flip(0).tolist() == scheduler.timesteps.tolist()
    condition, x = torch.randn(4, 4), torch.randn(4, 3)
    ours = process.sample(condition, x, f"dpm{steps}")

    for time in scheduler.timesteps:
        noise = process.net(x, time.expand(4), process.net.condition(condition))[:, :3]
        x = scheduler.step(noise, time, x).prev_sample
    assert error(ours.detach(), x.detach()) < 1e-4


def test_dpm_solver_needs_fewer_steps_than_ddim():
    """The noise of a Gaussian target N(2, 0.5^2) is known; so is where a start ends: mean + 0.5 * start."""
    process = diffusion(1, update=DDIM())

    class Known(SteppedNetwork):
        condition = nn.Identity()

        def forward(self, x, time, condition):
            signal, noise = process.schedule.signal[time.long()], process.schedule.noise[time.long()]
            predicted = noise * (x - 2 * signal) / (0.25 * signal**2 + noise**2)
            return torch.cat([predicted, predicted], dim=-1)

    process.net = Known()
    start = torch.linspace(-2, 2, 9)[:, None]

    def far(steps):
        return (process.sample(torch.zeros(9, 1), start, steps) - (2 + 0.5 * start)).abs().max()

    assert far("dpm10") < 0.5 * far(10)
    assert far("dpm20") < 0.5 * far(20)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("make", [diffusion, flow])
def test_what_is_computed_ahead_changes_nothing(make, rows, monkeypatch):
    """As many rows at once as there are, or fewer than one step has."""
    process = shake(make(3, depth=2))
    condition, x = process.net.condition(torch.randn(rows, 4)), torch.randn(rows, 3)
    times = torch.tensor([900.0, 500.0, 1.0])
    for together in (1024, 2 * rows, 1):
        monkeypatch.setattr(network, "ROWS_AT_ONCE", together)
        made = [process.net.step(x, prepared) for prepared in process.net.prepare(times, condition)]
        one_by_one = [process.net(x, time, condition) for time in times.split(1)]
        assert torch.allclose(torch.stack(made), torch.stack(one_by_one), atol=1e-4)


def test_ancestral_sampling_is_a_plain_loop_over_the_formulas():
    process, steps, temperature = shake(diffusion(3, clip=1.0)), 7, 0.5
    condition, start = torch.randn(4, 4), torch.randn(4, 3)
    torch.manual_seed(1)
    ours = process.sample(condition, start, steps, temperature)

    torch.manual_seed(1)
    levels = process._respace(steps).timesteps.tolist()
    bar = np.cos((np.arange(1, 1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    bar = np.cumprod(1 - np.minimum(1 - bar / np.r_[np.cos(0.008 / 1.008 * np.pi / 2) ** 2, bar[:-1]], 0.999))
    x = start.double()
    for k in range(steps - 1, -1, -1):
        now, before = bar[levels[k]], bar[levels[k - 1]] if k else 1.0
        beta = 1 - now / before
        low = beta * (1 - before) / (1 - now)
        if k == 0:
            low = (1 - bar[levels[1]] / now) * (1 - now) / (1 - bar[levels[1]])
        output = process.net(x.float(), torch.full((4,), levels[k]), process.net.condition(condition))
        noise, fraction = output.double().chunk(2, dim=-1)
        clean = ((x - np.sqrt(1 - now) * noise) / np.sqrt(now)).clamp(-1, 1)
        mean = (np.sqrt(before) * beta * clean + np.sqrt(1 - beta) * (1 - before) * x) / (1 - now)
        part = (fraction + 1) / 2
        log_variance = part * np.log(beta) + (1 - part) * np.log(low)
        x = mean + temperature * (0.5 * log_variance).exp() * torch.randn_like(x.float()) * (k > 0)
    assert error(ours.detach(), x.detach()) < 1e-4


def test_clipping_bounds_what_an_untrained_network_makes():
    noise = torch.randn(6, 3)
    assert diffusion(3, clip=1.0).sample(torch.zeros(6, 4), noise, 10).abs().max() <= 1.0
    assert diffusion(3).sample(torch.zeros(6, 4), noise, 10).abs().max() > 1.0


@pytest.mark.parametrize("make", [diffusion, flow])
def test_rows_do_not_see_each_other(make):
    process = shake(make(3))
    target, condition, noise = torch.randn(4, 3), torch.randn(4, 4), torch.randn(4, 3)
    together = process.sample(condition, noise, 5, 0.0)
    assert torch.allclose(together[2:3], process.sample(condition[2:3], noise[2:3], 5, 0.0), atol=1e-5)
    at = process.noising(torch.randn(4, 1, 4))
    before = process.loss(target, condition, at)
    after = process.loss(torch.cat([target[:3], target[3:] + 1]), condition, at)
    assert torch.allclose(before[:3], after[:3])
    assert not torch.allclose(before[3], after[3])
