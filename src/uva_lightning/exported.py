"""Run a policy that ``uva export-policy`` wrote. Needs torch and nothing else: copy this file to where it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import Tensor
from torch._inductor import aoti_load_package

KEY = "uva_policy"
NOISE = ("noise", "step_noise")


class ExportedPolicy:
    """An action chunk from what the robot has seen.

    Args:
        path: File of ``uva export-policy``.

    Attributes:
        contract: Facts of the data: ``spec`` (cameras, sizes, rate, meaning of actions), ``inputs`` (name, shape and
            dtype of each, in order), ``action`` (shape), ``device``.

    Raises:
        FileNotFoundError: There is no file.
        ValueError: It is none of uva export-policy, or this torch cannot run it.
    """

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no file {path}, expected one of uva export-policy; copy it here.")
        if not is_zipfile(path):
            raise ValueError(
                f"{path} is no .pt2 file, expected one of uva export-policy; name another, or copy it again."
            )
        try:
            self._run: Any = aoti_load_package(str(path))
        except Exception as error:  # RuntimeError or others, as torch's version has it
            raise ValueError(
                f"{path} cannot be run by torch {torch.__version__} ({_first_line(error)}), expected a .pt2 file of "
                "uva export-policy made with this version for this machine; make it anew, or name another."
            ) from error
        stored = self._run.get_metadata()
        if KEY not in stored:
            raise ValueError(f"{path} has no '{KEY}' in its metadata, expected a file of uva export-policy.")
        self.contract: dict[str, Any] = json.loads(stored[KEY])

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Decide.

        Args:
            inputs: Tensors as ``contract["inputs"]`` names them: ``video.CAMERA`` u8[b, t, H, W, 3], the past frames;
                ``state.ENTRY`` f32[b, n, p]; ``text`` f32[b, 512]; ``past_action`` f32[b, h, a]. ``noise`` and
                ``step_noise`` are standard normal, and drawn where they are not given.

        Returns:
            f32[b, h, a], physical units.

        Raises:
            ValueError: One is missing, unknown, of another shape or dtype, NaN or infinite.
        """
        expected = self.contract["inputs"]
        if unknown := set(inputs) - {entry["name"] for entry in expected}:
            raise ValueError(f"The policy takes no {sorted(unknown)}, only {[entry['name'] for entry in expected]}.")
        values = []
        for entry in expected:
            name, shape = entry["name"], entry["shape"]
            value = inputs.get(name)
            if value is None and name in NOISE:
                value = torch.randn(shape)
            found = "missing" if value is None else f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
            if value is None or found != f"{entry['dtype']}{shape}":
                raise ValueError(f"Input {name} is {found}, expected {entry['dtype']}{shape}: the policy was made so.")
            if value.is_floating_point() and not value.isfinite().all():
                raise ValueError(f"Input {name} has NaN or infinite numbers, expected finite ones; look at its source.")
            values.append(value.to(self.contract["device"]))
        action: Tensor = self._run(*values)
        return action


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
