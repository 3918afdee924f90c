"""Data that is made when it is not there yet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from uva_lightning.datamodules import random_demos
from uva_lightning.datamodules.fields import Range
from uva_lightning.whole_files import whole

if TYPE_CHECKING:
    from uva_lightning.datamodules.base import RobotDataModule

Written = Literal["replay_buffer", "hdf5"]
REPLAY_BUFFER: Written = "replay_buffer"


class EpisodeMaker(ABC):
    """Writes a data set to the path of a datamodule before it is read, once, by the first process."""

    @abstractmethod
    def __call__(self, path: Path, data: RobotDataModule) -> None:
        """Write all episodes, or what is missing of them; leave any other data at ``path`` alone.

        Args:
            path: The data set.
            data: Knows how the data set looks.
        """


class ScriptedDemos(EpisodeMaker):
    """Let the scripted expert play, as ``uva demos`` does.

    Args:
        env: Environment.
        episodes: Episodes in the folder afterwards.
        seed: Seed of the first one.
    """

    def __init__(self, env: str = "pusht", episodes: int = 200, seed: int = 0) -> None:
        self.env, self.episodes, self.seed = env, episodes, seed

    def __call__(self, path: Path, data: RobotDataModule) -> None:
        """See the base class; finished demonstrations of any kind, or other data, are left alone."""
        from uva_lightning.datamodules import demos
        from uva_lightning.demos import write_demos

        if not path.exists() or (demos.matches(path) and not demos.complete(path)):
            write_demos(self.env, path, self.episodes, self.seed)


class RandomEpisodes(EpisodeMaker):
    """Make up episodes that look like those of the data set: to try a config before the data are there.

    They have its fields, shapes and ranges, smooth numbers and moving blobs for pictures, but mean nothing: rotations
    need not be rotations, and actions do not cause what is seen. Written as a replay buffer, folder or ``.zip``, or as
    HDF5, one file or a folder of them.

    Args:
        episodes: Episodes of each recording or file.
        steps: Steps of an episode.
        seed: Seed of everything.
        jpeg_xl: Store pictures as UMI does: JPEG XL, each in a chunk of its own; needs imagecodecs.
        layout: How they lie on disk; the data set must know the layout.
    """

    def __init__(
        self,
        episodes: int = 4,
        steps: int = 48,
        seed: int = 0,
        jpeg_xl: bool = False,
        layout: Written = REPLAY_BUFFER,
    ) -> None:
        if episodes < 2 or steps < 1:
            raise ValueError(f"There are {episodes} episodes of {steps} steps, expected at least 2 of at least 1.")
        self.episodes, self.steps, self.seed = episodes, steps, seed
        self.jpeg_xl, self.layout = jpeg_xl, layout

    def __call__(self, path: Path, data: RobotDataModule) -> None:
        """See the base class; whatever is at ``path`` is left alone.

        Raises:
            ImportError: zarr or h5py is not installed.
            ValueError: The data set does not say how it looks on disk.
        """
        if path.exists():
            return
        if self.layout not in data.fields:
            raise ValueError(
                f"{type(data).__name__} does not say how it looks as {self.layout}, expected an entry of that name in "
                f"its fields, which has {', '.join(data.fields) or 'none'}; set data.generate.init_args.layout or "
                "leave data.generate out."
            )
        with whole(path) as part:
            for number, recording in enumerate(data.recordings()):
                place = part / recording.relative_to(path)
                rng = np.random.default_rng((self.seed, number))
                if self.layout == REPLAY_BUFFER:
                    self._write(place, recording.suffix == ".zip", data, rng)
                else:
                    random_demos.write(place, recording.suffix, data.fields[self.layout], self, rng)

    def _write(self, place: Path, zipped: bool, data: RobotDataModule, rng: np.random.Generator) -> None:
        try:
            import zarr
        except ImportError as error:
            raise ImportError(
                f"Writing {place} needs zarr 3 ({error}); install it with pip install 'uva_lightning[data]'."
            ) from error
        place.parent.mkdir(parents=True, exist_ok=True)
        store: Any = zarr.storage.ZipStore(place, mode="w") if zipped else zarr.storage.LocalStore(place)
        root = zarr.open_group(store, mode="w", zarr_format=2)
        fields = data.fields[REPLAY_BUFFER]
        pictures = {name: self.pictures(rng, data.facts.image_size) for name in fields.video.values()}
        arrays: dict[str, NDArray[Any]] = {**pictures, **self._numbers(rng, data)}
        for name, values in arrays.items():
            packed = self.jpeg_xl and name in pictures
            root.create_array(
                f"data/{name}",
                data=values,
                chunks=(1 if packed else min(len(values), 16), *values.shape[1:]),
                compressors=_jpeg_xl() if packed else "auto",
            )
        root.create_array("meta/episode_ends", data=np.arange(1, self.episodes + 1) * self.steps)
        if fields.instructions is not None:
            sentences = [f"made-up task {number % 2}" for number in range(self.episodes)]
            root.create_array("meta/instructions", data=np.array(sentences))
        store.close()

    def _numbers(self, rng: np.random.Generator, data: RobotDataModule) -> dict[str, NDArray[np.float32]]:
        """Draw f32[n, width] for every field of numbers."""
        fields, spec = data.fields[REPLAY_BUFFER], data.recorded or data.facts
        widths = {fields.action: spec.action_dim}
        widths |= {field: spec.state_dims[name] for name, field in fields.state.items()}
        return {field: self.walks(rng, width, data.ranges.get(field, Range())) for field, width in widths.items()}

    def walks(self, rng: np.random.Generator, width: int, values: Range) -> NDArray[np.float32]:
        """Swing within the range, in every episode and column at another pace."""
        pace, phase = rng.uniform(0.02, 0.1, (self.episodes, 1, width)), rng.uniform(0, 6.3, (self.episodes, 1, width))
        time = np.zeros(self.steps) if values.constant else np.arange(self.steps)
        swing = 0.5 + 0.5 * np.sin(time[:, None] * pace + phase)  # [e, n, w]
        return (values.low + (values.high - values.low) * swing).reshape(-1, width).astype(np.float32)

    def pictures(self, rng: np.random.Generator, size: int, blobs: int = 3) -> NDArray[np.uint8]:
        """Draw u8[n, size, size, 3]: coloured blobs that move over a slope of grey."""
        places = self.walks(rng, 2 * blobs, Range(0.1, 0.9)).reshape(-1, blobs, 2)
        colours, axis = rng.uniform(-200, 200, (blobs, 3)), (np.arange(size) + 0.5) / size
        pictures = np.empty((len(places), size, size, 3), dtype=np.uint8)
        for picture, centres in zip(pictures, places, strict=True):
            near = np.exp(-((axis - centres[:, :, None]) ** 2) / 0.01)  # [blobs, 2, size]
            light = np.einsum("ky,kx,kc->yxc", near[:, 0], near[:, 1], colours)
            picture[:] = np.clip(100 + 60 * axis[:, None, None] + light, 0, 255)
        return pictures


def _jpeg_xl() -> Any:
    try:
        from imagecodecs.numcodecs import Jpegxl, register_codecs
    except ImportError as error:
        raise ImportError(f"Writing JPEG XL needs imagecodecs ({error}); pip install 'uva_lightning[data]'.") from error
    register_codecs(verbose=False)
    return Jpegxl(level=99)
