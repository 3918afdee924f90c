"""Run episodes beside a training, in a process of its own: ``python -m uva_lightning.robot.evaluator FOLDER``.

It takes jobs from FOLDER, see ``evaluator_job``, until it is told to stop (SIGTERM, SIGINT) or its parent is gone or
stands still (SIGSTOP); in any case the arm is parked first.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

POLL = 0.2
"""Between two looks for a job, s."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until the end; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m uva_lightning.robot.evaluator", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of jobs and results")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process without which it ends")
    parser.add_argument("--threads", type=int, default=1, help="threads of the policy")
    options = parser.parse_args(argv)
    import torch

    from uva_lightning.robot.evaluation import serve

    over = threading.Event()

    def end(signum: int, frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # until now there was no arm to park
        signal.signal(number, end)

    def ending() -> bool:
        return over.is_set() or os.getppid() != options.parent or stopped(options.parent)

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    torch.set_num_threads(options.threads)
    serve(options.folder, ending, lambda: over.wait(POLL))
    return 0


def stopped(pid: int) -> bool:
    """Tell whether a process was stopped (SIGSTOP, Ctrl-Z), where the system shows it: under /proc."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] == "T"  # the name of the program, in brackets, may hold anything


if __name__ == "__main__":
    sys.exit(main())
