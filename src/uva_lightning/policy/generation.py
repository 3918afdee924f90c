"""Generate several modalities together, the video in several rounds as MaskGIT (UVA section 3.5; MAR)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from uva_lightning.model.heads.base import Head, Sampling, Steps
from uva_lightning.model.heads.denoiser import Guide, StepNoise, fresh_noise
from uva_lightning.model.heads.holding import Held
from uva_lightning.policy.contract import is_whole
from uva_lightning.policy.stages import Stages
from uva_lightning.types import Tokens, Visible

Watch = Callable[[int, Tensor, Mapping[str, Tensor]], None]
"""Gets the round, the latent Z [b, t, s, d] and what is generated so far, by modality."""

HOTTEST = 10
"""Largest temperature."""


class Model(Protocol):
    """What generation needs of a model: a ``UVAModule``, or a form of it that is faster at run time."""

    @property
    def transformer(self) -> Any:
        """Turns tokens and what is visible into Z [b, t, s, d]; its ``streams`` are by modality."""

    def head(self, name: str) -> Head:
        """Give the head of a modality."""


def _start(number: int, modality: str, hidden: Tensor, channels: int) -> Tensor:
    return torch.randn(int(hidden.sum()), channels, device=hidden.device)


def _step(number: int, modality: str) -> StepNoise:
    return fresh_noise


@dataclass(frozen=True)
class Noise:
    """Where randomness comes from; torch's global generator if not given.

    Args:
        start: Start noise f32[n, c], standard normal, for a round, a modality, its ``n`` hidden places, a mask
            bool[b, ...] that is True there, and its channels ``c``.
        step: Gives the noise of the denoising steps, for a round and a modality.
    """

    start: Callable[[int, str, Tensor, int], Tensor] = _start
    step: Callable[[int, str], StepNoise] = _step


def rounds(places: int, iterations: int) -> list[int]:
    """Count the tokens of a frame that are hidden when each round begins, and after the last one.

    The cosine schedule of MaskGIT: few tokens first, where little is known, many in the end; at least one a round.

    Args:
        places: Tokens ``s`` of a frame.
        iterations: Rounds, 1 to ``places``.

    Returns:
        ``iterations + 1`` numbers from ``places`` down to 0.
    """
    if not 1 <= iterations <= places:
        raise ValueError(f"iterations is {iterations}, expected 1 to {places}, the tokens of a frame; UVA uses 1 to 8.")
    hidden = [places]
    for done in range(1, iterations):
        wanted = math.floor(places * math.cos(math.pi / 2 * done / iterations))
        hidden.append(max(iterations - done, min(hidden[-1] - 1, wanted)))
    return [*hidden, 0]


def check_steps(steps: Mapping[str, Steps] | None, heads: nn.ModuleDict) -> None:
    """Refuse denoising steps of heads that there are not, or in a way that a head does not know.

    Raises:
        ValueError: They cannot be.
    """
    if steps is not None and not isinstance(steps, Mapping):
        raise ValueError(f"steps is {steps!r}, expected one by modality: {{'action': {steps!r}}}.")
    for name, how in (steps or {}).items():
        if name not in heads:
            raise ValueError(f"steps names '{name}', the model has heads for {', '.join(heads)}; rename it.")
        cast(Head, heads[name]).denoiser.check(how)


def _check_options(temperature: float | None, guidance: float, iterations: int) -> None:
    if temperature is not None and not 0 <= temperature <= HOTTEST:
        raise ValueError(f"temperature is {temperature}, expected a number from 0 to {HOTTEST}.")
    if not math.isfinite(guidance):
        raise ValueError(f"guidance is {guidance}, expected a finite number; 1 is none.")
    if not is_whole(iterations):
        raise ValueError(f"iterations is {iterations!r}, expected a whole number; UVA uses 1 to 8.")


class MaskedGenerator:
    """Generate the hidden modalities of a batch.

    Each round runs the transformer once, on what is known by then. Modalities without places are sampled in every
    round, as in the official code, and the last sample counts.

    Args:
        module: Trained model.
        iterations: Rounds for video; 1 generates all tokens at once.
        guidance: Scale of the guidance of the video by a pass in which ``unconditional`` is hidden; 1 is none. It grows
            linearly with the tokens that are known, as in MAR.
        unconditional: Modality whose hiding the model was trained on, see a stream's ``drop``.
        temperature: Instead of the heads' own.
        steps: Denoising steps by modality, instead of the heads' own.
        stages: Told how long transformer and heads take.
        held: What samples must follow, by modality.
    """

    def __init__(
        self,
        module: Model,
        iterations: int = 1,
        guidance: float = 1.0,
        unconditional: str = "text",
        temperature: float | None = None,
        steps: Mapping[str, Steps] | None = None,
        stages: Stages | None = None,
        held: Mapping[str, Held | None] | None = None,
    ) -> None:
        _check_options(temperature, guidance, iterations)
        if guidance != 1.0 and unconditional not in module.transformer.streams:
            raise ValueError(
                f"guidance is {guidance}, but the model has no {unconditional} to leave out; expected 1, or one of "
                f"{sorted(module.transformer.streams)} given as unconditional."
            )
        self.module, self.iterations, self.temperature, self.steps = module, iterations, temperature, steps or {}
        self.guidance, self.unconditional, self.stages = guidance, unconditional, stages or Stages()
        self.held = held or {}

    @torch.inference_mode()
    def __call__(
        self,
        tokens: Tokens,
        seen: Visible,
        modalities: Sequence[str],
        order: Tensor,
        noise: Noise | None = None,
        watch: Watch | None = None,
        copies: int = 1,
    ) -> dict[str, Tensor]:
        """Generate.

        Args:
            tokens: What is known; hidden values are not read.
            seen: What is visible; of the video to generate, nothing. A visible action is kept as it is.
            modalities: What to generate.
            order: i64[b, s], places of a frame; the last ones are generated first, the same in all frames and cameras.
            noise: Where randomness comes from.
            watch: Called after every round.
            copies: How often the first samples are repeated in ``tokens`` and ``seen``; the first round then runs the
                transformer on them alone.

        Returns:
            f32[b, ..., c] by modality.
        """
        noise, made = noise or Noise(), dict[str, Tensor]()
        cameras = [name for name in modalities if name in tokens.cameras]
        values = tokens.replaced({name: torch.zeros_like(tokens[name]) for name in cameras})
        seen, places = Visible(dict(seen)), order.shape[1]
        hidden = rounds(places, self.iterations) if cameras else [places, 0]
        for number, (now, after) in enumerate(pairwise(hidden)):
            with self.stages("trunk"):
                latent = self._latent(values, seen, 1 if number else copies)
                guide = self._guide(values, seen, after / places) if cameras else None
            chosen = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, after:now], True)[:, None]
            for name in modalities:
                head, camera = self.module.head(name), name in cameras
                due = Visible({**seen, name: ~chosen.expand_as(seen[name]) if camera else seen[name]})
                start = torch.zeros(*due[name].shape, head.channels, device=latent.device)
                start[~due[name]] = noise.start(number, name, ~due[name], head.channels)
                own = noise.step(number, name)
                how = Sampling(
                    self.temperature, self.steps.get(name), guide if camera else None, own, self.held.get(name)
                )
                with self.stages(f"{name} head"):
                    made[name] = head.sample(latent, values, due, start, how)
            if watch is not None:
                watch(number, latent, made)
            values = values.replaced({name: made[name] for name in cameras})
            seen = Visible({**seen, **{name: seen[name] | chosen for name in cameras}})
        return made

    def _latent(self, tokens: Tokens, seen: Visible, copies: int) -> Tensor:
        if copies == 1:
            latent: Tensor = self.module.transformer(tokens, seen)
            return latent
        own = slice(0, tokens.batch_size // copies)
        return self._latent(tokens.rows(own), seen.rows(own), 1).repeat(copies, 1, 1, 1)

    def _guide(self, tokens: Tokens, seen: Visible, hidden: float) -> Guide | None:
        """Run the unconditional pass; ``hidden`` is the share of a frame that stays hidden after this round."""
        if self.guidance == 1.0:
            return None
        blind = Visible({**seen, self.unconditional: torch.zeros_like(seen[self.unconditional])})
        return Guide(self.module.transformer(tokens, blind), 1 + (self.guidance - 1) * (1 - hidden))
