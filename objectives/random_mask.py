"""Random mask: what is missing, whichever it is? A mask that belongs to no application."""

from torch import Generator

from uva_lightning.masking import MaskedFuture
from uva_lightning.types import Tokens, Visible


class RandomMask(MaskedFuture):
    """Predict the hidden part of future frames and actions, for no function of the model in particular.

    Our reading of the application-independent masks of UVA's supplement (mask strategies): the five functions differ in
    what they hide, while here the same share of everything that is still to come is hidden at random.

        sees      history, part of the future frames, part of the action
        predicts  video, action

    Args:
        weight: Factor on the loss.
        mask_ratio_min: Smallest share of a frame, and of the steps of an action chunk, that is hidden.
        also: Further modalities that it predicts.
        mask_ratio_max: Largest share of both that is hidden.
    """

    predicts = ("video", "action")

    def visible(self, tokens: Tokens, rng: Generator) -> Visible:
        """Show the history, the unmasked places of the future frames, and the unmasked steps of the action."""
        seen = super().visible(tokens, rng)
        samples, steps, _ = tokens.action.shape
        seen.action.copy_(~self.mask(samples, steps, rng))
        return seen
