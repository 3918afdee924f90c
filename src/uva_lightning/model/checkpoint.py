"""Rebuild a model from one checkpoint file, without unpickling anything but tensors and plain values."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from uva_lightning.commands.discovery import import_components
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.module import UVAModule


def load_module(path: Path) -> tuple[UVAModule, RobotDataModule]:
    """Build model and data as they were trained, and load the weights.

    The weights are the averaged ones where the run averaged them. The data are not read yet; their path may be gone.

    Args:
        path: Checkpoint written by ``uva fit``.

    Raises:
        ValueError: The file is missing, is no checkpoint of ours, or does not match the model it describes.
    """
    checkpoint = read(path)
    module, data = build(checkpoint["config"])
    module.on_load_checkpoint(checkpoint)
    result = module.load_state_dict(checkpoint["state_dict"], strict=False)
    if result.missing_keys or result.unexpected_keys:
        example = (result.missing_keys + result.unexpected_keys)[0]
        raise ValueError(
            f"{path}: {len(result.missing_keys)} tensors are missing and {len(result.unexpected_keys)} are unknown, "
            f"e.g. '{example}'; the code differs from the one that wrote it, use the same version."
        )
    return module.eval(), data


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours with ``weights_only``."""
    path = Path(path)
    if not path.is_file():
        near = sorted(str(found) for found in path.parent.glob("**/*.ckpt"))[:1] if path.parent.is_dir() else []
        hint = f"; did you mean {near[0]}?" if near else "; `uva fit` writes one into its run folder."
        raise ValueError(f"There is no checkpoint {path}{hint}")
    try:
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} cannot be read as a checkpoint of tensors and plain values: {error}") from error
    stored = set(checkpoint) if isinstance(checkpoint, dict) else set()
    if missing := {"config", "contract", "fitted", "state_dict"} - stored:
        raise ValueError(f"{path} lacks {sorted(missing)}, expected a checkpoint written by `uva fit`.")
    return dict(checkpoint)


def build(config: str) -> tuple[UVAModule, RobotDataModule]:
    """Build model and data from the YAML text of a run."""
    import_components()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(UVAModule, "model")
    parser.add_subclass_arguments(RobotDataModule, "data")
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
