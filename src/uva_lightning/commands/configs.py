"""Where experiment files lie, and what jsonargparse does not say about them."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from uva_lightning.commands.errors import UserError, hint

CONFIG_OPTIONS = ("-c", "--config")
SUFFIXES = (".yaml", ".yml")


def shipped() -> dict[str, Path]:
    """Give the experiments that come with the package, by their place in its folder ``configs``."""
    folder = Path(str(files("uva_lightning"))) / "configs"
    return {path.relative_to(folder).as_posix(): path.resolve() for path in sorted(folder.rglob("*.yaml"))}


def find_config(name: str | Path) -> Path:
    """Find an experiment: a file seen from the working folder, or else a shipped one.

    Args:
        name: A path; ``configs/quickstart.yaml``, ``quickstart.yaml`` and ``quickstart`` all name the shipped file,
            ``configs/sizes/small.yaml`` and ``sizes/small`` that in a folder below.

    Raises:
        UserError: There is no such file.
    """
    path = Path(name)
    if path.is_file():
        return path.resolve()
    known = shipped()
    place = path.as_posix().removeprefix("configs/")
    for candidate in (place, f"{place}.yaml"):
        if candidate in known:
            return known[candidate]
    near = hint(place, known)
    raise UserError(f"No config '{name}' in {Path.cwd()}, nor among the shipped ones.{near}")


def resolve_configs(argv: Sequence[str]) -> list[str]:
    """Replace the values of ``--config`` by absolute paths.

    Raises:
        UserError: A config is nowhere to be found.
    """
    resolved: list[str] = []
    takes_value = False
    for arg in argv:
        option, equals, value = arg.partition("=")
        if takes_value:
            resolved.append(str(find_config(arg)))
        elif equals and option in CONFIG_OPTIONS:
            resolved.append(f"{option}={find_config(value)}")
        else:
            resolved.append(arg)
        takes_value = not takes_value and arg in CONFIG_OPTIONS
    return resolved


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML file as it stands.

    Raises:
        UserError: It holds something else than keys with values.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}.") from error
    if content is not None and not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, expected keys such as 'model:' and 'data:'.")
    return content or {}


def refuse_empty_unknown(raw: Any, parsed: Any, where: str = "") -> None:
    """Refuse an unknown key with an empty value (``objectivs: {}``), which jsonargparse drops in silence.

    Args:
        raw: What the file says.
        parsed: What became of it; every known key is there, with its default if need be.
        where: Dotted path of both.

    Raises:
        UserError: A key with an empty value did not arrive.
    """
    if isinstance(raw, list) and isinstance(parsed, list):
        for index, pair in enumerate(zip(raw, parsed, strict=False)):
            refuse_empty_unknown(*pair, f"{where}[{index}]")
    if not isinstance(raw, dict) or not _has_keys(parsed) or _class_name(raw) != _class_name(parsed):
        return
    known = set(_keys(parsed))
    siblings = {f"{where}.{key}" if where else key for key in known}
    for key, value in raw.items():
        path = f"{where}.{key}" if where else str(key)
        if key in known:
            refuse_empty_unknown(value, parsed[key], path)
        elif value == {} and key not in ("init_args", "dict_kwargs"):
            raise UserError(f"Unknown key '{path}' with an empty value.{hint(path, siblings)}")


def _has_keys(value: Any) -> bool:
    return isinstance(value, dict) or hasattr(value, "__dict__")


def _keys(value: Any) -> Iterator[str]:
    return iter(value if isinstance(value, dict) else vars(value))


def _class_name(value: Any) -> str | None:
    if not _has_keys(value) or "class_path" not in _keys(value):
        return None
    return str(value["class_path"]).rpartition(".")[2]
