"""Commands that work on a data set: they take it as ``uva fit`` does, with ``--config`` or ``--data``.

Such a command is a plain function with an argument of type ``RobotDataModule``; its other arguments are options of
their own: ``uva convert lerobot --config configs/libero10.yaml --data.path P --out DIR``.
"""

import json
import sys
from collections.abc import Callable, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, get_type_hints

from uva_lightning.commands.configs import CONFIG_OPTIONS, read_config, resolve_configs
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.merge import merge_configs, split_configs, write_config
from uva_lightning.commands.parser import CommandParser

if TYPE_CHECKING:
    from uva_lightning.datamodules.base import RobotDataModule

BASE, TOKENIZER_BASE = "uva_lightning.datamodules.base", "uva_lightning.model.tokenizers.base"
DATA, MODEL, TOKENIZER = "data", "model", "tokenizer"
TRAINING = "training"
"""Argument of a command that takes what ``uva fit`` takes."""


def data_from(argv: Sequence[str], prog: str = "uva") -> "RobotDataModule":
    """Build the data set that a command line names, and nothing else.

    Args:
        argv: ``--config FILE`` (several are laid over one another), ``--data CLASS`` and ``--data.OPTION VALUE``.
        prog: How the command is called, for messages.

    Raises:
        UserError: A config is missing, or has no ``data:``.
    """
    from uva_lightning.datamodules.base import RobotDataModule

    def given(data: RobotDataModule) -> RobotDataModule:
        return data

    data: RobotDataModule = run_command(given, argv, prog)
    return data


def run_command(function: Callable[..., Any], argv: Sequence[str], prog: str) -> Any:
    """Run a plain function with its typed arguments as options, which may also be given in order.

    Args:
        function: The command; where an argument is a ``RobotDataModule``, short class names are known, and of a
            ``--config`` only what it says under ``data:`` is read.
        argv: Its command line.
        prog: How it is called, for messages.

    Returns:
        What the function returns.
    """
    from jsonargparse import auto_cli

    def call(args: list[str]) -> Any:
        return auto_cli(
            function, args=args, as_positional=False, prog=prog, parser_class=CommandParser, allow_abbrev=False
        )

    if TRAINING in signature(function).parameters:
        return call(gather_training(function, argv))
    if not takes_data(function):
        return call(resolve_configs(argv))
    from uva_lightning.commands.discovery import import_components

    CommandParser.left_out = import_components()
    return call(_data_only(list(argv), takes_tokenizer(function)))


def takes_data(function: Callable[..., Any]) -> bool:
    """Tell whether a command works on a data set; importing the class for the others would cost seconds."""
    base = sys.modules.get(BASE)
    return base is not None and base.RobotDataModule in get_type_hints(function).values()


def takes_tokenizer(function: Callable[..., Any]) -> bool:
    """Tell whether a command also works with a tokenizer, which an experiment names under ``model:``."""
    base = sys.modules.get(TOKENIZER_BASE)
    return base is not None and base.Tokenizer in get_type_hints(function).values()


def gather_training(function: Callable[..., Any], argv: Sequence[str]) -> list[str]:
    """Collect the options that are for ``uva fit`` in the argument ``training`` of a command that trains.

    Args:
        function: The command; its other arguments are options of its own.
        argv: Its command line.
    """
    own, theirs, target = list[str](), list[str](), list[str]()
    known = {f"--{name}" for name in signature(function).parameters} | {"--help", "-h"}
    for arg in argv:
        if arg.startswith("--") or arg in ("-h", *CONFIG_OPTIONS):
            target = own if arg.partition("=")[0] in known else theirs
        target.append(arg)
    return [*own, f"--{TRAINING}={json.dumps(theirs)}"] if theirs else own


def _data_only(argv: list[str], with_tokenizer: bool = False) -> list[str]:
    """Replace the configs by one that holds what the command takes: an experiment says more."""
    paths, rest = split_configs(resolve_configs(argv))
    if not paths:
        return argv
    merged, _ = split_configs(merge_configs(["", *(f"--config={path}" for path in paths)]))
    content = read_config(merged[0])
    names = ", ".join(str(path) for path in paths)
    if not content.get(DATA):
        raise UserError(f"{names} has no '{DATA}:', expected an experiment such as configs/pusht.yaml.")
    kept = {DATA: content[DATA]}
    if with_tokenizer:
        if not (content.get(MODEL) or {}).get(TOKENIZER):
            raise UserError(f"{names} has no '{MODEL}.{TOKENIZER}:', expected an experiment as configs/pusht.yaml.")
        kept[TOKENIZER] = content[MODEL][TOKENIZER]
    # first, as options are laid over it; an argument given in order may stand before it
    return ["--config", str(write_config(kept)), *rest]
