"""The weights of the training's losses."""

from dataclasses import dataclass

from utils.config_keys import NOT_NEGATIVE, key


@dataclass(frozen=True)
class LossWeights:
    """The factors of the losses, as published; in the log the losses have the short names given here."""

    box_iou: float = key(5.0, "BIoU: 1 − distance IoU of boxes", NOT_NEGATIVE)
    box_smooth_l1: float = key(1.5, "B: smooth L1 of box deltas, with train.box_iou_loss off", NOT_NEGATIVE)
    classes: float = key(6.125, "C: cross-entropy of classes", NOT_NEGATIVE)
    centerness: float = key(20.0, "center: smooth L1 of centerness", NOT_NEGATIVE)
    masks: float = key(6.125, "M: cross-entropy of masks", NOT_NEGATIVE)
    track_pairs: float = key(5.0, "T: cross-entropy of pairs of embeddings", NOT_NEGATIVE)
    track_contrastive: float = key(1.0, "T: softmax over embeddings, with train.contrastive", NOT_NEGATIVE)
    shifted_boxes: float = key(5.0, "B_shift: boxes predicted by the temporal net", NOT_NEGATIVE)
    shifted_masks: float = key(
        6.125,
        "M_shift: masks predicted by the temporal net, which does not run if B_shift has weight 0 too",
        NOT_NEGATIVE,
    )
