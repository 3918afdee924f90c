"""The five functions of a trained model, behind one class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uva_lightning.draws import seeded
from uva_lightning.model.checkpoint import load_module
from uva_lightning.module import UVAModule
from uva_lightning.policy.generation import MaskedGenerator, Noise
from uva_lightning.types import Batch, DataSpec, Tokens, Visible
from uva_lightning.union import joined

Observation = Mapping[str, Mapping[str, NDArray[Any]]]
"""``video``: u8[b, t, H, W, 3] per camera; ``state``: f32[b, n, p] per entry; of the history.

``text``: ``instruction`` f32[b, 512], where the model was trained with instructions. Optionally ``action``: ``past``
f32[b, h, a], hidden from the model if not given; ``episode``: ``seed`` i64[b], noise then follows the episode,
whichever others are in the batch.
"""
Frames = dict[str, NDArray[np.uint8]]
Score = Callable[[Frames, Frames], NDArray[np.float64]]
"""Judges imagined futures u8[k, b, t, H, W, 3] by camera, after the past u8[b, t, H, W, 3]: f64[k, b], high is good."""


def observed(batch: Batch) -> Observation:
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


class UVAPolicy:
    """Use a trained model; every call works on a batch of observations.

    Args:
        module: Trained model.
        seed: Seed of the denoising noise.
        dtype: Of the matrix products; ``torch.bfloat16`` is faster where the processor has it.
        set: Of a model trained on a mixture, the data set whose cameras and actions count; the only one with actions
            if not given.
    """

    def __init__(
        self, module: UVAModule, seed: int = 0, dtype: torch.dtype = torch.float32, set: str | None = None
    ) -> None:
        self.module, self.dtype, self.set = module, dtype, module.spec.chosen(set)
        self.spec: DataSpec = module.spec.of(self.set)
        self.reset(seed)

    @classmethod
    def from_checkpoint(cls, path: Path | str, device: str = "cpu", seed: int = 0, set: str | None = None) -> UVAPolicy:
        """Rebuild the model from a checkpoint alone, with its averaged weights where it has them.

        Raises:
            ValueError: It was trained on several data sets with actions, and ``set`` names none of them.
        """
        module, _ = load_module(path)
        return cls(module.to(device).eval(), seed, set=set)

    def reset(self, seed: int) -> None:
        """Start the noise anew: it follows from this seed, the number of calls since, and the sample."""
        self._seed, self._calls = seed, 0

    def act(self, observation: Observation, temperature: float | None = None) -> NDArray[np.float32]:
        """Robot policy: decide what to do.

        Returns:
            f32[b, h, a], physical units.
        """
        tokens, state = self._tokens(observation)
        return self._actions(tokens, Visible.only(tokens, "history"), state, temperature)

    def imagine(
        self, observation: Observation, temperature: float | None = None, iterations: int = 1, guidance: float = 1.0
    ) -> Frames:
        """Video model: see what will happen, u8[b, t, H, W, 3] per camera.

        Args:
            observation: As above.
            temperature: Of the denoising, instead of the head's own.
            iterations: Rounds of generation; UVA's best pictures take 8.
            guidance: Scale of the guidance by the instruction; 1 is none.
        """
        tokens, _ = self._tokens(observation)
        return self._frames(tokens, Visible.only(tokens, "history"), temperature, iterations, guidance)

    def predict_next(
        self,
        observation: Observation,
        actions: NDArray[np.float32],
        temperature: float | None = None,
        iterations: int = 1,
        guidance: float = 1.0,
    ) -> Frames:
        """Forward dynamics: see what ``actions`` f32[b, h, a] will do; otherwise as ``imagine``."""
        tokens, _ = self._tokens(observation, actions=actions)
        return self._frames(tokens, Visible.only(tokens, "history", "action"), temperature, iterations, guidance)

    def explain(
        self, observation: Observation, frames: Mapping[str, NDArray[np.uint8]], temperature: float | None = None
    ) -> NDArray[np.float32]:
        """Inverse dynamics: find the actions f32[b, h, a] that led to ``frames``, u8[b, t, H, W, 3] per camera."""
        tokens, state = self._tokens(observation, future=frames)
        return self._actions(tokens, self._seen_afterwards(tokens), state, temperature)

    def plan(
        self, observation: Observation, score: Score, proposals: int = 8, margin: float = 6.0
    ) -> NDArray[np.float32]:
        """Policy + planner: propose chunks, imagine what each would do, take the best (UVA section 4.5).

        The most typical proposal is taken unless another one promises ``margin`` more.

        Args:
            observation: As above.
            score: Judges imagined futures.
            proposals: Chunks per observation, at least 1; with one, this is ``act``.
            margin: Lead over the most typical proposal, in the unit of the score; the default fits ``PushTGoal`` in
                px. Infinity leaves imagination out.

        Returns:
            f32[b, h, a].
        """
        tokens, state = self._tokens(observation)
        samples = tokens.batch_size
        rows = torch.arange(samples, device=self.module.device).repeat(proposals)
        state = {name: value[rows] for name, value in state.items()}
        tokens = tokens.rows(rows)
        chunks = self._sample("action", tokens, Visible.only(tokens, "history"), None)
        actions = self._decoded(chunks, state)  # f32[proposals * b, h, a]
        scores, each = np.zeros((proposals, samples)), np.arange(samples)
        if not math.isinf(margin):
            tokens = tokens.replaced({"action": self._encoded(actions, state)})
            futures = self._frames(tokens, Visible.only(tokens, "history", "action"), 0.0)
            by_proposal = {name: x.reshape(proposals, samples, *x.shape[1:]) for name, x in futures.items()}
            scores = np.array(score(dict(observation["video"]), by_proposal))
        scores[_medoid(chunks.unflatten(0, (proposals, samples))), each] += margin
        chosen: NDArray[np.float32] = actions.cpu().numpy().reshape(proposals, samples, *actions.shape[1:])
        return chosen[scores.argmax(axis=0), each]

    def _actions(
        self, tokens: Tokens, seen: Visible, state: Mapping[str, Tensor], temperature: float | None
    ) -> NDArray[np.float32]:
        sampled = self._sample("action", tokens, seen, temperature)
        actions: NDArray[np.float32] = self._decoded(sampled, state).cpu().numpy()
        return actions

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

    def _seen_afterwards(self, tokens: Tokens) -> Visible:
        """Show the future as the objective did on which the model learnt to explain it; without one hide all past."""
        for objective in self.module.sampler.objectives.values():
            seen = objective.visible(tokens, seeded(0))
            whole = all(bool(seen[camera].all()) for camera in tokens.cameras)
            if "action" in objective.predicts and whole and not seen.action.any():
                return seen
        return Visible.only(tokens, "history", *tokens.cameras).hide(*(f"past_{c}" for c in tokens.cameras))

    def _frames(
        self,
        tokens: Tokens,
        seen: Visible,
        temperature: float | None,
        iterations: int = 1,
        guidance: float = 1.0,
    ) -> Frames:
        self.module.head(next(iter(self.module.cameras)))  # refuse a model without a video head by name
        cameras = {name: camera for name, camera in self._cameras.items() if name in self.module.heads}
        generator = MaskedGenerator(self.module, iterations, guidance, temperature=temperature)
        made, size = self._generate(generator, tuple(cameras), tokens, seen), self.spec.image_size
        return {c: self.module.tokenizer.decode(made[n], size).cpu().numpy() for n, c in cameras.items()}

    @property
    def _cameras(self) -> dict[str, str]:
        """Cameras under their own names, by the name of their modality."""
        if self.set is None:
            return self.module.cameras
        spec = self.module.spec
        return {spec.modality(shown): own for own, shown in spec.sets[self.set].cameras.items()}

    def _sample(self, modality: str, tokens: Tokens, seen: Visible, temperature: float | None) -> Tensor:
        return self._generate(MaskedGenerator(self.module, temperature=temperature), (modality,), tokens, seen)[
            modality
        ]

    def _generate(
        self, generator: MaskedGenerator, modalities: tuple[str, ...], tokens: Tokens, seen: Visible
    ) -> dict[str, Tensor]:
        every = torch.ones(seen.batch_size, dtype=torch.bool)
        device, seen = self.module.device, seen.without(dict.fromkeys(self._lacking, every))
        with torch.random.fork_rng(), torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            torch.manual_seed(seeded(self._seed, self._calls).initial_seed())  # of samplers that draw in each step
            order = self._draw((tokens.batch_size, tokens.video.shape[2]), torch.rand, -1).argsort(dim=1).to(device)
            return generator(tokens, seen.to(device), modalities, order, Noise(start=self._noise))

    def _noise(self, number: int, modality: str, hidden: Tensor, channels: int) -> Tensor:
        """Draw the start noise of one round: f32[n, c] for the hidden places of bool[b, ...]."""
        return self._draw((*hidden.shape, channels), torch.randn, number).to(hidden.device)[hidden]

    def _draw(self, shape: tuple[int, ...], draw: Callable[..., Tensor], number: int) -> Tensor:
        """Draw f32[n, ...]; ``n`` is a multiple of the batch, further rounds of it are further proposals."""
        count = len(self._episodes)
        lead = (self._seed, self._calls) if number == 0 else (self._seed, self._calls, number)
        draws = (seeded(*lead, self._episodes[row % count], row // count) for row in range(shape[0]))
        return torch.stack([draw(shape[1:], generator=rng) for rng in draws])

    def _tokens(
        self,
        observation: Observation,
        actions: NDArray[np.float32] | None = None,
        future: Mapping[str, NDArray[np.uint8]] | None = None,
    ) -> tuple[Tokens, dict[str, Tensor]]:
        """Tokenise as in training; the unknown future is filled with the past, which nothing may see."""
        self._check(observation, actions, future)
        self._calls += 1
        samples = len(next(iter(observation["video"].values())))
        episodes = observation.get("episode", {}).get("seed", np.arange(samples))
        self._episodes = [int(number) for number in episodes]
        device = self.module.device
        past = observation["video"]

        def given(kind: str, name: str) -> Tensor | None:
            value = observation.get(kind, {}).get(name)
            return None if value is None else torch.as_tensor(value, dtype=torch.float32, device=device)

        past_action = given("action", "past") if self.spec.past_action else None
        text = given("text", "instruction") if self.spec.text_dim else None
        video = {
            camera: torch.from_numpy(np.concatenate((past[camera], (future or past)[camera]), axis=1)).to(device)
            for camera in self.spec.cameras
        }
        state = {
            name: torch.as_tensor(observation["state"][name], dtype=torch.float32, device=device)
            for name in self.spec.state_dims
        }
        action = None if actions is None else torch.as_tensor(actions, dtype=torch.float32, device=device)
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded(self._seed, self._calls).initial_seed())  # of tokenizers that draw in use
            given_now = Batch(video=video, action=action, past_action=past_action, state=state, text=text)
            batch = self._as_trained(given_now)
            absent = self.module.absent(batch)  # an action is what is asked for, or a proposal
            self._lacking = [name for name, gone in absent.items() if name != "action" and gone.any()]
            return self.module.tokens(batch), state

    def _check(
        self,
        observation: Observation,
        actions: NDArray[np.float32] | None,
        future: Mapping[str, NDArray[np.uint8]] | None,
    ) -> None:
        """Compare what is given with the contract of the checkpoint."""
        spec, size = self.spec, self.spec.image_size
        video, state = observation.get("video", {}), observation.get("state", {})
        picture = (spec.frames, size, size, 3)
        expected: dict[str, tuple[NDArray[Any] | None, tuple[int, ...]]] = {
            f"Observation video.{name}": (video.get(name), picture) for name in spec.cameras
        }
        expected |= {
            f"Observation state.{n}": (state.get(n), (spec.proprio_steps, w)) for n, w in spec.state_dims.items()
        }
        if spec.text_dim:
            expected["Observation text.instruction"] = (
                observation.get("text", {}).get("instruction"),
                (spec.text_dim,),
            )
        if spec.past_action and (past := observation.get("action", {}).get("past")) is not None:
            expected["Observation action.past"] = (past, (spec.horizon, spec.action_dim))
        if future is not None:
            expected |= {f"Future video.{name}": (future.get(name), picture) for name in spec.cameras}
        if actions is not None:
            expected["Action chunk"] = (actions, (spec.horizon, spec.action_dim))
        for name, (value, shape) in expected.items():
            if value is None or value.shape[1:] != shape:
                found = "missing" if value is None else f"{value.shape[1:]} per sample"
                raise ValueError(f"{name} is {found}, expected {shape}: the checkpoint was trained so.")
            if shape == picture and value.dtype != np.uint8:
                raise ValueError(f"{name} is {value.dtype}, expected uint8 in 0..255.")


def _medoid(chunks: Tensor) -> NDArray[np.int64]:
    """Choose the proposal that is nearest to the others, i64[b] of f32[k, b, h, a].

    Unlike their mean it is something that the policy does: where demonstrations went left and right it goes one way.
    """
    each = chunks.float().flatten(2).transpose(0, 1)  # f32[b, k, h * a]
    nearest: NDArray[np.int64] = torch.cdist(each, each).sum(dim=-1).argmin(dim=-1).cpu().numpy()
    return nearest
