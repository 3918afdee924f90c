"""``uva arm keys``: make keys, without which an arm server lets in its own machine alone."""

from __future__ import annotations

import sys
from pathlib import Path

from uva_lightning.robot.wire_keys import make_keys


def keys(out: Path, client: str = "trainer") -> None:
    """Write keys of a client, and of the server where it has none yet.

    Args:
        out: Folder they go into.
        client: Name of the client.
    """
    robot, own = make_keys(out, client)
    sys.stdout.write(
        f"{robot}: for the robot's machine, uva arm serve --keys {robot}\n"
        f"{own}: for '{client}', whoever has it may ask to move the arm; copy it there by scp\n"
    )
