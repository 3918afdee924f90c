"""Serve a trained model: its functions, each client with a history of its own."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from uva_lightning import __version__
from uva_lightning.policy.chunk import ActionChunk
from uva_lightning.policy.contract import check_actions, check_frames
from uva_lightning.policy.policy import UVAPolicy
from uva_lightning.policy.rewards import Reward, Score
from uva_lightning.serving.client import PROTOCOL
from uva_lightning.serving.keys import FRAMES, PROMPT, STATE, VIDEO, Keys, Target
from uva_lightning.serving.requests import ARRAYS, NUMBERS, USED, Request, needed, number, rest_of, time_steps
from uva_lightning.serving.wire import Message
from uva_lightning.types import DataSpec

FUNCTIONS = ("policy", "imagine", "predict_next", "explain", "plan", "observe", "reset")


class PolicyService:
    """What a server serves of a ``UVAPolicy``.

    Args:
        policy: Trained model; no one else may use it meanwhile.
        keys: Further names of what clients send, see ``Keys``.
        reward: Judges imagined futures; without it there is no ``plan``.
    """

    def __init__(
        self, policy: UVAPolicy, keys: Mapping[str, Target] | None = None, reward: Reward | Score | None = None
    ) -> None:
        self.policy, self.reward, self.spec = policy, reward, policy.spec
        heads = policy.module.heads
        acts, films = "action" in heads, any(camera in heads for camera in policy.module.cameras)
        able = {"policy": acts, "explain": acts, "imagine": films, "predict_next": films}
        self._plans = acts and films
        able["plan"] = self._plans and reward is not None
        self.functions = tuple(name for name in FUNCTIONS if able.get(name, True))
        self.keys = Keys(self.spec, ("function", *NUMBERS, *ARRAYS), keys or {})
        self._numbers = itertools.count()

    def metadata(self) -> Message:
        """Give functions, contract and names; ``contract`` is what ``contract_of`` reads."""
        spec, size = self.spec, self.spec.image_size
        pictures: Message = {
            f"{VIDEO}/{camera}": {"dtype": "uint8", "shape": [size, size, 3]} for camera in spec.cameras
        }
        states: Message = {f"{STATE}/{n}": {"dtype": "float32", "shape": [w]} for n, w in spec.state_dims.items()}
        known = {**pictures, **states}
        return {
            "uva_protocol": PROTOCOL,
            "server": f"uva_lightning {__version__}",
            "functions": list(self.functions),
            "observation": {name: {**facts, "names": self.keys.names(name)} for name, facts in known.items()},
            "prompt": "heard" if spec.text_dim else "ignored, the model was trained without instructions",
            "options": {name: list(USED[name]) for name in self.functions},
            "actions": {"shape": [spec.horizon, spec.action_dim], "unit": spec.action_meaning, "rate_hz": spec.rate_hz},
            "contract": _contract(spec),
        }

    def fix(self, function: Any) -> str:
        """Say what would let this model be asked for a function; nothing where nothing would."""
        lacks_goal = function == "plan" and self._plans and self.reward is None
        return "; start the server with --goal ENV, whose goal judges imagined futures" if lacks_goal else ""

    def open(self) -> PolicySession:
        """Begin a session."""
        return PolicySession(self, f"client {next(self._numbers)}")

    def infer(self, prepared: Sequence[Request]) -> list[Message]:
        """Answer requests, those that ask the same in one call of the model."""
        groups: dict[Hashable, list[int]] = {}
        for index, request in enumerate(prepared):
            groups.setdefault(request.group, []).append(index)
        replies: dict[int, Message] = {}
        for indices in groups.values():
            replies |= dict(zip(indices, self._together([prepared[index] for index in indices]), strict=True))
        return [replies[index] for index in range(len(prepared))]

    def _together(self, requests: Sequence[Request]) -> list[Message]:
        names, first = [request.name for request in requests], requests[0]
        numbers: dict[str, Any] = dict(first.numbers)
        if first.function in ("observe", "reset"):
            return [{} for _ in requests]
        if first.function == "policy":
            rests = None if first.rest is None else [request.rest for request in requests if request.rest is not None]
            return self._chunks(self.policy.act(None, names, committed=rests, **numbers), len(names))
        if first.function == "explain":
            given = [request.frames or {} for request in requests]
            frames = {camera: np.stack([one[camera] for one in given]) for camera in self.spec.cameras}
            return self._chunks(self.policy.explain(frames, None, names, **numbers), len(names))
        if first.function == "plan":
            assert self.reward is not None  # else it is not among the functions
            proposals = numbers.pop("proposals", 8)
            chunk = self.policy.plan(None, proposals, self.reward, environments=names, **numbers)
            return self._chunks(chunk, len(names))
        actions = None
        if first.function == "predict_next":
            actions = np.stack([request.actions for request in requests if request.actions is not None])
        made = self.policy.imagine(None, actions, environments=names, **numbers)
        return [{FRAMES: {camera: x[row] for camera, x in made.items()}} for row in range(len(names))]

    @staticmethod
    def _chunks(chunk: ActionChunk, count: int) -> list[Message]:
        timing = {"infer_ms": chunk.timing.get("total", 0.0)}
        timing |= {f"{stage.replace(' ', '_')}_ms": ms for stage, ms in chunk.timing.items() if stage != "total"}
        return [
            {
                "actions": chunk.actions[row],
                "steps": chunk.steps[row],
                "times": chunk.times[row],
                "policy_timing": timing,
            }
            for row in range(count)
        ]


class PolicySession:
    """One client of a ``PolicyService``: its history, by its name in the policy.

    Args:
        service: What it belongs to.
        name: Of its environment in the policy.
    """

    def __init__(self, service: PolicyService, name: str) -> None:
        self.service, self.name = service, name
        self._prompt: Any = None

    def prepare(self, message: Message) -> Request:
        """Check a message and take up what it shows.

        Raises:
            ValueError: It is not what the server expects.
        """
        service, policy, spec = self.service, self.service.policy, self.service.spec
        found = service.keys.read(message)
        function = found.pop("function", "policy")
        if function not in service.functions:
            known = ", ".join(service.functions)
            raise ValueError(f"The function is {function!r:.80}, expected one of {known}{service.fix(function)}.")
        given = [name for name in (*NUMBERS, *ARRAYS) if name in found]
        if extra := [name for name in given if name not in USED[function]]:
            raise ValueError(f"'{function}' was given '{extra[0]}', expected of {', '.join(USED[function]) or 'none'}.")
        numbers = {name: number(name, found[name]) for name in given if name in NUMBERS}
        frames = {name.removeprefix(f"{FRAMES}/"): x for name, x in found.items() if name.startswith(f"{FRAMES}/")}
        actions = frames_of = rest = None
        if function == "predict_next":
            actions = check_actions(needed(found, "actions", function), spec, ())
        if function == "explain":
            for camera in spec.cameras:
                needed(found, f"{FRAMES}/{camera}", function)
            check_frames(frames, spec, ())
            frames_of = frames
        if "committed" in found or "delay" in found:
            rest = rest_of(needed(found, "committed", function), numbers.pop("delay", 0), spec)
        if function == "reset":
            self._begin(found.get(PROMPT), numbers.get("seed"))
            return Request(self.name, function)
        self._hear(found.get(PROMPT))
        if service.keys.required[0] in found:
            for observation in time_steps(found, spec):
                policy.observe(observation, [self.name])
        if function != "observe":
            policy.check([self.name])
        return Request(self.name, function, numbers, actions, frames_of, rest)

    def close(self) -> None:
        """Forget all."""
        self.service.policy.forget([self.name])

    def _hear(self, prompt: Any) -> None:
        """Another instruction than before begins an episode, as openpi's clients know no other way to say it."""
        known = not self.service.spec.text_dim or prompt is None or np.array_equal(prompt, self._prompt)
        if not known:
            self._begin(prompt, None)

    def _begin(self, prompt: Any, seed: float | None) -> None:
        policy, told = self.service.policy, self._prompt if prompt is None else prompt
        if told is not None and not isinstance(told, str | np.ndarray):
            raise ValueError(f"prompt is a {type(told).__name__}, expected text.")
        heard = told if self.service.spec.text_dim else None  # openpi's clients send it in any case
        policy.reset(heard, [self.name], None if seed is None else int(seed))
        self._prompt = told


def contract_of(metadata: Message) -> DataSpec | None:
    """Read the contract out of a server's metadata; None where the server is not ours.

    Raises:
        ValueError: It is broken.
    """
    contract = metadata.get("contract")
    if contract is None:
        return None
    try:
        return DataSpec(**{**contract, "cameras": tuple(contract["cameras"])})
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"The server's contract cannot be read ({error}); update the older side.") from None


def _contract(spec: DataSpec) -> Message:
    found = asdict(spec)
    found["cameras"], found["state_dims"] = list(spec.cameras), dict(spec.state_dims)
    return {entry.name: found[entry.name] for entry in fields(spec) if entry.name != "sets"}
