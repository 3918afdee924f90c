"""``uva eval``: play a suite with checkpoints, servers and baselines, and write numbers that can be defended."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from uva_lightning.action_space import ActionSpace
from uva_lightning.commands.checks import check_data, chosen_device
from uva_lightning.commands.errors import UserError, hint
from uva_lightning.commands.extras import install_command
from uva_lightning.commands.long_work import alone, stopping_on_sigterm
from uva_lightning.commands.replay import checked, opened, pipeline, spaced
from uva_lightning.commands.rollout import RESULTS, run_folder
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.envs.vector import Workers
from uva_lightning.evaluation.checkpoints import Checkpoint, Given, OtherWay, checkpoints, ways
from uva_lightning.evaluation.contenders import Contender, Remote, Replayer, baseline, named
from uva_lightning.evaluation.content import FORMAT, content
from uva_lightning.evaluation.held_out import Measuring, held_out
from uva_lightning.evaluation.journal import Journal
from uva_lightning.evaluation.page import markdown
from uva_lightning.evaluation.play import WAVE
from uva_lightning.evaluation.plot import draw
from uva_lightning.evaluation.recordings import Recordings
from uva_lightning.evaluation.run import Evaluation, Outcome, film
from uva_lightning.evaluation.suite import Scenario, suite_of
from uva_lightning.model.checkpoint import load_module
from uva_lightning.results import write_json
from uva_lightning.video_files import safe
from uva_lightning.whole_files import whole

REPORT, PLOT, JOURNAL, LOCK = "report.md", "scores.png", "journal.jsonl", ".lock"
REPLAY = "replay"
"""Baseline that repeats demonstrations, from their own starts."""


@dataclass(frozen=True)
class Playing:
    """What is played, and how.

    Args:
        actors: Ways in which every checkpoint acts besides as robot policy: Planner,UniPi; or YAML, or a file of it,
            with class_path and init_args by name.
        scenarios: Some of the suite's only, with commas between; all where left out.
        execute: Actions of each chunk that are run before the policy decides again.
        beside: Episodes side by side; so many are played again at most after the evaluation was killed.
        videos: Episodes of each scenario that are filmed.
        set: Data set of a mixture that is like the environment; the only one with actions where left out.
        keys: For a server that is not ours, our names of pictures and states by its names, as JSON.
        prompt: Instruction for a policy server.
        held: What suites measure on held-out windows.
    """

    actors: str = ""
    scenarios: str = ""
    execute: int = 8
    beside: int = WAVE
    videos: int = 2
    set: str | None = None
    keys: dict[str, str | list[str]] | None = None
    prompt: str = ""
    held: Measuring = field(default_factory=Measuring)

    def __post_init__(self) -> None:
        for name, least in (("execute", 1), ("beside", 1), ("videos", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {least}; set --play.{name}.")


def evaluate(
    suite: str = "pusht",
    ckpt: str = "",
    policy: str = "",
    baselines: str = "hold",
    data: Path | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    out: Path | None = None,
    replays: int = 20,
    device: str = "auto",
    workers: int = 0,
    play: Playing = Playing(),  # frozen
) -> None:
    """Play the scenarios of a suite; writes results.json, report.md, scores.png and films.

    Demonstrations are replayed first, and a policy is not scored where they fail. Finished episodes are kept: the same
    command goes on where it was killed, and plays only what is new when there are more episodes or contenders.

    Args:
        suite: pusht, pusht_official, block_push, latency, offline, paper, libero_10 or another of LIBERO's, toolhang;
            or a YAML file with class_path and init_args of your own.
        ckpt: Checkpoint of a training run, or folder of uva import-checkpoint; several with commas between, and with
            names, UVA=a.ckpt,UVA-action=b.ckpt. A pattern, UVA=runs/seed-*/checkpoints/last.ckpt, names trainings that
            are also counted together.
        policy: Address of a policy server, ws://HOST:PORT, ours or one of openpi's protocol; several likewise.
        baselines: hold, expert, replay; several with commas between; nothing for none.
        data: Demonstrations to replay first, and to take held-out windows from; those of the first checkpoint's
            training, and of each one's, where left out.
        episodes: Episodes of each scenario; the suite's own number, 50, where left out.
        seed: Seed of the first one, 100000 where left out.
        out: Folder; evaluations/SUITE in the run's folder where left out.
        replays: Demonstrations to replay first, evenly spaced; 0 skips that.
        device: Where the model runs; auto takes the GPU where there is one.
        workers: Processes that simulate; 0 takes one per core.
        play: What of the suite is played, in which other ways checkpoints act, and how episodes are played.
    """
    began = time.monotonic()
    _refuse(replays, workers, ckpt + policy + baselines, data)
    chosen = suite_of(suite, episodes, seed)
    features = play.held.features() if chosen.held_out else []  # a file that is missing is told before hours of play
    scenarios = _some(chosen.scenarios(), play.scenarios)
    given = checkpoints(ckpt)
    if not scenarios and not given:
        raise UserError(f"The suite '{suite}' plays nothing and measures checkpoints, expected some; set --ckpt.")
    first = given[0].path if given else None
    contenders = _contenders(scenarios, given, policy, _names(baselines), device, play)
    shown = _demonstrations(scenarios, first, data, play.set)
    if REPLAY in _names(baselines) and scenarios:
        repeated, replayer = _repeated(shown, chosen.episodes, play.execute)
        scenarios, contenders = [*scenarios, repeated], [*contenders, replayer]
    folder = out or (run_folder(first) if first else Path()) / "evaluations" / safe(Path(suite).stem)
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / LOCK, "uva eval"), stopping_on_sigterm(), Journal(folder / JOURNAL) as journal:
        outcome, spent = _replay_and_play(folder, scenarios, contenders, shown, journal, suite, replays, workers, play)
        if chosen.held_out:
            spent["held_out"] = held_out(contenders, data, play.set, play.held, features, journal)
    spent |= {"suite": suite, "missing": dict(chosen.missing()), "seconds": round(time.monotonic() - began, 1)}
    films = _films(folder, play, scenarios, contenders, outcome)
    _write(folder, spent | content(scenarios, contenders, outcome, films))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _some(scenarios: Sequence[Scenario], names: str) -> list[Scenario]:
    """Keep some scenarios by their names, or all."""
    found, asked = {scenario.name: scenario for scenario in scenarios}, [name.strip() for name in names.split(",")]
    for name in asked:
        if names and name not in found:
            raise UserError(f"The suite has no scenario '{name}'.{hint(name, found)}")
    return [scenario for scenario in scenarios if not names or scenario.name in asked]


def _refuse(replays: int, workers: int, given: str, data: Path | None) -> None:
    check_data(data)
    for name, value in (("replays", replays), ("workers", workers)):
        if value < 0:
            raise UserError(f"{name} is {value}, expected 0 or more; set --{name}.")
    if not given:
        raise UserError("Nobody is to be evaluated, expected one of --ckpt FILE, --policy ws://HOST:PORT, --baselines.")


def _replay_and_play(
    folder: Path,
    scenarios: Sequence[Scenario],
    contenders: Sequence[Contender],
    shown: _Shown | str,
    journal: Journal,
    suite: str,
    replays: int,
    workers: int,
    play: Playing,
) -> tuple[Outcome, dict[str, Any]]:
    """Replay demonstrations, then play all; gives what came out, and what is said of the replay and of crashes."""
    if not scenarios:
        return Outcome(), {"crashes": 0, "replay": {"skipped": "nothing is played."}}
    with Workers(workers or os.cpu_count() or 1) as pool:
        replay = _replay(pool, shown, replays, play.execute)
        outcome = _play(Evaluation(folder, pool, play.videos, play.beside), scenarios, contenders, journal, suite)
        return outcome, {"crashes": pool.crashes, "replay": replay}


def _play(
    evaluation: Evaluation,
    scenarios: Sequence[Scenario],
    contenders: Sequence[Contender],
    journal: Journal,
    suite: str,
) -> Outcome:
    """Play all, with a bar.

    Raises:
        UserError: Nothing could be played.
    """
    total = len(contenders) * sum(len(scenario.starts) for scenario in scenarios)
    try:
        with tqdm(total=total, desc="episodes", unit="episode") as bar:
            outcome = evaluation(scenarios, contenders, journal, bar.update)
    finally:
        for contender in contenders:
            contender.close()
    if not outcome.results:
        reasons = "; ".join(f"{scenario}, {who}: {why}" for scenario, who, why in outcome.left_out)
        raise UserError(f"None of the scenarios of '{suite}' could be played: {reasons}")
    return outcome


def _contenders(
    scenarios: Sequence[Scenario],
    given: Sequence[Given],
    policy: str,
    baselines: Sequence[str],
    device: str,
    play: Playing,
) -> list[Contender]:
    where, found, others = chosen_device(device), list[Contender](), ways(play.actors) if play.actors else []
    seed, others = (scenarios[0].starts[0].seed, others) if scenarios else (0, [])  # other ways only play
    for one in given:
        checkpoint = Checkpoint(one, play.execute, where, seed, play.set)
        found += [checkpoint, *(OtherWay(checkpoint, way) for way in others)]
    for name, url in named(policy) if policy else ():
        found.append(Remote(name, url, play.execute, play.keys, play.prompt))
    found += [baseline(name, play.execute) for name in baselines if name != REPLAY and scenarios]  # they only play
    names = [contender.name for contender in found]
    if double := {name for name in names if names.count(name) > 1}:
        raise UserError(f"Two contenders are called '{sorted(double)[0]}'; give each a name of its own: NAME=PATH.")
    return found


@dataclass(frozen=True)
class _Shown:
    """Demonstrations of one of the environments, with what reads and normalises them."""

    recordings: Recordings
    data: RobotDataModule
    space: ActionSpace


def _demonstrations(
    scenarios: Sequence[Scenario], first: Path | None, data: Path | None, set: str | None
) -> _Shown | str:
    """Find demonstrations of the first environment that has some; or say why there are none."""
    if data is None and first is not None:
        path = load_module(first)[1].chosen(set).path
        data = path if path.exists() else None
    if data is None:
        return "no demonstrations were given, and those of the training are not here; set --data."
    why = ""
    for env in dict.fromkeys(scenario.env.partition(":")[0] for scenario in scenarios):
        try:
            recordings = opened(env, data)
            if recordings.recorded:
                return _Shown(recordings, *pipeline(recordings, first, set))
        except UserError as error:
            why = why or str(error)
    return why


def _replay(pool: Workers, shown: _Shown | str, count: int, execute: int) -> dict[str, Any]:
    """Replay demonstrations.

    Raises:
        UserError: They do not reach their own score, or look different.
    """
    if count == 0 or isinstance(shown, str):
        return {"skipped": "--replays 0 was asked for." if count == 0 else shown}
    result = checked(pool, shown.recordings, shown.data, shown.space, count, execute)
    if faults := result.faults():
        raise UserError(
            f"No policy is scored, since demonstrations and simulator differ: {' '.join(faults)} "
            "(uva replay shows all of it; --replays 0 scores all the same)."
        )
    return {"data": str(shown.recordings.path), **result.record()}


def _repeated(shown: _Shown | str, episodes: int, execute: int) -> tuple[Scenario, Contender]:
    """Give the scenario that begins as demonstrations did, and the baseline that repeats them."""
    if isinstance(shown, str):
        raise UserError(f"The baseline 'replay' has nothing to repeat: {shown}")
    recordings = shown.recordings
    recorded = {number: recordings.recorded[number] for number in spaced(len(recordings.recorded), episodes)}
    starts = [replace(one.start, steps=None) for one in recorded.values()]
    contender = Replayer(REPLAY, execute, recordings.path, shown.data, shown.space, recorded)
    return Scenario("demonstrations", recordings.env, starts), contender


def _films(
    folder: Path, play: Playing, scenarios: Sequence[Scenario], contenders: Sequence[Contender], outcome: Outcome
) -> dict[str, dict[str, list[str]]]:
    """Name the films, relative to the folder, by scenario and contender."""
    found: dict[str, dict[str, list[str]]] = {}
    for scenario in scenarios:
        for contender in contenders:
            if contender.name in outcome.results.get(scenario.name, {}):
                seeds = [start.seed for start in scenario.starts[: play.videos]]
                paths = [film(folder, scenario, contender, seed).relative_to(folder) for seed in seeds]
                found.setdefault(scenario.name, {})[contender.name] = [path.as_posix() for path in paths]
    return found


def _write(folder: Path, measured: dict[str, Any]) -> None:
    found = {"format": FORMAT, "command": shlex.join(["uva", *sys.argv[1:]]), "held_out": {}, **measured}
    write_json(folder / RESULTS, found)
    page = markdown(found)
    with whole(folder / REPORT) as part:
        part.write_text(page)
    sys.stdout.write(f"\n{page}\n")
    try:
        if found["scenarios"]:
            with whole(folder / PLOT) as part:
                draw(found, part)
    except ImportError as error:
        sys.stdout.write(f"No plot: {error}; install it with {install_command('matplotlib')}\n")
    more = f", {PLOT} and films" if found["scenarios"] else ""
    sys.stdout.write(f"{RESULTS}, {REPORT}{more} are in {folder}\n")
