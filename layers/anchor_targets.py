"""Anchor assignment: the ground truth that each anchor learns.

It is YOLACT's, with STMask's classification-aware thresholds.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert

from layers.box_utils import box_iou
from layers.compaction import Compaction, drop_rows, order_rows
from utils.structures import ClipTargets

POSITIVE_IOU = 0.5
NEGATIVE_IOU = 0.4
NEUTRAL = -1
BACKGROUND = 0


def hide_unlabelled(class_logits: Tensor, labels: Tensor, known: Tensor | None) -> Tensor:
    """Returns `class_logits` [I,…,C+1] in which whatever is background cannot be of a class that its data set does not
    label: those logits are −∞ where `labels` [I,…] are background.

    `known` [I,C+1] bool is False for such classes, True for background. None: all are labelled.
    """
    if known is None:
        return class_logits
    known = known.view(len(known), *(1,) * (labels.ndim - 1), known.shape[1])
    return class_logits.masked_fill((labels == BACKGROUND)[..., None] & ~known, float("-inf"))


@dataclass(frozen=True)
class Match:
    """Targets of A anchors of I images: `labels` [I,A] int64, 1…C, 0 for background or −1 for neither, and `targets`
    [I,A] int64, the row of the instance in its image's truth (only valid where the label is positive)."""

    labels: Tensor
    targets: Tensor


@torch.no_grad()
def match(
    anchors_cxcywh: Tensor,
    class_logits: Tensor,
    truths: ClipTargets,
    positive_iou: float = POSITIVE_IOU,
    negative_iou: float = NEGATIVE_IOU,
) -> Match:
    """Assigns the truth of I images to anchors [A,4]; `class_logits` [I,A,C+1] are the network's current ones.

    An anchor over `positive_iou` learns its best instance, one below `negative_iou` learns background. An anchor that
    overlaps two instances by more than `negative_iou` is neutral. An anchor over `positive_iou` gains 2/(1+exp(CE)) ≤ 1
    of IoU, where CE is its current cross-entropy for the instance's label, and both limits rise by the image's mean
    gain: anchors that classify worse than the mean drop out. Every instance keeps at least its best anchor. Without
    instances all anchors are background.
    """
    if not len(truths.truth):
        empty = torch.zeros(class_logits.shape[:2], dtype=torch.int64, device=class_logits.device)
        return Match(empty, empty)
    # All images get as many rows as the fullest one; the rows that pad an image have overlap −1.
    is_instance, rows = truths.rows >= 0, truths.rows.clamp(min=0)
    boxes, instance_labels = truths.truth.boxes[rows], truths.truth.labels[rows].masked_fill(~is_instance, BACKGROUND)
    overlaps = box_iou(boxes, box_convert(anchors_cxcywh, "cxcywh", "xyxy"))  # [I,N,A]
    overlaps = overlaps.masked_fill(~is_instance[:, :, None], -1)
    best, targets = overlaps.max(dim=1)
    best = best.masked_fill((overlaps > negative_iou).sum(dim=1) > 1, (positive_iou + negative_iou) / 2)
    good = best > positive_iou
    index, are_real = compaction_of(truths)(good.flatten())
    wanted = instance_labels.gather(1, targets).flatten()[index]
    cross_entropy = F.cross_entropy(class_logits.flatten(0, 1)[index].float(), wanted, reduction="none")
    gains = torch.where(are_real, 2 / (1 + cross_entropy.exp()), 0)
    gains = torch.zeros_like(best).flatten().index_add(0, index, gains).view_as(best)
    rise = gains.sum(dim=1, keepdim=True) / good.sum(dim=1, keepdim=True).clamp(min=1)
    best += gains
    _keep_best_pairs(overlaps, is_instance, best, targets)
    labels = instance_labels.gather(1, targets)
    labels = labels.masked_fill(best < positive_iou + rise, NEUTRAL)
    return Match(labels.masked_fill(best < negative_iou + rise, BACKGROUND), targets)


def count_candidates(anchors_cxcywh: Tensor, targets: ClipTargets) -> np.ndarray:
    """[N] int64: at least as many as the anchors [A,4] that can learn each of the instances of `targets` by `match`,
    whatever the network predicts; seldom twice as many."""
    overlaps = box_iou(targets.truth.boxes, box_convert(anchors_cxcywh, "cxcywh", "xyxy"))  # [N,A]
    margin = 1e-3  # other devices round overlaps differently
    near = (overlaps > NEGATIVE_IOU + margin).long()
    near_in_frame = near.new_zeros(len(targets.rows), near.shape[1]).index_add(0, targets.image, near)
    # An anchor near several instances of a frame learns one only as its best anchor, of which each has one.
    can_learn = (overlaps > POSITIVE_IOU - margin) & (near_in_frame < 2)[targets.image]
    return can_learn.sum(dim=1).numpy() + 1


def compaction_of(targets: ClipTargets) -> Compaction:
    """How rows are chosen that stand for anchors which learn an instance: without a wait if the targets' candidates
    are counted."""
    return drop_rows if targets.candidates is None else partial(order_rows, size=int(targets.candidates.sum()))


def _keep_best_pairs(overlaps: Tensor, is_instance: Tensor, best: Tensor, targets: Tensor) -> None:
    """Gives each instance of `overlaps` [I,N,A] its best anchor that no better pair has, in `best` and `targets` [I,A].

    `is_instance` [I,N] marks the rows that are instances; they come before the padding.
    """
    overlaps = overlaps.clone()
    image = torch.arange(len(overlaps), device=overlaps.device)
    for is_left in is_instance.unbind(dim=1):
        pair = overlaps.flatten(1).argmax(dim=1)
        target, anchor = pair // overlaps.shape[2], pair % overlaps.shape[2]
        best[image, anchor] = best[image, anchor].masked_fill(is_left, float("inf"))
        targets[image, anchor] = torch.where(is_left, target, targets[image, anchor])
        overlaps[image, :, anchor] = -1
        overlaps[image, target] = -1
