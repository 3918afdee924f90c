"""What cannot be combined, refused before training starts."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def check(trainer: Trainer) -> None:
    """Look at how a trainer computes.

    Raises:
        ValueError: It keeps weights in half precision, in which they and their average miss small steps, or it cuts
            them in a way in which no average of them can be kept.
    """
    if trainer.precision not in PRECISIONS:
        raise ValueError(
            f"trainer.precision is {trainer.precision}, expected one of {', '.join(PRECISIONS)}: weights stay in "
            "float32, or steps smaller than 1/256 of a weight are lost; set trainer.precision=bf16-mixed."
        )
    if isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy):
        raise ValueError(
            f"trainer.strategy is {type(trainer.strategy).__name__}, which cannot be combined with averaged weights "
            "and single checkpoint files; set trainer.strategy=FullySharded (FSDP2), or ddp."
        )
