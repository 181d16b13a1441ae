"""The types of tensors that several modules share.

Letters used in shapes: B images, A anchors, C classes without background, K prototypes, E embedding length, N objects,
H×W network input, h×w prototype map. Boxes are x1 y1 x2 y2 normalised by the padded network input, unless the name
says otherwise (`anchors_cxcywh`, `boxes_px`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from ytvis.pixels import FrameMeta


@dataclass(frozen=True)
class FrameInput:
    """One frame ready for the network: `image` is what `data.transforms.FrameTransform.for_network` makes of it, a
    picture [h,w,3] uint8 or the network input [3,H,W] float32; `frame` [h,w,3] uint8 RGB if kept.

    `error` is None, or the reason, in one line, that the frame could not be read; then `image` and `frame` are None.
    `is_last` marks the last frame of its video.
    """

    meta: FrameMeta
    image: Tensor | None
    is_last: bool
    frame: np.ndarray | None = None
    error: str | None = None


def map_tensors(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """`value` with `function` applied to every tensor in it, through nested dataclasses, tuples and lists."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, tuple | list):
        return type(value)(map_tensors(item, function) for item in value)
    if is_dataclass(value):
        return replace(value, **{f.name: map_tensors(getattr(value, f.name), function) for f in fields(value)})
    return value


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in `value`, in the order in which `map_tensors` meets them."""
    tensors: list[Tensor] = []
    map_tensors(value, tensors.append)
    return tensors


def with_tensors(value: Any, tensors: Iterable[Tensor]) -> Any:
    """`value` with `tensors` in place of `tensors_in(value)`."""
    replacements = iter(tensors)
    return map_tensors(value, lambda _: next(replacements))


class TensorFields:
    """For dataclasses of tensors: copies of the object on other devices or in other memory."""

    def to(self, *args, **kwargs) -> Self:
        """The object with `Tensor.to(*args, **kwargs)` applied to every tensor."""
        return map_tensors(self, lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Self:
        """The object in page-locked memory, for fast copies to an accelerator; DataLoader calls this."""
        return map_tensors(self, lambda tensor: tensor.pin_memory())


class PerObject(TensorFields):
    """For dataclasses whose fields are tensors with one row per object: length, indexing, concatenation.

    A field without values of the network is None, in all objects of a kind.
    """

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self, index) -> Self:
        """The selected objects: `index` is an int (one object, N = 1) or anything that indexes the first axis."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"object {index} of {len(self)}")
            index = slice(index, index + 1 or None)
        return map_tensors(self, lambda tensor: tensor[index])

    @classmethod
    def cat(cls, parts: list[Self]) -> Self:
        """Concatenates the objects of `parts`, at least one."""
        columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(cls)}
        return cls(**{name: None if column[0] is None else torch.cat(column) for name, column in columns.items()})


@dataclass(frozen=True)
class FrameAnnotations(PerObject):
    """Ground truth of one frame in the video's own pixels: `boxes_px` [N,4] float32 x1 y1 x2 y2, including the last
    pixel; `labels` [N] int64 1…C, `masks` [N,height,width] bool, `instance_ids` [N] int64, the annotations' ids."""

    boxes_px: Tensor
    labels: Tensor
    masks: Tensor
    instance_ids: Tensor


@dataclass(frozen=True)
class FrameTargets(PerObject):
    """Ground truth of one frame: `boxes` [N,4], `labels` [N] 1…C, `masks` [N,H,W] 0/1 at the network input's size,
    `instance_ids` [N], unique over a batch."""

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    instance_ids: Tensor


@dataclass(frozen=True)
class Clip(TensorFields):
    """T frames of one video with their truth: `frames` [T,3,H,W] float32 network input, or pictures [T,h,w,3] uint8 RGB
    that become it on the network's device; `targets` one per frame.

    `known` [C+1] bool is False for the classes that the clip's data set does not label, which its background may show;
    background itself is True. None: all are labelled. `colours` is None or still changes the colours of pictures
    [...,3,h,w] uint8.
    """

    frames: Tensor
    targets: tuple[FrameTargets, ...]
    known: Tensor | None = None
    colours: Callable[[Tensor], Tensor] | None = None

    def of_part(self, part: int, num_parts: int, known: Tensor | None) -> Self:
        """The clip as one of set `part` of `num_parts` joined ones: no other set has its `instance_ids`."""
        targets = tuple(replace(t, instance_ids=t.instance_ids * num_parts + part) for t in self.targets)
        return replace(self, targets=targets, known=known)


@dataclass(frozen=True)
class ClipTargets(TensorFields):
    """Ground truth of B clips, of I frames together, in few tensors; `targets[clip][frame]` is that of a frame.

    `truth` has the N instances of all frames, clip by clip, `image` [N] int64 the frame of each, counted through all
    clips. `rows` [I,M] int64 are the rows of each frame in `truth`, −1 after its last one. On the host are `counts`,
    the number of instances of each frame of each clip, and `candidates` [N] if counted: more anchors than may learn an
    instance (`layers.anchor_targets.count_candidates`), or None.
    """

    truth: FrameTargets
    image: Tensor
    rows: Tensor
    counts: tuple[tuple[int, ...], ...]
    candidates: np.ndarray | None = None

    @classmethod
    def pack(cls, clips: Sequence[Sequence[FrameTargets]] | Self) -> Self:
        """The targets of `clips`, at least one with at least one frame."""
        if isinstance(clips, cls):
            return clips
        counts = tuple(tuple(map(len, clip)) for clip in clips)
        truth = FrameTargets.cat([frame for clip in clips for frame in clip])
        of_images = torch.tensor([count for clip in counts for count in clip])
        image = torch.repeat_interleave(torch.arange(len(of_images)), of_images)
        place = torch.arange(int(of_images.max()))
        rows = (of_images.cumsum(0) - of_images)[:, None] + place
        rows = rows.masked_fill(place >= of_images[:, None], -1)
        device = truth.boxes.device
        return cls(truth, image.to(device), rows.to(device), counts)

    def candidates_of_frames(self) -> np.ndarray:
        """[B,T]: the sums of the candidates of each frame; all clips have T frames."""
        ends = np.cumsum([0, *(count for clip in self.counts for count in clip)])
        return np.diff(np.cumsum([0, *self.candidates])[ends]).reshape(len(self.counts), -1)

    def __len__(self) -> int:
        """The number of clips."""
        return len(self.counts)

    def __getitem__(self, index: int | slice) -> tuple[FrameTargets, ...] | Self:
        """The truth of the frames of clip `index`, or the targets of a slice of the clips, without copies."""
        clips = range(len(self))[index]
        if isinstance(clips, int):
            first = sum(map(sum, self.counts[:clips]))
            ends = list(accumulate(self.counts[clips], initial=first))
            return tuple(self.truth[start:end] for start, end in pairwise(ends))
        image, row = (
            [sum(map(measure, self.counts[:clip])) for clip in (clips.start, clips.stop)] for measure in (len, sum)
        )
        of_part = self.rows[slice(*image)]
        return type(self)(
            self.truth[slice(*row)],
            self.image[slice(*row)] - image[0],
            torch.where(of_part < 0, -1, of_part - row[0]),
            self.counts[clips.start : clips.stop],
            None if self.candidates is None else self.candidates[slice(*row)],
        )


@dataclass(frozen=True)
class ClipBatch(TensorFields):
    """B clips of one size: `frames` [B,T,3,H,W] or [B,T,h,w,3], `targets[clip][frame]`, `known` [B,C+1] bool or None,
    and the `colours` of each clip or None, as in `Clip`."""

    frames: Tensor
    targets: ClipTargets | tuple[tuple[FrameTargets, ...], ...]
    known: Tensor | None = None
    colours: tuple[Callable[[Tensor], Tensor] | None, ...] | None = None

    def split(self, num_parts: int) -> list[Self]:
        """Splits the batch into `num_parts` equal parts, its clips in order, without copies."""
        size = len(self.targets) // num_parts
        parts = [slice(start, start + size) for start in range(0, len(self.targets), size)]
        known, colours = self.known, self.colours
        return [
            type(self)(
                self.frames[part],
                self.targets[part],
                None if known is None else known[part],
                None if colours is None else colours[part],
            )
            for part in parts
        ]


@dataclass(frozen=True)
class CropBatch(PerObject):
    """N pictures of single objects: `images` [N,3,S,S] network input, `labels` [N] int64 1…C, 0 for background,
    `known` [N,C+1] bool or None as in `Clip`."""

    images: Tensor
    labels: Tensor
    known: Tensor | None = None

    def of_part(self, part: int, num_parts: int, known: Tensor | None) -> Self:
        """The crops as some of set `part` of `num_parts` joined ones."""
        return replace(self, known=None if known is None else known.expand(len(self), -1))


@dataclass(frozen=True)
class FusionFeatures(TensorFields):
    """The features of a batch of frames for temporal fusion, both at P4 (stride 16).

    `pyramid` [B,256,H/16,W/16] is P4, `shared` of the same shape the head's shared feature U there, after its ReLU.
    """

    pyramid: Tensor
    shared: Tensor

    def __getitem__(self, index: slice) -> Self:
        return map_tensors(self, lambda tensor: tensor[index])


class AtAnchors(Protocol):
    """Replaces a tensor [B,A,D] if only a few of its rows are needed."""

    def __getitem__(self, at: tuple[int, Tensor]) -> Tensor:
        """[n,D] at [index, anchors]: the rows of image `index` at `anchors` [n]."""


@dataclass(frozen=True)
class Predictions(TensorFields):
    """The network's output for B images.

    `box_deltas` [B,A,4] regression values; `class_logits` [B,A,C+1], 0 is background; `centerness` [B,A] in -1…1;
    `mask_coeffs` [B,A,K] before tanh; `embeddings` [B,A,E] of unit length; `prototypes` [B,h,w,K] ≥ 0; `anchors`
    [A,4] as cx cy w h. Anchors run over levels P3…P7, rows, columns, kernels (fastest). `finest` is P3 [B,C,h,w], for
    a loss on its cells. A field that is `AtAnchors` instead of a tensor is computed at some anchors only. `centerness`
    and `embeddings` are None if the head has no such outputs (YOLACT).
    """

    box_deltas: Tensor
    class_logits: Tensor
    centerness: Tensor | None
    mask_coeffs: Tensor | AtAnchors
    embeddings: Tensor | AtAnchors | None
    prototypes: Tensor
    anchors: Tensor
    fusion_features: FusionFeatures
    finest: Tensor | None = None

    def of_image(self, index: int) -> Self:
        """Those for image `index` alone (B = 1). No field may be `AtAnchors`."""
        image = map_tensors(self, lambda tensor: tensor[index : index + 1])
        return replace(image, anchors=self.anchors)


@dataclass(frozen=True)
class Detections(PerObject):
    """Objects detected in one frame, in NMS order.

    `boxes` [N,4]; `scores` [N] class probability × centerness; `labels` [N] 1…C; `centerness` [N]; `mask_coeffs`
    [N,K] before tanh; `embeddings` [N,E] of unit length; `masks` [N,h,w] in 0…1, zero outside the box. `centerness`
    and `embeddings` are None if the network predicts no such values; then `scores` are the class probability.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    centerness: Tensor | None
    mask_coeffs: Tensor
    embeddings: Tensor | None
    masks: Tensor


@dataclass(frozen=True)
class Tracks(Detections):
    """Objects of a video in one frame: `Detections` with `track_ids` [N] int64 from 0 and `ages` [N] int64.

    The age is the number of frames since the object was last matched with a detection. `velocities` [N,2], of
    the boxes' centres per frame, are NaN for objects seen once, and None where the tracker does not need them.
    `past_embeddings` [N,K-1,E] are those of the detections before the last one, newest first, and None where the
    tracker does not need them; of an object that was detected less often, the first is repeated.
    """

    track_ids: Tensor
    ages: Tensor
    velocities: Tensor | None = field(default=None, kw_only=True)
    past_embeddings: Tensor | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class RescoredTracks(Tracks):
    """Tracks with the output of mask rescoring: `mask_ious` [N] ≥ 0 is the expected IoU of each mask with the truth.
    `scores` do not include it."""

    mask_ious: Tensor


@dataclass(frozen=True)
class FrameObjects(PerObject):
    """Tracks in the video's own pixels: `boxes_px` [N,4] int64 x1 y1 x2 y2, `scores` [N], `labels` [N] 1…C,
    `track_ids` [N], `masks` [N,height,width] bool, `shifted` [N] bool: not detected here, but predicted by temporal
    fusion alone."""

    boxes_px: Tensor
    scores: Tensor
    labels: Tensor
    track_ids: Tensor
    masks: Tensor
    shifted: Tensor


@dataclass(frozen=True)
class FrameResult:
    """One frame of a video after tracking: its objects, and the frame's pixels if its source kept them.

    `objects` is None if the frame could not be read; `error` is then the reason.
    """

    meta: FrameMeta
    objects: FrameObjects | None
    is_last: bool
    frame: np.ndarray | None = None
    error: str | None = None
