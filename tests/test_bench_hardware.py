"""What episodes cost a training is told with the scatter between pairs of trainings."""

import pytest

from uva_lightning.benchmarks.hardware_rollouts import main, said, summary


def timed(enabled, seconds):
    return {"enabled": enabled, "seconds": seconds}


def test_a_training_with_episodes_is_compared_with_the_one_beside_it():
    found = summary([timed(False, 100.0), timed(True, 102.0), timed(True, 208.0), timed(False, 200.0)])
    assert found["values"] == pytest.approx([1.02, 1.04])
    assert found["mean"] == pytest.approx(1.03)
    low, high = found["interval"]
    assert (low + high) / 2 == pytest.approx(1.03)
    assert high - low == pytest.approx(2 * 12.706 * 0.01, rel=1e-3)  # Student's t of two values
    assert summary([timed(True, 30.0), timed(False, 20.0)]) == {"values": [1.5], "mean": 1.5, "interval": None}


def test_what_was_measured_is_said_in_words():
    runs = [timed(False, 100.0), {**timed(True, 103.0), "episodes": 10, "cpu_seconds": 17.2}]
    first, second = said(summary(runs), runs).splitlines()
    assert first == "1.030 times as long with episodes (one pair, no interval)"
    assert second == "103 s with 10 episodes, 17 s of the evaluator's processor time"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["new", "--pairs", "0"], "pairs is 0, expected at least 1"),
        (["new", "--steps", "-1"], "steps is -1, expected at least 1"),
        ([], "expected a new folder"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_trained(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path / options[0]), *options[1:]] if options else [str(tmp_path)])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
