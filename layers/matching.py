"""Which ground truth each anchor learns (YOLACT's matching, with STMask's classification-aware thresholds)."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_convert

from layers.box_utils import box_iou
from utils.structures import FrameTargets

NEUTRAL = -1
BACKGROUND = 0


@dataclass(frozen=True)
class Match:
    """What A anchors of an image learn: `labels` [A] int64 1…C, 0 background or −1 neither, and `targets` [A] int64,
    the row of the instance (meaningful where the label is positive)."""

    labels: Tensor
    targets: Tensor


@torch.no_grad()
def match(
    anchors_cxcywh: Tensor,
    class_logits: Tensor,
    truth: FrameTargets,
    positive_iou: float = 0.5,
    negative_iou: float = 0.4,
) -> Match:
    """The match of anchors [A,4] with one image's truth; `class_logits` [A,C+1] are the network's current ones.

    An anchor over `positive_iou` learns its best instance, one below `negative_iou` background. Anchors that overlap
    two instances by more than `negative_iou` are neutral. An anchor over `positive_iou` gains 2/(1+exp(CE)) ≤ 1 of IoU,
    CE being its present cross-entropy for the instance's label, and both limits rise by the mean gain: anchors that
    classify worse than the mean drop out. Every instance keeps at least its best anchor. No instance: all background.
    """
    num_anchors = len(anchors_cxcywh)
    if len(truth) == 0:
        empty = torch.zeros(num_anchors, dtype=torch.int64, device=anchors_cxcywh.device)
        return Match(empty, empty)
    overlaps = box_iou(truth.boxes, box_convert(anchors_cxcywh, "cxcywh", "xyxy"))  # [N,A]
    best, targets = overlaps.max(dim=0)
    best[(overlaps > negative_iou).sum(dim=0) > 1] = (positive_iou + negative_iou) / 2
    good = best > positive_iou
    if good.any():
        cross_entropy = F.cross_entropy(class_logits[good].float(), truth.labels[targets[good]], reduction="none")
        gain = 2 / (1 + cross_entropy.exp())
        best[good] += gain
        positive_iou, negative_iou = positive_iou + gain.mean(), negative_iou + gain.mean()
    for anchor, target in _best_pairs(overlaps):
        best[anchor] = float("inf")
        targets[anchor] = target
    labels = truth.labels[targets].clone()
    labels[best < positive_iou] = NEUTRAL
    labels[best < negative_iou] = BACKGROUND
    return Match(labels, targets)


def _best_pairs(overlaps: Tensor) -> list[tuple[int, int]]:
    """(anchor, instance) for every instance of `overlaps` [N,A], each taken at most once, best pair first."""
    overlaps = overlaps.clone()
    pairs = []
    for _ in range(len(overlaps)):
        target, anchor = divmod(int(overlaps.argmax()), overlaps.shape[1])
        pairs.append((anchor, target))
        overlaps[:, anchor] = -1
        overlaps[target] = -1
    return pairs
