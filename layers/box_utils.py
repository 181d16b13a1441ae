"""Encoding, decoding and overlap of boxes. Boxes are x1 y1 x2 y2 unless a name says otherwise."""

import torch
from torch import Tensor
from torchvision.ops import box_convert

# The variances of SSD; the published weights were trained with them.
CENTER_VARIANCE = 0.1
SIZE_VARIANCE = 0.2
EPSILON = 1e-7  # of torchvision's losses of boxes


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


def distance_iou_loss(boxes: Tensor, others: Tensor) -> Tensor:
    """1 − distance IoU (Zheng et al., AAAI 2020) [N] of `boxes` [N,4] with `others` [N,4], row by row; 0…2.

    As torchvision's `distance_box_iou_loss`, whose index by a mask waits for the device.
    """
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    other_x1, other_y1, other_x2, other_y2 = others.unbind(dim=1)
    left, top = torch.max(x1, other_x1), torch.max(y1, other_y1)
    right, bottom = torch.min(x2, other_x2), torch.min(y2, other_y2)
    intersection = torch.where((bottom > top) & (right > left), (right - left) * (bottom - top), 0)
    union = (x2 - x1) * (y2 - y1) + (other_x2 - other_x1) * (other_y2 - other_y1) - intersection
    iou = intersection / (union + EPSILON)
    # Once more, so that gradients are summed in torchvision's order.
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    left, top = torch.min(x1, other_x1), torch.min(y1, other_y1)
    right, bottom = torch.max(x2, other_x2), torch.max(y2, other_y2)
    diagonal = ((right - left) ** 2) + ((bottom - top) ** 2) + EPSILON
    across = (x2 + x1) / 2 - (other_x1 + other_x2) / 2
    down = (y2 + y1) / 2 - (other_y1 + other_y2) / 2
    return 1 - iou + (across**2 + down**2) / diagonal


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU [..., N, M] of `boxes` [..., N, 4] with `others` [..., M, 4], in 0…1; 0 where the union is empty."""
    low = torch.maximum(boxes[..., :, None, :2], others[..., None, :, :2])
    high = torch.minimum(boxes[..., :, None, 2:], others[..., None, :, 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
    other_areas = (others[..., 2:] - others[..., :2]).prod(dim=-1)
    union = areas[..., :, None] + other_areas[..., None, :] - intersection
    return torch.where(union > 0, intersection / union, torch.zeros_like(union))
