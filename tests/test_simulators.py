"""Simulators in environments of their own: messages, processes, installation and its errors; no simulator is needed."""

import io
import os
import signal
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from uva_lightning.cli import main
from uva_lightning.commands.errors import UserError
from uva_lightning.simulators import install
from uva_lightning.simulators.client import Client, SimulatorDied
from uva_lightning.simulators.installed import MARKER, Installed, place_of, ready
from uva_lightning.simulators.libero import lacking, missing
from uva_lightning.simulators.wire import TYPES, receive, send

OWN = Path(__file__).parent / "support" / "own_simulator.py"


@pytest.fixture
def place(tmp_path) -> Installed:
    """An environment whose interpreter is this one."""
    found = place_of("libero", tmp_path)
    found.python.parent.mkdir(parents=True)
    found.python.symlink_to(sys.executable)
    (found.venv / "pyvenv.cfg").write_text(f"home = {Path(sys.base_prefix) / 'bin'}\n")
    own = found.venv / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    own.parent.mkdir(parents=True)
    own.symlink_to(Path(np.__file__).parents[1])  # numpy
    return found


@pytest.fixture
def own(place):
    """A simulator of three numbers, in a process."""
    client = Client(f"{OWN}:Counter", place)
    yield client
    client.close()


@settings(max_examples=30)
@given(st.sampled_from(TYPES).flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, min_side=0))))
def test_arrays_arrive_as_they_were_sent(array):
    pipe = io.BytesIO()
    send(pipe, {"verb": "step", "seed": 3}, {"a": array})
    pipe.seek(0)
    head, found = receive(pipe)
    assert head == {"verb": "step", "seed": 3}
    assert found["a"].dtype == array.dtype
    np.testing.assert_array_equal(found["a"], array)


@given(st.binary(max_size=64))
def test_broken_messages_are_refused(noise):
    with pytest.raises((ValueError, EOFError)):
        receive(io.BytesIO(noise))
    with pytest.raises((ValueError, EOFError)):
        receive(io.BytesIO(struct.pack(">I", len(noise)) + noise))


def test_objects_are_neither_sent_nor_read():
    with pytest.raises(ValueError, match="cannot be sent"):
        send(io.BytesIO(), {}, {"a": np.array([object()])})
    text = b'{"head": {}, "arrays": [["a", "|O", [1]]]}'
    with pytest.raises(ValueError, match=r"'a' is \|O"):
        receive(io.BytesIO(struct.pack(">I", len(text)) + text + b"\0" * 8))


def test_a_simulator_in_its_own_process_answers_refuses_and_fails(own):
    assert own.ask("make", task="x") == ({"task": "x"}, {})
    head, found = own.ask("step", {"action": np.array([1.0, 2.0])})
    assert head == {"total": 3.0}
    np.testing.assert_array_equal(found["doubled"], [2.0, 4.0])
    with pytest.raises(ValueError, match="no such task"):
        own.ask("make", task="")
    with pytest.raises(ValueError, match="knows no '_hidden'"):
        own.ask("_hidden")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        own.ask("fail")
    assert own.ask("chat")[0] == {"asked": "EOFError"}  # what it prints and asks is in nobody's way


def test_a_simulator_that_dies_or_hangs_is_told_apart(place):
    client = Client(f"{OWN}:Counter", place)
    client.ask("make", task="x")
    os.kill(client.process.pid, signal.SIGKILL)
    with pytest.raises(SimulatorDied, match="ended with status -9 at 'step'"):
        client.ask("step", {"action": np.zeros(1)})
    client.close()
    client = Client(f"{OWN}:Counter", place, patience_s=0.8)
    with pytest.raises(SimulatorDied, match="did not answer for 1 s"):
        client.ask("hang")
    client.close()


def test_an_environment_is_whole_only_with_its_marker_and_these_pins(place, monkeypatch):
    monkeypatch.setenv("UVA_ENVS", str(place.folder.parent))
    with pytest.raises(ImportError, match=r"not whole .* run: uva env install libero"):
        ready("libero")
    with pytest.raises(ImportError, match=r"'toolhang' is not installed .* run: uva env install toolhang"):
        ready("toolhang")
    (place.venv / "filled").write_text(place.pinned)
    (place.folder / MARKER).write_text('{"pins": "' + place.pinned + '"}')
    assert ready("libero") == place
    assert main(["env", "install", "libero", "--dir", str(place.folder.parent), "--python", "no-such-python"]) == 2
    assert place.whole, "what was refused changes nothing"
    (place.venv / "filled").write_text("other pins")
    assert not place.whole


def test_what_hinders_an_installation_is_one_sentence(tmp_path, monkeypatch, capsys):
    def run(*options):
        assert main(["env", "install", "libero", "--dir", str(tmp_path / "envs"), *options]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("uva: error: ")
        return said

    assert f"There is no folder {tmp_path / 'scenes'}, expected" in run("--assets", str(tmp_path))
    assert not (tmp_path / "envs").exists(), "nothing was begun"
    assert "does not run" in run("--python", str(tmp_path / "none"))
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho 3.8\n")
    old.chmod(0o755)
    assert "is Python 3.8, expected 3.11 or" in run("--python", str(old))
    bare = tmp_path / "bare"
    bare.write_text("#!/bin/sh\n[ $2 = venv ] || { echo 3.11; exit; }\necho No module named venv >&2; exit 1\n")
    bare.chmod(0o755)
    assert "No module named venv; install its module venv" in run("--python", str(bare))
    (tmp_path / "file").write_text("")
    assert main(["env", "install", "libero", "--dir", str(tmp_path / "file")]) == 2
    assert "cannot be made" in capsys.readouterr().err
    monkeypatch.setattr(install, "ROOM_GB", 1e9)
    assert "make room or set --dir" in run()


def test_why_an_environment_does_not_run_is_in_the_log(place, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    with pytest.raises(UserError, match=r"does not run \(ModuleNotFoundError: .*libero.*the whole error is in"):
        install.check(place)
    assert "Traceback" in (place.folder / "install.log").read_text()


@pytest.mark.slow
def test_a_package_that_pip_does_not_find_is_named(place, tmp_path):
    with (tmp_path / "log").open("w") as log, pytest.raises(UserError, match="No matching distribution found for"):
        install._pip(place, f"--no-index --find-links {tmp_path}", log, tmp_path / "log")
    assert "No matching distribution" in (tmp_path / "log").read_text()


def test_initial_states_are_read_without_running_anything(tmp_path):
    torch = pytest.importorskip("torch")
    inits = tmp_path / "libero" / "libero" / "init_files" / "libero_10"
    inits.mkdir(parents=True)
    states = np.random.default_rng(0).normal(size=(50, 45))
    torch.save(states, inits / "KITCHEN.pruned_init")
    assert install.starts_of(tmp_path, tmp_path / "out") == 1
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "libero_10" / "KITCHEN.npy"), states)
    torch.save(Path(), inits / "EVIL.pruned_init")  # any class would do
    with pytest.raises(UserError, match=r"EVIL.pruned_init holds no plain array"):
        install.starts_of(tmp_path, tmp_path / "out")


def test_missing_assets_are_one_sentence(tmp_path):
    scene = tmp_path / "scenes" / "floor.xml"
    scene.parent.mkdir()
    scene.write_text("<mujoco><asset><texture file='../textures/tile.png'/><mesh file='m.obj'/></asset></mujoco>")
    (scene.parent / "m.obj").write_text("")
    (tmp_path / "bad.xml").write_text("<mujoco>")
    assert missing(tmp_path) == ["bad.xml (damaged)", "textures/tile.png"]
    said = lacking(tmp_path, "Error opening\nfile 'x'")
    assert "lack 2 files that their own scenes name (bad.xml (damaged), textures/tile.png)" in said
    assert said.endswith("run: uva env install libero --assets PATH")


def test_a_folder_without_scenes_is_no_assets(place, tmp_path):
    target = place.folder / "assets"
    with pytest.raises(UserError, match=r"no folder .*scenes, expected the folder 'assets' of LIBERO"):
        install.link_assets(tmp_path, target)
    (tmp_path / "assets" / "scenes").mkdir(parents=True)
    for folder in (tmp_path, tmp_path / "assets"):  # the folder itself, or the one around it
        install.link_assets(folder, target)
        assert target.resolve() == tmp_path / "assets"
    target.unlink()
    target.mkdir()
    with pytest.raises(UserError, match="is a folder, expected a link or nothing"):
        install.link_assets(tmp_path, target)


def test_the_list_says_how_each_environment_is(place, capsys):
    assert main(["env", "list", "--dir", str(place.folder.parent)]) == 0
    libero, toolhang = capsys.readouterr().out.splitlines()
    assert "not whole" in libero
    assert toolhang.endswith("not installed; run: uva env install toolhang")
