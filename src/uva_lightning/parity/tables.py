"""Noise schedules, the diffusion loss, DDIM, windows, learning rates and EMA decays."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uva_lightning.callbacks.ema import EMA
from uva_lightning.datamodules.windows import Window, Windows
from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.model.heads.network import SteppedNetwork
from uva_lightning.model.heads.schedule import TRAIN_STEPS, Schedule
from uva_lightning.model.heads.spacing import spaced
from uva_lightning.model.heads.updates import DDIM
from uva_lightning.optim import AdamWCosine
from uva_lightning.parity.folder import SCHEDULES, Folder
from uva_lightning.parity.ledger import EXACT, FLOAT32, LOGARITHM, Ledger

GROUP = "tables"
_RATES = re.compile(r"lr_cosine_warmup(\d+)_total(\d+)_base(.+)")
_TRAJECTORY = re.compile(r"n(\d+)_T(\d+)_shift([01])_hist([01])")
ONLY_LEVEL = "1"
"""The official spacing "1" keeps level 0 alone, from which nothing can be sampled; ours keeps the last level."""


def compare(folder: Folder, ledger: Ledger) -> None:
    """Compare all tables of a folder."""
    diffusion = folder.arrays("diffusion.npz")
    _schedules(diffusion, ledger)
    _loss(diffusion, ledger)
    _ddim(diffusion, ledger)
    _windows(folder.json(SCHEDULES), ledger)
    _training(folder.json(SCHEDULES), ledger)


def _schedules(numbers: dict[str, Tensor], ledger: Ledger) -> None:
    for key, levels in numbers.items():
        name, _, table = key.partition("/")
        if table != "timestep_map" or name == ONLY_LEVEL:
            continue
        kept = list(range(TRAIN_STEPS)) if name == "full" else spaced(name, TRAIN_STEPS)
        ledger.compare(GROUP, "time steps", name, torch.tensor(kept), levels, EXACT)
        schedule, rows = Schedule(kept), torch.arange(len(kept))
        one, zero = torch.ones(len(rows)), torch.zeros(len(rows))
        ours = {
            "betas": schedule.log_variance(one, rows).exp(),
            "alphas_cumprod": schedule.signal[rows] ** 2,
            "alphas_cumprod_prev": schedule.previous_signal[rows] ** 2,
            "posterior_log_variance_clipped": schedule.log_variance(-one, rows),
            "posterior_mean_coef1": schedule.posterior_mean(one, zero, rows),
            "posterior_mean_coef2": schedule.posterior_mean(zero, one, rows),
            "sqrt_recip_alphas_cumprod": schedule.clean(one, zero, rows),
            "sqrt_recipm1_alphas_cumprod": -schedule.clean(zero, one, rows),
        }
        for table, values in ours.items():
            if f"{name}/{table}" in numbers:
                ledger.compare(GROUP, "schedules", f"{name}/{table}", values, numbers[f"{name}/{table}"], FLOAT32)


class _LinearNetwork(SteppedNetwork):
    """The network of the reference numbers: x @ W + t / 1000."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.condition = weight, nn.Identity()

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return x @ self.weight + time[:, None] / TRAIN_STEPS


def _process(numbers: dict[str, Tensor], **options: Any) -> GaussianDiffusion:
    process = GaussianDiffusion(numbers["loss/x0"].shape[1], 1, width=8, depth=1, **options)
    process.net = _LinearNetwork(numbers["loss/W"])  # type: ignore[assignment]
    return process


def _loss(numbers: dict[str, Tensor], ledger: Ledger) -> None:
    target, time, noise = numbers["loss/x0"], numbers["loss/t"].long(), numbers["loss/noise"]
    process = _process(numbers)
    noised = process.schedule.noised(target, noise, time[:, None])
    ledger.compare(GROUP, "diffusion loss", "x_t", noised, numbers["loss/x_t"], FLOAT32)
    error, variational = process.terms_at(target, target, time, noise)
    ledger.compare(GROUP, "diffusion loss", "mse", error, numbers["loss/mse"], FLOAT32)
    for name, rows, allowed in (("t > 0", time > 0, FLOAT32), ("t = 0", time == 0, LOGARITHM)):
        ledger.compare(
            GROUP, f"diffusion loss, {name}", "vb", variational[rows], numbers["loss/vb_bits"][rows], allowed
        )


def _ddim(numbers: dict[str, Tensor], ledger: Ledger) -> None:
    for key, start in numbers.items():
        if not key.startswith("ddim_loop_") or not key.endswith("/init"):
            continue
        case = key.removesuffix("/init")
        for clip, name in ((1.0, "out_clip"), (None, "out_noclip")):
            made = _process(numbers, clip=clip, update=DDIM()).sample(start, start, case.removeprefix("ddim_loop_"))
            ledger.compare(GROUP, "DDIM", f"{case}/{name}", made, numbers[f"{case}/{name}"], FLOAT32)


def _training(numbers: dict[str, Any], ledger: Ledger) -> None:
    """Compare EMA decays and learning rates, the latter relative to the highest."""
    for step, decay in numbers["ema_decay_at_step"].items():
        ledger.compare(GROUP, "EMA decay", step, EMA().decay(int(step)), decay, FLOAT32)
    for name, rates in numbers.items():
        if found := _RATES.fullmatch(name):
            warmup, total, base = int(found[1]), int(found[2]), float(found[3])
            plan = AdamWCosine(base, warmup_steps=warmup)
            _, schedule = plan.build(nn.Linear(1, 1), total, fused=False)
            for step, rate in rates.items():
                ours = schedule.lr_lambdas[0](int(step))
                ledger.compare(GROUP, "learning rate", step, ours, rate / base, FLOAT32)


def _windows(numbers: dict[str, Any], ledger: Ledger) -> None:
    """Compare frames and actions of a window, for the lengths that give a whole chunk."""
    only, window = np.array([0]), Window(pad=(0, 0))
    frames = Windows(np.array([window.length]), window).frame_index(only)[0]
    ledger.compare(GROUP, "indices", "train_frames_T32", frames, numbers["train_frames_T32"], EXACT)
    past = frames[: len(frames) // 2]
    ledger.compare(GROUP, "indices", "eval_frames_T16", past, numbers["eval_frames_T16"], EXACT)
    count = math.comb(window.horizon + window.frames - 2, window.frames - 1)
    ledger.compare(GROUP, "indices", "history combinations", count, numbers["history_combination_count"], EXACT)
    for case, expected in numbers["get_trajectory"].items():
        found = _TRAJECTORY.fullmatch(case)
        given = expected["history"] or []
        past_action = bool(found and found[4] == "1")
        if not found or int(found[1]) != 2 * window.horizon + past_action or int(found[2]) < 2 * window.horizon:
            continue  # lengths with which the official code cuts chunks of 15, 17 or 28 actions
        chosen = Window(pad=(0, 0), past_action=past_action, shift_action=found[3] == "1")
        windows = Windows(np.array([chosen.length]), chosen)
        ledger.compare(GROUP, "indices", case, windows.action_index(only)[0], expected["trajectory"], EXACT)
        if past_action:
            ledger.compare(GROUP, "indices", f"{case}, past", windows.past_action_index(only)[0], given, EXACT)
