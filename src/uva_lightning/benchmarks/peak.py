"""The arithmetic that a device could do at most."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import torch

TERA = 1e12
_TENSOR_CORES = (
    (r"\bB200\b", 2250.0),  # NVIDIA HGX B200 data sheet
    (r"\bH200 NVL\b|\bH100 NVL\b", 835.5),  # H200 and H100 NVL data sheets
    (r"\bH100 PCIe\b", 756.0),  # H100 data sheet, 2022
    (r"\bH100\b|\bH200\b|\bGH200\b", 989.4),  # H100 and H200 SXM data sheets
    (r"\bA100\b", 312.0),  # A100 data sheet
    (r"\bL40S\b", 362.0),  # L40S data sheet
    (r"\bL40\b", 181.0),  # L40 data sheet
    (r"\bL4\b", 121.0),  # L4 data sheet
    (r"\bRTX 4090\b", 165.2),  # Ada architecture white paper, sums in float32
    (r"\bRTX 3090\b", 71.0),  # GA102 architecture white paper, sums in float32
    (r"\bA10\b|\bA10G\b", 125.0),  # A10 data sheet
)
"""TFLOP/s of dense products in bfloat16 and float16, by NVIDIA's own account (data sheets that give the number with
sparsity: half of it). Lightning's table is not used: it has H200 and H100 NVL with sparsity, and takes an L40S for an
L4."""
_SIDES = {"cpu": 1536, "cuda": 8192}
_FEWEST = 3


@dataclass(frozen=True)
class Peak:
    """What a device could do.

    Args:
        flops_per_s: Floating-point operations per second.
        source: Where the number is from.
    """

    flops_per_s: float
    source: str

    def share(self, flops: float, seconds: float) -> float:
        """Give the model FLOPs utilisation (MFU): FLOPs over time and peak."""
        return flops / (seconds * self.flops_per_s)


def compute_dtype(precision: str) -> torch.dtype:
    """Give the type in which Lightning's ``trainer.precision`` multiplies."""
    if precision.startswith("bf16"):
        return torch.bfloat16
    if precision.startswith(("16", "transformer-engine-float16")):
        return torch.float16
    return torch.float64 if precision.startswith("64") else torch.float32


def device_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> Peak:
    """Look the device up, or measure it where the table does not have it.

    Args:
        device: Where training runs.
        dtype: In which it multiplies.
        seconds: How long a measurement takes.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if (known := known_peak(name, dtype)) is not None:
            return Peak(known, f"{name}, {_words(dtype)}, data sheet")
    return measured_peak(device, dtype, seconds)


def known_peak(name: str, dtype: torch.dtype) -> float | None:
    """Give FLOP/s by the name of a GPU as torch tells it; nothing for what is not in the table."""
    tf32 = dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    if not tf32 and dtype not in (torch.bfloat16, torch.float16):
        return None
    found = next((peak for pattern, peak in _TENSOR_CORES if re.search(pattern, name)), None)
    return None if found is None else found * TERA / (2 if tf32 else 1)


def measured_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> Peak:
    """Multiply two large matrices for some time, three times at least, and take the fastest product.

    Args:
        device: Where.
        dtype: Of the matrices.
        seconds: How long.
    """
    side = _SIDES.get(device.type, _SIDES["cpu"])
    with torch.no_grad():
        left = torch.ones(side, side, device=device, dtype=dtype)
        right, out = left.clone(), torch.empty_like(left)
        torch.mm(left, right, out=out)  # the first one prepares
        times: list[float] = []
        while len(times) < _FEWEST or sum(times) < seconds:
            _finish(device)
            begin = time.perf_counter()
            torch.mm(left, right, out=out)
            _finish(device)
            times.append(time.perf_counter() - begin)
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    return Peak(2 * side**3 / min(times), f"measured: a product of side {side} in {_words(dtype)}{threads}")


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _words(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
