"""Probe every layer of a model: pooled, per frame slot, all tokens together, and place by place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from uva_lightning.analysis.capture import AttentionSummary, layers, places
from uva_lightning.analysis.episodes import Windows
from uva_lightning.analysis.probe import held_out, score, value
from uva_lightning.policy.windows import WindowPolicy

TOKENS = "tokens"
"""Name of what the tokenizer gives of the past frames: the layer below all others."""
MEAN, ALL, FRAME = "mean", "all", "frame"
"""Poolings: mean of all tokens; all tokens side by side; mean of the tokens of a frame slot, with its number."""
BLOCK = 32


def features(policy: WindowPolicy, windows: Windows) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Run windows through the model as robot policy.

    Returns:
        Features f32[n, t, p, d] of each layer, on the CPU, the tokens of a field of places averaged; and the summary of
        its attention, see ``AttentionSummary``.
    """
    module = policy.module
    transformer, view = module.transformer, next(iter(module.cameras))
    grid, parts = module.sizes[view].grid, dict[str, list[Tensor]]()
    attention = AttentionSummary(transformer)

    def take(name: str, x: Tensor) -> None:
        parts.setdefault(name, []).append(places(x.float(), grid).cpu())

    with layers(transformer, take), attention.listening():
        for observation in _blocks(windows):
            tokens, _, _ = policy.latent(observation)
            take(TOKENS, tokens[f"past_{view}"])
    found = {name: torch.cat(values) for name, values in parts.items()}
    return {TOKENS: found.pop(TOKENS), **found}, attention.result()


def probe(layer: Tensor, windows: Windows) -> dict[str, Any]:
    """Probe one layer.

    Args:
        layer: f32[n, t, p, d].
        windows: They are of.

    Returns:
        By target: its ``group``; ``pooled``, the score of each pooling; and ``map``, the value alone for each frame
        slot and place, [t][p].
    """
    frames, fields = layer.shape[1:3]
    wide = layer.flatten(1)[None]
    slots = layer.mean(dim=2).transpose(0, 1)  # [t, n, d]
    narrow = torch.cat((layer.mean(dim=(1, 2))[None], slots, layer.permute(1, 2, 0, 3).flatten(0, 1)))
    names = [MEAN, *(f"{FRAME} {number}" for number in range(1, frames + 1))]
    found: dict[str, Any] = {}
    both = [held_out(x, windows.targets, windows.episodes) for x in (narrow, wide)]
    for target, one, whole in zip(windows.targets, *both, strict=True):
        pooled = {
            name: score(target, guessed, one.mean, windows.episodes)
            for name, guessed in zip([*names, ALL], [*one.predicted[: len(names)], whole.predicted[0]], strict=True)
        }
        values = [value(target, guessed, one.mean, windows.episodes) for guessed in one.predicted[len(names) :]]
        rows = [values[number * fields : (number + 1) * fields] for number in range(frames)]
        found[target.name] = {"group": target.group, "pooled": pooled, "map": rows}
    return found


def _blocks(windows: Windows) -> Iterator[dict[str, dict[str, Any]]]:
    count = len(windows.episodes)
    for first in range(0, count, BLOCK):
        yield {
            kind: {name: values[first : first + BLOCK] for name, values in entries.items()}
            for kind, entries in windows.observation.items()
        }
