"""Several data sets at once: robots with different cameras and actions, and videos without any actions."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.endless import EachEpisode, EachWindow, Endless
from uva_lightning.datamodules.latents import Encode
from uva_lightning.datamodules.mixture_batches import HeldOutSampler, MixtureBatches, MixtureBatchSampler, MixtureOrder
from uva_lightning.datamodules.reading import Encoding
from uva_lightning.datamodules.step_sampler import StepLoader
from uva_lightning.datamodules.training_data import TrainingData
from uva_lightning.model.tokenizers.base import Tokenizer
from uva_lightning.types import Batch, DataSpec, SetSpec
from uva_lightning.union import by_set, joined, union_spec

Names = dict[str, dict[str, str]]


class Mixture(TrainingData):
    """Train on several data sets together; each keeps its own cameras, rate, action space and normalisers.

    Every process has each set in its share in every batch, to within a sample or two. Sets without actions serve only
    objectives that need none. Without ``weights`` and ``temperature`` a set's share is its share of all windows, or
    episodes where ``by`` says so.

    Args:
        sets: Data sets by a name of your choice. The first camera of the first one is the main view. Their own
            ``batch_size`` does not count.
        batch_size: Windows of a step, over all sets and processes together.
        weights: Relative share of each set.
        temperature: Share of each set as its size to the power of 1 / temperature: 1 is by size, larger more even.
        by: Draw windows, or episodes and then a window of each, so that long episodes do not count for more.
        cameras: What cameras of a set are called in the mixture, by set and own name; as in the set if not named.
        states: What proprioception entries of a set are called in the mixture, in the same way.
        image_size: Height and width of all pictures; needed where sets differ.
        encoding: When frames become latents, for all sets; as each set says if not given.
        workers: Processes that fetch batches; 0 is fastest from cached latents.
        seed: Seed of the order.
    """

    def __init__(
        self,
        sets: dict[str, RobotDataModule],
        batch_size: int = 64,
        weights: dict[str, float] | None = None,
        temperature: float | None = None,
        by: Literal["window", "episode"] = "window",
        cameras: Names | None = None,
        states: Names | None = None,
        image_size: int | None = None,
        encoding: Encoding | None = None,
        workers: int = 0,
        seed: int = 42,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1.")
        if by not in ("window", "episode"):
            raise ValueError(f"by is '{by}', expected window or episode; set data.by.")
        if encoding is not None:
            _encode_alike(sets, encoding)
        _check_sets(sets)
        _check_shares(sets, weights, temperature)
        self.sets, self.batch_size, self.workers, self.seed = sets, batch_size, workers, seed
        self.weights, self.temperature, self.by = weights, temperature, by
        size = _image_size(sets, image_size)
        for data in sets.values():
            data.image_size = size
        names = {what: _names(sets, given or {}, what) for what, given in (("cameras", cameras), ("states", states))}
        facts = {name: replace(data.spec, image_size=size) for name, data in sets.items()}
        self.spec: DataSpec = union_spec(
            {name: SetSpec(spec, names["cameras"][name], names["states"][name]) for name, spec in facts.items()}, size
        )
        self.shares: dict[str, float] = {}
        self._sampler: MixtureBatchSampler | None = None

    def prepare_data(self) -> None:
        """Write what data are missing, where the config says how."""
        for data in self.sets.values():
            data.prepare_data()

    def setup(self, stage: str) -> None:
        """Read all sets and find their shares."""
        for data in self.sets.values():
            data.trainer = self.trainer
            data.setup(stage)
        if self.shares:
            return
        self.shares = self._shares({name: self._order(name, data).length for name, data in self.sets.items()})
        parts = ", ".join(f"{name} {share:.1%}" for name, share in self.shares.items())
        rank_zero_info(f"Mixture of {parts}, by {self.by}; {self.batch_size} samples per step.")

    def samples(self) -> Mapping[str, Batch]:
        """See the base class."""
        found = {name: next(iter(data.samples().values())) for name, data in self.sets.items()}
        return {name: joined(self.spec, {name: sample}) for name, sample in found.items()}

    def training_frames(self, most: int = 4096) -> Tensor:
        """See the base class; every set gives equally many."""
        return torch.cat([data.training_frames(max(1, most // len(self.sets))) for data in self.sets.values()])

    def fit_tokenizer(self, tokenizer: Tokenizer) -> None:
        """See the base class; what it had learnt when shards were made comes first."""
        ready = [data for data in self.sets.values() if not data.has_pictures]
        if ready:
            ready[0].fit_tokenizer(tokenizer)
        else:
            super().fit_tokenizer(tokenizer)

    def training_numbers(self, block: int = 4096) -> Iterator[Batch]:
        """See the base class; each batch is of one set."""
        for name, data in self.sets.items():
            for batch in data.training_numbers(block):
                yield joined(self.spec, {name: batch})

    def cache(self, encode: Encode, key: str = "") -> None:
        """See the base class; each set as its own ``encoding`` says."""
        for data in self.sets.values():
            data.cache(encode, key)
        if len({data.latents is None for data in self.sets.values()}) > 1:
            ready = [name for name, data in self.sets.items() if data.latents is not None]
            raise ValueError(
                f"The data sets {ready} bring latents and the others pictures, expected one kind for a batch; set "
                "data.encoding for all of them."
            )

    def chosen(self, name: str | None = None) -> RobotDataModule:
        """See the base class."""
        return self.sets[self.spec.chosen(name) or next(iter(self.sets))]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Samples of all sets in their shares; continues where the trainer's batch counter stands."""
        windows = {name: data.training() for name, data in self.sets.items()}
        orders = {name: self._order(name, data) for name, data in self.sets.items()}
        order = MixtureOrder(orders, self.shares, self.batch_size, self.seed)
        total = sum(len(part) for part in windows.values())
        if total < self.batch_size:
            raise ValueError(
                f"There are {total} training windows, fewer than batch_size={self.batch_size}; "
                f"set data.batch_size to at most {total}."
            )
        self._sampler = MixtureBatchSampler(order, total // self.batch_size, self._consumed, self._rank, self._world)
        return StepLoader(MixtureBatches(self.spec, windows), self._sampler, order.facts(), self.workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """All windows of the held-out episodes of every set; a batch is of one set, and the sets take turns."""
        windows = {name: data.held_out() for name, data in self.sets.items()}
        lengths = {name: len(part) for name, part in windows.items()}
        sampler = HeldOutSampler(lengths, self.batch_size, self._rank, self._world)
        data = MixtureBatches(self.spec, windows)
        return DataLoader(data, None, sampler=sampler, num_workers=self.workers, persistent_workers=self.workers > 0)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment the pictures of a training batch, each set's as it says."""
        training = self.trainer is not None and self.trainer.training
        changing = [name for name, data in self.sets.items() if data.augment is not None]
        if not changing or not batch.video or not training or self._sampler is None or batch.source is None:
            return batch
        rows, names = self._sampler.share(self._consumed()), list(self.sets)
        video = {camera: frames.clone() for camera, frames in batch.video.items()}
        for number, places in by_set(batch.source):
            if (name := names[number]) in changing:
                called = self.spec.sets[name].cameras
                own = {camera: batch.video[shown][places] for camera, shown in called.items()}
                for camera, frames in self.sets[name].augmented(own, rows[name]).items():
                    video[called[camera]][places] = frames
        return replace(batch, video=video)

    def _order(self, name: str, data: RobotDataModule) -> Endless:
        """Give the endless order of a set, which follows from its name, so that others do not change it."""
        windows, seed = data.training(), (self.seed, zlib.crc32(name.encode()))
        if self.by == "window":
            return EachWindow(len(windows), *seed)
        return EachEpisode(windows.windows.episode_index(np.arange(len(windows)) % len(windows.windows)), *seed)

    def _shares(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """Give the share of each set, from its size unless there are weights."""
        power = 1 / (self.temperature or 1)
        largest = max(sizes.values())
        parts = self.weights or {name: (size / largest) ** power for name, size in sizes.items()}
        return {name: parts[name] / sum(parts.values()) for name in sizes}


def _encode_alike(sets: Mapping[str, RobotDataModule], encoding: Encoding) -> None:
    """Let all sets encode their frames in the same way: where one augments anew in every step, the others follow."""
    own = {}
    for name, data in sets.items():
        changed = data.augment is not None
        own[name] = (encoding if changed else replace(encoding, variants=0)).matched(changed)
    online = any(one.online for one in own.values())
    for name, data in sets.items():
        data.encoding = Encoding(online=True) if online else own[name]


def _check_sets(sets: Mapping[str, RobotDataModule]) -> None:
    if streamed := [name for name, data in sets.items() if data.reading.streaming is not None]:
        raise ValueError(
            f"reading.streaming is set in {streamed}, but a mixture draws from anywhere in its sets, expected shards "
            "on a local disk; leave it out, and copy remote shards first."
        )
    if not sets:
        raise ValueError("The mixture has no data sets, expected at least one; name them in data.sets.")
    if wrong := [name for name in sets if not name or set(name) & set("/. ")]:
        raise ValueError(f"A data set is called '{wrong[0]}', expected a name without '/', '.' and blanks; rename it.")
    known: dict[tuple[Any, ...], str] = {}
    for name, data in sets.items():
        what = (type(data), data.path.absolute(), str(data.reading.episodes))
        if what in known:
            raise ValueError(
                f"'{known[what]}' and '{name}' are the same data set, {type(data).__name__} from {data.path}, expected "
                "each once; take one out of data.sets, and give the other a larger weight in data.weights."
            )
        known[what] = name
    online = [name for name, data in sets.items() if data.encoding.online]
    if online and len(online) < len(sets):
        raise ValueError(
            f"encoding.online is true in {online} and false in {[name for name in sets if name not in online]}, "
            "expected one way for all: a batch holds pictures or latents; set data.encoding for all of them."
        )


def _check_shares(
    sets: Mapping[str, RobotDataModule], weights: Mapping[str, float] | None, temperature: float | None
) -> None:
    if weights is not None and temperature is not None:
        raise ValueError(
            f"The mixture has weights, {dict(weights)}, and temperature={temperature}, expected one of them; "
            "leave data.temperature out."
        )
    if temperature is not None and not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature is {temperature}, expected a positive number; 1 is by size, 2 is more even.")
    if weights is None:
        return
    if set(weights) != set(sets):
        raise ValueError(f"data.weights names {sorted(weights)}, but the data sets are {sorted(sets)}; name each once.")
    if any(not math.isfinite(weight) or weight < 0 for weight in weights.values()) or not sum(weights.values()) > 0:
        raise ValueError(
            f"data.weights is {dict(weights)}, expected numbers that are not negative with a positive sum."
        )


def _image_size(sets: Mapping[str, RobotDataModule], given: int | None) -> int:
    sizes = {name: data.spec.image_size for name, data in sets.items()}
    if given is not None and given < 1:
        raise ValueError(f"image_size is {given} px, expected at least 1; set data.image_size.")
    if given is None and len(set(sizes.values())) > 1:
        raise ValueError(
            f"The data sets have pictures of {', '.join(f'{size} px ({name})' for name, size in sizes.items())}, "
            f"expected one size for the mixture; set data.image_size={max(sizes.values())}, and reading.fit of a set "
            "says how its pictures are resized."
        )
    return given or next(iter(sizes.values()))


def _names(sets: Mapping[str, RobotDataModule], given: Names, what: str) -> Names:
    """Give the name in the mixture of every camera, or entry, of each set."""
    if unknown := set(given) - set(sets):
        raise ValueError(f"data.{what} names the data sets {sorted(unknown)}, expected some of {sorted(sets)}; rename.")
    result: Names = {}
    for name, data in sets.items():
        own = list(data.spec.cameras if what == "cameras" else data.spec.state_dims)
        if unknown := set(given.get(name, {})) - set(own):
            raise ValueError(f"data.{what}.{name} names {sorted(unknown)}, but the data set has {own}; rename.")
        result[name] = {one: given.get(name, {}).get(one, one) for one in own}
        called = list(result[name].values())
        if twice := sorted({one for one in called if called.count(one) > 1}):
            raise ValueError(
                f"data.{what}.{name} calls two of {own} '{twice[0]}', expected a name of its own for each; rename one."
            )
    return result
