"""``uva quickstart``: from nothing to a trained model, its five functions measured and shown."""

from __future__ import annotations

import sys
from pathlib import Path

from uva_lightning.commands.errors import UserError

SHORT = ("--trainer.max_steps=60", "--trainer.val_check_interval=60", "--data.generate.episodes=8")


def quickstart(
    out: Path = Path("runs/quickstart"), config: str = "configs/quickstart.yaml", seed: int = 42, short: bool = False
) -> int:
    """Make the data, train one model on all objectives, measure each function and show it.

    Args:
        out: Run folder: checkpoints, TensorBoard files, pictures and ``results.json``. An earlier run there is kept
            under another name.
        config: What to train.
        seed: Seed of training.
        short: Run every step, far too short to learn anything.

    Returns:
        0; 1 where a function does not beat its baseline and the run was not short.
    """
    from uva_lightning.commands.training import run
    from uva_lightning.functions import functions

    _keep_earlier(out)
    training = ["fit", "--config", config, f"--seed_everything={seed}", f"--model.seed={seed}"]
    training += [f"--trainer.logger.save_dir={out.parent}", f"--trainer.logger.name={out.name}"]
    if short:
        training += [*SHORT, f"--data.path={out / 'demos'}"]
    status = run(training)
    if status:
        raise UserError(f"Training ended with status {status}; the message above says why and how to go on.")
    episodes, windows, proposals = (2, 16, 2) if short else (50, 512, 8)
    checkpoint = out / "checkpoints" / "last.ckpt"
    results = functions(checkpoint, episodes=episodes, windows=windows, proposals=proposals)
    sys.stdout.write(f"\nPictures, videos and results.json are in {out}\n")
    missed = [name for name, row in results["functions"].items() if not row["beats_baseline"]]
    if missed and not short:
        sys.stdout.write(f"Not better than the baseline: {', '.join(missed)}\n")
        return 1
    return 0


def _keep_earlier(out: Path) -> None:
    """Move a run that is already there out of the way, so that two runs never mix."""
    if not (out / "checkpoints").exists():
        return
    number = 1
    while (kept := out.with_name(f"{out.name}-{number}")).exists():
        number += 1
    out.rename(kept)
    sys.stdout.write(f"The earlier run in {out} is now {kept}\n")
