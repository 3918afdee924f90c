"""Lay one experiment file over another: ``--config pusht.yaml --config sizes/small.yaml``.

jsonargparse replaces whole dictionaries such as ``model.heads``; here they are merged, entry by entry.
"""

import atexit
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uva_lightning.commands.configs import CONFIG_OPTIONS, read_config

_GONE = object()
_CLASS, _PARTIAL = "class_path", {"init_args", "dict_kwargs"}
_MORE = "+"


def merge_configs(argv: Sequence[str]) -> list[str]:
    """Replace several ``--config FILE`` by one file in their stead, later ones laid over earlier ones.

    Options are applied after all files, wherever they stand.

    Args:
        argv: Command line without the program's name, with resolved paths.

    Raises:
        UserError: A file is no config.
    """
    paths, rest = split_configs(argv)
    if len(paths) < 2:
        return list(argv)
    notes: list[str] = []
    content: dict[str, Any] = {}
    for path in paths:
        skipped: list[str] = []
        content = overlay(content, read_config(path), skipped)
        notes += [f"{path.name} changes {key}" for key in skipped]
    if notes:
        sys.stderr.write(f"uva: note: left out, as the configs before have no such entry: {'; '.join(notes)}.\n")
    return [rest[0], "--config", str(write_config(content)), *rest[1:]]


def overlay(base: Mapping[str, Any], over: Mapping[str, Any], skipped: list[str] | None = None) -> dict[str, Any]:
    """Lay one config over another.

    Mappings are merged key by key; lists and plain values are replaced, and a key with a plus, such as ``callbacks+``,
    adds to the list of that name. A class of another name replaces the whole entry. ``init_args`` without a class
    change those of the entry below, and are left out where there is none. ``null`` takes an entry that names a class
    away; any other value becomes null.

    Args:
        base: What lies below.
        over: What is laid over it.
        skipped: Collects the keys that were left out.
    """
    result = _merged(dict(base), over, "", [] if skipped is None else skipped)
    return dict(result)


def _merged(base: Any, over: Any, where: str, skipped: list[str]) -> Any:
    if over is None:
        return _GONE if _class_name(base) else None
    if isinstance(over, str):
        same = isinstance(base, dict) and _class_name(base) == _class_name(over)
        return base if same and _class_name(over) else over
    if not isinstance(over, Mapping):
        return over
    if isinstance(base, str) and _class_name(base):
        base = {_CLASS: base}
    if over and set(over) <= _PARTIAL and not _class_name(base):
        skipped.append(where)
        return _GONE
    if not isinstance(base, dict) or (_CLASS in over and _class_name(over) != _class_name(base)):
        base = {}
    result = dict(base)
    for key, value in over.items():
        if key.endswith(_MORE):
            key, value = key[:-1], [*_listed(result.get(key[:-1])), *_listed(value)]
        if value is None and key not in base and where and not _takes_null(where):
            continue
        merged = _merged(base.get(key), value, f"{where}.{key}" if where else str(key), skipped)
        if merged is _GONE:
            result.pop(key, None)
        else:
            result[key] = merged
    return result


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _takes_null(where: str) -> bool:
    """Whether a null at this place is a value: arguments of a class have a default to differ from, entries do not."""
    return where == "trainer" or where.rpartition(".")[2] in _PARTIAL


def _class_name(value: Any) -> str | None:
    """Name the class of an entry, written as a mapping with ``class_path`` or as its name alone."""
    path = value.get(_CLASS) if isinstance(value, Mapping) else value
    name = path.rpartition(".")[2] if isinstance(path, str) else ""
    return name if name.isidentifier() and name[0].isupper() else None


def split_configs(argv: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Take the configs out of a command line."""
    paths, rest, takes_value = [], [], False
    for arg in argv:
        option, equals, value = arg.partition("=")
        if takes_value:
            paths.append(Path(arg))
        elif equals and option in CONFIG_OPTIONS:
            paths.append(Path(value))
        elif arg not in CONFIG_OPTIONS:
            rest.append(arg)
        takes_value = not takes_value and arg in CONFIG_OPTIONS
    return paths, rest


def write_config(content: Mapping[str, Any]) -> Path:
    """Write a file that lives as long as this process: the other ranks of a node read it too."""
    import yaml

    folder = Path(tempfile.mkdtemp(prefix="uva-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "merged.yaml"
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False))
    return path
