"""The policy as one function of tensors with fixed shapes, to be exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from uva_lightning.draws import seeded
from uva_lightning.model.heads.base import Sampling, Steps
from uva_lightning.model.heads.denoiser import StepNoise, fresh_noise
from uva_lightning.module import UVAModule
from uva_lightning.types import Batch, Tokens
from uva_lightning.visibility import seen_when_asked

PIXEL_MAX = 255


class PolicyGraph(nn.Module):
    """From past frames, proprioception, instruction and noise to an action chunk in physical units.

    What may be seen is fixed here: branches on data cannot be exported.

    Args:
        module: Trained model, on its device.
        steps: Denoising steps, instead of the head's own.
        temperature: Instead of the head's own.
        batch: Samples of a call.
    """

    def __init__(
        self, module: UVAModule, steps: Steps | None = None, temperature: float | None = None, batch: int = 1
    ) -> None:
        super().__init__()
        if module.spec.sets:
            raise ValueError(
                f"The model was trained on a mixture of {', '.join(module.spec.sets)}, which cannot be exported: which "
                "action space counts is chosen at run time; expected a model of one data set."
            )
        self.head, self.module, self.batch = module.head("action"), module, batch
        if steps is not None:
            self.head.denoiser.check(steps)
        self.steps, self.temperature = steps, temperature
        self.step_noise: list[int] = []  # shape of the noise of all steps, where a sampler draws some
        given = self._given(examples := self.examples(0))
        with torch.no_grad():
            tokens = module.tokens(given)
            seen = seen_when_asked(module.sampler.objectives, tokens, "action")
            self._seen = seen.without(module.absent(given)).to(module.device)
            self._sample(tokens, examples["noise"], self._count)  # also makes the tables of the schedule
        self.names = tuple(self.examples(0))

    def examples(self, seed: int) -> dict[str, Tensor]:
        """Make inputs of the right shapes by name: random pictures, states that the data could have, noise."""
        spec, rng, device = self.module.spec, seeded(seed), self.module.device
        b, size = self.batch, spec.image_size
        made = {}
        for camera in spec.cameras:
            shape = (b, spec.frames, size, size, 3)
            made[f"video.{camera}"] = torch.randint(0, PIXEL_MAX + 1, shape, dtype=torch.uint8, generator=rng)
        for name, width in spec.state_dims.items():
            unit = 2 * torch.rand(b, spec.proprio_steps, width, generator=rng) - 1
            normalizer = self.module.proprioception.normalizers[name]
            made[f"state.{name}"] = normalizer.decode(unit.to(device)) if normalizer.fitted else unit
        chunk = (b, spec.horizon, spec.action_dim)
        if spec.text_dim:
            made["text"] = torch.randn(b, spec.text_dim, generator=rng)
        if spec.past_action:
            states = {name.removeprefix("state."): value for name, value in made.items() if name.startswith("state.")}
            unit = (2 * torch.rand(chunk, generator=rng) - 1).to(device)
            made["past_action"] = self.module.actions.decode(unit, {n: v.to(device) for n, v in states.items()})
        made["noise"] = torch.randn(chunk, generator=rng)
        if self.step_noise:
            made["step_noise"] = torch.randn(self.step_noise, generator=rng)
        return {name: value.to(device) for name, value in made.items()}

    def forward(self, *values: Tensor) -> Tensor:
        """Decide: f32[b, h, a], of the inputs in the order of ``names``."""
        inputs = dict(zip(self.names, values, strict=True))
        batch, noise = self._given(inputs), inputs.get("step_noise")
        step_noise = fresh_noise if noise is None else partial(_nth, noise)
        sampled = self._sample(self.module.tokens(batch), inputs["noise"], step_noise)
        return self.module.actions.decode(sampled, batch.state)

    def contract(self) -> dict[str, Any]:
        """Give what one must know to call it, as plain values."""
        inputs = [
            {"name": name, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
            for name, value in self.examples(0).items()
        ]
        spec, head = self.module.spec, self.head
        how = {"steps": str(self.steps or head.steps), "device": str(self.module.device)}
        return {"spec": asdict(spec), "inputs": inputs, "action": [self.batch, spec.horizon, spec.action_dim], **how}

    def _given(self, inputs: Mapping[str, Tensor]) -> Batch:
        """Encode the past alone, which also stands for the future: nothing may see that."""
        latents = {c: self.module.encode_frames(inputs[f"video.{c}"]) for c in self.module.spec.cameras}
        return Batch(
            latents={camera: torch.cat((past, past), dim=1) for camera, past in latents.items()},
            state={name: inputs[f"state.{name}"] for name in self.module.spec.state_dims},
            text=inputs.get("text"),
            past_action=inputs.get("past_action"),
        )

    def _sample(self, tokens: Tokens, noise: Tensor, step_noise: StepNoise) -> Tensor:
        how = Sampling(self.temperature, self.steps, step_noise=step_noise)
        latent = self.module.transformer(tokens, self._seen)
        return self.head.sample(latent, tokens, self._seen, noise, how)

    def _count(self, step: int, x: Tensor) -> Tensor:
        """Note how much noise the steps take; they count down to 0."""
        self.step_noise = self.step_noise or [step + 1, *x.shape]
        return torch.zeros_like(x)


def _nth(noise: Tensor, step: int, x: Tensor) -> Tensor:
    return noise[step]
