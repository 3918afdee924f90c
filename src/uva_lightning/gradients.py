"""What several processes need of gradients: one for every parameter, and none for what no process had samples of."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from uva_lightning.objective import Objective
from uva_lightning.sampler import Plan
from uva_lightning.strategies.sharded import whole


class Gradients:
    """Watch over the gradients of heads and of objectives with parameters.

    All of them are in the graph of every step, so that processes know the same parameters. What had no samples in any
    process since the last optimizer step has gradients of zero, with which the optimizer would still decay its weights
    and carry on its momentum; it is left alone instead.

    Args:
        transformer: The trunk.
        heads: By modality.
        objectives: By name.
    """

    def __init__(self, transformer: nn.Module, heads: nn.ModuleDict, objectives: Mapping[str, Objective]) -> None:
        self._named = {"transformer": transformer, **heads}
        own = {name: objective for name, objective in objectives.items() if isinstance(objective, nn.Module)}
        self._parts = {("head", name): head for name, head in heads.items()}
        self._parts |= {("objective", name): objective for name, objective in own.items()}
        self._trained: set[tuple[str, str]] = set()
        self._checked = False

    def saw(self, plan: Plan) -> None:
        """Remember what some process had samples of."""
        served = [name for name, share in plan.share.items() if share]
        self._trained |= {("objective", name) for name in served}
        self._trained |= {("head", modality) for name in served for modality in plan.objectives[name].predicts}

    def release(self) -> None:
        """Take the gradients from what had no samples since the last call."""
        for name, part in self._parts.items():
            if name not in self._trained:
                part.zero_grad(set_to_none=True)
        self._trained.clear()

    def norms(self) -> dict[str, Tensor]:
        """Give the gradient norm of the trunk and of each head that has gradients, f32[]."""
        found = {n: [p.grad.norm() for p in part.parameters() if p.grad is not None] for n, part in self._named.items()}
        return {name: whole(torch.stack(norms).norm()) for name, norms in found.items() if norms}

    def check(self, module: LightningModule) -> None:
        """Make sure after the first backward pass that every parameter has a gradient; DDP goes wrong without a word.

        Raises:
            ValueError: A parameter has none.
        """
        if self._checked or module.trainer.world_size == 1:
            return
        self._checked = True
        without = [name for name, p in module.named_parameters() if p.requires_grad and p.grad is None]
        options = getattr(module.trainer.strategy, "_ddp_kwargs", {})
        if without and not options.get("find_unused_parameters", False):
            raise ValueError(
                f"{len(without)} parameters are in no loss of the first step, such as {', '.join(without[:3])}, which "
                "several processes cannot train together; let the head or the objective use them, set their "
                "requires_grad to False, or set trainer.strategy=ddp_find_unused_parameters_true."
            )
