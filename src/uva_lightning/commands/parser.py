"""Parsers that answer a mistake with one sentence and the nearest known name."""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

from jsonargparse import ArgumentParser, set_parsing_settings

from uva_lightning.commands.errors import hint

_KEY = re.compile(r"[Oo]ption '(?P<key>[^']+)'")
_UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (?P<name>[\w.]*\w)")
_BROKEN_PATH = re.compile(r"Problem with given class_path '(?P<path>[^']+)':\s*(?P<why>.+)", re.DOTALL)
_CALLABLE = re.compile(r"expects a function or a callable class: (?P<why>.+)", re.DOTALL)
_GOT = re.compile(r"\. Got value: Namespace\(.*\Z", re.DOTALL)
_NO_SUCH = re.compile(r"has no attribute|No module named|Unexpected import")
_ABSTRACT = re.compile(r'Parser key "(?P<key>[^"]+)":.*(is abstract|\n\s*Not a valid subclass)', re.DOTALL)
_SAID = re.compile(r"Unknown key '.+?(?=\.? Got value|$)", re.MULTILINE)
_MISSING = re.compile(
    r"arguments are required: (?P<keys>[\w., ]*?\w)(?=$|\n|\. Got)(\. Got value: \w+\(class_path='(?P<owner>[^']+)')?"
)
_UNRECOGNIZED = re.compile(r"unrecognized arguments: (?P<option>\S+)")
_VALUE = re.compile(r'Parser key "(?P<key>[^"]+)":\s*(?P<why>.+)', re.DOTALL)
_UNION = re.compile(r"Errors:\s*\n(?P<indent> *)- (?P<first>.+?)(?=\n(?P=indent)- |\n *Given value|\Z)", re.DOTALL)
_HELPERS = {"help", "config", "print_config", "print_shtab"}

if TYPE_CHECKING:
    _Parser = ArgumentParser
else:
    _Parser = object


class ShortErrors(_Parser):
    """Mix-in for a jsonargparse parser: errors are one line on stderr, without pages of usage."""

    left_out: dict[str, str] = {}
    """Modules that could not be imported, with the fix; told when a class is not found."""

    def validate(self, *args: Any, **kwargs: Any) -> None:
        """Add the nearest known key to the complaint about an unknown one.

        The parsers of nested classes pass here too, and only they know the arguments of their class.
        """
        try:
            super().validate(*args, **kwargs)
        except KeyError as error:
            found = _KEY.search(str(error))
            if not found:  # something else, or a nested parser has said it already
                raise
            parser = getattr(error, "subcommand_parser", self)
            raise type(error)(_unknown_key(found["key"], _known_keys(parser))) from error

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one sentence and exit with status 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        prog = self.prog.replace(" [options]", "")
        sys.stderr.write(f"{prog}: error: {self.shorten(message)}\n")
        sys.exit(2)

    def shorten(self, message: str) -> str:
        """Cut jsonargparse's account of all it tried down to what a person has to change."""
        if found := _BROKEN_PATH.search(message):
            name = found["path"].rpartition(".")[2]
            if _NO_SUCH.search(found["why"].splitlines()[0]):
                return f"Cannot load '{found['path']}': {found['why'].strip()}.{hint(name, _known_classes(), 0.8)}"
            return f"{name}: {self.shorten(found['why'].strip())}"
        if found := _UNKNOWN_CLASS.search(message):
            return self._unknown_class(found["name"])
        if found := _SAID.search(message):
            return found[0]
        if found := _ABSTRACT.search(message):
            return f"{found['key']}: an entry names no class, expected {{class_path: NAME, init_args: {{...}}}}."
        if found := _MISSING.search(message):
            keys = re.sub(r"\b(fit|validate|test|predict)\.", "", found["keys"])
            where = f"{found['owner'].rpartition('.')[2]} lacks" if found["owner"] else "Missing:"
            return f"{where} {keys}; give it as an option (--help lists them) or in a config."
        if found := _CALLABLE.search(message):
            return self.shorten(_GOT.sub("", found["why"]))
        if found := _UNRECOGNIZED.search(message):
            option = found["option"].partition("=")[0]
            return f"Unknown option '{option}'.{hint(option, _known_options(self))}"
        if found := _VALUE.search(message):
            return f"{found['key']}: {_reason(found['why'])}"
        if found := _UNION.search(message):
            return self.shorten(found["first"])
        return " ".join(message.split())

    def _unknown_class(self, name: str) -> str:
        if name in _known_classes():
            return f"'{name}' is a class of another kind than is expected here; --help says which can stand here."
        near = hint(name, _known_classes())
        if "Did you mean" in near:
            return f"No class is called '{name}'.{near}"
        left_out = "".join(f" Not loaded: {module} {why}." for module, why in self.left_out.items())
        return f"No class is called '{name}', expected a known name or package.module.Class.{left_out}"


class CommandParser(ShortErrors, ArgumentParser):
    """Parser of the commands that are plain functions; options may also be given in order, without their names."""

    def parse_args(self, args: Any = None, *others: Any, **kwargs: Any) -> Any:
        """Parse, but do not take a misspelt option for a value given in order."""
        known = _known_options(self)
        for option in (arg.partition("=")[0] for arg in args or () if arg.startswith("--") and arg != "--"):
            if option not in known and not option.startswith(tuple(f"{name}." for name in known)):
                self.error(f"unrecognized arguments: {option}")
        set_parsing_settings(parse_optionals_as_positionals=True)
        try:
            return super().parse_args(None if args is None else self._switched(args), *others, **kwargs)
        finally:  # the setting is global, and the command may go on to parse other things
            set_parsing_settings(parse_optionals_as_positionals=False)

    def _switched(self, args: Sequence[str]) -> list[str]:
        """Let ``--name`` alone, where yes and no are asked for, mean ``--name true``."""
        asked = (action for action in self._actions if getattr(action, "_typehint", None) is bool)
        switches = {name for action in asked for name in action.option_strings}
        alone = (arg in switches and following.startswith("--") for arg, following in pairwise([*args, "--"]))
        return [word for arg, bare in zip(args, alone, strict=True) for word in ((arg, "true") if bare else (arg,))]


def _reason(why: str) -> str:
    """Say why a value is refused; a union is refused for one reason per member."""
    tried = [line.strip()[2:] for line in why.splitlines() if line.strip().startswith("- Expected")]
    reasons = [reason for reason in tried if "NoneType" not in reason] or [why.splitlines()[0]]
    value = why.partition("Given value: ")[2].strip()
    text = re.sub(r"<class '(\w+)'>|typing\.(Literal)", r"\1\2", "; or ".join(reasons))
    return f"{text}. Got value: {value}." if value and "Got value" not in text else f"{text.rstrip('.')}."


def _unknown_key(key: str, known: set[str]) -> str:
    """Cut a key after its first unknown part and name the nearest sibling of that part."""
    parts = key.split(".")
    for depth in range(1, len(parts) + 1):
        stem = ".".join(parts[:depth])
        if not any(word == stem or word.startswith(f"{stem}.") for word in known):
            break
    parent = stem.rpartition(".")[0]
    siblings = {".".join(word.split(".")[:depth]) for word in known if word.startswith(f"{parent}." if parent else "")}
    return f"Unknown key '{stem}'.{hint(stem, siblings)}"


def _known_keys(parser: argparse.ArgumentParser) -> set[str]:
    keys = {action.dest for action in parser._actions}
    return {key for key in keys if key not in _HELPERS and not key.endswith(".help")}


def _known_options(parser: argparse.ArgumentParser) -> set[str]:
    options = {option for action in parser._actions for option in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for nested in action.choices.values():
                options |= _known_options(nested)
    return {option for option in options if option.startswith("--")}


def _known_classes() -> set[str]:
    """Give the class names a config may use: those of this package, and of other packages in the same families."""
    ours = [module for name, module in sys.modules.items() if name.startswith("uva_lightning.")]
    classes = {c for module in ours for c in vars(module).values() if isinstance(c, type)}
    families = {("uva_lightning.objective", "Objective"), ("lightning.pytorch.loggers", "Logger")}
    families |= {("lightning.pytorch", "Callback"), ("lightning.pytorch", "LightningDataModule")}
    for module_name, name in families:
        family = getattr(sys.modules.get(module_name), name, None)
        classes |= set(_subclasses(family)) if family is not None else set()
    return {c.__name__ for c in classes if not c.__name__.startswith("_")}


def _subclasses(family: type) -> Iterator[type]:
    children: list[type] = type.__subclasses__(family)
    for child in children:
        yield child
        yield from _subclasses(child)
