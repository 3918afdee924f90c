"""Video model: what will happen next?"""

from uva_lightning.masking import MaskedFuture


class VideoModel(MaskedFuture):
    """Predict the hidden part of the future frames, without actions (UVA sections 3.3 and 3.6).

        sees      history, part of the future frames
        predicts  video

    Args:
        weight: Factor on the loss.
        mask_ratio_min: Smallest share of a frame that is hidden.
        also: Further modalities that it predicts.
        mask_ratio_max: Largest share of a frame that is hidden.
    """

    predicts = ("video",)
