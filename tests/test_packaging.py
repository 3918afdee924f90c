"""What is installed: dependencies, extras, and a wheel that has everything."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from uva_lightning import __version__
from uva_lightning.commands.extras import EXTRAS, install_command

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMPORTED_AS = {
    "arx5-interface": "arx5_interface",
    "opencv-python-headless": "cv2",
    "open_clip_torch": "open_clip",
    "pyzmq": "zmq",
}


def names(requirements: list[str]) -> list[str]:
    return [re.split(r"[\[<>=~! ]", requirement)[0] for requirement in requirements]


def pinned(file: str = "constraints.txt") -> set[str]:
    lines = (ROOT / file).read_text().splitlines()
    return {line.split("==")[0].lower().replace("_", "-") for line in lines if line and not line.startswith("#")}


def test_every_direct_dependency_is_pinned():
    extras = PROJECT["optional-dependencies"]
    direct = [
        *PROJECT["dependencies"],
        *extras["sim"],
        *extras["data"],
        *extras["torchjd"],
        *extras["arx"],
        *extras["dev"],
    ]
    assert not {name.lower().replace("_", "-") for name in names(direct)} - pinned()


def test_the_tests_of_the_text_encoder_pin_the_rest():
    text = {name.lower().replace("_", "-") for name in names(PROJECT["optional-dependencies"]["text"])}
    assert text | {"torchvision", "transformers"} <= pinned("constraints-text.txt")
    assert not pinned("constraints-text.txt") & pinned()


def test_the_simulator_of_libero_pins_only_what_is_its_own():
    libero = {name.lower().replace("_", "-") for name in names(PROJECT["optional-dependencies"]["libero"])}
    assert libero <= pinned("constraints-libero.txt") | pinned()
    assert not pinned("constraints-libero.txt") & pinned()
    assert not any("libero" in name for name in PROJECT["optional-dependencies"]["all"])


def test_torchvision_is_not_asked_for():
    assert "torchvision" not in pinned()
    assert not any("torchvision" in name for name in names(PROJECT["dependencies"]))


def test_doctor_knows_the_extras():
    extras = {k: v for k, v in PROJECT["optional-dependencies"].items() if k not in ("all", "dev")}
    assert {k: {IMPORTED_AS.get(name, name) for name in names(v)} for k, v in extras.items()} == {
        extra: set(modules) for extra, modules in EXTRAS.items()
    }
    assert install_command("zarr.storage") == "pip install 'uva_lightning[data]'"
    assert install_command("scipy") == "pip install scipy"


@pytest.mark.slow
def test_wheel_has_objectives_datamodules_and_configs(tmp_path):
    source, out, site = tmp_path / "source", tmp_path / "dist", tmp_path / "site"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("src", "objectives", "datamodules", "configs"):
        leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=leave)
    build = "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])"
    out.mkdir()
    subprocess.run([sys.executable, "-c", build, str(out)], cwd=source, check=True, capture_output=True, timeout=300)

    (wheel,) = out.glob(f"uva_lightning-{__version__}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        content = set(archive.namelist())
        archive.extractall(site)
    for folder, pattern in (("objectives", "*.py"), ("datamodules", "*.py"), ("configs", "*.yaml")):
        files = (ROOT / folder).rglob(pattern)
        assert {f"uva_lightning/{path.relative_to(ROOT).as_posix()}" for path in files} <= content
    assert "uva_lightning/py.typed" in content
    assert not {name for name in content if name.startswith(("objectives/", "datamodules/", "configs/", "tests/"))}

    code = (
        "import uva_lightning; from uva_lightning.cli import main; main(['objectives']); print(uva_lightning.__file__)"
    )
    env = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "RobotPolicy" in done.stdout
    assert str(site) in done.stdout
