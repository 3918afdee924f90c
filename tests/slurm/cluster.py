"""A real SLURM with two nodes on this machine: ``python cluster.py install | try``; needs root.

Two ``slurmd`` on the loopback interface, each on its own port, as Debian's build allows; no systemd, no cgroups, and
munge with a key and a socket of its own, so that nothing of the machine's own SLURM is touched.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NODES = ("uvanode1", "uvanode2")
PORT = 16817
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol")
PACKAGES = ("slurm-wlm", "munge")
HOSTS, MARK = Path("/etc/hosts"), "# uva test cluster"
CONF = """\
ClusterName=uvatest
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
# a job that is requeued waits until its credential has expired, by default two minutes
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
ReturnToService=2
JobRequeue=1
KillWait=10
SlurmdTimeout=20
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
"""
SLURMD_PORT = 17000


class Cluster:
    """Two nodes; ``stop`` ends what ``start`` began, whatever happened in between.

    Args:
        folder: For the state, logs and sockets of all daemons.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.daemons = folder, {}
        self.env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """Start the daemons and wait until both nodes are idle."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        (self.folder / "state").mkdir(exist_ok=True)
        lines = [
            f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={SLURMD_PORT + number} "
            f"CPUs={os.cpu_count()} RealMemory=1000 State=UNKNOWN"
            for number, name in enumerate(NODES)
        ]
        host = socket.gethostname()
        (self.folder / "slurm.conf").write_text(
            CONF.format(folder=self.folder, host=host, port=PORT, nodes="\n".join(lines))
        )
        self._name_hosts()
        self._start_munge()
        self._run("slurmctld", "slurmctld", "-i", "-D")
        for name in NODES:
            self.start_node(name)
        self.wait(lambda: self.idle() == set(NODES), 60, "both nodes idle")

    def start_node(self, name: str) -> None:
        """Start a node, also after it was killed."""
        (self.folder / f"spool-{name}").mkdir(exist_ok=True)
        self._run(name, "slurmd", "-D", "-N", name)

    def kill_node(self, name: str) -> None:
        """Kill a node as a power failure does: its daemon, the keepers of its steps and its tasks."""
        tasks = [pid for pid, env in processes() if f"SLURMD_NODENAME={name}".encode() in env and self._ours(env)]
        keepers = {parent(pid) for pid in tasks} - set(tasks)
        keepers = {pid for pid in keepers if comm(pid).startswith("slurmstepd")}
        for pid in [self.daemons.pop(name).pid, *keepers, *tasks]:
            _kill(pid)

    def tasks(self, job: str | None = None) -> dict[int, int]:
        """Give the processes of the job's tasks, or of all jobs', and the rank of each."""
        found = {}
        for pid, env in processes():
            named = dict(entry.split(b"=", 1) for entry in env if b"=" in entry)
            if self._ours(env) and job in (None, named.get(b"SLURM_JOB_ID", b"").decode()):
                found[pid] = int(named.get(b"SLURM_PROCID", b"-1"))
        return found

    def idle(self) -> set[str]:
        """Name the nodes that are free."""
        return set(self("sinfo", "-h", "-N", "-t", "idle", "-o", "%N", check=False).split())

    def state(self, job: str) -> dict[str, str]:
        """Give what SLURM says of a job."""
        words = self("scontrol", "-o", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, condition, seconds: float, what: str) -> float:
        """Wait for a condition; gives how long it took in s."""
        start = time.monotonic()
        while not condition():
            if time.monotonic() - start > seconds:
                raise TimeoutError(f"{what}: not within {seconds:.0f} s\n{self.logs()}")
            time.sleep(0.3)
        return time.monotonic() - start

    def logs(self) -> str:
        """Give the end of every daemon's log."""
        paths = sorted(self.folder.glob("*.log"))
        return "\n".join(f"-- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in paths)

    def stop(self) -> None:
        """End every job and every daemon, and leave the machine as it was."""
        if "slurmctld" in self.daemons:
            self("scancel", "--user", "root", check=False)
            end = time.monotonic() + 15
            while self("squeue", "-h", check=False).strip() and time.monotonic() < end:
                time.sleep(0.3)
        for daemon in self.daemons.values():
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self.daemons.clear()
        for pid in self.tasks():
            _kill(pid)
        lines = HOSTS.read_text().splitlines(keepends=True)
        HOSTS.write_text("".join(line for line in lines if MARK not in line))

    def __call__(self, *command: str, check: bool = True, cwd: Path | None = None) -> str:
        """Run one of SLURM's commands and give its output."""
        done = subprocess.run(command, env=self.env, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}\n{self.logs()}")
        return done.stdout

    def _run(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}-output.log").open("a") as log:
            self.daemons[name] = subprocess.Popen(
                command, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        paths = [f"--{what}={self.folder}/munge.{end}" for what, end in (("socket", "socket"), ("pid-file", "pid"))]
        paths += [f"--log-file={self.folder}/munge.log", f"--seed-file={self.folder}/munge.seed", f"--key-file={key}"]
        self._run("munged", "munged", "--force", "--foreground", *paths)
        self.wait((self.folder / "munge.socket").exists, 20, "munge")

    def _name_hosts(self) -> None:
        """Let the names of the nodes resolve: Lightning takes the first as the address where ranks meet."""
        if MARK not in HOSTS.read_text():
            with HOSTS.open("a") as file:
                file.writelines(f"127.0.0.1 {name} {MARK}\n" for name in NODES)

    def _ours(self, env: set[bytes]) -> bool:
        """Say whether a process belongs to a job of this cluster."""
        return f"SLURM_CONF={self.folder / 'slurm.conf'}".encode() in env and any(
            e.startswith(b"SLURM_JOB_ID=") for e in env
        )


def processes():
    """Give every process and its environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            yield int(folder.name), set((folder / "environ").read_bytes().split(b"\0"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue


def parent(pid: int) -> int:
    """Give a process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def comm(pid: int) -> str:
    """Give a process's name."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def missing() -> str:
    """Say what this machine lacks for the cluster; nothing if it can run."""
    if os.geteuid() != 0:
        return f"the test cluster needs root, this is user {os.geteuid()}; run as root or in a container"
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"{', '.join(lacking)} not installed; run: make test-slurm" if lacking else ""


def install() -> str:
    """Install SLURM and munge if they are missing, without letting them start daemons; gives what stands against it."""
    if not (lack := missing()):
        return ""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return lack if os.geteuid() != 0 else f"{lack}; without apt-get install {' and '.join(PACKAGES)} by hand"
    policy, env = Path("/usr/sbin/policy-rc.d"), os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            done = subprocess.run(["apt-get", "-qq", *command], env=env, capture_output=True, text=True, check=False)
            if done.returncode:
                return f"apt-get {command[0]}: {done.stderr.strip()}"
    finally:
        if ours:
            policy.unlink()
    return missing()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    if (verb := sys.argv[1] if len(sys.argv) == 2 else "") == "install":
        sys.exit(install() or 0)
    if verb != "try" or (lack := missing()):
        sys.exit(f"usage: {sys.argv[0]} install | try" if verb != "try" else lack)
    with tempfile.TemporaryDirectory() as temporary:
        cluster = Cluster(Path(temporary))
        try:
            cluster.start()
            sys.stdout.write(cluster("srun", "-N2", "--ntasks-per-node=1", "printenv", "SLURMD_NODENAME"))
        finally:
            cluster.stop()
