"""Which models of ours the official code can take: the same parts, and each works the same way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from uva_lightning.action_space import ActionSpace
from uva_lightning.model.heads.base import ActionHead, VideoHead
from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.model.streams import Entry, Prefix
from uva_lightning.model.tokenizers.kl_vae import KLVAE
from uva_lightning.model.transformer import Block
from uva_lightning.module import UVAModule
from uva_lightning.official.detect import depth
from uva_lightning.official.names import AGGREGATORS, HEADS, STREAMS, Layout

TEXT_STREAM = "text"


def layout_of_ours(module: UVAModule, path: Path) -> Layout:
    """Read parts and sizes of a model of ours.

    Raises:
        ValueError: A modality or an aggregator is none of the official code's.
    """
    streams, heads = module.transformer.streams, module.heads
    known = {*STREAMS, TEXT_STREAM}
    if unknown := [*(name for name in streams if name not in known), *(name for name in heads if name not in HEADS)]:
        raise ValueError(
            f"{path}: '{unknown[0]}' has no counterpart in the official code, which knows {', '.join(STREAMS)} and "
            "text; only models of the official layout can be exported."
        )
    state = module.state_dict()
    return Layout(
        width=module.transformer.width,
        encoder_depth=depth(state, "transformer.encoder"),
        decoder_depth=depth(state, "transformer.decoder"),
        fused=tuple(name for name in STREAMS if name in streams),
        text=TEXT_STREAM in streams,
        heads={name: _denoiser(state, f"heads.{name}.denoiser.net") for name in heads},
        aggregators={name: _aggregator(head) for name, head in heads.items() if isinstance(head, ActionHead)},
    )


def _denoiser(state: Mapping[str, Any], prefix: str) -> tuple[int, int]:
    return depth(state, f"{prefix}.blocks"), len(state[f"{prefix}.input.bias"])


def _aggregator(head: ActionHead) -> str:
    name = type(head.aggregate).__name__
    if name not in AGGREGATORS:
        raise ValueError(f"The aggregator {name} is not in the official code, which has {', '.join(AGGREGATORS)}.")
    return name


def autoencoder_of(module: UVAModule, path: Path) -> Path:
    """Give the autoencoder's folder of a model that computes what the official code computes.

    Raises:
        ValueError: A part has the official names, but works differently.
    """
    tokenizer = module.tokenizer
    odd = [f"stream {name}" for name, entry in module.transformer.streams.items() if not _plain(name, entry)]
    odd += [f"head {name}" for name, head in module.heads.items() if not _usual(head)]
    if not isinstance(module.actions, ActionSpace) or module.actions.relative_to or module.actions.place is not None:
        odd.append("action space")
    if any(isinstance(layer, Block) and type(layer.mlp[1]) is not nn.GELU for layer in module.transformer.modules()):
        odd.append("activation")
    if odd or not isinstance(tokenizer, KLVAE):
        what = odd[0] if odd else f"tokenizer {type(tokenizer).__name__}"
        raise ValueError(
            f"{path}: the {what} works differently from the official code's, expected plain streams, GaussianDiffusion "
            "heads, GELU, actions as they are and the KLVAE; only such models can be exported."
        )
    return tokenizer.path


def _plain(name: str, entry: nn.Module) -> bool:
    linear = isinstance(entry, Entry) and len(entry.project) == 2 and isinstance(entry.project[0], nn.Identity)
    return linear and isinstance(entry, Prefix) == (name == TEXT_STREAM)


def _usual(head: nn.Module) -> bool:
    """Whether a head denoises token by token and action by action, as the official code."""
    if not isinstance(head, VideoHead | ActionHead) or not isinstance(head.denoiser, GaussianDiffusion):
        return False
    residual = isinstance(head, VideoHead) and head.residual
    return head.denoiser.net.input.in_features == head.channels and not residual
