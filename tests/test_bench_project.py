"""`uva bench project`: the formula, and the tables of docs/scaling.md."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from uva_lightning.benchmarks.projection import Device, Stage, encoding_flops, read_stage, step_time

ROOT = Path(__file__).parents[1]
SAID = {
    "schema": 1,
    "batch_size": 4,
    "accumulated": 2,
    "trained": 1000,
    "parts_ms": {"data": 1.0, "trunk": 16.0, "heads": 8.0, "synchronisation": 5.0, "optimizer": 3.0},
    "parts_flops_per_sample": {"trunk": 300, "heads": 100},
}


@pytest.fixture
def file(tmp_path):
    """Give a function that writes a measurement with changes."""

    def write(**changes):
        path = tmp_path / "stage.json"
        path.write_text(json.dumps(SAID | changes))
        return path

    return write


def test_a_measurement_is_split_into_what_grows_with_samples_and_what_does_not(file):
    stage = read_stage(file())
    assert (stage.name, stage.flops, stage.trained) == ("stage", 400, 1000)
    assert stage.sample_s == pytest.approx(0.024 / 8)  # eight samples to an update
    assert stage.fixed_s == pytest.approx(0.004)  # the way between processes is computed anew
    assert read_stage(file(), 50.0).flops == 450


def test_time_of_a_step_follows_the_formula():
    stage = Stage("x", flops=1e9, trained=10**6, sample_s=0.5, fixed_s=0.25)
    one = step_time(stage, 16, 1, Device(1e12, 0.4, 1e9, 2e9))
    assert (one.samples, one.fixed, one.synchronisation) == pytest.approx((16e9 / 4e11, 0.04, 0))
    four = step_time(stage, 16, 4, Device(1e12, 0.4, 1e9, 2e9))
    assert (four.samples, four.fixed, four.synchronisation) == pytest.approx((one.samples / 4, 0.04, 6e6 / 2e9))
    assert four.total == pytest.approx(0.01 + 0.04 + 0.003)
    measured = step_time(stage, 16, 4, Device(1e12, None, 1e9, 2e9))
    assert (measured.samples, measured.fixed) == pytest.approx((2.0, 0.25))


def test_flops_of_encoding_come_from_a_measurement_with_pictures(file):
    assert encoding_flops(file(parts_flops_per_sample={"tokenizer": 70, "trunk": 1})) == 70
    with pytest.raises(ValueError, match=r"has no FLOPs of a tokenizer.*options/online\.yaml"):
        encoding_flops(file())


def test_command_computes_stages_one_after_the_other(uva, file):
    path = file(parts_flops_per_sample={"trunk": 3.6e12})
    common = ["--steps", 100, "--batch", 8, "--gpus", "[1]", "--mfu", "[0.5]", "--peak", 2, "--price", 3]
    status, out, _ = uva("bench", "project", f"[{path},{path}]", *common)
    assert status == 0
    assert out.count("stage: 3.600 TFLOP/sample, 0.0 M trained parameters") == 2
    mfu, gpus, step, lost, rate, hours, days, gpu_hours, price = out.splitlines()[-1].split()
    assert (mfu, gpus, step, lost) == ("50%", "1", "28800.0", "0.0%")  # 8 samples of 3.6 s
    assert (rate, hours, days, gpu_hours, price) == ("0", "1.6", "0.1", "2", "5")


def test_command_with_measured_times(uva, file):
    status, out, _ = uva(
        "bench", "project", f"[{file()}]", "--steps", 10, "--batch", 8, "--gpus", "[1]", "--measured=true"
    )
    assert status == 0
    assert out.splitlines()[-1].split()[:3] == ["1", "28.0", "14.3%"]  # 24 ms of samples, 4 ms besides


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", 0, "--batch", 8], "steps is 0, expected a positive number; set --steps."),
        (["--steps", 1, "--batch", 8, "--mfu", "[0.2,1.5]"], "mfu has 1.5, expected shares of the peak in (0, 1]"),
        (["--steps", 1, "--batch", 8, "--gpus", "[1,64]"], "gpus has 64, expected 1 to 8, a sample for each;"),
        (["--steps", 1, "--batch", 8, "--price", "-1"], "price is -1.0, expected 0 or more; set --price."),
    ],
)
def test_wrong_numbers(uva, file, options, words):
    status, out, complaint = uva("bench", "project", f"[{file()}]", *options)
    assert (status, out) == (2, "")
    assert words in complaint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no"),
        ("{", "is no JSON"),
        ("[]", "lacks keys"),
        ('{"schema": 1}', "lacks keys of a measurement"),
    ],
)
def test_wrong_files(tmp_path, content, words):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=f"{words}.*expected what uva bench train --json wrote"):
        read_stage(path)


def test_no_files(uva):
    status, _, complaint = uva("bench", "project", "[]", "--steps", 1, "--batch", 8)
    assert status == 2
    assert "files is empty, expected a JSON of uva bench train for each stage" in complaint


def blocks():
    """Commands of the page with what it says they print."""
    text = (ROOT / "docs" / "scaling.md").read_text()
    for block in re.findall(r"```\n\$ (uva bench project .*?)```", text, re.DOTALL):
        command, _, printed = block.replace("\\\n", "").partition("\n")
        yield command, printed


@pytest.mark.parametrize("number", range(5))
def test_the_page_says_what_the_command_prints(uva, monkeypatch, number):
    found = list(blocks())
    assert len(found) == 5
    command, printed = found[number]
    monkeypatch.chdir(ROOT)
    status, out, _ = uva(*shlex.split(command)[1:])
    assert status == 0
    assert [line.rstrip() for line in out.splitlines()] == [line.rstrip() for line in printed.splitlines()]
