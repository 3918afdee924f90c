"""Trained models as contenders: one, or one for each training of a family, each in every way that is asked for."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uva_lightning.commands.configs import SUFFIXES
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.rollout import find_checkpoint
from uva_lightning.evaluation.contenders import Chunking, Contender, named
from uva_lightning.evaluation.suite import Scenario
from uva_lightning.model.checkpoint import load_module
from uva_lightning.model.stored import weights_file
from uva_lightning.module import UVAModule
from uva_lightning.policy.acting import Acting
from uva_lightning.policy.committed import Rest
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.results import sha256
from uva_lightning.rollouts import Actions, Actor, Enters, Observation, open_env
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


class Checkpoint(Contender):
    """A trained model as robot policy.

    Args:
        given: Which.
        execute: See the base class.
        device: Where it runs.
        seed: Of its noise.
        set: Data set of a mixture.
    """

    def __init__(self, given: Given, execute: int, device: str, seed: int, set: str | None) -> None:
        super().__init__(given.name, execute)
        self.family, self.training = given.family, given.training
        find_checkpoint(given.path)
        self.place, self.seed = str(given.path.resolve()), seed
        module, data = load_module(given.path)
        self.policy = WindowPolicy(module.to(device).eval(), seed, set=set)
        self._text = data.chosen(self.policy.set).text
        self._sha256 = sha256(weights_file(given.path))

    def facts(self) -> dict[str, Any]:
        """See the base class."""
        contract = asdict(self.policy.spec)
        facts = {"sha256": self._sha256, "set": self.policy.set, "seed": self.seed, "contract": contract}
        return {"kind": "checkpoint", **facts}

    def spec(self, env: str) -> DataSpec:
        """See the base class."""
        return self.policy.spec

    def actor(self, scenario: Scenario) -> Actor:
        """See the base class."""
        return self.told(self.policy, scenario, self.policy)

    def told(self, actor: Actor, scenario: Scenario, chunking: Chunking | None = None) -> Actor:
        """Let an actor hear what a scenario asks for, where the model was trained with instructions."""
        return Told(actor, self._vector(scenario), chunking) if self.policy.spec.text_dim else actor

    def _vector(self, scenario: Scenario) -> NDArray[np.float32]:
        """Embed the instruction, as in training."""
        if not scenario.instruction or self._text is None:
            lacks = "no text encoder" if scenario.instruction else f"'{scenario.name}' has no instruction"
            raise ValueError(
                f"{self.name} was trained with instructions, and there is {lacks}, expected both; take a suite that "
                "says what to do, such as libero_10, and a checkpoint whose data.text embeds it."
            )
        vector: NDArray[np.float32] = self._text.embed([scenario.instruction])[0].float().numpy()
        return vector

    def chunking(self, scenario: Scenario) -> Chunking:
        """See the base class."""
        denoiser = self.policy.module.head("action").denoiser
        if not denoiser.continues:
            raise ValueError(
                f"The action head of {self.name} is {type(denoiser).__name__}, which cannot continue given actions, "
                "expected FlowMatching."
            )
        return Told(self.policy, self._vector(scenario), self.policy) if self.policy.spec.text_dim else self.policy


class Told:
    """An actor that hears the same instruction in all episodes.

    Args:
        actor: Decides.
        vector: The instruction, f32[w].
        chunking: Decides where a chunk under way is to be continued.
    """

    def __init__(self, actor: Actor, vector: NDArray[np.float32], chunking: Chunking | None = None) -> None:
        self.actor, self.vector, self.chunking = actor, vector, chunking

    def reset(self, seed: int) -> None:
        """Start anew."""
        self.actor.reset(seed)

    def act(self, observation: Observation, *, committed: Sequence[Rest] | None = None) -> Actions:
        """Decide, given what each robot is committed to."""
        count = len(next(iter(observation["video"].values())))
        text = {"instruction": np.tile(self.vector, (count, 1))}
        heard = {**observation, "text": text}
        if committed is None or self.chunking is None:
            return self.actor.act(heard)
        return self.chunking.act(heard, committed=committed)


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
