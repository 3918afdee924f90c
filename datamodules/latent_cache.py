"""Latents of every frame, computed once before training and optionally kept on disk."""

from __future__ import annotations

import hashlib
import os
from math import prod
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from uva_lightning.datamodules.latents import BLOCK, Encode, Latents, LatentsInMemory, encode_episode
from uva_lightning.datamodules.picture_variants import PictureVariants
from uva_lightning.datamodules.shards.files import amount
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.whole_files import whole

MEMORY = Path("/proc/meminfo")


def encode_store(
    store: EpisodeStore, variants: PictureVariants, encode: Encode, show_progress: bool = True, processes: int = 1
) -> dict[str, Tensor]:
    """Encode every frame, in every variant.

    Args:
        store: Episodes with pictures.
        variants: What is encoded of each frame.
        encode: Makes moments of pictures.
        show_progress: Whether a bar shows it.
        processes: Processes of this machine that hold the latents.

    Returns:
        f16[v, n, s, m] per camera.

    Raises:
        ValueError: A latent is not finite in half precision, or they would not fit into memory.
    """
    latents, total = dict[str, Tensor](), len(variants) * store.steps * len(store.video)
    with tqdm(total=total, unit="frame", desc="latents", mininterval=1, disable=not show_progress) as bar:
        for episode, (first, last) in enumerate(zip(store.begins.tolist(), store.ends.tolist(), strict=True)):
            for camera in store.video:
                code = encode_episode(store, episode, camera, variants, encode, bar.update)  # f16[v, l, s, m]
                if camera not in latents:
                    shape = (len(variants), store.steps, *code.shape[2:])
                    _check_memory(len(store.video) * 2 * prod(shape), processes)
                    latents[camera] = torch.empty(shape, dtype=torch.float16)
                latents[camera][:, first:last] = code
    return latents


def latents_of(
    store: EpisodeStore,
    variants: PictureVariants,
    encode: Encode,
    folder: Path | None,
    key: str,
    trainer: Trainer | None,
) -> dict[str, Latents]:
    """Encode every frame; where there is a folder the first process writes a file, which later runs read.

    Args:
        store: Episodes with pictures.
        variants: What is encoded of each frame.
        encode: Makes moments of pictures.
        folder: Keeps the file; its name joins ``key`` and a hash of the pictures.
        key: Hash of the tokenizer's weights and settings.
        trainer: Of this run.
    """
    first, processes = trainer is None or trainer.is_global_zero, 1 if trainer is None else trainer.num_devices
    if folder is None:
        return _held(encode_store(store, variants, encode, first, processes))
    file = folder / f"{key}-{fingerprint(store, variants)}.safetensors"
    if first and not file.exists():
        save(file, encode_store(store, variants, encode))
    if trainer is not None:
        trainer.strategy.barrier("latents")
    if file.exists():
        return _held(load(file, store))
    # a folder that this machine does not share with the first process
    return _held(encode_store(store, variants, encode, False, processes))


def _held(latents: dict[str, Tensor]) -> dict[str, Latents]:
    """Give latents in memory as what reads windows of them."""
    return {camera: LatentsInMemory(values) for camera, values in latents.items()}


def available_memory() -> int:
    """Bytes that programs may still take, as far as the system tells; all there are otherwise."""
    if MEMORY.is_file():
        for line in MEMORY.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _check_memory(needed: int, processes: int) -> None:
    free = available_memory()
    if needed * processes > free:
        shared = f" in each of {processes} processes" if processes > 1 else ""
        raise ValueError(
            f"The latents of all frames take {amount(needed)}{shared}, but {amount(free)} of memory are free; "
            "write them to disk once with `uva cache --config CONFIG --out DIR` and set data.path=DIR, or encode "
            "each batch anew with data.encoding.online=true."
        )


def fingerprint(store: EpisodeStore, variants: PictureVariants) -> str:
    """Hash what the latents follow from besides the tokenizer: the pictures and what is made of them."""
    digest = hashlib.blake2b(variants.identity().encode(), digest_size=8)
    digest.update(source_hash(store).encode())
    return digest.hexdigest()


def source_hash(store: EpisodeStore) -> str:
    """Name the pictures: by the files they come from where the store knows them, or else by all pixels."""
    digest = hashlib.blake2b(digest_size=8)
    for camera in sorted(store.video):
        frames = store.video[camera]
        digest.update(f"{camera}{frames.shape}{store.ends.tolist()}".encode())
        if store.identity is not None:
            digest.update(store.identity.encode())
            continue
        for first in range(0, len(frames), BLOCK):
            digest.update(frames[first : first + BLOCK].tobytes())
    return digest.hexdigest()


def save(path: Path, latents: dict[str, Tensor]) -> None:
    """Write f16[v, n, s, m] per camera, so that a file of the real name is always whole."""
    try:
        with whole(path) as part:
            save_file(latents, part)
    except (OSError, SafetensorError) as error:
        size = sum(values.nbytes for values in latents.values()) / 1e6
        raise OSError(
            f"Cannot store the latents in {path} ({error}), expected room for {size:.0f} MB; "
            "free some, or leave data.encoding.cache_dir out to keep them in memory only."
        ) from error


def load(path: Path, store: EpisodeStore) -> dict[str, Tensor]:
    """Read latents of this store.

    Raises:
        ValueError: The file is damaged or of other data.
    """
    try:
        latents = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}), expected cached latents; delete it.") from error
    steps = {name: values.shape[1] for name, values in latents.items()}
    if steps != dict.fromkeys(store.video, store.steps):
        raise ValueError(f"{path} holds latents of {steps} steps, expected {store.steps} per camera; delete it.")
    return latents
