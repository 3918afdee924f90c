"""The SDK's own wheel over a fake CAN bus: every script runs in a process of its own, since the SDK may hang."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FRAME = np.dtype(
    [("time", "f8"), ("id", "i4"), ("kind", "i4")]
    + [(name, "f4") for name in ("kp", "kd", "pos", "vel", "tor", "angle")]
)
"""A command as the fake bus writes it down."""
ENABLE = 2


@pytest.fixture(scope="session", autouse=True)
def wheel():
    if find_spec("arx5_interface") is None:
        pytest.skip("arx5-interface is not installed: pip install 'uva_lightning[arx]' (Linux only)")


@pytest.fixture(scope="session")
def library(wheel, tmp_path_factory):
    """The fake bus, as a library to be loaded before the SDK's."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is missing, which builds the fake CAN bus")
    path = tmp_path_factory.mktemp("fake_can") / "fake_can.so"
    command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-o", str(path), str(HERE / "fake_can.cpp")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return path


class Bus:
    """A process with the SDK and the fake bus."""

    joints, gripper = (1, 2, 4, 5, 6, 7), 8

    def __init__(self, library: Path, folder: Path) -> None:
        self.library, self.log = library, folder / "can.log"
        self.output, self.wild = folder / "output.txt", folder / "wild"
        self.process: subprocess.Popen | None = None

    def start(self, script: str) -> subprocess.Popen:
        """Run a script that begins with the names of ``driver.py``."""
        env = os.environ | {
            "LD_PRELOAD": str(self.library),
            "FAKE_CAN": str(self.library),
            "FAKE_CAN_LOG": str(self.log),
            "FAKE_CAN_WILD": str(self.wild),
            "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(HERE))),
            "OMP_NUM_THREADS": "1",
        }
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from driver import *\n" + script],
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        return self.process

    def run(self, script: str, timeout: float = 30.0) -> dict:
        """Run a script to its end; gives what it told."""
        status = self.start(script).wait(timeout)
        assert status == 0, self.output.read_text()
        return self.told()

    def told(self) -> dict:
        """Everything that it told so far."""
        facts = {}
        for line in self.output.read_text().splitlines():
            if line.startswith("{"):
                facts |= json.loads(line)
        return facts

    def wait_for(self, name: str, timeout: float = 20.0) -> None:
        """Wait until it told something."""
        end = time.monotonic() + timeout
        while name not in self.told():
            assert time.monotonic() < end, f"never told {name}: {self.output.read_text()}"
            assert self.process.poll() is None, self.output.read_text()
            time.sleep(0.02)

    def frames(self, ids: tuple[int, ...] = (*joints, gripper)) -> np.ndarray:
        """Commands to motors, in order."""
        whole = self.log.stat().st_size // FRAME.itemsize
        frames = np.fromfile(self.log, FRAME, count=whole)
        return frames[(frames["kind"] != ENABLE) & np.isin(frames["id"], ids)]

    def wait_until_silent(self, timeout: float = 30.0) -> None:
        """Wait until a second passes without a command."""
        end, size = time.monotonic() + timeout, -1
        while size != self.log.stat().st_size:
            assert time.monotonic() < end, "commands never end"
            size = self.log.stat().st_size
            time.sleep(1.0)

    def end(self) -> None:
        """End it, whatever it does."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)


@pytest.fixture
def bus(library, tmp_path):
    """Give the process; it is ended afterwards."""
    bus = Bus(library, tmp_path)
    yield bus
    bus.end()
