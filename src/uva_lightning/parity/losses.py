"""Latents, losses, their terms and gradient norms in the five modes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from uva_lightning.draws import seeded
from uva_lightning.model.heads.base import Head
from uva_lightning.model.heads.denoiser import Noising
from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.objective import Objective
from uva_lightning.parity.build import Official
from uva_lightning.parity.ledger import FLOAT32, GRADIENT, LOGARITHM, WITH_LOGARITHM, Ledger
from uva_lightning.types import Tokens, Visible

HEADS = {"video": "video", "wrist": "wrist", "action": "action", "proprio": "future_proprio"}
"""Official heads and our modalities."""
ROWS, COLUMNS = slice(None, None, 13), slice(None, None, 3)
"""What is stored of a latent."""

Results = dict[str, Tensor]


def compare(model: Official, group: str, results: Results, ledger: Ledger) -> None:
    """Compare the losses of every mode that a file has."""
    modes = {name.split("/")[1] for name in results if name.startswith("loss/")}
    for mode, objective in model.objectives.items():
        if mode in modes:
            ours = {name.removeprefix(f"loss/{mode}/"): v for name, v in results.items() if f"loss/{mode}/" in name}
            _mode(model, objective, group, mode, ours, ledger)


def check_modes(model: Official, results: Results) -> None:
    """Refuse a file that lacks a mode: nothing may pass because there is nothing to compare.

    Raises:
        KeyError: A mode is missing.
    """
    for mode in model.objectives:
        if (name := f"loss/{mode}/loss") not in results:
            raise KeyError(name)


def visible(objective: Objective, tokens: Tokens, inputs: Mapping[str, Tensor]) -> Visible:
    """Give what an objective shows, with the mask of the inputs where it draws one."""
    seen, shown = objective.visible(tokens, seeded(0)), ~inputs["draw/mask"].bool()  # bool[b, s]
    for camera in tokens.cameras:
        if seen[camera].any() and not seen[camera].all():
            seen[camera].copy_(shown[:, None].expand_as(seen[camera]))
    return seen


def _mode(model: Official, objective: Objective, group: str, mode: str, stored: Results, ledger: Ledger) -> None:
    module, inputs = model.module, model.variant.inputs
    module.zero_grad()
    tokens = model.tokens()
    seen = visible(objective, tokens, inputs)
    encoded = module.transformer.encode(tokens, seen)
    latent = module.transformer.decode(encoded)
    _latents(group, mode, encoded, latent.flatten(1, 2), stored, ledger)
    losses: dict[str, Tensor] = {}
    for name in sorted({key.split("/")[1] for key in stored if key.startswith("head/")}):
        losses[name] = _head(model, name, latent, tokens, seen, (group, mode), stored, ledger)
    total = torch.stack(list(losses.values())).sum()
    zero = torch.zeros(())
    sums = {
        "loss": total,
        "video_loss": losses.get("video", zero) + losses.get("wrist", zero),
        "act_loss": losses.get("action", zero),
    }
    for name, value in sums.items():
        ledger.compare(group, "losses", f"{mode}/{name}", value, stored[name], WITH_LOGARITHM)
    total.backward()
    _gradients(model, group, mode, stored["grad_norm"], ledger)


def _latents(group: str, mode: str, encoded: Tensor, latent: Tensor, stored: Results, ledger: Ledger) -> None:
    for name, quantity, x in (("enc", "encoder output", encoded), ("Z", "latents Z", latent)):
        ledger.compare(group, quantity, f"{mode}/slice", x[:, ROWS, COLUMNS], stored[f"{name}_slice"], FLOAT32)
        ledger.compare(group, quantity, f"{mode}/stats", statistics(x), stored[f"{name}_stats"], FLOAT32)
        if f"{name}_full" in stored:
            ledger.compare(group, quantity, f"{mode}/full", x, stored[f"{name}_full"], FLOAT32)


def statistics(x: Tensor) -> Tensor:
    """Mean, standard deviation, mean magnitude, minimum, maximum and norm: f64[6]."""
    x = x.detach().double()
    return torch.stack([x.mean(), x.std(), x.abs().mean(), x.min(), x.max(), x.norm()])


def _head(
    model: Official,
    name: str,
    latent: Tensor,
    tokens: Tokens,
    seen: Visible,
    where: tuple[str, str],
    stored: Results,
    ledger: Ledger,
) -> Tensor:
    """Compare one head: its rows, all of them, and its scalar over the hidden ones, which is returned."""
    head = cast(Head, model.module.heads[HEADS[name]])
    denoiser = cast(GaussianDiffusion, head.denoiser)
    inputs, (group, mode) = model.variant.inputs, where
    time, noise = inputs[f"draw/t_{name}"].long(), inputs[f"draw/noise_{name}"]
    rows: dict[str, Tensor] = {}
    everything = head.rows(latent, tokens, Visible.only(tokens))
    with torch.no_grad():
        condition = denoiser.net.condition(everything.condition)
        rows["mse"], rows["vb"] = denoiser.terms_at(everything.target, condition, time, noise)
    first = time == 0
    ledger.compare(group, "rows: mse", f"{mode}/{name}", rows["mse"], stored[f"head/{name}/mse"], FLOAT32)
    for quantity, chosen, allowed in (("t > 0", ~first, FLOAT32), ("t = 0", first, LOGARITHM)):
        found, wanted = rows["vb"][chosen], stored[f"head/{name}/vb"][chosen]
        ledger.compare(group, f"rows: vb, {quantity}", f"{mode}/{name}", found, wanted, allowed)
    hidden = ~seen[head.modality].flatten() if HEADS[name] in tokens.cameras else torch.ones_like(first)

    shape = everything.hidden.shape
    errors = head.loss(latent, tokens, seen, Noising(time.view(*shape, 1), noise.view(*shape, 1, -1)))
    value = errors.sums.sum() / errors.counts.sum()
    ledger.compare(group, "head losses", f"{mode}/{name}", value, stored[f"head/{name}/scalar"], WITH_LOGARITHM)
    kept = hidden & ~first
    ours = (rows["mse"] + rows["vb"])[kept].mean()
    reference = (stored[f"head/{name}/mse"] + stored[f"head/{name}/vb"])[kept].mean()
    ledger.compare(group, "head losses, t > 0", f"{mode}/{name}", ours, reference, FLOAT32)
    return value


def _gradients(model: Official, group: str, mode: str, stored: Tensor, ledger: Ledger) -> None:
    """Compare the norms per official tensor; where the official code has no gradient ours is none or zero."""
    own = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in _parameters(model)}
    norms = {name: gradient.norm() for name, gradient in model.official(own).items()}
    names = model.variant.facts["parameter_names"]
    unknown = torch.zeros(())
    ours = torch.stack([norms.get(name, unknown) for name in names])
    ledger.compare(group, "gradient norms", mode, ours, stored.nan_to_num(0.0), GRADIENT)


def _parameters(model: Official) -> list[tuple[str, torch.nn.Parameter]]:
    """All parameters, one that is shared under each of its names."""
    return list(model.module.named_parameters(remove_duplicate=False))
