"""Write made-up demonstrations as HDF5, with every field and attribute that such files have."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules.demo_schema import DemoSchema
from uva_lightning.datamodules.fields import Fields, Range
from uva_lightning.datamodules.hdf5 import FILE_END, SUFFIXES, DemoFields
from uva_lightning.datamodules.hdf5_frames import h5py_for
from uva_lightning.datamodules.osc_actions import POSITION, OscActions

STEP = 0.05
"""What a command of 1 moves the hand by, in m."""


class Drawn(Protocol):
    """Makes numbers and pictures up."""

    episodes: int
    steps: int

    def walks(self, rng: np.random.Generator, width: int, values: Range) -> NDArray[np.float32]:
        """Draw smooth numbers of all episodes, f32[n, width]."""

    def pictures(self, rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
        """Draw pictures of all episodes, u8[n, size, size, 3]."""


def write(place: Path, suffix: str, fields: Fields, drawn: Drawn, rng: np.random.Generator) -> None:
    """Write one file where ``suffix`` is that of HDF5, else a folder with all files of the schema.

    Raises:
        ImportError: h5py is not installed.
        ValueError: The fields do not say what such a file holds.
    """
    if not isinstance(fields, DemoFields) or fields.schema is None:
        raise ValueError("These fields do not say what an HDF5 file holds, expected DemoFields with a schema.")
    schema, single = fields.schema, suffix in SUFFIXES
    if not single:
        place.mkdir(parents=True, exist_ok=True)
    for name in schema.files[:1] if single else schema.files:
        _write_file(place if single else place / f"{name}{SUFFIXES[0]}", name, fields, drawn, rng)


def _write_file(file: Path, name: str, fields: DemoFields, drawn: Drawn, rng: np.random.Generator) -> None:
    schema = fields.schema or DemoSchema((), {}, {}, "")
    arrays: dict[str, NDArray[Any]] = {
        field: drawn.walks(rng, width, schema.ranges.get(field, Range())).astype(np.float64)
        for field, width in schema.numbers.items()
    }
    arrays |= {field: np.concatenate([arrays[part] for part in parts], 1) for field, parts in schema.joined.items()}
    arrays[fields.action] = _actions(arrays[schema.hand], fields, drawn, rng)
    arrays |= {field: drawn.pictures(rng, size) for field, size in schema.pictures.items()}
    last = np.arange(1, drawn.episodes * drawn.steps + 1) % drawn.steps == 0
    arrays |= {field: last.astype(np.uint8) for field in schema.flags}
    words = name.removesuffix(FILE_END).lower().replace("_", " ")
    with h5py_for(file).File(file, "w") as content:
        data = content.create_group("data")
        for key, text in schema.attributes.items():
            data.attrs[key] = text.replace("{words}", words).replace("{file}", name)
        data.attrs["num_demos"], data.attrs["total"] = drawn.episodes, drawn.episodes * drawn.steps
        for number in range(drawn.episodes):
            demo = data.create_group(f"demo_{number}")
            rows = slice(number * drawn.steps, (number + 1) * drawn.steps)
            for field, values in arrays.items():
                demo.create_dataset(field, data=values[rows])
            demo.attrs["num_samples"], demo.attrs["model_file"] = drawn.steps, schema.model
            demo.attrs["init_state"] = arrays["states"][rows.start]


def _actions(
    hand: NDArray[np.float64], fields: DemoFields, drawn: Drawn, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw actions f64[n, 7] of the kind that the data set has: commands, or targets near the hand."""
    actions = drawn.walks(rng, 7, Range()).astype(np.float64)
    actions[:, -1] = np.sign(actions[:, -1])
    if isinstance(fields.actions, OscActions) and fields.actions.meaning == "absolute":
        actions[:, POSITION] = hand + STEP * actions[:, POSITION]
    return actions
