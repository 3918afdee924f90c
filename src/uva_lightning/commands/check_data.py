"""``uva data check``: look for what may be wrong with a data set."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from uva_lightning.commands.inspect_data import reference_name
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.faults import Faults
from uva_lightning.inspection.checks.base import Finding, run
from uva_lightning.inspection.subject import Subject, thumb

Row = tuple[str, Finding]

WORST_FIRST = ("FAIL", "warn", "ok", "-")


def check_data(data: RobotDataModule, reference: Path | None = None, every: int = 1, out: Path | None = None) -> int:
    """Look for broken files, jumps, frozen or blank pictures, wrong rates, wrong orientation and useless actions.

    Args:
        data: The data set, as for uva fit: --config FILE or --data CLASS --data.path PATH.
        reference: A picture that is the right way up, or a folder of uva data inspect, of the same scene.
        every: Look at the pictures of every n-th episode; numbers are always looked at.
        out: Folder for check.json; runs/inspect/NAME, after the data set's path, if not given.

    Returns:
        1 if something fails, otherwise 0.
    """
    if every < 1:
        raise ValueError(f"every is {every}, expected at least 1; set --every=10 for pictures of each tenth episode.")
    data.prepare_data()
    rows = examine(data, reference, every)
    out = Path("runs/inspect") / data.path.name if out is None else out
    out.mkdir(parents=True, exist_ok=True)
    found = {title: asdict(finding) for title, finding in rows}
    summary = {"class": type(data).__name__, "path": str(data.path), "every": every, "checks": found}
    (out / "check.json").write_text(json.dumps(summary, indent=1) + "\n")
    sys.stdout.write(table(rows))
    return int(any(finding.level == "FAIL" for _, finding in rows))


def examine(
    data: RobotDataModule, reference: Path | None = None, every: int = 1, show_progress: bool = True
) -> Sequence[Row]:
    """Run all checks; broken episodes are listed and left out of the others.

    Args:
        data: The data set.
        reference: See ``check_data``.
        every: See ``check_data``.
        show_progress: Whether to show a bar.

    Returns:
        Title and finding of each check; of the reading alone, where nothing can be read.
    """
    upright = {} if reference is None else read_reference(reference, data.spec.cameras)
    data.faults = Faults("skip")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the faults are in the table
            subject = Subject(data, every, upright)
    except ValueError as error:
        fix = "mend what it says and check again; nothing else could be checked"
        return [
            ("readable", Finding("FAIL", "the data cannot be read", max(1, len(data.faults.found)), str(error), fix))
        ]
    return sorted(run(subject, show_progress=show_progress), key=lambda row: (WORST_FIRST.index(row[1].level), row[0]))


def read_reference(path: Path, cameras: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
    """Read the reference pictures by camera, f32[32, 32, 3]; a single picture is one of the main view.

    Raises:
        FileNotFoundError: There is no such picture, or the folder has none of these cameras.
        ValueError: The file is no picture.
    """
    files = {camera: path / reference_name(camera) for camera in cameras} if path.is_dir() else {cameras[0]: path}
    files = {camera: file for camera, file in files.items() if file.is_file()}
    if not files:
        raise FileNotFoundError(
            f"There is no reference at {path}, expected a picture or a folder of 'uva data inspect' with "
            f"{reference_name(cameras[0])}; set --reference to one."
        )
    return {camera: _thumb(file) for camera, file in files.items()}


def table(rows: Sequence[Row]) -> str:
    """Lay out one row per check, where it was first found and the fix below."""
    width = max(len(title) for title, _ in rows) + 2
    lines = []
    for title, finding in rows:
        count = str(finding.count) if finding.count else ""
        lines.append(f"{finding.level:<6}{title:<{width}}{count:>7}  {finding.said}")
        indent = " " * (6 + width + 9)
        lines += [f"{indent}first: {finding.first}"] if finding.first else []
        lines += [f"{indent}-> {finding.fix}"] if finding.fix else []
    return "\n".join(lines) + "\n"


def _thumb(file: Path) -> NDArray[np.float32]:
    try:
        with Image.open(file) as picture:
            return thumb(np.asarray(picture.convert("RGB"), dtype=np.float32))
    except UnidentifiedImageError as error:
        raise ValueError(f"{file} is no picture that can be read, expected PNG or JPEG; set --reference.") from error
