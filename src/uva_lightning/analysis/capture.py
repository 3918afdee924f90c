"""Listen to a transformer while it works: what comes out of each layer, and where each head looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from uva_lightning.model.streams import Prefix
from uva_lightning.model.transformer import Attention, LatentTransformer

INPUT, LATENT = "input", "Z"
"""Names of the sum of all streams with its positions, and of the joint latent."""
MAP_SIDE = 4
"""Most rows, and columns, of a map of places; tokens of larger grids are averaged."""
_PART = 8  # samples whose attention is in memory at a time


@contextmanager
def layers(transformer: LatentTransformer, take: Callable[[str, Tensor], object]) -> Iterator[None]:
    """Hand on what comes out of each layer, by its name: [b, t, s, d], without the tokens of prefixes.

    Args:
        transformer: Called within the block.
        take: Gets ``input``, ``encoder 1`` ..., ``decoder 1`` ... and ``Z`` in this order.
    """

    def on(name: str) -> Callable[..., None]:
        def hook(module: Any, given: Any, out: Tensor) -> None:
            take(name, _body(transformer, out))

        return hook

    def before(module: Any, given: tuple[Tensor]) -> None:
        take(INPUT, _body(transformer, given[0]))

    handles = [transformer.encoder_entry.register_forward_pre_hook(before)]
    for part, blocks in (("encoder", transformer.encoder), ("decoder", transformer.decoder)):
        handles += [block.register_forward_hook(on(f"{part} {number}")) for number, block in enumerate(blocks, 1)]
    handles.append(transformer.register_forward_hook(on(LATENT)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def fields(grid: tuple[int, int]) -> tuple[int, int]:
    """Give rows and columns of equal fields that a grid is cut into, at most 4 x 4."""
    rows, columns = (max(side for side in range(1, MAP_SIDE + 1) if whole % side == 0) for whole in grid)
    return rows, columns


def places(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average the tokens of equal fields of a frame: [b, t, s, d] to [b, t, p, d], see ``fields``."""
    rows, columns = fields(grid)
    x = x.unflatten(2, (rows, grid[0] // rows, columns, grid[1] // columns)).mean(dim=(3, 5))
    return x.flatten(2, 3)


def groups(transformer: LatentTransformer) -> tuple[list[str], Tensor]:
    """Name groups of tokens: the prefixes, then the frame slots; and give the group of each token, i64[n].

    A token of a slot holds a place of a past frame and of a future one, whose features UVA adds up: past and future
    are not different tokens.
    """
    fronts = {name: one.tokens for name, one in transformer.streams.items() if isinstance(one, Prefix)}
    sizes = [*fronts.values(), *[transformer.encoder_positions.spatial.shape[2]] * transformer.frames]
    names = [*fronts, *(f"frame {number}" for number in range(1, transformer.frames + 1))]
    return names, torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


class AttentionSummary:
    """Sum up attention weights over samples, by layer and head; computed again from each layer's queries and keys.

    Args:
        transformer: What is listened to.
    """

    def __init__(self, transformer: LatentTransformer) -> None:
        self.transformer = transformer
        self.names, self._group = groups(transformer)
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}
        self._samples = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take part in what the transformer does within the block."""
        handles = []
        for part, blocks in (("encoder", self.transformer.encoder), ("decoder", self.transformer.decoder)):
            for number, block in enumerate(blocks, 1):
                hook = self._hook(f"{part} {number}", number == 1 and part == "encoder")
                handles.append(block.attn.register_forward_pre_hook(hook))  # type: ignore[union-attr]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def result(self) -> dict[str, Any]:
        """Give, per layer and head, ``entropy`` (mean over queries, 1 where all tokens count alike) and ``shares``.

        ``shares[head][i][j]`` is the part of the attention of tokens of group ``i`` that goes to group ``j``; each row
        sums to 1. ``same``, ``earlier``, ``later`` and ``prefix`` sum that up for the tokens of frames: what goes to
        their own frame slot, to those before, to those after, and to prefixes such as the instruction.
        """
        tokens = len(self._group)
        found = {}
        for name, (entropy, shares) in self._sums.items():
            share = shares / self._samples
            found[name] = {
                "entropy": (entropy / (self._samples * torch.log(torch.tensor(float(tokens))))).tolist(),
                "shares": share.tolist(),
                **self._directions(share),
            }
        return {"groups": self.names, "layers": found}

    def _directions(self, share: Tensor) -> dict[str, list[float]]:
        frames = self.transformer.frames
        front = len(self.names) - frames
        between = share[:, front:, front:]  # [h, t, t]
        sums = {
            "same": between.diagonal(dim1=1, dim2=2).sum(dim=1),
            "earlier": between.tril(-1).sum(dim=(1, 2)),
            "later": between.triu(1).sum(dim=(1, 2)),
            "prefix": share[:, front:, :front].sum(dim=(1, 2)),
        }
        return {name: (value / frames).tolist() for name, value in sums.items()}

    def _hook(self, name: str, first: bool) -> Callable[[Attention, tuple[Tensor]], None]:
        def hook(attention: Attention, given: tuple[Tensor]) -> None:
            self._samples += len(given[0]) * first
            for x in given[0].split(_PART):
                q, k, _ = attention.split(x)
                self._add(name, attention.weights(q, k).double())

        return hook

    def _add(self, name: str, weights: Tensor) -> None:
        """Add [b, h, n, n]."""
        group = torch.nn.functional.one_hot(self._group).double().to(weights.device)  # [n, g]
        shares = torch.einsum("bhqk,qi,kj->hij", weights, group / group.sum(dim=0), group)
        entropy = torch.special.entr(weights).sum(dim=-1).mean(dim=-1).sum(dim=0)
        before = self._sums.get(name, (torch.zeros_like(entropy), torch.zeros_like(shares)))
        self._sums[name] = before[0] + entropy, before[1] + shares


def _body(transformer: LatentTransformer, x: Tensor) -> Tensor:
    """Leave the tokens of prefixes out: [b, n, d] or [b, t, s, d] to [b, t, s, d]."""
    if x.ndim == 4:
        return x
    front = x.shape[1] - transformer.encoder_positions.spatial.shape[2] * transformer.frames
    return x[:, front:].unflatten(1, (transformer.frames, -1))
