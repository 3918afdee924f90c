"""``uva export-policy``: the policy as one compiled file that needs torch alone."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uva_lightning import __version__
from uva_lightning.commands.checks import chosen_device
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.extras import install_command
from uva_lightning.commands.rollout import find_checkpoint
from uva_lightning.exported import KEY, ExportedPolicy
from uva_lightning.exported_onnx import OnnxPolicy
from uva_lightning.model.checkpoint import load_module
from uva_lightning.policy_graph import PolicyGraph
from uva_lightning.whole_files import whole

TORCH, ONNX = ".pt2", ".onnx"
ONNX_LIMIT = 2 * 1024**3
"""Bytes of an ONNX file without files beside it."""
ONNX_MODULES = ("onnx", "onnxscript", "onnxruntime")
CHECKS = 3
"""Random inputs on which the file is compared with the model."""


def export_policy(
    ckpt: Path,
    out: Path,
    steps: str | None = None,
    temperature: float | None = None,
    batch: int = 1,
    device: str = "auto",
    tolerance: float = 1e-3,
) -> None:
    """Compile the policy into one file: past frames, proprioception, instruction and noise to an action chunk.

    Args:
        ckpt: Checkpoint of a training run, or folder of uva import-checkpoint.
        out: New file: FILE.pt2, which runs with torch alone, or FILE.onnx, which runs with onnxruntime alone.
        steps: Denoising steps, such as 16, or dpm16 of a diffusion head; those of the head where left out.
        temperature: Factor on the random part; that of the head where left out.
        batch: Samples of a call.
        device: Where it will run; auto takes the GPU where there is one.
        tolerance: Largest difference to the model, over the largest action, that is accepted.
    """
    if out.suffix not in WRITERS:
        raise UserError(f"out is {out}, expected a name that ends with {TORCH} or {ONNX}, such as policy{TORCH}.")
    if out.exists():
        raise UserError(f"{out} exists, expected a new file; name another one or remove it.")
    if batch < 1:
        raise UserError(f"batch is {batch}, expected at least 1.")
    check, write = WRITERS[out.suffix]
    check()
    find_checkpoint(ckpt)
    where = chosen_device(device)
    module, _ = load_module(ckpt)
    graph = PolicyGraph(module.to(where).requires_grad_(False).eval(), steps, temperature, batch).eval()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.stem}.", dir=out.parent) as folder:
        made = Path(folder) / out.name
        write(graph, made)
        error, largest = compare(graph, made)
        if not error <= tolerance * largest:
            raise UserError(
                f"The exported policy differs from the model by {error:.2e} with actions up to {largest:.2e}, expected "
                f"at most {tolerance:g} of them; nothing was written. Fewer steps magnify rounding less, e.g. --steps "
                "10, or dpm16 of a diffusion head; or raise --tolerance."
            )
        with whole(out) as part:
            os.replace(made, part)
    inputs = ", ".join(f"{i['name']} {i['dtype']}{i['shape']}" for i in graph.contract()["inputs"])
    sys.stdout.write(
        f"written: {out} ({out.stat().st_size / 1e6:.1f} MB)\n  takes {inputs}\n"
        f"  differs from the model by {error:.2e} at most, actions up to {largest:.2e}\n"
    )


def check_compiler() -> None:
    """Refuse a machine without the compiler that AOTInductor calls."""
    if shutil.which(compiler := os.environ.get("CXX", "g++")) is None:
        raise UserError(f"There is no C++ compiler '{compiler}', which compiles the policy; install g++, or set CXX.")


def check_onnx() -> None:
    """Refuse a machine without what writes and runs ONNX."""
    if missing := [name for name in ONNX_MODULES if find_spec(name) is None]:
        raise UserError(f"ONNX files need {missing[0]}, which is not installed; run: {install_command(missing[0])}")


def traced(graph: PolicyGraph) -> tuple[Any, str]:
    """Export the graph, and give its contract as text."""
    with torch.no_grad():
        program = torch.export.export(graph, tuple(graph.examples(0).values()), strict=False)
    return program, json.dumps({**graph.contract(), "uva_lightning": __version__, "torch": torch.__version__})


def compile_policy(graph: PolicyGraph, path: Path) -> None:
    """Write the graph, compiled for the device it is on, with its contract inside."""
    from torch._inductor import aoti_compile_and_package

    logging.getLogger("torch._inductor").setLevel(logging.ERROR)
    program, contract = traced(graph)
    with torch.no_grad():
        options = {"aot_inductor.metadata": {KEY: contract}}
        aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)


def write_onnx(graph: PolicyGraph, path: Path) -> None:
    """Write the graph as ONNX, with its contract inside.

    Raises:
        UserError: The model does not fit into one file.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program, contract = traced(graph)
    held = (*program.state_dict.values(), *program.constants.values())
    size = sum(value.numel() * value.element_size() for value in held if isinstance(value, Tensor))
    if size > ONNX_LIMIT:
        raise UserError(
            f"The model has {size / 1e9:.1f} GB, and an ONNX file holds {ONNX_LIMIT / 1e9:.1f} GB; expected a smaller "
            f"model, or a file {path.stem}{TORCH}."
        )
    made = torch.onnx.export(program, (), dynamo=True, input_names=graph.names, output_names=["action"], verbose=False)
    if made is None:
        raise UserError("torch gave no ONNX program, expected one; write a .pt2 file, which torch itself runs.")
    made.model.metadata_props[KEY] = contract
    made.save(str(path), external_data=False)


def compare(graph: PolicyGraph, path: Path) -> tuple[float, float]:
    """Compare the file with the model: largest difference, and largest action, in physical units.

    Raises:
        UserError: The model itself gives no numbers.
    """
    policy, pairs = _loaded(path), []
    for seed in range(1, CHECKS + 1):
        inputs = graph.examples(seed)
        with torch.no_grad():
            expected = graph(*inputs.values())
        if not expected.isfinite().all():
            raise UserError(
                "The model's own actions are NaN or infinite on random inputs, expected finite numbers; train it "
                "longer, or choose other --steps."
            )
        pairs.append((policy(inputs) - expected, expected))
    error, largest = (torch.stack(values).abs().max() for values in zip(*pairs, strict=True))  # NaN stays NaN
    return float(error), float(largest)


def _loaded(path: Path) -> Callable[[dict[str, Tensor]], Tensor]:
    if path.suffix != ONNX:
        return ExportedPolicy(str(path))
    policy = OnnxPolicy(str(path))

    def run(inputs: dict[str, Tensor]) -> Tensor:
        device = next(iter(inputs.values())).device
        return torch.from_numpy(policy({name: value.cpu().numpy() for name, value in inputs.items()})).to(device)

    return run


WRITERS = {TORCH: (check_compiler, compile_policy), ONNX: (check_onnx, write_onnx)}
