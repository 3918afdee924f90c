"""Roll the model out in a simulator while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from uva_lightning.callbacks.evaluation import rehearsing, run_folder, undisturbed
from uva_lightning.callbacks.tensorboard_video import log_film
from uva_lightning.metrics.outcomes import Score, SuccessRate
from uva_lightning.module import UVAModule
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.rollouts import FIRST_TEST_SEED, RolloutResult, open_env, run_rollouts
from uva_lightning.strategies.sharded import whole_weights
from uva_lightning.video_files import side_by_side, write_mp4


class Rollout(Callback):
    """Roll out after validation, with the averaged weights where ``EMA`` keeps them.

    Logs ``rollout/score`` (mean of the maximum reward) with ``rollout/score_low`` and ``rollout/score_high`` (95 %
    bootstrap interval), ``rollout/success`` (share of solved episodes) with ``rollout/success_low`` and
    ``rollout/success_high`` (95 % Wilson interval) and ``rollout/jerk`` (of what was run, in the unit of positions per
    s^3), and writes films into the run folder, ``rollouts/step_00000500/``, and TensorBoard. The first process plays,
    the others wait.

    Args:
        env: Environment, e.g. ``pusht``.
        episodes: Episodes each time.
        seed: Seed of the first one.
        every: Roll out at every so many validations in training.
        execute: Actions of a chunk that are run before the policy decides again.
        videos: Episodes that are filmed.
        set: Of a mixture, the data set that is like the environment; the only one with actions if not given.
    """

    def __init__(
        self,
        env: str = "pusht",
        episodes: int = 20,
        seed: int = FIRST_TEST_SEED,
        every: int = 1,
        execute: int = 8,
        videos: int = 2,
        set: str | None = None,
    ) -> None:
        for name, value, low in (("episodes", episodes, 1), ("every", every, 1), ("videos", videos, 0)):
            if value < low:
                raise ValueError(f"{name} is {value}, expected at least {low}.")
        self.env, self.episodes, self.seed, self.every = env, episodes, seed, every
        self.execute, self.videos, self.set = execute, videos, set
        self._validations = 0

    @property
    def state_key(self) -> str:
        """Tell rollouts in several environments apart."""
        return self._generate_state_key(env=self.env, seed=self.seed)

    def state_dict(self) -> dict[str, Any]:
        """Keep the count, so that a resumed run plays when the whole one would."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the count."""
        self._validations = state_dict["validations"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out now, not after an hour, whether the environment can be played.

        Raises:
            ValueError: It differs from the data.
        """
        if stage in ("fit", "validate"):
            open_env(self.env, _ours(pl_module).spec.of(self.set), self.execute).close()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Play, if it is time."""
        if rehearsing(trainer):
            return
        self._validations += trainer.state.fn == TrainerFn.FITTING
        if trainer.state.fn == TrainerFn.FITTING and self._validations % self.every:
            return
        folder = run_folder(trainer) / "rollouts" / f"step_{trainer.global_step:08d}"
        measures: dict[str, float] = {}
        with whole_weights(pl_module):
            if trainer.is_global_zero:
                with undisturbed(pl_module):
                    policy = WindowPolicy(_ours(pl_module), self.seed, set=self.set)
                    result = self._play(policy)
                self._show(trainer, result, folder, policy.spec.rate_hz)
                measures = _measures(result)
            measures = trainer.strategy.broadcast(measures)  # the others wait here
        for name, value in measures.items():  # on all, since a ModelCheckpoint may watch them on all
            pl_module.log(f"rollout/{name}", value, prog_bar=name == "score")

    def _play(self, policy: WindowPolicy) -> RolloutResult:
        seeds = range(self.seed, self.seed + self.episodes)
        return run_rollouts(policy, self.env, policy.spec, seeds, self.execute, self.videos)

    def _show(self, trainer: Trainer, result: RolloutResult, folder: Path, rate_hz: float) -> None:
        if result.frames:
            for seed, frames in result.frames.items():
                write_mp4(folder / f"{self.env}_{seed}.mp4", frames, rate_hz)
            log_film(trainer, f"rollout/{self.env}", side_by_side(list(result.frames.values())), rate_hz)


def _measures(result: RolloutResult) -> dict[str, float]:
    score, solved = Score(sync_on_compute=False), SuccessRate(sync_on_compute=False)  # the others do not compute
    score.update(torch.tensor([episode.score for episode in result.episodes], dtype=torch.float64))
    solved.update(torch.tensor([episode.success for episode in result.episodes]))
    share = solved.compute()
    share["success"] = share.pop("success_rate")
    return {**score.compute(), **share, **({} if result.jerk is None else {"jerk": result.jerk})}


def _ours(module: LightningModule) -> UVAModule:
    if not isinstance(module, UVAModule):
        raise ValueError(f"Rollout got a {type(module).__name__}, expected a UVAModule; remove the callback.")
    return module
