"""One-step heads: the training run that distils a head of a checkpoint, and what is made of its result."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from torch import Tensor

from uva_lightning.draws import seeded
from uva_lightning.model.heads.consistency import TEACHER, Consistency
from uva_lightning.model.heads.denoiser import Traced
from uva_lightning.module import UVAModule
from uva_lightning.types import Batch
from uva_lightning.visibility import seen_when_asked

START, RECIPE, END = "start.ckpt", "distil.yaml", "end"
SAVED_EVERY = 500
LEFT_OUT = ("optimizer_states", "lr_schedulers", "callbacks", "current_model_state", "loops", "EMA")
SIZES = ("width", "depth")


@dataclass(frozen=True)
class Recipe:
    """How a head is distilled.

    Args:
        head: Name of the head.
        steps: Training steps.
        teacher_steps: Steps of the teacher's way.
        lr: Highest learning rate.
        draws: Ways per row and training step.
        batch_size: Samples of a step; that of the checkpoint's run if not given.
        data: Where the data are now; where they were if not given.
    """

    head: str
    steps: int
    teacher_steps: int
    lr: float
    draws: int
    batch_size: int | None = None
    data: Path | None = None


def run_config(config: str, module: UVAModule, recipe: Recipe, out: Path) -> dict[str, Any]:
    """Write the training run: the checkpoint's model with a student in one head, which alone is trained.

    Args:
        config: YAML text of the checkpoint.
        module: The checkpoint's model.
        recipe: How.
        out: Run folder.

    Raises:
        ValueError: There is no such head, it cannot be a teacher, or no objective trains it.
    """
    head = module.head(recipe.head)
    if isinstance(head.denoiser, Consistency):
        raise ValueError(
            f"The {recipe.head} head is distilled already, expected one that was trained on data; distil the "
            "checkpoint that this one came from."
        )
    if not isinstance(head.denoiser, Traced):
        raise ValueError(
            f"The {recipe.head} head has a {type(head.denoiser).__name__}, which has no deterministic way from noise "
            "to sample; expected FlowMatching or GaussianDiffusion."
        )
    objectives, given = module.sampler.objectives, yaml.safe_load(config)
    shares = {n: s for n, s in module.sampler.shares.items() if s and recipe.head in objectives[n].predicts}
    if not shares:
        raise ValueError(f"No objective of this checkpoint predicts {recipe.head}, expected one such as RobotPolicy.")
    model, data = deepcopy(given["model"]), deepcopy(given["data"])
    entry = model["heads"][recipe.head]["init_args"]
    sizes = {name: entry["denoiser"]["init_args"][name] for name in SIZES if name in entry["denoiser"]["init_args"]}
    own = {**sizes, "draws": recipe.draws, TEACHER: entry["denoiser"], "teacher_steps": recipe.teacher_steps}
    entry |= {"steps": 1, "denoiser": {"class_path": "Consistency", "init_args": own}}
    others = {m: 0.0 for n in shares for m in objectives[n].predicts if m != recipe.head}
    model |= {
        "objectives": {name: model["objectives"][name] for name in shares},
        "sampler": {"class_path": "ObjectiveSampler", "init_args": {"shares": shares}},
        "balancer": {"class_path": "FixedWeights", "init_args": {"terms": others}},
        "optimizer": {"class_path": "AdamWCosine", "init_args": {"lr": recipe.lr, "weight_decay": 0.0}},
        "start": {"path": str(out / START), "minimum": 1.0, "fitted": True},
    }
    if recipe.batch_size is not None:
        data["init_args"]["batch_size"] = recipe.batch_size
    if recipe.data is not None:
        data["init_args"]["path"] = str(recipe.data)
        data["init_args"].pop("generate", None)  # what was named is there; nothing is made up in its place
    precision = (given.get("trainer") or {}).get("precision")
    return {"seed_everything": 42, "model": model, "data": data, "trainer": _trainer(recipe, out, precision)}


def _trainer(recipe: Recipe, out: Path, precision: str | None) -> dict[str, Any]:
    def saving(**options: Any) -> dict[str, Any]:
        return {"class_path": "ModelCheckpoint", "init_args": {"dirpath": str(out / "checkpoints"), **options}}

    return {
        "max_steps": recipe.steps,
        "precision": precision or "32-true",
        "gradient_clip_val": 1.0,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10,
        "enable_model_summary": False,
        "default_root_dir": str(out),
        "logger": {
            "class_path": "TensorBoardLogger",
            "init_args": {"save_dir": str(out.parent), "name": out.name, "version": ""},
        },
        "callbacks": [
            {"class_path": "TrainOnly", "init_args": {"parts": [f"heads.{recipe.head}.denoiser.net"]}},
            "EMA",
            saving(save_last=True, every_n_train_steps=SAVED_EVERY),
            saving(filename=END, every_n_train_steps=recipe.steps, save_top_k=-1),
            "Throughput",
            "RunProgress",
        ],
    }


def start_weights(checkpoint: Mapping[str, Any], head: str) -> dict[str, Any]:
    """Give the weights of the first step: the head's denoiser becomes the teacher, and the student starts as it.

    Args:
        checkpoint: As ``stored.read`` gives it.
        head: Name of the head.
    """
    denoiser, state = f"heads.{head}.denoiser.", dict[str, Tensor]()
    channels = checkpoint["state_dict"][f"{denoiser}net.input.weight"].shape[1]  # a diffusion has variances, too
    for name, value in checkpoint["state_dict"].items():
        own = name.removeprefix(denoiser)
        if own == name:
            state[name] = value
            continue
        state[f"{denoiser}{TEACHER}.{own}"] = value
        if own.startswith("net."):
            state[name] = value[:channels].clone() if own.startswith("net.output.") else value
    return {name: checkpoint[name] for name in ("config", "contract", "fitted")} | {"state_dict": state}


def without_teacher(checkpoint: Mapping[str, Any], head: str) -> dict[str, Any]:
    """Give the finished model: the average of the student, without teacher and state of training."""
    config = yaml.safe_load(checkpoint["config"])
    config["model"]["heads"][head]["init_args"]["denoiser"]["init_args"][TEACHER] = None
    config["model"]["start"] = None
    prefix = f"heads.{head}.denoiser.{TEACHER}."
    state = {name: value for name, value in checkpoint["state_dict"].items() if not name.startswith(prefix)}
    kept = {name: value for name, value in checkpoint.items() if name not in LEFT_OUT}
    return {**kept, "config": yaml.safe_dump(config, sort_keys=False), "state_dict": state}


@torch.inference_mode()
def distances(module: UVAModule, head: str, batches: list[Batch]) -> dict[str, float]:
    """Compare one step with the end of the teacher's way, from the same noise.

    Args:
        module: Model whose head still has its teacher.
        head: Name of the head.
        batches: Held-out windows.

    Returns:
        Root of the mean squared distance, in the model's numbers: ``distilled``, one step of the student;
        ``undistilled``, one step of the teacher; ``spread``, standard deviation of the teacher's samples.
    """
    chosen = module.head(head)
    student = cast(Consistency, chosen.denoiser)
    found: dict[str, list[Tensor]] = {"distilled": [], "undistilled": [], "taught": []}

    for number, batch in enumerate(batches):
        tokens = module.tokens(batch)
        seen = seen_when_asked(module.sampler.objectives, tokens, chosen.modality)
        seen = seen.without(module.absent(batch)).to(module.device)
        target, condition, _, valid = chosen.rows(module.transformer(tokens, seen), tokens, seen)
        noise = torch.randn(target.shape, generator=seeded(number)).to(target.device)
        found["taught"].append(student.taught(condition, noise, valid))
        found["distilled"].append(student.sample(condition, noise, 1, valid=valid))
        found["undistilled"].append(cast(Traced, student.teacher).sample(condition, noise, 1, valid=valid))
    whole = {name: torch.cat(parts) for name, parts in found.items()}
    taught = whole.pop("taught")
    measured = {name: float((made - taught).square().mean().sqrt()) for name, made in whole.items()}
    return {**measured, "spread": float(taught.std())}
