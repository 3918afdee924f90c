"""What every balancer must keep: statistics in the checkpoint, untouched by validation, and a training that works."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
import torch
from balanced import KEYS, factors, latent, objectives, on, plan, terms
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from uva_lightning import balancers
from uva_lightning.balance import Balancer
from uva_lightning.balancers.dwa import DWA
from uva_lightning.balancers.famo import FAMO
from uva_lightning.balancers.grad_norm import GradNorm
from uva_lightning.balancers.gradient_surgery import GradientSurgery
from uva_lightning.balancers.loss_scale import LossScale
from uva_lightning.balancers.running import RunningBalancer
from uva_lightning.balancers.uncertainty_weighting import UncertaintyWeighting
from uva_lightning.callbacks.ema import EMA
from uva_lightning.commands.discovery import import_components
from uva_lightning.learning_progress import LearningProgress
from uva_lightning.model.heads.aggregate import ConvFC
from uva_lightning.model.heads.base import ActionHead, VideoHead
from uva_lightning.model.heads.flow import FlowMatching
from uva_lightning.optim import AdamWCosine


class Smallest(nn.Module):
    """A weighting: more for the smaller gradients."""

    def forward(self, products):
        return 1 / products.diagonal().sqrt()


MADE = {
    "LossScale": LossScale,
    "UncertaintyWeighting": UncertaintyWeighting,
    "DWA": lambda: DWA(every=2),
    "GradNorm": GradNorm,
    "FAMO": FAMO,
    "GradientSurgery": lambda: GradientSurgery(Smallest()),
}


def same(one, other):
    if torch.is_tensor(one):
        return one.equal(other)
    if isinstance(one, dict):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    return one == other


MADE_IN = {name: kind.__module__ for name, kind in vars().copy().items() if name in MADE}


def concrete(base):
    kinds = set() if inspect.isabstract(base) else {base}
    return kinds.union(*(concrete(kind) for kind in base.__subclasses__()))


def test_every_method_is_tried_here():
    ours = {k.__name__ for k in concrete(Balancer) if k.__module__.startswith(balancers.__name__)}
    assert ours == set(MADE)


@pytest.mark.parametrize("name", MADE)
def test_validation_changes_nothing(name):
    balancer = MADE[name]()
    balancer.bind(objectives())
    before = {key: value.clone() if torch.is_tensor(value) else value for key, value in balancer.state_dict().items()}
    balancer.eval()
    with torch.no_grad():
        shown = factors(balancer, plan(), terms(1.0, 2.0, 3.0, 4.0))
    assert set(shown) == set(KEYS)
    assert same(balancer.state_dict(), before)


@pytest.mark.parametrize("name", MADE)
def test_the_checkpoint_has_all_that_the_next_factors_depend_on(name):
    one, other, fresh = (MADE[name]() for _ in range(3))
    for balancer in (one, other, fresh):
        balancer.bind(objectives())
    for size in range(1, 6):
        one.factors(plan(), on(z := latent(size), size), z)
    if name == "UncertaintyWeighting":
        torch.nn.init.normal_(one.log_variances)
    other.load_state_dict(one.state_dict())
    for seed in range(3):
        z = latent(seed)
        assert factors(one, plan(), on(z), z) == factors(other, plan(), on(z), z)
    shown = factors(one.eval(), plan(), on(z), z)
    assert len(set(shown.values())) == 4
    assert factors(other.eval(), plan(), on(z), z) == shown != factors(fresh.eval(), plan(), on(z), z)


@pytest.mark.parametrize("name", sorted(set(MADE) - {"UncertaintyWeighting"}))
def test_nothing_with_samples_gives_the_plain_weights(name):
    assert factors(MADE[name](), plan(video=0.0, joint=0.0, inverse=0.0), terms(0, 0, 0, 0)) == dict.fromkeys(KEYS, 1.0)


def test_what_is_kept_is_not_mixed_up_between_terms():
    class Count(RunningBalancer):
        keeps = ("seen",)

        def weigh(self, served):
            self.keep("seen", served, self.recall("seen", served, 0.0) + 1)
            return self.recall("seen", served)

    one, other = Count(), Count()
    one.factors(plan(), terms(1, 1, 1, 1), latent())
    one.factors(plan(joint=0.0), terms(1, 1, 1, 1), latent())
    other.load_state_dict(one.state_dict())
    shown = factors(other, plan(video=0.0), terms(1, 1, 1, 1))
    assert shown == {KEYS[0]: 1.0, KEYS[1]: 2.0, KEYS[2]: 2.0, KEYS[3]: 3.0}
    assert other.batches == 3


# -- through the trainer ----------------------------------------------------------------------------------------------


def fit(folder, data, module, steps, resume=None, **options):
    """Train; two batches make a step, and each second step is followed by validation and a checkpoint."""
    save = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[EMA(), save],
        accumulate_grad_batches=2,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        limit_val_batches=1,
        gradient_clip_val=1.0,
        **options,
    )
    trainer.fit(module, data, ckpt_path=resume, weights_only=None if resume is None else True)
    return torch.load(folder / f"step={steps}.ckpt", weights_only=True)


@pytest.fixture
def make(tiny_data, tiny_module):
    def build(**options):
        data = tiny_data()
        return data, tiny_module(data.spec, optimizer=AdamWCosine(lr=1e-2, warmup_steps=1, total_steps=4), **options)

    return build


def test_a_training_in_bfloat16_moves_weights_and_shares_and_resumes_exactly(tmp_path, make):
    def parts():
        return make(balancer=GradNorm(), sampler=lambda o: LearningProgress(o, every=2, floor=0.1))

    whole = fit(tmp_path / "whole", *parts(), 4, precision="bf16-mixed")
    rest = fit(tmp_path / "rest", *parts(), 4, tmp_path / "whole/step=2.ckpt", precision="bf16-mixed")
    for key in ("state_dict", "current_model_state", "sampler"):
        assert same(whole[key], rest[key])
    state = whole["state_dict"]["balancer._extra_state"]
    assert state["batches"] == 8  # validation is not among them
    assert set(state["weight"]) == {"policy\taction", "video\tvideo", "forward\tvideo"}
    assert sum(state["weight"].values()) == pytest.approx(3)
    assert len(set(state["weight"].values())) == 3
    assert len(set(whole["sampler"]["shares"].values())) == 3


def test_log_variances_are_trained_and_resumed_but_not_decayed(tmp_path, make):
    whole = fit(tmp_path / "whole", *make(balancer=UncertaintyWeighting()), 4)
    rest = fit(tmp_path / "rest", *make(balancer=UncertaintyWeighting()), 4, tmp_path / "whole/step=2.ckpt")
    assert same(whole["current_model_state"], rest["current_model_state"])
    assert all(0 < abs(value) < 0.1 for value in whole["current_model_state"]["balancer.log_variances"].tolist())
    _, module = make(balancer=UncertaintyWeighting())
    optimizer, _ = module.optimizer.build(module, 4)
    kept, decayed = optimizer.param_groups
    assert kept["weight_decay"] == 0
    assert any(p is module.balancer.log_variances for p in kept["params"])
    assert not any(p is module.balancer.log_variances for p in decayed["params"])


def loud(factor):
    """Heads of which the one for actions has its loss multiplied."""

    class Loud(FlowMatching):
        def loss(self, *args, **kwargs):
            return factor * super().loss(*args, **kwargs)

    def denoiser(kind):
        return lambda channels, condition: kind(channels, condition, width=32, depth=1)

    return {
        "video": lambda shape: VideoHead(shape, denoiser(FlowMatching), steps=2),
        "action": lambda shape: ActionHead(shape, denoiser(Loud), ConvFC, steps=2),
    }


def test_the_unit_of_a_loss_changes_nothing_once_it_is_scaled(tmp_path, make):
    def trained(factor):
        state = fit(tmp_path / str(factor), *make(heads=loud(factor), balancer=LossScale()), 2)["current_model_state"]
        return torch.cat([value.flatten() for value in state.values() if torch.is_tensor(value)])

    assert torch.allclose(trained(1000), trained(1), rtol=1e-4, atol=1e-6)


# -- from a config ----------------------------------------------------------------------------------------------------


def test_a_short_name_is_enough_in_a_config():
    import_components()
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--balancer", type=Balancer)
    for name in MADE:
        found = parser.parse_args(["--balancer", name]).balancer.class_path
        assert found == f"{MADE_IN[name]}.{name}"
    chosen = parser.parse_args(["--balancer", "DWA", "--balancer.every", "7"])
    assert parser.instantiate(chosen).balancer.every == 7


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The balancer of docs/balancing.md, as a module of the user's own."""
    text = (Path(__file__).parents[1] / "docs" / "balancing.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    assert code.count("\n") <= 40
    (tmp_path / "focal.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("focal").Focal


def test_the_example_of_the_documentation_works(example, tiny_run, uva, tmp_path):
    balancer = example(power=2.0)
    factors(balancer, plan(), terms(1.0, 2.0, 3.0, 4.0))
    ratios = [2.0**2, 1, 1, 1]  # the first loss doubles, the last has never been so low
    shown = factors(balancer, plan(), terms(2.0, 2.0, 3.0, 1.0))
    assert list(shown.values()) == pytest.approx([4 * ratio / sum(ratios) for ratio in ratios])
    options = ["--model.balancer=focal.Focal", "--model.balancer.power=2.0"]
    assert uva("fit", "--config", tiny_run(tmp_path / "run", 2), *options)[0] == 0
    state = torch.load(tmp_path / "run/last.ckpt", weights_only=True)["state_dict"]["balancer._extra_state"]
    assert state["batches"] == 2
    assert set(state["lowest"]) == {"policy\taction", "video\tvideo"}


def test_factors_are_logged(tmp_path, make):
    data, module = make(balancer=LossScale())
    options = {"max_steps": 1, "accelerator": "cpu", "logger": False, "log_every_n_steps": 1, "limit_val_batches": 0}
    trainer = Trainer(**options, enable_checkpointing=False, enable_progress_bar=False, default_root_dir=tmp_path)
    trainer.fit(module, data)
    for term in ("policy/action", "video/video", "forward/video"):
        logged = trainer.callback_metrics
        assert float(logged[f"train/{term}_factor"]) == pytest.approx(1 / float(logged[f"train/{term}"]), rel=1e-5)
