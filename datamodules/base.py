"""What all datamodules share: split by episode, cut windows, deliver batches that a resume can repeat."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader

from uva_lightning.datamodules import latent_cache
from uva_lightning.datamodules.augment import Augmentation
from uva_lightning.datamodules.faults import Faults
from uva_lightning.datamodules.fields import Fields, Range
from uva_lightning.datamodules.frames import Frames, held
from uva_lightning.datamodules.generate import EpisodeMaker
from uva_lightning.datamodules.instructions import TextEmbedder
from uva_lightning.datamodules.latents import Encode, Latents
from uva_lightning.datamodules.picture_variants import PictureVariants
from uva_lightning.datamodules.pictures import Resized
from uva_lightning.datamodules.reading import Encoding, Reading
from uva_lightning.datamodules.rows import Rows
from uva_lightning.datamodules.shards.reader import Shards, matches, opened, order_of
from uva_lightning.datamodules.step_sampler import FixedBatchSampler, StepBatchSampler, StepLoader
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.symmetry import Symmetry
from uva_lightning.datamodules.training_data import TrainingData
from uva_lightning.datamodules.transform import WindowTransform
from uva_lightning.datamodules.varied_history import VariedHistory
from uva_lightning.datamodules.window_batches import Extras, Variants, WindowBatches
from uva_lightning.datamodules.windows import Window, Windows
from uva_lightning.model.tokenizers.base import Tokenizer
from uva_lightning.types import Batch, DataSpec


class RobotDataModule(TrainingData, ABC):
    """Windows of robot episodes; a dataset adds its facts and ``read``.

    Numbers are held in memory, pictures may be read when a window needs them.

    Args:
        path: Where the data lies, in a layout of its own or as shards; those also behind a URL, s3://bucket/folder.
        batch_size: Windows of a step, over all processes together.
        window: What a window holds; UVA's on Push-T if not given.
        val_ratio: Share of the episodes held out, at least one.
        seed: Seed of the split and of the order.
        symmetry: Adds every training window mapped by it.
        augment: Changes the pictures of training windows at random; never in evaluation.
        text: Turns the instructions into vectors; without it they are not delivered.
        reading: Which episodes are read, and what happens with broken ones.
        encoding: When frames become latents; all before training, kept in memory, if not given.
        generate: Writes the data first where ``path`` has none.
    """

    facts: ClassVar[DataSpec]
    """What a batch holds, with the recorded rate; ``window`` adds the rest."""
    recorded: ClassVar[DataSpec | None] = None
    """What ``read`` delivers, where a transform makes something else of it."""
    fields: ClassVar[Mapping[str, Fields]] = {}
    """Names on disk, for each layout in which the data set exists."""
    ranges: ClassVar[Mapping[str, Range]] = {}
    """What the numbers of a field on disk look like; -1 to 1 where left out."""
    transform: ClassVar[WindowTransform | None] = None
    """Applied to the numbers of every batch."""
    reads_chosen: ClassVar[bool] = False
    """Whether ``read`` gives the episodes of ``reading.episodes`` only, so that the files of others are not needed."""
    _store: EpisodeStore | None
    _shards: Shards | None
    _text: Tensor | None
    _train: Windows
    _val: Windows
    _variants: Variants

    def __init__(
        self,
        path: str | Path,
        batch_size: int = 64,
        window: Window | None = None,
        val_ratio: float = 0.02,
        seed: int = 42,
        symmetry: Symmetry | None = None,
        augment: Augmentation | None = None,
        text: TextEmbedder | None = None,
        reading: Reading | None = None,
        encoding: Encoding | None = None,
        generate: EpisodeMaker | None = None,
    ) -> None:
        super().__init__()
        if not 0 < val_ratio < 1:
            raise ValueError(f"val_ratio is {val_ratio}, expected a share between 0 and 1, such as 0.02.")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1.")
        self.path, self.location, self.batch_size, self.seed = Path(path), str(path), batch_size, seed
        self.window, self.val_ratio = window or Window(), val_ratio
        self.symmetry, self.augment, self.text, self.generate = symmetry, augment, text, generate
        self.reading, self.encoding = reading or Reading(), (encoding or Encoding()).matched(augment is not None)
        self.faults = Faults(self.reading.on_error)
        self.spec = replace(self.window.spec(self.facts), text_dim=0 if text is None else text.width)
        self.latents: Mapping[str, Latents] | None = None
        self.image_size: int | None = None  # of the pictures, where a mixture wants another than the facts have
        self.forget()

    @abstractmethod
    def read(self) -> EpisodeStore:
        """Read all episodes from ``path``."""

    @property
    def store(self) -> EpisodeStore:
        """All episodes, read at the first use; normalisers are fitted on their actions and states."""
        if self._store is None:
            self._shards = opened(self.location, self.reading, self.faults)
            chosen = None
            if self._shards is None:
                store = self.read()
                chosen = None if self.reads_chosen else self.reading.chosen(store.episodes)
            else:
                self._shards.check(self)
                store = self._shards.store(self.spec.cameras)
            self.faults.report(self.location, store.episodes)
            store = replace(store, video={camera: self._square(store, camera) for camera in self.spec.cameras})
            self._check(store)
            if store.identity is not None:  # the pictures also follow from how they become square
                store = replace(store, identity=f"{store.identity}-{self.reading.fit}")
            self._store = store if chosen is None else store.select(chosen)
        return self._store

    @property
    def source_facts(self) -> DataSpec:
        """Facts of what ``read`` delivers, at the recorded rate."""
        return self.recorded or (self.facts if self.facts.cameras else self.spec)

    @property
    def vectors(self) -> Tensor | None:
        """Vectors of the instructions, f32[e, w]; there once the episodes are read."""
        return self._text

    @property
    def has_pictures(self) -> bool:
        """Whether pictures can be read, besides latents."""
        return self._shards is None or not self._shards.has_latents

    @property
    def changed_pictures(self) -> Mapping[str, Any]:
        """Options by which pictures differ from those recorded; shards are made for one choice of them."""
        return {"reading.fit": self.reading.fit}

    @property
    def encoded_by(self) -> str | None:
        """Fingerprint of the tokenizer whose latents are stored in the place of pictures; there once they are read."""
        stored = None if self._shards is None else self._shards.index.origin.tokenizer
        return None if stored is None else str(stored["fingerprint"])

    def move_to(self, path: Path) -> None:
        """Read the recordings at another path from now on, whatever they are packed in."""
        self.path, self.location, self.generate = path, str(path), None
        self.forget()

    def forget(self) -> None:
        """Drop what was read; it is read again when it is needed."""
        self._store, self._shards, self._text = None, None, None
        for name in ("_train", "_val", "_variants"):
            vars(self).pop(name, None)

    def _square(self, store: EpisodeStore, camera: str) -> Frames:
        """Give the pictures of a camera in the size of the facts, or of the mixture."""
        if camera not in store.video:
            raise ValueError(
                f"{self.path} has no pictures of {camera}, only {', '.join(store.video) or 'none'}; point data.path to "
                f"data of this kind, or leave it out with data.window.cameras."
            )
        frames, size = store.video[camera], self.image_size or self.spec.image_size
        return frames if frames.shape[1:3] == (size, size) else Resized(frames, size, self.reading.fit)

    def prepare_data(self) -> None:
        """Write the data where there are none and the config says how."""
        if self.generate is not None and not matches(self.location):
            self.generate(self.path, self)

    def recordings(self) -> Sequence[Path]:
        """Name the recordings that make up the data set; most have one, ``path`` itself."""
        return (self.path,)

    def setup(self, stage: str) -> None:
        """Read the episodes, split them and report the facts."""
        if "_train" in vars(self):
            return
        store, spec = self.store, self.spec
        held_out = self.val_episodes()
        chosen = set(held_out)
        training = [episode for episode in range(store.episodes) if episode not in chosen]
        self._train = self._windows(training)
        self._val = self._windows(held_out)
        self._variants = Variants.of(store, self.symmetry)
        self._text = self._embedded(store)
        acts = f"action [{spec.action_dim}] = {spec.action_meaning}" if spec.action_dim else "no actions"
        rank_zero_info(
            f"{type(self).__name__} from {self.path}: {store.episodes} episodes, {store.steps} steps at "
            f"{spec.rate_hz:g} Hz, {self.image_size or spec.image_size} px pictures of {', '.join(spec.cameras)}; "
            f"{acts}; {len(training)} episodes train "
            f"({len(self._train)} windows{', and as many mirrored' if self.symmetry else ''}), "
            f"{len(held_out)} validate ({len(self._val)} windows)."
            f"{''.join(f' {what}: {value}.' for what, value in spec.conventions.items())}"
        )

    def val_episodes(self) -> list[int]:
        """Draw the held-out episodes as UVA does: for Push-T's 206 and seed 42 these are 18, 90, 134 and 157."""
        episodes = self.store.episodes
        if episodes < 2:
            raise ValueError(f"{self.path} has {episodes} episode, expected at least 2: one trains, one validates.")
        count = min(max(1, round(episodes * self.val_ratio)), episodes - 1)
        drawn = np.random.default_rng(self.seed).choice(episodes, size=count, replace=False)
        return sorted(int(episode) for episode in drawn)

    def chosen(self, name: str | None = None) -> RobotDataModule:
        """See the base class; the only data set is this one."""
        self.spec.chosen(name)
        return self

    def samples(self) -> Mapping[str, Batch]:
        """See the base class."""
        return {type(self).__name__: self.held_out().numbers(torch.zeros(1, dtype=torch.int64))}

    def training(self) -> WindowBatches:
        """Give the windows that train, mirrored ones too, indexed by whole batches."""
        return self._batches(self._train, self.symmetry)

    def held_out(self) -> WindowBatches:
        """Give the windows that validate, as recorded, indexed by whole batches."""
        return self._batches(self._val, None)

    def training_frames(self, most: int = 4096) -> Tensor:
        """Give evenly spaced frames of the training episodes, mirrored ones too: u8[n, H, W, 3]; for a tokenizer."""
        steps = self._train.steps()
        steps = steps[np.linspace(0, len(steps) - 1, min(most, len(steps))).astype(np.int64)]
        frames = torch.cat([torch.from_numpy(self.store.video[camera][steps]) for camera in self.spec.cameras])
        return frames if self.symmetry is None else torch.cat([frames, self.symmetry.frames(frames)])

    def fit_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Fit a tokenizer on ``training_frames``, or let it take what it had learnt when shards were made."""
        state = None if self._shards is None else self._shards.tokenizer()
        if state is None:
            super().fit_tokenizer(tokenizer)
        else:
            tokenizer.load_state(state)

    def training_numbers(self, block: int = 4096) -> Iterator[Batch]:
        """Give ``action`` and ``state`` of all training windows, mirrored ones too, in blocks; for the normalisers."""
        data = self.training()
        for first in range(0, len(data), block):
            yield data.numbers(np.arange(first, min(first + block, len(data))))

    def cache(self, encode: Encode, key: str = "") -> None:
        """Encode every frame once; batches then carry ``latents`` instead of ``video``.

        With ``cache_dir`` the first process writes a file and later runs read it; its name joins ``key`` and a hash of
        the pictures.

        Args:
            encode: u8[n, H, W, 3] to moments [n, s, m], on any device.
            key: Hash of the tokenizer's weights and settings.
        """
        if self._shards is not None and not self.has_pictures:
            self.latents = self._shards.latents_for(self, key)
        elif not self.encoding.online:
            self.latents = latent_cache.latents_of(
                self.store, self.variants, encode, self.encoding.cache_dir, key, self.trainer
            )
        else:
            self._store = replace(self.store, video=held(self.store.video))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled windows; continues where the trainer's batch counter stands."""
        data = self.training()
        order = order_of(len(data), self._train, self.batch_size, self.seed, self._shards, self.reading.streaming)
        announce = None if self._shards is None else self._shards.follow(order, self.reading.streaming)
        sampler = StepBatchSampler(order, self._consumed, self._rank, self._world, announce)
        return StepLoader(data, sampler, order.facts(), self.reading.workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """All windows of the held-out episodes as recorded, in order."""
        data = self.held_out()
        sampler = FixedBatchSampler(len(data), self.batch_size, self._rank, self._world)
        return DataLoader(
            data, None, sampler=sampler, num_workers=self.reading.workers, persistent_workers=self.reading.workers > 0
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment the pictures of a training batch, on the device on which they are by now."""
        training = self.trainer is not None and self.trainer.training
        if not batch.video or not training:
            return batch
        share = len(batch)
        rows = Rows(torch.arange(share), self.seed, self._consumed(), self._rank * share, self.batch_size)
        return replace(batch, video=self.augmented(batch.video, rows))

    def augmented(self, video: Mapping[str, Tensor], rows: Rows) -> dict[str, Tensor]:
        """Change the pictures of training windows, u8[b, 2t, H, W, 3] per camera, where ``augment`` says how."""
        augment = self.augment
        if augment is None:
            return dict(video)
        return {name: augment(frames, rows, camera) for camera, (name, frames) in enumerate(video.items())}

    def _windows(self, episodes: list[int]) -> Windows:
        return Windows(self.store.ends, self.window, episodes)

    def _batches(self, windows: Windows, symmetry: Symmetry | None) -> WindowBatches:
        window, how = self.window, self.window.vary_history
        varied = None if how is None else VariedHistory(window.frames, window.horizon, how == "sample")
        extras = Extras(
            symmetry, self.latents, self._text, self.transform, varied, window.past_action, self.faults, self.variants
        )
        return WindowBatches(self.store, windows, self._variants, extras)

    @property
    def variants(self) -> PictureVariants:
        """What becomes latents of each frame."""
        return PictureVariants(self.symmetry, self.augment, self.encoding.variants, self.seed)

    def _embedded(self, store: EpisodeStore) -> Tensor | None:
        """Embed the instruction of every episode, each sentence once: f32[e, w]."""
        if self.text is None:
            return None
        if self._shards is not None and (stored := self._shards.vectors(self)) is not None:
            return stored
        return self.text.of_episodes(store.instructions, self.location)

    def _check(self, store: EpisodeStore) -> None:
        """Compare what was read with the facts."""
        spec = self.recorded or self.spec
        found: dict[str, Any] = {"action width": spec.action_dim if store.action is None else store.action.shape[1]}
        expected: dict[str, Any] = {"action width": spec.action_dim}
        for name, width in spec.state_dims.items():
            found[f"width of {name}"] = store.state[name].shape[1] if name in store.state else "none"
            expected[f"width of {name}"] = width
        for what, value in found.items():
            if value != expected[what]:
                raise ValueError(
                    f"{self.path} has {what} {value}, {type(self).__name__} expects {expected[what]}; "
                    "point data.path to data of this kind, or write a datamodule for it."
                )
