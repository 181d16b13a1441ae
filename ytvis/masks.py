"""Masks as COCO run-length strings: reading them in every form they come in, and the pixels that two share.

A compressed mask is `{"size": [height, width], "counts": text}`; its runs go down the columns, and every second one is
of set pixels. Where setup.py could compile `_mask_kernels.pyx`, it does the work, else
pycocotools and numpy do, with the same numbers.
"""

from dataclasses import dataclass
from itertools import accumulate, chain, zip_longest
from operator import index
from typing import Any, Self

import numpy as np
from pycocotools import mask as mask_ops

from ytvis.files import InputError

try:
    from ytvis import _mask_kernels
except ImportError:  # not compiled
    _mask_kernels = None

NO_MASK = {"size": [0, 0], "counts": b""}
LONGEST_NUMBER = 7  # characters, of five bits each, of the longest run that has a place in 32 bits


# --------------------------------------------------------------------------------------------------------- reading


def compress_mask(segmentation: Any, height: int | None, width: int | None) -> dict | None:
    """One mask as compressed RLE `{"size": [h, w], "counts": ...}`; None if there is no mask (None or []).

    Takes compressed and uncompressed RLE and a list of polygons [x1, y1, x2, y2, ...] in pixels, whose union is
    drawn at `height`×`width`. Raises ValueError, TypeError or OverflowError for anything else; whether the counts of
    compressed RLE are right is for `measure_masks` to see.
    """
    if segmentation is None or segmentation == []:
        return None
    if isinstance(segmentation, list):
        if not isinstance(segmentation[0], list) or len(segmentation[0]) < 6:
            # The library takes a list that starts with four numbers for boxes.
            raise ValueError("a polygon has fewer than three points")
        return mask_ops.merge(mask_ops.frPyObjects(segmentation, height, width))
    if not isinstance(segmentation, dict) or "size" not in segmentation or "counts" not in segmentation:
        raise ValueError("a mask must be RLE (size and counts) or a list of polygons")
    if len(segmentation["size"]) != 2:
        raise ValueError("the size of a mask must be its height and width")
    if isinstance(segmentation["counts"], list):
        return mask_ops.frPyObjects(segmentation, *segmentation["size"])
    if not isinstance(segmentation["counts"], str | bytes):
        raise ValueError("the counts of a mask must be a run-length string or a list of runs")
    return segmentation


def measure_masks(masks: list[dict | None]) -> np.ndarray:
    """Pixels in each compressed mask, int64 [len(masks)]; 0 for None.

    -1 where the counts are no whole run-length string or do not fill the mask's size: of such the mask library reads
    behind the end, or compares them for ever.
    """
    return _read_areas(masks) if _mask_kernels is None else _mask_kernels.read_masks(masks)[0]


def compress_masks(
    segmentations: Any, height: int | None, width: int | None, where: str
) -> tuple[list[dict | None], np.ndarray]:
    """The frames of a track as `compress_mask` gives them, and their pixels as `measure_masks` does.

    Raises InputError that starts with `where` for anything that is not a list with one mask a frame.
    """
    if not isinstance(segmentations, list | tuple):
        raise InputError(f"{where}: segmentations must be a list with one entry a frame")
    masks = []
    for frame, segmentation in enumerate(segmentations):
        try:
            masks.append(compress_mask(segmentation, height, width))
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"{where}, frame {frame}: {error}") from error
    try:
        areas = measure_masks(masks)
    except (TypeError, OverflowError) as error:
        raise InputError(f"{where}: the size of a mask must be its height and width ({error})") from error
    for frame in np.flatnonzero(areas < 0):
        text = f"the counts of a mask are not a whole run-length string that fills its size {masks[frame]['size']}"
        raise InputError(f"{where}, frame {frame}: {text}")
    return masks, areas


# ------------------------------------------------------------------------------------------------- tracks of masks


@dataclass(frozen=True)
class Tubes:
    """The masks of several tracks, ready to be compared.

    `tracks` are lists of compressed RLE or None, one a frame. The arrays have one entry a mask, those of track i from
    `offsets[i]` to `offsets[i + 1]`: `areas` int64 pixels and `sizes` int64, one number for height and width, 0 without
    a mask. `edges` uint32 are the pixels at which the runs end, those of mask m from `starts[m]` to `starts[m + 1]`;
    both are None without the native kernels.
    """

    tracks: list[list[dict | None]]
    offsets: np.ndarray
    areas: np.ndarray
    sizes: np.ndarray
    edges: np.ndarray | None
    starts: np.ndarray | None

    @classmethod
    def of(cls, tracks: list[list[dict | None]]) -> Self:
        """The tubes of compressed masks, all of which `measure_masks` has found right."""
        offsets = np.array(list(accumulate(map(len, tracks), initial=0)), np.int64)
        masks = list(chain.from_iterable(tracks))
        if _mask_kernels is not None:
            return cls(tracks, offsets, *_mask_kernels.read_masks(masks))
        sizes = [(0, 0) if mask is None else mask["size"] for mask in masks]
        heights, widths = np.array(sizes, np.int64).reshape(-1, 2).T
        # In batches, because pycocotools 2.0.11 with numpy 2 fails on more than 255 at a time.
        parts = [masks[start : start + 255] for start in range(0, len(masks), 255)]
        areas = [mask_ops.area([mask or NO_MASK for mask in part]) for part in parts]
        areas = np.concatenate([np.zeros(0, np.int64), *areas]).astype(np.int64)
        return cls(tracks, offsets, areas, (heights << 32) + widths, None, None)

    def __len__(self) -> int:
        return len(self.tracks)

    def by_frame(self, values: np.ndarray, frames: int, fill: int) -> np.ndarray:
        """`values` of all masks as [tracks, frames], cut or filled up at the end."""
        rows = np.full((len(self), frames), fill, values.dtype)
        for row, first, end in zip(rows, self.offsets[:-1], self.offsets[1:], strict=True):
            row[: end - first] = values[first : min(end, first + frames)]
        return rows


def frame_overlaps(firsts: Tubes, seconds: Tubes) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in the intersection and in the union of every pair of tracks on every frame, both [D,G,frames] float64.

    Behind the end of the shorter of a pair, and where the two masks are of different size, both are 0. There are as
    many frames as the longest track has of those tubes where it is shorter. Either may be empty.
    """
    frames = min(max(map(len, tubes.tracks), default=0) for tubes in (firsts, seconds))
    intersection, union = np.zeros((2, len(firsts), len(seconds), frames))
    if not intersection.size:
        return intersection, union
    if _mask_kernels is not None:
        arrays = ((t.offsets, t.areas, t.sizes, t.edges, t.starts) for t in (firsts, seconds))
        _mask_kernels.measure_overlaps(*arrays, intersection, union)
        return intersection, union
    d_areas, g_areas = (tubes.by_frame(tubes.areas, frames, 0) for tubes in (firsts, seconds))
    d_sizes, g_sizes = (tubes.by_frame(tubes.sizes, frames, -1) for tubes in (firsts, seconds))
    d_sizes, g_sizes = d_sizes[:, None], g_sizes[None]
    # Behind its end a track has the size -1, which is that of no mask, and the area 0.
    is_compared = (d_sizes == g_sizes) | (d_sizes == 0) | (g_sizes == 0)
    total = np.where(is_compared, d_areas[:, None] + g_areas[None], 0)
    ious = _frame_ious(firsts, seconds, frames)
    # Both are integers, so rounding undoes the one division that the library makes.
    intersection = np.rint(ious * total / (1 + ious))
    return intersection, total - intersection


def _frame_ious(firsts: Tubes, seconds: Tubes, frames: int) -> np.ndarray:
    """IoU on each frame alone, [D,G,frames]; 0 where one of a pair has no mask or the masks differ in size."""
    ious = np.zeros((frames, len(firsts), len(seconds)))
    d_frames, g_frames = (zip_longest(*tubes.tracks) for tubes in (firsts, seconds))
    not_crowd = [0] * len(seconds)
    for place, d_masks, g_masks in zip(ious, d_frames, g_frames, strict=False):
        place[:] = mask_ops.iou(*([mask or NO_MASK for mask in masks] for masks in (d_masks, g_masks)), not_crowd)
    return np.maximum(ious, 0).transpose(1, 2, 0)  # the library says -1 of masks of different size


# ------------------------------------------------------------------------------------------ without the native kernels


def _read_areas(masks: list[dict | None]) -> np.ndarray:
    """What `measure_masks` says."""
    sides = np.array([(0, 0) if mask is None else tuple(map(index, mask["size"])) for mask in masks], np.int64)
    if sides.min(initial=0) < 0:
        raise OverflowError("it is negative")
    texts = [b"" if mask is None else _as_bytes(mask["counts"]) for mask in masks]
    lengths = np.array([len(text) for text in texts], np.int64)
    areas, pixels = np.zeros((2, len(masks)), np.int64)
    if lengths.any():
        (unset, filled), firsts = _read_runs(b"".join(texts), lengths[lengths > 0])
        is_negative = np.minimum.reduceat(np.minimum(unset, filled), firsts) < 0
        pixels[lengths > 0] = np.where(is_negative, -1, np.add.reduceat(unset + filled, firsts))
        areas[lengths > 0] = np.add.reduceat(filled, firsts)
    return np.where(pixels == sides.reshape(-1, 2).prod(axis=1), areas, -1)


def _as_bytes(counts: str | bytes) -> bytes:
    return counts.encode("ascii", errors="replace") if isinstance(counts, str) else counts


def _read_runs(text: bytes, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The runs of masks, of unset and of set pixels, [2,pairs] int64, and the first pair of each mask.

    `text` are the counts of all masks, joined, and `lengths` how many characters each has, none 0. A mask whose counts
    are wrong has a run that is negative.
    """
    codes = np.frombuffer(text, np.uint8) - np.uint8(48)
    mask_ends = np.cumsum(lengths) - 1
    is_last = codes & 0x20 == 0
    is_wrong = ~is_last[mask_ends] | (np.maximum.reduceat(codes, mask_ends + 1 - lengths) > 63)
    is_last[mask_ends] = True  # so that a number that is cut off stays in its own mask
    ends = np.flatnonzero(is_last)
    digits = np.diff(ends, prepend=-1)
    numbers = (codes[ends] & 0x1F).astype(np.int64) - ((codes[ends] & 0x10) << 1)  # with the sign
    for place in range(1, min(digits.max(), LONGEST_NUMBER)):
        longer = np.flatnonzero(digits > place)
        numbers[longer] = (numbers[longer] << 5) + (codes[ends[longer] - place] & 0x1F)

    counts = np.diff(np.searchsorted(ends, mask_ends, side="right"), prepend=0)
    first_numbers = np.cumsum(counts) - counts
    is_wrong |= np.maximum.reduceat(digits, first_numbers) > LONGEST_NUMBER
    pairs = (counts + 1) // 2
    firsts = np.cumsum(pairs) - pairs
    is_odd = counts % 2 == 1
    numbers = np.insert(numbers, (first_numbers + counts)[is_odd], 0)  # the other half of the last pair
    # From the fourth on, a run is stored as the difference to the one before the last: a sum undoes that, among the
    # unset runs from the second on.
    runs = numbers.reshape(-1, 2).T.copy()
    first_runs = runs[0, firsts]
    runs[0, firsts] = 0
    before = -runs[:, firsts]
    np.cumsum(runs, axis=1, out=runs)
    runs -= np.repeat(runs[:, firsts] + before, pairs, axis=1)
    runs[0, firsts] = np.where(is_wrong, -1, first_runs)
    runs[1, (firsts + pairs - 1)[is_odd]] = 0
    return runs, firsts
