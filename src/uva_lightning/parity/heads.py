"""The four kinds of action head on one latent."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from uva_lightning.model.heads.aggregate import Aggregator, ConvFC, ConvOri, TokenConv, TokenFC
from uva_lightning.model.heads.base import ActionHead, Sampling
from uva_lightning.model.heads.denoiser import Noising
from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.model.streams import Shape
from uva_lightning.official.names import HEADS, Layout, pairs
from uva_lightning.parity.folder import Folder
from uva_lightning.parity.ledger import FLOAT32, LOGARITHM, WITH_LOGARITHM, Ledger
from uva_lightning.parity.losses import COLUMNS, ROWS
from uva_lightning.parity.naming import fill, normal
from uva_lightning.parity.sampling import SHARE
from uva_lightning.types import Tokens, Visible

KINDS: dict[str, type[Aggregator]] = {"conv_fc": ConvFC, "conv_ori": ConvOri, "conv2": TokenConv, "fc2": TokenFC}
GROUP, FRAMES, GRID, TEMPERATURE, STEPS = "action heads", 4, (16, 16), 0.95, 16
PLACES = GRID[0] * GRID[1]
SAMPLE = f"sample{STEPS}_T{TEMPERATURE}"


@torch.no_grad()
def compare(folder: Folder, ledger: Ledger) -> None:
    """Compare loss and sampled actions of every kind."""
    facts, numbers = folder.json("action_heads.json"), folder.arrays("action_heads.npz")
    prefix = str(facts["fill_prefix"]).removesuffix("acthead/<type>/")
    known = {kind: aggregator for kind, aggregator in KINDS.items() if kind in facts["keys"]}
    off = [_kind(kind, aggregator, facts, numbers, prefix, ledger) for kind, aggregator in known.items()]
    most = float(torch.cat(off).double().quantile(SHARE))
    ledger.add(GROUP, f"sampled actions, {SHARE:.0%}", "all kinds", most, FLOAT32)


def _kind(
    kind: str,
    aggregator: type[Aggregator],
    facts: dict[str, Any],
    numbers: dict[str, Tensor],
    prefix: str,
    ledger: Ledger,
) -> Tensor:
    """Compare one kind; gives the errors of its sampled actions, f32[n]."""
    head, samples = _head(kind, aggregator, facts, prefix, numbers["target"]), len(numbers["target"])
    width = head.aggregate.width
    latent = normal(f"{prefix}input/acthead/Z", (samples, FRAMES * PLACES, width))
    ledger.compare(GROUP, "latents", "Z", latent[:, ROWS, COLUMNS], numbers["Z"], 0.0)
    latent, tokens = latent.view(samples, FRAMES, PLACES, width), Tokens({"action": numbers["target"]})

    rows = numbers["target"].shape[:2]
    at = Noising(numbers["t"].long().view(*rows, 1), numbers["noise"].view(*rows, 1, -1))
    loss = head.loss(latent, tokens, Visible.only(tokens), at).means.mean()
    ledger.compare(GROUP, "losses", kind, loss, numbers[f"{kind}/loss"], WITH_LOGARITHM)

    names = f"{prefix}acthead/{kind}/0/action"
    start = normal(f"{names}/init", (numbers["target"].shape[0] * numbers["target"].shape[1], head.channels))
    how = Sampling(TEMPERATURE, STEPS, step_noise=lambda step, x: normal(f"{names}/step{step}", x.shape))
    made = head.sample(latent, tokens, Visible.only(tokens), start.view_as(tokens.action), how)
    reference = numbers[f"{kind}/{SAMPLE}"]
    ledger.compare(GROUP, "sampled actions", kind, made, reference, LOGARITHM)
    return (made - reference).abs().flatten() / max(1.0, float(reference.abs().max()))


def _head(kind: str, aggregator: type[Aggregator], facts: dict[str, Any], prefix: str, target: Tensor) -> ActionHead:
    shapes = {name: shape for name, shape, _ in facts["keys"][kind]}
    width, depth = shapes["net.cond_embed.weight"][0], sum(name.endswith("in_ln.weight") for name in shapes)
    shape = Shape(FRAMES, GRID, target.shape[-1], target.shape[1], width=shapes["net.cond_embed.weight"][1])
    head = ActionHead(shape, partial(GaussianDiffusion, width=width, depth=depth, clip=1.0), aggregator, steps=STEPS)
    layout = Layout(width, 0, 0, (), False, {"action": (depth, width)}, {"action": aggregator.__name__})
    scale, state = facts["fill_scale"][kind], dict[str, Tensor]()
    for pair in pairs(layout):
        name = pair.official.removeprefix(f"{HEADS['action']}.")
        if name in shapes:
            drawn = fill(f"{prefix}acthead/{kind}/{name}", shapes[name], scale, name.endswith("in_ln.weight"))
            state |= {own.removeprefix("heads.action."): value for own, value in pair.to_ours(drawn).items()}
    head.load_state_dict(state)
    return head.eval()
