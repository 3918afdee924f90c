"""What commands look at before long work: numbers, the device, and the file that the numbers go to."""

from __future__ import annotations

from pathlib import Path

import torch

from uva_lightning.commands.errors import UserError


def chosen_device(name: str) -> str:
    """Check a device, and choose one for ``auto``.

    Raises:
        UserError: torch does not see it.
    """
    gpu = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if gpu else "cpu"
    if name != "cpu" and not (gpu and name.partition(":")[0] == "cuda"):
        known = "auto, cpu, cuda or cuda:0" if gpu else "auto or cpu: torch sees no GPU here"
        raise UserError(f"device is {name}, expected {known}.")
    return name


def check_least(least: int, **options: int) -> None:
    """Check that options are not below a number.

    Raises:
        UserError: One is; it is named.
    """
    for name, value in options.items():
        if value < least:
            raise UserError(f"{name} is {value}, expected at least {least}; set --{name}.")


def check_data(data: Path | None) -> None:
    """Check that data named on the command line are there: nothing is made up in their place.

    Args:
        data: Folder or file; nothing is looked at where it was left out.

    Raises:
        UserError: Nothing is there.
    """
    if data is not None and not data.exists():
        raise UserError(
            f"There are no data at {data}, expected the path where recordings lie now; set --data to it, or leave it "
            "out for the place that the checkpoint names."
        )


def check_writable(path: Path) -> None:
    """Create the folder of a file that is written after long work, and make sure that it can be written.

    Raises:
        UserError: It cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        path.open("a").close()
        if new:
            path.unlink()
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); set --json to another place.") from error
