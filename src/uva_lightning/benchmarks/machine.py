"""What a measurement was made on, and how much memory it took."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from uva_lightning import __version__
from uva_lightning.cores import usable_cores

MIB = 2**20
CPU, MEMORY, STATUS, PEAK_RESET = (
    Path(f"/proc/{name}") for name in ("cpuinfo", "meminfo", "self/status", "self/clear_refs")
)


def machine() -> dict[str, str | int | float]:
    """Name processor, cores, memory and versions."""
    return {
        "processor": _entry(CPU, "model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "memory_gib": round(_kib(MEMORY, "MemTotal") / 2**20, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "uva_lightning": __version__,
    }


def free_bytes() -> int:
    """Memory that is left; 0 where the system does not tell."""
    return _kib(MEMORY, "MemAvailable") * 1024


def peak_bytes() -> int:
    """Largest memory of this process since its start or the last ``reset_peak`` (VmHWM); 0 where nothing tells."""
    return _kib(STATUS, "VmHWM") * 1024


def resident_bytes() -> int:
    """Memory of this process now (VmRSS); 0 where nothing tells."""
    return _kib(STATUS, "VmRSS") * 1024


def gpu_peak_bytes(device: torch.device) -> int:
    """Largest memory of tensors on a GPU since the start or the last reset; 0 where there is no GPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def reset_peak() -> None:
    """Begin a new peak where the system allows it; otherwise the old one stands."""
    try:
        PEAK_RESET.write_text("5")
    except OSError:
        return


def _entry(file: Path, name: str) -> str:
    if not file.is_file():
        return ""
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")


def _kib(file: Path, name: str) -> int:
    return int(_entry(file, name).partition(" ")[0] or 0)
