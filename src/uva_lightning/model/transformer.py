"""The shared latent transformer: bidirectional encoder and decoder over the fused tokens (UVA Figure 2; MAR)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from uva_lightning.model.streams import Shape, Stream
from uva_lightning.types import Tokens, Visible

NORM_EPS = 1e-6


class Attention(nn.Module):
    """Bidirectional multi-head self-attention.

    On CPU in half precision with gradients it is written out: there the backward pass of torch's fused kernel is 3 to
    7 times slower. The numbers are the same.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map [b, n, d] to [b, n, d]."""
        q, k, v = rearrange(self.qkv(x), "b n (three h e) -> three b h n e", three=3, h=self.heads)
        drop = self.dropout if self.training else 0.0
        if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
            scores = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
            out = F.dropout(scores.softmax(dim=-1), drop) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, dropout_p=drop)
        return self.proj_drop(self.proj(rearrange(out, "b h n e -> b n (h e)")))


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
        shape: Sizes; ``channels`` and ``steps`` do not matter here.
        streams: One per modality.
        heads: Attention heads.
        encoder_depth: Blocks of the encoder.
        decoder_depth: Blocks of the decoder.
        mlp_ratio: Hidden width of a block's MLP over ``d``.
        dropout: On attention weights, projection and MLP.
        activation: Of the MLP.
    """

    def __init__(
        self,
        shape: Shape,
        streams: Mapping[str, Stream],
        heads: int,
        encoder_depth: int,
        decoder_depth: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        activation: type[nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        width = shape.width
        if width % heads:
            raise ValueError(
                f"width is {width} with {heads} heads, expected a multiple; set model.width or model.heads."
            )
        self.shape = shape

        def blocks(depth: int) -> nn.Sequential:
            return nn.Sequential(*(Block(width, heads, mlp_ratio, dropout, activation) for _ in range(depth)))

        self.streams = nn.ModuleDict(streams)
        self.fuse_bias = nn.Parameter(torch.zeros(width))
        self.encoder_positions = Positions(shape.frames, shape.places, width)
        self.encoder_entry = nn.LayerNorm(width, eps=NORM_EPS)
        self.encoder = blocks(encoder_depth)
        self.encoder_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.decoder_embed = nn.Linear(width, width)
        self.decoder_positions = Positions(shape.frames, shape.places, width)
        self.decoder = blocks(decoder_depth)
        self.decoder_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.latent_positions = Positions(shape.frames, shape.places, width)
        self.apply(_initialise)

    def forward(self, tokens: Tokens, seen: Visible) -> Tensor:
        """Encode the visible tokens.

        Args:
            tokens: All tokens; hidden ones are replaced by placeholders and cannot leak.
            seen: What is visible.

        Returns:
            Z, [b, t, s, d].
        """
        fused = sum(stream(tokens[name], seen[name]) for name, stream in self.streams.items())
        x = self.encoder_entry(self.encoder_positions(fused + self.fuse_bias.to(fused.dtype)))
        x = self.encoder_norm(self.encoder(x))
        x = self.decoder_norm(self.decoder(self.decoder_positions(self.decoder_embed(x))))
        return rearrange(self.latent_positions(x), "b (t s) d -> b t s d", t=self.shape.frames)


def _initialise(module: nn.Module) -> None:
    """Xavier for linear layers, as MAR; a stream that starts at zero stays at zero."""
    if isinstance(module, nn.Linear) and module.weight.any():
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
