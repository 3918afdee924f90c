"""A SLURM of two nodes on this machine, for as long as its tests run."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))  # for cluster.py, which is a program, too


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Give the running cluster; everything that it started has ended afterwards."""
    from cluster import Cluster, missing

    if lack := missing():
        pytest.skip(lack)
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends the tests ends the daemons, too
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


class Submitted:
    """A job that trains the tiny run on both nodes by ``scripts/slurm/train.sbatch``."""

    def __init__(self, cluster, tiny_run, folder: Path, steps: int, pace: float, *options: str, **env: str) -> None:
        self.cluster, self.folder, self.logs = cluster, folder, folder / "logs"
        config = tiny_run(folder, steps)
        config.write_text(config.read_text().replace("- EMA\n", PACED.format(seconds=pace)))
        uva = folder / "uva"
        uva.write_text(f'#!/bin/sh\nexec {sys.executable} -m uva_lightning.cli "$@"\n')
        uva.chmod(0o755)
        paths = f"{ROOT / 'src'}{os.pathsep}{HERE}"
        values = {"UVA": str(uva), "LOGS": str(self.logs), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **env}
        exported = ",".join(["ALL", *(f"{name}={value}" for name, value in values.items())])
        command = [
            "sbatch",
            "--parsable",
            "--nodes=2",
            "--cpus-per-task=1",
            f"--chdir={folder}",
            f"--export={exported}",
        ]
        self.id = cluster(*command, *options, str(ROOT / "scripts/slurm/train.sbatch"), "--config", str(config)).strip()

    def state(self) -> str:
        """Give SLURM's word for how the job is."""
        return self.cluster.state(self.id)["JobState"]

    def lives(self) -> int:
        """Count how often SLURM has started the job again."""
        return int(self.cluster.state(self.id)["Restarts"])

    def until(self, condition, seconds: float, what: str) -> float:
        """Wait; gives how long in s."""
        try:
            return self.cluster.wait(condition, seconds, what)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.told()}\n{self.cluster.state(self.id)}") from error

    def end(self, seconds: float) -> str:
        """Wait until the job has ended, and give its state."""
        self.until(
            lambda: self.state() not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"), seconds, "end of job"
        )
        return self.state()

    def told(self) -> str:
        """Give all that the job has written."""
        paths = [*sorted(self.folder.glob("slurm-*.out")), *sorted(self.logs.glob("*"))]
        return "\n".join(f"-- {path.name}\n{path.read_text(errors='replace')[-6000:]}" for path in paths)


PACED = "- {{class_path: pace.Pace, init_args: {{seconds: {seconds}}}}}\n  - EMA\n"


@pytest.fixture(scope="session")
def submitted(cluster, tiny_run):
    """Give a function that submits a job."""
    return lambda *args, **env: Submitted(cluster, tiny_run, *args, **env)


@pytest.fixture
def submit(cluster, submitted):
    """Give a function that submits a job, of which nothing is left afterwards."""
    jobs = []

    def run(*args, **env):
        jobs.append(submitted(*args, **env))
        return jobs[-1]

    yield run
    for job in jobs:
        cluster("scancel", job.id, check=False)
    cluster.wait(lambda: not cluster("squeue", "-h").strip(), 40, "empty queue")
