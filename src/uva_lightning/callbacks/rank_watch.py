"""End a run in which a rank has died, and say which."""

from __future__ import annotations

import atexit
import os
import secrets
import select
import signal
import socket
import sys
import threading
import time
from typing import Any, cast

from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ParallelStrategy

from uva_lightning.callbacks.requeue import Stopped

_SIGN, _BYE, _NAME, _VERDICT = "sign", "bye", "name ", "verdict "
_LOST = 1  # exit status
_GREETING = 10.0  # s in which whoever connects says a name; a rank does so at once
_MEETING = 60.0  # s that rank 0 waits for the others, all of which have just spoken to each other


class RankWatch(Callback):
    """Connect every rank with rank 0, which names the one that hangs up or falls silent; then all end.

    Without it a rank that waits for a dead one ends with a message about a closed connection (gloo) or after the
    time-out of the process group, minutes later (NCCL). ``uva fit`` always has this callback, with these defaults.

    Args:
        period: Time between two signs of life in s.
        silence: Time in s without a sign after which a rank counts as dead, as its machine may be. Where a collective
            operation has failed already, three periods are enough.
    """

    def __init__(self, period: float = 2.0, silence: float = 30.0) -> None:
        if not 0 < 3 * period <= silence:
            raise ValueError(f"period is {period} s and silence {silence} s, expected 0 < 3 * period <= silence.")
        self.period, self.silence = period, silence
        self._watch: _Watch | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to watch, where training has several ranks."""
        strategy = trainer.strategy
        if stage != "fit" or trainer.world_size == 1 or not isinstance(strategy, ParallelStrategy):
            return
        host = cast(ClusterEnvironment, strategy.cluster_environment).main_address
        listener = _listen_anywhere(trainer.world_size) if trainer.global_rank == 0 else None
        meeting = (listener.getsockname()[1], secrets.token_hex(8)) if listener else (0, "")
        port, token = strategy.broadcast(meeting)
        name = f"rank {trainer.global_rank} (process {os.getpid()} on {socket.gethostname()})"
        if listener is not None:
            peers = _gather(listener, trainer.world_size - 1, token)
        else:
            peers = [_Peer(socket.create_connection((host, port), timeout=_MEETING), "rank 0")]
            peers[0].send(f"{token} {name}")
        self._watch = _Watch(name, peers, self.period, self.silence)
        self._watch.children = getattr(strategy.launcher, "procs", [])
        self._watch.start()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Before a failed exchange ends this process without a name, give the watch time to find the name."""
        if self._watch is None:
            return
        if isinstance(exception, Stopped):
            self._watch.end()
        elif isinstance(exception, RuntimeError):  # as every failure of a process group is
            self._watch.hurry()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave in peace: from now on silence means nothing."""
        if self._watch is not None:
            self._watch.end()
            self._watch = None


class _Peer:
    """The other end of a connection.

    Args:
        connection: To it.
        name: How a person would find it.
    """

    def __init__(self, connection: socket.socket, name: str) -> None:
        connection.setblocking(False)
        self.connection, self.name, self.closed, self.gone = connection, name, False, False
        self.heard, self._rest = time.monotonic(), b""

    def send(self, line: str) -> None:
        """Send a line, if the other end takes it."""
        try:
            self.connection.sendall(f"{line}\n".encode())
        except OSError:
            return  # reading shows what is wrong

    def read(self) -> list[str]:
        """Give the lines that have come; sets ``closed`` where no more will come."""
        try:
            data = self.connection.recv(4096)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        self.closed = not data
        self.heard = time.monotonic() if data else self.heard
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.gone |= _BYE.encode() in lines
        return [line.decode(errors="replace") for line in lines]

    def trouble(self, silence: float) -> str:
        """Say what is wrong with the other end, if anything is."""
        quiet = time.monotonic() - self.heard
        if self.gone or not (self.closed or quiet > silence):
            return ""
        return f"{self.name} has hung up" if self.closed else f"{self.name} has given no sign of life for {quiet:.0f} s"


class _Watch(threading.Thread):
    """Give a sign every ``period`` s and listen to the peers: rank 0 to all, the others to rank 0."""

    def __init__(self, name: str, peers: list[_Peer], period: float, silence: float) -> None:
        super().__init__(daemon=True, name="rank-watch")
        self.own, self.peers, self.period, self.silence = name, peers, period, silence
        self.children: list[Any] = []
        self._over = threading.Event()
        atexit.register(self.end)

    def run(self) -> None:
        """Watch until the end."""
        self._tell(f"{_NAME}{self.own}")
        while not self._over.wait(self.period):
            self._tell(_SIGN)
            verdict = self._listen()
            if verdict and not self._over.is_set():
                self._end_process(verdict)

    def hurry(self) -> None:
        """Judge by shorter silence from now on, and wait until that would show."""
        self.silence = 3 * self.period
        self._over.wait(5 * self.period)

    def end(self) -> None:
        """Say goodbye and stop."""
        if not self._over.is_set():
            self._over.set()
            self._tell(_BYE)

    def _tell(self, line: str) -> None:
        for peer in self.peers:
            peer.send(line)

    def _listen(self) -> str:
        """Read what has come.

        Returns:
            Who is dead, by one's own judgement or that of rank 0; or nothing.
        """
        open_ = {peer.connection: peer for peer in self.peers if not peer.closed and not peer.gone}
        for connection in select.select(list(open_), [], [], 0)[0]:
            for line in open_[connection].read():
                if line.startswith(_NAME):
                    open_[connection].name = line.removeprefix(_NAME)
                elif line.startswith(_VERDICT):
                    return line.removeprefix(_VERDICT)
        return next((trouble for peer in self.peers if (trouble := peer.trouble(self.silence))), "")

    def _end_process(self, verdict: str) -> None:
        sys.stderr.write(
            f"uva: error: {verdict}: it was killed, has crashed, or its machine is gone; {self.own} ends, too. "
            "Look for the reason in that rank's log; go on from the last checkpoint with --ckpt_path last.\n"
        )
        sys.stderr.flush()
        self._tell(f"{_VERDICT}{verdict}")
        for child in self.children:  # of rank 0, on its machine
            child.send_signal(signal.SIGKILL)
        os._exit(_LOST)  # the main thread may wait for the dead rank for ever


def _listen_anywhere(backlog: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", 0), family=family, backlog=backlog, dualstack_ipv6=both)


def _gather(listener: socket.socket, count: int, token: str) -> list[_Peer]:
    """Wait for the other ranks to connect; anybody else is turned away."""
    peers: list[_Peer] = []
    listener.settimeout(_MEETING)
    with listener:
        while len(peers) < count:
            connection, _ = listener.accept()
            connection.settimeout(_GREETING)
            hello = b""
            try:
                while not hello.endswith(b"\n") and (byte := connection.recv(1)):  # what follows is for the watch
                    hello += byte
            except OSError:
                connection.close()
                continue
            given, _, name = hello.decode(errors="replace").strip().partition(" ")
            if secrets.compare_digest(given.encode(), token.encode()):
                peers.append(_Peer(connection, name))
            else:
                connection.close()
    return peers
