"""The functions of a trained model, behind one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uva_lightning.draws import seeded
from uva_lightning.model.checkpoint import load_module
from uva_lightning.model.heads.base import Steps
from uva_lightning.model.heads.holding import Held
from uva_lightning.module import UVAModule
from uva_lightning.policy.committed import Committed, Rest
from uva_lightning.policy.contract import check_window
from uva_lightning.policy.engine import Engine
from uva_lightning.policy.generation import MaskedGenerator, check_steps
from uva_lightning.policy.noise import RowNoise
from uva_lightning.policy.stages import Stages
from uva_lightning.types import Batch, DataSpec, Tokens, Visible
from uva_lightning.union import joined
from uva_lightning.visibility import seen_when_asked

WindowObservation = Mapping[str, Mapping[str, Any]]
"""Whole histories, as in training. ``video``: u8[b, t, H, W, 3] per camera; ``state``: f32[b, n, p] per entry.

``text``: ``instruction`` f32[b, 512], where the model was trained with instructions. Optionally ``latents``: moments
[b, t, s, m] per camera, tensors in the place of ``video``; ``action``: ``past`` f32[b, h, a], hidden from the model if
not given, and ``known`` bool[b], samples for which it is; ``episode``: ``seed`` i64[b], noise then follows the episode,
whichever others are in the batch, and ``call`` i64[b], the number of its decision.
"""
Frames = dict[str, NDArray[np.uint8]]


def observed(batch: Batch) -> WindowObservation:
    """Give what a policy may see of windows that come with their frames."""
    seen = {
        "video": {camera: frames.chunk(2, dim=1)[0].numpy() for camera, frames in batch.video.items()},
        "state": {name: value.numpy() for name, value in batch.state.items()},
    }
    if batch.text is not None:
        seen["text"] = {"instruction": batch.text.numpy()}
    if batch.past_action is not None:
        seen["action"] = {"past": batch.past_action.numpy()}
    return seen


class WindowPolicy:
    """Use a trained model on whole histories; every call works on a batch of them, and none is remembered.

    Args:
        module: Trained model.
        seed: Seed of the denoising noise.
        dtype: Of the matrix products; ``torch.bfloat16`` is faster where the processor has it.
        set: Of a model trained on a mixture, the data set whose cameras and actions count; the only one with actions
            if not given.
        engine: Runs transformer, heads and tokenizer; the module's own if not given.
        steps: Denoising steps by modality, instead of the heads' own.
    """

    def __init__(
        self,
        module: UVAModule,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        set: str | None = None,
        engine: Engine | None = None,
        steps: Mapping[str, Steps] | None = None,
    ) -> None:
        self.module, self.dtype, self.set = module, dtype, module.spec.chosen(set)
        self.spec: DataSpec = module.spec.of(self.set)
        check_steps(steps, module.heads)
        self.engine, self.steps, self.stages = engine or Engine(module), steps, Stages()
        self._shown: dict[tuple[str, tuple[str, ...]], Visible] = {}
        self.reset(seed)

    @classmethod
    def from_checkpoint(
        cls, path: Path | str, device: str = "cpu", seed: int = 0, set: str | None = None
    ) -> WindowPolicy:
        """Rebuild the model from a checkpoint alone, with its averaged weights where it has them.

        Raises:
            ValueError: It was trained on several data sets with actions, and ``set`` names none of them.
        """
        module, _ = load_module(path)
        return cls(module.to(device).eval(), seed, set=set)

    def reset(self, seed: int) -> None:
        """Start the noise anew: it follows from this seed, the number of calls since, and the sample."""
        self._seed, self._calls = seed, 0

    def act(
        self,
        observation: WindowObservation,
        temperature: float | None = None,
        committed: Sequence[Rest] | None = None,
    ) -> NDArray[np.float32]:
        """Robot policy: decide what to do; with flow matching, so that it continues what is ``committed``.

        Returns:
            f32[b, h, a], physical units.
        """
        tokens, state = self._tokens(observation)
        held = None if committed is None else self._held(Committed.of(committed, self.spec.horizon), state)
        return self._actions(tokens, self._seen(tokens, "action"), state, temperature, held)

    def latent(
        self,
        observation: WindowObservation,
        asked: str = "action",
        future: Mapping[str, NDArray[np.uint8]] | None = None,
    ) -> tuple[Tokens, Visible, Tensor]:
        """Give what a modality is predicted from where nothing of the future is visible.

        Args:
            observation: As above.
            asked: The modality; the robot policy's if not given.
            future: What will happen, u8[b, t, H, W, 3] per camera; hidden, but among the tokens.

        Returns:
            All tokens, what of them is visible, and Z, [b, t, s, d].
        """
        tokens, _ = self._tokens(observation, future=future)
        seen = self._seen(tokens, asked).without(self._lacking).to(self.module.device)
        device = self.module.device.type
        with torch.inference_mode(), torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32):
            return tokens, seen, self.engine.transformer(tokens, seen)

    def imagine(
        self,
        observation: WindowObservation,
        temperature: float | None = None,
        iterations: int = 1,
        guidance: float = 1.0,
    ) -> Frames:
        """Video model: see what will happen, u8[b, t, H, W, 3] per camera.

        Args:
            observation: As above.
            temperature: Of the denoising, instead of the head's own.
            iterations: Rounds of generation; UVA's best pictures take 8.
            guidance: Scale of the guidance by the instruction; 1 is none.
        """
        tokens, _ = self._tokens(observation)
        return self._frames(tokens, self._seen(tokens, self._view), temperature, iterations, guidance)

    def predict_next(
        self,
        observation: WindowObservation,
        actions: NDArray[np.float32],
        temperature: float | None = None,
        iterations: int = 1,
        guidance: float = 1.0,
    ) -> Frames:
        """Forward dynamics: see what ``actions`` f32[b, h, a] will do; otherwise as ``imagine``."""
        tokens, _ = self._tokens(observation, actions=actions)
        return self._frames(tokens, self._seen(tokens, self._view, "action"), temperature, iterations, guidance)

    def explain(
        self, observation: WindowObservation, frames: Mapping[str, NDArray[np.uint8]], temperature: float | None = None
    ) -> NDArray[np.float32]:
        """Inverse dynamics: find the actions f32[b, h, a] that led to ``frames``, u8[b, t, H, W, 3] per camera."""
        tokens, state = self._tokens(observation, future=frames)
        return self._actions(tokens, self._seen(tokens, "action", *tokens.cameras), state, temperature)

    def propose(self, observation: WindowObservation, count: int) -> NDArray[np.float32]:
        """Decide ``count`` times over, with noise of its own each; the first is what ``act`` gives: f32[k, b, h, a]."""
        tokens, state = self._tokens(observation)
        samples = tokens.batch_size
        rows = torch.arange(samples, device=self.module.device).repeat(count)
        tokens = tokens.rows(rows)
        made = self._generate(("action",), tokens, self._seen(tokens, "action"), None, copies=count)["action"]
        actions = self._decoded(made, {name: value[rows] for name, value in state.items()}).cpu().numpy()
        chunks: NDArray[np.float32] = actions.reshape(count, samples, *actions.shape[1:])
        return chunks

    def prepare(self, observation: WindowObservation) -> WindowObservation:
        """Encode the frames and number the decision, for several questions about the same moment."""
        check_window(observation, self.spec)
        moments = {camera: self._moments(observation, camera, None) for camera in self.spec.cameras}
        latents = {camera: both.chunk(2, dim=1)[0] for camera, both in moments.items()}
        calls, episodes = self._episodes(observation, len(next(iter(latents.values()))))
        return {**observation, "latents": latents, "episode": {"seed": episodes, "call": calls}}

    def normalised(self, observation: WindowObservation, actions: NDArray[np.float32]) -> Tensor:
        """Give chunks f32[b, h, a] as the transformer sees them, in which all widths count alike."""
        return self._encoded(torch.as_tensor(actions).to(self.module.device), self._state(observation))

    def _actions(
        self, tokens: Tokens, seen: Visible, state: Mapping[str, Tensor], heat: float | None, held: Held | None = None
    ) -> NDArray[np.float32]:
        sampled = self._generate(("action",), tokens, seen, heat, held=held)["action"]
        return self._decoded(sampled, state).cpu().numpy()

    def _held(self, committed: Committed, state: Mapping[str, Tensor]) -> Held:
        actions, weight = (torch.as_tensor(x).to(self.module.device) for x in (committed.actions, committed.weight))
        denoised = self._encoded(actions, state)[..., : self.module.head("action").channels]
        return Held(denoised, weight)

    def _decoded(self, actions: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Turn what the head gives into f32[b, h, a] in physical units."""
        batch = self._as_trained(Batch(state=dict(state), present={"action": torch.ones(len(actions)).bool()}))
        return self.module.actions.decode(actions, batch.state, batch.source)[..., : self.spec.action_dim]

    def _encoded(self, actions: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Undo ``_decoded``, as the transformer sees actions."""
        present = {"action": torch.ones(len(actions)).bool()}
        batch = self._as_trained(Batch(action=actions, state=dict(state), present=present))
        wide = actions if batch.action is None else batch.action
        return self.module.actions.encode(wide, batch.state, batch.source)

    def _as_trained(self, batch: Batch) -> Batch:
        """Make a batch of the one data set one of the mixture, where the model was trained on one."""
        return batch if self.set is None else joined(self.module.spec, {self.set: batch})

    def _seen(self, tokens: Tokens, asked: str, *given: str) -> Visible:
        """Show what the model saw when it learnt to predict ``asked``, see ``seen_when_asked``."""
        key = (asked, given)
        if key not in self._shown:
            objectives = self.module.sampler.objectives
            self._shown[key] = seen_when_asked(objectives, tokens.rows(slice(0, 1)), asked, given)
        return self._shown[key].rows(torch.zeros(tokens.batch_size, dtype=torch.int64))

    @property
    def _view(self) -> str:
        """Modality of the main view."""
        return next(iter(self.module.cameras))

    def _frames(
        self,
        tokens: Tokens,
        seen: Visible,
        temperature: float | None,
        iterations: int = 1,
        guidance: float = 1.0,
    ) -> Frames:
        spec = self.spec
        self.module.head(self._view)  # refuse a model without a video head by name
        cameras = {name: camera for name, camera in self._cameras.items() if name in self.module.heads}
        made, size = self._generate(tuple(cameras), tokens, seen, temperature, iterations, guidance), spec.image_size
        with self.stages("decode"):
            return {c: self.engine.decode(made[n], size).cpu().numpy() for n, c in cameras.items()}

    @property
    def _cameras(self) -> dict[str, str]:
        """Cameras under their own names, by the name of their modality."""
        if self.set is None:
            return self.module.cameras
        spec = self.module.spec
        return {spec.modality(shown): own for own, shown in spec.sets[self.set].cameras.items()}

    def _sample(self, modality: str, tokens: Tokens, seen: Visible, temperature: float | None) -> Tensor:
        return self._generate((modality,), tokens, seen, temperature)[modality]

    def _generate(
        self,
        modalities: tuple[str, ...],
        tokens: Tokens,
        seen: Visible,
        temperature: float | None,
        iterations: int = 1,
        guidance: float = 1.0,
        copies: int = 1,
        held: Held | None = None,
    ) -> dict[str, Tensor]:
        rows, device = tokens.batch_size, self.module.device
        repeats = rows // len(self._noise.episodes)
        seen = seen.without({n: gone.repeat(repeats) for n, gone in self._lacking.items()}).to(device)
        generator = MaskedGenerator(
            self.engine, iterations, guidance, "text", temperature, self.steps, self.stages, {"action": held}
        )
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            order = self._noise.order(rows, tokens.video.shape[2]).to(device)
            return generator(tokens, seen, modalities, order, self._noise.noise(rows), copies=copies)

    def _tokens(
        self,
        observation: WindowObservation,
        actions: NDArray[np.float32] | None = None,
        future: Mapping[str, NDArray[np.uint8]] | None = None,
    ) -> tuple[Tokens, dict[str, Tensor]]:
        """Tokenise as in training; the unknown future is filled with the past, which nothing may see."""
        check_window(observation, self.spec, actions, future)
        given = {**observation.get("latents", {}), **observation.get("video", {})}
        calls, episodes = self._episodes(observation, len(next(iter(given.values()))))
        self._noise = RowNoise(self._seed, calls, episodes)
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded(self._seed, calls[0]).initial_seed())  # of tokenizers that draw in use
            batch = self._as_trained(self._batch(observation, actions, future))
            absent = self.module.absent(batch)  # an action is what is asked for, or a proposal
            self._lacking = {name: gone for name, gone in absent.items() if name != "action" and gone.any()}
            return self.module.tokens(batch), self._state(observation)

    def _episodes(self, observation: WindowObservation, samples: int) -> tuple[list[int], list[int]]:
        """Give number of the decision and seed of the episode, by sample."""
        episode = observation.get("episode", {})
        if "call" not in episode:
            self._calls += 1
        calls = [int(number) for number in episode.get("call", [self._calls] * samples)]
        return calls, [int(number) for number in episode.get("seed", range(samples))]

    def _batch(
        self,
        observation: WindowObservation,
        actions: NDArray[np.float32] | None,
        future: Mapping[str, NDArray[np.uint8]] | None,
    ) -> Batch:
        """Put what is given into a batch of the data set, with latents for pictures."""

        def numbers(kind: str, name: str) -> Tensor | None:
            value = observation.get(kind, {}).get(name)
            return None if value is None else torch.as_tensor(value, dtype=torch.float32, device=self.module.device)

        latents = {camera: self._moments(observation, camera, future) for camera in self.spec.cameras}
        past_action = numbers("action", "past") if self.spec.past_action else None
        known = observation.get("action", {}).get("known")
        return Batch(
            latents=latents,
            action=None if actions is None else torch.as_tensor(actions, dtype=torch.float32).to(self.module.device),
            past_action=past_action,
            state=self._state(observation),
            text=numbers("text", "instruction") if self.spec.text_dim else None,
            present={} if past_action is None or known is None else {"past_action": torch.as_tensor(known)},
        )

    def _state(self, observation: WindowObservation) -> dict[str, Tensor]:
        device, state = self.module.device, observation.get("state", {})
        return {n: torch.as_tensor(state[n], dtype=torch.float32, device=device) for n in self.spec.state_dims}

    def _moments(
        self, observation: WindowObservation, camera: str, future: Mapping[str, NDArray[np.uint8]] | None
    ) -> Tensor:
        """Give the moments of a camera's past and future frames, [b, 2t, s, m]; each frame is encoded once."""
        known = observation.get("latents", {}).get(camera)
        parts = [] if known is None else [known]
        frames = [observation["video"][camera]] if known is None else []
        frames += [] if future is None else [future[camera]]
        if frames:
            with self.stages("encode"):
                parts.append(self.engine.encode(torch.from_numpy(np.concatenate(frames, axis=1))))
        moments = torch.cat(parts, dim=1)
        return moments if future is not None else moments.repeat(1, 2, 1, 1)
