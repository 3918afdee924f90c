"""Stages of training: shares, learning rate and weights at their seams."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from uva_lightning.callbacks.ema import EMA
from uva_lightning.callbacks.stage_start import StageStart
from uva_lightning.curriculum import Curriculum, Stage
from uva_lightning.objectives.forward_dynamics import ForwardDynamics
from uva_lightning.objectives.robot_policy import RobotPolicy
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.optim import AdamWCosine

PRESENT = {"video": torch.ones(10, dtype=torch.bool), "action": torch.ones(10, dtype=torch.bool)}
TWO = {"video": Stage({"video": 1.0}, steps=5), "joint": Stage({"video": 1.0, "policy": 2.0})}


def objectives():
    return {"policy": RobotPolicy(), "video": VideoModel(), "forward": ForwardDynamics()}


def served(curriculum, steps):
    counts = dict.fromkeys(curriculum.objectives, 0)
    for step in steps:
        for name, rows in curriculum(step, PRESENT).served.items():
            counts[name] += rows.stop - rows.start
    return counts


def test_shares_hold_within_each_stage():
    curriculum = Curriculum(objectives(), TWO)
    assert curriculum.starts == (0, 5)
    assert served(curriculum, range(5)) == {"policy": 0, "video": 50, "forward": 0}
    assert served(curriculum, range(5, 35)) == {"policy": 200, "video": 100, "forward": 0}


def test_a_plan_is_a_function_of_the_step_alone():
    one, two = Curriculum(objectives(), TWO), Curriculum(objectives(), TWO)
    later = one(9, PRESENT).order
    for step in range(9):
        two(step, PRESENT)
    assert two(9, PRESENT).order.equal(later)
    assert not one(4, PRESENT).order.equal(one(9, PRESENT).order)


def test_one_stage_alone():
    joint = Curriculum(objectives(), TWO, only="joint")
    assert joint.starts == (0,)
    assert served(joint, range(30)) == {"policy": 200, "video": 100, "forward": 0}
    video = Curriculum({"video": VideoModel()}, {"video": TWO["video"], "joint": Stage({"policy": 1})}, only="video")
    assert served(video, range(2)) == {"video": 20}  # the other stage may name what this run does not have


@pytest.mark.parametrize(
    ("stages", "options", "message"),
    [
        ({}, {}, "has no stages, expected at least one"),
        ({"a": Stage({"force": 1.0})}, {}, r"Stage 'a' has shares of \['force'\], but the objectives are"),
        ({"a": Stage({"video": 1.0}), "b": Stage({"video": 1.0})}, {}, "Stage 'a' has None steps, expected at least 1"),
        ({"a": Stage({"video": 1.0}, 3)}, {}, "it is the last and goes on to trainer.max_steps"),
        ({"a": Stage({"video": 1.0})}, {"only": "b"}, "only is 'b', expected one of the stages a"),
        ({"a": Stage({"video": 0.0})}, {}, "positive sum"),
    ],
)
def test_mistakes_are_told(stages, options, message):
    with pytest.raises(ValueError, match=message):
        Curriculum(objectives(), stages, **options)


def test_the_rate_warms_up_and_falls_in_every_stage():
    layer = nn.Linear(2, 2)

    def rates(starts, total, **options):
        _, schedule = AdamWCosine(lr=1.0, warmup_steps=4, **options).build(layer, total, starts=starts)
        return [schedule.lr_lambdas[0](step) for step in range(total)]

    alone = rates((0,), 20)
    assert rates((0, 20), 60) == alone + rates((0,), 40)
    assert rates((0, 20), 60, restart=False) == rates((0,), 60)
    assert rates((0, 20), 10) == alone[:10]  # a run that stops within the first stage


def whole(module):
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()


class Watch(Callback):
    """Keep weights and averages after each step, and the optimizer's count of steps."""

    def __init__(self):
        self.weights, self.averages, self.updates, self.before = [], [], [], []

    def on_train_batch_start(self, trainer, module, batch, index):
        self.before.append(whole(module))

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        ema = next(callback for callback in trainer.callbacks if isinstance(callback, EMA))
        self.weights.append(whole(module))
        self.averages.append(whole(ema._average_model.module))
        states = trainer.optimizers[0].state.values()
        self.updates.append(max(int(state["step"]) for state in states))


def fit(folder, data, module, steps, resume=None):
    watch = Watch()
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[EMA(), StageStart(), watch],
        limit_val_batches=0,
    )
    trainer.fit(module, data, ckpt_path=resume, weights_only=None if resume is None else True)
    return watch, trainer


@pytest.fixture
def make(tiny_data, tiny_module):
    stages = {"video": Stage({"video": 1.0}, steps=3), "joint": Stage({"policy": 1.0, "video": 1.0, "forward": 1.0})}

    def build():
        data = tiny_data()
        optimizer = AdamWCosine(lr=1e-2, warmup_steps=1, total_steps=6)
        return data, tiny_module(data.spec, sampler=lambda o: Curriculum(o, stages), optimizer=optimizer)

    return build


def test_a_stage_begins_from_the_averaged_weights_of_the_one_before(tmp_path, make):
    watch, _ = fit(tmp_path, *make(), 6)
    assert watch.before[3].equal(watch.averages[2])
    assert not watch.before[3].equal(watch.weights[2])
    assert watch.before[4].equal(watch.weights[3])
    assert watch.averages[3].equal(watch.weights[3])  # averaging begins anew
    assert watch.updates == [1, 2, 3, 1, 2, 3]  # and so do the optimizer's moments


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_resume_around_the_seam_is_exact(tmp_path, make, stop):
    uninterrupted, _ = fit(tmp_path, *make(), 6)
    _, trainer = fit(tmp_path, *make(), stop)
    trainer.save_checkpoint(tmp_path / "part.ckpt")
    rest, _ = fit(tmp_path, *make(), 6, resume=tmp_path / "part.ckpt")
    for name in ("weights", "averages"):
        assert all(a.equal(b) for a, b in zip(getattr(rest, name), getattr(uninterrupted, name)[stop:], strict=True))


def test_stage_start_needs_an_average(tmp_path, make):
    data, module = make()
    trainer = Trainer(max_steps=1, accelerator="cpu", logger=False, callbacks=[StageStart()], default_root_dir=tmp_path)
    with pytest.raises(ValueError, match="no EMA keeps them; add EMA to the callbacks"):
        trainer.fit(module, data)


def test_a_stage_may_not_begin_within_an_optimizer_step(tmp_path, make):
    data, module = make()
    options = {"accelerator": "cpu", "logger": False, "default_root_dir": tmp_path, "max_steps": 4}
    trainer = Trainer(accumulate_grad_batches=2, callbacks=[EMA(), StageStart()], **options)
    with pytest.raises(ValueError, match=r"A stage begins at batch 3, but trainer\.accumulate_grad_batches is 2"):
        trainer.fit(module, data)
