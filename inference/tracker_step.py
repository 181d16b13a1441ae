"""The tracker's step as a pure function: (state of a video, predictions for a frame) → (state, what is reported).

It runs with as many rows as there are objects, or in fixed shapes (`layers.compaction`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data.config import Config, TrackingConfig
from inference.network import Network
from layers.association import (
    LOST,
    Affinity,
    absorb,
    as_tracks,
    assign,
    binary_mask_iou,
    move_on,
    with_past_embeddings,
    with_velocities,
)
from layers.compaction import Compaction, drop_rows
from layers.detection import Detector
from layers.temporal_fusion import shift_tracks
from utils.structures import Detections, FusionFeatures, Predictions, RescoredTracks, TensorFields, Tracks
from utils.timer import NoTimer, StageTimer

# As published: without temporal fusion, a detection whose mask IoU with two objects exceeds this updates neither.
AMBIGUOUS_MASK_IOU = 0.3
MIN_MASK_PIXELS = 2  # of an object that temporal fusion shows


@dataclass(frozen=True)
class TrackerState(TensorFields):
    """What is known of a video: `known` [M], of which the first ones `are_known` [M] bool, both None before the first
    frame; `next_id` [] int64; with temporal fusion the last frame's `features` (B = 1)."""

    known: Tracks | None
    are_known: Tensor | None
    next_id: Tensor
    features: FusionFeatures | None = None


@dataclass(frozen=True)
class Reported(TensorFields):
    """What is reported for a frame: of `tracks` [R] the first ones, which `are_real` [R] bool; `num_known` [] int64 is
    the number of known objects after it."""

    tracks: Tracks
    are_real: Tensor
    num_known: Tensor


@dataclass(frozen=True)
class TrackerStep:
    """Detects, shifts, matches, forgets and reports, with the `settings` of a config.

    With `fusion` the temporal net shifts known objects; otherwise detections are matched with what was last seen, which
    moves on at constant velocity if the settings have `motion`.
    `rescores` adds the mask IoUs that `network` expects, `binary_masks` reports masks of 0 and 1. Objects that have not
    been seen for more than `max_track_age` frames are forgotten, with 0 never; a tensor [] int64 is always a limit.
    `compact` is one of `layers.compaction`.
    """

    network: Network
    detector: Detector
    affinity: Affinity
    settings: TrackingConfig
    fusion: bool
    rescores: bool
    binary_masks: bool
    max_track_age: int | Tensor
    compact: Compaction = drop_rows
    timer: StageTimer | NoTimer = NoTimer()

    @property
    def moves(self) -> bool:
        """Whether known objects move on at constant velocity."""
        return not self.fusion and self.settings.motion > 0

    @property
    def num_past(self) -> int:
        """The number of embeddings kept per object, besides that of its last detection."""
        return self.settings.memory - 1

    def __call__(self, state: TrackerState, predictions: Predictions, index: int = 0) -> tuple[TrackerState, Reported]:
        """Returns (the state after the frame, what is reported for it); the frame is image `index` of the batch."""
        with self.timer("detect"):
            detections, are_real = self.detector.detect(predictions, index, self.compact)
        with self.timer("track"):
            if state.known is None:
                nothing = as_tracks(detections[:0], detections.labels[:0], self.moves, self.num_past)
                state = replace(state, known=nothing, are_known=are_real[:0])
            if self.fusion:
                state = self.shift(state, predictions, index)
            state, seen, are_seen = self._match(state, detections, are_real)
            tracks, are_shown = (state.known, self._are_visible(state)) if self.fusion else (seen, are_seen)
            index, are_real = self.compact(are_shown)
            tracks = replace(tracks[index], past_embeddings=None)  # not needed outside the tracker
        if self.rescores:
            with self.timer("detect"):
                mask_ious = self.network.mask_ious(tracks.masks, tracks.labels)
            tracks = RescoredTracks(**vars(tracks), mask_ious=mask_ious)
        if self.binary_masks:
            tracks = replace(tracks, masks=(tracks.masks > 0.5).float())
        return state, Reported(tracks, are_real, state.are_known.sum())

    def shift(self, state: TrackerState, predictions: Predictions, index: int) -> TrackerState:
        """Shifts the known objects to where temporal fusion expects them in this frame, and stores its features."""
        known = state.known
        features = predictions.fusion_features[index : index + 1]
        if known.boxes.shape[0]:
            changes = self.network.changes(state.features, features, known.boxes)
            known = shift_tracks(known, *changes, predictions.prototypes[index].float(), self.settings.score_decay)
        return replace(state, known=known, features=features)

    def _match(
        self, state: TrackerState, detections: Detections, are_real: Tensor
    ) -> tuple[TrackerState, Tracks, Tensor]:
        """(the state after this frame, the N detections, which of them found or became a known object [N] bool)."""
        known, are_known, settings = state.known, state.are_known, self.settings
        expected = move_on(known, settings.max_hidden_age) if self.moves else known
        mask_ious = binary_mask_iou(detections, expected)
        rows = assign(self.affinity(detections, expected, mask_ious), are_real, are_known, settings.joint)
        are_new = rows >= are_known.sum()
        new_ids = state.next_id + are_new.cumsum(0, dtype=torch.int64) - 1
        ids = torch.cat((known.track_ids, new_ids))[rows.clamp(min=0)]  # right where a known object is found again
        seen = as_tracks(detections, torch.where(are_new, new_ids, ids), self.moves, self.num_past)
        updates = torch.ones_like(are_real)
        if self.moves:
            seen = with_velocities(seen, known, rows, (rows != LOST) & ~are_new, settings.motion)
        elif not self.fusion:
            updates = ((mask_ious > AMBIGUOUS_MASK_IOU) & are_known).sum(dim=1) < 2
        if self.num_past:
            seen = with_past_embeddings(seen, known, rows, (rows != LOST) & ~are_new)
        if not self.fusion:
            are_found = (rows == torch.arange(known.boxes.shape[0], device=rows.device)[:, None]).any(dim=1)
            known = replace(known, ages=torch.where(are_found, 0, known.ages + 1))
        everything = Tracks.cat([known, seen])
        source, are_known = absorb(rows, updates, are_known)
        if isinstance(self.max_track_age, Tensor) or self.max_track_age:
            are_known = are_known & (everything.ages[source] <= self.max_track_age)
        index, are_known = self.compact(are_known)
        next_id = state.next_id + are_new.sum()
        return replace(state, known=everything[source[index]], are_known=are_known, next_id=next_id), seen, rows != LOST

    def _are_visible(self, state: TrackerState) -> Tensor:
        """Which of the known objects [M] bool are reported for this frame."""
        known, settings = state.known, self.settings
        pixels = (known.masks > 0.5).flatten(1).sum(dim=1)
        return (
            state.are_known
            & (known.ages <= settings.max_hidden_age)
            & (pixels >= MIN_MASK_PIXELS)
            & (known.scores > settings.score_threshold)
        )


def make_step(
    config: Config,
    network: Network,
    compact: Compaction,
    cross_class_nms: bool | None = None,
    max_track_age: int | None = None,
    timer: StageTimer | NoTimer | None = None,
) -> TrackerStep:
    """The step of a config's tracker; `cross_class_nms` and `max_track_age` override the config's."""
    tracking, fusion = config.tracking, config.temporal_fusion.enabled
    return TrackerStep(
        network=network,
        detector=make_detector(config, cross_class_nms),
        affinity=Affinity(tracking.match_coeff, tracking.new_object_similarity, tracking.new_object_iou),
        settings=tracking,
        fusion=fusion,
        rescores=config.head.mask_iou_net,
        binary_masks=config.quirks.binary_masks_without_fusion and not fusion,
        max_track_age=tracking.max_track_age if max_track_age is None else max_track_age,
        compact=compact,
        timer=timer or NoTimer(),
    )


def make_detector(config: Config, cross_class_nms: bool | None = None) -> Detector:
    """The detector of a config; the published per-class path differs in its limits, except in YOLACT, and without
    temporal fusion in the centerness too (docs/quirks.md)."""
    detection, quirks = config.detection, config.quirks
    without_fusion = not config.temporal_fusion.enabled
    cross_class = detection.cross_class_nms if cross_class_nms is None else cross_class_nms
    keeps_low_scores = quirks.hidden_low_scores and (cross_class or bool(config.head.anchor_scales))
    return Detector(
        conf_threshold=detection.conf_threshold,
        nms_threshold=detection.nms_threshold,
        top_k=detection.top_k,
        cross_class_nms=cross_class,
        score_threshold=None if keeps_low_scores else detection.conf_threshold,
        max_detections=None if cross_class else detection.max_detections,
        use_centerness=cross_class or not (without_fusion and quirks.plain_scores_without_fusion),
        double_tanh=without_fusion and quirks.double_tanh_without_fusion,
    )
