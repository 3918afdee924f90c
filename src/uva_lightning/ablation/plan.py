"""What is compared: the experiment as it is, without each objective, with other balancers and samplers, and changed."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ProgressBar

from uva_lightning.balance import Balancer, FixedWeights
from uva_lightning.commands.errors import UserError, hint, message
from uva_lightning.sampler import ObjectiveSampler

ALL, WITHOUT = "all", "without-"
Config = dict[str, Any]
"""What ``uva fit`` parsed, with every default and the full names of classes."""
TRAINING_PARTS = ("objectives", "sampler", "balancer", "optimizer")
"""What a file laid over an experiment may change under ``model:``."""
_SAVES = (4, 3, 2, 1)
"""Checkpoints of a run, at best; an interrupted one goes on from the last."""


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Args:
        name: As ``--variants`` takes it.
        trains: Objectives that it is trained on, in the order of the config.
        model: What stands under ``model:``.
    """

    name: str
    trains: tuple[str, ...]
    model: Config


@dataclass(frozen=True)
class Plan:
    """All variants of an experiment.

    Args:
        config: The experiment.
        variants: The first one is the experiment as it is.
        left_out: Why some cannot be trained, by name.
    """

    config: Config
    variants: tuple[Variant, ...]
    left_out: Mapping[str, str]

    def chosen(self, names: Sequence[str]) -> Plan:
        """Keep some variants, and always the experiment as it is, which all others are compared with.

        Raises:
            UserError: There is no such variant.
        """
        known = [variant.name for variant in self.variants]
        for name in names:
            if name in self.left_out:
                raise UserError(f"The variant '{name}' cannot be trained: {self.left_out[name]}.")
            if name not in known:
                raise UserError(f"There is no variant '{name}'.{hint(name, known)}")
        kept = tuple(variant for variant in self.variants if variant.name in (ALL, *names))
        return Plan(self.config, kept, {})


def plan(config: Config, missing: Mapping[str, str], overlays: Mapping[str, Config] | None = None) -> Plan:
    """List the variants of an experiment.

    Args:
        config: The experiment.
        missing: Modules of the package that cannot be imported, with the reason.
        overlays: The experiment with a file laid over it, by the name of the file.

    Raises:
        UserError: It has a single objective; or a file changes what all variants have in common.
    """
    objectives = tuple(config["model"]["objectives"])
    if len(objectives) < 2:
        raise UserError(
            f"The experiment has {len(objectives)} objective ({', '.join(objectives)}), expected at least 2: nothing "
            "can be left out of it; add some under model.objectives."
        )
    variants, left_out = [Variant(ALL, objectives, config["model"])], dict[str, str]()
    for name in objectives:
        trains = tuple(one for one in objectives if one != name)
        model = copy.deepcopy(config["model"])
        del model["objectives"][name]
        try:
            for part in ("sampler", "balancer"):
                model[part] = _without(model[part], name, objectives)
            variants.append(Variant(WITHOUT + name, trains, model))
        except _Empty as empty:
            left_out[WITHOUT + name] = f"{empty} would have nothing left to train"
    left_out |= {name.rpartition(".")[2]: why for name, why in missing.items() if ".balancers." in name}
    for part, (found, reasons) in {
        "balancer": _balancers(config["model"]["balancer"]),
        "sampler": _samplers(config["model"]["sampler"]),
    }.items():
        variants += [Variant(name, objectives, config["model"] | {part: entry}) for name, entry in found.items()]
        left_out |= reasons
    taken = {*left_out, *(variant.name for variant in variants)}
    if double := sorted(taken & set(overlays or {})):
        raise UserError(f"Two variants are called '{double[0]}'; rename the file {double[0]}.yaml.")
    variants += [_overlaid(name, changed, config) for name, changed in (overlays or {}).items()]
    return Plan(config, tuple(variants), left_out)


def run_config(plan: Plan, variant: Variant, seed: int, steps: int, folder: Path, latents: Path) -> Config:
    """Give the config of one run, for ``uva fit``.

    The trainer neither validates nor draws: all runs are measured alike afterwards.

    Args:
        plan: It belongs to.
        variant: What is trained.
        seed: Of weights, masks and noise; the data keep their own, so that all runs hold out the same episodes.
        steps: Length of training; the learning rate falls over it.
        folder: For TensorBoard and checkpoints.
        latents: Folder in which the runs share the latents of all frames.
    """
    config = copy.deepcopy(plan.config)
    config["seed_everything"] = seed
    config["model"] = copy.deepcopy(variant.model) | {"seed": seed}
    saves = next(count for count in _SAVES if steps % count == 0)
    saving = {"dirpath": str(folder / "checkpoints"), "save_last": True, "every_n_train_steps": steps // saves}
    kept = [
        entry
        for entry in config["trainer"]["callbacks"] or []
        if not _is(entry, Checkpoint, EarlyStopping, ProgressBar)
    ]
    logger = {"save_dir": str(folder), "name": "", "version": ""}
    config["trainer"] |= {
        "max_steps": steps,
        "max_epochs": None,
        "limit_val_batches": 0,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": logger},
        "callbacks": [*kept, {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": saving}],
    }
    data = config["data"]["init_args"]
    if "encoding" in data and data.get("augment") is None:
        encoding = {"cache_dir": None, "online": False} | (data["encoding"] or {})
        if encoding["cache_dir"] is None and not encoding["online"]:
            data["encoding"] = encoding | {"cache_dir": str(latents)}
    return config


def class_of(entry: Mapping[str, Any]) -> type:
    """Give the class that an entry of a config names."""
    module, _, name = str(entry["class_path"]).rpartition(".")
    found: type = getattr(import_module(module), name)
    return found


def first_difference(one: Any, other: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """Find where two configs differ first: the dotted path, and what stands there in each."""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return None if one == other else (where, one, other)
    pairs = ((key, one.get(key), other.get(key)) for key in dict.fromkeys((*one, *other)))
    found = (first_difference(old, new, f"{where}.{key}" if where else str(key)) for key, old, new in pairs)
    return next((difference for difference in found if difference), None)


class _Empty(Exception):
    """Without an objective, the part of this name has nothing to do."""


def _is(entry: Any, *classes: type) -> bool:
    return issubclass(class_of(entry), classes)


def _overlaid(name: str, changed: Config, config: Config) -> Variant:
    """Make the variant that a file laid over the experiment means.

    Raises:
        UserError: The file changes what all variants have in common.
    """

    def common(content: Config) -> Config:
        model = {key: value for key, value in content["model"].items() if key not in TRAINING_PARTS}
        return {key: value for key, value in content.items() if key != "config"} | {"model": model}

    if found := first_difference(common(config), common(changed)):
        raise UserError(
            f"{name} changes {found[0]} to {found[2]}, expected changes of model.{', model.'.join(TRAINING_PARTS)} "
            "only: all variants have the same data and parts, and are measured alike; give the rest with --config."
        )
    kept = tuple(one for one in config["model"]["objectives"] if one in changed["model"]["objectives"])
    trains = tuple(one for one in kept if _served(changed["model"]["sampler"], one, changed["model"]["objectives"]))
    return Variant(name, trains or tuple(config["model"]["objectives"]), changed["model"])


def _served(entry: Any, name: str, objectives: Mapping[str, Any]) -> bool:
    """Tell whether some table of a sampler gives an objective a part, or there is no table with an item for it."""
    tables = list(_tables(entry, name, set(objectives)))
    return any(table[name] for table in tables) or not tables


def _tables(entry: Any, name: str, objectives: set[str]) -> Iterator[Mapping[str, Any]]:
    """Find every table of an entry that has an item per objective, this one among them."""
    if isinstance(entry, Mapping) and name in entry and set(entry) <= objectives:
        yield entry
    elif isinstance(entry, list | Mapping):
        for item in entry.values() if isinstance(entry, Mapping) else entry:
            yield from _tables(item, name, objectives)


def _without(entry: Any, name: str, objectives: Sequence[str], where: str = "it") -> Any:
    """Take an objective out of every table of an entry that has an item per objective.

    Raises:
        _Empty: A table has nothing left that is not zero.
    """
    if isinstance(entry, list):
        return [_without(item, name, objectives, where) for item in entry]
    if not isinstance(entry, Mapping):
        return entry
    if name not in entry or not set(entry) <= set(objectives):
        return {key: _without(value, name, objectives, str(key)) for key, value in entry.items()}
    rest = {key: value for key, value in entry.items() if key != name}
    if not any(rest.values()):
        raise _Empty(where)
    return rest


def _others(base: type, used: type) -> dict[str, type]:
    """Find every class of a kind that a config can name, but the one in use, by its name."""
    family = {one.__name__: one for one in _family(base) if one is not used and not inspect.isabstract(one)}
    importable = {
        name: one for name, one in family.items() if one.__qualname__ == name and one.__module__ != "__main__"
    }
    return {name: importable[name] for name in sorted(importable) if not name.startswith("_")}


def _family(base: type) -> Iterator[type]:
    yield base
    children: list[type] = type.__subclasses__(base)
    for child in children:
        yield from _family(child)


def _entry(one: type, arguments: Mapping[str, Any]) -> Config:
    return {"class_path": f"{one.__module__}.{one.__qualname__}", "init_args": dict(arguments)}


def _needed(one: type, given: Mapping[str, Any]) -> str:
    """Name the arguments that a class must be given and is not."""
    parameters = inspect.signature(one).parameters.values()
    return ", ".join(p.name for p in parameters if p.default is p.empty and p.name not in given)


def _balancers(entry: Config | None) -> tuple[dict[str, Config], dict[str, str]]:
    """Give every other balancer with its defaults, and why some cannot be built; both by name."""
    found, left_out = dict[str, Config](), dict[str, str]()
    for name, one in _others(Balancer, FixedWeights if entry is None else class_of(entry)).items():
        if needed := _needed(one, {}):
            left_out[name] = f"{needed} must be given"
            continue
        try:
            one()
        except (ImportError, ValueError) as error:
            left_out[name] = message(error).rstrip(".")
        else:
            found[name] = _entry(one, {})
    return found, left_out


def _samplers(entry: Config) -> tuple[dict[str, Config], dict[str, str]]:
    """Give every other sampler with those arguments of the present one that it knows; else as ``_balancers``."""
    found, left_out = dict[str, Config](), dict[str, str]()
    given = entry.get("init_args") or {}
    for name, one in _others(ObjectiveSampler, class_of(entry)).items():
        known = {key: value for key, value in given.items() if key in inspect.signature(one).parameters}
        if needed := _needed(one, {"objectives": None, **known}):
            left_out[name] = f"{needed} must be given"
        else:
            found[name] = _entry(one, known)
    return found, left_out
