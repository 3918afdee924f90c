"""Inverse dynamics: which actions led to these frames?"""

from torch import Generator

from uva_lightning.objective import Objective
from uva_lightning.types import Tokens, Visible


class InverseDynamics(Objective):
    """Predict the action chunk from the future frames; the past frames are hidden, as in UVA (section 3.6).

        sees      history but its frames, all future frames
        predicts  action

    Args:
        weight: Factor on the loss.
        also: Further modalities that it predicts.
    """

    predicts = ("action",)
    needs = ("video",)

    def visible(self, tokens: Tokens, rng: Generator) -> Visible:
        """Show the future frames instead of the past ones."""
        past = (f"past_{camera}" for camera in tokens.cameras)
        return Visible.only(tokens, "history", *tokens.cameras).hide(*past)
