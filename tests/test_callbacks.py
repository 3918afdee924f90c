"""Callbacks that look at the model while it trains: what they write and log, and that training does not notice."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from uva_lightning.callbacks.ema import EMA
from uva_lightning.callbacks.evaluation import undisturbed
from uva_lightning.callbacks.run_progress import RunProgress
from uva_lightning.callbacks.throughput import Throughput
from uva_lightning.callbacks.video_grid import VideoGrid, draw_grid, held_out
from uva_lightning.datamodules.generate import RandomEpisodes
from uva_lightning.datamodules.toolhang import ToolHang
from uva_lightning.model.tokenizers.linear_patches import LinearPatches


def trainer(tmp_path, *callbacks, **options):
    defaults = {
        "max_steps": 4,
        "val_check_interval": 2,
        "num_sanity_val_steps": 1,
        "log_every_n_steps": 1,
        "logger": TensorBoardLogger(tmp_path, name="", version="run"),
        "accelerator": "cpu",
        "enable_progress_bar": any(isinstance(c, RunProgress) for c in callbacks),
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return Trainer(default_root_dir=tmp_path, callbacks=list(callbacks), **{**defaults, **options})


def events(tmp_path):
    accumulator = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


class State(Callback):
    """Remember modes and random state around the validation hook of a callback that stands after or before this."""

    def __init__(self):
        self.seen = []

    def on_validation_epoch_end(self, trainer, pl_module):
        self.seen.append((torch.get_rng_state(), [part.training for part in pl_module.modules()]))


def test_training_does_not_notice(tmp_path, tiny_data, tiny_module):
    """Same weights with and without the callbacks, to the last bit."""
    ends = []
    for callbacks in ([], [VideoGrid(windows=1), Throughput(), RunProgress()]):
        data = tiny_data()
        module = tiny_module(data.spec)
        trainer(tmp_path / str(len(ends)), *callbacks).fit(module, datamodule=data)
        ends.append(list(module.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_evaluation_leaves_no_trace():
    module = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
    module[1].eval()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    with undisturbed(module):
        assert not any(part.training for part in module.modules())
        torch.rand(3), np.random.rand(3)
    assert [part.training for part in module.modules()] == [True, True, False]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_video_grid_draws_held_out_windows(tmp_path, tiny_data, tiny_module):
    data = tiny_data()
    trainer(tmp_path, VideoGrid(windows=3), EMA()).fit(tiny_module(data.spec), datamodule=data)
    pictures = sorted((tmp_path / "run/pictures").iterdir())
    assert [path.name for path in pictures] == ["step_00000002_top.png", "step_00000004_top.png"]
    first, second = (np.asarray(Image.open(path)) for path in pictures)
    rows, columns = 4 * 96 + 3 * 6, 120 + 3 * (6 + 2 * 96)
    assert first.shape == second.shape == (rows, columns, 3)
    store, windows = data.store, data.val_dataloader().dataset.windows
    shown = windows.frame_index(np.array([0, len(windows) // 2, len(windows) - 1]))
    for place, frames in enumerate(shown):
        left = 120 + 6 + place * (6 + 2 * 96)
        np.testing.assert_array_equal(first[:96, left : left + 96], store.video["top"][frames[0]])
        np.testing.assert_array_equal(first[102:198, left + 96 : left + 192], store.video["top"][frames[3]])
    assert (first[:200] == second[:200]).all()
    assert (first[204:] != second[204:]).any()
    images = events(tmp_path).Images("pictures/top")
    assert [image.step for image in images] == [2, 4]
    assert Image.open(io.BytesIO(images[0].encoded_image_string)).size == (columns, rows)


def test_a_camera_that_is_not_predicted_is_drawn_as_it_was(tmp_path, tiny_module):
    pytest.importorskip("zarr")
    data = ToolHang(tmp_path / "set.zarr", batch_size=4, generate=RandomEpisodes(episodes=2, steps=34))
    tokenizer = LinearPatches(channels=8, grid=16)
    trainer(tmp_path, VideoGrid(windows=2), max_steps=2).fit(tiny_module(data.spec, tokenizer=tokenizer), data)
    heights = {path.name: Image.open(path).size[1] for path in (tmp_path / "run/pictures").iterdir()}
    assert heights == {"step_00000002_sideview.png": 4 * 240 + 3 * 6, "step_00000002_wrist.png": 2 * 240 + 6}


def test_held_out_windows_have_frames_even_from_cached_latents(tmp_path, tiny_data, tiny_module):
    data = tiny_data()
    fit = trainer(tmp_path, limit_val_batches=1)
    fit.fit(tiny_module(data.spec), datamodule=data)
    assert data.latents
    assert held_out(fit, 2)[None].video["top"].shape == (2, 4, 96, 96, 3)
    assert held_out(fit, 1000)[None].video["top"].shape[0] == len(data.val_dataloader().dataset)
    assert next(iter(fit.val_dataloaders)).latents


def test_grid_has_one_row_per_entry_and_one_block_per_sample():
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 10, 3), dtype=np.uint8)
    grid = draw_grid({"a": frames, "b": 255 - frames})
    assert grid.shape == (8 + 6 + 8, 120 + 2 * (6 + 30), 3)
    assert (grid[:8, 126:136] == frames[0, 0]).all()
    assert (grid[14:, -10:] == 255 - frames[1, 2]).all()


def test_video_grid_needs_a_video_head(tmp_path, tiny_data, tiny_module):
    from uva_lightning.model.heads.aggregate import ConvFC
    from uva_lightning.model.heads.base import ActionHead
    from uva_lightning.model.heads.flow import FlowMatching
    from uva_lightning.objectives.robot_policy import RobotPolicy

    def head(shape):
        return ActionHead(shape, lambda c, k: FlowMatching(c, k, width=8, depth=1), ConvFC)

    data = tiny_data()
    module = tiny_module(data.spec, objectives={"policy": RobotPolicy()}, heads={"action": head})
    with pytest.raises(ValueError, match="has no video head, VideoGrid needs one; remove VideoGrid"):
        trainer(tmp_path, VideoGrid()).fit(module, datamodule=data)
    with pytest.raises(ValueError, match="windows is 0"):
        VideoGrid(windows=0)


def test_throughput_counts_samples_and_waiting(tmp_path, tiny_data, tiny_module):
    data = tiny_data()
    trainer(tmp_path, Throughput(), log_every_n_steps=2).fit(tiny_module(data.spec), datamodule=data)
    log = events(tmp_path)
    rates = [value.value for value in log.Scalars("throughput/samples_per_second")]
    shares = [value.value for value in log.Scalars("throughput/data_wait_share")]
    assert len(rates) == len(shares) > 0
    assert all(1 < rate < 100_000 for rate in rates)
    assert all(0 <= share <= 1 for share in shares)


def test_the_bar_spans_the_run_and_shows_the_rate(tmp_path, tiny_data, tiny_module, capsys):
    class Watch(Callback):
        def on_train_batch_end(self, trainer, *_):
            bar = trainer.progress_bar_callback.train_progress_bar
            self.last = (bar.n, bar.total, bar.unit, bar.desc, bar.postfix)

    data, watch = tiny_data(batch_size=90), Watch()  # two steps are an epoch
    trainer(tmp_path, Throughput(), RunProgress(), watch, max_steps=5).fit(tiny_module(data.spec), datamodule=data)
    n, total, unit, description, postfix = watch.last
    assert (n, total, unit, description) == (5, 5, "step", "Training: ")
    assert re.search(r"samples/s=\d+", postfix)
    assert "v_num" not in postfix
    assert "5/5 [00:" in capsys.readouterr().out


class TestRollout:
    """Rollouts in the simulator during training."""

    @pytest.fixture(autouse=True)
    def _simulator(self):
        for package in ("gymnasium", "pymunk", "shapely", "cv2", "av"):
            pytest.importorskip(package)

    def test_scores_are_logged_and_films_written(self, tmp_path, tiny_data, tiny_module):
        from uva_lightning.callbacks.rollout import Rollout

        data, before, after = tiny_data(), State(), State()
        rollout = Rollout(episodes=2, videos=1, every=2)
        fit = trainer(tmp_path, EMA(), before, rollout, after)
        fit.fit(tiny_module(data.spec), datamodule=data)
        assert {path.name for path in (tmp_path / "run/rollouts").iterdir()} == {"step_00000004"}  # every second one
        films = tmp_path / "run/rollouts/step_00000004"
        assert [path.name for path in films.iterdir()] == ["pusht_100000.mp4"]
        metrics = {name: float(value) for name, value in fit.callback_metrics.items() if name.startswith("rollout/")}
        names = [f"{name}{end}" for name in ("score", "success") for end in ("", "_low", "_high")]
        assert set(metrics) == {f"rollout/{name}" for name in (*names, "jerk")}
        for name in ("score", "success"):
            assert (
                0
                <= metrics[f"rollout/{name}_low"]
                <= metrics[f"rollout/{name}"]
                <= metrics[f"rollout/{name}_high"]
                <= 1
            )
        assert metrics["rollout/jerk"] > 0
        log = events(tmp_path)
        assert [value.value for value in log.Scalars("rollout/score")] == pytest.approx([metrics["rollout/score"]])
        (film,) = log.Images("rollout/pusht")
        gif = Image.open(io.BytesIO(film.encoded_image_string))
        assert gif.format == "GIF"
        assert gif.is_animated
        for (rng, modes), (rng_after, modes_after) in zip(before.seen, after.seen, strict=True):
            assert torch.equal(rng, rng_after)
            assert modes == modes_after

    def test_the_average_acts_and_evaluation_repeats_it(self, tmp_path, tiny_data, tiny_module):
        """The score logged in training is that of the averaged weights, whichever callback comes first."""
        from uva_lightning.callbacks.rollout import Rollout
        from uva_lightning.policy.windows import WindowPolicy
        from uva_lightning.rollouts import run_rollouts

        scores = []
        for order in (slice(None), slice(None, None, -1)):
            data = tiny_data()
            module = tiny_module(data.spec)
            fit = trainer(tmp_path, *[EMA(), Rollout(episodes=1, videos=0)][order], val_check_interval=4, logger=False)
            fit.fit(module, datamodule=data)  # leaves the average in the module
            scores.append(float(fit.callback_metrics["rollout/score"]))
        result = run_rollouts(WindowPolicy(module, 100000), "pusht", data.spec, [100000], progress=False)
        assert scores == pytest.approx([result.score] * 2)
        again = trainer(tmp_path, Rollout(episodes=1, videos=0), logger=False)
        again.validate(module, datamodule=data, verbose=False)
        assert float(again.callback_metrics["rollout/score"]) == pytest.approx(result.score)

    def test_the_count_survives_a_resume(self):
        from uva_lightning.callbacks.rollout import Rollout

        first, second = Rollout(every=3), Rollout(every=3)
        first._validations = 2
        second.load_state_dict(first.state_dict())
        assert second._validations == 2
        assert Rollout("pusht").state_key != Rollout("pusht_m").state_key

    def test_what_cannot_be_played_is_refused_at_once(self, tmp_path, tiny_data, tiny_module):
        from uva_lightning.callbacks.rollout import Rollout

        data = tiny_data()
        with pytest.raises(ValueError, match="no environment 'push'"):
            trainer(tmp_path, Rollout("push")).fit(tiny_module(data.spec), datamodule=data)
        with pytest.raises(ValueError, match="execute is 20"):
            trainer(tmp_path, Rollout(execute=20)).fit(tiny_module(data.spec), datamodule=data)
        for wrong in ({"episodes": 0}, {"every": 0}, {"videos": -1}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                Rollout(**wrong)

    def test_a_fast_dev_run_leaves_nothing(self, tmp_path, tiny_data, tiny_module):
        from uva_lightning.callbacks.rollout import Rollout

        data = tiny_data()
        fit = trainer(tmp_path, Rollout(), VideoGrid(), fast_dev_run=True, max_steps=-1, val_check_interval=1.0)
        fit.fit(tiny_module(data.spec), datamodule=data)
        assert not (tmp_path / "run").exists()
