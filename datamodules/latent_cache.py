"""Latents of every frame, computed once before training and optionally kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from uva_lightning.datamodules.picture_variants import PictureVariants
from uva_lightning.datamodules.store import EpisodeStore

Encode = Callable[[Tensor], Tensor]
"""u8[n, H, W, 3] to [n, s, m]."""

BLOCK = 256
"""Frames encoded at a time."""


def encode_store(
    store: EpisodeStore, variants: PictureVariants, encode: Encode, show_progress: bool = True
) -> dict[str, Tensor]:
    """Encode all variants of every frame, which is read once.

    Returns:
        f16[v, n, s, m] per camera.

    Raises:
        ValueError: A latent is not finite in half precision.
    """
    total = len(variants) * store.steps * len(store.video)
    latents: dict[str, Tensor] = {}
    with tqdm(total=total, unit="frame", desc="latents", mininterval=1, disable=not show_progress) as bar:
        for number, (camera, frames) in enumerate(store.video.items()):
            for first in range(0, store.steps, BLOCK):
                steps = slice(first, min(first + BLOCK, store.steps))
                recorded = torch.from_numpy(frames[steps])
                for variant in range(len(variants)):
                    code = _encoded(encode, variants.make(variant, recorded, steps, store, number), camera, steps)
                    if camera not in latents:
                        shape = (len(variants), store.steps, *code.shape[1:])
                        latents[camera] = torch.empty(shape, dtype=torch.float16)
                    latents[camera][variant, steps] = code
                    bar.update(len(code))
    return latents


def _encoded(encode: Encode, frames: Tensor, camera: str, steps: slice) -> Tensor:
    with torch.inference_mode():
        code = encode(frames).to("cpu", torch.float16)
    if not torch.isfinite(code).all():
        raise ValueError(
            f"Latents of camera '{camera}' leave the range of half precision in frames {steps.start} to "
            f"{steps.stop - 1}, expected finite numbers; check the tokenizer's weights."
        )
    return code


def fingerprint(store: EpisodeStore, variants: PictureVariants) -> str:
    """Hash what the latents follow from besides the tokenizer: the pictures and what is made of them."""
    digest = hashlib.blake2b(variants.identity().encode(), digest_size=8)
    if store.identity is not None:
        digest.update(f"{store.identity}{sorted(store.video)}".encode())
        return digest.hexdigest()
    for camera in sorted(store.video):
        frames = store.video[camera]
        digest.update(f"{camera}{frames.shape}".encode())
        for first in range(0, len(frames), BLOCK):
            digest.update(frames[first : first + BLOCK].tobytes())
    return digest.hexdigest()


def save(path: Path, latents: dict[str, Tensor]) -> None:
    """Write under a temporary name first, so that a file of the real name is always whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(latents, part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        size = sum(values.nbytes for values in latents.values()) / 1e6
        raise OSError(
            f"Cannot store the latents in {path} ({error}), expected room for {size:.0f} MB; "
            "free some, or leave data.encoding.cache_dir out to keep them in memory only."
        ) from error
    finally:
        part.unlink(missing_ok=True)


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
