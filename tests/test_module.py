"""From a batch to the loss, through the trainer and back from a checkpoint."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from uva_lightning.action_space import ActionSpace
from uva_lightning.balancers.loss_scale import LossScale
from uva_lightning.draws import Draws
from uva_lightning.model.fitted import fit_together
from uva_lightning.model.heads.aggregate import TokenMLP
from uva_lightning.model.heads.base import ActionChunkHead
from uva_lightning.model.heads.flow import FlowMatching
from uva_lightning.model.transformer import LatentTransformer
from uva_lightning.normalize import Standard
from uva_lightning.objectives.forward_dynamics import ForwardDynamics
from uva_lightning.objectives.inverse_dynamics import InverseDynamics
from uva_lightning.objectives.policy_planner import PolicyPlanner
from uva_lightning.objectives.robot_policy import RobotPolicy
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.optim import AdamWCosine


def five():
    return {
        "policy": RobotPolicy(),
        "video": VideoModel(),
        "forward": ForwardDynamics(),
        "inverse": InverseDynamics(),
        "joint": PolicyPlanner(),
    }


def dropping(shapes):
    return LatentTransformer(shapes, 32, 2, 1, 1, dropout=0.2)


def trainer(tmp_path, steps, *callbacks, **options):
    return Trainer(
        default_root_dir=tmp_path,
        max_steps=steps,
        callbacks=[*callbacks],
        accelerator="cpu",
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.fixture
def fitted(tiny_data, tiny_module):
    """A model with its tokenizer and normalisers fitted, every weight shaken, and one batch of frames."""
    data = tiny_data(batch_size=12)
    data.setup("fit")
    module = tiny_module(data.spec, objectives=five())
    module.tokenizer.fit(data.training_frames())
    fit_together([module.actions, module.proprioception], data.training_numbers())
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    return module.eval(), next(iter(data.train_dataloader()))


def taken(batch, rows):
    """The given samples of a batch."""

    def take(values):
        return {name: value[rows] for name, value in values.items()}

    return replace(
        batch,
        video=take(batch.video),
        action=batch.action[rows],
        state=take(batch.state),
        present=take(batch.present),
    )


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(outputs["loss"].item())


# -- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 1.0])
def test_four_steps_equal_two_and_two_after_a_resume(tmp_path, tiny_data, tiny_module, clip):
    def make():
        options = {"objectives": five(), "transformer": dropping, "balancer": LossScale()}
        return tiny_module(tiny_data().spec, optimizer=AdamWCosine(warmup_steps=1, total_steps=4), **options)

    whole, losses = make(), Losses()
    trainer(tmp_path, 4, losses, gradient_clip_val=clip).fit(whole, tiny_data())

    saved, first = ModelCheckpoint(tmp_path, "half", every_n_train_steps=1), Losses()
    trainer(tmp_path, 2, saved, first, gradient_clip_val=clip).fit(make(), tiny_data())
    torch.manual_seed(123)  # nothing may depend on what this process drew before
    resumed, second = make(), Losses()
    run = trainer(tmp_path, 4, second, gradient_clip_val=clip)
    run.fit(resumed, tiny_data(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)

    assert first.values + second.values == losses.values
    for name, value in whole.state_dict().items():
        same = (
            value.equal(resumed.state_dict()[name]) if torch.is_tensor(value) else value == resumed.state_dict()[name]
        )
        assert same, name
    for part, other in zip(whole._fitted().values(), resumed._fitted().values(), strict=True):
        assert all(value.equal(other.state()[name]) for name, value in part.state().items())


def test_one_batch_can_be_learnt_by_heart(fitted, tiny_module):
    template, batch = fitted
    batch = taken(batch, torch.arange(4))

    def head(shape):
        return ActionChunkHead(
            shape,
            lambda channels, condition: FlowMatching(channels, condition, width=128, depth=2, draws=16),
            lambda shape: TokenMLP(shape, squeeze=4, width=64),
            steps=10,
        )

    module = tiny_module(template.spec, objectives={"policy": RobotPolicy()}, heads={"action": head})
    module.tokenizer, module.actions, module.proprioception = (
        template.tokenizer,
        template.actions,
        template.proprioception,
    )
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for step in range(250):
        optimizer.zero_grad()
        module.balancer(*module.losses(batch, step)).backward()
        optimizer.step()

    module.eval()
    with torch.no_grad():
        tokens = module.tokens(batch)
        seen = RobotPolicy().visible(tokens, None)
        latent = module.transformer(tokens, seen)
        sampled = module.heads["action"].sample(latent, tokens, seen, torch.zeros_like(tokens.action))
    error = (sampled - tokens.action).square().mean()
    between_samples = (tokens.action - tokens.action.mean(dim=0)).square().mean()
    assert error < 0.05 * between_samples


def test_gradients_of_several_batches_are_clipped_by_norm(tmp_path, tiny_data, tiny_module):
    class Norms(Callback):
        def __init__(self):
            self.values = []

        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            grads = [p.grad.norm() for p in pl_module.parameters() if p.grad is not None]
            self.values += [torch.stack(grads).norm().item()] if grads else []

    norms = Norms()
    trainer(tmp_path, 3, norms, gradient_clip_val=1e-3, accumulate_grad_batches=2).fit(
        tiny_module(tiny_data().spec), tiny_data()
    )
    assert norms.values
    assert norms.values == pytest.approx([1e-3] * len(norms.values), rel=1e-2)


def test_validation_repeats_itself_and_leaves_the_noise_of_training_alone(fitted):
    module, batch = fitted
    logged = []
    module.log = lambda name, value, **_: logged.append((name, float(value)))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    module.validation_step(batch, 3)
    first, logged[:] = logged[:], []
    torch.randn(7)
    module.validation_step(batch, 3)
    assert first == logged
    assert {name for name, _ in first} >= {"val/loss", "val/policy/action", "val/joint/video"}
    torch.manual_seed(5)
    assert torch.get_rng_state().equal(state)


# -- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 3])
def test_losses_equal_those_computed_objective_by_objective(fitted, step):
    """A sample's noise and mask do not depend on who else is in the batch."""
    module, batch = fitted
    with torch.no_grad():
        plan, terms, latent = module.losses(batch, step)
        draws = Draws(module.seed, step, plan.order)
        tokens = module.tokens(batch).rows(plan.order)
        seen = plan.visible(tokens, draws)
        assert latent.shape == (12, 2, 16, 32)
        expected = {}
        for name, rows in plan.served.items():
            mine, shown = tokens.rows(rows), seen.rows(rows)
            latent = module.transformer(mine, shown)
            for modality in plan.objectives[name].predicts:
                noise = partial(draws.rows(rows).normal, f"noise {modality}")
                errors = module.heads[modality].loss(latent, mine, shown, noise)
                expected[name, modality] = float(errors.sums.sum() / errors.counts.sum())
    assert {key: float(term.mean) for key, term in terms.items()} == pytest.approx(expected, rel=1e-4)
    assert {key: float(term.loss) for key, term in terms.items()} == pytest.approx(expected, rel=1e-4)
    assert len(set(expected.values())) == len(expected) > 4


def test_rows_stand_in_the_order_of_the_plan(fitted):
    module, batch = fitted
    plan = module.sampler(0, batch.present)
    assert plan.order.tolist() != list(range(len(batch)))
    rows = module.tokens(batch).rows(plan.order)
    alone = module.tokens(taken(batch, plan.order))
    assert all(torch.allclose(rows[name], alone[name], atol=1e-4) for name in rows)


def test_cached_latents_give_the_same_tokens_as_frames(fitted):
    module, batch = fitted
    cached = replace(batch, video={}, latents={"top": module.encode_frames(batch.video["top"]).half()})
    tokens, other = module.tokens(batch), module.tokens(cached)
    assert tokens.video.shape == (12, 2, 16, 8)
    assert all(torch.allclose(tokens[name], other[name], rtol=1e-2, atol=1e-2) for name in tokens)


def test_samples_without_actions_serve_only_what_needs_none(fitted):
    module, batch = fitted
    flags = torch.arange(12) % 2 == 0
    action = batch.action.where(flags[:, None, None], torch.nan)  # what is not there may hold anything
    partly = replace(batch, action=action, present={**batch.present, "action": flags})
    for step in range(3):
        plan, terms, latent = module.losses(partly, step)
        assert set(plan.order[plan.served["video"]].tolist()) >= set((~flags).nonzero()[:, 0].tolist())
        loss = module.balancer(plan, terms, latent)
        module.zero_grad()
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_a_batch_without_any_action_trains_the_video_model(fitted):
    module, batch = fitted
    silent = replace(batch, action=None, present={**batch.present, "action": torch.zeros(12, dtype=torch.bool)})
    plan, terms, _ = module.losses(silent, 0)
    assert {name for name, share in plan.share.items() if share} == {"video"}
    assert {key for key, term in terms.items() if term.mean} == {("video", "video")}


def test_samples_that_no_objective_can_use_are_named(fitted, tiny_module):
    template, batch = fitted
    module = tiny_module(template.spec, objectives={"policy": RobotPolicy()})
    silent = replace(batch, present={**batch.present, "action": torch.zeros(12, dtype=torch.bool)})
    with pytest.raises(ValueError, match="12 of 12 samples fit no objective"):
        module.losses(silent, 0)


# -- what cannot work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"action_dim": 7}, r"action_dim = 7, the checkpoint was trained with 2; use the same data"),
        ({"image_size": 48}, "image_size = 48, the checkpoint was trained with 96"),
        ({"cameras": ("side",)}, r"cameras = \('side',\), the checkpoint was trained with \('top',\)"),
        ({"state_dims": {"arm": 2}}, "state_dims = {'arm': 2}"),
        ({"rate_hz": 20, "image_size": 48}, r"image_size = 48.*\(and 1 more differ\)"),
    ],
)
def test_data_that_differ_from_the_checkpoints_are_refused_by_name(fitted, change, words):
    module, _ = fitted
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    other = copy.copy(module)
    object.__setattr__(other, "spec", replace(module.spec, **change))
    with pytest.raises(ValueError, match=words):
        other.on_load_checkpoint(checkpoint)
    object.__setattr__(other, "spec", replace(module.spec, action_meaning="told in other words"))
    other.on_load_checkpoint(checkpoint)


def test_a_prediction_is_not_shown_what_the_data_lack(tiny_data, tiny_module, fitted):
    spec = replace(fitted[0].spec, past_action=True, text_dim=4)
    told = tiny_module(spec)
    told.tokenizer, told.actions, told.proprioception = (
        getattr(fitted[0], part) for part in ("tokenizer", "actions", "proprioception")
    )
    for parameter in told.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    lacking = told.eval().predict_step(fitted[1], 0)["action"]
    whole = replace(fitted[1], past_action=torch.full((12, 16, 2), 256.0), text=torch.zeros(12, 4))
    flags = {name: torch.zeros(12, dtype=torch.bool) for name in ("past_action", "text")}
    absent = replace(whole, present={**whole.present, **flags})
    assert torch.equal(told.predict_step(absent, 0)["action"], lacking), "what is absent is hidden"
    assert not torch.equal(told.predict_step(whole, 0)["action"], lacking), "zeros are no instruction"


def test_steps_that_cannot_be_spread_are_refused(fitted):
    module, batch = fitted
    tokens = module.tokens(batch)
    seen = RobotPolicy().visible(tokens, None)
    tokens._values["action"], seen._values["action"] = tokens.action[:, :5], seen.action[:, :5]
    with pytest.raises(ValueError, match="5 steps cannot be spread evenly over 32 tokens"):
        module.transformer(tokens, seen)


def test_actions_of_another_width_are_refused(fitted):
    module, batch = fitted
    with pytest.raises(ValueError, match="The values are 3 wide, expected 2 as fitted"):
        module.losses(replace(batch, action=torch.zeros(12, 16, 3)), 0)


def test_actions_relative_to_what_the_data_lacks_are_refused(fitted):
    module, batch = fitted
    module.actions = ActionSpace(Standard(), relative_to="arm")
    with pytest.raises(ValueError, match=r"cannot be relative to 'arm'.*\{'agent': 2\}"):
        module.losses(batch, 0)
