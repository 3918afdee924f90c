"""``uva convert libero_absolute``: LIBERO's relative commands become the absolute actions that UVA trains on."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules.hdf5 import demo_names, files_in, identity
from uva_lightning.datamodules.hdf5_frames import h5py_for
from uva_lightning.datamodules.osc_actions import ATTRIBUTE, WIDTH, guess
from uva_lightning.envs.osc_goals import OscGoals
from uva_lightning.whole_files import whole

SOURCE = "converted_from"
"""Attribute of ``data``: identity of the file that the actions were computed from."""
HAND = "obs/ee_pos"
MOST_OFF = 0.02
"""Distance in m between the hand as recorded and as replayed, in the middle, that means another robot or scene."""

Array = NDArray[np.float64]


class Report(NamedTuple):
    """What came of a file; distances are the largest, in m, or NaN where nothing could be compared."""

    file: Path
    demos: int
    steps: int
    hand: float
    stepping: float


def libero_absolute(path: Path, out: Path, step_every: int = 20) -> None:
    """Turn the relative commands of LIBERO's HDF5 files into absolute actions, by replaying the recorded states.

    The controller computes its goal from each command: position in m, axis-angle in rad, then the gripper as before.
    Everything else is copied. Finished files are kept, so that a run that was stopped can be started again. Needs
    robosuite 1.4.0 (extra [libero]), but neither LIBERO itself nor its meshes.

    Args:
        path: One file or a folder of them.
        out: Folder for the new files, which keep their names.
        step_every: Also step the arm both ways at every so many actions, and report how far apart it ends; 0: never.
    """
    files = files_in(path)
    if not files:
        raise UserError(f"{path} holds no .hdf5 files, expected LIBERO's; name the folder that directly has them.")
    if out.resolve() == (path if path.is_dir() else path.parent).resolve():
        raise UserError(f"{out} is the folder of the recordings, expected another one; set --out to a new folder.")
    if step_every < 0:
        raise UserError(f"step_every is {step_every}, expected 0 or more.")
    reports, kept = [], 0
    for file in files:
        target = out / file.name
        if target.exists():
            _expect_converted(target, file)
            kept += 1
            continue
        try:
            with whole(target) as partial:
                reports.append(_convert(file, partial, step_every))
        except OSError as error:
            raise UserError(f"{target} was not written: {error}; make room or name another folder.") from error
    _tell(reports, kept, out)


def _expect_converted(target: Path, file: Path) -> None:
    """Refuse to go on over something else of the same name."""
    try:
        with h5py_for(target).File(target, "r") as content:
            source = content["data"].attrs.get(SOURCE) if "data" in content else None
    except OSError:
        source = None
    if source != identity([file]):
        raise UserError(
            f"{target} exists and was not converted from {file} as it is now, expected a new file or the same one; "
            "remove it or name another folder."
        )


def _convert(file: Path, partial: Path, step_every: int) -> Report:
    shutil.copyfile(file, partial)
    partial.chmod(partial.stat().st_mode | 0o200)  # a copy of a write-protected recording
    try:
        content = h5py_for(partial).File(partial, "r+")
    except OSError as error:
        raise UserError(f"{file} is no whole HDF5 file ({error}); copy or download it again.") from error
    new: dict[str, Array] = {}
    apart: list[Array] = [np.empty(0)]
    gaps: list[float] = []
    with content:
        data = content.get("data")
        if data is None or not len(data):
            raise UserError(f"{file} has no demonstrations, expected data/demo_0 and so on.")
        if ATTRIBUTE in data.attrs:
            raise UserError(f"{file} has {data.attrs[ATTRIBUTE]} actions already; take it as it is.")
        env_args = str(data.attrs.get("env_args", "{}"))
        names = demo_names(data)
        total = sum(len(data[name].get("actions", ())) for name in names)
        with tqdm(total=total, unit="step", desc=file.stem[-40:], mininterval=1) as bar:
            for name in names:
                where = f"{file.name}: {name}"
                actions, distance, stepped = _absolute(data[name], env_args, where, step_every, bar)
                new[name] = actions
                apart.append(distance)
                gaps += stepped
                data[name]["actions"][...] = actions
        data.attrs[ATTRIBUTE], data.attrs[SOURCE] = "absolute", identity([file])
        data.attrs["env_args"] = _absolute_controller(env_args)
    _read_back(partial, new, file)
    distances = np.concatenate(apart)
    return Report(file, len(new), total, _largest(distances.tolist()), _largest(gaps))


def _absolute(demo: Any, env_args: str, where: str, step_every: int, bar: Any) -> tuple[Array, Array, list[float]]:
    """Give the new actions f64[n, 7], distances of the hand from where it was recorded, and those after stepping."""
    commands, states = _commands(demo, where)
    try:
        goals = OscGoals(str(demo.attrs["model_file"]), env_args)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error
    if states.shape[1] != goals.width:
        raise UserError(
            f"{where} has states of {states.shape[1]} numbers, expected {goals.width} as its scene has; they do not "
            "belong together."
        )
    actions, hand, gaps = commands.copy(), np.empty((len(commands), 3)), []
    goals.begin()
    for step, (state, command) in enumerate(zip(states, commands[:, :6], strict=True)):
        actions[step, :6] = goals.goal(state, command)
        hand[step] = goals.hand()
        if step_every and step % step_every == 0:
            gaps.append(goals.gap(state, command, actions[step, :6]))
        bar.update()
    distance = np.empty(0)
    if HAND in demo and len(demo[HAND]) == len(hand):
        # What was seen is stored after the action, the state before it.
        distance = np.linalg.norm(hand[1:] - demo[HAND][:-1], axis=1)
        if len(distance) and np.median(distance) > MOST_OFF:
            raise UserError(
                f"{where}: the replayed hand is {np.median(distance):.3f} m from the recorded one in the middle, "
                f"expected under {MOST_OFF} m; its states, scene and observations do not belong together."
            )
    return actions, distance, gaps


def _commands(demo: Any, where: str) -> tuple[Array, Array]:
    missing = [name for name in ("actions", "states") if name not in demo]
    missing += [] if "model_file" in demo.attrs else ["attribute model_file"]
    if missing:
        raise UserError(
            f"{where} lacks {', '.join(missing)}, expected LIBERO's recordings; convert the original files."
        )
    commands, states = (np.asarray(demo[name][:], dtype=np.float64) for name in ("actions", "states"))
    if commands.ndim != 2 or commands.shape[1] != WIDTH or len(commands) != len(states) or not len(commands):
        raise UserError(
            f"{where} has actions {list(commands.shape)} and states {list(states.shape)}, expected [n, {WIDTH}] and "
            "as many states; repair or remove it."
        )
    if not (np.isfinite(commands).all() and np.isfinite(states).all()):
        raise UserError(f"{where} has NaN or infinity in its actions or states; repair or remove it.")
    hand = np.asarray(demo[HAND][:]) if HAND in demo else None
    if (np.abs(commands[:, :3]).max() > 1) or guess(commands, hand) == "absolute":
        raise UserError(f"{where} has absolute actions, expected relative commands in [-1, 1]; take the file as it is.")
    return commands, states


def _absolute_controller(env_args: str) -> str:
    """Say in the environment's arguments that the controller takes absolute actions now."""
    content = json.loads(env_args)
    if controller := content.get("env_kwargs", {}).get("controller_configs"):
        controller["control_delta"] = False
    return json.dumps(content)


def _read_back(partial: Path, actions: dict[str, Array], file: Path) -> None:
    """Compare what was written with what was computed, and the rest with the original."""
    with h5py_for(partial).File(partial, "r") as written, h5py_for(file).File(file, "r") as original:
        for name, expected in actions.items():
            demo = written["data"][name]
            if not np.array_equal(demo["actions"][:], expected.astype(demo["actions"].dtype)):
                raise UserError(f"{file.name}: {name} reads back other actions than were written; is the disk sound?")
            hand = np.asarray(demo[HAND][:]) if HAND in demo else None
            if guess(expected, hand) not in ("absolute", None):
                raise UserError(f"{file.name}: {name} has new actions far from the recorded hand; they do not fit.")
            if not np.array_equal(demo["states"][:], original["data"][name]["states"][:]):
                raise UserError(f"{file.name}: {name} was copied with other states; is the disk sound?")


def _largest(values: list[float]) -> float:
    return max(values, default=float("nan"))


def _tell(reports: list[Report], kept: int, out: Path) -> None:
    rows = [f"{'file':<60}{'demos':>6}{'steps':>8}{'hand mm':>9}{'step mm':>9}"]
    for report in reports:
        numbers = f"{report.demos:>6}{report.steps:>8}{1e3 * report.hand:>9.2f}{1e3 * report.stepping:>9.3f}"
        rows.append(f"{report.file.stem[:58]:<60}{numbers}")
    rows.append(
        "hand: largest distance of the replayed hand from the recorded one; step: between stepping with the command "
        "and with the absolute action."
    )
    sys.stdout.write("\n".join([*rows, f"{len(reports)} files written to {out}, {kept} were there already."]) + "\n")
