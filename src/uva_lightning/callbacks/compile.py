"""Compile the trunk and the heads for training, and count what is compiled again."""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch._dynamo import config as dynamo_config
from torch._dynamo.utils import counters, get_compilation_metrics
from torch._functorch import config as functorch_config

from uva_lightning.model.heads.network import DenoisingMLP
from uva_lightning.model.pieces import Compiled, piece_size
from uva_lightning.model.transformer import Block
from uva_lightning.module import UVAModule

RECOMPILATIONS, GRAPHS = "compile/recompilations", "compile/graphs"
WARM_UP = 2
"""Batches in which graphs are expected to be made."""
MODES = ("default", "max-autotune-no-cudagraphs")


class Compile(Callback):
    """Compile the blocks of the trunk and the denoising networks of the heads, which do nearly all of the work.

    Each kind of part is one graph, used by all of its kind: the compiler is done in a minute, whatever the depth.
    Weights, names, checkpoints, EMA and gradient checkpointing stay as they are. Shapes never change: the trunk sees
    whole batches, and the heads, whose rows differ from step to step, work on them in pieces of one size, the last one
    filled up. Validation, rollouts and sampling run as written.

    Logs ``compile/graphs``, made so far, and ``compile/recompilations``, those made after the first two batches of this
    run or resume; each is the sum over all processes. If there are any, the first one is told with its reason.

    Args:
        trunk: Compile the trunk.
        heads: Compile the heads.
        pieces: Pieces into which the rows of a head are cut where it serves a whole batch. More waste less work on rows
            that are filled in, half a piece on average, but start more kernels.
        mode: ``default``, or ``max-autotune-no-cudagraphs`` to search for faster kernels for minutes.
        backend: What makes the graphs; ``inductor`` makes kernels, ``aot_eager`` serves to look for errors.
    """

    def __init__(
        self,
        trunk: bool = True,
        heads: bool = True,
        pieces: int = 16,
        mode: str = "default",
        backend: str = "inductor",
    ) -> None:
        if pieces < 1:
            raise ValueError(f"Compile.pieces is {pieces}, expected a positive number such as 16.")
        if mode not in MODES:
            raise ValueError(
                f"Compile.mode is '{mode}', expected one of {', '.join(MODES)}; the modes with CUDA graphs overwrite "
                "the result of one piece by the next."
            )
        self.trunk, self.heads, self.pieces, self.mode, self.backend = trunk, heads, pieces, mode, backend
        self._parts: list[nn.Module] = []
        self._batches = self._before = self._expected = 0
        self._told = False
        self._settings = ExitStack()

    @property
    def recompilations(self) -> int:
        """Graphs made in this process after the first two batches."""
        return max(0, self.graphs - self._expected) if self._batches > WARM_UP else 0

    @property
    def graphs(self) -> int:
        """Graphs made in this process since training began."""
        return int(counters["stats"]["unique_graphs"]) - self._before

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look for what the compiler needs.

        Raises:
            ValueError: It is missing, or there is nothing to compile.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, UVAModule):
            raise ValueError(f"Compile got a {type(pl_module).__name__}, expected a UVAModule; remove the callback.")
        if self.backend == "inductor" and (missing := _missing(trainer.strategy.root_device)):
            raise ValueError(f"Compile needs {missing}, which is not installed; install it or remove the callback.")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Prepare everything before the first batch: its size is the size of all."""
        if not self._parts and isinstance(pl_module, UVAModule):
            self._install(pl_module, len(batch))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count."""
        self._batches += 1
        if self._batches <= WARM_UP:
            self._expected = self.graphs
        elif self.recompilations:
            self._tell(trainer)
        interval: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning with setattr
        if interval and trainer.global_step % interval == 0:
            for name, value in ((RECOMPILATIONS, self.recompilations), (GRAPHS, self.graphs)):
                pl_module.log(name, float(value), batch_size=1, sync_dist=True, reduce_fx="sum")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take it back, also after an error."""
        for part in self._parts:
            part.__dict__.pop("forward", None)
        self._parts = []
        self._settings.close()

    def _install(self, module: UVAModule, batch: int) -> None:
        self._batches, self._before = 0, int(counters["stats"]["unique_graphs"])
        # A block is small enough: DDP can send its gradients when it is done, without cutting its graph in pieces.
        self._settings.enter_context(dynamo_config.patch(optimize_ddp=False))
        # Balancers may go backward through a head more than once, so nothing that it needs may be overwritten.
        self._settings.enter_context(functorch_config.patch(donated_buffer=False))
        if self.trunk:
            run = self._compiled(Block)
            for part in module.transformer.modules():
                if isinstance(part, Block):
                    self._replace(part, Compiled(part, run))
        if self.heads:
            run = self._compiled(DenoisingMLP)
            for name in module.heads:
                head = module.head(name)
                size = piece_size(batch * head.most_rows * head.denoiser.draws, self.pieces)
                for part in head.modules():
                    if isinstance(part, DenoisingMLP):
                        self._replace(part, Compiled(part, run, size))
        rank_zero_info(f"Compile: {len(self._parts)} parts of the model are compiled in the first steps.")

    def _compiled(self, kind: type[nn.Module]) -> Any:
        mode = self.mode if self.backend == "inductor" and self.mode != "default" else None
        return torch.compile(kind.forward, dynamic=False, mode=mode, backend=self.backend)

    def _replace(self, part: nn.Module, compiled: Compiled) -> None:
        part.forward = compiled
        self._parts.append(part)

    def _tell(self, trainer: Trainer) -> None:
        if self._told:
            return
        self._told = True
        reasons = [getattr(entry, "recompile_reason", None) for entry in get_compilation_metrics()]
        reason = " ".join(next((text for text in reversed(reasons) if text), "for an unknown reason").split())
        warnings.warn(
            f"Compile: rank {trainer.global_rank} compiled again at batch {self._batches} of this run ({reason}); "
            "every time costs seconds, so give batches of one shape, or remove the callback.",
            stacklevel=2,
        )


def _missing(device: torch.device) -> str:
    """Name what is needed to make kernels for a device and is not there."""
    if device.type == "cuda":
        return "" if importlib.util.find_spec("triton") else "triton"
    known = (os.environ.get("CXX"), "g++", "clang++")
    return "" if any(name and shutil.which(name) for name in known) else "a C++ compiler such as g++"
