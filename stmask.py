"""STMask (Li et al., CVPR 2021): the network, and the tracker that follows the objects of one video.

    model = STMask.from_pretrained("weights/STMask_plus_resnet50_ada.pth")
    tracker = VideoTracker(model)
    for image in images:                      # each [3,H,W] float32, normalised RGB, H and W multiples of 32
        tracks = tracker.step(image)          # what is visible now, under stable track ids
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backbone import ResNet
from data.config import Config
from layers.anchors import make_anchors
from layers.detection import Detector
from layers.fpn import FPN
from layers.prediction_head import PredictionHead
from layers.protonet import ProtoNet
from layers.temporal_fusion import TemporalNet, fuse, shift_tracks
from layers.tracker import LOST, Affinity, absorb, as_tracks, assign, binary_mask_iou
from utils.structures import Detections, FusionFeatures, Predictions, Tracks

FUSION_LEVEL = 1  # P4, the pyramid level that temporal fusion works on


class STMask(nn.Module):
    """The network of one config. It holds no state of any video.

    Attributes carry the published parameter names. Weights start Xavier-uniform with zero biases.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        head = config.head
        self.backbone = ResNet(config.backbone.blocks, config.backbone.stem_channels, config.backbone.dcn_interval)
        self.proto_net = ProtoNet(head.channels, head.num_prototypes)
        self.fpn = FPN(self.backbone.out_channels[1:], head.channels)
        self.prediction_layers = nn.ModuleList(
            [
                PredictionHead(
                    channels=head.channels,
                    num_outputs=config.num_classes + 1,
                    kernels=head.kernels,
                    calibration=head.calibration,
                    num_prototypes=head.num_prototypes,
                    embedding_dim=head.embedding_dim,
                    centerness_kernel_major=config.quirks.centerness_kernel_major,
                )
            ]
        )
        if config.temporal_fusion.enabled:
            fusion = config.temporal_fusion
            self.TemporalNet = TemporalNet(
                fusion.patch_size**2 + 2 * head.channels, fusion.channels, head.num_prototypes, fusion.roi_size
            )

    @classmethod
    def from_config(cls, config: Config) -> STMask:
        return cls(config)

    def forward(self, images: Tensor) -> Predictions:
        levels = self.fpn(self.backbone(images)[1:])
        outputs, shared = self.prediction_layers[0](levels)
        anchors = make_anchors([level.shape[-2:] for level in levels], self.config.head.kernels, images.device)
        return Predictions(
            **vars(outputs),
            prototypes=self.proto_net(levels[0]),
            anchors=anchors,
            fusion_features=FusionFeatures(levels[FUSION_LEVEL], shared[FUSION_LEVEL]),
        )


class VideoTracker:
    """Follows the objects of one video; all state of the video is here, so several can share one model.

    `cross_class_nms` overrides the config's; everything else is as the model's config says. Without temporal fusion
    (`temporal_fusion.enabled` off) a frame's detections are only matched with what was last seen.
    """

    def __init__(self, model: STMask, cross_class_nms: bool | None = None):
        config = model.config
        self.model = model
        self.fusion = config.temporal_fusion if config.temporal_fusion.enabled else None
        self.settings = config.tracking
        self.detector = make_detector(config, cross_class_nms)
        self.affinity = Affinity(
            config.tracking.match_coeff, config.tracking.new_object_similarity, config.tracking.new_object_iou
        )
        self.reset()

    def reset(self) -> None:
        """Forgets the video: the next frame is a first frame."""
        self.known: Tracks | None = None
        self._last_features: FusionFeatures | None = None
        self._next_id = 0

    @torch.inference_mode()
    def step(self, image: Tensor) -> Tracks:
        """The objects visible in the next frame `image` [3,H,W] (float, normalised RGB, H and W multiples of 32).

        Ascending track ids with temporal fusion, detection order without; N = 0 where nothing is visible.
        """
        return self.update(self.model(image[None]))

    @torch.inference_mode()
    def update(self, predictions: Predictions, index: int = 0) -> Tracks:
        """As `step`, for image `index` of a batch that went through the network already."""
        detections = self.detector(predictions, index)
        known = self.known
        if known is None:
            known = as_tracks(detections[:0], detections.labels[:0])
        features = predictions.fusion_features[index : index + 1]
        if self.fusion:
            if len(known):
                fused = fuse(self._last_features, features, self.fusion.patch_size)
                known = shift_tracks(
                    known, self.model.TemporalNet, fused, predictions.prototypes[index], self.settings.score_decay
                )
            self._last_features = features
        self.known, seen = self._match(known, detections)
        return self._visible(self.known) if self.fusion else seen

    def _match(self, known: Tracks, detections: Detections) -> tuple[Tracks, Tracks]:
        """(the known objects after this frame, the detections that found or became one of them)."""
        mask_ious = binary_mask_iou(detections, known)
        rows = assign(self.affinity(detections, known, mask_ious))
        num_new = int((rows >= len(known)).sum())
        new_ids = torch.arange(self._next_id, self._next_id + num_new, device=rows.device)
        self._next_id += num_new
        seen = as_tracks(detections, torch.cat((known.track_ids, new_ids))[rows.clamp(min=0)])
        if self.fusion:
            updates = torch.ones_like(rows, dtype=torch.bool)
        else:
            updates = (mask_ious > self.settings.ambiguous_mask_iou).sum(dim=1) < 2
        return absorb(known, seen, rows, updates), seen[rows != LOST]

    def _visible(self, tracks: Tracks) -> Tracks:
        """Those of `tracks` that are reported for this frame."""
        pixels = (tracks.masks > 0.5).flatten(1).sum(dim=1)
        return tracks[
            (tracks.ages <= self.settings.max_hidden_age)
            & (pixels >= self.settings.min_mask_pixels)
            & (tracks.scores > self.settings.score_threshold)
        ]


def make_detector(config: Config, cross_class_nms: bool | None = None) -> Detector:
    """The detector of a config; the published per-class path differs in its limits, and without temporal fusion in
    the centerness too (docs/quirks.md)."""
    detection, quirks = config.detection, config.quirks
    without_fusion = not config.temporal_fusion.enabled
    cross_class = detection.cross_class_nms if cross_class_nms is None else cross_class_nms
    return Detector(
        conf_threshold=detection.conf_threshold,
        nms_threshold=detection.nms_threshold,
        top_k=detection.top_k,
        cross_class_nms=cross_class,
        score_threshold=None if cross_class and quirks.hidden_low_scores else detection.conf_threshold,
        max_detections=None if cross_class else detection.max_detections,
        use_centerness=cross_class or not (without_fusion and quirks.plain_scores_without_fusion),
        double_tanh=without_fusion and quirks.double_tanh_without_fusion,
    )
