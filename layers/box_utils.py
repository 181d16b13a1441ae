"""Encoding, decoding and overlap of boxes. Boxes are x1 y1 x2 y2 unless a name says otherwise."""

import torch
from torch import Tensor
from torchvision.ops import box_convert

# The variances of SSD; the published weights were trained with them.
CENTER_VARIANCE = 0.1
SIZE_VARIANCE = 0.2


def decode(box_deltas: Tensor, anchors_cxcywh: Tensor) -> Tensor:
    """Boxes [...,4] from regression values tx ty tw th [...,4] relative to anchors [...,4] (cx cy w h)."""
    centers = anchors_cxcywh[..., :2] + CENTER_VARIANCE * box_deltas[..., :2] * anchors_cxcywh[..., 2:]
    sizes = anchors_cxcywh[..., 2:] * torch.exp(SIZE_VARIANCE * box_deltas[..., 2:])
    corners = centers - sizes / 2
    return torch.cat((corners, corners + sizes), dim=-1)


def encode(boxes: Tensor, anchors_cxcywh: Tensor) -> Tensor:
    """Regression values tx ty tw th [...,4] of `boxes` [...,4] relative to anchors [...,4] (cx cy w h).

    The inverse of `decode`. The sides of both must be positive.
    """
    boxes = to_cxcywh(boxes)
    centers = (boxes[..., :2] - anchors_cxcywh[..., :2]) / (CENTER_VARIANCE * anchors_cxcywh[..., 2:])
    sizes = torch.log(boxes[..., 2:] / anchors_cxcywh[..., 2:]) / SIZE_VARIANCE
    return torch.cat((centers, sizes), dim=-1)


def to_cxcywh(boxes: Tensor) -> Tensor:
    """Boxes [...,4] as cx cy w h."""
    return box_convert(boxes, "xyxy", "cxcywh")


def centers_of(boxes: Tensor) -> Tensor:
    """The centres x y [...,2] of `boxes` [...,4]."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU [..., N, M] of `boxes` [..., N, 4] with `others` [..., M, 4], in 0…1; 0 where the union is empty."""
    low = torch.maximum(boxes[..., :, None, :2], others[..., None, :, :2])
    high = torch.minimum(boxes[..., :, None, 2:], others[..., None, :, 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
    other_areas = (others[..., 2:] - others[..., :2]).prod(dim=-1)
    union = areas[..., :, None] + other_areas[..., None, :] - intersection
    return torch.where(union > 0, intersection / union, torch.zeros_like(union))
