"""How the official code calls its tensors and how we do: tables, and the reversible pairs that follow from a layout.

Official names are those inside ``model.``; ours are those of ``UVAModule.state_dict()``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

STREAMS: dict[str, tuple[str, str | None]] = {
    "video": ("z_proj", "fake_latent_x"),
    "wrist": ("z_proj_wrist", "fake_latent_wrist_x"),
    "past_video": ("z_proj_cond", "fake_latent_x"),
    "past_action": ("history_action_proj_cond", "fake_latent_history_action"),
    "action": ("action_proj_cond", "fake_action_latent"),
    "past_wrist": ("proprioception_image_proj_cond", None),
    "proprio": ("proprioception_proj_cond", None),
}
"""Projection and placeholder of each modality, in the order of the fusion layer's column blocks."""

ALWAYS = ("video", "past_video", "action")
FUSION = "proj_cond_x_layer"
TEXT = {
    "project.1.weight": "text_proj_cond.weight",
    "project.1.bias": "text_proj_cond.bias",
    "placeholder": "fake_latent",
    "encoder_positions": "text_pos_embed",
    "decoder_positions": "decoder_text_pos_embed",
}
TABLES = {
    "encoder_positions": ("temporal_pos_embed", "spatial_pos_embed"),
    "decoder_positions": ("decoder_temporal_pos_embed", "decoder_spatial_pos_embed"),
    "latent_positions": ("diffusion_temporal_embed", "diffusion_spatial_embed"),
}
TRUNK = {
    "encoder_entry": "z_proj_ln",
    "encoder_norm": "encoder_norm",
    "decoder_embed": "decoder_embed",
    "decoder_norm": "decoder_norm",
}
STACKS = {"encoder": "encoder_blocks", "decoder": "decoder_blocks"}
BLOCK = {
    "norm1": "norm1",
    "attn.qkv": "attn.qkv",
    "attn.proj": "attn.proj",
    "norm2": "norm2",
    "mlp.0": "mlp.fc1",
    "mlp.3": "mlp.fc2",
}
HEADS = {"video": "diffloss", "wrist": "diffloss_wrist", "action": "diffactloss", "future_proprio": "diffproploss"}
NETWORK = {
    "input": "input_proj",
    "time.mlp.0": "time_embed.mlp.0",
    "time.mlp.2": "time_embed.mlp.2",
    "condition": "cond_embed",
    "final_modulation": "final_layer.adaLN_modulation.1",
    "output": "final_layer.linear",
}
RESIDUAL = {"norm": "in_ln", "mlp.0": "mlp.0", "mlp.2": "mlp.2", "modulation": "adaLN_modulation.1"}
AGGREGATORS = {
    "ConvFC": ("conv.0", "fc.0", "fc.2", "interpolate", "refine.0", "refine.2"),
    "ConvOri": ("conv_transpose3d",),
    "TokenConv": ("conv.0", "conv.2"),
    "TokenFC": ("fc.0", "fc.2"),
}
"""Layers of each aggregator, called the same in both; the official names are conv_fc, conv_ori, conv2 and fc2."""

Kind = Literal["renamed", "reshaped", "split", "shared"]


@dataclass(frozen=True)
class Layout:
    """What an official model consists of.

    Args:
        width: Width of the transformer.
        encoder_depth: Blocks of the encoder.
        decoder_depth: Blocks of the decoder.
        fused: Modalities that are added to every token, in the order of the fusion layer's column blocks.
        text: Whether an instruction stands in front of the sequence.
        heads: Depth and width of the denoiser of each head, by modality.
        aggregators: Class of the aggregator of each head that has one.
    """

    width: int
    encoder_depth: int
    decoder_depth: int
    fused: tuple[str, ...]
    text: bool
    heads: Mapping[str, tuple[int, int]]
    aggregators: Mapping[str, str]


@dataclass(frozen=True)
class Pair:
    """One official tensor and ours that hold its numbers.

    Args:
        official: Official name.
        ours: Our names: one, or one per column block, or all that share it.
        kind: How the two differ.
        axis: Of a position table, the axis of length 1 that we have and the official code has not.
    """

    official: str
    ours: tuple[str, ...]
    kind: Kind = "renamed"
    axis: int = 0

    def to_ours(self, tensor: Tensor) -> dict[str, Tensor]:
        """Give our tensors; each owns its memory where the official one is cut or given twice.

        Raises:
            ValueError: The fusion layer does not divide into blocks.
        """
        if self.kind == "split":
            if tensor.ndim != 2 or tensor.shape[1] % len(self.ours):
                raise ValueError(
                    f"'{self.official}' has shape {list(tensor.shape)}, expected {len(self.ours)} column blocks of "
                    "equal width; this is another model."
                )
            blocks = tensor.chunk(len(self.ours), dim=1)
            return {name: block.clone() for name, block in zip(self.ours, blocks, strict=True)}
        if self.kind == "reshaped":
            return {self.ours[0]: tensor.unsqueeze(self.axis)}
        return {name: tensor.clone() if number else tensor for number, name in enumerate(self.ours)}

    def to_official(self, state: Mapping[str, Tensor]) -> Tensor:
        """Undo ``to_ours``, bit by bit.

        Raises:
            ValueError: Tensors that the official code shares differ.
        """
        parts = [state[name] for name in self.ours]
        if self.kind == "split":
            return torch.cat(parts, dim=1)
        if self.kind == "reshaped":
            return parts[0].squeeze(self.axis)
        if any(not part.equal(parts[0]) for part in parts[1:]):
            raise ValueError(
                f"{' and '.join(self.ours)} differ, expected equal numbers: the official code has one tensor for both, "
                f"'{self.official}'. Train with the stream option placeholder: {self.ours[0].split('.')[2]}."
            )
        return parts[0]


def pairs(layout: Layout) -> list[Pair]:
    """Give all tensors of a model."""
    return [*_stream_pairs(layout), *_trunk_pairs(layout), *_head_pairs(layout)]


def _stream_pairs(layout: Layout) -> Iterator[Pair]:
    placeholders: dict[str, list[str]] = {}
    for modality in layout.fused:
        projection, placeholder = STREAMS[modality]
        for kind in ("weight", "bias"):
            yield Pair(f"{projection}.{kind}", (f"transformer.streams.{modality}.project.1.{kind}",))
        if placeholder is not None:
            placeholders.setdefault(placeholder, []).append(f"transformer.streams.{modality}.placeholder")
    for official, ours in placeholders.items():
        yield Pair(official, tuple(ours), "shared" if len(ours) > 1 else "renamed")
    blocks = tuple(f"transformer.streams.{modality}.fuse.weight" for modality in layout.fused)
    yield Pair(f"{FUSION}.weight", blocks, "split")
    yield Pair(f"{FUSION}.bias", ("transformer.fuse_bias",))
    if layout.text:
        for own, official in TEXT.items():
            yield Pair(official, (f"transformer.streams.text.{own}",))


def _trunk_pairs(layout: Layout) -> Iterator[Pair]:
    for own, (temporal, spatial) in TABLES.items():
        yield Pair(temporal, (f"transformer.{own}.temporal",), "reshaped", axis=2)  # [1, t, d] -> [1, t, 1, d]
        yield Pair(spatial, (f"transformer.{own}.spatial",), "reshaped", axis=1)  # [1, s, d] -> [1, 1, s, d]
    layers = dict(TRUNK)
    for stack, depth in (("encoder", layout.encoder_depth), ("decoder", layout.decoder_depth)):
        for index in range(depth):
            layers |= {f"{stack}.{index}.{own}": f"{STACKS[stack]}.{index}.{name}" for own, name in BLOCK.items()}
    for own, official in layers.items():
        for kind in ("weight", "bias"):
            yield Pair(f"{official}.{kind}", (f"transformer.{own}.{kind}",))


def _head_pairs(layout: Layout) -> Iterator[Pair]:
    for modality, (depth, _) in layout.heads.items():
        layers = {f"denoiser.net.{own}": f"net.{name}" for own, name in NETWORK.items()}
        for index in range(depth):
            layers |= {
                f"denoiser.net.blocks.{index}.{own}": f"net.res_blocks.{index}.{name}" for own, name in RESIDUAL.items()
            }
        if modality in layout.aggregators:
            layers |= {f"aggregate.{name}": name for name in AGGREGATORS[layout.aggregators[modality]]}
        for own, official in layers.items():
            for kind in ("weight", "bias"):
                yield Pair(f"{HEADS[modality]}.{official}.{kind}", (f"heads.{modality}.{own}.{kind}",))
