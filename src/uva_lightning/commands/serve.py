"""``uva serve``: let robots ask a trained model over the network."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from uva_lightning.commands.checks import chosen_device
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.rollout import TOKEN, find_checkpoint

if TYPE_CHECKING:
    from uva_lightning.policy.rewards import Score
    from uva_lightning.serving.policy import PolicyService
    from uva_lightning.serving.server import ServerOptions


def serve(
    ckpt: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
    set: str | None = None,
    every: int = 1,
    seed: int = 0,
    keys: dict[str, str | list[str]] | None = None,
    goal: str | None = None,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    clients: int = 64,
    max_mb: int = 16,
) -> None:
    """Serve a checkpoint by websocket, as openpi's clients speak it; SIGTERM and Ctrl-C end it.

    With the environment variable UVA_TOKEN set, clients must show its value.

    Args:
        ckpt: Checkpoint of a training run, or folder of uva import-checkpoint.
        host: Address to listen at; 0.0.0.0 lets other machines in.
        port: Port; 0 takes a free one.
        device: Where the model runs; auto takes the GPU where there is one.
        set: Data set of a mixture whose cameras and actions count; the only one with actions where left out.
        every: Control steps between the observations of a client that sends neither step numbers nor times.
        seed: Seed of the denoising noise.
        keys: Contract names of pictures and states by what clients call them, as JSON; docs/serving.md has examples.
        goal: Environment whose goal judges imagined futures, such as pusht; without it there is no plan.
        tls_cert: Certificate in PEM, for wss://; needs tls_key.
        tls_key: Key of the certificate in PEM.
        clients: Most connections.
        max_mb: Largest message in MiB.
    """
    from uva_lightning.policy.policy import UVAPolicy
    from uva_lightning.serving.policy import PolicyService
    from uva_lightning.serving.server import ServerOptions
    from uva_lightning.serving.wire import MIB, Limits

    find_checkpoint(ckpt)
    token = os.environ.get(TOKEN, "")
    size = max_mb * MIB
    options = ServerOptions(host, port, token, _tls(tls_cert, tls_key), Limits(size, size), clients)
    reward = _reward(goal)
    policy = UVAPolicy.from_checkpoint(ckpt, chosen_device(device), seed=seed, set=set, every=every)
    service = PolicyService(policy, keys, reward)
    if not token and not _local(host):
        sys.stderr.write(f"uva serve: whoever reaches {host} may use this policy; set {TOKEN} to ask for a token.\n")
    asyncio.run(_serve(service, options))


async def _serve(service: PolicyService, options: ServerOptions) -> None:
    """Serve until a signal comes; what is asked by then is still answered."""
    from uva_lightning.serving.server import PolicyServer

    server, over, loop = PolicyServer(service, options), asyncio.Event(), asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, over.set)
    try:
        await server.start()
    except OSError as error:
        await server.stop()
        where = f"{options.host}:{options.port}"
        raise UserError(f"Cannot listen at {where} ({error.strerror}); choose another --port or --host.") from error
    scheme = "ws" if options.tls is None else "wss"
    functions = ", ".join(service.functions)
    sys.stdout.write(f"serving {functions} at {scheme}://{options.host}:{server.port}\n")
    sys.stdout.flush()
    await over.wait()
    await server.stop()
    answered, calls = server.batcher.answered, server.batcher.calls
    sys.stdout.write(f"stopped after {answered} requests in {calls} calls\n")


def _tls(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        given, lacking = (f"tls_key is {key}", "tls_cert") if cert is None else (f"tls_cert is {cert}", "tls_key")
        raise UserError(f"{given} and {lacking} is missing, expected certificate and key; add --{lacking} FILE.")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:  # ssl's own errors are of this kind
        raise UserError(f"Cannot use {cert} with the key {key}: {error}; expected two files in PEM.") from error
    return context


def _local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reward(goal: str | None) -> Score | None:
    if goal is None:
        return None
    from uva_lightning import envs

    goals = [name for name, entry in envs.ENVS.items() if entry.score is not None]
    if goal.partition(":")[0] not in goals:
        raise UserError(f"goal is '{goal}', expected an environment with the same goal always: {', '.join(goals)}.")
    score: Score = envs.goal_score(goal)
    return score
