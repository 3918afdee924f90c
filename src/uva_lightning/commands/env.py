"""``uva env``: simulators in environments of their own, so that their pins never touch this one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from uva_lightning.commands.errors import UserError
from uva_lightning.commands.long_work import alone, stopping_on_sigterm
from uva_lightning.simulators import install
from uva_lightning.simulators.installed import ASSETS, PINS, STARTS, Installed, place_of
from uva_lightning.simulators.libero import listed, missing

SIMULATORS = {
    "libero": ("uva_lightning.commands.env:libero", "LIBERO with robosuite 1.4"),
    "toolhang": ("uva_lightning.commands.env:toolhang", "Tool Hang with robosuite 1.5"),
}
LOCK = ".lock"
HUB, DOWNLOADED = "lerobot/libero-assets", "downloaded_assets"


def libero(assets: Path | None = None, dir: Path | None = None, python: str = "", pip_args: str = "") -> int:
    """Install LIBERO: packages, initial states, meshes and textures, and a configuration that asks nothing.

    What is there and whole is kept, so that the command can be run again with other assets, or after it was stopped.

    Args:
        assets: Folder ``assets`` of LIBERO; what was given before where left out, or else it is downloaded.
        dir: Folder of all environments; UVA_ENVS, or the user's data folder, where left out.
        python: Interpreter that makes the environment, anew where it has another version; its own, or else that of
            this one, where left out.
        pip_args: More options for pip, with an equals sign: --pip_args='--index-url URL'.

    Returns:
        0; 1 where it is installed, but its assets are not all there.
    """
    trouble: list[str] = []
    if assets is not None:
        install.assets_in(assets)  # refused now, not after an installation of minutes

    def add(place: Installed) -> dict[str, Any]:
        packages = place.packages()
        install.write_config(place, packages)
        install.write_tasks(place, packages)
        states = install.starts_of(packages, place.folder / STARTS)
        target = place.folder / ASSETS
        given = assets if assets is not None or target.exists() else _download(place, trouble)
        if given is not None:
            install.link_assets(given, target)
        inside = packages / "libero" / "libero" / "assets"  # LIBERO looks here, whatever its configuration says
        if not inside.is_symlink():
            inside.symlink_to(target, target_is_directory=True)
        gone = missing(target) if target.exists() else []
        if gone:
            trouble.append(
                f"The assets in {target.resolve()} lack {len(gone)} files that their scenes name ({listed(gone)}); "
                "tasks with them cannot be loaded: get the whole folder and run: uva env install libero --assets PATH"
            )
        return {"assets": str(target.resolve()) if target.exists() else None, "missing": len(gone), "states": states}

    return _install("libero", dir, python, pip_args, add, trouble, ("3.11", "3.12", "3.13", "3.14"))


def toolhang(dir: Path | None = None, python: str = "", pip_args: str = "") -> int:
    """Install Tool Hang; it brings all that it shows.

    Args:
        dir: Folder of all environments; UVA_ENVS, or the user's data folder, where left out.
        python: Interpreter that makes the environment, anew where it has another version; its own, or else that of
            this one, where left out.
        pip_args: More options for pip, with an equals sign: --pip_args='--index-url URL'.

    Returns:
        0.
    """
    return _install("toolhang", dir, python, pip_args, lambda place: {}, [], ("3.11", "3.12"))


def environments(dir: Path | None = None) -> None:
    """List the simulators that have an environment of their own, and how each is.

    Args:
        dir: Folder of all environments; UVA_ENVS, or the user's data folder, where left out.
    """
    for name in PINS:
        place = place_of(name, dir)
        if place.whole:
            record = place.record
            versions = ", ".join(f"{package} {version}" for package, version in record["checked"].items())
            assets = f"; assets: {record['assets'] or 'none'}" if "assets" in record else ""
            state = f"installed in {place.folder} (Python {record['python']}, {versions}{assets})"
        elif place.folder.exists():
            state = f"not whole, or of another version, in {place.folder}; run: uva env install {name}"
        else:
            state = f"not installed; run: uva env install {name}"
        sys.stdout.write(f"{name:<10}{state}\n")


def _install(
    name: str, dir: Path | None, python: str, pip_args: str, add: Any, trouble: list[str], pythons: tuple[str, ...]
) -> int:
    place = place_of(name, dir)
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{place.folder} cannot be made ({error}), expected a folder to install into; set --dir."
        ) from error
    with alone(place.folder / LOCK, "uva env install"), stopping_on_sigterm():
        install.install(place, python, pip_args, add, pythons)
    sys.stdout.write(f"{name} is installed in {place.folder} and has stepped an arm.\n")
    if dir is not None:
        sys.stdout.write(f"Set UVA_ENVS={dir.absolute()} for the commands that use it.\n")
    for words in trouble:
        sys.stderr.write(f"{words}\n")
    return int(bool(trouble))


def _download(place: Installed, trouble: list[str]) -> Path | None:
    """Fetch LIBERO's meshes and textures; tells why where it cannot, as everything else works without them."""
    from huggingface_hub import snapshot_download

    target = place.folder / DOWNLOADED
    sys.stderr.write(f"Downloading LIBERO's assets, some 200 MB, from huggingface.co/datasets/{HUB}\n")
    try:
        snapshot_download(HUB, repo_type="dataset", local_dir=target)
    except (OSError, ValueError, RuntimeError) as error:
        trouble.append(
            f"LIBERO's assets could not be downloaded from {HUB} ({' '.join(str(error).split())[:300]}), and no scene "
            "can be made without them; run the command again with a network, or with --assets PATH."
        )
        return None
    return target
