"""Tell the parts of a training step apart, from outside of the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from uva_lightning import step_clock
from uva_lightning.step_clock import StepClock


@dataclass
class Lap:
    """What was done in some time.

    Args:
        seconds: Time of each part; together all of it.
        samples: Samples that this process trained on.
        batches: Batches of this process.
        steps: Updates of the weights.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    samples: int = 0
    batches: int = 0
    steps: int = 0

    @property
    def total(self) -> float:
        """All of the time in s."""
        return sum(self.seconds.values())


class StepParts(Callback, ABC):
    """Follow a step through the model, and count its arithmetic once.

    The calls of tokenizer, transformer and heads are wrapped while a step runs, and a hook on the joint latent tells
    when its gradient is there, which is where the heads' backward pass ends and the transformer's begins. Validation
    does not count.

    Args:
        count: Count the arithmetic.

    Attributes:
        flops: FLOPs of a sample in each part, forward and backward, of the first batch and again of the first batch of
            each stage of a curriculum; empty before. What activation checkpointing computes again is in it.
    """

    def __init__(self, count: bool = True) -> None:
        self.count = count
        self.flops: dict[str, float] = {}
        self._clock = StepClock(torch.device("cpu"))
        self._lap, self._step = Lap(), 0
        self._calls: list[Callable[[], None]] = []
        self._averages: list[Callable[[], None]] = []
        self._handles: list[Any] = []

    @abstractmethod
    def batch_done(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do something with the lap, after a batch whose arithmetic was not counted."""

    def lap(self) -> Lap:
        """Give what was done since the last lap, and begin a new one."""
        done, self._lap = self._lap, Lap()
        done.seconds = self._clock.lap()
        return done

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.flops, self._lap, self._step = {}, Lap(), trainer.global_step
        self._clock = StepClock(pl_module.device)
        callbacks: list[Any] = getattr(trainer, "callbacks", [])
        for callback in callbacks:
            if isinstance(callback, WeightAveraging):
                self._averages.append(_wrap(callback, "on_train_batch_end", self._timed(step_clock.AVERAGE)))
        for optimizer in trainer.optimizers:
            self._handles.append(optimizer.register_step_post_hook(lambda *_: self._switch(step_clock.OTHER)))
        self._clock.switch(step_clock.DATA)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Wrap the calls; count the arithmetic where it may have changed."""
        self._clock.switch(step_clock.OTHER)
        module: Any = pl_module
        for name in ("encode", "sample"):
            self._calls.append(_wrap(module.tokenizer, name, self._timed(step_clock.TOKENIZER)))
        compiled = getattr(module.transformer, "_compiled_call_impl", None) is not None  # would trace what it calls
        call = "_compiled_call_impl" if compiled else "forward"
        self._calls.append(_wrap(module.transformer, call, self._timed(step_clock.TRUNK, self._watch)))
        for head in module.heads.values():
            self._calls.append(_wrap(head, "loss", self._timed(step_clock.HEADS)))
        progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        if self.count and (not self.flops or int(progress.processed) in module.sampler.starts):
            self._clock.flops.begin()

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Begin with the heads: they come last."""
        self._switch(step_clock.HEADS_BACKWARD)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the backward pass."""
        self._switch(step_clock.OTHER)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Begin with clipping; a hook of the optimizer tells the end of the update."""
        self._switch(step_clock.OPTIMIZER)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the samples and wait for the next."""
        self._switch(step_clock.OTHER)
        self._unwrap()
        if self._clock.flops.counting:
            counted = self._clock.flops.end(step_clock.OTHER)
            self.flops = {part: flops / len(batch) for part, flops in counted.items()}
            self._step = trainer.global_step
            self.lap()  # counting takes time
        else:
            self._lap.samples += len(batch)
            self._lap.batches += 1
            self._lap.steps += trainer.global_step - self._step
            self._step = trainer.global_step
            self.batch_done(trainer, pl_module)
        self._clock.switch(step_clock.DATA)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._clock.pause()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on, unless this is a rehearsal before training."""
        if not trainer.sanity_checking:
            self._clock.switch(step_clock.DATA)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave no trace."""
        self._leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no trace."""
        self._leave()

    def _leave(self) -> None:
        self._unwrap()
        if self._clock.flops.counting:
            self._clock.flops.end(step_clock.OTHER)
        for undo in self._averages:
            undo()
        for handle in self._handles:
            handle.remove()
        self._averages.clear()
        self._handles.clear()
        self._clock.pause()

    def _unwrap(self) -> None:
        """Take the wraps off between steps: a copy of the model that is made there must not have them."""
        for undo in reversed(self._calls):
            undo()
        self._calls.clear()

    def _switch(self, part: str) -> None:
        if not self._clock.paused:
            self._clock.switch(part)

    def _timed(self, part: str, then: Callable[[Any], None] | None = None) -> Callable[[Callable[..., Any]], Any]:
        def wrapper(call: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(call)
            def timed(*args: Any, **kwargs: Any) -> Any:
                with self._clock.during(part):
                    result = call(*args, **kwargs)
                if then is not None:
                    then(result)
                return result

            return timed

        return wrapper

    def _watch(self, latent: Tensor) -> None:
        """Note when the gradient of the joint latent is there."""
        if latent.requires_grad:
            latent.register_hook(self._through_the_heads)

    def _through_the_heads(self, gradient: Tensor) -> None:
        if self._clock.part != step_clock.HEADS_BACKWARD:
            return  # a balancer asks for gradients on the latent
        self._clock.switch(step_clock.TRUNK_BACKWARD)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # callbacks run in their order after the last gradient; DDP adds its own, which waits, with that gradient
            engine: Any = torch.autograd.Variable._execution_engine
            engine.queue_callback(lambda: self._switch(step_clock.SYNCHRONISATION))


def _wrap(owner: Any, name: str, wrapper: Callable[[Callable[..., Any]], Any]) -> Callable[[], None]:
    """Wrap a method of one object.

    Returns:
        What takes the wrap off.
    """
    own, before = name in vars(owner), getattr(owner, name)
    setattr(owner, name, wrapper(before))

    def undo() -> None:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)

    return undo
