"""Suites that are played while a model trains: what is logged and filmed, what is heard, and what is refused."""

from __future__ import annotations

import json
from functools import partial
from math import inf

import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("pymunk")
pytest.importorskip("shapely")
pytest.importorskip("cv2")
pytest.importorskip("av")

import untrained
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from pushes import talking
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from uva_lightning.benchmarks.decisions import randomised
from uva_lightning.callbacks.rollout import Rollout
from uva_lightning.callbacks.suite_rollout import SuiteRollout
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.rollout import rollout
from uva_lightning.model.heads.base import VideoHead
from uva_lightning.model.heads.flow import FlowMatching
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.policy.planner import Planner
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.rollouts import run_rollouts

SHORT = "{class_path: short_suites.ShortSuite}"
TOLD = "{class_path: short_suites.ToldSuite}"
SEED = 100_000


@pytest.fixture
def fit(tmp_path, tiny_module):
    """Give a function that trains for two steps, validates after each, and gives the trainer and the module."""

    def run(data, *callbacks):
        module = tiny_module(data.spec)
        logger = TensorBoardLogger(tmp_path, name="run", version="")
        quiet = {"enable_progress_bar": False, "enable_model_summary": False}
        quiet["enable_checkpointing"] = any(isinstance(one, ModelCheckpoint) for one in callbacks)
        trainer = Trainer(
            accelerator="cpu",
            max_steps=2,
            val_check_interval=1,
            check_val_every_n_epoch=None,
            limit_val_batches=1,
            num_sanity_val_steps=0,
            logger=logger,
            callbacks=list(callbacks),
            **quiet,
        )
        trainer.fit(module, datamodule=data)
        return trainer, module

    return run


def test_all_scenarios_are_logged_and_filmed(fit, tiny_data, tmp_path):
    data = tiny_data()
    trainer, module = fit(data, SuiteRollout(SHORT, episodes=2, every=2, workers=2))
    films = tmp_path / "run/rollouts"
    assert [path.name for path in films.iterdir()] == ["step_00000002"], "every second validation"
    assert sorted(path.name for path in (films / "step_00000002").iterdir()) == ["hue_100000.mp4", "plain_100000.mp4"]
    measured = {name: float(value) for name, value in trainer.callback_metrics.items() if "rollout/" in name}
    each = [f"{scenario}/{name}" for scenario in ("plain", "hue") for name in ("score", "success")]
    assert set(measured) == {f"rollout/{name}" for name in ("score", "success", "jerk", *each)}
    policy = WindowPolicy(module.eval(), SEED)
    scores = {
        name: run_rollouts(policy, env, data.spec, [SEED, SEED + 1], max_steps=24, progress=False).score
        for name, env in (("plain", "pusht"), ("hue", "pusht:picture_hue"))
    }
    for name, score in scores.items():
        assert measured[f"rollout/{name}/score"] == pytest.approx(score)
    assert measured["rollout/score"] == pytest.approx(sum(scores.values()) / 2)
    log = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0}).Reload()
    assert {f"rollout/{name}" for name in scores} <= set(log.Tags()["images"])


def test_the_model_hears_what_each_scenario_asks_for(fit):
    callback = SuiteRollout(TOLD, episodes=1, videos=0, workers=1)
    trainer, module = fit(talking(), callback)
    randomised(module)  # the last layer of a head begins at zero
    jerks = {one.scenario: one.episode.jerk for one in callback.play(trainer, module.eval())}
    assert jerks["push"] == jerks["again"]
    assert jerks["push"] != jerks["pull"]


def test_what_cannot_be_played_is_refused_at_once(fit, tiny_data):
    with pytest.raises(ValueError, match="the model was trained with instructions, and scenario 'plain' has none"):
        fit(talking(), SuiteRollout(SHORT))
    with pytest.raises(UserError, match="There is no suite 'pushd'"):
        fit(tiny_data(), SuiteRollout("pushd"))
    with pytest.raises(ValueError, match="The suite 'offline' plays nothing"):
        fit(tiny_data(), SuiteRollout("offline"))
    with pytest.raises(ValueError, match="execute is 20"):
        fit(tiny_data(), SuiteRollout(SHORT, execute=20))
    with pytest.raises(ValueError, match="workers is -1"):
        SuiteRollout(SHORT, workers=-1)
    with pytest.raises(ValueError, match="name is 'a/b', expected one without a slash"):
        SuiteRollout(SHORT, name="a/b")
    with pytest.raises(ValueError, match="beside is 0"):
        SuiteRollout(SHORT, beside=0)
    with pytest.raises(ValueError, match="every is 0"):
        SuiteRollout(SHORT, every=0)


def test_numbers_that_would_be_mixed_or_missing_are_refused(fit, tiny_data):
    with pytest.raises(ValueError, match="2 callbacks log 'rollout/score', expected one; give each a name"):
        fit(tiny_data(), SuiteRollout(SHORT), Rollout())
    best = ModelCheckpoint(monitor="rollout/score")
    with pytest.raises(ValueError, match="ModelCheckpoint looks for rollout/score every 1 validations and every is 2"):
        fit(tiny_data(), SuiteRollout(SHORT, every=2), best)


def test_two_with_names_of_their_own_log_beside_each_other(fit, tiny_data, tmp_path):
    short = SuiteRollout(SHORT, episodes=1, videos=1, name="short")
    trainer, _ = fit(tiny_data(), short, Rollout(episodes=1, videos=1, every=2))
    assert {"short/score", "rollout/score", "rollout/score_low", "short/hue/score"} <= set(trainer.callback_metrics)
    films = tmp_path / "run/rollouts/step_00000002"
    assert {path.name for path in films.iterdir()} == {"short", "pusht_100000.mp4"}
    assert len(list((films / "short").iterdir())) == 2


def test_a_suite_keeps_its_own_seed_and_model_must_act(fit, tiny_data, tiny_module):
    data = tiny_data()
    own = SuiteRollout("{class_path: short_suites.UnequalSuite, init_args: {seed: 7}}", workers=1)
    trainer, module = fit(data, own)
    assert [one.episode.seed for one in own.play(trainer, module.eval())] == [7, 8, 9, 10, 11, 12]
    given = SuiteRollout("{class_path: short_suites.UnequalSuite, init_args: {seed: 7}}", seed=20)
    assert given._scenarios()[0].starts[0].seed == 20
    head = partial(VideoHead, denoiser=partial(FlowMatching, width=32, depth=1), steps=2)
    blind = tiny_module(data.spec, heads={"video": head}, objectives={"video": VideoModel()})
    with pytest.raises(ValueError, match="action"):
        own.check(trainer, blind)


def test_several_are_told_apart():
    callbacks = [SuiteRollout(SHORT), SuiteRollout(TOLD), SuiteRollout(SHORT, name="a"), Rollout("pusht")]
    assert len({callback.state_key for callback in callbacks}) == len(callbacks)


def test_a_checkpoint_that_hears_is_told_what_to_do(tmp_path):
    content = yaml.safe_load(untrained.CONFIG)
    content["data"] = {
        "class_path": "FromSource",
        "init_args": {
            "source": {"class_path": "pushes.Pushes"},
            "text": {"class_path": "RandomInstructions"},
            "window": {"frames": 2},
        },
    }
    file = untrained.checkpoint(tmp_path / "model.ckpt", talking(), config=yaml.safe_dump(content))
    played = {"env": "pusht", "episodes": 1, "videos": 0, "device": "cpu", "out": tmp_path / "played"}
    with pytest.raises(UserError, match="trained with instructions, prompt is ''; say what to do: --prompt"):
        rollout(file, **played)
    rollout(file, prompt="push the T", **played)
    results = json.loads((tmp_path / "played/results.json").read_text())
    assert (results["env"], results["prompt"]) == ("pusht", "push the T")
    rollout(file, prompt="push the T", **{**played, "out": None}, actor=partial(Planner, proposals=2, margin=inf))
    assert (tmp_path / "rollouts/model_pusht_Planner/results.json").is_file()
    content["data"]["init_args"].pop("text")
    dumb = untrained.checkpoint(tmp_path / "dumb.ckpt", talking(), config=yaml.safe_dump(content))
    with pytest.raises(UserError, match="trained without instructions, prompt is 'push'; leave --prompt out"):
        rollout(dumb, prompt="push", **played)
