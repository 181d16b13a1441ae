"""Reads, checks, draws, encodes, decodes and measures masks.

A mask in a file (a segmentation) is a list of polygons [[x1, y1, x2, y2, …], …] in pixels, or an RLE {"size": [height,
width], "counts": …} whose runs go down the columns, unset and set in turn: a list of runs, or COCO's compressed text.
Inside the program a mask is an RLE with compressed counts, called "an RLE" below, or None for no mask.

Every function here accepts values straight from a file and checks their bounds before it passes them to compiled code.
That is necessary: pycocotools reads past the end of counts that are cut off or do not fill their size, reads numbers of
seven characters differently from how it writes them, and writes past its buffer where every run has 2**24 pixels or
more. It is only used for RLEs that `measure_masks` accepts, and for runs and polygons of short outlines in frames where
no run can be so long.

The native kernels (`_mask_kernels.pyx`) are used where setup.py could compile them; pycocotools and numpy give the same
numbers without them.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, zip_longest
from typing import Any, Self

import numpy as np
from pycocotools import mask as mask_ops

from ytvis.files import InputError
from ytvis.messages import excerpt
from ytvis.optional import import_native

_mask_kernels = import_native("ytvis._mask_kernels", "compress_runs", "measure_overlaps", "read_masks")

MAX_SIDE = 2**16  # pixels of a frame's height or width
MAX_PIXELS = 2**27  # of a frame: 16K video has 1.3e8; a decoded mask takes as many bytes
MAX_REACH = 10  # distance that a polygon may extend outside its frame, in longer sides of the frame
MAX_CROSSINGS = 2**22  # of a polygon's edges with the frame's columns
LONGEST_NUMBER = 6  # characters, of five bits each, of a number in compressed counts: enough for MAX_PIXELS

NO_MASK = {"size": [0, 0], "counts": b""}
LIBRARY_PIXELS = 2**24  # pycocotools compresses no runs in frames of more: there it writes past its buffer
LIBRARY_STEPS = 2**20  # nor outlines of more, of which it keeps every step; `_draw` takes these, ten times slower
SUBPIXELS = 5  # COCO draws polygons on a grid that is finer by this factor

_LISTS = (list, tuple, array, np.ndarray)  # what a polygon may be

# ------------------------------------------------------------------------------------------------------------- reading


def to_rle(segmentation: Any, height: int, width: int) -> dict | None:
    """The RLE {"size": [height, width], "counts": text} of a segmentation; None for null, [] and [[]] (not visible).

    Polygons are drawn as pycocotools draws them, and united; beside others, one of fewer than three points is ignored.

    Raises:
        InputError: it is neither polygons nor an RLE; no polygon has three points, or one extends far outside the
            frame; the RLE differs in size from the frame, or its runs do not fill it; the frame is too large.
    """
    if _is_nothing(segmentation):
        return None
    if isinstance(segmentation, list | tuple):
        return plain_rle(_polygons_to_rle(segmentation, height, width))
    rle = check_rle(segmentation)
    if rle["size"] != [height, width]:
        raise InputError(f"a segmentation is {rle['size']} (height, width), its video [{height}, {width}]")
    return rle


def check_rle(rle: Any) -> dict:
    """An RLE in any form (a list of runs, counts as bytes or text) as {"size": [height, width], "counts": text}.

    Raises:
        InputError: it is not an RLE, is too large, or its runs do not fill its size.
    """
    if not isinstance(rle, dict | Mapping) or "size" not in rle or "counts" not in rle:
        raise InputError("a mask must be null, a list of polygons, or an RLE with 'size' and 'counts'")
    size, counts = _plain_size(rle["size"]), rle["counts"]
    if isinstance(counts, list | tuple):
        return plain_rle({"size": size, "counts": _compress_checked(counts, size)})
    if not isinstance(counts, str | bytes):
        raise InputError(f"the counts of a mask must be text or a list of runs, not {type(counts).__name__}")
    if measure_masks([rle])[0] < 0:
        raise InputError(f"the counts of a mask must be a whole run-length string that fills its size {size}")
    return plain_rle(rle)


def check_size(height: Any, width: Any) -> None:
    """Checks the size of a frame, in pixels.

    Raises:
        InputError: a side is not a whole number from 1, or the frame is too large for masks.
    """
    is_size = is_whole(height) and is_whole(width) and height >= 1 and width >= 1
    if is_size and max(height, width) <= MAX_SIDE and int(height) * int(width) <= MAX_PIXELS:
        return
    text = f"height {excerpt(height, 40)}, width {excerpt(width, 40)}"
    if not is_size:
        raise InputError(f"height and width must be whole numbers from 1, not {text}")
    raise InputError(f"a frame of {text} is over the limits, {MAX_SIDE} a side and {MAX_PIXELS} pixels")


def read_track(
    segmentations: Any,
    height: int | None,
    width: int | None,
    where: str,
    report: Callable[[int, str], None] | None = None,
) -> tuple[list[dict | None], np.ndarray]:
    """The RLEs of a track, one or None a frame, and the pixels of each, int64 [frames].

    RLEs may be of any size; `height` and `width` are for polygons. Compressed counts are unchanged, text or bytes; runs
    and polygons become bytes. With `report`, a mask that `to_rle` refuses gives None and -1 pixels, and `report` is
    called with its frame and fault.

    Raises:
        InputError: it is not a list, or, without `report`, `to_rle` refuses a mask; the message starts with `where` and
            the frame.
    """
    if not isinstance(segmentations, list | tuple):
        raise InputError(f"{where}: 'segmentations' must be a list with one entry per frame")
    masks: list[dict | None] = []
    faults: dict[int, str] = {}
    for frame, segmentation in enumerate(segmentations):
        try:
            masks.append(_as_rle(segmentation, height, width))
        except InputError as error:
            masks.append(None)
            faults[frame] = str(error)
    areas = measure_masks(masks)
    for frame in np.flatnonzero(areas < 0).tolist():
        try:
            check_rle(segmentations[frame])
        except InputError as error:
            masks[frame] = None
            faults[frame] = str(error)
    for frame in sorted(faults):
        if report is None:
            raise InputError(f"{where}, frame {frame}: {faults[frame]}")
        areas[frame] = -1
        report(frame, faults[frame])
    return masks, areas


def _as_rle(segmentation: Any, height: int | None, width: int | None) -> dict | None:
    """A segmentation as an RLE; counts that are already compressed stay unchecked until `measure_masks`."""
    if _is_nothing(segmentation):
        return None
    if isinstance(segmentation, list | tuple):
        return _polygons_to_rle(segmentation, height, width)
    if isinstance(segmentation, dict) and isinstance(segmentation.get("counts"), str | bytes):
        return segmentation
    rle = check_rle(segmentation)
    return {"size": rle["size"], "counts": rle["counts"].encode("ascii")}


def _is_nothing(segmentation: Any) -> bool:
    if not isinstance(segmentation, list | tuple):
        return segmentation is None
    return all(isinstance(part, _LISTS) and len(part) == 0 for part in segmentation)


def plain_rle(rle: Mapping) -> dict:
    """An RLE for JSON: {"size": [height, width] as Python's integers, "counts": text}."""
    counts = rle["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [int(side) for side in rle["size"]], "counts": text}


def _plain_size(size: Any) -> list[int]:
    """[height, width] as Python's integers, or InputError."""
    if not isinstance(size, list | tuple | np.ndarray) or len(size) != 2:
        raise InputError(f"the size of a mask must be [height, width], not {excerpt(size, 40)}")
    try:
        check_size(*size)
    except InputError as error:
        raise InputError(f"the size of a mask: {error}") from None
    return [int(side) for side in size]


def _compress_checked(counts: Sequence[Any], size: list[int]) -> bytes:
    """The compressed counts of a mask's runs from a file, or InputError."""
    pixels = size[0] * size[1]
    if _mask_kernels is not None:
        compressed = _mask_kernels.compress_runs(list(counts), pixels)
        if compressed is not None:
            return compressed  # else they are wrong, or numpy's integers
    kinds = set(map(type, counts))
    is_whole_numbers = kinds == {int} or all(issubclass(kind, int | np.integer) and kind is not bool for kind in kinds)
    if not is_whole_numbers or min(counts, default=0) < 0:
        raise InputError("the counts of a mask must be whole numbers from 0")
    if sum(counts) != pixels:
        raise InputError(f"the counts of a mask must be runs whose sum fills its size {size}")
    return _compress(counts, pixels)


def is_whole(value: Any) -> bool:
    """Whether a value is an integer, Python's or numpy's; True and False are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


# ------------------------------------------------------------------------------------------------------------ polygons


def _polygons_to_rle(polygons: Sequence[Any], height: Any, width: Any) -> dict:
    """The union of polygons as an RLE with counts as bytes, or InputError."""
    check_size(height, width)
    checked = [_checked_polygon(polygon, MAX_REACH * max(height, width)) for polygon in polygons]
    areas = [polygon for polygon in checked if len(polygon) >= 3]
    if not areas:
        raise InputError("no polygon has three points")
    height, width = int(height), int(width)
    steps = SUBPIXELS * sum(np.abs(polygon - np.roll(polygon, 1, axis=0)).max(axis=1).sum() for polygon in areas)
    if height * width < LIBRARY_PIXELS and steps < LIBRARY_STEPS:
        return mask_ops.merge(mask_ops.frPyObjects([polygon.ravel() for polygon in areas], height, width))
    drawn = [_draw(polygon, height, width) for polygon in areas]
    return _toggles_to_rle(drawn[0] if len(drawn) == 1 else _combine(drawn, 1), height, width)


def _checked_polygon(polygon: Any, reach: int) -> np.ndarray:
    """The corners of a polygon, float64 [corners,2] x y, or InputError."""
    if not isinstance(polygon, _LISTS) or len(polygon) % 2:
        raise InputError("a polygon must be a list of x y x y …")
    if isinstance(polygon, array | np.ndarray):
        is_numbers = np.asarray(polygon).dtype.kind in "iuf"
    else:
        kinds = set(map(type, polygon))
        is_numbers = all(
            issubclass(kind, int | float | np.integer | np.floating) and kind is not bool for kind in kinds
        )
    if not is_numbers:
        raise InputError("a polygon must hold only numbers")
    try:
        corners = np.array(polygon, np.float64)
    except OverflowError:  # an integer of more than 308 digits
        corners = np.array([np.inf])
    if corners.ndim != 1:
        raise InputError("a polygon must be a list of x y x y …")
    if not (np.abs(corners) <= reach).all():
        raise InputError("a polygon extends far outside the frame, or has a number that is not finite")
    return corners.reshape(-1, 2)


def _draw(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels at which the mask of a polygon [corners,2] begins and ends, as input of `_combine`.

    pycocotools (`rleFrPoly`) walks along the outline on a grid that is five times finer, and notes where a step goes
    from one side of the middle of a column to the other. Here only these steps are computed, with the same rounding,
    for the columns of the frame alone: far corners cost nothing.
    """
    points = (SUBPIXELS * corners + 0.5).astype(np.int64)
    # Each edge from its lower end, along the axis on which it is longer.
    ends = np.stack((points, np.roll(points, -1, axis=0)))  # [2,edges,2]
    sides = np.abs(ends[1] - ends[0])
    is_flat = sides[:, 0] >= sides[:, 1]
    along = np.where(is_flat, ends[..., 0], ends[..., 1])  # [2,edges]
    across = np.where(is_flat, ends[..., 1], ends[..., 0])
    is_turned = along[0] > along[1]
    along, across = (np.where(is_turned, values[::-1], values) for values in (along, across))
    length = along[1] - along[0]
    slope = (across[1] - across[0]) / np.maximum(length, 1)

    # Column c is crossed between the points 5c + 2 and 5c + 3.
    lows, highs = ends[..., 0].min(axis=0), ends[..., 0].max(axis=0)
    firsts = np.maximum(-((2 - lows) // SUBPIXELS), 0)
    counts = np.maximum(np.minimum((highs - 3) // SUBPIXELS, width - 1) - firsts + 1, 0)
    if counts.sum() > MAX_CROSSINGS:
        raise InputError(f"a polygon crosses the frame's columns more than {MAX_CROSSINGS} times")
    edge = np.repeat(np.arange(len(counts)), counts)
    columns = np.arange(len(edge)) - (np.cumsum(counts) - counts - firsts)[edge]
    before = SUBPIXELS * columns + 2
    start, other, slope, is_flat = along[0][edge], across[0][edge], slope[edge], is_flat[edge]

    def reached(steps: np.ndarray) -> np.ndarray:
        return np.trunc(other + slope * steps + 0.5).astype(np.int64)

    steps = before - start
    flat_rows = np.minimum(reached(steps), reached(steps + 1))
    # A steep edge: the first step that is on the other side; the division may be one off.
    is_rising = slope > 0
    guess = np.ceil((before + 0.5 - other) / np.where(slope == 0, 1, slope)).astype(np.int64)
    steps = guess - 1
    for trial in (guess - 1, guess):
        steps = steps + ((reached(trial) > before) != is_rising)
    rows = np.where(is_flat, flat_rows, start + steps - 1)
    rows = np.clip((rows + 2) // SUBPIXELS, 0, height)
    return _odd(np.sort(columns * height + rows), height * width)


def _odd(places: np.ndarray, pixels: int) -> np.ndarray:
    """The values of sorted `places` below `pixels` that occur an odd number of times."""
    firsts = np.flatnonzero(np.diff(places, prepend=-1))
    is_odd = np.diff(firsts, append=len(places)) % 2 == 1
    places = places[firsts[is_odd]]
    return places[places < pixels]


def _combine(masks: Sequence[np.ndarray], least: int) -> np.ndarray:
    """The pixels in at least so many masks. Each mask is given by the pixels before which it begins and ends in turn,
    rising; after an odd number of them it continues to the last pixel."""
    places = np.unique(np.concatenate(masks))
    depth = sum(np.searchsorted(toggles, places, side="right") % 2 for toggles in masks)
    return places[np.diff(depth >= least, prepend=False)]


def _toggles_to_rle(toggles: np.ndarray, height: int, width: int) -> dict:
    runs = np.diff(toggles, prepend=0, append=height * width)
    return {"size": [height, width], "counts": _compress(runs, height * width)}


# ------------------------------------------------------------------------------------------------ encoding and decoding


def encode_masks(masks: np.ndarray) -> list[dict]:
    """The RLEs {"size": [H, W], "counts": text} of `masks` [N,H,W] bool; [] for N = 0."""
    return [encode_mask(mask) for mask in masks]


def encode_mask(mask: np.ndarray) -> dict:
    """The RLE {"size": [H, W], "counts": text} of `mask` [H,W], whose pixels other than 0 are set."""
    return plain_rle(_toggles_to_rle(_toggles(mask.astype(bool, copy=False)), *mask.shape))


def _toggles(mask: np.ndarray) -> np.ndarray:
    """The pixels at which `mask` [H,W] bool begins and ends down its columns, as input of `_combine`. Only the smallest
    box around the set pixels is scanned."""
    height = len(mask)
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if len(rows) == 0:
        return np.zeros(0, np.int64)
    top, left = rows[0], columns[0]
    box = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    apart = np.zeros((box.shape[1], 1 + len(box)), bool)  # its columns, with an unset pixel before each
    apart[:, 1:] = box.T
    column, row = np.divmod(np.flatnonzero(np.diff(apart.ravel(), append=False)), apart.shape[1])
    # A run that goes on in the next column ends and begins at the same place.
    return _odd((left + column) * height + top + row, mask.size)


def _compress(runs: Sequence[int] | np.ndarray, pixels: int) -> bytes:
    """Compressed counts of `runs`, integers from 0 whose sum is `pixels`, at most `MAX_PIXELS`.

    From the fourth on a run is stored as the difference to the one before the last; each number in five bits a
    character from the lowest, in as few characters as hold the sign too.
    """
    if _mask_kernels is None and pixels < LIBRARY_PIXELS:
        return mask_ops.frPyObjects({"size": [pixels, 1], "counts": runs}, pixels, 1)["counts"]
    runs = np.array(runs, np.int64)
    if _mask_kernels is not None:
        return _mask_kernels.compress_runs(runs.tolist(), pixels)
    numbers = runs.copy()
    numbers[3:] -= runs[1:-2]
    shifts = np.arange(LONGEST_NUMBER) * 5
    digits = numbers[:, None] >> shifts
    rest = np.where(numbers < 0, ~numbers, numbers)[:, None] >> shifts + 4  # 0 where the number may end
    goes_on = rest != 0
    is_used = np.ones_like(goes_on)
    is_used[:, 1:] = goes_on[:, :-1]
    return ((digits & 0x1F) + (goes_on << 5) + 48)[is_used].astype(np.uint8).tobytes()


def decode_mask(rle: Any) -> np.ndarray:
    """The mask [height, width] bool of an RLE in any form.

    Raises:
        InputError: what `check_rle` refuses.
    """
    return mask_ops.decode(check_rle(rle)).view(bool)


# ----------------------------------------------------------------------------------------------------------- measuring


def measure_masks(masks: list[dict | None]) -> np.ndarray:
    """Pixels in each RLE, int64 [len(masks)]; 0 for None, -1 for anything but an RLE with whole compressed counts, as
    text or bytes, that fill its size."""
    return _read_masks(masks)[0]


def mask_area(rle: dict) -> int:
    """The pixels of an RLE; ValueError if `measure_masks` gives -1."""
    return int(_require_whole([rle])[0])


def mask_boxes(masks: list[dict | None]) -> np.ndarray:
    """The box x y width height around each mask, float64 [len(masks),4] pixels; zeros for None and empty masks.

    Raises:
        ValueError: `measure_masks` gives -1 for one.
    """
    _require_whole(masks)
    boxes = [mask_ops.toBbox([mask or NO_MASK for mask in part]) for part in _batches(masks)]
    return np.concatenate([np.zeros((0, 4)), *boxes])


def mask_ious(firsts: list[dict], seconds: list[dict], is_crowd: Sequence[bool]) -> np.ndarray:
    """IoU of every pair of RLEs, float64 [D,G]; for a crowd among `seconds` the fraction of the first inside it. 0 for
    masks of different size.

    Raises:
        ValueError: `measure_masks` gives -1 for one.
    """
    tubes = [Tubes.of([[mask] for mask in masks]) for masks in (firsts, seconds)]
    intersection, union = (values.sum(axis=2) for values in frame_overlaps(*tubes))
    union = np.where(np.asarray(is_crowd, bool)[None], tubes[0].areas[:, None], union)
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def unite_masks(rles: Sequence[dict]) -> dict:
    """The RLE, counts as text, of the pixels in any of `rles`, at least one, all of one size.

    Raises:
        ValueError: the sizes differ, or `measure_masks` gives -1 for one.
    """
    _require_whole(list(rles))
    if len({tuple(rle["size"]) for rle in rles}) != 1:
        raise ValueError("the masks are not of one size")
    height, width = rles[0]["size"]
    edges = []
    for rle in rles:
        text = _as_bytes(rle["counts"])
        runs, _ = _read_runs(text, np.array([len(text)]))
        edges.append(_odd(np.cumsum(runs), height * width))
    return plain_rle(_toggles_to_rle(_combine(edges, 1), height, width))


def _require_whole(masks: list[dict | None]) -> np.ndarray:
    """The pixels of each mask; ValueError if one is not a mask."""
    areas = measure_masks(masks)
    if areas.size and areas.min() < 0:
        raise ValueError(f"mask number {int(areas.argmin())} is not an RLE, or its runs do not fill its size")
    return areas


def _batches(masks: list) -> list[list]:
    """Parts of `masks`, because pycocotools 2.0.11 with numpy 2 fails on more than 255 at a time."""
    return [masks[start : start + 255] for start in range(0, len(masks), 255)]


# ----------------------------------------------------------------------------------------------------- tracks of masks


@dataclass(frozen=True)
class Tubes:
    """The masks of several tracks, ready to be compared.

    `tracks` are lists of RLEs or None, one per frame. The arrays have one entry per mask, those of track i from
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
        """The tubes of RLEs; ValueError if `measure_masks` gives -1 for one."""
        offsets = np.array(list(accumulate(map(len, tracks), initial=0)), np.int64)
        tubes = cls(tracks, offsets, *_read_masks(list(chain.from_iterable(tracks))))
        if tubes.areas.size and tubes.areas.min() < 0:
            raise ValueError("a mask is not an RLE, or its runs do not fill its size")
        return tubes

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

    After the end of the shorter track of a pair, and where the two masks differ in size, both are 0. The number of
    frames is the smaller of both tubes' longest tracks. Either may be empty.
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
    # After its end a track has the size -1, which is that of no mask, and the area 0.
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
    return np.maximum(ious, 0).transpose(1, 2, 0)  # the library gives -1 for masks of different size


# ---------------------------------------------------------------------------------------- without the native kernels


def _read_masks(masks: list[dict | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray | None]:
    """`areas`, `sizes`, `edges` and `starts` of masks, as `Tubes` holds them."""
    if _mask_kernels is not None:
        return _mask_kernels.read_masks(masks, MAX_SIDE, MAX_PIXELS)
    seen: dict[int, tuple[Any, int]] = {}
    known = [_size_and_text(mask, seen) for mask in masks]
    sizes = np.array([size for size, _ in known], np.int64)
    lengths = np.array([len(text) for _, text in known], np.int64)
    areas, read = np.zeros((2, len(masks)), np.int64)
    if lengths.any():
        runs, firsts = _read_runs(b"".join(text for _, text in known), lengths[lengths > 0])
        total = np.add.reduceat(runs, firsts)
        if runs.min() < 0:
            total[np.minimum.reduceat(runs, firsts) < 0] = -1
        read[lengths > 0] = total
        # Among all runs, those of set pixels have odd places in the masks that begin at an even one, and vice versa.
        np.negative(runs[::2], out=runs[::2])
        odd_less_even = np.add.reduceat(runs, firsts)
        areas[lengths > 0] = (total + np.where(firsts % 2, -odd_less_even, odd_less_even)) // 2
    pixels = (sizes >> 32) * (sizes & 0xFFFFFFFF)
    return np.where(pixels == read, areas, -1), sizes, None, None


def _size_and_text(mask: Any, seen: dict[int, tuple[Any, int]]) -> tuple[int, bytes]:
    """The height and width of a mask as one number, and its counts; -1, which no counts fill, if it is not an RLE.

    `seen` keeps sizes by their id, for the masks of a file share them.
    """
    if mask is None:
        return 0, b""
    try:
        size, counts = mask["size"], mask["counts"]
        if id(size) not in seen:
            height, width = _plain_size(size)
            seen[id(size)] = size, (height << 32) + width
        return seen[id(size)][1], _as_bytes(counts)
    except (InputError, TypeError, KeyError, AttributeError):
        return -1, b""


def _as_bytes(counts: str | bytes) -> bytes:
    return counts if isinstance(counts, bytes) else counts.encode("ascii", errors="replace")


def _read_runs(text: bytes, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The runs of masks one after another, int64, of unset and of set pixels in turn; the place of each mask's first.

    `text` holds the counts of all masks, joined; `lengths` holds how many characters each has, none 0. A mask with
    wrong counts gets a negative run.
    """
    codes = np.frombuffer(text, np.uint8) - np.uint8(48)
    mask_ends = np.cumsum(lengths) - 1
    is_last = codes < 0x20
    is_wrong = ~is_last[mask_ends]
    if codes.max() > 63:
        is_wrong |= np.maximum.reduceat(codes, mask_ends + 1 - lengths) > 63
    is_last[mask_ends] = True  # so that a number that is cut off stays in its own mask
    ends = np.flatnonzero(is_last)
    digits = ends.copy()
    digits[0] += 1
    digits[1:] -= ends[:-1]
    numbers = ((codes[ends] & 0x1F) ^ 0x10).astype(np.int32) - 0x10  # with the sign
    longer = np.flatnonzero(digits > 1)
    for place in range(1, LONGEST_NUMBER):
        numbers[longer] = (numbers[longer] << 5) + (codes[ends[longer] - place] & 0x1F)
        longer = longer[digits[longer] > place + 1]

    mask_ends = np.searchsorted(ends, mask_ends, side="right")  # now among the numbers
    firsts = np.concatenate(([0], mask_ends[:-1]))
    if longer.size:
        is_wrong |= np.maximum.reduceat(digits, firsts) > LONGEST_NUMBER
    # From the fourth on, a run is stored as the difference to the one before the last: a sum over every other number
    # undoes that, if the first is left out.
    first_runs = numbers[firsts]
    numbers[firsts] = 0
    runs = np.empty(len(numbers), np.int64)
    for parity in (0, 1):
        sums = np.concatenate(([0], np.cumsum(numbers[parity::2], dtype=np.int64)))
        starts, stops = ((places + 1 - parity) // 2 for places in (firsts, mask_ends))
        runs[parity::2] = sums[1:] - np.repeat(sums[starts], stops - starts)
    runs[firsts] = np.where(is_wrong, -1, first_runs)
    return runs, firsts
