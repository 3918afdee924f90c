"""The configuration of ``uva fit`` that builds an official model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from uva_lightning.official.names import HEADS, Layout
from uva_lightning.official.variants import Variant
from uva_lightning.types import DataSpec

Config = dict[str, Any]

STRIDE = 16
"""Side in pixels that one token of the autoencoder covers."""

HORIZON = 16
TEXT_WIDTH = 512
FRAMES, PLACES = "temporal_pos_embed", "spatial_pos_embed"
OBJECTIVES = {
    "policy": "RobotPolicy",
    "video": "VideoModel",
    "forward": "ForwardDynamics",
    "inverse": "InverseDynamics",
    "joint": "PolicyPlanner",
}
PREDICTS_VIDEO = ("video", "forward", "joint")


@dataclass(frozen=True)
class Sizes:
    """Widths that the tensors tell and the layout does not.

    Args:
        frames: Frames of the history, and as many of the future.
        places: Tokens of a frame.
        action: Numbers of an action.
        text: Numbers of an instruction's embedding.
        state: Numbers of the proprioception.
        predicted: Numbers of the predicted proprioception.
    """

    frames: int
    places: int
    action: int
    text: int = 0
    state: int = 0
    predicted: int = 0

    @classmethod
    def starting(cls, variant: Variant) -> Sizes:
        """Give those of a model that starts from MAR, whose own tables are left behind."""
        return cls(frames=4, places=256, action=variant.action_dim, text=TEXT_WIDTH if variant.text else 0)

    @classmethod
    def of(cls, model: Mapping[str, Tensor]) -> Sizes:
        """Read them from the official tensors, by the names inside ``model.``."""

        def width(layer: str) -> int:
            return model[f"{layer}.weight"].shape[-1] if f"{layer}.weight" in model else 0

        return cls(
            frames=model[FRAMES].shape[1],
            places=model[PLACES].shape[1],
            action=width("action_proj_cond"),
            text=width("text_proj_cond"),
            state=width("proprioception_proj_cond"),
            predicted=width(f"{HEADS['future_proprio']}.net.input_proj"),
        )


def data_spec(variant: Variant, layout: Layout, sizes: Sizes, state_steps: int | None) -> DataSpec:
    """Give the facts of the data.

    Args:
        variant: What the tensors cannot tell.
        layout: Parts of the model.
        sizes: Widths.
        state_steps: Steps at which proprioception is read; the variant's if not given.

    Raises:
        ValueError: A width is not the variant's.
    """
    states = dict(variant.states) if "proprio" in layout.fused else {}
    predicted = sum(variant.states[entry] for entry in variant.predicts) if "future_proprio" in layout.heads else 0
    found = {"action": sizes.action, "proprioception": sizes.state * bool(states), "predicted": sizes.predicted}
    expected = {"action": variant.action_dim, "proprioception": sum(states.values()), "predicted": predicted}
    if wrong := [name for name in found if found[name] != expected[name]]:
        raise ValueError(
            f"The {wrong[0]} is {found[wrong[0]]} numbers wide, expected {expected[wrong[0]]}; these are the weights "
            "of another variant."
        )
    wrist = {"wrist", "past_wrist"} & set(layout.fused)
    return DataSpec(
        cameras=tuple(variant.cameras)[: 2 if wrist else 1],
        image_size=variant.image_size,
        action_dim=sizes.action,
        state_dims=states,
        rate_hz=variant.rate_hz,
        horizon=HORIZON,
        frames=sizes.frames,
        state_steps=(state_steps or variant.state_steps) if states else None,
        past_action="past_action" in layout.fused,
        text_dim=sizes.text,
        action_meaning=variant.action,
        conventions=dict(variant.conventions),
    )


def model_config(spec: DataSpec, variant: Variant, layout: Layout, sizes: Sizes, heads: int, vae: Path) -> Config:
    """Give the section ``model``.

    Args:
        spec: Facts of the data.
        variant: What the tensors cannot tell.
        layout: Parts of the model.
        sizes: Widths.
        heads: Attention heads.
        vae: Folder of the autoencoder.
    """
    also = [name for name in ("wrist", "future_proprio") if name in layout.heads]
    functions = variant.functions if "action" in layout.heads else ("video",)
    model: Config = {
        "tokenizer": _made("KLVAE", path=str(vae), image_size=STRIDE * math.isqrt(sizes.places)),
        "transformer": _made(
            "LatentTransformer",
            width=layout.width,
            heads=heads,
            encoder_depth=layout.encoder_depth,
            decoder_depth=layout.decoder_depth,
            streams=_streams(layout),
        ),
        "objectives": {
            name: _made(OBJECTIVES[name], also=[m for m in also if m != "wrist" or name in PREDICTS_VIDEO])
            for name in functions
        },
        "heads": {modality: _head(modality, layout) for modality in layout.heads},
        "actions": _made("ActionSpace", normalizer="Limits"),
        "optimizer": _made("AdamWCosine", lr=1.0e-4, weight_decay=0.02, warmup_steps=1000),
    }
    if spec.state_dims:
        predicts = {"future_proprio": list(variant.predicts)} if "future_proprio" in layout.heads else {}
        model["proprioception"] = _made("Proprioception", streams={"proprio": list(spec.state_dims)}, predicts=predicts)
    return model


def data_config(spec: DataSpec, variant: Variant) -> Config:
    """Give the section ``data``: recordings in the layout of the official code."""
    facts = asdict(spec)
    facts["cameras"] = list(spec.cameras)
    names = {"video": {camera: variant.cameras[camera] for camera in spec.cameras}, "action": "action"}
    fields = {"replay_buffer": {**names, "state": {entry: entry for entry in spec.state_dims}}}
    return _made("Described", path=variant.data, spec=facts, fields=fields, batch_size=256)


def trainer_config(name: str) -> Config:
    """Give the section ``trainer``."""
    return {
        "max_steps": 245000,
        "precision": "bf16-mixed",
        "gradient_clip_val": 1.0,
        "check_val_every_n_epoch": 10,
        "logger": _made("TensorBoardLogger", save_dir="runs", name=name, version=""),
        "callbacks": [
            _made("EMA"),
            _made("ModelCheckpoint", save_last=True, every_n_train_steps=1000, save_on_exception=True),
            _made("Throughput"),
            _made("RunProgress"),
        ],
    }


def _streams(layout: Layout) -> Config:
    """Streams that are no plain ones: one placeholder for hidden past and future, none for proprioception."""
    options: dict[str, Config] = {
        "past_video": {"placeholder": "video"},
        "past_wrist": {"placeholder": None},
        "proprio": {"placeholder": None},
        "past_action": {"drop": 0.5},
    }
    streams = {name: _made("Stream", **options[name]) for name in options if name in layout.fused}
    return {**streams, **({"text": _made("Prefix")} if layout.text else {})}


def _head(modality: str, layout: Layout) -> Config:
    depth, width = layout.heads[modality]
    if modality not in layout.aggregators:
        denoiser = _made("GaussianDiffusion", width=width, depth=depth)
        return _made("VideoHead", denoiser=denoiser, modality=modality)
    denoiser = _made("GaussianDiffusion", width=width, depth=depth, clip=1.0)
    return _made("ActionHead", aggregator=layout.aggregators[modality], denoiser=denoiser, modality=modality)


def _made(class_name: str, /, **init_args: Any) -> Config:
    return {"class_path": class_name, **({"init_args": init_args} if init_args else {})}
