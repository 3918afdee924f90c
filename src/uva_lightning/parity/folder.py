"""A folder of reference numbers: one description per variant, its inputs, and its results for each weight scale."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uva_lightning.parity import naming

OTHERS = ("vae.json", "vae.npz", "action_heads.json", "action_heads.npz", "diffusion.npz", "normalizers.npz")
SCHEDULES = "indices_and_schedules.json"
_DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Variant:
    """One variant of the model.

    Attributes:
        name: Name of the variant.
        facts: Its description.
        inputs: Latents, actions and draws.
    """

    name: str
    facts: Mapping[str, Any]
    inputs: Mapping[str, Tensor]

    @property
    def prefix(self) -> str:
        """What every name of a random number begins with."""
        return str(self.facts["prefix"])

    def weights(self, scale: float) -> dict[str, Tensor]:
        """Make the official state dict by the fill rule."""
        norms = set(self.facts["norm_weight_names"])
        return {
            name: naming.fill(self.prefix + name, shape, scale, name in norms)
            for name, shape, _ in self.facts["state_dict_keys"]
        }


class Folder:
    """Reference numbers of the official code.

    Args:
        path: Folder.

    Raises:
        ValueError: It is no such folder, a file is missing, or one is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            what = "is a file" if self.path.exists() else "does not exist"
            raise ValueError(f"{path} {what}, expected a folder with reference numbers of the official code; name it.")
        descriptions = {file: self._json(file) for file in sorted(self.path.glob("*.json"))}
        facts = [content for content in descriptions.values() if "variant" in content and "flags" in content]
        if not facts:
            raise ValueError(
                f"{path} describes no variant: expected a file such as pusht.json with 'variant' and 'flags'; name the "
                "folder that has it, or copy it again."
            )
        needed = [*OTHERS, SCHEDULES]
        for content in facts:
            name = content["variant"]
            needed += [f"{name}_inputs.npz", *(f"{name}_{scale}.npz" for scale in content["fills"])]
        if missing := [name for name in needed if not (self.path / name).is_file()]:
            raise ValueError(
                f"{path} lacks {len(missing)} of {len(needed)} files, e.g. {missing[0]}; expected the whole folder, "
                "copy it again."
            )
        for name in (name for name in needed if name.endswith(".npz")):
            self._open(name).close()  # a damaged file is told now, not after a minute of comparing
        self.facts = facts

    def variants(self) -> Iterator[Variant]:
        """Give the variants with their inputs."""
        for content in self.facts:
            yield Variant(content["variant"], content, self.arrays(f"{content['variant']}_inputs.npz"))

    @contextmanager
    def whole(self, part: str) -> Iterator[None]:
        """Say which entry is missing where a comparison asks for one that the files lack.

        Args:
            part: What is compared, for the message.

        Raises:
            ValueError: An entry is missing.
        """
        try:
            yield
        except KeyError as error:
            raise ValueError(
                f"{self.path} has no entry '{error.args[0]}' for {part}, expected every number that the official code "
                "gave; copy the folder again."
            ) from error

    def arrays(self, name: str) -> dict[str, Tensor]:
        """Read a file of arrays."""
        with self._open(name) as content:
            try:
                return {key: torch.from_numpy(np.array(content[key])) for key in content.files}
            except _DAMAGED as error:
                raise self._damaged(name, error) from error

    def _open(self, name: str) -> Any:
        try:
            return np.load(self.path / name, allow_pickle=False)
        except _DAMAGED as error:
            raise self._damaged(name, error) from error

    def _damaged(self, name: str, error: Exception) -> ValueError:
        return ValueError(f"{self.path / name} is damaged ({error}), expected an .npz; copy it again.")

    def json(self, name: str) -> dict[str, Any]:
        """Read a description."""
        return self._json(self.path / name)

    @staticmethod
    def _json(path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}), expected JSON; copy it again.") from error
        return content if isinstance(content, dict) else {}
