"""``uva data inspect``: the facts of a data set as text and JSON, and its pictures and numbers as PNG."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image

from uva_lightning.commands.extras import install_command
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.inspection.facts import collect, table
from uva_lightning.inspection.sheets import contact_sheet, histograms

FACTS = "facts.json"


def inspect_data(data: RobotDataModule, out: Path | None = None, episodes: int = 6, frames: int = 8) -> None:
    """Print the facts of a data set; write a contact sheet per camera, histograms and facts.json.

    Of the pictures only those on the sheets are read.

    Args:
        data: The data set, as for uva fit: --config FILE or --data CLASS --data.path PATH.
        out: Folder for the files; runs/inspect/NAME, after the data set's path, if not given.
        episodes: Episodes on a sheet, evenly spaced.
        frames: Pictures of each episode, evenly spaced.
    """
    for name, value in (("episodes", episodes), ("frames", frames)):
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1; set --{name}=8.")
    data.prepare_data()
    facts, store = collect(data), data.store
    out = Path("runs/inspect") / data.path.name if out is None else out
    out.mkdir(parents=True, exist_ok=True)
    (out / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    sys.stdout.write(table(facts))
    files = [FACTS]
    if not data.has_pictures:
        sys.stdout.write(f"\nNo pictures: {data.path} holds latents; inspect the data set of which they were made.\n")
    for camera in store.video if data.has_pictures else ():
        sheet, mean = contact_sheet(store, camera, episodes, frames)
        names = f"frames_{_file_name(camera)}.png", reference_name(camera)
        sheet.save(out / names[0])
        Image.fromarray(mean).save(out / names[1])
        files += names
    try:
        if numbers := store.numbers():
            histograms(numbers, out / "histograms.png")
            files.append("histograms.png")
    except ImportError as error:
        sys.stdout.write(f"\nNo histograms: {error}; install it with {install_command('matplotlib')}\n")
    sys.stdout.write(f"\nwritten to {out}: {', '.join(files)}\n")


def reference_name(camera: str) -> str:
    """Name the mean picture of a camera, to which ``uva data check --reference`` compares."""
    return f"reference_{_file_name(camera)}.png"


def _file_name(camera: str) -> str:
    return camera.replace("/", "_")
