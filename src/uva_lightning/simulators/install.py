"""Install the environment of a simulator: a virtual environment with pins of its own, checked by stepping it."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from tqdm.auto import tqdm

from uva_lightning import __version__
from uva_lightning.commands.errors import UserError
from uva_lightning.results import write_json
from uva_lightning.simulators.client import Client, SimulatorDied
from uva_lightning.simulators.installed import FILLED, LOG, MARKER, TASKS, Installed
from uva_lightning.simulators.scene import settle_settings
from uva_lightning.whole_files import whole

ROOM_GB = 3.0
"""Free space that an installation needs."""
SCENES = "scenes"
"""Folder that the assets have."""
_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
_TOLD = 400


def install(
    place: Installed, python: str, pip_args: str, add: Callable[[Installed], dict[str, Any]], pythons: Sequence[str]
) -> None:
    """Make the environment whole: nothing is done again that is, and all of it where it is not.

    Args:
        place: Where it lies.
        python: Interpreter that makes it; where left out the one that it has, or else that of this environment.
        pip_args: More options for pip.
        add: Brings what pip does not, and gives what the marker tells of it.
        pythons: Versions of Python for which all pinned packages have wheels.

    Raises:
        UserError: Something is missing: Python's module venv, the network, room, a package.
    """
    kept = _expect_python(str(place.python), pythons) if place.filled else ""
    maker = python or (str(place.python) if kept else default_python())
    version = _expect_python(maker, pythons)
    if version != kept:
        _expect_room(place.folder)
    (place.folder / MARKER).unlink(missing_ok=True)  # only now: what was refused above has changed nothing
    if version != kept:
        shutil.rmtree(place.venv, ignore_errors=True)  # whatever a run that was stopped has left
        log = place.folder / LOG
        with log.open("w") as written:
            _make_venv(place, maker, written)
            _pip(place, pip_args, written, log)
        with whole(place.venv / FILLED) as part:
            part.write_text(place.pinned)
    settle_settings(place.packages())
    found = {"format": "uva_lightning environment 1", "pins": place.pinned, "python": version, **add(place)}
    found["checked"] = check(place)
    write_json(place.folder / MARKER, {**found, "uva_lightning": __version__})


def check(place: Installed) -> dict[str, str]:
    """Import the simulator and let it step an arm; gives the versions that answered.

    Raises:
        UserError: It does not work.
    """
    client = Client(place.name, place)
    try:
        head, _ = client.ask("check")
    except (SimulatorDied, RuntimeError, ValueError) as error:
        with (place.folder / LOG).open("a") as log:
            log.write(f"{error}\n")
        last = str(error).strip().splitlines()[-1]
        raise UserError(
            f"The environment in {place.folder} was installed but does not run ({last}), expected it to step an arm; "
            f"the whole error is in {place.folder / LOG}; remove {place.folder} and install it again."
        ) from error
    finally:
        client.close()
    return {str(name): str(version) for name, version in head["versions"].items()}


def assets_in(assets: Path) -> Path:
    """Find LIBERO's assets in the folder that a user names, or in its folder ``assets``.

    Raises:
        UserError: They are in neither.
    """
    found = next((folder for folder in (assets, assets / "assets") if (folder / SCENES).is_dir()), None)
    if found is None:
        raise UserError(
            f"There is no folder {assets / SCENES}, expected the folder 'assets' of LIBERO, which has '{SCENES}'; set "
            "--assets to it."
        )
    return found.absolute()


def link_assets(assets: Path, target: Path) -> None:
    """Put a folder of assets where the simulator looks for it: a link with a fixed name, replaced as a whole.

    Args:
        assets: The user's folder, see ``assets_in``.
        target: Name of the link within the environment.

    Raises:
        UserError: A folder lies in its place.
    """
    found = assets_in(assets)
    if target.is_dir() and not target.is_symlink():
        raise UserError(f"{target} is a folder, expected a link or nothing; leave --assets out to use it, or move it.")
    with whole(target) as part:
        part.symlink_to(found, target_is_directory=True)


def _expect_room(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free / 1e9
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error}), expected a folder to install into; set --dir.") from error
    if free < ROOM_GB:
        raise UserError(f"There are {free:.1f} GB free in {folder}, expected {ROOM_GB:.0f}; make room or set --dir.")


def _expect_python(python: str, pythons: Sequence[str]) -> str:
    try:
        done = subprocess.run([python, "-I", "-c", _VERSION], capture_output=True, text=True, timeout=60)
    except OSError as error:
        raise UserError(f"{python} does not run ({error}), expected Python {pythons[-1]}; set --python.") from error
    version = done.stdout.strip()
    if version not in pythons:
        said = version or (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise UserError(
            f"{python} is Python {said}, expected {' or '.join(pythons)}, for which all of the simulator's packages "
            "have wheels; set --python to one of these."
        )
    return version


def _make_venv(place: Installed, python: str, log: Any) -> None:
    done = subprocess.run([python, "-m", "venv", str(place.venv)], capture_output=True, text=True)
    log.write(done.stdout + done.stderr)
    if done.returncode or not place.python.exists():
        said = " ".join((done.stdout + done.stderr).split())[:_TOLD] or "nothing"
        raise UserError(
            f"{python} cannot make a virtual environment; it says: {said}; install its module venv (on Debian: apt-get "
            "install python3-venv) or set --python to another one."
        )


def _pip(place: Installed, pip_args: str, log: Any, path: Path) -> None:
    """Install the pins, package by package on the bar, all that pip says in the log."""
    pins = [line for line in place.pins.read_text().splitlines() if line and not line.startswith("#")]
    command = [str(place.python), "-m", "pip", "install", "--no-deps", "--no-input", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", *shlex.split(pip_args), "-r", str(place.pins)]
    errors: list[str] = []
    with (
        tqdm(total=2 * len(pins), desc=f"installing {place.name}", unit="step") as bar,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip,
    ):
        try:
            for line in pip.stdout or ():
                log.write(line)
                log.flush()
                if line.startswith("Collecting "):
                    bar.set_postfix_str(line.split()[1])
                    bar.update()
                elif line.startswith(("ERROR", "  ERROR", "error:", "OSError")):
                    errors.append(line.strip())
                elif line.startswith("Successfully installed"):
                    bar.update(bar.total - bar.n)
        except BaseException:  # asked to stop
            pip.kill()
            raise
    if pip.returncode:
        raise UserError(
            f"pip could not install {place.name} ({'; '.join(errors)[:_TOLD] or f'status {pip.returncode}'}), expected "
            f"{len(pins)} packages from the index; look for network, proxy and room, give --pip_args='--index-url URL' "
            f"for another index, and run the command again. All that pip said is in {path}"
        )


def starts_of(packages: Path, folder: Path) -> int:
    """Turn LIBERO's fixed initial states into plain arrays, one file per task; gives the number of files.

    They are published as pickles of numpy arrays, which torch reads without running anything but numpy's own
    constructors.

    Raises:
        UserError: One holds something else.
    """
    files = sorted((packages / "libero" / "libero" / "init_files").glob("*/*.pruned_init"))
    for file in tqdm(files, desc="initial states", unit="file", leave=False):
        target = folder / file.parent.name / f"{file.name.removesuffix('.pruned_init')}.npy"
        if target.exists():
            continue
        states = _states(file)
        with whole(target) as part, part.open("wb") as opened:
            np.save(opened, states, allow_pickle=False)
    return len(files)


def _states(file: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    import pickle

    import torch

    rebuild: Any = np.zeros(0).__reduce__()[0]  # numpy's own, whose module differs between its versions
    allowed: list[Any] = [(rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    allowed += [np.ndarray, np.dtype, np.dtypes.Float64DType]
    try:
        with torch.serialization.safe_globals(allowed):
            states = np.asarray(torch.load(file, weights_only=True), dtype=np.float64)
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"{file} holds no plain array of states ({str(error).splitlines()[0]}), expected LIBERO's initial states; "
            "install the environment again."
        ) from error
    if states.ndim != 2 or not np.isfinite(states).all():
        raise UserError(f"{file} holds {list(states.shape)} numbers, expected finite states [n, d]; install it again.")
    return states


def write_tasks(place: Installed, packages: Path) -> None:
    """List LIBERO's tasks and their instructions in the benchmark's order; its files are read, not run.

    Raises:
        UserError: They are not as in hf-libero 0.1.
    """
    root = packages / "libero" / "libero"
    try:
        tree = ast.parse((root / "benchmark" / "libero_suite_task_map.py").read_text())
        named: dict[str, list[str]] = ast.literal_eval(cast(ast.Assign, tree.body[0]).value)
        found = {
            suite: [[name, _told((root / "bddl_files" / suite / f"{name}.bddl").read_text())] for name in names]
            for suite, names in named.items()
            if (root / "bddl_files" / suite).is_dir()
        }
    except (OSError, SyntaxError, AttributeError, IndexError, ValueError) as error:
        raise UserError(
            f"The tasks of LIBERO in {root} cannot be listed ({error}), expected those of hf-libero 0.1; remove "
            f"{place.folder} and install it again."
        ) from error
    write_json(place.folder / TASKS, found)


def _told(bddl: str) -> str:
    found = re.search(r"\(:language ([^)]*)\)", bddl)
    if found is None:
        raise ValueError("a task has no (:language ...)")
    return " ".join(found[1].split())


def write_config(place: Installed, packages: Path) -> None:
    """Answer what LIBERO's first import would ask, in a folder of this environment."""
    root = packages / "libero" / "libero"
    answers = {
        "benchmark_root": root,
        "bddl_files": root / "bddl_files",
        "init_states": root / "init_files",
        "datasets": place.folder / "datasets",
        "assets": place.folder / "assets",
    }
    with whole(place.folder / "config" / "config.yaml") as part:
        part.write_text("".join(f"{name}: {json.dumps(str(path))}\n" for name, path in answers.items()))


def default_python() -> str:
    """Give the interpreter outside of a virtual environment, which its environments are not tied to."""
    return str(getattr(sys, "_base_executable", sys.executable))
