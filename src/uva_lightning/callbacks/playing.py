"""What callbacks share that play in simulators while a model trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from uva_lightning.callbacks.evaluation import rehearsing, run_folder, undisturbed
from uva_lightning.callbacks.tensorboard_video import log_film
from uva_lightning.metrics.outcomes import Score, SuccessRate
from uva_lightning.module import UVAModule
from uva_lightning.rollouts import RolloutResult
from uva_lightning.strategies.sharded import whole_weights
from uva_lightning.video_files import side_by_side, write_mp4
from uva_lightning.whole_files import safe


class Playing(Callback, ABC):
    """Play after validation, with the averaged weights where ``EMA`` keeps them.

    Logs of all episodes ``rollout/score`` (mean of the maximum reward) with ``rollout/score_low`` and
    ``rollout/score_high`` (95 % bootstrap interval), ``rollout/success`` (share of solved episodes) with
    ``rollout/success_low`` and ``rollout/success_high`` (95 % Wilson interval) and ``rollout/jerk`` (of what was run,
    in the unit of positions per s^3). Of several scenarios it also logs ``rollout/NAME/score`` and
    ``rollout/NAME/success``. Writes films into the run folder, ``rollouts/step_00000500/``, and TensorBoard.

    Args:
        every: Play at every so many validations in training.
        execute: Actions of a chunk that are run before the policy decides again.
        videos: Episodes of each scenario that are filmed.
        set: Of a mixture, the data set that is like the environment; the only one with actions if not given.
    """

    shared: ClassVar[bool] = False
    """Whether each process plays a part; otherwise the first one plays and the others wait."""

    def __init__(self, every: int, execute: int, videos: int, set: str | None) -> None:
        for name, value, low in (("every", every, 1), ("videos", videos, 0)):
            if value < low:
                raise ValueError(f"{name} is {value}, expected at least {low}.")
        self.every, self.execute, self.videos, self.set = every, execute, videos, set
        self._validations = 0

    @abstractmethod
    def check(self, trainer: Trainer, module: UVAModule) -> None:
        """Find out now, not after an hour, whether this can be played.

        Raises:
            ValueError: It differs from the data.
            ImportError: The simulator is not installed.
        """

    @abstractmethod
    def play(self, trainer: Trainer, module: UVAModule) -> Mapping[str, RolloutResult]:
        """Play, or this process's part where that is shared: every so many-th scenario. Gives results by scenario."""

    def state_dict(self) -> dict[str, Any]:
        """Keep the count, so that a resumed run plays when the whole one would."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the count."""
        self._validations = state_dict["validations"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See ``check``."""
        if stage in ("fit", "validate"):
            self.check(trainer, self._ours(pl_module))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Play, if it is time."""
        if rehearsing(trainer):
            return
        self._validations += trainer.state.fn == TrainerFn.FITTING
        if trainer.state.fn == TrainerFn.FITTING and self._validations % self.every:
            return
        folder = run_folder(trainer) / "rollouts" / f"step_{trainer.global_step:08d}"
        measures: dict[str, float] = {}
        module = self._ours(pl_module)
        with whole_weights(pl_module):
            results = self._played(trainer, module)
            if trainer.is_global_zero:
                for name, result in results.items():
                    _show(trainer, name, result, folder, module.spec.of(self.set).rate_hz)
                measures = _measures(results)
            measures = trainer.strategy.broadcast(measures)  # the others wait here
        for name, value in measures.items():  # on all, since a ModelCheckpoint may watch them on all
            pl_module.log(f"rollout/{name}", value, prog_bar=name == "score")

    def _played(self, trainer: Trainer, module: UVAModule) -> Mapping[str, RolloutResult]:
        if not (self.shared or trainer.is_global_zero):
            return {}
        with undisturbed(module):
            own = self.play(trainer, module)
        return _gathered(own, trainer) if self.shared and trainer.world_size > 1 else own

    def _ours(self, module: LightningModule) -> UVAModule:
        if not isinstance(module, UVAModule):
            raise ValueError(
                f"{type(self).__name__} got a {type(module).__name__}, expected a UVAModule; remove the callback."
            )
        return module


def _gathered(own: Mapping[str, RolloutResult], trainer: Trainer) -> Mapping[str, RolloutResult]:
    """Give the first process what all have played, in the order of the scenarios."""
    parts: list[Any] | None = [None] * trainer.world_size if trainer.is_global_zero else None
    torch.distributed.gather_object(dict(own), parts)
    turns = zip_longest(*(part.items() for part in parts or ()))
    return dict(played for turn in turns for played in turn if played is not None)


def _show(trainer: Trainer, name: str, result: RolloutResult, folder: Path, rate_hz: float) -> None:
    if result.frames:
        for seed, frames in result.frames.items():
            write_mp4(folder / f"{safe(name)}_{seed}.mp4", frames, rate_hz)
        log_film(trainer, f"rollout/{name}", side_by_side(list(result.frames.values())), rate_hz)


def _measures(results: Mapping[str, RolloutResult]) -> dict[str, float]:
    episodes = tuple(episode for result in results.values() for episode in result.episodes)
    score, solved = Score(sync_on_compute=False), SuccessRate(sync_on_compute=False)  # the others do not compute
    score.update(torch.tensor([episode.score for episode in episodes], dtype=torch.float64))
    solved.update(torch.tensor([episode.success for episode in episodes]))
    found = {**score.compute(), **solved.compute()}
    found["success"] = found.pop("success_rate")
    jerk = replace(next(iter(results.values())), episodes=episodes).jerk
    found |= {} if jerk is None else {"jerk": jerk}
    if len(results) > 1:
        found |= {f"{name}/score": result.score for name, result in results.items()}
        found |= {f"{name}/success": result.success for name, result in results.items()}
    return found
