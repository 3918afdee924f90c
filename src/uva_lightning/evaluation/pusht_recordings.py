"""Demonstrations of Push-T: Diffusion Policy's replay buffer, its LeRobot copy, and those of ``uva demos``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules import demos, lerobot, replay_buffer
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.fields import Fields
from uva_lightning.datamodules.layouts import read_episodes
from uva_lightning.datamodules.pusht import PushT
from uva_lightning.datamodules.pusht_m import PushTM
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.windows import Window
from uva_lightning.envs.games import Start
from uva_lightning.envs.pusht import SUCCESS_COVERAGE
from uva_lightning.envs.pusht import PushT as Simulator
from uva_lightning.envs.pusht_world import PushTWorld
from uva_lightning.evaluation.recordings import Recorded, Recordings, seeded

SAME_PLACE = 0.01
"""Distance in px within which the agent of a seed is where a recording begins."""
_DATA: dict[str, type[RobotDataModule]] = {"pusht": PushT, "pusht_m": PushTM}


class PushTRecordings(Recordings):
    """Episodes begin in the recorded state where it is whole, else from the seed that made it."""

    envs = ("pusht", "pusht_m")

    def data(self) -> RobotDataModule:
        """See the base class."""
        return _DATA[self.name](self.path, window=Window(frames=1))

    def episodes(self) -> Sequence[Recorded]:
        """See the base class."""
        if demos.matches(self.path):
            return seeded(self.name, self.path)
        if replay_buffer.matches(self.path):
            return self._states()
        if lerobot.matches(self.path):
            return self._lerobot()
        if not self.path.exists():
            raise FileNotFoundError(f"There is no dataset at {self.path}; record one with: uva demos {self.name} --out")
        raise UserError(
            f"{self.path} holds no state of the block to begin from, expected a replay buffer of Diffusion Policy, its "
            "LeRobot copy, or a folder of uva demos."
        )

    def _states(self) -> list[Recorded]:
        """Replay buffer: agent, block and angle are recorded, before each action."""
        store = self._numbers({"state": "state"}, {"state": 5})
        world, found = PushTWorld(), []
        for number, (begin, end) in enumerate(_spans(store)):
            rows = store.state["state"][begin:end]
            coverage = [world.coverage((float(x), float(y), float(angle))) for _, _, x, y, angle in rows]
            start = Start(number, {"state": rows[0].astype(np.float64)}, len(rows))
            found.append(Recorded(start, min(1.0, max(coverage) / SUCCESS_COVERAGE)))
        return found

    def _lerobot(self) -> list[Recorded]:
        """LeRobot: only the agent is recorded, but episode ``k`` is Diffusion Policy's of seed ``k``."""
        store = self._numbers({"agent": "observation.state", "reward": "next.reward"}, {"agent": 2, "reward": 1})
        simulator, found = Simulator(), []
        for number, (begin, end) in enumerate(_spans(store)):
            agent, _ = simulator.reset(seed=number)
            if np.abs(agent["agent"] - store.state["agent"][begin]).max() > SAME_PLACE:
                raise UserError(
                    f"Episode {number} in {self.path} begins with the agent at {store.state['agent'][begin]}, expected "
                    f"{agent['agent']} as with seed {number}: the start of the block is not known. Replay the replay "
                    "buffer instead."
                )
            reward = float(store.state["reward"][begin:end].max())
            found.append(Recorded(Start(number, None, int(end - begin)), min(1.0, reward)))
        return found

    def _numbers(self, state: dict[str, str], widths: dict[str, int]) -> EpisodeStore:
        fields = Fields(video={}, action="action", state=state)
        spec = replace(PushT.facts, cameras=(), state_dims=widths)
        return read_episodes(self.path, {"replay_buffer": fields, "lerobot": fields}, spec)


def _spans(store: EpisodeStore) -> list[tuple[int, int]]:
    return list(zip(store.begins.tolist(), store.ends.tolist(), strict=True))
