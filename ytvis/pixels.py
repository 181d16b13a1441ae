"""Between the pixels of a video and those of a network, in numpy: frames become the network's input, tracks become
objects in pixels of the video."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class FrameMeta:
    """The origin of a frame, and its three sizes, each (height, width) in pixels.

    `original_hw` is the video's own size, `resized_hw` the size the frame has inside the network input, `padded_hw`
    the network input itself (multiples of 32). Frames of a stream also have `time_s`, the seconds since its start, the
    `name` of their file if each has its own, and `is_cut`: the frame shows another scene than the one before.
    """

    video_id: int
    frame_index: int
    original_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    padded_hw: tuple[int, int]
    time_s: float | None = None
    name: str = ""
    is_cut: bool = False


@dataclass(frozen=True)
class FramePixels:
    """How frames become network input: resized to `size_hw` without keeping the aspect ratio, (value − `mean`) / `std`
    with RGB values 0…255, and padded to multiples of `size_divisor` with 0, the mean colour."""

    size_hw: tuple[int, int]
    mean: Sequence[float]
    std: Sequence[float]
    size_divisor: int

    @property
    def padded_hw(self) -> tuple[int, int]:
        """(height, width) of the network input."""
        return padded_to(self.size_hw, self.size_divisor)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """The network input [3,H,W] float32 of a `frame` [h,w,3] uint8 RGB.

        Raises:
            ValueError: `frame` is not [h,w,3] uint8 with at least one pixel.
        """
        check_frame(frame)
        return self.normalise(resize(frame, self.size_hw).transpose(2, 0, 1))

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """The network input [3,H,W] float32 of RGB values 0…255 [3,height,width] of `size_hw`."""
        height, width = self.size_hw
        image = np.zeros((3, *self.padded_hw), np.float32)
        mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (self.mean, self.std))
        normalise(pixels, mean, std, out=image[:, :height, :width])
        return image


def padded_to(size_hw: tuple[int, int], divisor: int) -> tuple[int, int]:
    """`size_hw` (height, width) rounded up to multiples of `divisor`."""
    height, width = (-(-side // divisor) * divisor for side in size_hw)
    return height, width


def normalise(pixels: Any, mean: Any, std: Any, out: Any) -> None:
    """Writes (`pixels` − `mean`) / `std` to `out`, float32 of the shape of `pixels`.

    All are arrays of numpy, or all are tensors of torch on one device: the result is the same, bit by bit.
    """
    out[...] = pixels
    out -= mean
    out /= std  # divided, not multiplied by the reciprocal: that differs in the last bit


def check_frame(frame: np.ndarray) -> None:
    """Raises ValueError unless `frame` is [h,w,3] uint8 with at least one pixel."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise ValueError(f"a frame must be [h,w,3] uint8, not {list(frame.shape)} {frame.dtype}")


def resize(frame: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """`frame` [h,w,3] uint8, resized bilinearly to `size_hw`."""
    import cv2

    return cv2.resize(frame, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_LINEAR)


@dataclass(frozen=True)
class TrackArrays:
    """Tracks of a frame, in arrays with one row per object: `boxes` [N,4] float32 as fractions of the network input,
    `scores` [N], `labels` [N] 1…C, `track_ids` [N], `ages` [N] (frames since they were last detected), `masks` [N,h,w]
    float32 in 0…1, and the masks' expected IoUs `mask_ious` [N] if they are rescored."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    track_ids: np.ndarray
    ages: np.ndarray
    masks: np.ndarray
    mask_ious: np.ndarray | None = None


@dataclass(frozen=True)
class PixelObjects:
    """The objects of a frame in pixels of the video, in arrays with one row per object: `boxes_px` [N,4] int64
    x1 y1 x2 y2, `scores` [N] float32, `labels` [N] int64 1…C, `track_ids` [N] int64, `masks` [N,height,width] bool, and
    `shifted` [N] bool: not detected here, but predicted by temporal fusion alone."""

    boxes_px: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    track_ids: np.ndarray
    masks: np.ndarray
    shifted: np.ndarray


def to_pixels(
    tracks: TrackArrays, meta: FrameMeta, score_threshold: float, top_k: int = 0, one_sided: bool = False
) -> PixelObjects:
    """The reported objects of a frame; see `layers.postprocess.postprocess`."""
    content_height, content_width = (
        resized / padded for resized, padded in zip(meta.resized_hw, meta.padded_hw, strict=True)
    )
    # Normalised by the content, without padding.
    boxes = tracks.boxes / np.array((content_width, content_height) * 2, np.float32)
    keep = tracks.scores > score_threshold
    if not one_sided:
        keep &= ((boxes[:, :2] + boxes[:, 2:]) / 2 <= 1).all(axis=1)
    scores = tracks.scores
    if tracks.mask_ious is not None:
        scores = scores * tracks.mask_ious
        keep &= scores >= score_threshold
    keep = np.flatnonzero(keep)
    if 0 < top_k < len(keep):
        keep = np.sort(keep[np.argsort(-scores[keep], kind="stable")[:top_k]])
    masks = tracks.masks[keep]
    masks = masks[:, : int(content_height * masks.shape[1]), : int(content_width * masks.shape[2])]
    return PixelObjects(
        boxes_px=_corners_px(boxes[keep], meta.original_hw, one_sided),
        scores=scores[keep],
        labels=tracks.labels[keep],
        track_ids=tracks.track_ids[keep],
        masks=enlarge(masks, meta.original_hw),
        shifted=tracks.ages[keep] > 0,
    )


def _corners_px(boxes: np.ndarray, size_hw: tuple[int, int], one_sided: bool) -> np.ndarray:
    """Boxes [N,4] int64 in pixels, from boxes normalised by the frame: rounded towards 0 and clamped to the frame, with
    `one_sided` lower edges at 0 and upper edges at its end only."""
    limits = np.array((size_hw[1], size_hw[0]) * 2, np.float32)
    corners = boxes * limits
    low, high = np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])
    if not one_sided:
        low, high = np.minimum(low, limits[:2]), high.clip(min=0)
    return np.concatenate((low.clip(min=0), np.minimum(high, limits[:2])), axis=1).astype(np.int64)


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
