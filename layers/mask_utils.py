"""Masks from prototypes and coefficients (YOLACT, section 3.1), and their IoU."""

from collections.abc import Sequence

import torch
from torch import Tensor


def crop_window(boxes: Tensor, height: int, width: int, padding: int = 1) -> Tensor:
    """Mask [N,h,w] bool of the pixels inside each box.

    `boxes` [N,4] are normalised, with corners in any order; their edges in mask pixels are moved out by `padding` and
    clamped to the mask. A pixel is inside by its integer index: x1 ≤ column < x2.
    """
    x1, x2 = _clamped_edges(boxes[:, 0], boxes[:, 2], width, padding)
    y1, y2 = _clamped_edges(boxes[:, 1], boxes[:, 3], height, padding)
    columns = torch.arange(width, device=boxes.device, dtype=boxes.dtype)
    rows = torch.arange(height, device=boxes.device, dtype=boxes.dtype)
    inside_x = (columns >= x1[:, None]) & (columns < x2[:, None])  # [N,w]
    inside_y = (rows >= y1[:, None]) & (rows < y2[:, None])  # [N,h]
    return inside_y[:, :, None] & inside_x[:, None, :]


def _clamped_edges(first: Tensor, second: Tensor, size: int, padding: int) -> tuple[Tensor, Tensor]:
    first, second = first * size, second * size
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return (low - padding).clamp(min=0), (high + padding).clamp(max=size)


def assemble_masks(prototypes: Tensor, mask_coeffs: Tensor, boxes: Tensor) -> Tensor:
    """Soft masks [N,h,w] in 0…1, zero outside their boxes: sigmoid(prototypes · tanh(coefficients)).

    `prototypes` [h,w,K], `mask_coeffs` [N,K] before tanh, `boxes` [N,4] normalised.
    """
    return assemble_batch(prototypes[None], mask_coeffs, boxes, [boxes.shape[0]])


def assemble_batch(prototypes: Tensor, mask_coeffs: Tensor, boxes: Tensor, counts: Sequence[int]) -> Tensor:
    """As `assemble_masks`, for I images: `prototypes` [I,h,w,K], objects image by image, `counts` [I] of them."""
    height, width = prototypes.shape[1:3]
    images = zip(prototypes, torch.tanh(mask_coeffs).split(counts), strict=True)
    logits = torch.cat([(image @ coeffs.t()).permute(2, 0, 1) for image, coeffs in images])
    return torch.sigmoid(logits) * crop_window(boxes, height, width)


def assemble_in_slots(
    prototypes: Tensor, mask_coeffs: Tensor, boxes: Tensor, slots: Tensor, slots_per_image: int
) -> Tensor:
    """As `assemble_batch`, for objects in `slots` [N] int64: object n is number slot % `slots_per_image` of image
    slot // `slots_per_image`. Objects in slots after the last image have any mask."""
    height, width = prototypes.shape[1:3]
    last = len(prototypes) * slots_per_image
    coeffs = mask_coeffs.new_zeros(last + 1, mask_coeffs.shape[1])
    coeffs = coeffs.index_copy(0, slots.clamp(max=last), torch.tanh(mask_coeffs))[:last]
    coeffs = coeffs.unflatten(0, (len(prototypes), slots_per_image))
    logits = (coeffs @ prototypes.flatten(1, 2).transpose(1, 2)).view(last, height, width)
    return torch.sigmoid(logits[slots.clamp(max=last - 1)]) * crop_window(boxes, height, width)


def translate(masks: Tensor, offsets_px: Tensor) -> Tensor:
    """`masks` [N,h,w], each moved by its row of `offsets_px` [N,2] int64 x y; 0 (False) where nothing moves in."""
    height, width = masks.shape[1:]
    rows = torch.arange(height, device=masks.device) - offsets_px[:, 1:]  # [N,h], where each row comes from
    columns = torch.arange(width, device=masks.device) - offsets_px[:, :1]  # [N,w]
    inside_y, inside_x = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    objects = torch.arange(masks.shape[0], device=masks.device)[:, None, None]
    moved = masks[objects, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None]]
    return moved * (inside_y[:, :, None] & inside_x[:, None])


def mask_iou(masks: Tensor, others: Tensor) -> Tensor:
    """IoU [N,M] of binary masks [N,h,w] and [M,h,w]; 0 where both are empty."""
    flat, other_flat = masks.flatten(1).float(), others.flatten(1).float()
    intersection = flat @ other_flat.t()
    union = flat.sum(dim=1)[:, None] + other_flat.sum(dim=1)[None] - intersection
    return intersection / union.clamp(min=1)
