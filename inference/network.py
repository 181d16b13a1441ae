"""Runs the network for inference: fused, in half precision, compiled, as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy
from functools import partial
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from backbone import fuse_backbone
from data.config import Config
from data.transforms import PictureInput
from inference.graphs import Graphs, cuda_recorder
from layers.cpu.deform_columns import pack_weight
from layers.cpu.fused_convolution import fuse_convolutions
from layers.cuda.deform_kernels import TOLERANCE
from layers.deform_conv import ModulatedDeformConv2d, inference_weight
from layers.feature_calibration import FeatureCalibration
from layers.mask_rescoring import MaskIoUNet
from layers.temporal_fusion import TemporalNet, fuse
from utils.precision import PRECISIONS, autocast, check_precision
from utils.structures import FusionFeatures, Predictions


class Model(Protocol):
    """The interface of a model for this folder. `stmask.STMask`, an `nn.Module`, implements it.

    It has `TemporalNet` if the config enables temporal fusion, and `maskiou_net` if it has `head.mask_iou_net`.
    """

    config: Config
    training: bool
    backbone: nn.Module
    prediction_layers: nn.ModuleList
    TemporalNet: TemporalNet
    maskiou_net: MaskIoUNet

    @property
    def device(self) -> torch.device: ...

    def __call__(self, images: Tensor) -> Predictions: ...

    def train(self, mode: bool = True) -> Self: ...

    def eval(self) -> Self: ...


class Network:
    """The network of `model` for `VideoTracker`: computes in `precision` and returns float32.

    "bf16" and "fp16" (GPUs only) are those of autocast: convolutions and products use them, while boxes, scores and
    all that follows are computed in float32. With `fused` it is a copy of the current model, with batch norms folded
    into convolutions and weights laid out for this machine; it does not follow later changes of the model's weights,
    and the model is unchanged. With `compiled`, torch.compile compiles it at the first image of each size, which takes
    minutes. With `graphs`, a fused network on a GPU that is not compiled is recorded and replayed for each shape of the
    images (`inference.graphs`), with the deformable convolution of the first images; `self.graphs` is None otherwise.
    Pictures become images on the device, in the same graph. Without `pack`, weights are laid out as on a GPU.

    Raises:
        InputError: the model's device cannot compute in that precision.
    """

    def __init__(
        self,
        model: Model,
        precision: str = "fp32",
        fused: bool = True,
        compiled: bool = False,
        graphs: bool = False,
        pack: bool = True,
    ):
        device = model.device  # a fused copy may have no parameters that tell it
        check_precision(precision, device)
        self._autocast = autocast(precision, device)
        if fused:
            model = fused_copy(model, PRECISIONS[precision], pack=pack and not compiled)
        self._model = model
        forward = torch.compile(model, options={"freezing": True}) if compiled else model
        picture_input = PictureInput(model.config.input, device)
        self._forward = partial(_forward_in, self._autocast, picture_input, forward)
        dtype = PRECISIONS[precision]
        self.tolerance = TOLERANCE[dtype]  # of replayed graphs
        recorder = None
        if graphs and fused and not compiled:
            recorder = cuda_recorder(device, dtype, has_deformable(model))
        self.graphs = Graphs(recorder) if recorder else None
        if self.graphs:
            self._forward = self.graphs.of(self._forward, "the network", self.tolerance)

    def __call__(self, images: Tensor) -> Predictions:
        """As `STMask.forward`, for images [B,3,H,W] float32, or pictures [B,h,w,3] uint8 of
        `FrameTransform.for_network`."""
        return self._forward(images)

    def changes(self, last: FusionFeatures, current: FusionFeatures, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """(box regression [N,4], coefficient change [N,K]), float32, between two frames for `boxes` [N,4] of the first;
        see `TemporalNet`."""
        with self._autocast():
            fused = fuse(last, current, self._model.config.temporal_fusion.patch_size)
            regression, changes = self._model.TemporalNet(fused, boxes)
        return regression.float(), changes.float()

    def mask_ious(self, masks: Tensor, labels: Tensor) -> Tensor:
        """The expected IoU with the truth [N], float32, of `masks` [N,h,w] of `labels` [N]; see `MaskIoUNet`."""
        with self._autocast():
            return self._model.maskiou_net.of_labels(masks, labels)


def _forward_in(
    precision: Callable[[], AbstractContextManager], picture_input: PictureInput, model: Model, images: Tensor
) -> Predictions:
    images = picture_input(images)
    with precision():
        return model(images)


def fused_copy(model: Model, dtype: torch.dtype, pack: bool) -> Model:
    """A copy of `model` for inference: see `Network` and `layers.cpu.fused_convolution.FusedConv2d`.

    `layers.deform_conv.inference_weight` tells the dtype of the weights of deformable convolutions.
    """
    copy = deepcopy(model).eval().requires_grad_(False)
    copy.prediction_layers[0].at_anchors = computes_at_anchors(model.device, pack)
    fuse_backbone(copy.backbone, dtype, pack)
    calibrations = [module for module in copy.modules() if isinstance(module, FeatureCalibration)]
    if pack and dtype == torch.float32:
        for calibration in calibrations:
            calibration.packed = pack_weight(calibration.conv_adaption.weight)
    for calibration in calibrations:
        conv = calibration.conv_adaption
        conv.weight = nn.Parameter(inference_weight(conv.weight, dtype), requires_grad=False)
    fuse_convolutions(copy, dtype, pack, keep={calibration.conv_adaption for calibration in calibrations})
    return copy


def has_deformable(model: Model) -> bool:
    """Whether the network has deformable convolutions."""
    return any(isinstance(module, FeatureCalibration | ModulatedDeformConv2d) for module in model.modules())


def computes_at_anchors(device: torch.device, pack: bool) -> bool:
    """Whether mask coefficients and embeddings are computed for the objects alone: not on a GPU, where many small steps
    cost more than a convolution, nor with torch.compile, which does not support it."""
    return pack and device.type == "cpu"
