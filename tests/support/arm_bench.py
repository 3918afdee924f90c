"""An arm without hardware, the keeper before it, and a clock that goes when it is told to."""

from __future__ import annotations

import numpy as np

from uva_lightning.robot.arm import JointTrajectory
from uva_lightning.robot.fake_arm import FakeArm
from uva_lightning.robot.inverse import rotation_vector
from uva_lightning.robot.keeper import Keeper
from uva_lightning.robot.limits import Limits

PERIOD = 0.01
READY = np.array([0.0, 1.2, 1.1, 0.2, 0.0, 0.0])
WIDE = Limits(workspace_min=(-1, -1, -1), workspace_max=(1, 1, 1))


class Spy(FakeArm):
    """Remembers every set-point and when it came."""

    def __init__(self, clock):
        super().__init__("X5_umi", clock)
        self.sent, self.broken, self.complaint, self.stuck = [], None, None, None
        self.refusal = self.rigid = None

    def command(self, q, opening):
        self.sent.append((self.clock(), np.append(q, opening), self.soft))
        if self.refusal is not None:
            raise self.refusal
        super().command(q, opening)

    def damp(self):
        if self.rigid is not None:
            raise self.rigid
        super().damp()

    def state(self):
        state = super().state()
        change = {"fault": self.complaint} if self.complaint else {}
        if self.stuck is not None:
            change |= {"q": self.stuck}
        if self.broken is not None:
            raise self.broken
        return state if not change else type(state)(**{**vars(state), **change})


class Bench:
    """An arm, its keeper and a clock that goes when it is told to."""

    def __init__(self, limits=WIDE, running=True, **options):
        self.now, self.events = 0.0, []
        self.arm = Spy(lambda: self.now)
        self.keeper = Keeper(
            self.arm,
            limits,
            PERIOD,
            READY,
            record=lambda event, said: self.events.append((self.now, event, said)),
            **options,
        )
        self.keeper.connect(self.now)
        if running:
            self.arm.q = READY.copy()
            self.keeper.home(self.now)
            self.run(0.1)
            self.keeper.allow(self.now)
            self.keeper.begin(self.now)

    def run(self, seconds, alive=True):
        for _ in range(round(seconds / PERIOD)):
            self.now += PERIOD
            if alive:
                self.keeper.heartbeat(self.now)
            self.keeper.tick(self.now)

    def chunk(self, steps, spacing=0.2, opening=None, late=0.0, valid=0.5):
        """Way-points at joint steps from where the arm is."""
        q = self.keeper._tracker.place[:-1] + np.cumsum(np.atleast_2d(steps), axis=0)
        time = self.now - late + spacing * np.arange(1, len(q) + 1)
        opened = (
            np.full(len(q), self.keeper._tracker.place[-1]) if opening is None else np.broadcast_to(opening, len(q))
        )
        return JointTrajectory(time, q, np.array(opened, float), time + valid)

    def check(self):
        """Compare everything that was sent with the limits."""
        chain, limits, guard = self.arm.model.chain, self.keeper.limits, self.keeper.guard
        times, places = np.array([t for t, _, _ in self.arm.sent]), np.array([q for _, q, _ in self.arm.sent])
        assert np.isfinite(places).all()
        assert (places[:, :-1] >= guard.lower - 1e-9).all()
        assert (places[:, :-1] <= guard.upper + 1e-9).all()
        assert (places[:, -1] >= -1e-9).all()
        assert (places[:, -1] <= self.arm.model.gripper_width + 1e-9).all()
        np.testing.assert_allclose(np.diff(times), PERIOD, atol=1e-9)
        velocity = np.diff(places, axis=0) / PERIOD
        assert np.abs(velocity[:, :-1]).max(initial=0) <= limits.joint_velocity + 1e-6
        assert np.abs(velocity[:, -1]).max(initial=0) <= limits.gripper_speed + 1e-6
        assert np.abs(np.diff(velocity[:, :-1], axis=0)).max(initial=0) / PERIOD <= limits.joint_acceleration + 1e-4
        poses = np.stack([chain.forward(place[:-1]) for place in places])
        assert np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).max(initial=0) / PERIOD <= limits.eef_speed
        for one, other in zip(poses, poses[1:], strict=False):
            turn = np.linalg.norm(rotation_vector(other[:3, :3] @ one[:3, :3].T)) / PERIOD
            assert turn <= limits.eef_turn
        if self.keeper.limits.workspace_max[0] < 1:
            low, high = np.array(limits.workspace_min), np.array(limits.workspace_max)
            corners = np.concatenate(
                [guard.corners(pose, place[-1]) for pose, place in zip(poses, places, strict=True)]
            )
            assert ((corners >= low) & (corners <= high)).all()
