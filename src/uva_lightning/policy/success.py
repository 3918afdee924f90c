"""A small head that learns from demonstrations how near success is, and judges imagined pictures by it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from uva_lightning.policy.imagination import Futures
from uva_lightning.policy.rewards import BYTE, Reward, camera_of
from uva_lightning.policy.windows import Frames
from uva_lightning.whole_files import whole

FORMAT = "uva_lightning success head 1"
READABLE = 0o644  # safetensors writes for the owner alone
BLOCK = 512
"""Pictures that are judged at a time."""


@dataclass(frozen=True)
class SuccessSpec:
    """What a success head was trained for.

    Args:
        camera: Whose pictures it judges.
        reach: Control steps before the end of a demonstration at which success is 1/e.
        side: Side in pixels that pictures are scaled to.
        width: Channels of the first layer.
    """

    camera: str
    reach: float
    side: int = 64
    width: int = 24

    def __post_init__(self) -> None:
        if self.reach <= 0:
            raise ValueError(f"reach is {self.reach} control steps, expected more than 0.")
        if self.side < 16 or self.side % 16:
            raise ValueError(f"side is {self.side} pixels, expected a multiple of 16.")


class SuccessNet(nn.Module):
    """Four convolutions that halve the picture, then two layers.

    Args:
        spec: Sizes.
    """

    def __init__(self, spec: SuccessSpec) -> None:
        super().__init__()
        self.side = spec.side
        widths = [3, spec.width, 2 * spec.width, 2 * spec.width, 4 * spec.width]
        layers: list[nn.Module] = []
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.ReLU()]
        flat = widths[-1] * (spec.side // 16) ** 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Give logits f32[n] of pictures f32[n, 3, side, side] in [-1, 1], see ``scaled``."""
        logits: Tensor = self.layers(pictures)[:, 0]
        return logits


def scaled(frames: Tensor, side: int) -> Tensor:
    """Scale u8[n, H, W, 3] to f32[n, 3, side, side] in [-1, 1]."""
    pictures = frames.permute(0, 3, 1, 2).float() / (BYTE / 2) - 1
    return functional.interpolate(pictures, (side, side), mode="area")


class SuccessHead(Reward):
    """How near success is in the foreseen frames: exp(-steps left / reach), the mean over the frames.

    Args:
        path: File that ``uva fit-reward`` wrote.
        device: Where it is computed.
    """

    def __init__(self, path: Path | str, device: str = "cpu") -> None:
        net, self.spec = load(Path(path))
        self.net, self.device = net.to(device).eval(), device

    @torch.inference_mode()
    def __call__(self, past: Frames, future: Futures) -> NDArray[np.float64]:
        """See the base class."""
        frames = future[camera_of(self.spec.camera, future)]
        flat = torch.from_numpy(frames.reshape(-1, *frames.shape[3:]))
        found = [self.net(scaled(part.to(self.device), self.spec.side)).sigmoid().cpu() for part in flat.split(BLOCK)]
        success: NDArray[np.float64] = torch.cat(found).double().numpy().reshape(frames.shape[:3]).mean(axis=-1)
        return success


def save(net: SuccessNet, spec: SuccessSpec, path: Path) -> None:
    """Write a head; the file is whole or absent."""
    facts = {"format": FORMAT, "spec": json.dumps(asdict(spec))}
    with whole(path) as part:
        save_file({name: value.cpu().contiguous() for name, value in net.state_dict().items()}, part, facts)
        part.chmod(READABLE)


def load(path: Path) -> tuple[SuccessNet, SuccessSpec]:
    """Read a head; nothing in the file is run.

    Raises:
        ValueError: There is none, or the file is something else.
    """
    if not path.is_file():
        raise ValueError(f"There is no success head {path}, expected a file that `uva fit-reward` wrote.")
    try:
        with safe_open(path, "pt") as file:
            facts, state = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}), expected a file that `uva fit-reward` wrote.") from error
    if facts.get("format") != FORMAT:
        raise ValueError(f"{path} is {facts.get('format', 'of an unknown format')}, expected {FORMAT}; fit it anew.")
    spec = SuccessSpec(**json.loads(facts["spec"]))
    net = SuccessNet(spec)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} lacks weights of its head, expected the file as written: {error}") from error
    return net, spec
