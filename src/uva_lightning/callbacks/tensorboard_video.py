"""Films and pictures for TensorBoard, without the libraries that its own ``add_video`` asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray

from uva_lightning.video_files import gif_bytes

RGB = 3


def log_film(trainer: Trainer, tag: str, frames: NDArray[np.uint8], rate_hz: float) -> None:
    """Show u8[n, H, W, 3] as an animated picture in every TensorBoard of this trainer; rank zero only."""
    height, width = frames.shape[1:3]
    log_gif(trainer, tag, gif_bytes(frames, rate_hz), height, width, trainer.global_step)


def log_gif(trainer: Trainer, tag: str, content: bytes, height: int, width: int, step: int) -> None:
    """Show an animated GIF of so many px in every TensorBoard of this trainer; rank zero only."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    image = Summary.Image(height=height, width=width, colorspace=RGB, encoded_image_string=content)
    for writer in _writers(trainer):
        writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def log_picture(trainer: Trainer, tag: str, picture: NDArray[np.uint8]) -> None:
    """Show u8[H, W, 3] in every TensorBoard of this trainer; rank zero only."""
    for writer in _writers(trainer):
        writer.add_image(tag, picture, trainer.global_step, dataformats="HWC")


def _writers(trainer: Trainer) -> list[Any]:
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
