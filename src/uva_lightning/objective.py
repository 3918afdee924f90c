"""The one idea: an objective says which tokens are visible and which modalities it predicts. All else is shared."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Generator, Tensor

from uva_lightning.types import Tokens, Visible

_REGISTRY: dict[str, type[Objective]] = {}


class Objective(ABC):
    """One function of the shared model. Subclassing registers it under its class name.

    A subclass sets ``predicts`` (and ``needs``, if a sample must have more than it predicts), implements ``visible``
    and says in its docstring, in two lines that ``uva objectives`` shows, what it *sees* and what it *predicts*.

    Args:
        weight: Factor on every loss term of this objective, not negative.
        also: Further modalities that it predicts, such as a second camera or proprioception.
    """

    predicts: tuple[str, ...] = ()
    """Modalities whose heads are trained by this objective."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Modalities a sample must have besides the predicted ones."""

    def __init__(self, weight: float = 1.0, also: Sequence[str] = ()) -> None:
        if weight < 0:
            raise ValueError(f"weight of {type(self).__name__} is {weight}, expected 0 or more; 0 switches it off.")
        self.weight, self.predicts = weight, (*type(self).predicts, *also)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if ABC not in cls.__bases__:
            _REGISTRY[cls.__name__] = cls

    @abstractmethod
    def visible(self, tokens: Tokens, rng: Generator) -> Visible:
        """Decide what each sample may see.

        Args:
            tokens: The samples that serve this objective. Read only.
            rng: CPU generator of this step; take every random number from it. Where one is taken, the samples are asked
                about one by one, each with a generator of its own, so that none depends on who else is in the batch;
                ``draws.uniform_by_sample`` takes numbers for all of them at once.

        Returns:
            True for each visible token; the predicted ones that stay hidden are what the loss is on.
        """

    def loss_terms(self, latent: Tensor, tokens: Tokens, seen: Visible) -> dict[str, Tensor]:
        """Give losses of this objective's own, beside those of the heads; none if not overridden.

        An objective with parameters is also an ``nn.Module``; the model then trains and saves them.

        Args:
            latent: Z, [b, t, s, d], of the samples that serve this objective; none (b = 0) in a step in which only
                other processes have some, so that all of them know the same parameters.
            tokens: Their tokens.
            seen: What was visible.

        Returns:
            f32[b] per term, always the same terms; their mean over all samples of all processes is logged as
            ``train/<objective>/<term>``.
        """
        return {}

    def eligible(self) -> frozenset[str]:
        """Modalities a sample must have to serve this objective."""
        return frozenset(self.needs) | frozenset(self.predicts)


def registry() -> dict[str, type[Objective]]:
    """Give every registered objective by class name."""
    return dict(_REGISTRY)


def find(name: str) -> type[Objective]:
    """Look an objective up by its class name.

    Raises:
        KeyError: It is not registered; the message has the nearest known one.
    """
    if name in _REGISTRY:
        return _REGISTRY[name]
    near = difflib.get_close_matches(name, _REGISTRY, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(sorted(_REGISTRY)) or 'none'}."
    raise KeyError(f"No objective is called '{name}': {hint}")
