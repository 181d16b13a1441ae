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
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backbone import make_backbone
from data.config import WEIGHT_NAMES, Config, get_config
from data.trained import differences, named_like, trained_config
from data.video import DEFAULT_FRAME_RATE, FrameSource, SceneCuts, open_source
from inference.network import Network
from inference.stream import Stream, labels_of, stream_track_age
from inference.tracker import VideoTracker
from layers.anchors import ASPECT_RATIOS, anchor_shapes_px, make_anchors, make_scaled_anchors
from layers.fpn import FPN, level_sizes
from layers.mask_rescoring import MaskIoUNet
from layers.prediction_head import PredictionHead
from layers.protonet import ProtoNet
from layers.temporal_fusion import TemporalNet
from utils.checkpoint import compare, find_checkpoint, load_state_dict
from utils.checkpoint_shapes import keys_of
from utils.device import pick_device
from utils.structures import FusionFeatures, Predictions
from utils.timer import StageTimer
from ytvis.files import InputError

logger = logging.getLogger(__name__)

FUSION_LEVEL = 1  # P4, the pyramid level that temporal fusion works on
# In the files of YOLACT: a layer for a loss, the pyramid's former levels, and the stages under their former names.
UNUSED_IN_YOLACT = re.compile(r"semantic_seg_conv\.|fpn\.downsample_layers\.(?![01]\.)|backbone\.layer\d\.")


class STMask(nn.Module):
    """The network of one config. It holds no state of any video.

    Attributes carry the published parameter names. Weights start Xavier-uniform with zero biases.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self._anchors = Anchors(config)
        head = config.head
        self.backbone = make_backbone(config.backbone)
        self.proto_net = ProtoNet(head.channels, head.num_prototypes)
        if head.mask_iou_net:
            self.maskiou_net = MaskIoUNet(config.num_classes)
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
                    centerness=head.centerness,
                    shared_by=len(head.anchor_scales[0]) * len(ASPECT_RATIOS) if head.anchor_scales else 0,
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

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As `nn.Module.load_state_dict`, without the tensors of YOLACT's files that inference never reads: those of a
        training loss, and second copies. They are named in the log."""
        unused = [name for name in state_dict if UNUSED_IN_YOLACT.match(name)]
        if unused:
            logger.info("left out, inference does not read them: %s", ", ".join(unused))
            state_dict = {name: value for name, value in state_dict.items() if name not in unused}
        return super().load_state_dict(state_dict, strict, assign)

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

        Without `config`, the config is what the file says about itself, or what its name and its tensors tell (see
        `data.trained`); the name of a config is only for files that do not tell it. `path` may be `latest`, `interrupt`
        or `best` (see `utils.checkpoint.find_checkpoint`), or an address (see `utils.weight_sources`). Tensors that the
        config has no place for are named in the log and dropped.

        Raises:
            InputError: no such file, not a checkpoint, tensors missing or of another shape, nothing that tells the
                config, or another config that fits better.
        """
        name = config if isinstance(config, str) else config.name if config else None
        path = find_checkpoint(path, WEIGHT_NAMES, get_config(name).name if isinstance(config, str) else name)
        state = load_state_dict(path)
        if not isinstance(config, Config):
            config = trained_config(path, name, state=state)
        keys = keys_of(state)
        different = differences(keys, config)
        with torch.device("meta") if different else nullcontext():  # sizes that the tensors do not have take no memory
            model = cls(config)
        mismatch = compare({k: v for k, v in state.items() if not UNUSED_IN_YOLACT.match(k)}, model.state_dict())
        if mismatch:
            if different == {"num_classes"}:
                raise InputError(
                    f"{path}: has {keys['num_classes']} classes, not {config.num_classes} as {config.name} here; name "
                    "them in the order of their labels with --set dataset.class_names=NAME,…"
                )
            if mismatch.missing or mismatch.reshaped:
                better = named_like(keys)
                if better not in (None, config.name):
                    raise InputError(
                        f"{path}: fits {better} better than {config.name} ({mismatch}); pass --config={better}"
                    )
                raise InputError(f"{path}: does not fit {config.name}: {mismatch}")
            logger.warning("%s: ignored for %s: %s", path, config.name, mismatch)
        if different:
            model = cls(config)
        dropped = set(mismatch.unexpected)
        model.load_state_dict({name: value for name, value in state.items() if name not in dropped}, strict=False)
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
        """The objects in `source`, frame by frame, each frame as soon as it is read; memory stays bounded.

        `source` is what `data.video.open_source` takes: a video file, a folder or glob of pictures, a camera's number,
        or any iterable of frames; `frame_rate` makes the time stamps of those that have none. Objects are forgotten at
        a hard cut, found by `data.video.SceneCuts` with its default threshold (True) or another in 0…1, and when not
        seen for `max_track_age` frames, 0 for never; the default is the config's, or 60 if that is never. Only objects
        of `classes` are reported, by default of all. Your own `tracker` continues from its state, with its own age and
        precision. A `timer` gets the stages of a frame. `precision` is `Network`'s. With `overlap` the network is up to
        three frames ahead of the caller, on a GPU four, which is faster; do not combine it with live pictures, with
        `Stream.reset` or with a look at the tracker.

        Raises:
            InputError: the source or a class is unknown. Frames that cannot be read, after the broken end of a file or
                of pictures that do not decode, are left out and reported by an InputError after the last frame.
            TypeError, ValueError: `source`, or a frame of an iterable, is of another type or shape.
        """
        source = open_source(source, frame_rate)
        if tracker is None:
            if max_track_age is None:
                max_track_age = stream_track_age(self.config)
            network = Network(self, precision, graphs=True)
            tracker = VideoTracker(self, max_track_age=max_track_age, timer=timer, network=network)
        labels = None if classes is None else labels_of(classes, self.config.dataset.class_names)
        threshold = SceneCuts.DEFAULT_THRESHOLD if scene_cut is True else scene_cut
        return Stream(tracker, source, SceneCuts(threshold) if scene_cut is not False else None, labels, timer, overlap)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(self, images: Tensor) -> Predictions:
        """Runs the network on `images` [B,3,H,W] (float, normalised RGB, H and W multiples of
        `config.input.size_divisor`: 32, or 1 for YOLACT).

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
            anchors=self._anchors(images.shape[-2:], images.device),
            fusion_features=FusionFeatures(levels[FUSION_LEVEL], shared[FUSION_LEVEL]),
            finest=levels[0],
        )


class Anchors:
    """The anchors of the network of a config. Those of the last `SIZES` sizes of images are kept: the scales of a
    training, or what a program is given; of 384×640 pixels a quarter of a megabyte."""

    SIZES = 16

    def __init__(self, config: Config):
        self._config = config
        self._kept: dict[tuple[torch.Size, torch.device], Tensor] = {}

    def __call__(self, input_hw: torch.Size, device: torch.device) -> Tensor:
        """The anchors [A,4] of `anchors_of`, made once; not to be changed."""
        if torch.compiler.is_dynamo_compiling():  # code compiled for what is kept would hold only as long as it is
            return anchors_of(self._config, input_hw, device)
        key = (input_hw, device)
        anchors = self._kept.get(key)
        if anchors is None:
            with torch.inference_mode(False):  # they may be needed for training next
                anchors = anchors_of(self._config, input_hw, device)
            if len(self._kept) >= self.SIZES:
                self._kept.pop(next(iter(self._kept)), None)  # the oldest, unless another thread was faster
            self._kept[key] = anchors
        return anchors


def anchors_of(config: Config, input_hw: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """The anchors [A,4] of the network of `config` for inputs of `input_hw` (height, width)."""
    sizes, head = level_sizes(input_hw), config.head
    if not head.anchor_scales:
        return make_anchors(sizes, head.kernels, device)
    shapes = anchor_shapes_px(head.anchor_scales, config.quirks.square_anchors)
    return make_scaled_anchors(sizes, shapes, config.input.size_hw, device)
