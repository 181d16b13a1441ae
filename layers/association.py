"""Association of detections with known objects (STMask, section 3.3; affinity of MaskTrack R-CNN, ICCV 2019)."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from layers.box_utils import box_iou
from layers.mask_utils import mask_iou
from utils.structures import Detections, Tracks

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


def assign(affinity: Tensor) -> Tensor:
    """The row of each detection's object, [N] int64: 0…M−1 known, M, M+1, … new, `LOST` (−1).

    `affinity` [N,1+M] is `Affinity`'s, with detections by falling score. Each takes its best column; an object that two
    detections claim goes to the first.
    """
    num_known = affinity.shape[1] - 1
    taken: set[int] = set()
    rows = []
    num_objects = num_known
    for column in affinity.argmax(dim=1).tolist() if len(affinity) else []:
        row = column - 1
        if column == 0:
            row = num_objects
            num_objects += 1
        elif row in taken:
            row = LOST
        taken.add(row)
        rows.append(row)
    return torch.tensor(rows, dtype=torch.int64, device=affinity.device)


def as_tracks(detections: Detections, track_ids: Tensor) -> Tracks:
    """`detections` as objects just seen, under `track_ids` [N]."""
    values = {f.name: getattr(detections, f.name) for f in fields(Detections)}
    return Tracks(**values, track_ids=track_ids, ages=torch.zeros_like(track_ids))


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
