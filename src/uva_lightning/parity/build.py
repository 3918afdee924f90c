"""Our model for a variant of the reference numbers, its weights through the importer's map of names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from uva_lightning.commands.discovery import import_components
from uva_lightning.model.heads.aggregate import Aggregator, ConvFC, ConvOri, TokenConv, TokenFC
from uva_lightning.model.heads.base import ActionHead, Head, VideoHead
from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.model.streams import Prefix, Stream
from uva_lightning.model.tokenizers.linear_patches import LinearPatches
from uva_lightning.model.transformer import EntryFactory, LatentTransformer
from uva_lightning.module import HeadFactory, UVAModule
from uva_lightning.objective import find
from uva_lightning.official.detect import layout_of
from uva_lightning.official.names import Layout, Pair, pairs
from uva_lightning.parity.folder import Variant
from uva_lightning.proprioception import Proprioception
from uva_lightning.types import DataSpec, Tokens

MODES: dict[str, tuple[str, dict[str, Any]]] = {
    "video_model": ("VideoModel", {}),
    "dynamic_model": ("ForwardDynamics", {}),
    "policy_model": ("RobotPolicy", {}),
    "inverse_model": ("InverseDynamics", {"keeps": ["past_wrist"]}),
    "full_dynamic_model": ("PolicyPlanner", {}),
}
"""Official modes and our objectives, with the options that make them the official ones."""
AGGREGATORS: dict[str, type[Aggregator]] = {kind.__name__: kind for kind in (ConvFC, ConvOri, TokenConv, TokenFC)}
VIEWS = {"video": "main", "wrist": "wrist"}
RATE_HZ = 10.0  # the numbers do not depend on it


class Official:
    """A variant as our model.

    Args:
        variant: Description and inputs.
        weights: Official state dict.

    Raises:
        ValueError: The weights are not of one model that we know.
    """

    def __init__(self, variant: Variant, weights: dict[str, Tensor]) -> None:
        import_components()  # objectives are found by name
        self.variant = variant
        layout = layout_of(weights, Path(variant.name))
        self.pairs: list[Pair] = pairs(layout)
        self.module = _module(variant, layout)
        ours = {name: tensor for pair in self.pairs for name, tensor in pair.to_ours(weights[pair.official]).items()}
        self.module.load_state_dict(ours)
        self.module.eval()
        self.objectives = {mode: find(name)(**options) for mode, (name, options) in MODES.items()}

    def tokens(self) -> Tokens:
        """Give the inputs as our tokens."""
        inputs = self.variant.inputs
        values = {"past_video": _tokens(inputs["in/cond"]), "video": _tokens(inputs["in/z"])}
        values["action"] = inputs["in/nactions"]
        later = [value for name, value in _proprio(inputs, later=True)]
        optional: dict[str, Callable[[], Tensor]] = {
            "past_wrist": lambda: _tokens(inputs["in/proprio/second_image_z"]),
            "wrist": lambda: _tokens(inputs["in/proprio/pred_second_image_z"]),
            "past_action": lambda: inputs["in/history_nactions"],
            "proprio": lambda: torch.cat([value for _, value in _proprio(inputs, later=False)], dim=-1),
            "text": lambda: inputs["in/text_latents"][:, None],
            "future_proprio": lambda: torch.cat(later, dim=-1)[
                ..., -cast(Head, self.module.heads["future_proprio"]).channels :
            ],
        }
        known = {*self.module.transformer.streams, *self.module.heads}
        return Tokens({**values, **{name: make() for name, make in optional.items() if name in known}})

    def official(self, ours: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename tensors of ours, such as gradients, to official names."""
        return {pair.official: pair.to_official(ours) for pair in self.pairs}


def _module(variant: Variant, layout: Layout) -> UVAModule:
    sizes, facts = variant.facts["model"], variant.facts
    channels, inputs = facts["heads"], variant.inputs
    streams: dict[str, EntryFactory] = {
        n: partial(Stream, placeholder=None) for n in ("proprio", "past_wrist") if n in layout.fused
    }
    streams |= {"past_video": partial(Stream, placeholder="video")}
    if layout.text:
        streams["text"] = Prefix
    width = sum(value.shape[-1] for _, value in _proprio(inputs, later=False)) if "proprio" in layout.fused else 0
    predicted = channels.get("proprio", 0)
    entries = {"kept": width - predicted, "predicted": predicted}
    entries = {name: size for name, size in entries.items() if size}
    spec = DataSpec(
        cameras=tuple(VIEWS[n] for n in VIEWS if f"past_{n}" in layout.fused),
        image_size=sizes["img_size"],
        action_dim=channels["action"],
        state_dims=entries,
        rate_hz=RATE_HZ,
        state_steps=_proprio(inputs, later=False)[0][1].shape[1] if entries else None,
        past_action="past_action" in layout.fused,
        text_dim=inputs["in/text_latents"].shape[1] if layout.text else 0,
    )
    groups = {"proprio": list(entries)} if entries else {}
    targets = {"future_proprio": ["predicted"]} if predicted else {}
    trunk = partial(
        LatentTransformer,
        width=layout.width,
        heads=sizes["num_heads"],
        encoder_depth=layout.encoder_depth,
        decoder_depth=layout.decoder_depth,
        streams=streams,
        mlp_ratio=sizes["mlp_ratio"],
    )
    return UVAModule(
        spec,
        LinearPatches(sizes["vae_stride"], sizes["vae_embed_dim"]),
        {"policy": find(MODES["policy_model"][0])()},
        {name: _head(name, layout) for name in layout.heads},
        trunk,
        proprioception=Proprioception(groups, targets),
    )


def _head(modality: str, layout: Layout) -> HeadFactory:
    depth, width = layout.heads[modality]
    if modality in VIEWS:
        denoiser = partial(GaussianDiffusion, width=width, depth=depth)
        return partial(VideoHead, denoiser=denoiser, modality=modality)
    denoiser = partial(GaussianDiffusion, width=width, depth=depth, clip=1.0)
    aggregator = AGGREGATORS[layout.aggregators[modality]]
    return partial(ActionHead, denoiser=denoiser, aggregator=aggregator, modality=modality)


def _tokens(latents: Tensor) -> Tensor:
    return latents.flatten(-2).transpose(-1, -2)  # [b, t, c, y, x] -> [b, t, s, c]


def _proprio(inputs: Mapping[str, Tensor], later: bool) -> list[tuple[str, Tensor]]:
    names = [name for name in inputs if name.startswith("in/proprio/") and "second_image" not in name]
    return [(name, inputs[name]) for name in names if name.endswith("_pred") == later]
