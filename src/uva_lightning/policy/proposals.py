"""Where a planner's proposals come from: the policy itself, any other policy, or a search around them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from uva_lightning.policy.contract import ContractError, check_actions, is_whole
from uva_lightning.policy.windows import WindowObservation, WindowPolicy
from uva_lightning.types import DataSpec

if TYPE_CHECKING:
    from uva_lightning.policy.imagination import Envs
    from uva_lightning.serving.keys import Target
    from uva_lightning.serving.remote import RemoteActor

Judge = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""Says how good chunks f32[k, b, h, a] are: f64[k, b]."""
TOKEN = "UVA_TOKEN"
"""Environment variable with a policy server's token, so that it stands in no list of processes."""


class Candidates(NamedTuple):
    """Chunks to choose from, f32[k, b, h, a], and how good each is, f64[k, b]."""

    actions: NDArray[np.float32]
    scores: NDArray[np.float64]


class Proposals(ABC):
    """Find chunks among which there is a good one."""

    execute: int = 0
    """Control steps between two decisions, known in rollouts."""

    def enter(self, envs: Envs) -> None:
        """Get the environments of the episodes to come, by their seeds."""
        self.execute = next(iter(envs.values())).execute

    def reset(self, seed: int) -> None:  # noqa: B027 - most remember nothing
        """Begin new episodes."""

    @abstractmethod
    def search(
        self, policy: WindowPolicy, observation: WindowObservation, judge: Judge, rngs: Sequence[Generator]
    ) -> Candidates:
        """Propose, and judge.

        Args:
            policy: The model.
            observation: From ``WindowPolicy.prepare``.
            judge: Foresees and scores.
            rngs: A generator per observation, which follows its episode.
        """


class OneShot(Proposals):
    """Proposals that do not depend on what is foreseen.

    Args:
        count: Chunks per observation, at least 1.
    """

    def __init__(self, count: int = 8) -> None:
        if count < 1:
            raise ValueError(f"count is {count} proposals, expected at least 1.")
        self.count = count

    @abstractmethod
    def propose(self, policy: WindowPolicy, observation: WindowObservation) -> NDArray[np.float32]:
        """Give f32[k, b, h, a]."""

    def search(
        self, policy: WindowPolicy, observation: WindowObservation, judge: Judge, rngs: Sequence[Generator]
    ) -> Candidates:
        """See the base class."""
        actions = self.propose(policy, observation)
        spec, samples = policy.spec, len(rngs)
        wanted = (samples, spec.horizon, spec.action_dim)
        if not len(actions) or actions.shape[1:] != wanted or not np.isfinite(actions).all():
            raise ValueError(
                f"{type(self).__name__} gave proposals of shape {list(actions.shape)}, expected finite numbers "
                f"[k, {', '.join(map(str, wanted))}]: k chunks for each of {samples} observations."
            )
        return Candidates(actions, judge(actions))


class OwnSamples(OneShot):
    """Samples of the policy itself, which runs its transformer once for all of them."""

    def propose(self, policy: WindowPolicy, observation: WindowObservation) -> NDArray[np.float32]:
        """See the base class."""
        return policy.propose(observation, self.count)


class Given(OneShot):
    """Chunks that are known already.

    Args:
        chunks: f32[k, b, h, a].
    """

    def __init__(self, chunks: ArrayLike) -> None:
        self.chunks = np.asarray(chunks, dtype=np.float32)

    def propose(self, policy: WindowPolicy, observation: WindowObservation) -> NDArray[np.float32]:
        """See the base class."""
        return self.chunks


class FromPolicy(OneShot):
    """Samples of any other policy.

    Args:
        act: Gives f32[b, h, a] for an observation, see ``WindowObservation``; asked ``count`` times.
        count: Chunks per observation, at least 1.
    """

    def __init__(self, act: Callable[[WindowObservation], ArrayLike], count: int = 8) -> None:
        super().__init__(count)
        self.act = act

    def propose(self, policy: WindowPolicy, observation: WindowObservation) -> NDArray[np.float32]:
        """See the base class."""
        seen = plain(observation)
        return np.stack([np.asarray(self.act(seen), dtype=np.float32) for _ in range(self.count)])


class FromCheckpoint(OneShot):
    """Samples of another model that was trained on the same kind of data.

    Args:
        ckpt: Its checkpoint.
        count: Chunks per observation, at least 1.
        set: Of a model trained on a mixture, the data set that counts.
    """

    def __init__(self, ckpt: Path, count: int = 8, set: str | None = None) -> None:
        super().__init__(count)
        self.ckpt, self.set = ckpt, set
        self._loaded: WindowPolicy | None = None

    def propose(self, policy: WindowPolicy, observation: WindowObservation) -> NDArray[np.float32]:
        """See the base class."""
        if self._loaded is None:
            self._loaded = WindowPolicy.from_checkpoint(self.ckpt, str(policy.module.device), set=self.set)
        return self._loaded.propose(plain(observation), self.count)


class FromServer(OneShot):
    """Samples of a policy behind a server, ours or any that openpi's clients can ask; for rollouts.

    A server that asks for a token gets the value of the environment variable UVA_TOKEN.

    Args:
        url: ``ws://host:port`` or ``wss://host:port``.
        count: Chunks per observation, at least 1.
        keys: What the server calls its inputs, see ``RemoteActor``.
        prompt: Instruction; none if empty.
    """

    def __init__(self, url: str, count: int = 8, keys: Mapping[str, Target] | None = None, prompt: str = "") -> None:
        super().__init__(count)
        self.url, self.keys, self.prompt = url, keys, prompt

    @cached_property
    def _actor(self) -> RemoteActor:
        from uva_lightning.serving.remote import RemoteActor

        if not self.execute:
            raise ValueError(
                f"{self.url} can be asked in rollouts only, where the planner is told of its environments."
            )
        return RemoteActor(self.url, self.execute, os.environ.get(TOKEN, ""), self.keys, self.prompt)

    def reset(self, seed: int) -> None:
        """End all sessions."""
        if "_actor" in vars(self):
            self._actor.reset(seed)
            del self._actor

    def propose(self, policy: WindowPolicy, observation: WindowObservation) -> NDArray[np.float32]:
        """See the base class."""
        return self._actor.propose(plain(observation), self.count)


Proposed = int | Proposals | ArrayLike | Callable[[WindowObservation], ArrayLike]
"""How many chunks the policy proposes itself; or where they come from; or f32[k, h, a] (f32[k, n, h, a] for ``n``
environments) of another origin, or a function that proposes them from the histories."""


def plain(observation: WindowObservation) -> WindowObservation:
    """Leave out latents, which only the model that made them understands."""
    return {kind: entries for kind, entries in observation.items() if kind != "latents"}


def proposals_of(made: Any, spec: DataSpec, lead: tuple[int, ...]) -> Proposals | int:
    """Turn what a planner was given into proposals.

    Args:
        made: Proposals, a number of samples of the policy, or chunks f32[k, *lead, h, a].
        spec: Contract of the checkpoint.
        lead: Environments; none for a single one.

    Raises:
        ContractError: It is none of these.
    """
    if isinstance(made, Proposals):
        return made
    if is_whole(made):
        return int(made)
    if isinstance(made, str) or not np.ndim(made):
        raise ContractError(f"proposals is {made!r}, expected a whole number, chunks f32[k, h, a] or Proposals.")
    numbers = check_actions(made, spec, (len(made), *lead))
    return Given(numbers if lead else numbers[:, None])
