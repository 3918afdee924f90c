"""One-step denoising: a student that jumps to the end of its teacher's way (Song 2023; Luhman 2021)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from uva_lightning.model.heads.denoiser import Denoiser, Guide, Noising, StepNoise, Traced, fresh_noise, mean_over, only
from uva_lightning.model.heads.flow import TIME_SCALE
from uva_lightning.model.heads.network import DenoisingMLP

TEACHER = "teacher"
LAST_PLACE = 1 - 1e-6


class Consistency(Denoiser):
    """Map any point of a teacher's deterministic way to its end, in one evaluation of the network.

    It is trained by ``uva distill``. Consistency distillation (Song 2023, algorithm 2) takes the student's own average
    one step further along the way for the target, since a whole way costs too much with images. A head here is a small
    part of the model, so the target is the true end of the teacher's way, as in Luhman 2021: nothing is bootstrapped,
    no error adds up, and the loss is the very distance that counts. Half of the points that are learnt are starts, one
    in two of those at a lower temperature; the others let several steps refine a sample (Song 2023, algorithm 1).

    Points are in the scale of the straight path between noise (t = 1) and sample (t = 0), also those of a diffusion.

    Args:
        channels: Width of a row; filled in by the head.
        condition: Width of the condition; filled in by the head.
        width: Hidden width of the network.
        depth: Residual blocks of the network.
        draws: Ways per row and training step.
        teacher: What is distilled; None in a finished model, which can only sample.
        teacher_steps: Steps of the teacher's way.
    """

    def __init__(
        self,
        channels: int,
        condition: int,
        width: int = 1024,
        depth: int = 6,
        draws: int = 1,
        teacher: Callable[[int, int], Denoiser] | None = None,
        teacher_steps: int = 32,
    ) -> None:
        super().__init__()
        self.net = DenoisingMLP(channels, channels, condition, width, depth)
        self.draws, self.teacher_steps = draws, self.count(teacher_steps)
        self.teacher = None if teacher is None else teacher(channels, condition).requires_grad_(False)
        if self.teacher is not None and not isinstance(self.teacher, Traced):
            raise ValueError(
                f"The teacher is a {type(self.teacher).__name__}, expected FlowMatching or another denoiser that has a "
                "deterministic way; a distilled head cannot be distilled again."
            )

    def levels(self, normal: Tensor) -> Tensor:
        """See the base class: the places that ``loss_at`` takes, evenly in [0, 1)."""
        return torch.special.ndtr(normal).clamp(max=LAST_PLACE)

    def loss(self, target: Tensor, condition: Tensor, at: Noising, valid: Tensor | None = None) -> Tensor:
        """See the base class; the distance is that to the end of the teacher's way, the data's own is not looked at."""
        draws = at.level.shape[1]
        condition = condition.repeat_interleave(draws, dim=0)  # [n * draws, k]
        valid = None if valid is None else valid.repeat_interleave(draws, dim=0)
        rows = self.loss_at(condition, at.level.flatten(), at.noise.flatten(0, 1), valid)
        return rows.view(-1, draws).mean(dim=1)

    def loss_at(self, condition: Tensor, place: Tensor, noise: Tensor, valid: Tensor | None = None) -> Tensor:
        """Squared distance f32[n] to the ends of the teacher's ways.

        Args:
            condition: [n, k].
            place: f32[n], in [0, 1): below 0.5 the start, at temperature ``4 place``, at most 1; else a point of the
                way, evenly.
            noise: f32[n, c], standard normal.
            valid: bool[n, c], channels that a row has; all if not given.
        """
        with torch.no_grad():
            start = noise * torch.where(place < 0.5, 4 * place, 1.0).clamp(max=1.0)[:, None]
            times, points = zip(*self._way(condition, start, valid), strict=True)
            way = torch.stack(points[:-1])  # f32[steps, n, c]
            index = ((2 * place - 1).clamp(min=0.0) * len(way)).long()  # i64[n]
            time = torch.tensor(times[:-1], device=noise.device)[index]
            x = way[index, torch.arange(len(noise), device=noise.device)]
        guess = self._clean(x, time[:, None], self.net(x, TIME_SCALE * time, self.net.condition(condition)))
        return mean_over((guess - points[-1]).square(), valid)

    def taught(self, condition: Tensor, noise: Tensor, valid: Tensor | None = None) -> Tensor:
        """Give the end f32[n, c] of the teacher's way from noise f32[n, c]."""
        return self._way(condition, noise, valid)[-1][1]

    def sample(
        self,
        condition: Tensor,
        noise: Tensor,
        steps: int | str,
        temperature: float = 1.0,
        step_noise: StepNoise = fresh_noise,
        guide: Guide | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """See the base class: jump to the end; every further step adds some noise again and jumps anew.

        ``temperature`` scales the start and the noise that is added.
        """
        count = self.count(steps)
        times = [1 - done / count for done in range(count)]
        levels = TIME_SCALE * torch.linspace(1, 0, count + 1, device=noise.device)[:-1]
        x = clean = only(temperature * noise.float(), valid)
        for done, velocity in enumerate(self.net.steps(levels, condition, guide)):
            if done:
                x = torch.lerp(clean, only(temperature * step_noise(count - done - 1, clean), valid), times[done])
            clean = only(self._clean(x, times[done], velocity(x)), valid)
        return clean

    @staticmethod
    def _clean(x: Tensor, time: Tensor | float, velocity: Tensor) -> Tensor:
        """Jump along the velocity: at t = 0 nothing is left to do, whatever the network says."""
        return x - time * velocity

    def _way(self, condition: Tensor, noise: Tensor, valid: Tensor | None) -> list[tuple[float, Tensor]]:
        if self.teacher is None:
            raise ValueError(
                "This head is distilled and has no teacher any more, expected a head that learns from data; train the "
                "model that it came from, and distil again."
            )
        return list(cast(Traced, self.teacher).trace(condition, noise, self.teacher_steps, valid))
