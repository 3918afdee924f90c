"""A policy behind a server as an actor, for rollouts: ours, or any that openpi's clients can ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.rollouts import Actions, Observation, frame_offsets
from uva_lightning.serving.client import PolicyClient
from uva_lightning.serving.keys import PROMPT, STATE, VIDEO, Target
from uva_lightning.serving.policy import contract_of
from uva_lightning.serving.wire import Message


class RemoteActor:
    """Act by a policy server; every episode has a connection, which is a session there, and all are asked at once.

    Our servers get each time step once, with its number, and build the history themselves. Others get the newest
    picture and state.

    Args:
        url: ``ws://host:port`` or ``wss://host:port``.
        execute: Control steps between two decisions.
        token: What the server wants to see; nothing if empty.
        keys: What the server calls its inputs, for servers that are not ours: contract name, or names of state entries
            whose numbers follow each other, by the server's name. Without it the contract names are sent.
        prompt: Instruction; none if empty.

    Attributes:
        metadata: What the server said of itself.
        contract: What its policy was trained on, where the server is ours.
    """

    def __init__(
        self, url: str, execute: int, token: str = "", keys: Mapping[str, Target] | None = None, prompt: str = ""
    ) -> None:
        self.url, self.execute, self.token, self.prompt = url, execute, token, prompt
        self.keys = dict(keys or {})
        with PolicyClient(url, token) as client:
            self.metadata = client.metadata
        self.contract = contract_of(self.metadata)
        self._clients: dict[int, PolicyClient] = {}
        self._steps: dict[int, int] = {}

    def reset(self, seed: int) -> None:
        """End all sessions."""
        for client in self._clients.values():
            client.close()
        self._clients, self._steps = {}, {}

    def act(self, observation: Observation) -> Actions:
        """Decide, see ``Actor``."""
        return self.propose(observation, 1)[0]

    def propose(self, observation: Observation, count: int) -> Actions:
        """Decide ``count`` times over, each with what is random at the server: f32[k, b, h, a]."""
        episodes = [int(seed) for seed in observation["episode"]["seed"]]
        for gone in set(self._clients) - set(episodes):
            self._clients.pop(gone).close()
        for episode in episodes:
            if episode not in self._clients:
                self._begin(episode)
        asked = [self._message(observation, row, self._steps[episode]) for row, episode in enumerate(episodes)]
        chunks = []
        for _ in range(count):
            for episode, message in zip(episodes, asked, strict=True):
                self._clients[episode].send(message)
            chunks += [self._actions(self._clients[episode].receive()) for episode in episodes]
            if self.contract is not None:  # it remembers the observation
                asked = [{} for _ in episodes]
        for episode in episodes:
            self._steps[episode] += self.execute
        if len(lengths := {len(chunk) for chunk in chunks}) > 1:
            raise ValueError(f"{self.url} gave chunks of {sorted(lengths)} actions, expected chunks of one length.")
        return np.stack(chunks).reshape(count, len(episodes), *chunks[0].shape)

    def _begin(self, episode: int) -> None:
        client = PolicyClient(self.url, self.token)
        self._clients[episode], self._steps[episode] = client, 0
        client.reset(seed=episode % 2**31, **({PROMPT: self.prompt} if self.prompt else {}))

    def _message(self, observation: Observation, row: int, step: int) -> Message:
        said: Message = {PROMPT: self.prompt} if self.prompt else {}
        seen = {f"{VIDEO}/{name}": x[row] for name, x in observation[VIDEO].items()}
        seen |= {f"{STATE}/{name}": np.asarray(x[row], np.float32) for name, x in observation[STATE].items()}
        if self.contract is None:
            now = {name: value[-1] for name, value in seen.items()}
            return said | (_renamed(now, self.keys) if self.keys else now)
        steps = [step + offset for offset in frame_offsets(self.contract)]
        since = step - self.execute if step else -1
        new = [index for index, at in enumerate(steps) if at > since and at >= 0]
        return said | {name: value[new] for name, value in seen.items()} | {"step": np.array([steps[i] for i in new])}

    def _actions(self, reply: Message) -> NDArray[np.float32]:
        try:
            actions = np.asarray(reply["actions"], dtype=np.float32)
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{self.url} replied with {sorted(reply)}, expected 'actions', numbers [h, a].") from None
        if actions.ndim != 2 or not np.isfinite(actions).all():
            raise ValueError(f"{self.url} gave actions of shape {actions.shape}, expected finite numbers [h, a].")
        return actions


def _renamed(now: Mapping[str, Any], keys: Mapping[str, Target]) -> Message:
    message: Message = {}
    for name, target in keys.items():
        wanted = [target] if isinstance(target, str) else list(target)
        if unknown := [one for one in wanted if one not in now]:
            raise ValueError(f"keys maps '{name}' to '{unknown[0]}', the environment has {', '.join(now)}.")
        message[name] = now[wanted[0]] if len(wanted) == 1 else np.concatenate([now[one] for one in wanted])
    return message
