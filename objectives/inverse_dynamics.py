"""Inverse dynamics: which actions led to these frames?"""

from collections.abc import Sequence

from torch import Generator

from uva_lightning.objective import Objective
from uva_lightning.types import Tokens, Visible


class InverseDynamics(Objective):
    """Predict the action chunk from the future frames; the past frames are hidden, as in UVA (section 3.6).

        sees      history but its frames, all future frames
        predicts  action

    Args:
        weight: Factor on the loss.
        keeps: Past views that stay visible; the official code hides the main view only: ``[past_wrist]``.
        also: Further modalities that it predicts.
    """

    predicts = ("action",)
    needs = ("video",)

    def __init__(self, weight: float = 1.0, keeps: Sequence[str] = (), also: Sequence[str] = ()) -> None:
        super().__init__(weight, also)
        self.keeps = tuple(keeps)

    def visible(self, tokens: Tokens, rng: Generator) -> Visible:
        """Show the future frames instead of the past ones."""
        past = (f"past_{camera}" for camera in tokens.cameras)
        return Visible.only(tokens, "history", *tokens.cameras).hide(*(name for name in past if name not in self.keeps))
