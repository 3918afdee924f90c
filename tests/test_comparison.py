"""Functions against their baselines, and the table that shows them."""

import numpy as np
import pytest

from uva_lightning.datamodules.windows import Window
from uva_lightning.metrics.comparison import LOWER, Comparison, HeldOut, action_error, psnr, video_functions
from uva_lightning.model.fitted import fit_together
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.report import imagined_frames, table


def row(value, baselines, **options):
    arrays = {name: np.array(values, dtype=float) for name, values in baselines.items()}
    return Comparison("score", np.array(value, dtype=float), arrays, **options).row()


def test_the_strongest_baseline_counts():
    result = row([0.6, 0.7], {"weak": [0.1, 0.1], "strong": [0.59, 0.66]})
    assert result["baseline_name"] == "strong"
    assert result["beats_baseline"]
    assert result["gain"] == pytest.approx(0.025)
    assert not row([0.6, 0.7], {"weak": [0.1, 0.1], "strong": [0.9, 0.6]})["beats_baseline"]


def test_lower_is_better_turns_everything_round():
    result = row([3.0, 1.0], {"weak": [9.0, 9.0], "strong": [4.0, 4.0]}, sign=LOWER)
    assert result["baseline_name"] == "strong"
    assert result["beats_baseline"]
    assert not row([5.0, 4.0], {"strong": [4.0, 4.0]}, sign=LOWER)["beats_baseline"]


def test_an_uncertain_gain_does_not_count():
    noisy = np.tile([0.9, 0.0], 20)
    assert not row(noisy, {"steady": np.full(40, 0.4)})["beats_baseline"]
    assert row(noisy + 0.5, {"steady": np.full(40, 0.4)})["beats_baseline"]


def test_every_baseline_must_be_beaten():
    value = np.full(40, 0.5)
    assert not row(value, {"weak": value - 0.2, "equal": value})["beats_baseline"]


def test_a_least_value_counts_whatever_the_baselines():
    assert not row([0.5, 0.5], {"weak": [0.1, 0.1]}, least=0.55)["beats_baseline"]
    assert row([0.6, 0.6], {"weak": [0.1, 0.1]}, least=0.55)["beats_baseline"]


def test_no_worse_is_enough_only_within_the_tolerance():
    assert not row([1.0, 1.0], {"same": [1.0, 1.0]})["beats_baseline"]
    assert row([1.0, 1.0], {"same": [1.0, 1.0]}, tolerance=0.0)["beats_baseline"]
    assert row([0.985, 1.0], {"same": [1.0, 1.0]}, tolerance=0.01)["beats_baseline"]
    assert not row([0.9, 1.0], {"same": [1.0, 1.0]}, tolerance=0.01)["beats_baseline"]


def test_no_worse_fails_where_the_whole_interval_lies_below_zero():
    base = np.linspace(0, 1, 200)
    assert not row(base - 0.005, {"same": base}, tolerance=0.01)["beats_baseline"]  # small, but certainly worse
    noise = np.random.default_rng(0).normal(scale=0.2, size=200)
    assert row(base - 0.005 + noise - noise.mean(), {"same": base}, tolerance=0.01)["beats_baseline"]


def test_what_stands_beside_has_no_say_in_the_verdict():
    result = row([0.6, 0.8], {"weak": [0.1, 0.1]}, beside={"strong": np.array([0.8, 0.9])})
    assert result["beats_baseline"]
    assert result["beside"]["strong"]["value"] == pytest.approx(0.85)
    assert result["beside"]["strong"]["gain"] == pytest.approx(-0.15)
    assert result["beside"]["strong"]["gain_interval"] == pytest.approx([-0.2, -0.1])


def test_psnr_looks_at_the_last_frame():
    real = np.full((2, 2, 8, 8, 3), 100, dtype=np.uint8)
    frames = real.copy()
    frames[:, 0] = 0  # an earlier frame does not matter
    frames[1, 1] += 10
    expected = 10 * np.log10(255**2 / 10**2)
    values = psnr(frames, real)
    assert values[0] == 100
    assert values[1] == pytest.approx(expected)


def test_action_error_is_a_distance():
    actions = np.zeros((2, 4, 2), dtype=np.float32)
    real = np.full((2, 4, 2), (3.0, 4.0), dtype=np.float32)
    assert action_error(actions, real) == pytest.approx([5.0, 5.0])


@pytest.fixture(scope="module")
def held_out(tiny_data):
    data = tiny_data(window=Window(2, pad=(0, 0)))
    data.setup("validate")
    return HeldOut.of(iter(data.val_dataloader()), 12)


def test_held_out_windows_split_past_and_future(tiny_data, held_out):
    data = tiny_data(window=Window(2, pad=(0, 0)))
    data.setup("validate")
    first = next(iter(data.val_dataloader()))
    assert held_out.observation["video"]["top"].shape == (12, 2, 96, 96, 3)
    assert held_out.future["top"].shape == (12, 2, 96, 96, 3)
    assert (held_out.observation["video"]["top"][0] == first.video["top"][0, :2].numpy()).all()
    assert (held_out.future["top"][0] == first.video["top"][0, 2:].numpy()).all()
    assert (held_out.action[0] == first.action[0].numpy()).all()


def test_windows_of_a_data_set_are_those_of_its_batches(tiny_data, held_out):
    read = HeldOut.from_data(tiny_data(window=Window(2)), 12)
    assert (read.future["top"] == held_out.future["top"]).all()
    assert (read.observation["video"]["top"] == held_out.observation["video"]["top"]).all()
    assert (read.observation["state"]["agent"] == held_out.observation["state"]["agent"]).all()
    assert (read.action == held_out.action).all()


def test_no_held_out_windows_is_an_error():
    with pytest.raises(ValueError, match="no held-out windows"):
        HeldOut.of(iter(()), 4)


def test_every_function_is_measured_and_shown(tiny_data, tiny_module, held_out):
    data = tiny_data()
    data.setup("fit")
    module = tiny_module(data.spec)
    module.tokenizer.fit(data.training_frames())
    fit_together([module.actions, module.proprioception], data.training_numbers())
    policy = WindowPolicy(module.eval())
    rows = {name: comparison.row() for name, comparison in video_functions(policy, held_out).items()}
    assert list(rows) == ["video model", "forward dynamics", "inverse dynamics"]
    assert set(rows["forward dynamics"]["baselines"]) == {"shuffled actions", "video model"}
    assert all(np.isfinite(result["value"]) for result in rows.values())
    lines = table(rows).splitlines()
    assert sum("ok" in line or "MISS" in line for line in lines) == 3
    pictures = imagined_frames(policy, held_out)
    assert list(pictures) == ["past", "real future", "video model", "forward dyn."]
    assert all(frames.shape == (6, 2, 96, 96, 3) for frames in pictures.values())
