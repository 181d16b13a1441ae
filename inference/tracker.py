"""The tracker that follows the objects of one video."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from data.config import Config
from inference.network import Model, Network
from layers.association import (
    LOST,
    Affinity,
    absorb,
    as_tracks,
    assign,
    binary_mask_iou,
    move_on,
    with_velocities,
)
from layers.detection import Detector
from layers.temporal_fusion import shift_tracks
from utils.structures import Detections, FusionFeatures, Predictions, RescoredTracks, Tracks
from utils.timer import NoTimer, StageTimer

# As published: without temporal fusion, a detection whose mask IoU with two objects exceeds this updates neither.
AMBIGUOUS_MASK_IOU = 0.3
MIN_MASK_PIXELS = 2  # of an object that temporal fusion shows


class VideoTracker:
    """Follows the objects of one video; all state of the video is here, so several can share one model.

    `cross_class_nms` and `max_track_age` override the config's; everything else is as the model's config says. Without
    temporal fusion (`temporal_fusion.enabled` off) a frame's detections are only matched with what was last seen, which
    moves on at constant velocity if the config has `tracking.motion`. A `timer` gets the stages network, detect and
    track. `network` is how the model is run, by default as it is.
    """

    def __init__(
        self,
        model: Model,
        cross_class_nms: bool | None = None,
        timer: StageTimer | None = None,
        max_track_age: int | None = None,
        network: Network | None = None,
    ):
        config = model.config
        self.model = model
        self.network = network or Network(model, fused=False)
        self.timer = timer or NoTimer()
        self.fusion = config.temporal_fusion if config.temporal_fusion.enabled else None
        self.binary_masks = config.quirks.binary_masks_without_fusion
        self.rescores = config.head.mask_iou_net
        self.settings = config.tracking
        self.moves = self.fusion is None and self.settings.motion > 0
        self.max_track_age = config.tracking.max_track_age if max_track_age is None else max_track_age
        self.detector = make_detector(config, cross_class_nms)
        self.affinity = Affinity(
            config.tracking.match_coeff, config.tracking.new_object_similarity, config.tracking.new_object_iou
        )
        self._next_id = 0
        self.reset()

    def reset(self, keep_ids: bool = False) -> None:
        """Forgets the video: the next frame is a first frame. With `keep_ids` track ids go on, instead of from 0."""
        self.known: Tracks | None = None
        self._last_features: FusionFeatures | None = None
        self._next_id = self._next_id if keep_ids else 0

    def state_dict(self) -> dict[str, Tensor]:
        """All that is known of the video so far, as copies in plain tensors, which torch.save takes."""
        parts = {"known": self.known, "last_features": self._last_features}
        state = {
            f"{name}.{f.name}": getattr(part, f.name).clone()
            for name, part in parts.items()
            if part is not None
            for f in fields(part)
            if getattr(part, f.name) is not None
        }
        return {"next_id": torch.tensor(self._next_id), **state}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over the state that another tracker of the same model had, from where it goes on identically.

        Raises:
            ValueError: it is no state of such a tracker.
        """
        head = self.model.config.head
        present = {"centerness": head.centerness, "embeddings": head.embedding_dim > 0, "velocities": self.moves}
        absent = {name for name, is_present in present.items() if not is_present}
        known = _from_state(Tracks, "known", state, self.model.device, absent)
        last_features = _from_state(FusionFeatures, "last_features", state, self.model.device)
        fits = "next_id" in state and (last_features is not None) == (known is not None and self.fusion is not None)
        if known is not None:
            fits &= known.mask_coeffs.shape[1] == head.num_prototypes
            fits &= known.embeddings is None or known.embeddings.shape[1] == head.embedding_dim
        if not fits:
            raise ValueError("not the state of a tracker of this model")
        self.known, self._last_features, self._next_id = known, last_features, int(state["next_id"])

    @torch.inference_mode()
    def step(self, image: Tensor) -> Tracks:
        """The objects visible in the next frame `image` [3,H,W] (float, normalised RGB, H and W multiples of 32).

        Ascending track ids with temporal fusion, detection order without; N = 0 where nothing is visible. With mask
        rescoring they are `RescoredTracks`.
        """
        return self.update(self.look(image[None]))

    @torch.inference_mode()
    def look(self, images: Tensor) -> Predictions:
        """What the network says of `images` [B,3,H,W], none of which is tracked yet."""
        with self.timer("network"):
            return self.network(images)

    @torch.inference_mode()
    def update(self, predictions: Predictions, index: int = 0) -> Tracks:
        """As `step`, for image `index` of a batch that went through the network already."""
        with self.timer("detect"):
            detections = self.detector(predictions, index)
        with self.timer("track"):
            known = self.known
            if known is None:
                known = as_tracks(detections[:0], detections.labels[:0], self.moves)
            if self.fusion:
                known = self._shift(known, predictions, index)
            known, seen = self._match(known, detections)
            self.known = known[known.ages <= self.max_track_age] if self.max_track_age else known
            tracks = self._visible(self.known) if self.fusion else seen
        if self.rescores:
            with self.timer("detect"):
                mask_ious = self.network.mask_ious(tracks.masks, tracks.labels)
            tracks = RescoredTracks(**vars(tracks), mask_ious=mask_ious)
        if self.binary_masks and not self.fusion:
            tracks = replace(tracks, masks=(tracks.masks > 0.5).float())
        return tracks

    def _shift(self, known: Tracks, predictions: Predictions, index: int) -> Tracks:
        """`known` as temporal fusion expects them in this frame, whose features become the last ones."""
        features = predictions.fusion_features[index : index + 1]
        if len(known):
            changes = self.network.changes(self._last_features, features, known.boxes)
            known = shift_tracks(known, *changes, predictions.prototypes[index].float(), self.settings.score_decay)
        self._last_features = features
        return known

    def _match(self, known: Tracks, detections: Detections) -> tuple[Tracks, Tracks]:
        """(the known objects after this frame, the detections that found or became one of them)."""
        expected = move_on(known, self.settings.max_hidden_age) if self.moves else known
        mask_ious = binary_mask_iou(detections, expected)
        rows = assign(self.affinity(detections, expected, mask_ious), self.settings.joint)
        num_new = int((rows >= len(known)).sum())
        new_ids = torch.arange(self._next_id, self._next_id + num_new, device=rows.device)
        self._next_id += num_new
        seen = as_tracks(detections, torch.cat((known.track_ids, new_ids))[rows.clamp(min=0)], self.moves)
        updates = torch.ones_like(rows, dtype=torch.bool)
        if self.moves:
            seen = with_velocities(seen, known, rows, self.settings.motion)
        elif not self.fusion:
            updates = (mask_ious > AMBIGUOUS_MASK_IOU).sum(dim=1) < 2
        if not self.fusion:
            matched = torch.isin(known.track_ids, seen.track_ids[rows != LOST])
            known = replace(known, ages=torch.where(matched, 0, known.ages + 1))
        return absorb(known, seen, rows, updates), seen[rows != LOST]

    def _visible(self, tracks: Tracks) -> Tracks:
        """Those of `tracks` that are reported for this frame."""
        pixels = (tracks.masks > 0.5).flatten(1).sum(dim=1)
        return tracks[
            (tracks.ages <= self.settings.max_hidden_age)
            & (pixels >= MIN_MASK_PIXELS)
            & (tracks.scores > self.settings.score_threshold)
        ]


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


def _from_state(
    kind: type, prefix: str, state: Mapping[str, Tensor], device: torch.device, absent: Collection[str] = ()
) -> Any:
    """The `kind` whose fields `state` holds under `prefix`, those of `absent` None; None if it holds none of them,
    ValueError if only some."""
    keys = {f.name: f"{prefix}.{f.name}" for f in fields(kind) if f.name not in absent}
    missing = [key for key in keys.values() if key not in state]
    if len(missing) == len(keys):
        return None
    if missing:
        raise ValueError(f"not the state of a tracker: {missing[0]} is missing")
    return kind(**{name: state[key].to(device) for name, key in keys.items()}, **dict.fromkeys(absent))
