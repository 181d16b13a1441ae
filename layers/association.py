"""Association of detections with known objects (STMask, section 3.3; affinity of MaskTrack R-CNN, ICCV 2019)."""

from dataclasses import dataclass, fields, replace
from functools import reduce

import torch
from torch import Tensor

from layers.box_utils import box_iou, centers_of
from layers.compaction import LOWEST
from layers.mask_utils import mask_iou, translate
from utils.structures import Detections, Tracks
from ytvis.score.tracking import best_pairs

LOST = -1  # the row of a detection whose object another detection took


@dataclass(frozen=True)
class Affinity:
    """How well detections fit known objects.

    `match_coeff` are the weights of (detection score, mask IoU, box IoU, same label); the embeddings' similarity
    (cos + 1) / 2, the greatest of those with all embeddings of a track, has weight 1, and is 0 where there are none.
    The dummy column "new object" has similarity `new_object_similarity`, both IoUs `new_object_iou` and the same label.
    """

    match_coeff: tuple[float, float, float, float]
    new_object_similarity: float
    new_object_iou: float

    def __call__(self, detections: Detections, tracks: Tracks, mask_ious: Tensor) -> Tensor:
        """[N,1+M]: the dummy, then the M `tracks`; `mask_ious` [N,M] is that of `binary_mask_iou`."""
        box_ious = box_iou(detections.boxes, tracks.boxes)
        if detections.embeddings is None:
            similarity = torch.zeros_like(box_ious)
        else:
            past = () if tracks.past_embeddings is None else tracks.past_embeddings.unbind(dim=1)
            # A product of matrices would round equal rows differently, and by shape: ties are broken by order.
            cosines = ((detections.embeddings[:, None] * theirs).sum(dim=2) for theirs in (tracks.embeddings, *past))
            similarity = (reduce(torch.maximum, cosines) + 1) / 2
        same_label = (detections.labels[:, None] == tracks.labels[None]).to(similarity.dtype)
        return self.combine(similarity, detections.scores, mask_ious, box_ious, same_label)

    def combine(
        self, similarity: Tensor, scores: Tensor, mask_ious: Tensor, box_ious: Tensor, same_label: Tensor
    ) -> Tensor:
        """The weighted sum [N,1+M] of four [N,M] terms and the detections' `scores` [N]."""
        _, mask_weight, box_weight, label_weight = self.match_coeff
        known = similarity + mask_weight * mask_ious + box_weight * box_ious + label_weight * same_label
        dummy = self.new_object_similarity + (mask_weight + box_weight) * self.new_object_iou + label_weight
        dummies = known.new_full((known.shape[0], 1), dummy)
        return torch.cat((dummies, known), dim=1) + self.match_coeff[0] * scores[:, None]


def binary_mask_iou(detections: Detections, tracks: Tracks) -> Tensor:
    """IoU [N,M] of the masks of `detections` and `tracks`, binarised at 0.5."""
    return mask_iou(detections.masks > 0.5, tracks.masks > 0.5)


def assign(affinity: Tensor, are_real: Tensor, are_known: Tensor, joint: bool = False) -> Tensor:
    """The row of each detection's object, [N] int64: below M a known one, from the number of known ones on a new one,
    `LOST` (−1).

    `affinity` [N,1+M] is `Affinity`'s, with detections by falling score; those that `are_real` [N] bool and the objects
    that `are_known` [M] bool count, and these come first. Each detection takes its best column; an object that two
    detections claim goes to the first. With `joint`, the detections share the objects so that the sum of what they gain
    over the dummy is greatest. A detection that fits known objects, but gets none of them, is lost.
    """
    num_rows = are_known.shape[0]
    fits = torch.cat((affinity[:, :1], torch.where(are_known, affinity[:, 1:], LOWEST)), dim=1)
    column = fits.argmax(dim=1)  # the first of equal ones
    if joint:
        rows = _share(torch.where(are_real[:, None], fits[:, 1:] - fits[:, :1], 0))
    else:
        order = torch.arange(column.shape[0], device=column.device)
        claimed = torch.where(are_real & (column > 0), column - 1, num_rows)
        # Pairs of detections, not a scatter_reduce: OpenVINO does not convert it.
        is_late = ((claimed[:, None] == claimed) & (order[:, None] > order)).any(dim=1)
        rows = torch.where((claimed < num_rows) & ~is_late, claimed, LOST)
    is_new = are_real & (column == 0)
    return torch.where(is_new, are_known.sum() + is_new.cumsum(0, dtype=torch.int64) - 1, rows)


def _share(gains: Tensor) -> Tensor:
    """The object [N] int64 of each detection, or `LOST`, with the greatest sum of `gains` [N,M]; found on the host."""
    values = gains.clamp(min=0).double().cpu().numpy()
    rows = torch.full((len(values),), LOST)
    for detection, row in zip(*best_pairs(values), strict=True):
        if values[detection, row] > 0:
            rows[detection] = int(row)
    return rows.to(gains.device)


def as_tracks(detections: Detections, track_ids: Tensor, moving: bool = False, num_past: int = 0) -> Tracks:
    """`detections` as objects just seen, under `track_ids` [N], for the first time; if `moving`, with velocities, not
    yet known, and with `num_past` past embeddings each, if any."""
    values = {f.name: getattr(detections, f.name) for f in fields(Detections)}
    velocities = torch.full_like(detections.boxes[:, :2], torch.nan) if moving else None
    past = detections.embeddings[:, None].expand(-1, num_past, -1) if num_past else None
    ages = torch.zeros_like(track_ids)
    return Tracks(**values, track_ids=track_ids, ages=ages, velocities=velocities, past_embeddings=past)


def move_on(tracks: Tracks, max_age: int) -> Tracks:
    """`tracks`, as last seen, where they are in the next frame at constant velocity, with binary masks.

    An object that has not been seen for more than `max_age` frames stays where it was after that many.
    """
    offsets = (tracks.ages.clamp(max=max_age) + 1)[:, None] * tracks.velocities.nan_to_num(0.0, 0.0, 0.0)
    height, width = tracks.masks.shape[1:]
    offsets_px = torch.stack((offsets[:, 0] * width, offsets[:, 1] * height), dim=1).round().long()
    return replace(tracks, boxes=tracks.boxes + offsets.repeat(1, 2), masks=translate(tracks.masks > 0.5, offsets_px))


def with_velocities(seen: Tracks, tracks: Tracks, rows: Tensor, are_again: Tensor, newest_share: float) -> Tracks:
    """The objects `seen` [N] in this frame with their velocities, from `tracks` [M] as last seen.

    Those that `are_again` [N] bool were at `rows` [N] of `tracks`. A velocity is a running mean of the steps of the
    box's centre per frame, in which the newest has the weight `newest_share`, or the first step alone.
    """
    if not tracks.boxes.shape[0]:
        return seen
    rows = torch.where(are_again, rows, 0)
    steps = (centers_of(seen.boxes) - centers_of(tracks.boxes[rows])) / (tracks.ages[rows] + 1)[:, None]
    means = tracks.velocities[rows]
    means = steps.where(means.isnan(), means.lerp(steps, newest_share))
    return replace(seen, velocities=means.where(are_again[:, None], seen.velocities))


def with_past_embeddings(seen: Tracks, tracks: Tracks, rows: Tensor, are_again: Tensor) -> Tracks:
    """The objects `seen` [N] in this frame with the embeddings of their last detections, from `tracks` [M] as last
    seen; those that `are_again` [N] bool were at `rows` [N] of `tracks`."""
    if not tracks.boxes.shape[0]:
        return seen
    rows = torch.where(are_again, rows, 0)
    past = torch.cat((tracks.embeddings[rows, None], tracks.past_embeddings[rows, :-1]), dim=1)
    return replace(seen, past_embeddings=past.where(are_again[:, None, None], seen.past_embeddings))


def absorb(rows: Tensor, updates: Tensor, are_known: Tensor) -> tuple[Tensor, Tensor]:
    """(source [M+N] int64, are known [M+N] bool) of the objects after a frame: where the state of each is, among the M
    rows of known objects and the N of detections after them.

    `rows` are those of `assign`. New objects follow the known ones that `are_known` [M] bool, the first ones; a known
    one takes its whole new state where `updates` [N] bool is true, and otherwise keeps its old one. Lost detections
    change nothing.
    """
    num_rows, num_known = are_known.shape[0], are_known.sum()
    is_new = rows >= num_known
    source = torch.arange(num_rows + rows.shape[0], device=rows.device)
    takers = torch.where(is_new | ((rows != LOST) & updates), rows, source.shape[0])  # a last row, cut off, for none
    places = torch.cat((source, source[-1:])).scatter(0, takers, source[num_rows:])[: source.shape[0]]
    return places, source < num_known + is_new.sum()
