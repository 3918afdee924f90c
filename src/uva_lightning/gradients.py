"""What several processes need of gradients: one for every parameter, and none for what no process had samples of."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from uva_lightning.balance import Key
from uva_lightning.global_batch import GlobalBatch
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
        self._own: list[str] | None = None

    def agree(self, own: Collection[Key], batch: GlobalBatch) -> None:
        """Make sure that all processes have the same losses of objectives' own, which they add up by their place.

        They are compared in the first step; from then on each process compares with its first step.

        Args:
            own: Objective and name of each, in order.
            batch: The batch of all processes.

        Raises:
            ValueError: They have not.
        """
        if batch.world == 1:
            return
        names = [f"{objective}/{term}" for objective, term in own]
        first, self._own = self._own, names
        if names == first or (first is None and batch.agree(zlib.crc32("\n".join(names).encode()))):
            return
        expected = "those of the other processes" if first is None else f"{', '.join(first) or 'none'} as before"
        raise ValueError(
            f"Objectives of process {batch.rank} give the losses {', '.join(names) or 'none'}, expected {expected}; "
            "let loss_terms give the same names in every step, also of no samples (b = 0)."
        )

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
