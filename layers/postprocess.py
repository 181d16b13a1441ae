"""Maps tracks from the network input to the pixels of the video."""

import numpy as np
import torch
from torch import Tensor

from layers.box_utils import centers_of
from utils.structures import FrameMeta, FrameObjects, RescoredTracks, Tracks


def postprocess(
    tracks: Tracks, meta: FrameMeta, score_threshold: float, top_k: int = 0, one_sided: bool = False
) -> FrameObjects:
    """The reported objects of a frame: boxes and masks in pixels of the video, on the CPU.

    Drops objects with a score of at most `score_threshold`, objects whose box centre is in the padding, and all but
    the `top_k` with the highest scores (0: no limit). Keeps the order. N = 0 gives N = 0.

    The scores of `RescoredTracks` are multiplied by the masks' expected IoUs; they may exceed 1, and objects whose
    score is then below `score_threshold` are dropped too. With `one_sided` no object is dropped for its
    place, and each edge of a box is clamped on one side only, as in YOLACT (docs/quirks.md): a box outside the frame
    comes out with its corners exchanged.
    """
    tracks = tracks.to("cpu")  # soft masks are much smaller than the enlarged ones
    content_height, content_width = (
        resized / padded for resized, padded in zip(meta.resized_hw, meta.padded_hw, strict=True)
    )
    boxes = tracks.boxes / tracks.boxes.new_tensor(
        (content_width, content_height) * 2
    )  # normalised by the content, without padding
    centers = centers_of(boxes)
    keep = tracks.scores > score_threshold
    if not one_sided:
        keep &= (centers <= 1).all(dim=1)
    scores = tracks.scores
    if isinstance(tracks, RescoredTracks):
        scores = scores * tracks.mask_ious
        keep &= scores >= score_threshold
    keep = keep.nonzero().squeeze(1)
    if 0 < top_k < len(keep):
        best = scores[keep].argsort(descending=True, stable=True)[:top_k]
        keep = keep[best.sort().values]
    masks = tracks.masks[keep]
    masks = masks[:, : int(content_height * masks.shape[1]), : int(content_width * masks.shape[2])]
    return FrameObjects(
        boxes_px=_to_pixels(boxes[keep], meta.original_hw, one_sided),
        scores=scores[keep],
        labels=tracks.labels[keep],
        track_ids=tracks.track_ids[keep],
        masks=torch.from_numpy(enlarge(masks.numpy(), meta.original_hw)),
        shifted=tracks.ages[keep] > 0,
    )


def _to_pixels(boxes: Tensor, size_hw: tuple[int, int], one_sided: bool) -> Tensor:
    """Boxes [N,4] int64 in pixels, from boxes normalised by the frame: rounded towards 0 and clamped to the frame, with
    `one_sided` lower edges at 0 and upper edges at its end only."""
    height, width = size_hw
    limits = boxes.new_tensor((width, height) * 2)
    corners = boxes * limits
    low, high = torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])
    if one_sided:
        return torch.cat((low.clamp(min=0), high.minimum(limits[:2])), dim=1).long()
    return torch.cat((low, high), dim=1).clamp(min=0).minimum(limits).long()


def enlarge(masks: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Binary masks [N,H,W] bool: soft `masks` [N,h,w] float32 resized bilinearly to `size_hw` and compared with 0.5.

    Resizes only the neighbourhood of pixels over 0.5; no mean of other pixels can exceed 0.5. Resized values may
    differ from `F.interpolate` in the last digit, as those of `F.interpolate` do with the number of masks.
    """
    enlarged = np.zeros((len(masks), *size_hw), bool)
    over = masks > 0.5
    down, across = (_Axis(old, new) for old, new in zip(masks.shape[1:], size_hw, strict=True))
    for mask, row_is_set, column_is_set, target in zip(masks, over.any(2), over.any(1), enlarged, strict=True):
        rows, columns = down.reached(row_is_set), across.reached(column_is_set)
        if rows.stop and columns.stop:
            first, last = down.low[rows.start], down.high[rows.stop - 1]
            wide = across.resize(mask[first : last + 1], columns, axis=1)
            target[rows, columns] = down.resize(wide, rows, axis=0, first=first) > 0.5
    return enlarged


class _Axis:
    """Bilinear resizing along one axis, from `old` to `new` pixels; each new pixel is a mean of two old ones."""

    def __init__(self, old: int, new: int):
        scale = float(np.float32(old) / np.float32(new))
        places = ((np.arange(new) + 0.5) * scale - 0.5).astype(np.float32).clip(min=0)  # rounded once, as in torch
        self.low = places.astype(np.int64).clip(max=old - 1)
        self.high = (self.low + 1).clip(max=old - 1)
        self.high_weight = (places - self.low.astype(np.float32)).clip(max=1)
        self.low_weight = 1 - self.high_weight

    def reached(self, is_set: np.ndarray) -> slice:
        """The range of new pixels from the first to the last that depends on a pixel of `is_set` [old] bool."""
        reached = np.flatnonzero(is_set[self.low] | is_set[self.high])
        return slice(reached[0], reached[-1] + 1) if len(reached) else slice(0)

    def resize(self, pixels: np.ndarray, part: slice, axis: int, first: int = 0) -> np.ndarray:
        """The new pixels `part` along `axis`, from `pixels` [h,w] float32, which start at the old pixel `first`."""
        shape = (-1, 1) if axis == 0 else (1, -1)
        resized = pixels.take(self.low[part] - first, axis) * self.low_weight[part].reshape(shape)
        resized += pixels.take(self.high[part] - first, axis) * self.high_weight[part].reshape(shape)
        return resized
