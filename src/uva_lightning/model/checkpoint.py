"""Rebuild a model from what lies on disk, without unpickling anything but tensors and plain values."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from uva_lightning.commands.discovery import import_components
from uva_lightning.datamodules.training_data import TrainingData
from uva_lightning.model.stored import CONFIG, TEXT, VAE, read
from uva_lightning.module import UVAModule

__all__ = ["before_training", "build", "load_module", "read"]


def load_module(path: Path | str) -> tuple[UVAModule, TrainingData]:
    """Build model and data as they were trained, and load the weights.

    The weights are the averaged ones where the run averaged them. The data are not read yet; their path may be gone.

    Args:
        path: Checkpoint written by ``uva fit``, or folder written by ``uva import-checkpoint``.

    Raises:
        ValueError: The file is missing, is no checkpoint of ours, or does not match the model it describes.
    """
    path = Path(path)
    checkpoint = read(path)
    if checkpoint.get("source", {}).get("new"):
        raise ValueError(
            f"{path} holds weights to start training from, not a whole model; train it first with: "
            f"uva fit --config {path / CONFIG}"
        )
    module, data = build(_moved(checkpoint["config"], path))
    module.on_load_checkpoint(checkpoint)
    result = module.load_state_dict(checkpoint["state_dict"], strict=False)
    if result.missing_keys or result.unexpected_keys:
        example = (result.missing_keys + result.unexpected_keys)[0]
        raise ValueError(
            f"{path}: {len(result.missing_keys)} tensors are missing and {len(result.unexpected_keys)} are unknown, "
            f"e.g. '{example}'; the code differs from the one that wrote it, use the same version."
        )
    return module.eval(), data


def before_training(path: Path | str) -> UVAModule:
    """Build the model of a checkpoint before a first step, with what was fitted on the data; always the same one."""
    path = Path(path)
    checkpoint = read(path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, _ = build(_moved(checkpoint["config"], path))
    module.on_load_checkpoint(checkpoint)
    return module.eval()


def build(config: str) -> tuple[UVAModule, TrainingData]:
    """Build model and data from the YAML text of a run."""
    import_components()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(UVAModule, "model")
    parser.add_subclass_arguments(TrainingData, "data")
    parser.link_arguments("data", "model.spec", compute_fn=lambda data: data.spec, apply_on="instantiate")
    sections = yaml.safe_load(config)
    try:
        parsed = parser.parse_object({name: sections[name] for name in ("model", "data")})
    except ArgumentError as error:
        reasons = [line.strip(" -") for line in str(error).splitlines() if "not accepted" in line or "Unknown" in line]
        raise ValueError(
            f"The checkpoint's config does not fit this version: {(reasons or str(error).splitlines())[0]}; "
            "use the version that wrote it, or train anew."
        ) from error
    parts = parser.instantiate(parsed)
    return parts["model"], parts["data"]


def _moved(config: str, folder: Path) -> str:
    """Let a folder that was moved use the autoencoder and the text encoder within it."""
    if not (folder / VAE).is_dir() and not (folder / TEXT).is_dir():
        return config
    sections = yaml.safe_load(config)
    if (folder / VAE).is_dir():
        sections["model"]["tokenizer"]["init_args"]["path"] = str(folder / VAE)
    if (folder / TEXT).is_dir():
        sections["data"]["init_args"]["text"]["init_args"]["weights"] = str(folder / TEXT)
    return yaml.safe_dump(sections, sort_keys=False)
