"""``uva doctor``: check the environment and say how to mend it. Needs neither torch nor lightning to work."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from uva_lightning.commands.extras import EXTRAS, install_command
from uva_lightning.cores import usable_cores
from uva_lightning.simulators.installed import PINS, place_of

GIB = 2**30
MIN_PYTHON = (3, 11)
IMPORT_SECONDS = 180
GL_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa", "glfw": "GL"}
TORCHVISION_LEAD = 15
"""torchvision 0.n belongs to torch 2.(n - 15)."""

_PROBE = """
import json, torch
facts = {"cuda": torch.cuda.is_available(), "built": torch.version.cuda or torch.version.hip}
if facts["cuda"]:
    facts |= {"name": torch.cuda.get_device_name(), "count": torch.cuda.device_count()}
    facts["bf16"] = torch.cuda.is_bf16_supported()
print(json.dumps(facts))
"""


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Args:
        level: Whether the package works.
        name: What was looked at.
        fact: What was found.
        mend: How to mend it; nothing if it is fine.
    """

    level: Literal["OK", "WARN", "FAIL"]
    name: str
    fact: str
    mend: str = ""

    def __str__(self) -> str:
        """Format as a line, the way to mend it below."""
        return f"{self.level:<5}{self.name:<15}{self.fact}" + (f"\n{'':20}-> {self.mend}" if self.mend else "")


def doctor() -> int:
    """Check the environment: libraries, extras, GPU, memory and disk, and how to mend each.

    Returns:
        1 if something fails, otherwise 0.
    """
    failed = False
    for check in checks():
        sys.stdout.write(f"{check}\n")
        sys.stdout.flush()  # an import takes seconds; show what is known
        failed |= check.level == "FAIL"
    return int(failed)


def checks() -> Iterator[Check]:
    """Look at one thing after the other."""
    yield check_python()
    yield from check_torch()
    yield check_torchvision()
    yield check_import("lightning", "pip install 'lightning>=2.6'")
    yield from check_extras()
    yield from check_simulators()
    yield check_gl()
    yield check_cores()
    yield check_memory()
    yield check_space(
        "disk", Path.cwd(), fail_gib=0.5, warn_gib=5, mend="free some; a run with demos takes about 2 GiB"
    )
    if Path("/dev/shm").is_dir():
        mend = "give the container more (docker run --shm-size=8g) or set data.reading.workers=0"
        yield check_space("shared memory", Path("/dev/shm"), fail_gib=0, warn_gib=1, mend=mend)


def check_python() -> Check:
    """Compare the interpreter with what the package needs."""
    fact = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < MIN_PYTHON:
        return Check("FAIL", "python", fact, "use Python 3.11 or newer")
    return Check("OK", "python", fact)


def check_torch() -> Iterator[Check]:
    """Import torch in a process of its own and look at its GPU."""
    installed = _version("torch")
    if installed is None:
        yield Check("FAIL", "torch", "not installed", "pip install torch")
        return
    status, output = _python(_PROBE)
    if status:
        yield Check(
            "FAIL",
            "torch",
            f"{installed}, cannot be imported: {output}",
            "reinstall it: pip install --force-reinstall torch",
        )
        return
    yield Check("OK", "torch", installed)
    facts = json.loads(output)
    if facts["cuda"]:
        bf16 = "with bf16" if facts["bf16"] else "without bf16"
        mend = "" if facts["bf16"] else "train with --trainer.precision=16-mixed"
        yield Check("OK" if facts["bf16"] else "WARN", "gpu", f"{facts['count']} x {facts['name']}, {bf16}", mend)
    elif shutil.which("nvidia-smi") and not facts["built"]:
        yield Check(
            "WARN",
            "gpu",
            f"there is one, but torch {installed} is built for the CPU",
            "install a CUDA build, see pytorch.org/get-started",
        )
    elif shutil.which("nvidia-smi"):
        yield Check(
            "WARN",
            "gpu",
            f"torch {installed} (CUDA {facts['built']}) cannot use it",
            "run nvidia-smi: the driver must fit that CUDA version",
        )
    else:
        yield Check("OK", "gpu", "none; the quickstart needs none, whole experiments do")


def check_torchvision() -> Check:
    """Look whether torchvision, if installed, fits torch; a misfit breaks `import lightning`."""
    installed, torch = _version("torchvision"), _version("torch")
    if installed is None or torch is None:
        return Check("OK", "torchvision", "not installed; only the extra [text] needs it")
    status, output = _python("import torchvision")
    if not status and not _misfit(torch, installed):
        return Check("OK", "torchvision", f"{installed}, fits torch {torch}")
    why = f"cannot be imported: {output}" if status else "are of different builds"
    return Check(
        "FAIL" if status else "WARN",
        "torchvision",
        f"{installed} with torch {torch}: {why}",
        "pip uninstall torchvision, or install torch and torchvision of one release from one index",
    )


def check_import(module: str, mend: str) -> Check:
    """Import a module in a process of its own."""
    status, output = _python(f"import {module}")
    installed = _version(module) or "not installed"
    return Check("FAIL", module, f"{installed}: {output}", mend) if status else Check("OK", module, installed)


def check_extras() -> Iterator[Check]:
    """Look which extras are complete."""
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        if missing:
            fact = f"lacks {', '.join(missing)}"
            yield Check("WARN", f"[{extra}]", fact, f"if you need it: {install_command(missing[0])}")
        else:
            yield Check("OK", f"[{extra}]", "complete")


def check_simulators() -> Iterator[Check]:
    """Look which simulators that live in environments of their own are installed and whole."""
    for name in PINS:
        place, mend = place_of(name), f"uva env install {name}"
        if place.whole and not place.record.get("missing"):
            yield Check("OK", name, f"installed in {place.folder}")
        elif place.whole:
            yield Check("WARN", name, f"{place.folder} lacks {place.record['missing']} assets", f"{mend} --assets PATH")
        elif place.folder.exists():
            yield Check("WARN", name, f"{place.folder} is not whole, or of another version", mend)
        else:
            yield Check("OK", name, f"not installed; only its own episodes need it: {mend}")


def check_gl() -> Check:
    """Look for the library that MuJoCo renders with."""
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    found = [name for name, library in GL_LIBRARIES.items() if find_library(library)]
    fact = f"MUJOCO_GL={wanted or 'unset'}, libraries: {', '.join(found) or 'none'}"
    needed = bool(wanted) or find_spec("mujoco") is not None
    if not needed:
        return Check("OK", "gl", f"{fact}; only simulators that use MuJoCo need one")
    if wanted in found or (not wanted and found):
        return Check("OK", "gl", fact)
    fallback = f"set MUJOCO_GL={found[0]}, or " if found else ""
    package = {"osmesa": "libosmesa6", "glfw": "libgl1"}.get(wanted, "libegl1")
    return Check("WARN", "gl", fact, f"{fallback}apt-get install {package}")


def check_cores() -> Check:
    """Count the cores this process may use."""
    cores = usable_cores()
    if cores < 2:
        return Check("WARN", "cores", str(cores), "expect twice the times of the README, which are for two cores")
    return Check("OK", "cores", str(cores))


def check_memory() -> Check:
    """Read the memory that is free for this process, in a container too."""
    free = _free_memory()
    if free is None:
        return Check("OK", "memory", f"unknown on {platform.system()}")
    fact = f"{free / GIB:.1f} GiB free"
    if free < 2 * GIB:
        return Check("FAIL", "memory", fact, "the quickstart needs about 2 GiB; close something")
    return Check("OK", "memory", fact)


def check_space(name: str, path: Path, fail_gib: float, warn_gib: float, mend: str) -> Check:
    """Compare the free space of a file system with two bounds in GiB."""
    free = shutil.disk_usage(path).free / GIB
    fact = f"{free:.1f} GiB free at {path}"
    if free >= warn_gib:
        return Check("OK", name, fact)
    return Check("FAIL" if free < fail_gib else "WARN", name, fact, mend)


def _misfit(torch: str, torchvision: str) -> bool:
    """Compare releases, and builds (``+cpu``) where both say theirs."""
    (torch_release, _, torch_build), (release, _, build) = torch.partition("+"), torchvision.partition("+")
    try:
        major, minor = (int(part) for part in torch_release.split(".")[:2])
        own_minor = int(release.split(".")[1])
    except ValueError:
        return False
    if major == 2 and own_minor - TORCHVISION_LEAD != minor:
        return True
    return bool(build and torch_build and build != torch_build)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _python(code: str) -> tuple[int, str]:
    """Run code in a process of its own: a broken library cannot take this one down.

    Returns:
        Exit status and the last line it printed; on failure that is the error.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {IMPORT_SECONDS} s"
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return done.returncode, lines[-1] if lines else f"status {done.returncode}"


def _free_memory() -> int | None:
    """Bytes available, the smaller of the machine's and the container's."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    entries = dict(line.split(":") for line in meminfo.read_text().splitlines())
    free = int(entries["MemAvailable"].split()[0]) * 1024
    limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free
