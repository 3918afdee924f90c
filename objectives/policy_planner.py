"""Policy + planner: what to do, and what will come of it?"""

from uva_lightning.masking import MaskedFuture


class PolicyPlanner(MaskedFuture):
    """Predict actions and future frames together, so that a planner can judge them (UVA section 3.6).

        sees      history, part of the future frames
        predicts  video, action

    Args:
        weight: Factor on the loss.
        mask_ratio_min: Smallest share of a frame that is hidden.
        also: Further modalities that it predicts.
        mask_ratio_max: Largest share of a frame that is hidden.
    """

    predicts = ("video", "action")
