"""The configuration of ``uva fit`` that builds an official model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from uva_lightning.commands.discovery import import_components
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.official.names import Layout
from uva_lightning.official.variants import VARIANTS, Variant

Config = dict[str, Any]

STRIDE = 16
"""Side in pixels that one token of the autoencoder covers."""

HORIZON = 16
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
    """Lengths that the tensors tell and the layout does not.

    Args:
        frames: Frames of the history, and as many of the future.
        places: Tokens of a frame.
    """

    frames: int = 4
    places: int = 256

    @property
    def side(self) -> int:
        """Tokens along a side of a frame."""
        return math.isqrt(self.places)

    @classmethod
    def of(cls, model: Mapping[str, Tensor]) -> Sizes:
        """Read them from the official tensors, by the names inside ``model.``; MAR lacks them."""
        return cls(model[FRAMES].shape[1], model[PLACES].shape[1]) if FRAMES in model and PLACES in model else cls()


def model_config(variant: Variant, layout: Layout, sizes: Sizes, heads: int, vae: Path) -> Config:
    """Give the section ``model``.

    Args:
        variant: What the tensors cannot tell.
        layout: Parts of the model.
        sizes: Lengths.
        heads: Attention heads.
        vae: Folder of the autoencoder.
    """
    functions = variant.functions if "action" in layout.heads else ("video",)
    model: Config = {
        "tokenizer": _made("KLVAE", path=str(vae), image_size=STRIDE * sizes.side),
        "transformer": _made(
            "LatentTransformer",
            width=layout.width,
            heads=heads,
            encoder_depth=layout.encoder_depth,
            decoder_depth=layout.decoder_depth,
            streams=_streams(layout),
        ),
        "objectives": {name: _objective(name, layout) for name in functions},
        "heads": {modality: _head(modality, layout) for modality in layout.heads},
        "actions": _made("ActionSpace", normalizer=dict(variant.actions)),
        "optimizer": _made("AdamWCosine", lr=1.0e-4, weight_decay=0.02, warmup_steps=1000),
    }
    if variant.states:
        model["proprioception"] = _proprioception(variant, layout)
    return model


def _objective(name: str, layout: Layout) -> Config:
    """Give an objective with the further heads that the official code trains in its mode."""
    also = [m for m in ("wrist", "future_proprio") if m in layout.heads and (m != "wrist" or name in PREDICTS_VIDEO)]
    keeps = {"keeps": ["past_wrist"]} if name == "inverse" and "wrist" in layout.heads else {}
    return _made(OBJECTIVES[name], also=also, **keeps)


def data_config(name: str, layout: Layout, sizes: Sizes, varies: bool | None) -> Config:
    """Give the section ``data``: the recordings of a variant, as much of them as the model uses.

    Args:
        name: Name of the variant.
        layout: Parts of the model.
        sizes: Lengths.
        varies: Whether the history frames vary in training; as the variant does if not given.
    """
    variant = VARIANTS[name]
    varies = variant.varies if varies is None else varies
    cameras = datamodule(variant).facts.cameras
    wrist = {"wrist", "past_wrist"} & set(layout.fused)
    window: Config = {
        **variant.window,
        "frames": sizes.frames,
        "horizon": HORIZON,
        "cameras": list(cameras if wrist else cameras[:1]),
        "state_steps": HORIZON if "proprio" in layout.fused and not varies else None,
        "past_action": "past_action" in layout.fused,
        "vary_history": variant.varied if varies else None,
    }
    text = _made("CachedInstructions", path="pretrained/instructions.safetensors")
    instructions = {"text": text} if layout.text else {}
    return _made(variant.data, path=variant.path, batch_size=256, window=window, **instructions)


def datamodule(variant: Variant) -> type[RobotDataModule]:
    """Find the class of a variant's data among those that a config may name."""
    import_components()
    kinds: list[type[RobotDataModule]] = RobotDataModule.__subclasses__()
    for kind in kinds:  # grows: some data sets share a base of their own
        kinds += kind.__subclasses__()
    return next(found for found in kinds if found.__name__ == variant.data)


def trainer_config(name: str) -> Config:
    """Give the section ``trainer``."""
    return {
        "max_steps": 245000,
        "precision": "bf16-mixed",
        "check_val_every_n_epoch": 10,
        "logger": _made("TensorBoardLogger", save_dir="runs", name=name, version=""),
        "callbacks": [
            _made("EMA"),
            _made("ModelCheckpoint", save_last=True, every_n_train_steps=1000, save_on_exception=True),
            _made("Throughput"),
            _made("RunProgress"),
        ],
    }


def _proprioception(variant: Variant, layout: Layout) -> Config:
    entries = list(variant.states)
    normalizers = {entry: dict(normalizer) for entry, normalizer in variant.normalizers.items()}
    if "proprio" not in layout.fused:
        return _made("Proprioception", unused=entries, normalizers=normalizers)
    predicts = {"future_proprio": list(variant.predicts)} if "future_proprio" in layout.heads else {}
    return _made("Proprioception", streams={"proprio": entries}, predicts=predicts, normalizers=normalizers)


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
