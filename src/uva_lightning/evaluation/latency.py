"""Decisions that take time: until a new chunk is there, the robot goes on with the one before."""

from __future__ import annotations

import numpy as np

from uva_lightning.evaluation.contenders import Chunking, Contender
from uva_lightning.evaluation.suite import Scenario
from uva_lightning.policy.committed import Rest
from uva_lightning.rollouts import Actions, Actor, Observation


class Late:
    """An actor whose chunks come ``delay`` control steps after they are asked for; wall-clock time plays no part.

    It is asked every ``execute`` steps. The robot then runs the last chunk for ``delay`` steps more, and enters the new
    one at the action that is meant for that moment: what was meant for the time before is lost. Where the last chunk
    runs out, its last action is repeated. An episode begins when its first chunk is there.

    Args:
        actor: Decides.
        execute: Steps between two decisions.
        delay: Steps that a decision takes, from 1 to ``execute``.
        chunking: Tell the actor what the robot will do until then, so that the new chunk continues it.

    Raises:
        ValueError: The next decision would begin before the last one is there.
    """

    def __init__(self, actor: Actor, execute: int, delay: int, chunking: Chunking | None = None) -> None:
        if not 1 <= delay <= execute:
            raise ValueError(
                f"Decisions take {delay} control steps, expected 1 to {execute}, the actions that are run between two "
                "of them; raise execute."
            )
        self.actor, self.execute, self.delay, self.chunking = actor, execute, delay, chunking
        self._last: dict[int, Actions] = {}

    def reset(self, seed: int) -> None:
        """Start anew."""
        self._last = {}
        self.actor.reset(seed)

    def act(self, observation: Observation) -> Actions:
        """Give what the robot runs until the next decision, and the rest of the new chunk behind it: f32[b, h, a]."""
        seeds = [int(seed) for seed in observation["episode"]["seed"]]
        known = [self._last[seed] for seed in seeds if seed in self._last]
        if self.chunking is None or len(known) < len(seeds):
            chunks = np.asarray(self.actor.act(observation), dtype=np.float32)
        else:
            rests = [Rest(left, min(self.delay, len(left))) for left in (chunk[self.execute :] for chunk in known)]
            chunks = np.asarray(self.chunking.act(observation, committed=rests), dtype=np.float32)
        run = chunks.copy()
        for row, seed in enumerate(seeds):
            if seed in self._last:
                steps = np.arange(self.execute, self.execute + self.delay).clip(max=chunks.shape[1] - 1)
                run[row, : self.delay] = self._last[seed][steps]
            self._last[seed] = chunks[row]
        return run


def actor_for(scenario: Scenario, contender: Contender) -> Actor:
    """Give what decides, as late as the scenario says.

    Raises:
        ValueError: The contender cannot play this.
    """
    actor = contender.actor(scenario)
    if not scenario.latency:
        return actor
    if contender.expert:
        raise ValueError("The expert acts from the state at every step, expected a policy that gives chunks.")
    chunking = contender.chunking(scenario) if scenario.continued else None
    if chunking is not None and contender.execute == contender.spec(scenario.env).horizon:
        raise ValueError("The next decision begins when no action is left to continue; lower execute.")
    return Late(actor, contender.execute, scenario.latency, chunking)
