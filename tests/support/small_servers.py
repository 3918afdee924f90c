"""Servers of small policies on free ports, and what tests ask them."""

from __future__ import annotations

import shutil
import subprocess
import time

import numpy as np
import pytest
from small_policies import HORIZON, Follower

from uva_lightning.serving.client import PolicyClient
from uva_lightning.serving.server import ServerOptions, running

SOON = 5.0


def url(server, scheme="ws"):
    return f"{scheme}://127.0.0.1:{server.port}"


def at(value, width=3):
    return {"state": np.full(width, value, np.float32)}


def limited(**options):
    return running(Follower(history=1), ServerOptions(port=0, **options))


def works(server):
    with PolicyClient(url(server)) as client:
        return client.infer(at(1.0))["actions"].shape == (HORIZON, 3)


def in_time(condition):
    until = time.monotonic() + SOON
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return False


def self_signed(folder):
    """A certificate for this machine and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("makes a certificate with openssl, which is not installed")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*command.split(), *files, *names], cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"
