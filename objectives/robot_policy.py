"""Robot policy: what to do next?"""

from torch import Generator

from uva_lightning.objective import Objective
from uva_lightning.types import Tokens, Visible


class RobotPolicy(Objective):
    """Predict the action chunk from the history; the video is never generated (UVA section 3.6).

        sees      history
        predicts  action

    Args:
        weight: Factor on the loss.
        also: Further modalities that it predicts.
    """

    predicts = ("action",)

    def visible(self, tokens: Tokens, rng: Generator) -> Visible:
        """Hide the whole future."""
        return Visible.only(tokens, "history")
