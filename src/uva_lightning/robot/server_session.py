"""Who talks to an arm server, in which order, by which clock, and which one of them may move the arm.

Pure: no socket, no clock of its own, no randomness but what is given.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from uva_lightning.robot.arm_model import ArmModel
from uva_lightning.robot.errors import ClockSkew, LeaseLost, NotArmed, OutOfOrder, RobotConfigError, Stale
from uva_lightning.serving.wire import Message

SKEW = 0.02
"""Most seconds that a client's clock, as it has compared it, may be ahead."""
LATE = 0.25
"""Most seconds on the way of a message that moves the arm, and what counts as a sign of life."""
COMPARED = 30.0
"""Seconds after which clocks have to be compared anew."""
FORGOTTEN = 600.0
"""Seconds of silence after which a session is forgotten."""
SESSIONS = 32
"""Most sessions; a new one takes the place of the one that is silent for longest."""


@dataclass
class Session:
    """One client since its hello.

    Args:
        client: What it calls itself.
        seq: Of its newest message.
        heard: When that came, s.
        compared: When it last compared clocks, s.
        seen: When its newest observations were made, by their number, s.
    """

    client: str
    seq: int
    heard: float
    compared: float = float("-inf")
    seen: dict[int, float] = field(default_factory=dict)


class Sessions:
    """All clients.

    Args:
        geometry: ``geometry_digest`` of the arm.
        model: Its name.
        limits: Digest of its limits.
        secret: Makes names that cannot be guessed.
    """

    def __init__(
        self, model: str, geometry: str, limits: str, secret: Callable[[], str] = lambda: secrets.token_hex(16)
    ) -> None:
        self.expected = {"model": model, "geometry": geometry, "limits": limits}
        self._secret, self._open = secret, dict[str, Session]()

    def hello(self, message: Message, now: float) -> str:
        """Begin a session, if both sides mean the same arm; give its name.

        Raises:
            RobotConfigError: They do not. Limits are compared only where the client names some.
        """
        for what, here in self.expected.items():
            theirs = message[what]
            if theirs != here and not (what == "limits" and theirs == ""):
                raise RobotConfigError(
                    f"The client has {what} '{theirs}', expected '{here}', which the server has; make both sides' "
                    "robot options the same."
                )
        if len(self._open) >= SESSIONS:
            del self._open[min(self._open, key=lambda name: self._open[name].heard)]
        name = self._secret()
        self._open[name] = Session(message["client"], message["seq"], now)
        return name

    def take(self, message: Message, now: float) -> Session:
        """Give the session of a message, each of which counts once.

        Raises:
            NotArmed: It has no session.
            OutOfOrder: It came before, or one that was sent later did.
        """
        for old in [name for name, session in self._open.items() if now - session.heard > FORGOTTEN]:
            del self._open[old]
        session = self._open.get(message["session"])
        if session is None:
            raise NotArmed("The message belongs to no open session; connect anew.")
        if message["seq"] <= session.seq:
            raise OutOfOrder(
                f"Message {message['seq']} came after message {session.seq}, expected a higher number; is it a copy?"
            )
        session.seq, session.heard = message["seq"], now
        return session

    @staticmethod
    def fresh(session: Session, sent: float, now: float) -> float:
        """Check when a message was sent that keeps the arm moving; give when that was, s.

        Raises:
            ClockSkew: The clocks were not compared, or the message comes from the future.
            Stale: It was too long on the way.
        """
        if not now - session.compared <= COMPARED:
            raise ClockSkew(f"'{session.client}' has not compared clocks within {COMPARED:g} s; send a ping first.")
        if not sent - now <= SKEW:
            raise ClockSkew(
                f"The message was sent {(sent - now) * 1e3:.0f} ms in the future, expected {SKEW * 1e3:.0f} ms; "
                "the client's clock has changed, connect anew."
            )
        if now - sent > LATE:
            raise Stale(f"The message is {now - sent:.2f} s old, expected at most {LATE} s; look after the network.")
        return min(sent, now)


@dataclass(frozen=True)
class Grant:
    """What a person allows: one run may move the arm.

    Args:
        token: To be shown by the run.
        until: When it has to be used by, s.
        run: Name of the run; empty until the first one uses it.
    """

    token: str
    until: float
    run: str = ""


class Lease:
    """The right to move the arm, of one client at a time.

    Args:
        ttl: Silence of the holder after which it is lost, s.
        arming: For which a token can be used, s.
        secret: Makes names that cannot be guessed.
        token: Makes what a person types.
    """

    def __init__(
        self,
        ttl: float = 3.0,
        arming: float = 600.0,
        secret: Callable[[], str] = lambda: secrets.token_hex(16),
        token: Callable[[], str] = lambda: secrets.token_hex(4),
    ) -> None:
        self.ttl, self.arming, self._secret, self._token = ttl, arming, secret, token
        self.epoch, self.holder, self.run = 0, "", ""
        self._name, self._heard = "", float("-inf")
        self._grant: Grant | None = None

    def arm(self, now: float, run: str = "") -> str:
        """Make a token for one run; only a person at the robot may call this."""
        self._grant = Grant(self._token(), now + self.arming, run)
        return self._grant.token

    def disarm(self) -> None:
        """Take back token and lease."""
        self._grant = None
        self._end()

    def acquire(self, token: str, run: str, client: str, now: float) -> str:
        """Give the lease to who shows the token; the same run may come back with it as long as it is valid.

        Raises:
            NotArmed: There is no such token, or no longer, or it is for another run.
            LeaseLost: Somebody else has the lease.
        """
        grant = self._grant
        if grant is None or now > grant.until or not hmac.compare_digest(token.encode(), grant.token.encode()):
            raise NotArmed(
                f"The arming token is not valid (any more); have somebody type 'arm' at the robot's console and use "
                f"what it says within {self.arming / 60:g} min."
            )
        if grant.run not in ("", run):
            raise NotArmed(f"The arming token is for run '{grant.run}', not for '{run}'; arm anew for another run.")
        if self.alive(now) and self.run != run:
            raise LeaseLost(f"'{self.holder}' of run '{self.run}' moves the arm; wait until it releases it.")
        self._grant = Grant(grant.token, grant.until, run)
        self.epoch, self.holder, self.run = self.epoch + 1, client, run
        self._name, self._heard = f"{self.epoch}-{self._secret()}", now
        return self._name

    def check(self, name: str, now: float) -> None:
        """Accept who holds it.

        Raises:
            LeaseLost: Somebody else does, or nobody any more.
        """
        if not self.alive(now) or not hmac.compare_digest(name.encode(), self._name.encode()):
            who = f"'{self.holder}' of run '{self.run}' has it" if self.alive(now) else "nobody has it"
            raise LeaseLost(f"The lease '{name.partition('-')[0]}' does not count ({who}); acquire it anew.")

    def beat(self, heard: float) -> None:
        """Hear from the holder, who said so at this time."""
        self._heard = max(self._heard, heard)

    def release(self) -> None:
        """Give it back."""
        self._end()

    def alive(self, now: float) -> bool:
        """Tell whether somebody holds it."""
        return bool(self._name) and now - self._heard <= self.ttl

    def lost(self, now: float) -> bool:
        """Tell, once, that its holder fell silent."""
        if not self._name or self.alive(now):
            return False
        self._end()
        return True

    def _end(self) -> None:
        self._name = ""


def geometry_digest(model: ArmModel) -> str:
    """Name the geometry and limits of an arm, wherever they come from, so that both sides can compare them."""
    links = [asdict(link) for link in model.chain.links]
    numbers = [links, *(part.tolist() for part in (model.lower, model.upper, model.velocity)), model.gripper_width]
    rounded = json.loads(json.dumps(numbers), parse_float=lambda text: round(float(text), 9))
    return hashlib.sha256(json.dumps(rounded, sort_keys=True).encode()).hexdigest()[:16]
