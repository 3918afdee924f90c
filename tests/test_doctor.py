"""``uva doctor``, and what it is for: what is missing or broken is named, with the way to mend it."""

import json
import subprocess
import sys

from command_line import distribution, python

from uva_lightning.commands.doctor import check_simulators, check_torch, check_torchvision
from uva_lightning.simulators.installed import FILLED, MARKER, place_of


def test_doctor_finds_a_torchvision_that_breaks(tmp_path, monkeypatch):
    distribution(tmp_path, "torchvision", "0.20.0+cu130")
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = check_torchvision()
    assert check.level == "FAIL"
    assert "torchvision::nms does not exist" in check.fact
    assert check.mend.startswith("pip uninstall torchvision")


def test_doctor_warns_of_a_torchvision_of_another_release(tmp_path, monkeypatch):
    distribution(tmp_path, "torchvision", "0.2.0")
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert check_torchvision().level == "WARN"


def test_doctor_works_where_torch_and_lightning_do_not(tmp_path):
    for name in ("torch", "lightning"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise OSError('libcudart.so: cannot open shared object file')")
    done = python("-m", "uva_lightning.cli", "doctor", path=tmp_path, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert failed == ["torch", "lightning"]
    assert "libcudart.so" in done.stdout


def test_doctor_accepts_the_torch_of_the_tests():
    assert [check.level for check in check_torch()][0] == "OK"


def test_components_are_found_without_simulators_and_servers():
    code = """
import sys
from uva_lightning.commands.extras import EXTRAS
gone = {*EXTRAS["sim"], *EXTRAS["serve"]} - {"matplotlib"}  # which torchmetrics imports where its record is found
sys.modules |= dict.fromkeys(gone)
from uva_lightning.commands.discovery import import_components
left_out = import_components()
assert not [name for name in left_out if ".callbacks." in name], left_out
import uva_lightning.commands.rollout
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_doctor_tells_what_is_wrong_with_a_simulator(tmp_path, monkeypatch):
    monkeypatch.setenv("UVA_ENVS", str(tmp_path))
    libero, toolhang = check_simulators()
    assert (libero.level, toolhang.level) == ("OK", "OK")
    assert "not installed" in libero.fact
    place = place_of("libero")
    (place.venv / "bin").mkdir(parents=True)
    assert next(check_simulators()).mend == "uva env install libero"
    place.python.touch()
    (place.venv / FILLED).write_text(place.pinned)
    for missing, level in ((0, "OK"), (30, "WARN")):
        (place.folder / MARKER).write_text(json.dumps({"pins": place.pinned, "missing": missing}))
        assert next(check_simulators()).level == level
    assert "lacks 30 assets" in next(check_simulators()).fact


def test_broken_torch_is_named_when_training_starts(tmp_path):
    (tmp_path / "lightning").mkdir()
    (tmp_path / "lightning/__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    done = python("-m", "uva_lightning.cli", "fit", path=tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "`uva doctor` says how to mend it" in done.stderr
