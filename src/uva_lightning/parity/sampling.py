"""Sampled actions, generated tokens and single reverse steps, with noise that follows from its name."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor

from uva_lightning.model.heads.base import Head, Sampling
from uva_lightning.model.heads.denoiser import Guide, StepNoise
from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.model.heads.schedule import Schedule
from uva_lightning.model.heads.spacing import spaced
from uva_lightning.model.heads.updates import Ancestral
from uva_lightning.parity.build import Official
from uva_lightning.parity.ledger import EXACT, FLOAT32, LOGARITHM, Ledger
from uva_lightning.parity.losses import HEADS, Results
from uva_lightning.parity.naming import normal
from uva_lightning.policy.generation import MaskedGenerator, Noise, rounds
from uva_lightning.types import Visible

OFFICIAL = {ours: name for name, ours in HEADS.items()}
GUIDED = "video"
"""Head of the guided reference output."""
SHARE = 0.99
"""Share of all sampled actions that must agree to float32 rounding: at the first step x0 is 2e4 times a small
difference, so an action whose x0 happens to fall between the clipping bounds there magnifies the last bit."""


def compare(model: Official, group: str, scale: str, results: Results, ledger: Ledger) -> None:
    """Compare every sampling case, single step and guided output that a file has.

    Raises:
        KeyError: It lacks a case that the description names.
    """
    off: list[Tensor] = []
    for mode, spacing, iterations, temperature in model.variant.facts["cases"].get(scale, []):
        case = f"{mode}/{spacing}/iter{iterations}/T{temperature}"
        stored = {n.removeprefix(f"sample/{case}/"): v for n, v in results.items() if n.startswith(f"sample/{case}/")}
        if not stored:
            raise KeyError(f"sample/{case}/actions")
        names = f"{model.variant.prefix}{model.variant.name}/{scale}/{case}"
        made = _Case(model, mode, spacing, iterations, temperature, names).run()
        for quantity, reference in stored.items():
            if quantity.startswith("actions"):
                ledger.compare(group, "sampled actions", f"{case}/{quantity}", made[quantity], reference, LOGARITHM)
                off.append(((made[quantity] - reference).abs() / max(1.0, float(reference.abs().max()))).flatten())
            elif quantity == "masks":
                ledger.compare(group, "masks", case, made[quantity], reference, EXACT)
            else:
                ledger.compare(group, "generated tokens", f"{case}/{quantity}", made[quantity], reference, FLOAT32)
    if off:
        most = float(torch.cat(off).double().quantile(SHARE))
        ledger.add(group, f"sampled actions, {SHARE:.0%}", "all cases", most, FLOAT32)
    _steps(model, group, results, ledger)


class _Case:
    """One call of the official ``sample_tokens``."""

    def __init__(
        self, model: Official, mode: str, spacing: str, iterations: int, temperature: float, names: str
    ) -> None:
        self.model, self.mode, self.names = model, mode, names
        self.how = Sampling(temperature, spacing)
        steps = dict.fromkeys(model.module.heads, spacing)
        self.generator = MaskedGenerator(model.module, iterations, temperature=temperature, steps=steps)
        self.actions: list[Tensor] = []

    def run(self) -> dict[str, Tensor]:
        """Sample; what the official code returns, by its names."""
        module, inputs = self.model.module, self.model.variant.inputs
        tokens, order = self.model.tokens(), inputs["draw/orders"].long()
        objective = self.model.objectives[self.mode]
        seen = objective.visible(tokens, torch.Generator())
        cameras = [
            c for c in tokens.cameras if c in module.heads and not seen[c].all() and "video" in objective.predicts
        ]
        for camera in cameras:
            seen[camera].fill_(False)
        places, masks = order.shape[1], list[Tensor]()
        hidden = rounds(places, self.generator.iterations)

        def watch(number: int, latent: Tensor, made: object) -> None:
            self.actions.append(self._action(number, latent))
            masks.append(_mask(order, hidden[number]))

        made = self.generator(tokens, seen, cameras, order, Noise(self._start, self._step), watch)
        views = {"video": "tokens_main", "wrist": "tokens_wrist"}
        found = {views[camera]: _grid(made[camera]) for camera in cameras}
        every = torch.stack(self.actions)
        return {**found, "actions": every[-1], "actions_all_iters": every, "masks": torch.stack(masks)}

    def _action(self, number: int, latent: Tensor) -> Tensor:
        """Sample the actions anew in every round, also where they are given, as the official code."""
        head, tokens = cast(Head, self.model.module.heads["action"]), self.model.tokens()
        start = self._start(number, "action", torch.ones(tokens.action.shape[:2]), head.channels)
        how = Sampling(self.how.temperature, self.how.steps, step_noise=self._step(number, "action"))
        return head.sample(latent, tokens, Visible.only(tokens), start.view_as(tokens.action), how)

    def _start(self, number: int, modality: str, hidden: Tensor, channels: int) -> Tensor:
        return normal(f"{self.names}/{number}/{OFFICIAL[modality]}/init", (int(hidden.sum()), channels))

    def _step(self, number: int, modality: str) -> StepNoise:
        return lambda step, x: normal(f"{self.names}/{number}/{OFFICIAL[modality]}/step{step}", x.shape)


def _mask(order: Tensor, hidden: int) -> Tensor:
    return torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :hidden], True)


def _grid(tokens: Tensor) -> Tensor:
    side = int(tokens.shape[2] ** 0.5)
    return tokens.flatten(0, 1).transpose(1, 2).unflatten(-1, (side, side))  # [b * t, c, y, x]


@torch.no_grad()
def _steps(model: Official, group: str, results: Results, ledger: Ledger) -> None:
    """Compare single reverse steps: ``step/<head>/resp<spacing>/i<index>/<quantity>``."""
    for name, modality in HEADS.items():
        if f"step/{name}/x" not in results or modality not in model.module.heads:
            continue
        denoiser = cast(GaussianDiffusion, cast(Head, model.module.heads[modality]).denoiser)
        x, condition, noise = (results[f"step/{name}/{part}"] for part in ("x", "z", "noise"))
        for case in sorted({key.rpartition("/")[0] for key in results if key.startswith(f"step/{name}/resp")}):
            _, _, spacing, index = case.split("/")
            schedule = Schedule(spaced(spacing.removeprefix("resp"), len(denoiser.schedule.timesteps)))
            at = torch.tensor([int(index.removeprefix("i"))])
            net = denoiser.net(x, schedule.timesteps[at], denoiser.net.condition(condition))
            predicted, fraction = net.chunk(2, dim=-1)
            clean = denoiser.clipped(schedule.clean(x, predicted, at))
            ours = {
                "net": net,
                "pred_xstart": clean,
                "mean": schedule.posterior_mean(clean, x, at),
                "log_variance": schedule.log_variance(fraction, at),
            }
            for key in (key for key in results if key.startswith(f"{case}/")):
                quantity = key.rpartition("/")[2]
                if quantity.startswith("sample_T"):
                    factor = float(quantity.removeprefix("sample_T"))
                    ours[quantity] = Ancestral()(schedule, x, (clean, fraction), at, partial(_given, factor * noise))
                ledger.compare(group, "reverse steps", key, ours[quantity], results[key], FLOAT32)
        _guided(denoiser, name, group, results, ledger)


def _given(noise: Tensor, x: Tensor) -> Tensor:
    return noise


def _guided(denoiser: GaussianDiffusion, name: str, group: str, results: Results, ledger: Ledger) -> None:
    """Compare the guided output ``step/cfg/net_scale<s>_t<t>``: x is its first half twice, z has both conditions."""
    for key in (key for key in results if key.startswith("step/cfg/net_") and name == GUIDED):
        scale, _, time = key.removeprefix("step/cfg/net_scale").partition("_t")
        x, condition = results["step/cfg/x"], denoiser.net.condition(results["step/cfg/z"])
        half, other = condition.chunk(2)
        level, x = torch.tensor([int(time)]), x[: len(half)]
        noise, fraction = denoiser.predict(x, level, half, Guide(other, float(scale)))
        _, free = denoiser.predict(x, level, other)
        ours = torch.cat((noise.repeat(2, 1), torch.cat((fraction, free))), dim=1)
        ledger.compare(group, "guidance", key, ours, results[key], FLOAT32)
