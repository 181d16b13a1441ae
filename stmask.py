"""STMask (Li et al., CVPR 2021): the network, and the tracker that follows the objects of one video.

model = STMask.from_pretrained("weights/STMask_r50_ada.pth")
tracker = VideoTracker(model)
for image in images:                      # each [3,H,W] float32, normalised RGB, H and W multiples of 32
    tracks = tracker.step(image)          # what is visible now, under stable track ids

for frame in model.stream("in.mp4"):      # or a folder of pictures, a camera's number, any iterable of frames
    print(frame.time_s, frame.names, frame.boxes_px, frame.track_ids)
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from backbone import ResNet, fuse_backbone
from data.config import MODELS, WEIGHT_NAMES, Config, get_config
from data.export import ObjectRow, object_rows, to_coco, to_labelme, to_supervision
from data.results import VideoResultBuilder
from data.transforms import FrameTransform
from data.video import DEFAULT_FRAME_RATE, FrameSource, SceneCuts, open_source, read_ahead, read_source
from layers.anchors import make_anchors
from layers.detection import Detector
from layers.feature_calibration import FeatureCalibration
from layers.fpn import FPN
from layers.inference import fuse_convolutions
from layers.postprocess import postprocess
from layers.prediction_head import PredictionHead
from layers.protonet import ProtoNet
from layers.temporal_fusion import TemporalNet, fuse, shift_tracks
from layers.tracker import LOST, Affinity, absorb, as_tracks, assign, binary_mask_iou
from utils.checkpoint import StateDict, compare, config_name_of, find_checkpoint, load_state_dict
from utils.device import pick_device
from utils.precision import PRECISIONS, autocast, check_precision
from utils.structures import (
    Detections,
    FrameInput,
    FrameObjects,
    FrameResult,
    FusionFeatures,
    InputError,
    Predictions,
    Tracks,
    Video,
    VideoResult,
)
from utils.timer import NoTimer, StageTimer
from utils.visualization import draw_objects

logger = logging.getLogger(__name__)

FUSION_LEVEL = 1  # P4, the pyramid level that temporal fusion works on
STREAM_MAX_TRACK_AGE = 60  # frames: two seconds of most videos, and far longer than an object is shown unseen


class STMask(nn.Module):
    """The network of one config. It holds no state of any video.

    Attributes carry the published parameter names. Weights start Xavier-uniform with zero biases.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self._anchors: tuple[tuple, Tensor] | None = None  # of the last size of images
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
                    square_kernels=head.square_kernels,
                )
            ]
        )
        if config.temporal_fusion.enabled:
            fusion = config.temporal_fusion
            self.TemporalNet = TemporalNet(
                fusion.patch_size**2 + 2 * head.channels, fusion.channels, head.num_prototypes, fusion.roi_size
            )

        self.initialise()
        self.to(memory_format=torch.channels_last)  # the layout that convolutions are fastest in, on CPUs and GPUs

    def initialise(self) -> None:
        """Xavier-uniform weights and zero biases, except batch norms and the DCN offsets, which start neutral."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                if name.endswith("conv_offset_mask"):
                    nn.init.zeros_(module.weight)

    def train(self, mode: bool = True) -> STMask:
        """Training mode; batch norms stay as they are where the config freezes them."""
        super().train(mode)
        if self.config.train.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval().requires_grad_(False)
        return self

    @classmethod
    def from_config(cls, config: Config) -> STMask:
        """A network with fresh weights, on the CPU and in training mode."""
        return cls(config)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, config: Config | str | None = None, device: torch.device | str | None = None
    ) -> STMask:
        """The network of a checkpoint, in evaluation mode on `device` (default: the GPU if there is one).

        Without `config` the file's name tells it; `path` may be `latest` or `interrupt` (see
        `utils.checkpoint.find_checkpoint`). Tensors that the config has no place for are named in the log and dropped.

        Raises:
            InputError: no such file, not a checkpoint, tensors missing or of another shape, a name that tells nothing,
                or another config that fits better.
        """
        if isinstance(config, str):
            config = get_config(config)
        path = find_checkpoint(path, WEIGHT_NAMES, config.name if config else None)
        if config is None:
            config = get_config(config_name_of(path, WEIGHT_NAMES))
        model = cls(config)
        state = load_state_dict(path)
        mismatch = compare(state, model.state_dict())
        if mismatch:
            better = better_config(state, config, len(mismatch))
            if better:
                raise InputError(f"{path}: fits {better} better than {config.name} ({mismatch}); say --config={better}")
            if mismatch.missing or mismatch.reshaped:
                raise InputError(f"{path}: does not fit {config.name}: {mismatch}; say the right --config")
            logger.warning("%s: ignored for %s: %s", path, config.name, mismatch)
        known = model.state_dict().keys()
        model.load_state_dict({name: value for name, value in state.items() if name in known}, strict=False)
        return model.to(pick_device(device)).eval()

    def stream(
        self,
        source: str | Path | int | Iterable[np.ndarray] | FrameSource,
        *,
        scene_cut: bool | float = False,
        max_track_age: int | None = None,
        classes: Iterable[str] | None = None,
        frame_rate: float = DEFAULT_FRAME_RATE,
        tracker: VideoTracker | None = None,
        timer: StageTimer | None = None,
        precision: str = "fp32",
        overlap: bool = False,
    ) -> Stream:
        """What is found in `source`, frame by frame, as soon as each is there; memory does not grow with its length.

        `source` is what `data.video.open_source` takes: a video file, a folder or glob of pictures, a camera's number,
        any iterable of frames; `frame_rate` makes the time stamps of those that have none. At a hard cut, told by
        `data.video.SceneCuts` with its default threshold (True) or another in 0…1, objects are forgotten. So are those
        not seen for `max_track_age` frames, 0 for never; by default it is the config's, or 60 if that is never.
        Only objects of `classes` are reported, by default of all. A `tracker` of one's own goes on where it stands,
        with its own age and precision. A `timer` gets the stages of a frame. `precision` is `Network`'s; with `overlap`
        the network is up to three frames ahead of the caller, which is faster, but not for live pictures, nor for who
        calls `Stream.reset` or looks at the tracker.

        Raises:
            InputError: there is no such source or class. What cannot be read of a source, frames behind a file's broken
                end or pictures that do not decode, is left out and told by an InputError behind the last frame.
        """
        source = open_source(source, frame_rate)
        if tracker is None:
            if max_track_age is None:
                max_track_age = stream_track_age(self.config)
            tracker = VideoTracker(self, max_track_age=max_track_age, timer=timer, network=Network(self, precision))
        labels = None if classes is None else labels_of(classes, self.config.dataset.class_names)
        threshold = SceneCuts.DEFAULT_THRESHOLD if scene_cut is True else scene_cut
        return Stream(tracker, source, SceneCuts(threshold) if scene_cut is not False else None, labels, timer, overlap)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(self, images: Tensor) -> Predictions:
        """What the network says of `images` [B,3,H,W] (float, normalised RGB, H and W multiples of 32).

        Clips [B,T,3,H,W] count as B·T images, clip by clip.

        Raises:
            ValueError: another shape.
        """
        if images.ndim == 5:
            images = images.flatten(0, 1)
        divisor = self.config.input.size_divisor
        if images.ndim != 4 or images.shape[1] != 3 or any(side % divisor for side in images.shape[2:]):
            raise ValueError(f"images must be [B,3,H,W] with H and W multiples of {divisor}, not {list(images.shape)}")
        levels = self.fpn(self.backbone(images.contiguous(memory_format=torch.channels_last))[1:])
        outputs, shared = self.prediction_layers[0](levels)
        return Predictions(
            **vars(outputs),
            prototypes=self.proto_net(levels[0]),
            anchors=self._anchors_of(tuple(level.shape[-2:] for level in levels), images.device),
            fusion_features=FusionFeatures(levels[FUSION_LEVEL], shared[FUSION_LEVEL]),
            finest=levels[0],
        )

    def _anchors_of(self, level_sizes: tuple[torch.Size, ...], device: torch.device) -> Tensor:
        """`make_anchors`, kept for the next images of this size."""
        key = (level_sizes, device)
        if self._anchors is None or self._anchors[0] != key:
            with torch.inference_mode(False):  # they may be needed for training next
                self._anchors = (key, make_anchors(level_sizes, self.config.head.kernels, device))
        return self._anchors[1]


class Network:
    """What `VideoTracker` runs: the network of `model`, its arithmetic in `precision`, its results for float32.

    "bf16" and "fp16" (GPUs only) are those of autocast: convolutions and products, while boxes, scores and whatever
    follows are computed in float32. With `fused` it is a copy of the model as it stands, with batch norms folded into
    convolutions and weights laid out for this machine; later changes of the model's weights do not reach it, and the
    model stays what it is, to be trained and saved. With `compiled`, torch.compile makes code for it at the first image
    of each size, which takes minutes.

    Raises:
        InputError: the model's device cannot compute in that precision.
    """

    def __init__(self, model: STMask, precision: str = "fp32", fused: bool = True, compiled: bool = False):
        check_precision(precision, model.device)
        self._autocast = autocast(precision, model.device)
        if fused:
            model = fused_copy(model, PRECISIONS[precision], pack=not compiled)
        self._model = model
        self._forward = torch.compile(model, options={"freezing": True}) if compiled else model

    def __call__(self, images: Tensor) -> Predictions:
        """As `STMask.forward`."""
        with self._autocast():
            return self._forward(images)

    def changes(self, last: FusionFeatures, current: FusionFeatures, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """(box regression [N,4], coefficient change [N,K]), float32, between two frames for `boxes` [N,4] of the first;
        see `TemporalNet`."""
        with self._autocast():
            fused = fuse(last, current, self._model.config.temporal_fusion.patch_size)
            regression, changes = self._model.TemporalNet(fused, boxes)
        return regression.float(), changes.float()


def fused_copy(model: STMask, dtype: torch.dtype, pack: bool) -> STMask:
    """A copy of `model` for inference: see `Network` and `layers.inference.FusedConv2d`.

    The weights of deformable convolutions stay float32; they go their own way (`layers.deform_conv`).
    """
    copy = deepcopy(model).eval().requires_grad_(False)
    copy.prediction_layers[0].at_anchors = finds_at_anchors(model.device, pack)
    fuse_backbone(copy.backbone, dtype, pack)
    sampled = {module.conv_adaption for module in copy.modules() if isinstance(module, FeatureCalibration)}
    fuse_convolutions(copy, dtype, pack, keep=sampled)
    return copy


def finds_at_anchors(device: torch.device, pack: bool) -> bool:
    """Whether mask coefficients and embeddings are computed for the objects alone: not where many small steps cost more
    than a convolution, on a GPU, nor where torch.compile has to see what is computed."""
    return pack and device.type == "cpu"


class VideoTracker:
    """Follows the objects of one video; all state of the video is here, so several can share one model.

    `cross_class_nms` and `max_track_age` override the config's; everything else is as the model's config says. Without
    temporal fusion (`temporal_fusion.enabled` off) a frame's detections are only matched with what was last seen. A
    `timer` gets the stages network, detect and track. `network` is how the model is run, by default as it is.
    """

    def __init__(
        self,
        model: STMask,
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
        self.settings = config.tracking
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
        }
        return {"next_id": torch.tensor(self._next_id), **state}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over the state that another tracker of the same model had, from where it goes on identically.

        Raises:
            ValueError: it is no state of such a tracker.
        """
        known = _from_state(Tracks, "known", state, self.model.device)
        last_features = _from_state(FusionFeatures, "last_features", state, self.model.device)
        head = self.model.config.head
        fits = "next_id" in state and (last_features is not None) == (known is not None and self.fusion is not None)
        if known is not None:
            fits &= known.mask_coeffs.shape[1] == head.num_prototypes
            fits &= known.embeddings.shape[1] == head.embedding_dim
        if not fits:
            raise ValueError("not the state of a tracker of this model")
        self.known, self._last_features, self._next_id = known, last_features, int(state["next_id"])

    @torch.inference_mode()
    def step(self, image: Tensor) -> Tracks:
        """The objects visible in the next frame `image` [3,H,W] (float, normalised RGB, H and W multiples of 32).

        Ascending track ids with temporal fusion, detection order without; N = 0 where nothing is visible.
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
                known = as_tracks(detections[:0], detections.labels[:0])
            if self.fusion:
                known = self._shift(known, predictions, index)
            known, seen = self._match(known, detections)
            self.known = known[known.ages <= self.max_track_age] if self.max_track_age else known
            if self.fusion:
                return self._visible(self.known)
            return replace(seen, masks=(seen.masks > 0.5).float()) if self.binary_masks else seen

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
            matched = torch.isin(known.track_ids, seen.track_ids[rows != LOST])
            known = replace(known, ages=torch.where(matched, 0, known.ages + 1))
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


def track_videos(
    model: STMask,
    frames: Iterable[FrameInput],
    timer: StageTimer | None = None,
    tracker: VideoTracker | None = None,
    labels: Collection[int] | None = None,
    overlap: bool = False,
    batch_size: int = 1,
) -> Iterator[FrameResult]:
    """What is found in each of `frames`, in the video's own pixels and on the CPU, in their order.

    The frames of a video follow each other; a new video id starts a new tracker, and at a cut it forgets its objects.
    The first video goes on with `tracker` as it stands, if one is given. Only `labels` are reported, by default all. A
    frame that could not be read gives a result without objects that carries its `error`, and is as if it were not in
    the video. The model's training mode is restored when the iteration ends.

    With `overlap` a thread tracks up to three frames ahead, while the caller works on the results and the masks are
    brought into the video's pixels; `tracker` is then ahead too. `batch_size` frames, of one size, go through the
    network at once, which changes their results in the last digits; the first of them waits for the last.
    """
    timer = timer or NoTimer()
    limits = model.config.postprocess
    was_training = model.training
    model.eval()
    tracker = tracker or VideoTracker(model, timer=timer, network=Network(model))
    wanted = None if labels is None else torch.tensor(sorted(labels), device=model.device)
    tracked = _track(tracker, frames, timer, batch_size)
    if overlap:
        tracked = read_ahead(tracked, size=2)
    try:
        for frame, tracks, stages in tracked:
            timer.give(stages)
            if tracks is None:
                yield FrameResult(frame.meta, None, frame.is_last, error=frame.error)
                continue
            with timer("write"):
                tracks = tracks if wanted is None else tracks[torch.isin(tracks.labels, wanted)]
                objects = postprocess(tracks, frame.meta, limits.score_threshold, limits.top_k)
            yield FrameResult(frame.meta, objects, frame.is_last, frame.frame)
    finally:
        tracked.close()
        model.train(was_training)


def _track(
    tracker: VideoTracker, frames: Iterable[FrameInput], timer: StageTimer | NoTimer, batch_size: int
) -> Iterator[tuple[FrameInput, Tracks | None, dict[str, float]]]:
    """(frame, its tracks or None if it could not be read, seconds by stage) for each of `frames`."""
    video_id = None
    frames = _timed(frames, timer)
    while batch := list(islice(frames, batch_size)):
        images = [frame.image for frame in batch if frame.error is None]
        predictions = None
        if images:
            predictions = tracker.look(torch.stack(images).to(tracker.model.device, non_blocking=True))
        shares = {stage: seconds / len(batch) for stage, seconds in timer.take().items()}
        places = count()
        for frame in batch:
            timer.give(shares)
            if video_id not in (None, frame.meta.video_id):
                tracker.reset()
            elif frame.meta.is_cut:
                tracker.reset(keep_ids=True)
            video_id = frame.meta.video_id
            tracks = tracker.update(predictions, next(places)) if frame.error is None else None
            yield frame, tracks, timer.take()


@dataclass(frozen=True)
class StreamFrame:
    """One frame of a stream and the N objects found in it.

    `frame` [h,w,3] uint8 RGB, `index` from 0, `time_s` in seconds since the stream's start, `is_cut` whether a new
    scene begins, `name` the file's if the frame has its own. `objects` are in pixels of the frame, on the CPU.
    """

    frame: np.ndarray
    index: int
    time_s: float
    objects: FrameObjects
    class_names: tuple[str, ...]
    is_cut: bool = False
    name: str = ""

    @property
    def boxes_px(self) -> Tensor:
        """[N,4] int64, x1 y1 x2 y2."""
        return self.objects.boxes_px

    @property
    def scores(self) -> Tensor:
        """[N] in 0…1."""
        return self.objects.scores

    @property
    def track_ids(self) -> Tensor:
        """[N] int64, the same for an object in all frames."""
        return self.objects.track_ids

    @property
    def masks(self) -> Tensor:
        """[N,h,w] bool."""
        return self.objects.masks

    @property
    def names(self) -> list[str]:
        """The class name of each object."""
        return [self.class_names[label - 1] for label in self.objects.labels.tolist()]

    @cached_property
    def rows(self) -> list[ObjectRow]:
        """One row an object, with its mask as RLE: what tables, results.json and MOTS files are made of."""
        return object_rows(self.objects, self.index, self.time_s, self.class_names)

    @property
    def rles(self) -> list[dict]:
        """The masks as COCO compressed RLEs."""
        return [row.rle for row in self.rows]

    def draw(self, **style: Any) -> np.ndarray:
        """A copy of the frame with the objects on it; `style` is `utils.visualization.draw_objects`'s."""
        return draw_objects(self.frame, self.objects, self.class_names, **style)

    def to_supervision(self) -> Any:
        """A `supervision.Detections`; InputError if supervision is not installed."""
        return to_supervision(self.objects, self.class_names)

    def to_coco(self, first_id: int = 1) -> list[dict]:
        """COCO annotations with ids from `first_id`; the image id is the frame's index."""
        return to_coco(self.rows, first_id)

    def to_labelme(self, image_path: str | None = None) -> dict:
        """The content of a LabelMe file for the picture `image_path`, by default the frame's own name."""
        return to_labelme(self.objects, self.class_names, image_path or self.name)


class Stream(Iterator[StreamFrame]):
    """The frames of a source, each with what was found in it; made by `STMask.stream`.

    Ended by `close`, by leaving it as a context manager, or by dropping it, it releases the file or the camera.
    `source` knows the expected number of frames and their rate, `class_names[0]` is the name of label 1, `tracker`
    holds the state.
    """

    def __init__(
        self,
        tracker: VideoTracker,
        source: FrameSource,
        scene_cuts: SceneCuts | None,
        labels: Collection[int] | None,
        timer: StageTimer | None,
        overlap: bool,
    ):
        self.tracker = tracker
        self.source = source
        config = tracker.model.config
        self.class_names = config.dataset.class_names
        self._frames = read_source(source, FrameTransform.from_config(config), scene_cuts)
        self._results = track_videos(tracker.model, self._frames, timer, tracker, labels, overlap)

    def __next__(self) -> StreamFrame:
        result = next(self._results)
        meta = result.meta
        return StreamFrame(
            result.frame, meta.frame_index, meta.time_s, result.objects, self.class_names, meta.is_cut, meta.name
        )

    def reset(self) -> None:
        """Forgets all objects before the next frame, for a jump that the source made; track ids go on."""
        self.tracker.reset(keep_ids=True)

    def close(self) -> None:
        """Ends the stream and releases its source."""
        self._results.close()
        self._frames.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def stream_track_age(config: Config) -> int:
    """The frames after which a stream forgets an object that it does not see: the config's, or 60 if that is never."""
    return config.tracking.max_track_age or STREAM_MAX_TRACK_AGE


def labels_of(classes: Iterable[str], class_names: Sequence[str]) -> frozenset[int]:
    """The labels 1…C of `classes`.

    Raises:
        InputError: one is not among `class_names`, or there is none.
    """
    classes = list(classes)
    unknown = [name for name in classes if name not in class_names]
    if unknown or not classes:
        raise InputError(f"unknown class {', '.join(unknown)!r}; the model knows {', '.join(class_names)}")
    return frozenset(class_names.index(name) + 1 for name in classes)


def collect_tracks(
    results: Iterable[FrameResult],
    videos: Iterable[Video],
    category_ids: Sequence[int | None],
    timer: StageTimer | None = None,
    skip_bad_frames: bool = False,
    details: bool = False,
    length_power: float = 0.0,
) -> Iterator[tuple[Video, list[VideoResult], list[str]]]:
    """(video, its tracks, a line for each frame of it that could not be read), for each of `videos` in turn.

    `results` are the frames of `videos`, as `track_videos` gives them; `category_ids` are those of labels 1…C;
    `details` and `length_power` are as in `data.results.track_result`.

    Raises:
        InputError: a frame could not be read, and `skip_bad_frames` is off.
    """
    timer = timer or NoTimer()
    for video, (_, video_results) in zip(videos, groupby(results, lambda result: result.meta.video_id), strict=True):
        size_hw = (video.height, video.width)
        builder = VideoResultBuilder(video.video_id, len(video), size_hw, category_ids, details, length_power)
        bad_frames = []
        for result in video_results:
            if result.error is None:
                with timer("write"):
                    builder.add(result.meta.frame_index, result.objects)
            elif skip_bad_frames:
                bad_frames.append(result.error)
            else:
                raise InputError(
                    f"{result.error}; mend it and --resume, or leave it out with --resume --skip_bad_frames"
                )
        yield video, builder.finish(), bad_frames


def better_config(state: StateDict, config: Config, num_mismatches: int) -> str | None:
    """The name of the config whose network `state` fits best, if with fewer than `num_mismatches`, else None."""
    best = None
    fusion = {"temporal_fusion.enabled": config.temporal_fusion.enabled}
    for name, keys in MODELS.items():
        if not keys.get("dataset.class_names"):  # a person's own, whose classes its annotation file says
            continue
        with torch.device("meta"):
            count = len(compare(state, STMask(get_config(name, fusion)).state_dict()))
        if count < num_mismatches:
            best, num_mismatches = name, count
    return best


def _from_state(kind: type, prefix: str, state: Mapping[str, Tensor], device: torch.device) -> Any:
    """The `kind` whose fields `state` holds under `prefix`, None if it holds none of them; ValueError if only some."""
    keys = {f.name: f"{prefix}.{f.name}" for f in fields(kind)}
    missing = [key for key in keys.values() if key not in state]
    if len(missing) == len(keys):
        return None
    if missing:
        raise ValueError(f"not the state of a tracker: {missing[0]} is missing")
    return kind(**{name: state[key].to(device) for name, key in keys.items()})


def _timed(frames: Iterable[FrameInput], timer) -> Iterator[FrameInput]:
    """`frames`, with the waiting for each counted as the stage "read"."""
    iterator = iter(frames)
    while True:
        with timer("read"):
            frame = next(iterator, None)
        if frame is None:
            return
        yield frame
