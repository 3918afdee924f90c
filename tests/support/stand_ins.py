"""A stand-in for the evaluator that starts at once, and a bench whose episodes take real time."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from uva_lightning.robot.benches.base import Bench, Session
from uva_lightning.robot.benches.drivers import Driver, Driving
from uva_lightning.robot.benches.fake import FakeBench
from uva_lightning.robot.control import Control
from uva_lightning.robot.operator import Label, ScriptedOperator
from uva_lightning.robot.sight import History
from uva_lightning.robot.tool_poses import actions

EPISODE = {
    "episode": 0, "label": "success", "ended": "operator", "reason": "", "duration": 2.0, "steps": 10, "chunks": 3,
    "rejected": 1, "points": 16, "clipped": 2, "jerk": [1.0],
    "latency": {"inference": [0.1], "age": [0.0], "late": [0.0]},
}  # fmt: skip
PROGRAM = """
import json, os, pathlib, signal, sys, time
folder, how, episode = pathlib.Path(sys.argv[3]), sys.argv[1], json.loads(sys.argv[2])
(folder / "seen.txt").open("a").write(f"{os.getpid()} {os.environ.get('WORLD_SIZE')}\\n")
if how == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    for job in sorted((folder / "jobs").glob("step_*")):
        if how == "dies":
            sys.exit(7)
        if how in ("hangs", "deaf"):
            continue
        out = folder / "results" / job.name
        out.mkdir(parents=True, exist_ok=True)
        if (out / "result.json").exists():
            continue
        wanted = json.loads((job / "job.json").read_text())
        there = how != "absent"
        content = {"available": there, "reason": "" if there else "RobotUnavailable: nobody", "error": False,
                   "episodes": [episode] * wanted["episodes"] if there else [], "step": wanted["step"],
                   "files": sorted(file.name for file in job.iterdir())}
        (out / "part").write_text(json.dumps(content))
        (out / "part").rename(out / "result.json")
    time.sleep(0.01)
"""


def stand_in(how="works", **changes):
    """Give a command that behaves as an evaluator that ``works``, ``hangs``, ``dies``, is ``deaf`` or ``absent``."""
    import json

    return (sys.executable, "-c", PROGRAM, how, json.dumps({**EPISODE, **changes}))


class Still:
    """Stays where it is."""

    def reset(self, seed):
        """Begin."""

    def act(self, observation):
        import numpy as np

        return actions(np.tile(np.eye(4), (16, 1, 1)), np.full(16, 0.08), np.eye(4))[None]


@dataclass(frozen=True)
class StillDriver(Driver):
    """Drives nowhere, without a model."""

    trained = False

    def check(self, bench: Bench, control: Control, spec: object) -> None:
        return

    def build(self, session: Session, control: Control, weights: Path, seed: int) -> Driving:
        return Driving(Still(), control, History(image_side=32))


@dataclass(frozen=True)
class SlowBench(FakeBench):
    """Takes as long as a real arm, and writes down when an episode begins, when the arm holds and when it is parked."""

    diary: str = ""

    def open(self, seed: int) -> Session:
        session = super().open(seed)
        pass_, close, hold, allow = session.wait, session.close, session.station.hold, session.operator.confirm

        def note(word):
            with Path(self.diary).open("a") as file:
                file.write(f"{word}\n")

        def wait(seconds):
            time.sleep(seconds)
            pass_(seconds)

        def confirm(episode):
            note("begins")
            return allow(episode)

        session.wait = wait
        session.close = lambda: (close(), note("parked"))
        session.station.hold = lambda reason: (hold(reason), note("holds"))
        session.operator = ScriptedOperator(confirm, lambda: Label.FAILURE)
        return session
