"""``uva fit-reward``: learn from demonstrations what success looks like, for a planner."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional import spearman_corrcoef
from tqdm.auto import tqdm

from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.frames import Frames
from uva_lightning.draws import seeded
from uva_lightning.policy.success import SuccessNet, SuccessSpec, save, scaled

BLURS = (1, 2, 4)
"""Sides of the boxes over which training pictures are averaged: imagined ones are blurred."""
NOISE = 0.05
MOST_HELD_OUT = 2000
"""Held-out pictures on which the result is judged."""


def fit_reward(
    data: RobotDataModule,
    out: Path,
    camera: str | None = None,
    reach: float = 32.0,
    steps: int = 2000,
    batch_size: int = 64,
    lr: float = 1e-3,
    seed: int = 0,
) -> None:
    """Train a head that says how near success is in a picture, for --actor.reward SuccessHead.

    Every demonstration is taken to end in success: its picture n control steps before the end counts as exp(-n/reach).

    Args:
        data: The demonstrations, of the config's data.
        out: File of the head, such as reward.safetensors.
        camera: Whose pictures are judged; the first one's where left out.
        reach: Control steps before the end at which success is 1/e.
        steps: Training steps.
        batch_size: Pictures of a step.
        lr: Highest learning rate, which falls to 0 as a cosine.
        seed: Of weights and order.
    """
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if value < 1:
            raise UserError(f"{name} is {value}, expected at least 1.")
    data.prepare_data()
    data.setup("fit")
    store, cameras = data.store, data.spec.cameras
    if not data.has_pictures:
        raise UserError(f"{data.path} has latents in the place of pictures, expected recordings with pictures.")
    if camera is not None and camera not in cameras:
        raise UserError(f"camera is '{camera}', the data have {', '.join(cameras)}; choose one of these.")
    spec = SuccessSpec(camera or cameras[0], reach)
    held_out = data.val_episodes()
    train = _rows(store.begins, store.ends, [e for e in range(store.episodes) if e not in held_out])
    frames, left = store.video[spec.camera], _steps_left(store.begins, store.ends)
    net = train_head(spec, _batches(frames, left, train, batch_size, steps, seed), steps, lr, seed)
    tested = _rows(store.begins, store.ends, held_out)
    tested = tested[np.linspace(0, len(tested) - 1, min(MOST_HELD_OUT, len(tested))).astype(np.int64)]
    found = torch.cat([_judged(net, frames[rows]) for rows in np.array_split(tested, -(-len(tested) // 256))])
    save(net, spec, out)
    agreement = float(spearman_corrcoef(found, torch.from_numpy(-left[tested]).float()))
    sys.stdout.write(
        f"{out}: trained on {len(train)} pictures of {spec.camera}; on {len(tested)} held-out ones the order agrees "
        f"with the steps that are left: rank correlation {agreement:.3f} (1 is perfect, 0 is chance)\n"
    )


def train_head(
    spec: SuccessSpec, batches: Iterator[tuple[Tensor, Tensor]], steps: int, lr: float, seed: int
) -> SuccessNet:
    """Train.

    Args:
        spec: Sizes.
        batches: Pictures u8[n, H, W, 3] and control steps to the end of their demonstrations i64[n].
        steps: How many.
        lr: Highest learning rate.
        seed: Of weights and noise.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SuccessNet(spec)
        optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        with tqdm(batches, "success head", steps, unit="step", leave=False) as bar:
            for pictures, left in bar:
                target = torch.exp(-left / spec.reach)
                loss = functional.binary_cross_entropy_with_logits(net(_worsened(scaled(pictures, spec.side))), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
    return net.eval()


def _worsened(pictures: Tensor) -> Tensor:
    """Blur and add noise, as imagined pictures have it: f32[n, 3, side, side]."""
    box, side = BLURS[int(torch.randint(len(BLURS), ()))], pictures.shape[-1]
    blurred = functional.interpolate(functional.avg_pool2d(pictures, box), (side, side), mode="bilinear")
    return blurred + NOISE * torch.randn_like(blurred)


@torch.inference_mode()
def _judged(net: SuccessNet, frames: NDArray[np.uint8]) -> Tensor:
    return net(scaled(torch.from_numpy(frames), net.side))


def _rows(begins: NDArray[np.int64], ends: NDArray[np.int64], episodes: list[int]) -> NDArray[np.int64]:
    return np.concatenate([np.arange(begins[episode], ends[episode]) for episode in episodes])


def _steps_left(begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Control steps from each step to the last one of its episode, i64[n]."""
    return np.repeat(ends, ends - begins) - 1 - np.arange(ends[-1])


def _batches(
    frames: Frames, left: NDArray[np.int64], rows: NDArray[np.int64], size: int, steps: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    rng = seeded(seed, 1)
    for _ in range(steps):
        chosen = np.sort(rows[torch.randint(len(rows), (size,), generator=rng).numpy()])
        yield torch.from_numpy(frames[chosen]), torch.from_numpy(left[chosen])
