"""Run a policy that ``uva export-policy`` wrote as ONNX: copy this file to where it is used, beside onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY = "uva_policy"
NOISE = ("noise", "step_noise")


class OnnxPolicy:
    """An action chunk from what the robot has seen.

    Args:
        path: File of ``uva export-policy``.
        providers: What onnxruntime computes with.
        seed: Of the noise that is drawn.

    Attributes:
        contract: Facts of the data: ``spec`` (cameras, sizes, rate, meaning of actions), ``inputs`` (name, shape and
            dtype of each, in order), ``action`` (shape).

    Raises:
        FileNotFoundError: There is no file.
        ValueError: It is none of uva export-policy, or this onnxruntime cannot run it.
    """

    def __init__(
        self, path: str, providers: Sequence[str] = ("CPUExecutionProvider",), seed: int | None = None
    ) -> None:
        from onnxruntime import InferenceSession

        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no file {path}, expected one of uva export-policy; copy it here.")
        try:
            self._session: Any = InferenceSession(str(path), providers=list(providers))
        except Exception as error:  # onnxruntime's own have no common class
            why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise ValueError(
                f"{path} cannot be run by onnxruntime ({why}), expected an .onnx file of uva export-policy; name "
                "another, or copy it again."
            ) from error
        stored = self._session.get_modelmeta().custom_metadata_map
        if KEY not in stored:
            raise ValueError(f"{path} has no '{KEY}' in its metadata, expected a file of uva export-policy.")
        self.contract: dict[str, Any] = json.loads(stored[KEY])
        self._rng = np.random.default_rng(seed)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Decide.

        Args:
            inputs: Arrays as ``contract["inputs"]`` names them: ``video.CAMERA`` u8[b, t, H, W, 3], the past frames;
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
        values = {}
        for entry in expected:
            name, shape = entry["name"], entry["shape"]
            value = inputs.get(name)
            if value is None and name in NOISE:
                value = self._rng.standard_normal(shape, dtype=np.float32)
            found = "missing" if value is None else f"{value.dtype}{list(value.shape)}"
            if value is None or found != f"{entry['dtype']}{shape}":
                raise ValueError(f"Input {name} is {found}, expected {entry['dtype']}{shape}: the policy was made so.")
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise ValueError(f"Input {name} has NaN or infinite numbers, expected finite ones; look at its source.")
            values[name] = value
        action: NDArray[np.float32] = self._session.run(None, values)[0]
        return action
