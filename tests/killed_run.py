"""Train in children that are killed while they save, until the end; a program for test_checkpoint_files."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from uva_lightning.cli import main
from uva_lightning.commands import training
from uva_lightning.commands.discovery import import_components

PATIENCE = 60.0


def start(config: Path, folder: Path) -> int:
    """Train in a child; Python and the libraries are loaded already."""
    if pid := os.fork():
        return pid
    os.chdir(folder)
    sys.argv = ["uva"]
    status = 1
    try:
        status = main(["fit", "--config", str(config), "--ckpt_path", "last"])
    finally:
        os._exit(status)


def kill_while_saving(pid: int, folder: Path, rng: random.Random) -> str:
    """Kill the child in a save: one that begins after another has ended; gives what is left half written."""
    end, last, before = time.monotonic() + PATIENCE, folder / "last.ckpt", time.time()
    while time.monotonic() < end and os.waitpid(pid, os.WNOHANG)[0] == 0:
        saved = last.exists() and last.stat().st_mtime > before
        if saved and any(path.suffix == ".partial" for path in folder.iterdir()):
            time.sleep(rng.random() * 0.004)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return " ".join(path.name for path in folder.glob("*.partial"))
    raise SystemExit(f"process {pid} did not save within {PATIENCE:.0f} s, or ended")


def run(config: Path, folder: Path, kills: int) -> list[dict[str, object]]:
    """Kill the run so many times, then let it end."""
    rng, report = random.Random(0), []
    for _ in range(kills):
        left = kill_while_saving(start(config, folder), folder, rng)
        steps = {
            p.name: torch.load(p, weights_only=True)["global_step"]
            for p in folder.glob("*.ckpt*")
            if p.suffix != ".partial"
        }
        report.append({"left": left, "steps": steps})
    _, status = os.waitpid(start(config, folder), 0)
    report.append({"status": os.waitstatus_to_exitcode(status)})
    return report


if __name__ == "__main__":
    torch.set_num_threads(1)
    import_components()
    assert training
    runs = [run(Path(folder, "run.yaml"), Path(folder), int(kills)) for folder, kills in json.loads(sys.argv[1])]
    sys.stdout.write(json.dumps(runs) + "\n")
