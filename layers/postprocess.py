"""From the network's frame to the video's own pixels."""

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.structures import FrameMeta, FrameObjects, Tracks


def postprocess(tracks: Tracks, meta: FrameMeta, score_threshold: float, top_k: int = 0) -> FrameObjects:
    """What is reported of `tracks` for the frame `meta`: boxes and masks in pixels of the video.

    Objects with a score of at most `score_threshold`, or whose box centre lies in the padding, are left out, and all
    but the `top_k` with the highest scores (0: no limit). The order stays. N = 0 is fine.
    """
    content_height, content_width = (
        resized / padded for resized, padded in zip(meta.resized_hw, meta.padded_hw, strict=True)
    )
    boxes = tracks.boxes / tracks.boxes.new_tensor((content_width, content_height) * 2)  # normalised by the content
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    keep = ((tracks.scores > score_threshold) & (centers <= 1).all(dim=1)).nonzero().squeeze(1)
    if 0 < top_k < len(keep):
        best = tracks.scores[keep].argsort(descending=True, stable=True)[:top_k]
        keep = keep[best.sort().values]
    masks = tracks.masks[keep]
    masks = masks[:, : int(content_height * masks.shape[1]), : int(content_width * masks.shape[2])]
    return FrameObjects(
        boxes_px=_to_pixels(boxes[keep], meta.original_hw),
        scores=tracks.scores[keep],
        labels=tracks.labels[keep],
        track_ids=tracks.track_ids[keep],
        masks=_resize(masks, meta.original_hw) > 0.5,
    )


def _to_pixels(boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Boxes [N,4] int64 in pixels, rounded down and clamped to the frame, of boxes normalised by it."""
    height, width = size_hw
    limits = boxes.new_tensor((width, height) * 2)
    corners = boxes * limits
    low, high = torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])
    return torch.cat((low, high), dim=1).clamp(min=0).minimum(limits).long()


def _resize(masks: Tensor, size_hw: tuple[int, int]) -> Tensor:
    if len(masks) == 0:  # interpolate refuses an empty batch on some devices
        return masks.new_zeros((0, *size_hw))
    return F.interpolate(masks[None], size_hw, mode="bilinear", align_corners=False)[0]
