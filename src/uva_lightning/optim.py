"""Optimizer and learning rate: AdamW with UVA's decay groups, cosine with warm-up in steps."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


class AdamWCosine:
    """Build optimizer and schedule.

    Weights of one dimension and biases are not decayed; all others are, position tables and placeholders of UVA's
    shape among them.

    Args:
        lr: Highest learning rate.
        betas: Of AdamW.
        weight_decay: Of the decayed group.
        warmup_steps: Optimizer steps until the highest rate, at most half of all.
        final: Share of ``lr`` left at the end.
        total_steps: Length of the schedule; the trainer's own number of steps if not given.
        restart: Warm up and fall anew in every stage of a ``Curriculum``, as UVA's two runs do.
    """

    def __init__(
        self,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.02,
        warmup_steps: int = 1000,
        final: float = 0.0,
        total_steps: int | None = None,
        restart: bool = True,
    ) -> None:
        if lr <= 0:
            raise ValueError(f"lr is {lr}, expected a positive number such as 1e-4.")
        self.lr, self.betas, self.weight_decay = lr, (betas[0], betas[1]), weight_decay
        self.warmup_steps, self.final, self.total_steps, self.restart = warmup_steps, final, total_steps, restart

    def build(
        self, model: nn.Module, trainer_steps: float, fused: bool = True, starts: Sequence[int] = (0,)
    ) -> tuple[torch.optim.AdamW, LambdaLR]:
        """Build both for the trainable parameters of a model.

        Args:
            model: The model.
            trainer_steps: Optimizer steps that the trainer will do.
            fused: Use one kernel for the update.
            starts: Optimizer steps at which stages begin, 0 first.
        """
        total = self.total_steps or trainer_steps
        if not math.isfinite(total):
            raise ValueError("The number of steps is unlimited, so the cosine has no end; set trainer.max_steps.")
        parameters = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, fused=fused)
        begins = list(starts) if self.restart else [0]
        ends = [*begins[1:], max(int(total), begins[-1] + 1)]

        def factor(step: int) -> float:
            stage = bisect_right(begins, step) - 1
            step, length = step - begins[stage], ends[stage] - begins[stage]
            warmup = min(self.warmup_steps, length // 2)
            if step < warmup:
                return step / warmup  # from 0, as diffusers and UVA
            progress = min(1.0, (step - warmup) / max(1, length - warmup))
            return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))

        return optimizer, LambdaLR(optimizer, factor)
