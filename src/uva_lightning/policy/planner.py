"""Policy + planner as an actor: propose, foresee, choose (UVA section 4.5)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from uva_lightning.policy.acting import Acting
from uva_lightning.policy.imagination import ForwardModel, Imagination, repeated
from uva_lightning.policy.proposals import OwnSamples, Proposals
from uva_lightning.policy.rewards import Reward, Score
from uva_lightning.policy.windows import WindowObservation, WindowPolicy

if TYPE_CHECKING:
    from uva_lightning.policy.imagination import Envs


class Planner(Acting):
    """Act by the best of several proposals, judged by the futures that are foreseen for them.

    The most typical proposal is taken unless another one promises ``margin`` more.

    Args:
        policy: Trained model.
        reward: Judges futures; that of the environment's goal if not given.
        proposals: Where chunks come from; or a number of samples of the policy, with 1 this is the policy.
        margin: Lead that overrules the most typical proposal, in the unit of the reward; the reward's own if not given.
            Infinity leaves imagination out.
        imagination: Where futures come from; the model's forward dynamics if not given.
    """

    def __init__(
        self,
        policy: WindowPolicy,
        reward: Reward | Score | None = None,
        proposals: Proposals | int = 8,
        margin: float | None = None,
        imagination: Imagination | None = None,
    ) -> None:
        super().__init__(policy)
        if reward is not None and not callable(reward):
            raise ValueError(f"reward is {reward!r}, expected a Reward such as PixelGoal, or a function; see Score.")
        if margin is not None and math.isnan(margin):
            raise ValueError("margin is NaN, expected a number in the unit of the reward.")
        self.proposals = OwnSamples(proposals) if isinstance(proposals, int) else proposals
        self.reward, self.margin, self.imagination = reward, margin, imagination or ForwardModel()
        self.tries = self.imagination.tries
        self._seed = 0

    def enter(self, envs: Envs) -> None:
        """Get the environments of the episodes to come, by their seeds."""
        self.proposals.enter(envs)
        self.imagination.enter(envs)
        if self.reward is None:
            from uva_lightning.envs import NAMESPACE, goal_score

            env = next(iter(envs.values()))
            self.reward = goal_score("" if env.spec is None else env.spec.id.removeprefix(NAMESPACE))

    def reset(self, seed: int) -> None:
        """Start anew."""
        super().reset(seed)
        self.proposals.reset(seed)
        self._seed = seed

    def act(self, observation: WindowObservation) -> NDArray[np.float32]:
        """Decide: f32[b, h, a]."""
        seen, reward = self.policy.prepare(observation), self.reward
        if reward is None:
            raise ValueError("The planner has no reward, expected one that judges futures; give PixelGoal or another.")
        margin = self.margin
        if margin is None:
            margin = reward.margin if isinstance(reward, Reward) else 0.0
        pictures = reward.pictures if isinstance(reward, Reward) else True
        episode = seen["episode"]

        def judge(actions: NDArray[np.float32]) -> NDArray[np.float64]:
            if math.isinf(margin):
                return np.zeros(actions.shape[:2])
            futures = self.imagination.futures(self.policy, seen, actions, pictures)
            scores = np.asarray(reward(dict(observation["video"]), futures), dtype=np.float64)
            if scores.shape != actions.shape[:2] or np.isnan(scores).any():
                raise ValueError(
                    f"The reward gave {list(scores.shape)} scores, {np.isnan(scores).sum()} of them NaN, expected "
                    f"numbers {list(actions.shape[:2])}: one for each of {len(actions)} chunks of each observation."
                )
            return scores

        rngs = [np.random.default_rng([self._seed, *one]) for one in zip(*episode.values(), strict=True)]
        actions, scores = self.proposals.search(self.policy, seen, judge, rngs)
        count, samples = scores.shape
        flat = self.policy.normalised(repeated(seen, count), np.concatenate(actions))
        each, scores = np.arange(samples), scores.copy()
        scores[_medoid(flat.unflatten(0, (count, samples))), each] += margin
        chosen: NDArray[np.float32] = actions[scores.argmax(axis=0), each]
        return chosen


def _medoid(chunks: torch.Tensor) -> NDArray[np.int64]:
    """Choose the proposal that is nearest to the others, i64[b] of f32[k, b, h, a].

    Unlike their mean it is something that the policy does: where demonstrations went left and right it goes one way.
    """
    each = chunks.float().flatten(2).transpose(0, 1)  # f32[b, k, h * a]
    nearest: NDArray[np.int64] = torch.cdist(each, each).sum(dim=-1).argmin(dim=-1).cpu().numpy()
    return nearest
