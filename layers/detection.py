"""Detection in one frame: candidates and fast NMS (YOLACT, section 3.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from layers.box_utils import box_iou, decode
from layers.compaction import LOWEST, Compaction, drop_rows
from layers.mask_utils import assemble_masks
from utils.structures import AtAnchors, Detections, Predictions


@dataclass(frozen=True)
class Detector:
    """Turns the predictions of one image into detections, in NMS order.

    Anchors whose best foreground probability exceeds `conf_threshold` are candidates. The `top_k` with the highest
    scores (probability × centerness) go through fast NMS at IoU `nms_threshold`, with one class per candidate
    (`cross_class_nms`) or class by class. `score_threshold` and `max_detections` then limit the result; None means no
    limit. Without `use_centerness`, or where the network predicts none, the score is the probability alone.
    `double_tanh` applies tanh to the mask coefficients twice (docs/quirks.md).
    """

    conf_threshold: float
    nms_threshold: float
    top_k: int
    cross_class_nms: bool
    score_threshold: float | None
    max_detections: int | None
    use_centerness: bool = True
    double_tanh: bool = False

    def __call__(self, predictions: Predictions, index: int = 0) -> Detections:
        """Detections of image `index` of the batch; N = 0 if there are none."""
        return self.detect(predictions, index, drop_rows)[0]

    def detect(self, predictions: Predictions, index: int, compact: Compaction) -> tuple[Detections, Tensor]:
        """(detections [N] of image `index`, which of them are real [N] bool); the real ones come first.

        With `order_rows`, N is `max_detections`, or without such a limit the number of boxes that go through NMS.
        """
        probabilities = F.softmax(predictions.class_logits[index].float(), dim=-1)[:, 1:]  # [A,C]
        candidates, are_real = compact(probabilities.amax(dim=1) > self.conf_threshold)
        boxes = decode(predictions.box_deltas[index, candidates].float(), predictions.anchors[candidates])
        centerness = _at(predictions.centerness, index, candidates)
        picked, labels, scores, are_real = self._suppress(
            boxes, probabilities[candidates], centerness, are_real, compact
        )
        anchors = candidates[picked]
        mask_coeffs = predictions.mask_coeffs[index, anchors].float()
        if self.double_tanh:
            mask_coeffs = mask_coeffs.tanh()
        detections = Detections(
            boxes=boxes[picked],
            scores=scores,
            labels=labels,
            centerness=None if centerness is None else centerness[picked],
            mask_coeffs=mask_coeffs,
            embeddings=_at(predictions.embeddings, index, anchors),
            masks=assemble_masks(predictions.prototypes[index].float(), mask_coeffs, boxes[picked]),
        )
        return detections, are_real

    def _suppress(
        self, boxes: Tensor, probabilities: Tensor, centerness: Tensor | None, are_real: Tensor, compact: Compaction
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(row, label, score, whether it is real) of the survivors among `boxes` [N,4] with `probabilities` [N,C], by
        descending score; only those that `are_real` [N] bool count."""
        scores = probabilities
        if self.use_centerness and centerness is not None:
            scores = probabilities * centerness[:, None]
        if self.cross_class_nms:
            # One pseudo-class: the class is chosen before multiplying by the centerness, which may be negative.
            labels = probabilities.argmax(dim=1)
            scores = scores.gather(1, labels[:, None])
        else:
            labels = torch.arange(probabilities.shape[1], device=boxes.device)
        scores = torch.where(are_real[:, None], scores, LOWEST)  # last, so they suppress none
        scores, order = scores.t().sort(dim=1, descending=True, stable=True)  # [classes,N]
        scores, order = scores[:, : self.top_k], order[:, : self.top_k]
        keep = fast_nms(boxes[order], self.nms_threshold) & are_real[order]
        if self.score_threshold is not None:
            keep &= scores > self.score_threshold
        labels = labels[order] if self.cross_class_nms else labels[:, None].expand_as(order)
        survivors, are_real = compact(keep.flatten())
        scores = torch.where(are_real, scores.flatten()[survivors], LOWEST)
        scores, rank = (values[: self.max_detections] for values in scores.sort(descending=True, stable=True))
        survivors = survivors[rank]
        return order.flatten()[survivors], labels.flatten()[survivors] + 1, scores, are_real[rank]


def _at(values: Tensor | AtAnchors | None, index: int, anchors: Tensor) -> Tensor | None:
    """The rows of image `index` at `anchors`, float32; None if the network predicts no such values."""
    return None if values is None else values[index, anchors].float()


def fast_nms(boxes: Tensor, threshold: float) -> Tensor:
    """Mask [...,N] bool of the `boxes` [...,N,4], sorted by descending score, that are kept.

    A box is dropped when its IoU with any earlier box, dropped or not, exceeds `threshold`.
    """
    overlaps = box_iou(boxes, boxes).triu(diagonal=1)
    if boxes.shape[-2] == 0:
        return torch.ones(boxes.shape[:-1], dtype=torch.bool, device=boxes.device)
    return overlaps.amax(dim=-2) <= threshold
