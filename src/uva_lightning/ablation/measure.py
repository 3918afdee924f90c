"""Measure every variant alike: losses of all objectives on held-out windows, and the functions of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from uva_lightning.ablation.plan import Config, class_of
from uva_lightning.callbacks.rollout import Rollout
from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.training_data import TrainingData
from uva_lightning.metrics.comparison import HIGHER, LOWER, HeldOut, video_functions
from uva_lightning.model.checkpoint import build, read
from uva_lightning.model.tokenizers.base import encode_where
from uva_lightning.module import UVAModule
from uva_lightning.objective import Objective
from uva_lightning.policy.planner import Planner
from uva_lightning.policy.rewards import Score
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.rollouts import Actor, run_rollouts
from uva_lightning.sampler import ObjectiveSampler
from uva_lightning.types import Batch

PROPOSALS = 8
"""Chunks that the planner chooses from, as ``uva functions``."""
_PARTS, _BALANCER = "objectives.", "balancer."


@dataclass(frozen=True)
class Value:
    """A number that one run got.

    Args:
        measure: What was measured, with its unit.
        value: The number.
        sign: ``HIGHER`` or ``LOWER`` is better.
    """

    measure: str
    value: float
    sign: float


class Measure:
    """Measure trained variants of one experiment.

    Args:
        config: The experiment with all its objectives.
        windows: Held-out windows, evenly spaced.
        starts: Rollouts of policy and planner each; 0 leaves the functions out.

    Raises:
        UserError: The training is shorter than the sampler's stages, or there are no held-out windows.
    """

    def __init__(self, config: Config, windows: int, starts: int) -> None:
        self.config, self.starts = config, starts
        self.rollout = _rollout(config) if starts else None
        text = yaml.safe_dump(config | {"model": config["model"] | {"balancer": None}}, sort_keys=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # of an objective's own parameters where a variant does not have it
            self.module, data = build(text)
        self.objectives: Mapping[str, Objective] = self.module.sampler.objectives
        computing = {key: config["trainer"][key] for key in ("accelerator", "precision")}
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        self.trainer = Trainer(devices=1, enable_checkpointing=False, **computing, **quiet)  # type: ignore[arg-type]
        data.prepare_data()
        data.setup("validate")
        self._batches, self._encoded = _spaced(data, windows), ("", list[Batch]())
        if not self._batches:
            raise UserError("The data have no held-out windows, expected some to compare on; raise data.val_ratio.")
        self._held_out: HeldOut | None = None
        if self.rollout is not None and {"video", "action"} <= set(self.module.heads):
            self._held_out = _real_windows(data.chosen(self.rollout.set), windows // 2)

    def __call__(self, checkpoint: Path, trained: Config) -> dict[str, dict[str, Value]]:
        """Measure one run.

        Args:
            checkpoint: Its last one; the averaged weights are used where the run averaged them.
            trained: Its config.

        Returns:
            ``losses``, as ``objective/term``, and ``functions``, each by name.
        """
        self._load(checkpoint, list(trained["model"]["objectives"]))
        return {"losses": self._losses(), "functions": self._functions()}

    def _load(self, path: Path, objectives: list[str]) -> None:
        """Take the weights of a run; parts of its own, such as a balancer's, are left."""
        checkpoint = read(path)
        own = [name for name in self.config["model"]["objectives"] if isinstance(self.objectives[name], nn.Module)]
        theirs = [name for name in own if name in objectives]
        state = renumbered(checkpoint["state_dict"], own, theirs)
        self.module.on_load_checkpoint(checkpoint)
        result = self.module.load_state_dict(state, strict=False)
        missing = [key for key in result.missing_keys if not key.startswith((_PARTS, _BALANCER))]
        if missing or result.unexpected_keys:
            raise UserError(
                f"{path} lacks {len(missing)} tensors and has {len(result.unexpected_keys)} others, such as "
                f"'{(missing + result.unexpected_keys)[0]}', expected those of the experiment; delete the run's folder."
            )
        self.module.to(self.trainer.strategy.root_device).eval()

    def _losses(self) -> dict[str, Value]:
        """Let every window serve every objective in turn, with the same masks and noise in every run."""
        encoded, losses, sampler = self._latents(), dict[str, Value](), self.module.sampler
        try:
            for name, objective in self.objectives.items():
                usable = [batch for batch in encoded if self._serves(batch, objective)]
                if not usable:
                    raise UserError(
                        f"No held-out window has what objective '{name}' needs ({', '.join(objective.eligible())}); "
                        "raise --windows or data.val_ratio."
                    )
                self.module.sampler = ObjectiveSampler({name: objective})
                loader: DataLoader[Batch] = DataLoader(usable, batch_size=None)  # type: ignore[arg-type]
                found = self.trainer.validate(self.module, dataloaders=loader, verbose=False)[0]
                prefix = f"val/{name}/"
                losses |= {
                    key.removeprefix("val/"): Value(f"held-out loss {key.removeprefix('val/')}", value, LOWER)
                    for key, value in found.items()
                    if key.startswith(prefix) and "/" not in key.removeprefix(prefix)
                }
        finally:
            self.module.sampler = sampler
        return losses

    def _serves(self, batch: Batch, objective: Objective) -> bool:
        present = self.module.present(batch)
        return all(name in present and bool(present[name].all()) for name in objective.eligible())

    def _latents(self) -> list[Batch]:
        """Encode the windows, once for all runs: they saw the same data, so their tokenizers are the same."""
        key = self.module.tokenizer.fingerprint()
        if self._encoded[0] != key:
            self._encoded = key, [_encode(self.module, batch) for batch in self._batches]
        return self._encoded[1]

    def _functions(self) -> dict[str, Value]:
        """Measure what ``uva functions`` does, without the baselines."""
        rollout = self.rollout
        if rollout is None:
            return {}
        module = self.module.to(self.trainer.strategy.root_device).eval()
        policy = WindowPolicy(module, dtype=torch.bfloat16, set=rollout.set)
        seeds = range(rollout.seed, rollout.seed + self.starts)

        def play(actor: Actor) -> Value:
            score = run_rollouts(actor, rollout.env, policy.spec, seeds, rollout.execute, progress=False).score
            return Value(f"mean of the maximum reward, {self.starts} starts", score, HIGHER)

        values = {"robot policy": play(policy)}
        if self._held_out is not None:
            if (goal := _goal(rollout.env)) is not None:
                values["policy + planner"] = play(Planner(policy, goal, PROPOSALS))
            for name, row in video_functions(policy, self._held_out).items():
                values[name] = Value(row.measure, float(row.value.mean()), row.sign)
        return values


def renumbered(state: Mapping[str, Tensor], own: list[str], theirs: list[str]) -> dict[str, Tensor]:
    """Find the weights of a variant their places in the whole experiment, and leave those of its balancer.

    Args:
        state: Of the variant; weights of an objective stand under its number.
        own: Objectives with weights of the whole experiment, in order.
        theirs: Those that the variant has, in order.
    """
    placed: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith(_PARTS):
            number, _, rest = key.removeprefix(_PARTS).partition(".")
            placed[f"{_PARTS}{own.index(theirs[int(number)])}.{rest}"] = value
        elif not key.startswith(_BALANCER):
            placed[key] = value
    return placed


def _rollout(config: Config) -> Rollout | None:
    """Find how the experiment rolls out, which says which environment the data are like."""
    entries = [entry for entry in config["trainer"]["callbacks"] or [] if issubclass(class_of(entry), Rollout)]
    return Rollout(**entries[0].get("init_args") or {}) if entries else None


def _goal(env: str) -> Score | None:
    """Give what the planner judges imagined frames by, if the environment's goal is always the same."""
    from uva_lightning.envs import goal_score  # needs the simulator

    try:
        score: Score = goal_score(env)
    except ValueError:
        return None
    return score


def _spaced(data: TrainingData, windows: int) -> list[Batch]:
    """Keep evenly spaced batches of the held-out ones, so that they hold about so many windows."""
    loader = data.val_dataloader()
    first = next(iter(loader), None)
    if first is None:
        return []
    count = min(len(loader), max(1, round(windows / len(first))))
    kept = {round(number) for number in torch.linspace(0, len(loader) - 1, count).tolist()}
    return [batch for number, batch in enumerate(loader) if number in kept]


def _real_windows(source: RobotDataModule, windows: int) -> HeldOut | None:
    """Take windows in which every frame is a real one; there are none where latents stand in place of pictures."""
    if not source.has_pictures:
        return None
    source.forget()
    return HeldOut.from_data(source, windows)


def _encode(module: UVAModule, batch: Batch) -> Batch:
    frames: dict[str, Any] = dict(batch.latents)
    for name, camera in module.cameras.items():
        if camera in batch.video:
            moments = encode_where(module.encode_frames, batch.video[camera], batch.present.get(name))
            frames[camera] = moments.cpu()
    return replace(batch, video={}, latents=frames)
