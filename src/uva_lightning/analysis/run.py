"""Measure every checkpoint; each measurement is kept when it is done, so that the same call goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tqdm.auto import tqdm

from uva_lightning.analysis.capture import fields
from uva_lightning.analysis.checkpoints import Subject, training
from uva_lightning.analysis.episodes import Windows, cut, recorded
from uva_lightning.analysis.latents import features, probe
from uva_lightning.analysis.video import measure
from uva_lightning.envs.games import Start
from uva_lightning.envs.perturb import EDITS, LOOKS
from uva_lightning.envs.vector import Workers
from uva_lightning.evaluation.checkpoints import Checkpoint, Given, untrained
from uva_lightning.evaluation.content import difference
from uva_lightning.evaluation.journal import Journal, key_of
from uva_lightning.evaluation.run import Evaluation
from uva_lightning.evaluation.suite import Scenario
from uva_lightning.metrics.comparison import HeldOut
from uva_lightning.metrics.intervals import bootstrap_mean
from uva_lightning.model.checkpoint import before_training, load_module, read
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.results import versions
from uva_lightning.rollouts import FIRST_TEST_SEED, RolloutResult

EXECUTE = 8
"""Actions of each chunk that are run, as in ``uva eval``."""
EPISODES = "episodes"
"""Folder of the episodes that are probed."""
VIDEO, LATENTS, UNTRAINED, SUCCESS = "video", "latents", "untrained", "success"
"""Parts of a row."""
_NO_MATTER = ("balancer", "optimizer", "sampler", "seed", "start")  # to a model before its training


@dataclass(frozen=True)
class Asked:
    """What is measured.

    Args:
        env: Environment to probe and to play in.
        changes: Visual changes of it that are played, too.
        episodes: Episodes of each; 0 plays none.
        probes: Episodes to probe on; 0 probes nothing.
        windows: Held-out windows for video; 0 leaves video out.
        device: Where the models run.
        set: Data set of a mixture.
    """

    env: str
    changes: tuple[str, ...]
    episodes: int
    probes: int
    windows: int
    device: str
    set: str | None = None


def changes_of(env: str) -> tuple[str, ...]:
    """Name the visual changes that an environment draws itself, or those of any picture."""
    from uva_lightning import envs

    game = envs.make(env)
    found = LOOKS if hasattr(game.unwrapped, "look") else EDITS
    game.close()
    return tuple(found)


class Analysis:
    """Measure checkpoints in one folder.

    Args:
        asked: What is measured.
        out: Folder; it is there.
        journal: Holds what is done, and takes what is new.
        data: Where held-out windows are taken from; the data of the first checkpoint's training where left out.

    Attributes:
        left_out: What could not be measured, with the reason.
    """

    def __init__(self, asked: Asked, out: Path, journal: Journal, data: Path | None = None) -> None:
        self.asked, self.out, self.journal, self.data = asked, out, journal, data
        self.left_out: dict[str, str] = {}
        self._versions = versions()
        self._windows: Windows | None = None
        self._real: HeldOut | None = None

    def __call__(self, subjects: Sequence[Subject], pool: Workers | None) -> list[dict[str, Any]]:
        """Measure all, and once per run the model before its training.

        Args:
            subjects: Checkpoints.
            pool: Simulates; not needed where no episodes are played.

        Returns:
            One row per checkpoint.
        """
        self._first, rows = subjects[0], []
        with tqdm(total=len(subjects), desc="checkpoints", unit="checkpoint") as bar:
            for subject in subjects:
                bar.set_postfix_str(subject.name)
                rows.append(self._one(subject, pool, bar))
                bar.update()
        return rows

    def _one(self, subject: Subject, pool: Workers | None, bar: Any) -> dict[str, Any]:
        contender = Checkpoint(
            Given(subject.name, subject.path), EXECUTE, self.asked.device, FIRST_TEST_SEED, self.asked.set
        )
        policy = contender.policy
        row: dict[str, Any] = {"run": subject.run, "step": subject.step, "checkpoint": str(subject.path)}
        row |= {"sha256": subject.sha256, "training": training(policy.module, subject.step)}

        def step(name: str, facts: Mapping[str, Any], measured: Callable[[], dict[str, Any]]) -> None:
            bar.set_postfix_str(f"{subject.name}: {name}")
            row[name] = self._kept({"part": name, "set": policy.set, **facts}, measured, f"{subject.name}: {name}")

        own, probed = {"sha256": subject.sha256}, {"env": self.asked.env, "probes": self.asked.probes}
        if self.asked.windows:
            source = self.data.resolve() if self.data else yaml.safe_load(read(self._first.path)["config"])["data"]
            held = {"windows": self.asked.windows, "data": str(source)}
            step(VIDEO, own | held, lambda: self._video(policy))
        if self.asked.probes:
            step(LATENTS, own | probed, lambda: self._latents(policy))
            step(UNTRAINED, _model(subject, policy) | probed, lambda: self._latents(self._before(subject)))
        if self.asked.episodes and pool is not None:
            bar.set_postfix_str(f"{subject.name}: rollouts")
            row[SUCCESS] = self._success(contender, pool)
        return row

    def _kept(self, facts: Mapping[str, Any], measured: Callable[[], dict[str, Any]], name: str) -> Any:
        """Measure what is not in the journal; what cannot be measured is left out with the reason."""
        key = key_of({**facts, "versions": self._versions})
        if key not in self.journal.known:
            try:
                self.journal.add(key, measured())
            except (ValueError, ImportError) as error:
                self.left_out[name] = str(error)
                return None
        return self.journal.known[key]

    def _video(self, policy: WindowPolicy) -> dict[str, Any]:
        if next(iter(policy.module.cameras)) in untrained(policy.module):
            raise ValueError("no loss has trained a video head, its weights are the first ones.")
        return measure(policy, self._held_out())

    def _latents(self, policy: WindowPolicy) -> dict[str, Any]:
        """Probe every layer and sum up the attention."""
        windows = self._probed(policy)
        found, attention = features(policy, windows)
        names = tqdm(found, desc="layers", unit="layer", leave=False)
        layers = {name: probe(found[name].to(policy.module.device), windows) for name in names}
        grid = fields(policy.module.sizes[next(iter(policy.module.cameras))].grid)
        told = {"windows": len(windows.episodes), "fields": list(grid)}
        return {**told, "layers": layers, "attention": attention}

    def _before(self, subject: Subject) -> WindowPolicy:
        return WindowPolicy(before_training(subject.path).to(self.asked.device), set=self.asked.set)

    def _probed(self, policy: WindowPolicy) -> Windows:
        if self._windows is None:
            count = self.asked.probes
            with tqdm(total=count, desc="episodes to probe", unit="episode", leave=False) as bar:
                played = recorded(self.out / EPISODES, self.asked.env, policy.spec, count, bar.update)
            self._windows = cut(played, policy.spec)
        return self._windows

    def _held_out(self) -> HeldOut:
        """Take the held-out windows of the first checkpoint; all have the same contract."""
        if self._real is None:
            source = load_module(self._first.path)[1].chosen(self.asked.set)
            if self.data is not None:
                source.move_to(self.data)
            if not source.path.exists():
                raise ValueError(f"The data of the training, {source.path}, are not here; set --data.")
            self._real = HeldOut.from_data(source, self.asked.windows)
        return self._real

    def _success(self, contender: Checkpoint, pool: Workers) -> dict[str, Any]:
        """Play, with and without visual changes, from the same starts."""
        asked = self.asked
        starts = [Start(seed) for seed in range(FIRST_TEST_SEED, FIRST_TEST_SEED + asked.episodes)]
        names = [asked.env, *(f"{asked.env}:{change}" for change in asked.changes)]
        scenarios = [Scenario(name, name, starts) for name in names]
        with tqdm(total=len(names) * len(starts), desc="rollouts", unit="episode", leave=False) as bar:
            outcome = Evaluation(self.out, pool, videos=0)(scenarios, [contender], self.journal, bar.update)
        for scenario, who, why in outcome.left_out:
            self.left_out.setdefault(f"{scenario}, {who}", why)
        played = {name: results[contender.name] for name, results in outcome.results.items()}
        return summary(played, asked.env)


def _model(subject: Subject, policy: WindowPolicy) -> dict[str, Any]:
    """Give what the model before its training follows from; checkpoints of a run share it."""
    config = yaml.safe_load(read(subject.path)["config"])["model"]
    model = {name: value for name, value in config.items() if name not in _NO_MATTER}
    return {"model": model, "fitted": policy.module.tokenizer.fingerprint()}


def summary(played: Mapping[str, RolloutResult], plain: str) -> dict[str, Any]:
    """Give each scenario's numbers, and the mean over the changed ones: ``changed`` and ``change``, start by start.

    Both are of the score; with ``success`` before their names they are of the share of solved episodes.
    """
    scenarios = {}
    for name, result in played.items():
        record = result.record()
        kept = {key: record[key] for key in ("score", "score_interval", "success", "success_interval")}
        scenarios[name] = {**kept, "episodes": [asdict(episode) for episode in result.episodes]}
        if name != plain and plain in played:
            scenarios[name]["change"] = difference(result, played[plain])
    found: dict[str, Any] = {"scenarios": scenarios}
    changed = [name for name in played if name != plain]
    if plain in played and changed:
        for measure, prefix in (("score", ""), ("success", "success ")):
            values = {name: [float(getattr(one, measure)) for one in played[name].episodes] for name in played}
            mean = np.mean([values[name] for name in changed], axis=0)  # of each start
            for name, one in (("changed", mean), ("change", mean - values[plain])):
                found[prefix + name] = {"value": float(one.mean()), "interval": list(bootstrap_mean(one))}
    return found
