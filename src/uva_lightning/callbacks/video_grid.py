"""Pictures of what the model imagines, beside what came."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from uva_lightning.callbacks.evaluation import rehearsing, run_folder, undisturbed
from uva_lightning.callbacks.tensorboard_video import log_picture
from uva_lightning.module import UVAModule
from uva_lightning.policy.windows import WindowPolicy, observed
from uva_lightning.strategies.sharded import whole_weights
from uva_lightning.types import Batch
from uva_lightning.whole_files import whole

Frames = NDArray[np.uint8]

LABEL_WIDTH, GAP = 120, 6
BEST_GUESS = 0.0
"""Temperature of the pictures: no noise but the model's own."""
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


class VideoGrid(Callback):
    """Draw held-out windows at each validation: past, real future, imagined future, future given the true actions.

    One PNG per camera goes to the run folder, ``pictures/step_00000500_top.png``, and to TensorBoard; where data are a
    mixture one per data set and camera, ``pictures/step_00000500_people_camera.png``. The windows are the same every
    time.

    Args:
        windows: Windows of each data set, evenly spaced over the held-out episodes.
        given_actions: Add the row of forward dynamics, for a model that was trained on them.
    """

    def __init__(self, windows: int = 4, given_actions: bool = True) -> None:
        if windows < 1:
            raise ValueError(f"windows is {windows}, expected at least 1; remove VideoGrid to draw none.")
        self.windows, self.given_actions, self._blind = windows, given_actions, False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a model that has no future to show; say so where the data have no pictures to show.

        Raises:
            ValueError: It has no video head.
        """
        if not isinstance(pl_module, UVAModule) or "video" not in pl_module.heads:
            raise ValueError(f"{type(pl_module).__name__} has no video head, VideoGrid needs one; remove VideoGrid.")
        data: Any = getattr(trainer, "datamodule", None)
        self._blind = not getattr(data, "has_pictures", True)
        if self._blind:
            rank_zero_warn(f"VideoGrid draws nothing: {data.location} holds latents and no pictures.")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, on the first process."""
        if self._blind or rehearsing(trainer) or not isinstance(pl_module, UVAModule):
            return
        folder = run_folder(trainer) / "pictures"
        with whole_weights(pl_module):
            if trainer.is_global_zero:
                self._draw(trainer, pl_module, folder)

    def _draw(self, trainer: Trainer, pl_module: UVAModule, folder: Path) -> None:
        for name, batch in held_out(trainer, self.windows).items():
            with undisturbed(pl_module):
                rows = self._rows(WindowPolicy(pl_module, set=name), batch)
            for camera in pl_module.spec.of(name).cameras:
                shown = {label: frames[camera] for label, frames in rows.items() if camera in frames}
                picture = draw_grid(shown)  # a camera that is not predicted has its real frames only
                what = camera if name is None else f"{name}_{camera}"
                with whole(folder / f"step_{trainer.global_step:08d}_{what}.png") as file:
                    Image.fromarray(picture).save(file, "PNG")
                log_picture(trainer, f"pictures/{what}", picture)

    def _rows(self, policy: WindowPolicy, batch: Batch) -> dict[str, dict[str, Frames]]:
        """Frames u8[b, t, H, W, 3] per camera and row."""
        seen = observed(batch)
        future = {camera: video.chunk(2, dim=1)[1].numpy() for camera, video in batch.video.items()}
        rows = {"past": dict(seen["video"]), "future": future, "imagined": policy.imagine(seen, BEST_GUESS)}
        if self.given_actions and batch.action is not None:
            rows["given actions"] = policy.predict_next(seen, batch.action.numpy(), BEST_GUESS)
        return rows


def held_out(trainer: Trainer, count: int) -> dict[str | None, Batch]:
    """Take evenly spaced validation windows of each data set, with their frames even where latents are delivered."""
    loader: Any = trainer.val_dataloaders
    sets = {name: windows.with_frames() for name, windows in loader.dataset.by_set().items()}
    return {
        name: windows[torch.linspace(0, len(windows) - 1, min(count, len(windows))).long()]
        for name, windows in sets.items()
    }


def draw_grid(rows: Mapping[str, Frames]) -> Frames:
    """Lay out one row per entry, u8[b, t, H, W, 3], and one block of columns per sample, with labels."""
    samples, _, height, _, _ = next(iter(rows.values())).shape
    margin = np.full((height, GAP, 3), WHITE, dtype=np.uint8)
    strips = []
    for label, frames in rows.items():
        blocks = [part for sample in range(samples) for part in (margin, *frames[sample])]
        strips.append(np.concatenate([_label(label, height), *blocks], axis=1))
    space = np.full((GAP, strips[0].shape[1], 3), WHITE, dtype=np.uint8)
    return np.concatenate([part for strip in strips for part in (strip, space)][:-1])


def _label(text: str, height: int) -> Frames:
    image = Image.new("RGB", (LABEL_WIDTH, height), WHITE)
    ImageDraw.Draw(image).text((GAP, height // 2), text, BLACK, anchor="lm")
    return np.asarray(image, dtype=np.uint8)
