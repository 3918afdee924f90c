"""Forward dynamics: what will these actions do?"""

from uva_lightning.masking import MaskedFuture


class ForwardDynamics(MaskedFuture):
    """Predict the hidden part of the future frames given the actions (UVA section 3.6).

        sees      history, action, part of the future frames
        predicts  video

    Args:
        weight: Factor on the loss.
        mask_ratio_min: Smallest share of a frame that is hidden.
        also: Further modalities that it predicts.
        mask_ratio_max: Largest share of a frame that is hidden.
    """

    predicts = ("video",)
    needs = ("action",)
    shows = ("history", "action")
