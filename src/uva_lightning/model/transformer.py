"""The shared latent transformer: bidirectional encoder and decoder over the fused tokens (UVA Figure 2; MAR)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from uva_lightning.draws import Draws
from uva_lightning.model.streams import Entry, Prefix, Shape, Stream
from uva_lightning.types import Tokens, Visible

EntryFactory = Callable[[Shape], Entry]

NORM_EPS = 1e-6
SCORE_BYTES = 4 * 2**20
"""Attention scores in memory at a time on a CPU: no more than its caches hold, and the pages are used again."""


class Attention(nn.Module):
    """Bidirectional multi-head self-attention.

    On CPU in bfloat16 it is written out, as torch's fused kernel takes 1.6 times as long there (two cores; not measured
    on many), and its backward pass 3 to 7 times. The scores are then rounded to bfloat16: ``docs/inference.md`` says
    what that does.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map [b, n, d] to [b, n, d]."""
        q, k, v = self.split(x)
        drop = self.dropout if self.training else 0.0
        if not (q.device.type == "cpu" and q.dtype == torch.bfloat16):
            out = F.scaled_dot_product_attention(q, k, v, dropout_p=drop)
        elif torch.is_grad_enabled() or drop:
            out = F.dropout(self.weights(q, k), drop) @ v
        else:
            out = _by_parts(q, k, v)
        return self.proj_drop(self.proj(rearrange(out, "b h n e -> b n (h e)")))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give queries, keys and values of [b, n, d], each [b, h, n, e]."""
        q, k, v = rearrange(self.qkv(x), "b n (three h e) -> three b h n e", three=3, h=self.heads)
        return q, k, v

    @staticmethod
    def weights(q: Tensor, k: Tensor) -> Tensor:
        """Give what each query takes of each token, [b, h, n, n], 1 in sum; the fused kernel never has it in memory."""
        return ((q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])).softmax(dim=-1)


def _by_parts(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend with the scores of a few heads in memory at a time; takes and gives [b, h, n, e]."""
    scale, tokens, made = 1 / math.sqrt(q.shape[-1]), q.shape[-2], []
    size = max(1, SCORE_BYTES // (tokens * tokens * q.element_size()))
    for queries, keys, values in zip(*(x.flatten(0, 1).split(size) for x in (q, k, v)), strict=True):
        ignored = q.new_empty(()).expand(len(queries), tokens, tokens)
        scores = torch.baddbmm(ignored, queries, keys.mT, beta=0, alpha=scale)
        made.append(torch.bmm(scores.softmax(dim=-1), values))
    return torch.cat(made).view(q.shape)


class Block(nn.Module):
    """Pre-norm transformer block, as ViT."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float, activation: type[nn.Module]) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), activation(), nn.Dropout(dropout), nn.Linear(hidden, width), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [b, n, d] to [b, n, d]."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Positions(nn.Module):
    """Learned temporal plus spatial position table."""

    def __init__(self, frames: int, places: int, width: int) -> None:
        super().__init__()
        self.temporal = nn.Parameter(torch.randn(1, frames, 1, width) * 0.02)
        self.spatial = nn.Parameter(torch.randn(1, 1, places, width) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Add the table to [b, t * s, d], in its dtype: a float32 table would silently promote all that follows."""
        return x + (self.temporal + self.spatial).flatten(1, 2).to(x.dtype)


class LatentTransformer(nn.Module):
    """Turn the visible tokens into the joint video-action latent.

    Args:
        shapes: Sizes of every modality that enters; filled in by the model.
        width: Width ``d``.
        heads: Attention heads.
        encoder_depth: Blocks of the encoder.
        decoder_depth: Blocks of the decoder.
        streams: How modalities enter; those not named enter by a plain ``Stream``.
        mlp_ratio: Hidden width of a block's MLP over ``d``.
        dropout: On attention weights, projection and MLP.
        activation: Of the MLP.
        checkpoint_blocks: Keep only the input of each block for the backward pass and compute the rest again (Chen
            2016): the same gradients to the last bit, for about a third more work and a fraction of the memory.
    """

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        width: int,
        heads: int,
        encoder_depth: int,
        decoder_depth: int,
        streams: dict[str, EntryFactory] | None = None,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        activation: type[nn.Module] = nn.GELU,
        checkpoint_blocks: bool = False,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(
                f"width is {width} with {heads} heads, expected a multiple; set them in model.transformer.init_args."
            )
        if unknown := set(streams or {}) - set(shapes):
            raise ValueError(f"streams names {sorted(unknown)}, but the data has {sorted(shapes)}; rename or remove.")
        first = next(iter(shapes.values()))
        self.width, self.frames, self.checkpoint_blocks = width, first.frames, checkpoint_blocks

        def blocks(depth: int) -> nn.Sequential:
            return nn.Sequential(*(Block(width, heads, mlp_ratio, dropout, activation) for _ in range(depth)))

        entries = {n: (streams or {}).get(n, Stream)(replace(shape, width=width)) for n, shape in shapes.items()}
        self.streams = nn.ModuleDict(entries)
        self.fuse_bias = nn.Parameter(torch.zeros(width))
        self.encoder_positions = Positions(first.frames, first.places, width)
        self.encoder_entry = nn.LayerNorm(width, eps=NORM_EPS)
        self.encoder = blocks(encoder_depth)
        self.encoder_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(width, width)
        self.decoder_positions = Positions(first.frames, first.places, width)
        self.decoder = blocks(decoder_depth)
        self.decoder_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.latent_positions = Positions(first.frames, first.places, width)
        self.apply(_initialise)
        _share_placeholders(entries)

    def forward(self, tokens: Tokens, seen: Visible) -> Tensor:
        """Encode the visible tokens.

        Args:
            tokens: All tokens; hidden ones are replaced by placeholders and cannot leak.
            seen: What is visible.

        Returns:
            Z, [b, t, s, d].
        """
        return self.decode(self.encode(tokens, seen))

    def dropped(self, seen: Visible, draws: Draws) -> Visible:
        """Hide more, at random, in training: each visible step of a stream with the probability that it is dropped.

        Args:
            seen: What objectives show.
            draws: Of the samples.
        """
        shown = dict(seen)
        for name, entry in {**self._prefixes, **self.fused}.items():
            if self.training and entry.drop:
                kept = draws.uniform(f"drop {name}", *seen[name].shape[1:]) >= entry.drop
                shown[name] = seen[name] & kept.to(seen[name].device)
        return Visible(shown)

    def encode(self, tokens: Tokens, seen: Visible, shares: Mapping[str, Tensor] | None = None) -> Tensor:
        """Fuse and encode: [b, n + t * s, d], the ``n`` tokens of the prefixes first.

        Args:
            tokens: See ``forward``.
            seen: See ``forward``.
            shares: What streams give, [b, t * s, d] by name, where it is known already.
        """
        known: Mapping[str, Any] = shares or {}
        fused = sum(known[n] if n in known else own(tokens[n], seen[n]) for n, own in self.fused.items())
        x = [prefix(tokens[n], seen[n]) + prefix.encoder_positions for n, prefix in self._prefixes.items()]
        x.append(self.encoder_positions(fused + self.fuse_bias.to(fused.dtype)))
        return self.encoder_norm(self._through(self.encoder, self.encoder_entry(_joined(x))))

    def decode(self, x: Tensor) -> Tensor:
        """Decode what ``encode`` gave: Z, [b, t, s, d]; the prefixes' tokens are dropped."""
        x, front = self.decoder_embed(x), sum(prefix.tokens for prefix in self._prefixes.values())
        body = self.decoder_positions(x[:, front:])
        if front:
            positions = torch.cat([prefix.decoder_positions for prefix in self._prefixes.values()], dim=1)
            body = torch.cat((x[:, :front] + positions.to(x.dtype), body), dim=1)
        x = self.decoder_norm(self._through(self.decoder, body))[:, front:]
        return rearrange(self.latent_positions(x), "b (t s) d -> b t s d", t=self.frames)

    def _through(self, blocks: nn.Sequential, x: Tensor) -> Tensor:
        if not self.checkpoint_blocks or not torch.is_grad_enabled():
            return blocks(x)
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x

    @property
    def fused(self) -> dict[str, Stream]:
        """Streams that are added to every token."""
        return {name: entry for name, entry in self.streams.items() if isinstance(entry, Stream)}

    @property
    def _prefixes(self) -> dict[str, Prefix]:
        return {name: entry for name, entry in self.streams.items() if isinstance(entry, Prefix)}


def _joined(parts: list[Tensor]) -> Tensor:
    dtype = parts[-1].dtype  # float32 position tables would silently promote all that follows
    return torch.cat([part.to(dtype) for part in parts], dim=1) if len(parts) > 1 else parts[0]


def _share_placeholders(entries: Mapping[str, Entry]) -> None:
    """Let streams use the placeholder of the stream they name."""
    for name, entry in entries.items():
        if entry.borrows is not None:
            owner = entries.get(entry.borrows)
            if owner is None or owner.placeholder is None or owner.borrows is not None:
                raise ValueError(
                    f"Stream '{name}' borrows the placeholder of '{entry.borrows}', expected 'own', null or one of "
                    f"{sorted(n for n, e in entries.items() if e.placeholder is not None and e.borrows is None)}."
                )
            entry.placeholder = owner.placeholder


def _initialise(module: nn.Module) -> None:
    """Xavier for linear layers, as MAR; a stream that starts at zero stays at zero."""
    if isinstance(module, nn.Linear) and module.weight.any():
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
