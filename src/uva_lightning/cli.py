"""The ``uva`` command: an overview that needs no heavy import, and the way to everything else."""

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from uva_lightning import __version__
from uva_lightning.commands.errors import UserError, for_user, hint
from uva_lightning.signals import listen

TRAINING = {
    "fit": "train a model",
    "validate": "evaluate a checkpoint on the validation split",
    "test": "evaluate a checkpoint on the test split",
    "predict": "write the predictions of a checkpoint",
}
COMMANDS = {
    "quickstart": (
        "uva_lightning.quickstart:quickstart",
        "make data, train one model, evaluate and show its five functions",
    ),
    "demos": ("uva_lightning.demos:write_demos", "write demonstrations with a scripted expert"),
    "cache": ("uva_lightning.commands.cache:cache", "encode a data set once, into shards that training reads"),
    "distill": ("uva_lightning.commands.distill:distill", "make a head of a checkpoint sample in one step"),
    "replay": (
        "uva_lightning.commands.replay:replay",
        "replay demonstrations in their simulator, to find what is flipped or shifted",
    ),
    "fit-reward": (
        "uva_lightning.commands.fit_reward:fit_reward",
        "learn from demonstrations what success looks like, for a planner",
    ),
    "rollout": ("uva_lightning.commands.rollout:rollout", "run a checkpoint in simulated environments"),
    "eval": ("uva_lightning.commands.eval:evaluate", "play a suite of scenarios and write a report with intervals"),
    "serve": (
        "uva_lightning.commands.serve:serve",
        "let robots ask a checkpoint over the network",
    ),
    "arm serve": (
        "uva_lightning.commands.arm_serve:serve",
        "let a policy move a robot arm, within limits and under a person's eyes",
    ),
    "arm check": ("uva_lightning.commands.arm_client:check", "tell how an arm, its cameras and the way to them are"),
    "arm park": ("uva_lightning.commands.arm_client:park", "have an arm go to rest and go soft"),
    "arm keys": ("uva_lightning.commands.arm_keys:keys", "make keys for an arm server and its clients"),
    "functions": ("uva_lightning.functions:functions", "measure every function of a checkpoint against its baseline"),
    "ablate": (
        "uva_lightning.commands.ablate:ablate",
        "train a config without each of its objectives, and with each balancer, and compare",
    ),
    "analyze": (
        "uva_lightning.commands.analyze:analyze",
        "probe checkpoints of a run: video, latent, attention and success in one table",
    ),
    "data inspect": (
        "uva_lightning.commands.inspect_data:inspect_data",
        "print the facts of a data set and draw what it holds",
    ),
    "data check": ("uva_lightning.commands.check_data:check_data", "look for what may be wrong with a data set"),
    "bench data": ("uva_lightning.commands.bench_data:bench_data", "measure how fast windows are read"),
    "bench train": ("uva_lightning.commands.bench_train:bench_train", "measure what training steps cost"),
    "bench project": (
        "uva_lightning.commands.bench_project:bench_project",
        "compute time and price of a run from such measurements",
    ),
    "bench policy": (
        "uva_lightning.commands.bench_policy:bench_policy",
        "measure how long a model takes to decide and to imagine",
    ),
    "bench planning": (
        "uva_lightning.commands.bench_planning:bench_planning",
        "compare the planner with the policy alone and with the true simulator",
    ),
    "import-checkpoint": (
        "uva_lightning.commands.import_checkpoint:import_checkpoint",
        "make a checkpoint of the official code loadable",
    ),
    "export-checkpoint": (
        "uva_lightning.commands.export_checkpoint:export_checkpoint",
        "write a model as a checkpoint of the official code",
    ),
    "export-policy": (
        "uva_lightning.commands.export_policy:export_policy",
        "compile the policy of a checkpoint into one file that needs torch alone",
    ),
    "parity": ("uva_lightning.commands.parity:parity", "compare with numbers of the official code"),
    "arm replay": (
        "uva_lightning.commands.arm_replay:arm_replay",
        "say what today's limits would have refused of recorded episodes",
    ),
    "arm recover": ("uva_lightning.commands.arm_replay:arm_recover", "finish recordings that were cut off"),
    "convert": ("uva_lightning.commands.convert:TARGETS", "write a data set in another format"),
    "env install": ("uva_lightning.commands.env:SIMULATORS", "install a simulator in an environment of its own"),
    "env list": ("uva_lightning.commands.env:environments", "list simulators with an environment of their own"),
    "objectives": ("uva_lightning.commands.objectives:list_objectives", "list what the model can be asked to do"),
    "doctor": ("uva_lightning.commands.doctor:doctor", "check the environment and say how to mend it"),
}
WHOLE = ("bench train",)
"""Commands that take all options of ``uva fit``, and read their own from the command line themselves."""
WRONG_USE, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``uva`` command.

    Args:
        argv: Command line without the program's name; the process's own if not given.

    Returns:
        Exit status: 0, 1 (a check failed), 2 (wrong use), 75 (stopped, start again), 130 (Ctrl-C), 143 (SIGTERM).
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if args and args[0] in TRAINING:
        listen()  # SIGUSR1 kills a process that has not got this far: imports take seconds
    if "--debug" in args:
        args.remove("--debug")
        os.environ["UVA_DEBUG"] = "1"  # the other ranks of a run inherit it
    if not args or args[0] in ("-h", "--help", "help"):
        sys.stdout.write(overview())
        return 0
    if args[0] in ("-V", "--version"):
        sys.stdout.write(f"uva {__version__}\n")
        return 0
    try:
        return _dispatch(*_named(args))
    except KeyboardInterrupt:
        sys.stderr.write("uva: interrupted\n")
        return INTERRUPTED
    except Exception as error:
        words = for_user(error)
        if words is None or os.environ.get("UVA_DEBUG") == "1":
            raise
        sys.stderr.write(f"uva: error: {words}\n")
        return WRONG_USE


def overview(group: str = "") -> str:
    """Describe all commands, or those of a group such as ``data``."""
    rows = [*TRAINING.items(), *((name, help_) for name, (_, help_) in COMMANDS.items())]
    width = max(len(name) for name, _ in rows) + 2
    chosen = [(name, help_) for name, help_ in rows if not group or name.startswith(f"{group} ")]
    table = "".join(f"  {name:<{width}}{help_}\n" for name, help_ in chosen)
    if group:
        return f"usage: uva {group} COMMAND [options]\n\ncommands:\n{table}\nuva {group} COMMAND --help: its options\n"
    return (
        "usage: uva COMMAND [options]\n\n"
        "One latent transformer, many functions: train and run Unified Video Action models.\n\n"
        f"commands:\n{table}\n"
        "options:\n"
        "  --help      after a command: its options\n"
        "  --version   print the version\n"
        "  --debug     show the traceback of an error (same as UVA_DEBUG=1)\n\n"
        "first steps:\n"
        "  uva doctor\n"
        "  uva quickstart --out runs/quickstart\n"
        "  uva fit --config configs/quickstart.yaml --trainer.max_steps 20\n"
    )


def _named(args: list[str]) -> tuple[str, list[str]]:
    """Split a command line into the command, one word or two, and what follows it."""
    two = " ".join(args[:2])
    return (two, args[2:]) if two in COMMANDS else (args[0], args[1:])


def _dispatch(command: str, args: list[str]) -> int:
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a config may name classes of a module beside the user
    if command in TRAINING:
        return int(_load("uva_lightning.commands.training:run")([command, *args]))
    if command in WHOLE:
        return int(_load(COMMANDS[command][0])(args))
    if command in COMMANDS:
        return _call(command, args)
    if group := [name.removeprefix(f"{command} ") for name in COMMANDS if name.startswith(f"{command} ")]:
        if not args or args[0] in ("-h", "--help", "help"):
            sys.stdout.write(overview(command))
            return 0
        raise UserError(f"There is no command '{command} {args[0]}'.{hint(args[0], group)}")
    kind = "option" if command.startswith("-") else "command"
    near = hint(command, [*TRAINING, *COMMANDS])
    raise UserError(f"There is no {kind} '{command}'.{near}")


def _call(command: str, args: list[str]) -> int:
    """Run a plain function, or the one of several that the next word names."""
    from uva_lightning.commands.data_source import run_command

    found = _load(COMMANDS[command][0])
    if isinstance(found, Mapping):
        if not args or args[0] in ("-h", "--help"):
            sys.stdout.write(_members(command, found))
            return 0
        if args[0] not in found:
            raise UserError(f"uva {command} knows no '{args[0]}'.{hint(args[0], found)}")
        command, args, found = f"{command} {args[0]}", args[1:], _load(found[args[0]][0])
    result = run_command(found, args, f"uva {command}")
    return result if isinstance(result, int) else 0


def _members(command: str, members: Mapping[str, tuple[str, str]]) -> str:
    """Describe what comes after a command of several."""
    width = max(map(len, members)) + 2
    table = "".join(f"  {name:<{width}}{help_}\n" for name, (_, help_) in members.items())
    return f"usage: uva {command} NAME [options]\n\nnames:\n{table}\n  --help      after a name: its options\n"


def _load(target: str) -> Any:
    """Import what a command runs; a broken environment is named as such."""
    module, _, name = target.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, OSError, RuntimeError) as error:
        ours = isinstance(error, ImportError) and (error.name or "").startswith("uva_lightning")
        if ours or for_user(error) is not None:
            raise
        raise UserError(f"{module} cannot be imported ({error}); `uva doctor` says how to mend it.") from error
    return found


if __name__ == "__main__":
    sys.exit(main())
