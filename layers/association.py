"""Association of detections with known objects (STMask, section 3.3; affinity of MaskTrack R-CNN, ICCV 2019)."""

from dataclasses import dataclass, fields, replace
from itertools import count

import torch
from torch import Tensor

from layers.box_utils import box_iou, centers_of
from layers.mask_utils import mask_iou, translate
from utils.structures import Detections, Tracks
from ytvis.score.tracking import best_pairs

LOST = -1  # the row of a detection whose object another detection took


@dataclass(frozen=True)
class Affinity:
    """How well detections fit known objects.

    `match_coeff` are the weights of (detection score, mask IoU, box IoU, same label); the embeddings' similarity
    (cos + 1) / 2 has weight 1, and is 0 where there are none. The dummy column "new object" has similarity
    `new_object_similarity`, both IoUs `new_object_iou` and the same label.
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
            similarity = (detections.embeddings @ tracks.embeddings.t() + 1) / 2
        same_label = (detections.labels[:, None] == tracks.labels[None]).to(similarity.dtype)
        return self.combine(similarity, detections.scores, mask_ious, box_ious, same_label)

    def combine(
        self, similarity: Tensor, scores: Tensor, mask_ious: Tensor, box_ious: Tensor, same_label: Tensor
    ) -> Tensor:
        """The weighted sum [N,1+M] of four [N,M] terms and the detections' `scores` [N]."""
        _, mask_weight, box_weight, label_weight = self.match_coeff
        known = similarity + mask_weight * mask_ious + box_weight * box_ious + label_weight * same_label
        dummy = self.new_object_similarity + (mask_weight + box_weight) * self.new_object_iou + label_weight
        dummies = known.new_full((len(known), 1), dummy)
        return torch.cat((dummies, known), dim=1) + self.match_coeff[0] * scores[:, None]


def binary_mask_iou(detections: Detections, tracks: Tracks) -> Tensor:
    """IoU [N,M] of the masks of `detections` and `tracks`, binarised at 0.5."""
    return mask_iou(detections.masks > 0.5, tracks.masks > 0.5)


def assign(affinity: Tensor, joint: bool = False) -> Tensor:
    """The row of each detection's object, [N] int64: 0…M−1 known, M, M+1, … new, `LOST` (−1).

    `affinity` [N,1+M] is `Affinity`'s, with detections by falling score. Each takes its best column; an object that two
    detections claim goes to the first. With `joint`, the detections share the objects so that the sum of what they gain
    over the dummy is greatest. A detection that fits known objects, but gets none of them, is lost.
    """
    num_known = affinity.shape[1] - 1
    claims = (affinity.argmax(dim=1) - 1).tolist() if len(affinity) else []
    if joint:
        gains = (affinity[:, 1:] - affinity[:, :1]).clamp(min=0).double().cpu().numpy()
        pairs = zip(*(indices.tolist() for indices in best_pairs(gains)), strict=True)
        owners = {row: detection for detection, row in pairs if gains[detection, row] > 0}
    else:
        owners = {}
        for detection, row in enumerate(claims):
            owners.setdefault(row, detection)
    known = {detection: row for row, detection in owners.items()}
    new = count(num_known)
    rows = [known.get(detection, LOST) if claim >= 0 else next(new) for detection, claim in enumerate(claims)]
    return torch.tensor(rows, dtype=torch.int64, device=affinity.device)


def as_tracks(detections: Detections, track_ids: Tensor, moving: bool = False) -> Tracks:
    """`detections` as objects just seen, under `track_ids` [N]; if `moving`, with velocities, not yet known."""
    values = {f.name: getattr(detections, f.name) for f in fields(Detections)}
    velocities = torch.full_like(detections.boxes[:, :2], torch.nan) if moving else None
    return Tracks(**values, track_ids=track_ids, ages=torch.zeros_like(track_ids), velocities=velocities)


def move_on(tracks: Tracks, max_age: int) -> Tracks:
    """`tracks`, as last seen, where they are in the next frame at constant velocity, with binary masks.

    An object that has not been seen for more than `max_age` frames stays where it was after that many.
    """
    offsets = (tracks.ages.clamp(max=max_age) + 1)[:, None] * tracks.velocities.nan_to_num(0.0, 0.0, 0.0)
    height, width = tracks.masks.shape[1:]
    offsets_px = (offsets * offsets.new_tensor((width, height))).round().long()
    return replace(tracks, boxes=tracks.boxes + offsets.repeat(1, 2), masks=translate(tracks.masks > 0.5, offsets_px))


def with_velocities(seen: Tracks, tracks: Tracks, rows: Tensor, newest_share: float) -> Tracks:
    """The objects `seen` [N] in this frame with their velocities, from `tracks` [M] as last seen.

    `rows` are those of `assign`. A velocity is a running mean of the steps of the box's centre per frame, in which the
    newest has the weight `newest_share`, or the first step alone.
    """
    again = (rows != LOST) & (rows < len(tracks))
    last = tracks[rows[again]]
    steps = (centers_of(seen.boxes[again]) - centers_of(last.boxes)) / (last.ages + 1)[:, None]
    velocities = seen.velocities.clone()
    velocities[again] = steps.where(last.velocities.isnan(), last.velocities.lerp(steps, newest_share))
    return replace(seen, velocities=velocities)


def absorb(tracks: Tracks, seen: Tracks, rows: Tensor, updates: Tensor) -> Tracks:
    """`tracks` [M] updated with the objects of `seen` [N] at their `rows` (those of `assign`).

    New objects are appended; a known one takes its whole new state where `updates` [N] bool is true, and otherwise
    keeps its old one. Lost detections change nothing.
    """
    num_known = len(tracks)
    pool = Tracks.cat([tracks, seen])
    source = torch.arange(num_known + int((rows >= num_known).sum()), device=rows.device)
    takes = (rows >= num_known) | ((rows != LOST) & updates)
    source[rows[takes]] = num_known + takes.nonzero().squeeze(1)
    return pool[source]
