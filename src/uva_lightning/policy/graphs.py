"""CUDA graphs: what a decision launches is recorded once for its shapes, and then replayed in one launch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial

import torch
from torch import Tensor

from uva_lightning.model.heads.denoiser import Guide, StepNoise, fresh_noise

Function = Callable[..., Tensor]
"""Of tensors alone. Which kernels it launches follows from their shapes, and it never waits for the device."""
Recorder = Callable[[Function, Sequence[Tensor]], Callable[[], Tensor]]
"""Records a function of buffers; what it gives runs the recording on what the buffers hold by then."""
MOST = 32
"""Shapes whose recordings are kept."""


def cuda_graph(function: Function, buffers: Sequence[Tensor]) -> Callable[[], Tensor]:
    """Record on a GPU. Never run so far: there was none."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = function(*buffers)

    def replay() -> Tensor:
        graph.replay()
        return made

    return replay


class Graphed:
    """A function, recorded for each shape of its arguments.

    The first call of a shape runs the function itself, which compiles and chooses kernels and computes constants, and
    then records it. Arguments are copied into the buffers of the recording, results out of them.

    Args:
        function: What is recorded.
        recorder: How.
        most: Recordings that are kept; beyond it the oldest is dropped.
    """

    def __init__(self, function: Function, recorder: Recorder = cuda_graph, most: int = MOST) -> None:
        self._function, self._recorder, self._most = function, recorder, most
        self._known: dict[Hashable, tuple[list[Tensor], Callable[[], Tensor]]] = {}

    def __call__(self, *given: Tensor) -> Tensor:
        """Give what the function gives."""
        device = given[0].device.type
        casts = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        multiplies = torch.get_autocast_dtype(device) if casts else None
        key = (multiplies, *((value.shape, value.dtype) for value in given))
        if key not in self._known:
            made = self._function(*given)
            self._record(key, given)
            return made
        buffers, replay = self._known[key]
        for buffer, value in zip(buffers, given, strict=True):
            buffer.copy_(value, non_blocking=True)
        return replay().clone()

    def _record(self, key: Hashable, given: Sequence[Tensor]) -> None:
        with torch.inference_mode(False):  # buffers made in inference could not be filled outside of it
            buffers = [torch.zeros(value.shape, dtype=value.dtype, device=value.device) for value in given]
        for buffer, value in zip(buffers, given, strict=True):
            buffer.copy_(value)
        if len(self._known) == self._most:
            del self._known[next(iter(self._known))]
        self._known[key] = buffers, self._recorder(self._function, buffers)


class GraphedSampler:
    """``Denoiser.sample``, recorded with all its steps; their noise is drawn ahead.

    Args:
        sample: The denoiser's own.
        recorder: See ``Graphed``.
    """

    def __init__(self, sample: Callable[..., Tensor], recorder: Recorder = cuda_graph) -> None:
        self._sample, self._recorder = sample, recorder
        self._known: dict[Hashable, tuple[Graphed, list[int]]] = {}

    def __call__(
        self,
        condition: Tensor,
        noise: Tensor,
        steps: int | str,
        temperature: float = 1.0,
        step_noise: StepNoise = fresh_noise,
        guide: Guide | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """See ``Denoiser.sample``; the first call of a kind finds out which steps draw noise."""
        scale = None if guide is None else guide.scale
        how = (str(steps), temperature, scale, valid is not None)
        if how not in self._known:
            asked: list[int] = []
            graphed = Graphed(partial(self._run, how, asked), self._recorder)
            made = self._sample(condition, noise, steps, temperature, partial(_noting, asked, step_noise), guide, valid)
            self._known[how] = graphed, asked
            return made
        graphed, asked = self._known[how]
        like = torch.empty(noise.shape)  # noise is drawn on the CPU, as everywhere in use
        drawn = torch.stack([step_noise(step, like) for step in asked]) if asked else torch.zeros(0)
        given = [condition, noise, drawn.to(noise.device), *([] if guide is None else [guide.condition])]
        return graphed(*given, *([] if valid is None else [valid]))

    def _run(
        self,
        how: tuple[int | str, float, float | None, bool],
        asked: Sequence[int],
        condition: Tensor,
        noise: Tensor,
        drawn: Tensor,
        *rest: Tensor,
    ) -> Tensor:
        steps, temperature, scale, masked = how
        places = {step: place for place, step in enumerate(asked)}
        guide = None if scale is None else Guide(rest[0], scale)
        valid = rest[-1] if masked else None
        return self._sample(condition, noise, steps, temperature, lambda step, _: drawn[places[step]], guide, valid)


def _noting(asked: list[int], step_noise: StepNoise, step: int, x: Tensor) -> Tensor:
    asked.append(step)
    return step_noise(step, x)
