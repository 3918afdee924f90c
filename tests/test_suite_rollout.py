"""Suites that are played while a model trains: what is logged and filmed, what is heard, and what is refused."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("gymnasium")
pytest.importorskip("pymunk")
pytest.importorskip("shapely")
pytest.importorskip("cv2")
pytest.importorskip("av")

import untrained
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from pushes import talking
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from uva_lightning.benchmarks.decisions import randomised
from uva_lightning.callbacks.rollout import Rollout
from uva_lightning.callbacks.suite_rollout import SuiteRollout
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.rollout import rollout
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
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
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
    ends = [f"{name}{end}" for name in ("score", "success") for end in ("", "_low", "_high")]
    each = [f"{scenario}/{name}" for scenario in ("plain", "hue") for name in ("score", "success")]
    assert set(measured) == {f"rollout/{name}" for name in (*ends, "jerk", *each)}
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
    jerks = {name: result.jerk for name, result in callback.play(trainer, module.eval()).items()}
    assert jerks["push"] == jerks["again"]
    assert jerks["push"] != jerks["pull"]


def test_what_cannot_be_played_is_refused_at_once(fit, tiny_data):
    with pytest.raises(ValueError, match="trained with instructions, and there is 'plain' has no instruction"):
        fit(talking(), SuiteRollout(SHORT))
    with pytest.raises(UserError, match="There is no suite 'pushd'"):
        fit(tiny_data(), SuiteRollout("pushd"))
    with pytest.raises(ValueError, match="The suite 'offline' plays nothing"):
        fit(tiny_data(), SuiteRollout("offline"))
    with pytest.raises(ValueError, match="execute is 20"):
        fit(tiny_data(), SuiteRollout(SHORT, execute=20))
    with pytest.raises(ValueError, match="workers is -1"):
        SuiteRollout(SHORT, workers=-1)
    with pytest.raises(ValueError, match="every is 0"):
        SuiteRollout(SHORT, every=0)


def test_several_are_told_apart():
    callbacks = [SuiteRollout(SHORT), SuiteRollout(TOLD), SuiteRollout(SHORT, seed=5), Rollout("pusht")]
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
    assert json.loads((tmp_path / "played/results.json").read_text())["env"] == "pusht"
    content["data"]["init_args"].pop("text")
    dumb = untrained.checkpoint(tmp_path / "dumb.ckpt", talking(), config=yaml.safe_dump(content))
    with pytest.raises(UserError, match="trained without instructions, prompt is 'push'; leave --prompt out"):
        rollout(dumb, prompt="push", **played)
