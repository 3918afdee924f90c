"""A trained model at run time: observations in one by one, actions and imagined frames out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from uva_lightning.model.checkpoint import load_module
from uva_lightning.model.heads.base import Steps
from uva_lightning.module import UVAModule
from uva_lightning.policy.chunk import ActionChunk
from uva_lightning.policy.committed import Rest
from uva_lightning.policy.contract import (
    ContractError,
    batch_of,
    check_actions,
    check_frames,
    check_observation,
    is_whole,
    names_of,
    one_row,
)
from uva_lightning.policy.engine import Engine, FastEngine, native_dtype
from uva_lightning.policy.histories import Histories
from uva_lightning.policy.instructions import Embed, Instructions
from uva_lightning.policy.planner import Planner
from uva_lightning.policy.proposals import Proposed, plain, proposals_of
from uva_lightning.policy.rewards import Reward, Score
from uva_lightning.policy.windows import Frames, WindowObservation, WindowPolicy

Observation = Mapping[str, Any]
"""One time step. ``video``: u8[H, W, 3] per camera, ``state``: f32[p] per entry; u8[n, H, W, 3] and f32[n, p] for ``n``
environments at once.

Optionally ``step``: number of the control step, and ``time``: in s by any clock, one number or ``n``; without both an
observation is one control step after the one before. ``last_action``: f32[a], the action before the first of the chunk
that follows, for models that see past actions. ``rate_hz``, and ``orientation`` of the pictures, such as ``upright``,
of all cameras or by camera: compared with the contract.
"""
Environments = Sequence[Hashable]


class UVAPolicy:
    """Use a trained model where observations come one by one, of one environment or of several at once.

    It keeps the history of each environment, compares every observation with the contract in the checkpoint, and
    encodes each frame once. A sample's answer does not depend on which others are in the batch, beyond rounding.

    Args:
        module: Trained model; weights that are changed afterwards may not be noticed.
        dtype: Of the matrix products; bfloat16 where the processor multiplies it natively, else float32.
        seed: Seed of the denoising noise.
        set: Of a model trained on a mixture, the data set whose cameras and actions count; the only one with actions
            if not given.
        embed: Turns instructions into vectors, as in training.
        patience: Control steps by which an earlier observation may stand in for one that was dropped; one less than
            the steps between two frames of a history if not given.
        every: Control steps between observations that have neither a step number nor a time.
        steps: Denoising steps by modality, such as ``{"action": 16, "video": "ddim20"}``; the heads' own if not given.
        fast: Keep latents of frames seen, constants and cast weights. Without it every call computes all anew, which
            gives the same answers within rounding.
        compile: See ``FastEngine``.
    """

    def __init__(
        self,
        module: UVAModule,
        dtype: torch.dtype | None = None,
        seed: int = 0,
        set: str | None = None,
        embed: Embed | None = None,
        patience: int | None = None,
        every: int = 1,
        steps: Mapping[str, Steps] | None = None,
        fast: bool = True,
        compile: bool = False,
    ) -> None:
        if not is_whole(every) or every < 1:
            raise ValueError(f"every is {every} control steps between observations, expected at least 1.")
        dtype = native_dtype(module.device) if dtype is None else dtype
        engine = FastEngine(module, dtype, compile) if fast else Engine(module)
        self.windows, self.fast = WindowPolicy(module, seed, dtype, set, engine, steps), fast
        self.spec, self.module, self.stages = self.windows.spec, module, self.windows.stages
        patience = self.spec.stride - 1 if patience is None else patience
        if patience < 0:
            raise ValueError(f"patience is {patience} control steps, expected 0 or more.")
        self._tell = Instructions(self.spec, embed, self.stages)
        self._histories = Histories(self.spec, patience, every)
        self.timing: dict[str, float] = {}  # ms of the stages of the last call
        self._single, self._last = True, cast(Environments, [0])

    @classmethod
    def from_checkpoint(
        cls,
        path: Path | str,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        seed: int = 0,
        set: str | None = None,
        patience: int | None = None,
        every: int = 1,
        steps: Mapping[str, Steps] | None = None,
        compile: bool = False,
    ) -> Self:
        """Rebuild the model from a checkpoint alone, with its averaged weights where it has them.

        Args:
            path: Checkpoint of ``uva fit``, or folder of ``uva import-checkpoint``.
            device: Where it runs.
            dtype: See the class, as the others.
            seed: See the class.
            set: See the class.
            patience: See the class.
            every: See the class.
            steps: See the class.
            compile: See the class.

        Raises:
            ValueError: There is no checkpoint, or it was trained on several data sets and ``set`` names none of them.
        """
        module, data = load_module(path)
        text = data.chosen(module.spec.chosen(set)).text
        embed = None if text is None else text.embed
        return cls(module.to(device).eval(), dtype, seed, set, embed, patience, every, steps, True, compile)

    def reset(
        self,
        instruction: str | NDArray[np.float32] | Sequence[str | NDArray[np.float32]] | None = None,
        environments: Environments | None = None,
        seed: int | None = None,
    ) -> None:
        """Begin an episode: forget what was seen.

        Args:
            instruction: What to do, a sentence or its vector f32[512]; of all environments, or a list with one each.
            environments: Those that begin; all, which are then forgotten, if not given.
            seed: Makes the noise of the episode repeatable; each episode has noise of its own if not given.

        Raises:
            ContractError: The model takes no instruction, or does not know this one.
        """
        if isinstance(instruction, Sequence) and not isinstance(instruction, str):
            told: list[NDArray[np.float32] | None] = [self._tell(one) for one in instruction]
            environments = list(range(len(told))) if environments is None else environments
            environments = names_of(environments, len(told))
        else:
            one = None if instruction is None else self._tell(instruction)
            if environments is None:
                self._histories.begin(one, seed)
                return
            environments = names_of(environments)
            told = [one] * len(environments)
        for row, name in enumerate(environments):
            self._histories.reset(name, told[row], None if seed is None else seed + row)

    def forget(self, environments: Environments) -> None:
        """Drop environments that are gone, with all that is known of them."""
        for name in names_of(environments):
            self._histories.known.pop(name, None)

    def observe(self, observation: Observation, environments: Environments | None = None) -> None:
        """Take an observation without deciding, as in the steps while a chunk is executed.

        Args:
            observation: One time step.
            environments: Names of the ``n`` environments; 0 to ``n - 1`` if not given.

        Raises:
            ContractError: It differs from what the checkpoint was trained with.
        """
        self._look(observation, environments)

    def act(
        self,
        observation: Observation | None = None,
        environments: Environments | None = None,
        temperature: float | None = None,
        committed: Sequence[Rest] | None = None,
    ) -> ActionChunk:
        """Robot policy: decide what to do.

        Args:
            observation: One time step; the newest ones if not given.
            environments: Names of the ``n`` environments; 0 to ``n - 1`` if not given.
            temperature: Of the denoising, instead of the head's own.
            committed: What each environment is doing, which its chunk continues; only with flow matching.

        Raises:
            ContractError: The observation differs from what the checkpoint was trained with, or some are missing.
        """
        names = self._look(observation, environments)
        return self._chunk(self.windows.act(self._window(names), temperature, committed), names)

    def imagine(
        self,
        observation: Observation | None = None,
        actions: ArrayLike | None = None,
        iterations: int = 8,
        environments: Environments | None = None,
        temperature: float | None = None,
        guidance: float = 1.0,
    ) -> Frames:
        """Video model: see what will happen; with ``actions`` as ``predict_next``.

        Args:
            observation: See ``act``.
            actions: f32[h, a] or f32[n, h, a] that will be run.
            iterations: Rounds of generation, MaskGIT; UVA uses 1, 4 and 8.
            environments: See ``act``.
            temperature: See ``act``.
            guidance: Scale of the guidance by the instruction; 1 is none.

        Returns:
            u8[t, H, W, 3], or u8[n, t, H, W, 3], per camera that the model predicts; a frame every ``spec.stride``
            control steps.

        Raises:
            ContractError: See ``act``.
        """
        names = self._look(observation, environments)
        given = None if actions is None else self._batched(check_actions(actions, self.spec, self._lead(names)))
        window = self._window(names)
        if given is None:
            made = self.windows.imagine(window, temperature, iterations, guidance)
        else:
            made = self.windows.predict_next(window, given, temperature, iterations, guidance)
        self._time()
        return {camera: frames[0] if self._single else frames for camera, frames in made.items()}

    def predict_next(
        self,
        observation: Observation | None,
        actions: ArrayLike,
        iterations: int = 8,
        environments: Environments | None = None,
        temperature: float | None = None,
        guidance: float = 1.0,
    ) -> Frames:
        """Forward dynamics: see what ``actions`` will do, as ``imagine`` with them."""
        if actions is None:
            raise ContractError("predict_next has no actions, expected f32[h, a]; imagine() foresees without any.")
        return self.imagine(observation, actions, iterations, environments, temperature, guidance)

    def explain(
        self,
        frames: Mapping[str, NDArray[np.uint8]],
        observation: Observation | None = None,
        environments: Environments | None = None,
        temperature: float | None = None,
    ) -> ActionChunk:
        """Inverse dynamics: find the actions that led from the newest observation to ``frames``.

        Args:
            frames: u8[t, H, W, 3], or u8[n, t, H, W, 3], per camera; a frame every ``spec.stride`` control steps.
            observation: See ``act``.
            environments: See ``act``.
            temperature: See ``act``.

        Raises:
            ContractError: See ``act``.
        """
        names = self._look(observation, environments)
        check_frames(frames, self.spec, self._lead(names))
        future = {camera: self._batched(pictures) for camera, pictures in frames.items()}
        return self._chunk(self.windows.explain(self._window(names), future, temperature), names)

    def plan(
        self,
        observation: Observation | None,
        proposals: Proposed,
        reward: Reward | Score,
        margin: float | None = None,
        environments: Environments | None = None,
    ) -> ActionChunk:
        """Policy + planner: imagine what each of several chunks would do, take the best (UVA section 4.5).

        Args:
            observation: See ``act``.
            proposals: How many chunks the policy proposes; or chunks of another origin, see ``Proposed``.
            reward: Judges imagined futures, see ``Score``; the axis of environments is there for a single one too.
            margin: Lead that overrules the most typical proposal; the reward's own if not given.
            environments: See ``act``.

        Raises:
            ContractError: See ``act``.
        """
        names = self._look(observation, environments)
        window = self._window(names, pictures=True)
        made = proposals(plain(window)) if callable(proposals) else proposals
        found = proposals_of(made, self.spec, self._lead(names))
        return self._chunk(Planner(self.windows, reward, found, margin).act(window), names)

    def check(self, environments: Environments) -> None:
        """Raise a ``ContractError`` for those that lack frames, states or the instruction to decide."""
        self._histories.check(names_of(environments))

    @property
    def environments(self) -> list[Hashable]:
        """Names of the environments that are known."""
        return list(self._histories.known)

    def _look(self, observation: Observation | None, environments: Environments | None) -> Environments:
        """Check and take an observation; gives the environments that the call is about."""
        if observation is None:
            names = self._last if environments is None else environments
            names = names_of(names)
            self._histories.require(names)
            self._single = self._single and len(names) == 1
            return names
        count = batch_of(observation)
        check_observation(observation, self.spec, count)
        names = list(range(count or 1)) if environments is None else names_of(environments, count or 1)
        self._histories.add(one_row(observation) if count is None else observation, names)
        self._last, self._single = names, count is None
        return names

    def _window(self, names: Environments, pictures: bool = False) -> WindowObservation:
        for name in names:
            self._histories.of(name).calls += 1
        return self._histories.window(names, self._encode if self.fast else None, pictures)

    def _encode(self, frames: torch.Tensor) -> torch.Tensor:
        with self.stages("encode"):
            return self.windows.engine.encode(frames)

    def _time(self) -> dict[str, float]:
        times = self.stages.take()
        self.timing = {**times, "total": sum(times.values())}
        return self.timing

    def _lead(self, names: Environments) -> tuple[int, ...]:
        return () if self._single else (len(names),)

    def _batched(self, values: NDArray[Any]) -> NDArray[Any]:
        return values[None] if self._single else values

    def _chunk(self, actions: NDArray[np.float32], names: Environments) -> ActionChunk:
        chunk = ActionChunk.after(self._histories.now(names), actions, self.spec, self._time())
        return chunk.row(0) if self._single else chunk
