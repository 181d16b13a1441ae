"""Derives from predictions how the method found the objects of a frame: anchors, samples, shifts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layers.box_utils import decode
from layers.fpn import FINEST_LEVEL, level_sizes
from layers.prediction_head import PredictionHead
from utils.structures import FrameMeta, Predictions, Tracks

_SAME_BOX = 1e-6  # normalised; a detection's box is its anchor's, computed a second time


@dataclass(frozen=True)
class ObjectInternals:
    """How the method found one object of a frame, in pixels of that frame; boxes are x1 y1 x2 y2, points x y.

    `box` [4] and `mask` [h,w] in 0…1, at the prototypes' size without their padding, are the object's; `weights` [K] in
    −1…1 are those of the prototypes. If the object was known before, `last_box` [4] is its box in the frame before, and
    `shifted_box` [4] the one predicted by temporal fusion. If it was detected in this frame, `level` 3…7 is its pyramid
    level, `anchors` [k,4] are those of its cell, `kernel` is the number of its own, and with FCB `taps` [n,2] are
    the regular samples of that kernel and `samples` [n,2] the calibrated ones. Everything else is None.
    """

    track_id: int
    label: int
    score: float
    box: np.ndarray
    mask: np.ndarray
    weights: np.ndarray
    last_box: np.ndarray | None = None
    shifted_box: np.ndarray | None = None
    level: int | None = None
    kernel: int | None = None
    anchors: np.ndarray | None = None
    taps: np.ndarray | None = None
    samples: np.ndarray | None = None


@dataclass(frozen=True)
class AnchorPlace:
    """The place of an anchor: its `level` 3…7, which has `size_hw` cells, the `row` and `column` of its cell, and the
    number of its `kernel`, 0…k−1."""

    level: int
    size_hw: tuple[int, int]
    row: int
    column: int
    kernel: int


@torch.inference_mode()
def explain_objects(
    tracks: Tracks,
    last: Tracks | None,
    shifted: Tracks | None,
    predictions: Predictions,
    head: PredictionHead,
    meta: FrameMeta,
) -> list[ObjectInternals]:
    """How the method found each of `tracks` in the frame `meta`, from the network's `predictions` for it (B = 1).

    `last` are the objects known before, in the frame before; `shifted` are the same, moved to this frame by temporal
    fusion. Both are None without temporal fusion, and in the first frame.
    """
    to_pixels = torch.tensor(
        [padded / resized * side for side, resized, padded in
         zip(meta.original_hw[::-1], meta.resized_hw[::-1], meta.padded_hw[::-1], strict=True)]
    )  # fmt: skip
    rows = {} if last is None else {track_id: row for row, track_id in enumerate(last.track_ids.tolist())}

    def pixels(normalised: Tensor) -> np.ndarray:
        points = normalised.float().cpu().reshape(-1, 2) * to_pixels
        return points.reshape(normalised.shape).numpy()

    explained = []
    for index, track_id in enumerate(tracks.track_ids.tolist()):
        more: dict[str, Any] = {}
        if shifted is not None and track_id in rows:
            row = rows[track_id]
            more |= {"last_box": pixels(last.boxes[row]), "shifted_box": pixels(shifted.boxes[row])}
        anchor = find_anchor(tracks.boxes[index], predictions)
        if anchor is not None:
            more |= _of_anchor(anchor, predictions, head, meta.padded_hw, pixels)
        explained.append(
            ObjectInternals(
                track_id=track_id,
                label=int(tracks.labels[index]),
                score=float(tracks.scores[index]),
                box=pixels(tracks.boxes[index]),
                mask=without_padding(tracks.masks[index], meta).float().cpu().numpy(),
                weights=tracks.mask_coeffs[index].tanh().float().cpu().numpy(),
                **more,
            )
        )
    return explained


def without_padding(values: Tensor, meta: FrameMeta) -> Tensor:
    """A map [h,w,…] of the padded network input without its padding."""
    height, width = (
        round(side * resized / padded)
        for side, resized, padded in zip(values.shape[:2], meta.resized_hw, meta.padded_hw, strict=True)
    )
    return values[:height, :width]


def _of_anchor(anchor: int, predictions: Predictions, head: PredictionHead, input_hw, pixels) -> Mapping[str, Any]:
    """The fields of `ObjectInternals` that come from an object's anchor; {} for a head without FCA."""
    num_kernels = len(head.anchor_shapes)
    if not num_kernels:
        return {}
    place = anchor_place(anchor, input_hw, num_kernels)
    first = anchor - place.kernel
    anchors = predictions.anchors[first : first + num_kernels]
    boxes = decode(torch.zeros_like(anchors), anchors)  # no regression: the anchors themselves
    fields = {"level": place.level, "kernel": place.kernel, "anchors": pixels(boxes)}
    if head.calibrated:
        taps, samples = sampling_points(head, predictions.box_deltas[0, anchor].float(), place)
        fields |= {"taps": pixels(taps), "samples": pixels(samples)}
    return fields


def find_anchor(box: Tensor, predictions: Predictions) -> int | None:
    """The index of the anchor whose regression gave `box` [4], normalised, in the first image of the batch.

    None if the object was not detected in this frame, but predicted by temporal fusion.
    """
    boxes = decode(predictions.box_deltas[0].float(), predictions.anchors)
    distances = (boxes - box).abs().amax(dim=1)
    nearest = int(distances.argmin())
    return nearest if distances[nearest] < _SAME_BOX else None


def anchor_place(index: int, input_hw: Sequence[int], num_kernels: int) -> AnchorPlace:
    """The place of anchor `index`, for a network input of (H, W) and `num_kernels` anchors a cell.

    Raises:
        IndexError: there are fewer anchors.
    """
    rest = index
    for level, (height, width) in enumerate(level_sizes(input_hw), start=FINEST_LEVEL):
        count = height * width * num_kernels
        if 0 <= rest < count:
            cell, kernel = divmod(rest, num_kernels)
            return AnchorPlace(level, (height, width), *divmod(cell, width), kernel)
        rest -= count
    raise IndexError(f"anchor {index} of {index - rest}")


def sampling_points(head: PredictionHead, box_deltas: Tensor, place: AnchorPlace) -> tuple[Tensor, Tensor]:
    """(taps [kh·kw,2], samples [kh·kw,2]): the regular and the calibrated samples (FCB) of the kernel of the anchor at
    `place`, as x y normalised by the padded network input. `box_deltas` [4] are the anchor's regression values.

    Raises:
        ValueError: the head has no FCB.
    """
    offsets = head.sampling_offsets(box_deltas, place.kernel)
    kernel_height, kernel_width = head.conf_layer[place.kernel].kernel
    rows = torch.arange(kernel_height) - kernel_height // 2
    columns = torch.arange(kernel_width) - kernel_width // 2
    taps = torch.cartesian_prod(rows, columns).to(offsets)  # [kh·kw,2] as (dy, dx), like the offsets
    middle = offsets.new_tensor([place.row + 0.5, place.column + 0.5])
    cells = offsets.new_tensor(place.size_hw)
    return ((middle + taps) / cells).flip(1), ((middle + taps + offsets) / cells).flip(1)
