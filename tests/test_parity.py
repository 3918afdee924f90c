"""The comparison with the official code: it passes on the official numbers, and finds what is wrong."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from uva_lightning.cli import main
from uva_lightning.parity import losses, normalizers, sampling, tables
from uva_lightning.parity.build import Official
from uva_lightning.parity.folder import Folder
from uva_lightning.parity.ledger import Ledger

OFFICIAL = Path(__file__).parent / "fixtures" / "official"


def variant(name):
    return next(v for v in Folder(OFFICIAL).variants() if v.name == name)


def policy_only(numbers):
    return {name: value for name, value in numbers.items() if name.startswith("loss/policy_model/")}


@pytest.fixture(scope="module")
def pusht():
    return variant("pusht"), Folder(OFFICIAL).arrays("pusht_s10.npz")


@pytest.fixture
def copied(tmp_path):
    """A copy of the folder with one variant and only its losses, small enough to be compared quickly."""
    folder = tmp_path / "numbers"
    names = [path.name for path in OFFICIAL.iterdir() if not path.name.startswith(("toolhang", "umi"))]
    folder.mkdir()
    for name in names:
        shutil.copy(OFFICIAL / name, folder / name)
    facts = json.loads((folder / "pusht.json").read_text())
    (folder / "pusht.json").write_text(json.dumps({**facts, "cases": {}}))
    with np.load(folder / "pusht_s10.npz") as numbers:
        np.savez(folder / "pusht_s10.npz", **{name: numbers[name] for name in numbers if name.startswith("loss/")})
    return folder


@pytest.mark.slow
def test_everything_agrees_with_the_official_code(capsys):
    """Four of the six variants at the larger weight scale; all quantities."""
    assert main(["parity", str(OFFICIAL)]) == 0
    shown = capsys.readouterr().out
    assert "all within what is allowed" in shown
    assert int(shown.split(" quantities compared")[0].rpartition("\n")[2]) >= 639


def test_schedules_windows_and_normalisers_agree():
    ledger = Ledger()
    tables.compare(Folder(OFFICIAL), ledger)
    normalizers.compare(Folder(OFFICIAL), ledger)
    assert ledger.count > 100
    assert not list(ledger.exceeded())


def test_a_policy_step_agrees(pusht):
    of, numbers = pusht
    ledger = Ledger()
    losses.compare(Official(of, of.weights(0.1)), "pusht", policy_only(numbers), ledger)
    assert {quantity for _, quantity in ledger.rows} >= {"latents Z", "losses", "rows: mse", "gradient norms"}
    assert not list(ledger.exceeded())


@pytest.mark.parametrize(
    "name", ["spatial_pos_embed", "diffactloss.interpolate.bias", "encoder_blocks.1.attn.qkv.bias"]
)
def test_one_wrong_tensor_is_found(pusht, name):
    of, numbers = pusht
    weights = of.weights(0.1)
    weights[name] = weights[name].flip(-1) if "spatial" not in name else weights[name].flip(1)
    ledger = Ledger()
    losses.compare(Official(of, weights), "pusht", policy_only(numbers), ledger)
    assert list(ledger.exceeded())


def test_sampling_with_another_spacing_is_found(pusht):
    of, numbers = pusht
    stored = {
        name.replace("/16/", "/8/"): v for name, v in numbers.items() if name.startswith("sample/policy_model/16")
    }
    facts = {**of.facts, "cases": {"s10": [["policy_model", "8", 1, 0.95]]}}
    ledger = Ledger()
    sampling.compare(Official(type(of)("pusht", facts, of.inputs), of.weights(0.1)), "pusht", "s10", stored, ledger)
    assert [quantity for _, quantity, _ in ledger.exceeded()][0] == "sampled actions"


def test_the_first_that_is_off_is_named(copied, capsys):
    with np.load(copied / "pusht_s10.npz") as numbers:
        changed = dict(numbers)
    changed["loss/policy_model/act_loss"] = changed["loss/policy_model/act_loss"] * np.float32(1.01)
    np.savez(copied / "pusht_s10.npz", **changed)
    assert main(["parity", str(copied)]) == 1
    told = capsys.readouterr()
    assert "1 exceed what is allowed" in told.out
    assert "EXCEEDED by policy_model/act_loss" in told.out
    assert "the first that is off: pusht s10, losses, policy_model/act_loss" in told.err


def test_a_wrong_shape_and_a_nan_exceed():
    ledger = Ledger()
    ledger.compare("group", "quantity", "shape", torch.zeros(2), torch.zeros(3), 1.0)
    ledger.compare("group", "quantity", "nan", torch.tensor(float("nan")), torch.zeros(()), 1.0)
    ledger.compare("group", "quantity", "fine", torch.zeros(()), torch.tensor(0.5), 1.0)
    assert [entry.name for _, _, entry in ledger.exceeded()] == ["shape", "nan"]


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (("loss/policy_model/grad_norm",), "has no entry 'grad_norm' for pusht s10, expected every number"),
        (("loss/inverse_model/",), "has no entry 'loss/inverse_model/loss' for pusht s10"),
        (("loss/", "sample/", "step/"), "has no entry 'loss/video_model/loss' for pusht s10"),
    ],
)
def test_nothing_passes_by_being_absent(copied, missing, words, capsys):
    """Also a file without any results."""
    with np.load(copied / "pusht_s10.npz") as numbers:
        kept = {name: numbers[name] for name in numbers if not name.startswith(missing)}
    np.savez(copied / "pusht_s10.npz", **kept)
    assert main(["parity", str(copied)]) == 2
    assert words in capsys.readouterr().err


def test_a_sampling_case_without_numbers_is_found(pusht):
    of, numbers = pusht
    kept = {name: value for name, value in numbers.items() if not name.startswith("sample/policy_model/16/")}
    with pytest.raises(KeyError, match="sample/policy_model/16/iter1/T0.95"):
        sampling.compare(Official(of, of.weights(0.1)), "pusht", "s10", kept, Ledger())


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "pusht_inputs.npz").unlink(), r"lacks 1 of \d+ files, e\.g\. pusht_inputs\.npz"),
        (lambda folder: (folder / "vae.npz").write_bytes(b"PK\x03\x04"), r"vae\.npz is damaged .* copy it again"),
        (lambda folder: (folder / "pusht.json").write_text("{"), r"pusht\.json is damaged .*expected JSON"),
        (lambda folder: (folder / "pusht.json").unlink(), "describes no variant: expected a file such as pusht.json"),
        (shutil.rmtree, "does not exist, expected a folder with reference numbers"),
    ],
)
def test_an_incomplete_folder_is_refused(copied, damage, words, capsys):
    damage(copied)
    assert main(["parity", str(copied)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(words, told)
