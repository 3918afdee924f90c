"""What runs in a simulator's own environment: it makes one simulator and answers until its pipe is closed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from .wire import Refused, receive, send

KINDS = {"libero": "libero:Libero", "toolhang": "toolhang:ToolHang"}
"""Simulators by name; a file of your own with a class in it, ``file.py:Class``, can stand in their place."""

GL_VARIABLE = "MUJOCO_GL"
GL = ("egl", "osmesa")
"""Ways to draw without a screen, in the order in which they are tried."""
_WHY = "why: "
_PROBE = f"""
try:
    import mujoco
    mujoco.GLContext(16, 16).make_current()
except BaseException as error:
    raise SystemExit("{_WHY}" + " ".join(str(error).split()))
"""
_PROBE_S = 60


def main(argv: Sequence[str]) -> None:
    """Serve ``KIND FOLDER``: requests come on stdin, answers leave on stdout, all that is printed goes to stderr.

    A simulator is a class that is made with the folder of its environment. Its methods are the verbs; each takes the
    arguments of the request by name, and arrays by name, and returns a head and arrays.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the other side decides
    requests, answers = _private_pipes()
    kind, folder = argv
    simulator: Any = None
    while True:
        try:
            request, arrays = receive(requests)
        except EOFError:
            sys.stderr.flush()
            os._exit(0)  # robosuite's destructors complain about a screen that is gone
        try:
            if simulator is None:
                simulator = _found(kind)(Path(folder))
            verb = str(request.pop("verb"))
            if verb.startswith("_") or not hasattr(simulator, verb):
                raise Refused(f"{kind} knows no '{verb}'.")
            head, given = getattr(simulator, verb)(**request, **arrays)
            send(answers, head, given)
        except Exception as error:
            send(answers, _told(error))


def choose_gl() -> str:
    """Choose how pictures are drawn, before MuJoCo is imported; what the user has set stays.

    Returns:
        Why there will be no pictures; nothing where there will be.
    """
    if os.environ.get(GL_VARIABLE):
        return ""
    reasons: list[str] = []
    for way in GL:
        os.environ[GL_VARIABLE] = way
        os.environ["PYOPENGL_PLATFORM"] = way
        done = subprocess.run(  # a failed try cannot be taken back within a process
            [sys.executable, "-I", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_S,
            stdin=subprocess.DEVNULL,
        )
        if not done.returncode:
            if reasons:
                sys.stderr.write(f"No EGL here ({reasons[0]}); pictures are drawn by {way}, which is slower.\n")
            return ""
        said = [line.removeprefix(_WHY) for line in done.stderr.splitlines() if line.startswith(_WHY)]
        reasons.append(said[0] if said else f"status {done.returncode}")
    os.environ[GL_VARIABLE] = "disabled"
    return (
        f"No pictures can be drawn without a screen: EGL says '{reasons[0]}', OSMesa says '{reasons[1]}'; install one "
        f"of them (on Debian: apt-get install libegl1 libgl1-mesa-dri, or libosmesa6), or set {GL_VARIABLE}."
    )


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Take stdin and stdout for messages: a simulator that asks or prints must not be in their way."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # input() fails at once instead of waiting for ever
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, answers


def _found(kind: str) -> Any:
    module, _, name = KINDS.get(kind, kind).rpartition(":")
    if kind in KINDS:
        return getattr(importlib.import_module(f".{module}", __package__), name)
    spec = importlib.util.spec_from_file_location("uva_own_simulator", module)
    if spec is None or spec.loader is None:
        raise Refused(f"There is no simulator '{kind}', only {', '.join(KINDS)}, or FILE.py:CLASS.")
    own = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(own)
    return getattr(own, name)


def _told(error: Exception) -> dict[str, str]:
    plain = isinstance(error, Refused)
    return {"error": str(error) if plain else traceback.format_exc(), "kind": "refused" if plain else "failed"}
