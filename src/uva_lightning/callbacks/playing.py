"""What callbacks share that play in simulators while a model trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from numpy.typing import NDArray
from torch import distributed

from uva_lightning.callbacks.evaluation import rehearsing, run_folder, undisturbed
from uva_lightning.callbacks.tensorboard_video import log_film
from uva_lightning.metrics.outcomes import Score, SuccessRate
from uva_lightning.module import UVAModule
from uva_lightning.rollouts import Episode
from uva_lightning.strategies.sharded import whole_weights
from uva_lightning.video_files import safe, side_by_side, write_mp4

NAME = "rollout"
LONGEST = timedelta(days=1)
"""Time that processes wait for one that plays."""
SHOWN = 4
"""TensorBoard shows every so many-th frame of a film."""


@dataclass(frozen=True)
class Played:
    """One episode.

    Args:
        scenario: Name of what was played.
        episode: How it went.
        film: u8[n, H, W, 3], where it was filmed.
    """

    scenario: str
    episode: Episode
    film: NDArray[np.uint8] | None = None


class Playing(Callback, ABC):
    """Play after validation, with the averaged weights where ``EMA`` keeps them.

    Logs ``rollout/score`` (mean of the maximum reward), ``rollout/success`` (share of solved episodes) and
    ``rollout/jerk`` (of what was run, in the unit of positions per s^3). Of one scenario also their 95 % intervals:
    ``rollout/score_low`` and ``rollout/score_high`` (bootstrap), ``rollout/success_low`` and ``rollout/success_high``
    (Wilson); of several ``rollout/SCENARIO/score`` and ``rollout/SCENARIO/success`` of each. Writes films into the run
    folder, ``rollouts/step_00000500/``, and every 4th frame into TensorBoard.

    Args:
        every: Play at every so many validations in training.
        execute: Actions of a chunk that are run before the policy decides again.
        videos: Episodes of each scenario that are filmed.
        set: Of a mixture, the data set that is like the environment; the only one with actions if not given.
        name: Stands before all that is logged, instead of ``rollout``.
    """

    def __init__(self, every: int, execute: int, videos: int, set: str | None, name: str) -> None:
        for what, value, low in (("every", every, 1), ("videos", videos, 0)):
            if value < low:
                raise ValueError(f"{what} is {value}, expected at least {low}.")
        if not name or "/" in name:
            raise ValueError(f"name is '{name}', expected one without a slash.")
        self.every, self.execute, self.videos, self.set, self.name = every, execute, videos, set, name
        self._validations, self._group = 0, None

    @abstractmethod
    def check(self, trainer: Trainer, module: UVAModule) -> None:
        """Find out now, not after an hour, whether this can be played.

        Raises:
            ValueError: It differs from the data.
            ImportError: The simulator is not installed.
        """

    @abstractmethod
    def play(self, trainer: Trainer, module: UVAModule) -> Sequence[Played]:
        """Play the part of this process: of all episodes in order a block, after those of lower ranks."""

    def state_dict(self) -> dict[str, Any]:
        """Keep the count, so that a resumed run plays when the whole one would."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the count."""
        self._validations = state_dict["validations"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what can be checked before the training.

        Raises:
            ValueError: See ``check``; or others log or watch the same numbers in a way that cannot work.
            ImportError: See ``check``.
        """
        if stage in ("fit", "validate"):
            self._refuse_misfits(trainer)
            _together(trainer, lambda: self.check(trainer, self._ours(pl_module)))
            if trainer.world_size > 1 and self._group is None:
                self._group = distributed.new_group(backend="gloo", timeout=LONGEST)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Play, if it is time."""
        if rehearsing(trainer):
            return
        self._validations += trainer.state.fn == TrainerFn.FITTING
        if trainer.state.fn == TrainerFn.FITTING and self._validations % self.every:
            return
        module, step = self._ours(pl_module), f"step_{trainer.global_step:08d}"
        folder = run_folder(trainer) / "rollouts" / step / ("" if self.name == NAME else self.name)
        rate_hz = module.spec.of(self.set).rate_hz
        with whole_weights(pl_module), undisturbed(pl_module):
            own = self.play(trainer, module)
        played = self._gathered([_filmed(one, folder, rate_hz) for one in own], trainer)
        for scenario, episodes in played.items():
            if films := [one.film for one in episodes if one.film is not None]:
                log_film(trainer, f"{self.name}/{scenario}", side_by_side(films), rate_hz / SHOWN)
        measures = [_measures(played) if played else {}]
        if trainer.world_size > 1:
            distributed.broadcast_object_list(measures, group=self._group)  # a ModelCheckpoint may watch them on all
        for name, value in measures[0].items():
            pl_module.log(f"{self.name}/{name}", value, prog_bar=name == "score")

    def _gathered(self, own: Sequence[Played], trainer: Trainer) -> dict[str, list[Played]]:
        """Give the first process all episodes by scenario, in order; the others nothing."""
        parts: list[Any] | None = [own]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size if trainer.is_global_zero else None
            distributed.gather_object(own, parts, group=self._group)
        found: dict[str, list[Played]] = {}
        for one in chain.from_iterable(parts or ()):
            found.setdefault(one.scenario, []).append(one)
        return found

    def _refuse_misfits(self, trainer: Trainer) -> None:
        callbacks: Sequence[Any] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it elsewhere
        same = [one for one in callbacks if isinstance(one, Playing) and one.name == self.name]
        if len(same) > 1:
            raise ValueError(
                f"{len(same)} callbacks log '{self.name}/score', expected one; give each a name of its own: "
                "init_args.name."
            )
        for one in callbacks:
            monitor, looks = str(getattr(one, "monitor", "")), getattr(one, "_every_n_epochs", 1) or 1
            lenient = not getattr(one, "strict", True)
            if monitor.startswith(f"{self.name}/") and looks % self.every and not lenient:
                raise ValueError(
                    f"{type(one).__name__} looks for {monitor} every {looks} validations and every is {self.every}, "
                    "expected a number whenever it looks; set every: 1 and validate more rarely "
                    "(trainer.check_val_every_n_epoch), or set every_n_epochs of the ModelCheckpoint."
                )

    def _ours(self, module: LightningModule) -> UVAModule:
        if not isinstance(module, UVAModule):
            raise ValueError(
                f"{type(self).__name__} got a {type(module).__name__}, expected a UVAModule; remove the callback."
            )
        return module


def _together(trainer: Trainer, check: Callable[[], None]) -> None:
    """Check on all processes; where one fails, all end, and none waits for it."""
    trouble: Exception | None = None
    try:
        check()
    except Exception as error:
        trouble = error
    if trainer.world_size > 1:
        told: list[Any] = [None] * trainer.world_size
        distributed.all_gather_object(told, trouble and str(trouble))
        failed = [f"rank {rank}: {words}" for rank, words in enumerate(told) if words is not None]
        if failed and trouble is None:
            raise ValueError(f"Other processes cannot play; {failed[0]}")
    if trouble is not None:
        raise trouble


def _filmed(one: Played, folder: Path, rate_hz: float) -> Played:
    """Write the film, and keep what TensorBoard shows of it."""
    if one.film is None:
        return one
    write_mp4(folder / f"{safe(one.scenario)}_{one.episode.seed}.mp4", one.film, rate_hz)
    return replace(one, film=one.film[::SHOWN])


def _measures(played: Mapping[str, Sequence[Played]]) -> dict[str, float]:
    episodes = [one.episode for found in played.values() for one in found]
    measures = _of(episodes)
    jerks = [episode.jerk for episode in episodes if episode.jerk is not None]
    measures |= {"jerk": float(np.mean(jerks))} if len(jerks) == len(episodes) else {}
    if len(played) > 1:  # scenarios may share their starts: no interval of them together
        measures = {name: value for name, value in measures.items() if not name.endswith(("_low", "_high"))}
        each = {scenario: _of([one.episode for one in found]) for scenario, found in played.items()}
        measures |= {f"{scenario}/{name}": of[name] for scenario, of in each.items() for name in ("score", "success")}
    return measures


def _of(episodes: Sequence[Episode]) -> dict[str, float]:
    score, solved = Score(sync_on_compute=False), SuccessRate(sync_on_compute=False)  # the others do not compute
    score.update(torch.tensor([episode.score for episode in episodes], dtype=torch.float64))
    solved.update(torch.tensor([episode.success for episode in episodes]))
    share = solved.compute()
    share["success"] = share.pop("success_rate")
    return {**score.compute(), **share}
