"""KL-16, the autoencoder of MAR and UVA: diffusers' modules, and the map to the names of the official file.

Source: the kl-f16 autoencoder of latent diffusion (Rombach et al. 2022) as trained for MAR (Li et al. 2024): 16 x 16
pixels become a token of 16 channels. 312 tensors, 66,456,019 parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor

from uva_lightning.model.weights import check_weights

SCALE = 0.2325
"""Factor that gives KL-16's latents about unit variance."""

CHANNELS = 16
_WIDTHS = (128, 128, 256, 256, 512)
_TRAINING_ONLY = "loss."
_INSTEAD = "give the autoencoder that UVA uses, kl16.ckpt of MAR"

# Names of diffusers -> official names, applied in this order.
_RULES = (
    (r"^decoder\.up_blocks\.(\d)", lambda found: f"decoder.up.{len(_WIDTHS) - 1 - int(found[1])}"),  # finest is 0
    (r"^encoder\.down_blocks\.", "encoder.down."),
    (r"\.mid_block\.resnets\.(\d)", lambda found: f".mid.block_{int(found[1]) + 1}"),
    (r"\.mid_block\.attentions\.(\d)", lambda found: f".mid.attn_{int(found[1]) + 1}"),
    (r"\.resnets\.", ".block."),
    (r"\.attentions\.", ".attn."),
    (r"\.(down|up)samplers\.0\.", r".\1sample."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.group_norm\.", ".norm."),
    (r"\.to_([qkv])\.", r".\1."),
    (r"\.to_out\.0\.", ".proj_out."),
)
_ATTENTION = re.compile(r"\.attn(\.\d|_\d)\.(q|k|v|proj_out)\.weight$")


def build_kl16() -> AutoencoderKL:
    """Build KL-16 with random weights.

    As in the official file the coarsest level of the encoder has attention, besides both middles.
    """
    levels = len(_WIDTHS)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * (levels - 1) + ("AttnDownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=_WIDTHS,
        layers_per_block=2,
        latent_channels=CHANNELS,
        norm_num_groups=32,
        sample_size=256,
        scaling_factor=SCALE,
    )


def official_shapes() -> dict[str, tuple[int, ...]]:
    """Give name and shape of the 312 tensors of the official file."""
    return {official: _official_shape(official, shape) for official, (_, shape) in _table().items()}


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the official file for ``build_kl16().load_state_dict``; no number changes.

    Args:
        state: Tensors by official name: the entry ``model`` of ``kl16.ckpt``. What was needed for training it only,
            under ``loss.``, is left out.

    Returns:
        Tensors by diffusers' name; attention weights are [512, 512] instead of [512, 512, 1, 1]. They share memory
        with ``state``.

    Raises:
        ValueError: A tensor is missing, unknown or of another shape: this is another autoencoder.
    """
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(_TRAINING_ONLY)}
    check_weights(kept, official_shapes(), "KL-16 under its official names", _INSTEAD)
    return {ours: kept[official].reshape(shape) for official, (ours, shape) in _table().items()}


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo ``from_official``, bit by bit.

    Args:
        state: Tensors by diffusers' name.

    Returns:
        Tensors by official name.

    Raises:
        ValueError: A tensor is missing, unknown or of another shape.
    """
    check_weights(state, dict(_table().values()), "KL-16 under diffusers' names", _INSTEAD)
    shapes = official_shapes()
    return {official: state[ours].reshape(shapes[official]) for official, (ours, _) in _table().items()}


@cache
def _table() -> dict[str, tuple[str, tuple[int, ...]]]:
    """Official name -> diffusers' name and shape."""
    with torch.device("meta"):
        state = build_kl16().state_dict()
    return {_official_name(name): (name, tuple(tensor.shape)) for name, tensor in state.items()}


def _official_name(name: str) -> str:
    for pattern, replacement in _RULES:
        name = re.sub(pattern, replacement, name)
    return name


def _official_shape(official: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The official attention is made of 1 x 1 convolutions, diffusers' of linear layers."""
    return (*shape, 1, 1) if _ATTENTION.search(official) else shape
