"""``uva distill``: train a head of a checkpoint to do in one step what takes it many."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import torch
import yaml

from uva_lightning.checkpoint_files import WholeCheckpoints
from uva_lightning.commands.checks import check_data
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.training import run
from uva_lightning.distillation import END, RECIPE, START, Recipe, distances, run_config, start_weights, without_teacher
from uva_lightning.model.checkpoint import load_module, read
from uva_lightning.results import versions, write_json
from uva_lightning.whole_files import whole

RESULT, RESULTS = "distilled.ckpt", "distilled.json"
BATCHES = 4
"""Held-out batches on which the result is compared with its teacher."""


def distill(
    ckpt: Path,
    out: Path,
    steps: int = 5000,
    head: str = "action",
    teacher_steps: int = 32,
    lr: float = 3e-4,
    draws: int = 4,
    batch_size: int | None = None,
    data: Path | None = None,
) -> None:
    """Distil a head into one that samples in one step; after a kill the same command goes on from there.

    The rest of the model stays as it is. ``OUT/distilled.ckpt`` is the result, a checkpoint as any other.

    Args:
        ckpt: Checkpoint of a training run, or folder of uva import-checkpoint.
        out: Run folder: checkpoints, TensorBoard files and the result.
        steps: Training steps.
        head: Head that is distilled.
        teacher_steps: Steps of the teacher, deterministic ones: Euler of a flow, DPM-Solver of a diffusion.
        lr: Highest learning rate.
        draws: Ways from noise to sample per row and training step.
        batch_size: Windows of a step; that of the checkpoint's run where left out.
        data: Where the data are now; where they were where left out.
    """
    for name, value in (("steps", steps), ("teacher_steps", teacher_steps), ("draws", draws)):
        if value < 1:
            raise UserError(f"{name} is {value}, expected at least 1.")
    check_data(data)
    if (out / RESULT).exists():
        raise UserError(f"{out / RESULT} exists, expected a new folder; name another one or remove it.")
    _prepare(ckpt, Recipe(head, steps, teacher_steps, lr, draws, batch_size, data), out)
    status = run(["fit", "--config", str(out / RECIPE), "--ckpt_path", "last"])
    if status:
        raise UserError(f"Training ended with status {status}; the message above says why and how to go on.")
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        sys.stdout.write(_finish(head, out))


def _prepare(ckpt: Path, recipe: Recipe, out: Path) -> None:
    """Write what training starts from, unless an earlier call has."""
    module, _ = load_module(ckpt)
    checkpoint = read(ckpt)
    text = yaml.safe_dump(run_config(checkpoint["config"], module, recipe, out), sort_keys=False)
    text = f"# {ckpt.resolve()}\n{text}"
    place = out / RECIPE
    if place.is_file():
        if place.read_text() != text:
            raise UserError(
                f"{out} holds a distillation of another checkpoint or with other options, see {place}; give the same, "
                "or name another folder."
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} exists and is not empty, expected a new folder; name another one or remove it.")
    WholeCheckpoints().save_checkpoint(start_weights(checkpoint, recipe.head), out / START)
    with whole(place) as part:  # last: where it is, the weights are
        part.write_text(text)


def _finish(head: str, out: Path) -> str:
    """Write the result, and say how near it is to its teacher."""
    trained = out / "checkpoints" / f"{END}.ckpt"
    module, data = load_module(trained)
    data.prepare_data()
    data.setup("fit")
    module = module.to("cuda" if torch.cuda.is_available() else "cpu")
    data.cache(module.encode_frames, module.tokenizer.fingerprint())
    held_out = data.val_dataloader()
    loader = held_out if len(held_out) else data.train_dataloader()
    found = distances(module, head, [batch.to(module.device) for batch in islice(loader, BATCHES)])
    write_json(out / RESULTS, {"distances": found, "versions": versions()})
    WholeCheckpoints().save_checkpoint(without_teacher(read(trained), head), out / RESULT)
    (out / START).unlink(missing_ok=True)
    return (
        f"One step against the teacher's samples, whose spread is {found['spread']:.3f} in the model's numbers:\n"
        f"  distilled    {found['distilled']:.4f} (root mean square)\n"
        f"  undistilled  {found['undistilled']:.4f}\n"
        f"written: {out / RESULT}\n"
    )
