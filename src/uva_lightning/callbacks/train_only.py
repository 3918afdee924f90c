"""Train some parts of a model and leave all others as they are."""

from __future__ import annotations

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn


class TrainOnly(Callback):
    """Freeze all weights but those of some parts; what is frozen works as at run time, without dropout.

    Args:
        parts: Names of modules, such as ``heads.action``.
    """

    def __init__(self, parts: list[str]) -> None:
        if not parts:
            raise ValueError("TrainOnly has no parts, expected names of modules such as heads.action.")
        self.parts = parts

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze, before the optimizer and other processes see the parameters.

        Raises:
            ValueError: The model has no such part.
        """
        if stage != "fit":
            return
        modules = dict(pl_module.named_modules())
        if unknown := [name for name in self.parts if name not in modules]:
            known = ", ".join(name for name in modules if name.count(".") == 1 and name.startswith("heads."))
            raise ValueError(f"TrainOnly names '{unknown[0]}', which the model does not have; such parts are {known}.")
        pl_module.requires_grad_(False)
        for name in self.parts:
            modules[name].requires_grad_(True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Switch dropout off in what is frozen; a run that is resumed within an epoch does not start that epoch."""
        trained: set[nn.Module] = {m for name in self.parts for m in pl_module.get_submodule(name).modules()}
        for module in pl_module.modules():
            if module not in trained:
                module.training = False
