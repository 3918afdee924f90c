"""Names in a client's messages, and what they are called in the contract of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from uva_lightning.serving.wire import Message
from uva_lightning.types import DataSpec

PROMPT, VIDEO, STATE, FRAMES, TURNED = "prompt", "video", "state", "frames", "orientation/"
OPTIONAL = (PROMPT, "step", "time", "last_action", "rate_hz", "orientation")
"""What an observation may have beside pictures and states."""
Target = str | Sequence[str]


@dataclass(frozen=True)
class Keys:
    """Translate messages.

    Nested maps and flat names are the same: ``{"video": {"top": x}}`` is ``video/top``. Contract names are always
    understood; ``renamed`` adds others, such as ``observation/image`` for ``video/top``. A name may stand for several
    state entries, whose numbers then follow each other: ``observation/state`` for ``state/arm`` and ``state/gripper``.

    Args:
        spec: Contract.
        options: Names of what a message may say beside the observation.
        renamed: Contract name, or names, by the client's name.

    Raises:
        ValueError: A contract name is none.
    """

    spec: DataSpec
    options: Sequence[str] = ()
    renamed: Mapping[str, Target] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, target in self.renamed.items():
            wanted = [target] if isinstance(target, str) else list(target)
            states = [f"{STATE}/{entry}" for entry in self.spec.state_dims]
            if unknown := [one for one in wanted if one not in (*self.required, PROMPT)]:
                known = ", ".join((*self.required, PROMPT))
                raise ValueError(f"keys maps '{name}' to '{unknown[0]}', expected one of {known}.")
            if len(wanted) != 1 and not set(wanted) <= set(states):
                raise ValueError(f"keys maps '{name}' to {wanted}, expected one name, or several of {states}.")

    @property
    def required(self) -> tuple[str, ...]:
        """Contract names that every observation has."""
        cameras = (f"{VIDEO}/{camera}" for camera in self.spec.cameras)
        return (*cameras, *(f"{STATE}/{entry}" for entry in self.spec.state_dims))

    def read(self, message: Message) -> dict[str, Any]:
        """Give a message under contract names, flat.

        Raises:
            ValueError: A name is unknown, stands twice, or part of an observation is missing.
        """
        found: dict[str, Any] = {}
        for name, value in flat(message).items():
            for target, part in self._targets(name, value):
                if target in found:
                    raise ValueError(f"The message has '{target}' twice, the second time as '{name}'; send it once.")
                found[target] = part
        allowed = {*self.required, *OPTIONAL, *self.options, *(f"{FRAMES}/{c}" for c in self.spec.cameras)}
        allowed |= {f"{TURNED}{camera}" for camera in self.spec.cameras}
        if unknown := sorted(set(found) - allowed):
            raise ValueError(f"The message has '{unknown[0]:.80}'; {self._expected()}")
        given = [name for name in self.required if name in found]
        if given and (missing := [name for name in self.required if name not in found]):
            raise ValueError(f"The observation lacks '{missing[0]}'; {self._expected()}")
        return found

    def names(self, target: str) -> list[str]:
        """Give all names under which a client may send something."""
        return [target, *(name for name, to in self.renamed.items() if to == target or target in list(to))]

    def _targets(self, name: str, value: Any) -> list[tuple[str, Any]]:
        target = self.renamed.get(name, name)
        if isinstance(target, str):
            return [(target, value)]
        widths = [self.spec.state_dims[one.removeprefix(f"{STATE}/")] for one in target]
        try:
            numbers = np.asarray(value, dtype=np.float32)
        except (TypeError, ValueError):
            raise ValueError(f"'{name}' is no array of numbers, expected {sum(widths)} for {list(target)}.") from None
        if not numbers.ndim or numbers.shape[-1] != sum(widths):
            raise ValueError(
                f"'{name}' has the shape {numbers.shape}, expected {sum(widths)} numbers for {list(target)}."
            )
        parts = np.split(numbers, np.cumsum(widths)[:-1], axis=-1)
        return list(zip(target, parts, strict=True))

    def _expected(self) -> str:
        alternatives = (" or ".join(f"'{name}'" for name in self.names(target)) for target in self.required)
        others = ", ".join((*OPTIONAL, *self.options))
        return f"this server expects {', '.join(alternatives)}, and knows {others}; rename, or start it with --keys."


def flat(message: Mapping[str, Any], lead: str = "") -> dict[str, Any]:
    """Give nested maps as one, with names joined by ``/``."""
    found: dict[str, Any] = {}
    for name, value in message.items():
        inner = flat(value, f"{lead}{name}/") if isinstance(value, Mapping) else {f"{lead}{name}": value}
        if twice := set(inner) & set(found):
            raise ValueError(f"The message has '{min(twice)}' twice, nested and flat; send it once.")
        found |= inner
    return found
