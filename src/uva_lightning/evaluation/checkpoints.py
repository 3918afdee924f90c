"""Trained models as contenders: one, or one for each training of a family, each in every way that is asked for."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uva_lightning.commands.configs import SUFFIXES
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.rollout import find_checkpoint
from uva_lightning.evaluation.contenders import Contender, named
from uva_lightning.evaluation.suite import Scenario
from uva_lightning.evaluation.trained import Trained
from uva_lightning.model.checkpoint import load_module
from uva_lightning.model.stored import weights_file
from uva_lightning.module import UVAModule
from uva_lightning.policy.acting import Acting
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.results import sha256
from uva_lightning.rollouts import Actor, Enters, open_env
from uva_lightning.types import DataSpec


@dataclass(frozen=True)
class Given:
    """A checkpoint as it was named.

    Args:
        name: A row of the tables.
        path: Where it lies.
        family: Name of all trainings that belong together; none of one alone.
        training: Which of them this is; families are compared training by training.
    """

    name: str
    path: Path
    family: str = ""
    training: str = ""


@dataclass(frozen=True)
class Way:
    """A way to act, beside the robot policy.

    Args:
        name: Stands behind the checkpoint's.
        options: Its class and all of its options.
        make: Makes the actor.
    """

    name: str
    options: Mapping[str, Any]
    make: Callable[[WindowPolicy], Acting]


class Checkpoint(Trained):
    """A checkpoint as robot policy.

    Args:
        given: Which.
        execute: See the base class.
        device: Where it runs.
        seed: Of its noise.
        set: Data set of a mixture.
    """

    def __init__(self, given: Given, execute: int, device: str, seed: int, set: str | None) -> None:
        find_checkpoint(given.path)
        module, data = load_module(given.path)
        policy = WindowPolicy(module.to(device).eval(), seed, set=set)
        super().__init__(given.name, execute, policy, data.chosen(policy.set).text)
        self.family, self.training = given.family, given.training
        self.place, self.seed = str(given.path.resolve()), seed
        self._sha256 = sha256(weights_file(given.path))

    def facts(self) -> dict[str, Any]:
        """See the base class."""
        contract = asdict(self.policy.spec)
        facts = {"sha256": self._sha256, "set": self.policy.set, "seed": self.seed, "contract": contract}
        return {"kind": "checkpoint", **facts}


class OtherWay(Contender):
    """The same model in another way: by planning, or by video first.

    Args:
        checkpoint: The model.
        way: How it acts.
    """

    def __init__(self, checkpoint: Checkpoint, way: Way) -> None:
        super().__init__(f"{checkpoint.name} {way.name}", checkpoint.execute)
        self.family = f"{checkpoint.family} {way.name}" if checkpoint.family else ""
        self.training, self.place = checkpoint.training, checkpoint.place
        self._checkpoint, self._way = checkpoint, way

    def facts(self) -> dict[str, Any]:
        """See the base class."""
        return {**self._checkpoint.facts(), "actor": self._way.options}

    def spec(self, env: str) -> DataSpec:
        """See the base class."""
        return self._checkpoint.spec(env)

    def actor(self, scenario: Scenario) -> Actor:
        """See the base class."""
        policy = self._checkpoint.policy
        if useless := untrained(policy.module):
            raise ValueError(
                f"{self._checkpoint.name} was trained on no objective that predicts {', '.join(useless)}, expected a "
                "model with all of its heads trained for any other way to act than as robot policy."
            )
        acting = self._way.make(policy)
        if acting.tries:
            raise ValueError(
                f"{self._way.name} tries chunks in the simulator, which runs in a process of its own here; see "
                "'uva rollout --actor' or 'uva bench planning'."
            )
        if isinstance(acting, Enters):
            env = open_env(scenario.env, policy.spec, self.execute)
            env.close()
            acting.enter({start.seed: env for start in scenario.starts})
        return self._checkpoint.told(acting, scenario)


def untrained(module: UVAModule) -> list[str]:
    """Name the heads that have their first weights, since no objective with a share trains them."""
    sampler = module.sampler
    trained = {name for one in sampler.trained for name in sampler.objectives[one].predicts}
    return [name for name in module.heads if name not in trained]


def checkpoints(text: str) -> list[Given]:
    """Read ``UVA=a.ckpt,b.ckpt,joint=runs/seed-*/checkpoints/last.ckpt``.

    A path with ``*`` or ``?`` names a family: the trainings whose checkpoints it matches, each called by what stands in
    the place of the pattern.

    Raises:
        UserError: A pattern matches nothing.
    """
    found: list[Given] = []
    for name, value in named(text) if text else ():
        if not glob.has_magic(value):
            found.append(Given(name, Path(value)))
            continue
        if not (matches := sorted(glob.glob(value))):
            raise UserError(f"No checkpoint matches {value}, expected at least one; see what is there with ls.")
        for match in matches:
            parts = zip(Path(match).parts, Path(value).parts, strict=True)
            training = "/".join(part for part, pattern in parts if glob.has_magic(pattern))
            found.append(Given(f"{name} {training}", Path(match), name, training))
    return found


def ways(text: str) -> list[Way]:
    """Read ``Planner,UniPi``, or YAML, or a file of it, with a class and options by name.

    Raises:
        UserError: There is no such class, or its options are wrong.
    """
    import yaml
    from jsonargparse import ArgumentError, ArgumentParser

    try:
        content = yaml.safe_load(Path(text).read_text() if Path(text).suffix in SUFFIXES else text)
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"actors cannot be read: {' '.join(str(error).split())}; set --play.actors.") from error
    if isinstance(content, str):
        content = {name.strip(): name.strip() for name in content.split(",")}
    if not isinstance(content, dict):
        raise UserError(
            f"actors is {content!r}, expected names such as Planner,UniPi, or a mapping; set --play.actors."
        )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--actor", type=Callable[[WindowPolicy], Acting])
    found = []
    for name, entry in content.items():
        try:
            parsed = parser.parse_object({"actor": entry})
            found.append(Way(str(name), parsed.actor.as_dict(), parser.instantiate(parsed).actor))
        except (ArgumentError, TypeError, ValueError) as error:
            raise UserError(
                f"The actor '{name}' cannot be made ({' '.join(str(error).split())}), expected a class such as Planner "
                "or UniPi, or class_path and init_args; 'uva rollout --actor.help Planner' lists the options."
            ) from error
    return found
