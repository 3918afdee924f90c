"""A model trained on a mixture: who serves what, exact resumes, and a policy for each of its sets."""

from __future__ import annotations

import logging
from dataclasses import replace

import mixtures
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer

from uva_lightning.callbacks.set_shares import SetShares
from uva_lightning.datamodules.augment import Augmentation
from uva_lightning.datamodules.picture_changes import ColourJitter
from uva_lightning.model.tokenizers.linear_patches import LinearPatches
from uva_lightning.objectives.forward_dynamics import ForwardDynamics
from uva_lightning.objectives.robot_policy import RobotPolicy
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.policy.planner import Planner
from uva_lightning.policy.windows import WindowPolicy, observed
from uva_lightning.sampler import ObjectiveSampler

WEIGHTS = {"arm": 1, "plane": 1, "people": 1}


class Trace(Callback):
    """Keep the loss and what is logged."""

    def __init__(self):
        self.losses, self.seen = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        self.seen.append(batch.source.tolist())
        if trainer.global_step == 2:
            trainer.save_checkpoint(f"{trainer.default_root_dir}/two.ckpt")


def trainer(folder, steps, *callbacks, **options):
    defaults = {"limit_val_batches": 0, "logger": False, "enable_checkpointing": False, "log_every_n_steps": 1}
    return Trainer(
        accelerator="cpu",
        max_steps=steps,
        callbacks=list(callbacks),
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        **{**defaults, **options},
    )


def fit(tiny_module, folder, steps, ckpt=None, data=None, module=None, **options):
    data = data or mixtures.mixture(online=False, weights=WEIGHTS)
    module, trace = module or tiny_module(data.spec, tokenizer=LinearPatches(patch=6, channels=8)), Trace()
    run = trainer(folder, steps, trace, SetShares(), **options)
    run.fit(module, data, ckpt_path=ckpt, weights_only=True)
    return module, run, trace


@pytest.fixture(scope="module")
def trained(tiny_module, tmp_path_factory):
    return fit(tiny_module, tmp_path_factory.mktemp("run"), 4)


def test_samples_without_actions_serve_no_objective_that_needs_them(trained):
    module, run, _ = trained
    batch = next(iter(run.datamodule.train_dataloader()))
    plan, terms, _ = module.losses(batch, 0)
    source = batch.source[plan.order]
    assert all(term.mean.isfinite() for term in terms.values())
    for name in ("policy", "forward"):
        assert 2 not in source[plan.served[name]].tolist()
    assert 2 in source[plan.served["video"]].tolist()
    logged = {name: float(value) for name, value in run.callback_metrics.items()}
    assert logged["train/policy/from_people"] == 0
    for name in ("policy", "video", "forward"):
        assert sum(logged[f"train/{name}/from_{one}"] for one in WEIGHTS) == pytest.approx(1)
    assert {name: logged[f"data/{name}/share_rank0"] for name in WEIGHTS} == pytest.approx(
        dict.fromkeys(WEIGHTS, 1 / 3)
    )


def test_a_resume_repeats_what_the_whole_run_did(tiny_module, tmp_path, trained):
    whole, run, trace = trained
    module, _, rest = fit(tiny_module, tmp_path, 4, f"{run.default_root_dir}/two.ckpt")
    assert rest.losses == trace.losses[2:]
    assert rest.seen == trace.seen[2:]
    for name, weights in whole.state_dict().items():
        assert module.state_dict()[name].equal(weights)


def test_what_another_set_has_never_reaches_a_sample(trained):
    """Change whatever a sample does not have: its latents, hence all that follows, stay as they are."""
    module, run, _ = trained
    batch = next(iter(run.datamodule.train_dataloader()))
    noise = torch.Generator().manual_seed(0)

    def spoilt(values, there):
        rubbish = torch.randn(values.shape, generator=noise).to(values.dtype)
        return torch.where(there.view(-1, *[1] * (values.dim() - 1)), values, rubbish)

    has = {"front": batch.present["video"], **batch.present}
    other = replace(
        batch,
        latents={name: spoilt(values, has[name]) for name, values in batch.latents.items()},
        action=spoilt(batch.action, has["action"]),
        state={name: spoilt(values, has[name]) for name, values in batch.state.items()},
    )
    widths = torch.tensor([5, 2, 5])[batch.source]
    padded = torch.arange(5) >= widths[:, None, None]
    other = replace(other, action=torch.where(padded, 7.0, other.action))
    assert not other.action.equal(batch.action)
    module.eval()
    with torch.no_grad():
        results = [module.losses(one, 3).terms for one in (batch, other)]
    for key, value in results[0].items():
        assert results[1][key].mean.equal(value.mean), key


def test_validation_tells_the_sets_apart(tiny_module, tmp_path, trained):
    module, _, _ = trained
    data = mixtures.mixture(online=False, weights=WEIGHTS)
    run = trainer(tmp_path, 1, SetShares(), limit_val_batches=None, val_check_interval=1)
    run.fit(module, data)
    names = {name for name in run.callback_metrics if name.startswith("val/")}
    assert {"val/loss", "val/video/video", "val/arm/policy/action", "val/people/video/video"} <= names
    assert not {name for name in names if name.startswith("val/people/policy")}


def test_realised_shares_are_told(tiny_module, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        fit(tiny_module, tmp_path, 2)
    said = [record.message for record in caplog.records]
    assert "Mixture of arm 33.3%, plane 33.3%, people 33.3%, by window; 12 samples per step." in said
    assert "Samples trained on by step 2, rank 0: arm 33.3%, plane 33.3%, people 33.3%." in said


def only_people(**options):
    return mixtures.People("people", window=mixtures.WINDOW, val_ratio=0.3, batch_size=4, **options)


def test_an_objective_that_no_set_can_serve_stops_the_run(tiny_module, tmp_path):
    data = only_people()
    with pytest.raises(ValueError, match="predicts|no head|names"):
        tiny_module(data.spec)  # there are no actions for a head to predict
    mixed = mixtures.Mixture({"people": only_people()}, batch_size=4)
    told = {"talk": type("Told", (RobotPolicy,), {"needs": ("text",)})(), "video": VideoModel()}
    data = mixtures.mixture(online=False)
    with pytest.raises(ValueError, match="'talk' needs action, text, but no data set has it: arm has action"):
        fit(tiny_module, tmp_path, 1, data=data, module=tiny_module(data.spec, objectives=told))
    data = mixtures.mixture(online=False)
    shy = {"policy": RobotPolicy(), "forward": ForwardDynamics()}
    with pytest.raises(ValueError, match="samples of people fit no objective: it has video"):
        fit(tiny_module, tmp_path, 1, data=data, module=tiny_module(data.spec, objectives=shy))
    assert mixed.spec.action_dim == 0


def test_a_single_data_set_without_the_actions_it_speaks_of_is_not_silent(tiny_module, tiny_data, tmp_path):
    class Silent(type(tiny_data())):
        def read(self):
            return replace(super().read(), action=None)

    data = Silent(tiny_data.path, window=mixtures.WINDOW, batch_size=8, val_ratio=0.2)
    with pytest.raises(ValueError, match="Objective 'forward' needs action, video, but .*: Silent has agent"):
        fit(tiny_module, tmp_path, 1, data=data)


def test_a_model_of_videos_alone_has_no_actions(tiny_module, tmp_path):
    from uva_lightning.model.heads.base import VideoHead
    from uva_lightning.model.heads.flow import FlowMatching

    data = only_people()
    heads = {"video": lambda shape: VideoHead(shape, lambda c, k: FlowMatching(c, k, width=16, depth=1), steps=2)}
    module = tiny_module(
        data.spec, tokenizer=LinearPatches(patch=6, channels=8), objectives={"video": VideoModel()}, heads=heads
    )
    run = trainer(tmp_path, 2)
    run.fit(module, data)
    assert set(module.transformer.streams) == {"past_video", "video"}
    windows = data.held_out().with_frames()[torch.arange(2)]
    assert WindowPolicy(module).imagine(observed(windows))["camera"].shape == (2, 2, 24, 24, 3)


def test_shares_of_the_objectives_are_kept_as_far_as_the_sets_allow():
    objectives = {"policy": RobotPolicy(), "video": VideoModel(), "forward": ForwardDynamics()}
    action = torch.arange(30) < 20
    plan = ObjectiveSampler(objectives)(5, {"video": torch.ones(30).bool(), "action": action})
    counts = {name: rows.stop - rows.start for name, rows in plan.served.items()}
    assert counts == {"policy": 10, "video": 10, "forward": 10}
    assert not action[plan.order[plan.served["video"]]].any()


@pytest.mark.parametrize(("name", "camera", "width"), [("arm", "front", 5), ("plane", "top", 2)])
def test_a_policy_is_that_of_one_set(trained, name, camera, width):
    module, run, _ = trained
    policy = WindowPolicy(module.eval(), set=name)
    windows = run.datamodule.sets[name].held_out().with_frames()[torch.arange(3)]
    seen, future = observed(windows), {c: v[:, 2:].numpy() for c, v in windows.video.items()}
    assert policy.act(seen).shape == (3, 16, width)
    assert np.isfinite(policy.act(seen)).all()
    assert set(policy.imagine(seen)) == {camera}
    assert policy.predict_next(seen, windows.action.numpy())[camera].shape == (3, 2, 24, 24, 3)
    assert policy.explain(seen, future).shape == (3, 16, width)

    def score(past, futures):
        assert set(past) == set(windows.video)
        return futures[camera].mean(axis=(2, 3, 4, 5), dtype=np.float64)

    assert Planner(policy, score, 3).act(seen).shape == (3, 16, width)
    low, high = (f(windows.action.numpy()) for f in (np.min, np.max))
    assert low - 5 * (high - low) < policy.act(seen).mean() < high + 5 * (high - low)


def test_a_policy_of_a_mixture_must_be_told_which_set(trained):
    module, run, _ = trained
    with pytest.raises(ValueError, match="No data set is named, expected one of arm, plane, people"):
        WindowPolicy(module)
    with pytest.raises(ValueError, match="There is no data set 'arms', expected one of"):
        WindowPolicy(module, set="arms")
    windows = run.datamodule.sets["people"].held_out().with_frames()[torch.arange(2)]
    assert set(WindowPolicy(module, set="people").imagine(observed(windows))) == {"camera"}


def test_predictions_are_nan_where_nothing_is_known(trained):
    module, run, _ = trained
    module.eval()
    loader = run.datamodule.predict_dataloader()
    by_set = {int(batch.source[0]): module.predict_step(batch, number) for number, batch in enumerate(loader)}
    assert by_set[0]["action"].isfinite().all()
    assert by_set[1]["action"][..., :2].isfinite().all()
    assert by_set[1]["action"][..., 2:].isnan().all()
    assert by_set[2]["action"].isnan().all()


class Pictures(Callback):
    """Keep the batches as the model gets them."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batch, self.rows = batch, trainer.datamodule._sampler.share(batch_idx)


def test_each_set_s_pictures_are_changed_as_it_says(tiny_module, tmp_path):
    change = Augmentation([ColourJitter(0.5, 0.5, 0.5, 0.1)])
    sets = {**mixtures.sets(), "plane": mixtures.Plane("plane", window=mixtures.WINDOW, val_ratio=0.3, augment=change)}
    data = mixtures.Mixture(sets, batch_size=12, weights=WEIGHTS, cameras=mixtures.CAMERAS, image_size=24)
    module, kept = tiny_module(data.spec, tokenizer=LinearPatches(patch=6, channels=8)), Pictures()
    trainer(tmp_path, 2, kept).fit(module, data)
    plain = data.train_dataloader().dataset[kept.rows]
    assert plain.source.equal(kept.batch.source)
    changed = (plain.video["front"] != kept.batch.video["front"]).flatten(1).any(dim=1)
    assert changed[plain.source == 1].any()
    assert not changed[plain.source != 1].any()
    own = data.sets["plane"].augmented({"top": plain.video["front"][plain.source == 1]}, kept.rows["plane"])
    assert kept.batch.video["front"][plain.source == 1].equal(own["top"])
