"""The real thing: diffusers' ``AutoencoderKL`` in the kl-f16 layout."""

from __future__ import annotations

import hashlib
import json
from copy import copy, deepcopy
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from uva_lightning.draws import Normal
from uva_lightning.model.tokenizers.base import Tokenizer
from uva_lightning.model.tokenizers.kl16 import SCALE

PIXEL_HALF = 127.5
LOG_VARIANCE = (-30.0, 20.0)
BLOCK = 16
"""Frames that go through the autoencoder at once."""


class KLVAE(Tokenizer):
    """Pretrained variational autoencoder, frozen.

    Args:
        path: Folder as diffusers or ``uva import-checkpoint`` writes it: ``config.json`` and
            ``diffusion_pytorch_model.safetensors``.
        image_size: Side in pixels to which frames are resized before encoding.
        scale: Factor on the latents; 0.2325 for UVA's KL-16.
        posterior: What stands for a frame. ``sample``: a draw for the losses, seeded by step and rank, and the mean
            where a trained model is used; ``mean``: always the mean; ``always``: a draw in use too, as the official
            code, whose answers are random even at a fixed action.
    """

    def __init__(
        self,
        path: Path | str,
        image_size: int = 256,
        scale: float = SCALE,
        posterior: Literal["sample", "mean", "always"] = "sample",
    ) -> None:
        if posterior not in ("sample", "mean", "always"):
            raise ValueError(f"posterior of the KLVAE is '{posterior}', expected 'sample', 'mean' or 'always'.")
        self.path, self.image_size, self.scale, self.posterior = Path(path), image_size, scale, posterior
        config = self.path / "config.json"
        if not config.is_file():
            raise ValueError(
                f"{self.path} is no autoencoder: {config.name} is missing; expected a folder written by diffusers' "
                "AutoencoderKL.save_pretrained, with config.json and diffusion_pytorch_model.safetensors."
            )
        self.vae = (
            AutoencoderKL.from_pretrained(self.path, use_safetensors=True, low_cpu_mem_usage=False)
            .eval()
            .requires_grad_(False)
        )
        self.channels, self.block = int(self.vae.config["latent_channels"]), BLOCK
        self.stride = 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    @property
    def fitted(self) -> bool:
        """Always: it is pretrained."""
        return True

    def grid(self, image_size: int) -> tuple[int, int]:
        """See the base class; frames of any size are resized."""
        if self.image_size % self.stride:
            raise ValueError(f"image_size of the KLVAE is {self.image_size}, expected a multiple of {self.stride}.")
        return self.image_size // self.stride, self.image_size // self.stride

    def fit(self, frames: Tensor) -> None:
        """Nothing to learn."""

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Encode u8[..., H, W, 3] to mean and log-variance, f32[..., s, 2c]."""
        lead = frames.shape[:-3]
        moments = [self._encode_block(block) for block in frames.reshape(-1, *frames.shape[-3:]).split(self.block)]
        return torch.cat(moments).unflatten(0, lead)

    def sample(self, moments: Tensor, normal: Normal | None = None) -> Tensor:
        """See the base class; what is drawn in use comes from torch's own generator."""
        if self.posterior == "mean" or (normal is None and self.posterior == "sample"):
            return self.draw(moments)
        shape = (*moments.shape[:-1], moments.shape[-1] // 2)
        noise = torch.randn(shape) if normal is None else normal(*shape[1:])  # on the CPU in use: any device
        return self.draw(moments, noise.to(moments.device))

    def draw(self, moments: Tensor, noise: Tensor | None = None) -> Tensor:
        """Turn moments [..., 2c] and standard normal noise f32[..., c] into latents f32[..., c]; no noise: the mean."""
        mean, log_variance = moments.float().chunk(2, dim=-1)
        if noise is None:
            return mean * self.scale
        return (mean + (0.5 * log_variance.clamp(*LOG_VARIANCE)).exp() * noise) * self.scale

    @torch.no_grad()
    def decode(self, latents: Tensor, image_size: int) -> Tensor:
        """See the base class; pictures come back in the size of the data, not in the autoencoder's."""
        lead, (rows, _) = latents.shape[:-2], self.grid(self.image_size)
        z = rearrange(latents.reshape(-1, *latents.shape[-2:]).float() / self.scale, "n (y x) c -> n c y x", y=rows)
        images = torch.cat([self.vae.decode(self._ready(block)).sample.float() for block in z.split(self.block)])
        if images.shape[-1] != image_size:
            images = functional.interpolate(images, (image_size, image_size), mode="bilinear", antialias=True)
        pixels = ((images + 1) * PIXEL_HALF).round().clamp(0, 2 * PIXEL_HALF).to(torch.uint8)
        return rearrange(pixels, "n c y x -> n y x c").unflatten(0, lead)

    def in_use(self, dtype: torch.dtype) -> KLVAE:
        """Give one that computes in ``dtype`` with channels last, which is how convolutions are fastest.

        On a CPU frames go through it one by one: what a layer gives of two frames of 256 px has 32 MiB in bfloat16,
        from where on the allocator takes new pages from the system every time, which costs as much as the arithmetic.
        """
        other = copy(self)
        other.block = 1 if self.vae.device.type == "cpu" else BLOCK
        other.vae = deepcopy(self.vae)
        # that of diffusers warns of parts that are to stay in float32, of which there are none
        nn.Module.to(other.vae, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for layer in other.vae.modules():
            if isinstance(layer, nn.SiLU):  # what it gets, a normalisation's output, nothing else reads
                layer.inplace = True
        return other

    def fingerprint(self) -> str:
        """See the base class."""
        digest = hashlib.sha256(json.dumps([self.image_size, self.scale]).encode())
        for name, tensor in sorted(self.vae.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def state(self) -> dict[str, Tensor]:
        """Nothing: the weights stay in their own file, named by the config."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Nothing to take."""

    def to(self, device: torch.device) -> None:
        """See the base class."""
        self.vae.to(device)

    def _encode_block(self, frames: Tensor) -> Tensor:
        x = rearrange(frames.float(), "n y x c -> n c y x")
        if x.shape[-1] != self.image_size:  # as the official code: corners not aligned, no antialiasing
            x = functional.interpolate(x, (self.image_size, self.image_size), mode="bilinear")
        moments = self.vae.encode(self._ready(x / PIXEL_HALF - 1)).latent_dist.parameters.float()
        return rearrange(moments, "n m y x -> n (y x) m")

    def _ready(self, x: Tensor) -> Tensor:
        """Give pictures or latents the type and order of the weights."""
        weight = self.vae.encoder.conv_in.weight
        channels_last = weight.is_contiguous(memory_format=torch.channels_last)
        return x.to(weight.dtype, memory_format=torch.channels_last if channels_last else torch.contiguous_format)
