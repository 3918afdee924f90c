"""``uva objectives``: what the model can be asked to do."""

import re
import sys
from collections.abc import Mapping
from importlib.metadata import packages_distributions

from uva_lightning.commands.discovery import import_components
from uva_lightning.objective import Objective, registry

_HEADER = ("objective", "sees", "predicts", "from")


def list_objectives() -> None:
    """List every registered objective: what it sees, what it predicts and where it comes from."""
    import_components()
    owners = packages_distributions()
    rows = [_HEADER, *(_row(name, kind, owners) for name, kind in sorted(registry().items()))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")


def _row(name: str, kind: type[Objective], owners: Mapping[str, list[str]]) -> tuple[str, str, str, str]:
    top = kind.__module__.partition(".")[0]
    source = kind.__module__
    if top != "uva_lightning" and top in owners:
        source += f" ({owners[top][0]})"
    return name, _line(kind, "sees") or "-", _line(kind, "predicts") or ", ".join(kind.predicts), source


def _line(kind: type[Objective], word: str) -> str:
    """Find a line such as ``sees      history, action`` in a docstring."""
    found = re.search(rf"^\s*{word}\s{{2,}}(.+?)\s*$", kind.__doc__ or "", re.MULTILINE)
    return found[1] if found else ""
