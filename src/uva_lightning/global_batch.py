"""The batch of all processes together, and the samples of it that this process has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class GlobalBatch:
    """Where the samples of this process stand among those of all.

    Args:
        samples: Samples ``b`` of this process; every process has equally many.
        rank: Number of this process.
        world: Number of processes.
        in_turns: Whether the processes take samples in turns, as in validation, and not a block each, as in training.
        alike: Whether all samples have the same modalities, so that what those of other processes have is known.
        device: Where numbers lie when processes exchange them.
    """

    samples: int
    rank: int = 0
    world: int = 1
    in_turns: bool = False
    alike: bool = False
    device: torch.device = torch.device("cpu")

    @property
    def total(self) -> int:
        """Samples of all processes."""
        return self.samples * self.world

    @property
    def places(self) -> Tensor:
        """Places of this process's samples in the whole batch, i64[b]."""
        here = torch.arange(self.samples)
        return here * self.world + self.rank if self.in_turns else here + self.rank * self.samples

    def every(self, flags: Tensor) -> Tensor:
        """Give the flags of all samples, bool[k, total], of those of this process, bool[k, b]; both on the CPU.

        Processes talk to each other only where samples differ.

        Raises:
            ValueError: Samples differ although the data said that they are alike.
        """
        if self.world == 1:
            return flags
        if self.alike:
            if not flags.eq(flags[:, :1]).all():
                raise ValueError(
                    "Samples of one batch differ in what they have, but data.samples() of the datamodule has one "
                    "kind of sample only; let it give one sample of each kind."
                )
            return flags[:, :1].expand(-1, self.total)
        parts = [torch.empty(flags.shape, dtype=torch.uint8, device=self.device) for _ in range(self.world)]
        distributed.all_gather(parts, flags.to(self.device, torch.uint8).contiguous())
        whole = torch.stack(parts, dim=2 if self.in_turns else 1)  # [k, b, world] or [k, world, b]
        return whole.flatten(1).bool().cpu()

    def agree(self, number: int) -> bool:
        """Tell whether all processes give the same whole number, below 2^63."""
        if self.world == 1:
            return True
        largest = torch.tensor([number, -number], device=self.device)
        distributed.all_reduce(largest, distributed.ReduceOp.MAX)
        return bool(largest[0] == -largest[1])

    def sums(self, values: Tensor) -> Tensor:
        """Sum f32[n] over the processes; nothing waits for the device, and no gradient passes."""
        values = values.detach().clone()
        if self.world > 1:
            distributed.all_reduce(values)
        return values
