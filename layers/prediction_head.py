"""The prediction head: FCA predicts each anchor with a convolution of the anchor's own shape (STMask, section 3.1),
FCB calibrates the class branch (section 3.2). With one convolution for all anchors it is the head of YOLACT."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layers.box_utils import SIZE_VARIANCE
from layers.feature_calibration import FeatureCalibration
from utils.structures import AtAnchors, TensorFields

Kernel = tuple[int, int]

SQUARE_KERNEL: Kernel = (3, 3)  # for every anchor without FCA


@dataclass(frozen=True)
class HeadOutput:
    """The head's output for one or several levels with A anchors; fields as in `Predictions`."""

    box_deltas: Tensor
    class_logits: Tensor
    centerness: Tensor | None
    mask_coeffs: Tensor | AtAnchors
    embeddings: Tensor | AtAnchors | None


@dataclass(frozen=True)
class ConvolvedAtAnchors(TensorFields):
    """Evaluates convolutions, each for one or several anchors of a cell, at selected anchors only.

    `values[index, anchors]` is [n,D] for image `index` and `anchors` [n] int64: the rows of the dense maps of `layers`
    over `features` [B,C,h,w] …, with D = `length` channels an anchor, of unit length if `normalized`. Only a few dozen
    of thousands of anchors become objects and need mask coefficients and embeddings.
    """

    features: tuple[Tensor, ...]
    layers: tuple[nn.Module, ...]
    length: int
    normalized: bool

    def __getitem__(self, at: tuple[int, Tensor]) -> Tensor:
        index, anchors = at
        filters = [
            part
            for layer in self.layers
            for part in zip(layer.weight.split(self.length), layer.bias.split(self.length), strict=True)
        ]  # weight and bias of each anchor of a cell
        cells, numbers = anchors // len(filters), anchors % len(filters)
        values = self.features[0].new_empty(len(anchors), self.length)
        table = [level[index].permute(1, 2, 0).flatten(0, 1) for level in self.features]  # [cells,C], level by level
        table = torch.cat((*table, table[0].new_zeros(1, table[0].shape[1])))  # the last row is the padding
        for number, (weight, bias) in enumerate(filters):
            mine = (numbers == number).nonzero().squeeze(1)
            seen = table[self._around(cells[mine], weight.shape[2:])].flatten(1)  # [n,taps·C]
            values[mine] = F.linear(seen, weight.permute(0, 2, 3, 1).flatten(1), bias)
        return F.normalize(values, dim=-1) if self.normalized else values

    def _around(self, cells: Tensor, kernel: Kernel) -> Tensor:
        """The cells [n,taps] under a kernel centred on each of `cells` [n]; outside the level, the padding's row."""
        heights, widths = (cells.new_tensor([level.shape[side] for level in self.features]) for side in (2, 3))
        ends = (heights * widths).cumsum(0)
        levels = torch.bucketize(cells, ends, right=True)
        starts = ends[levels] - heights[levels] * widths[levels]
        rows, columns = ((cells - starts) // widths[levels], (cells - starts) % widths[levels])
        rows = rows[:, None] + torch.arange(kernel[0], device=cells.device) - kernel[0] // 2
        columns = columns[:, None] + torch.arange(kernel[1], device=cells.device) - kernel[1] // 2
        is_row = (rows >= 0) & (rows < heights[levels, None])
        is_column = (columns >= 0) & (columns < widths[levels, None])
        places = (starts[:, None] + rows * widths[levels, None])[:, :, None] + columns[:, None]  # [n,kh,kw]
        return torch.where(is_row[:, :, None] & is_column[:, None], places, ends[-1]).flatten(1)


class PredictionHead(nn.Module):
    """Predicts for every anchor of the given levels, with the same weights for all levels.

    `num_outputs` is C+1. `kernels` (height, width) are the shapes of the anchors and of their convolutions; with
    `square_kernels` all convolutions are 3×3 and only the anchors keep their shapes. `calibration` is the kind of FCB:
    "none", "ali" or "ada". With `centerness_kernel_major` the entries of `centerness` are ordered level, kernel, row,
    column, while all other outputs have the kernel fastest, as the published weights were trained (docs/quirks.md).

    With `shared_by` > 0 a single 3×3 convolution of the shared feature U per output serves all anchors of a cell,
    `shared_by` of them, whatever their shapes, and `kernels` are not read (YOLACT). `centerness` off and
    `embedding_dim` 0 leave those outputs out: they are None.

    If `at_anchors` is set, mask coefficients and embeddings are computed for the requested anchors only.
    """

    def __init__(
        self,
        channels: int,
        num_outputs: int,
        kernels: Sequence[Kernel],
        calibration: str,
        num_prototypes: int,
        embedding_dim: int,
        centerness_kernel_major: bool,
        square_kernels: bool = False,
        centerness: bool = True,
        shared_by: int = 0,
    ):
        super().__init__()
        if shared_by and calibration != "none":
            raise ValueError("FCB needs a convolution for each anchor of a cell")
        self.at_anchors = False
        self.centerness_kernel_major = centerness_kernel_major
        self.anchor_shapes = () if shared_by else tuple(kernels)
        self.num_outputs, self.num_prototypes, self.embedding_dim = num_outputs, num_prototypes, embedding_dim
        if square_kernels:
            kernels = [SQUARE_KERNEL] * len(kernels)

        def convolutions(outputs: int) -> nn.Module:
            if shared_by:
                return nn.Conv2d(channels, shared_by * outputs, SQUARE_KERNEL, padding=1)
            return nn.ModuleList(
                nn.Conv2d(channels, outputs, kernel, padding=(kernel[0] // 2, kernel[1] // 2)) for kernel in kernels
            )

        def tower() -> nn.Module:
            if shared_by:
                return nn.Identity()
            convs = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
            return nn.Sequential(*(layer for conv in convs for layer in (conv, nn.ReLU(inplace=True))))

        self.upfeature = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True))
        self.bbox_layer = convolutions(4)
        self.track_layer = convolutions(embedding_dim) if embedding_dim else None
        self.mask_layer = convolutions(num_prototypes)
        self.centerness_layer = convolutions(1) if centerness else None
        self.calibrated = calibration != "none"
        self.boxes_relative_to_kernel = square_kernels and calibration == "ali"
        if self.calibrated:
            self.conf_layer = nn.ModuleList(
                FeatureCalibration(channels, num_outputs, kernel, calibration) for kernel in kernels
            )
        else:
            self.conf_layer = convolutions(num_outputs)
        self.track_extra = tower() if embedding_dim else None
        self.conf_extra, self.bbox_extra, self.mask_extra = (tower() for _ in range(3))

    def forward(self, levels: Sequence[Tensor]) -> tuple[HeadOutput, list[Tensor]]:
        """(outputs for all anchors of `levels` [B,C,h,w] …, the shared feature U [B,C,h,w] ≥ 0 of each level)."""
        shared = [self.upfeature(level) for level in levels]
        box_features = [self.bbox_extra(features) for features in shared]
        box_deltas = [_maps(self.bbox_layer, features) for features in box_features]
        logits = [
            self._logits(self.conf_extra(features), deltas) for features, deltas in zip(shared, box_deltas, strict=True)
        ]
        outputs = HeadOutput(
            box_deltas=_anchor_fastest(box_deltas, 4),
            class_logits=_anchor_fastest(logits, self.num_outputs),
            centerness=self._centerness(box_features),
            mask_coeffs=self._convolve(self.mask_extra, shared, self.mask_layer, self.num_prototypes),
            embeddings=self._convolve(self.track_extra, shared, self.track_layer, self.embedding_dim, normalized=True),
        )
        return outputs, shared

    def _logits(self, features: Tensor, box_deltas: Sequence[Tensor]) -> list[Tensor]:
        """Class logits of a level, one map per convolution."""
        if not self.calibrated:
            return _maps(self.conf_layer, features)
        seen = self._as_calibration_sees(box_deltas)
        return [layer(features, deltas) for layer, deltas in zip(self.conf_layer, seen, strict=True)]

    def _centerness(self, features: Sequence[Tensor]) -> Tensor | None:
        """[B,A] in −1…1 from the box features of each level."""
        if self.centerness_layer is None:
            return None
        maps = [_maps(self.centerness_layer, level) for level in features]
        if self.centerness_kernel_major:
            return torch.tanh(torch.cat([x.flatten(1) for level in maps for x in level], dim=1))
        return torch.tanh(_anchor_fastest(maps, 1).squeeze(-1))

    def _convolve(
        self,
        tower: nn.Module | None,
        shared: Sequence[Tensor],
        layers: nn.Module | None,
        length: int,
        normalized: bool = False,
    ) -> Tensor | ConvolvedAtAnchors | None:
        """[B,A,D] from U of each level, D = `length`, through `tower` and `layers`; with `at_anchors` evaluated on
        request; None without such layers."""
        if tower is None or layers is None:
            return None
        features = tuple(tower(level) for level in shared)
        if self.at_anchors:
            return ConvolvedAtAnchors(features, _each(layers), length, normalized)
        values = _anchor_fastest([_maps(layers, level) for level in features], length)
        return F.normalize(values, dim=-1) if normalized else values

    def sampling_offsets(self, box_deltas: Tensor, kernel: int) -> Tensor:
        """Offsets [kh·kw,2] in cells, (dy, dx) per tap, where FCB samples for an anchor of shape number `kernel`
        (0…k−1) with the regression values `box_deltas` [4].

        Raises:
            ValueError: the head has no FCB.
        """
        if not self.calibrated:
            raise ValueError("the head has no FCB, so it has no sampling offsets")
        seen = self._as_calibration_sees([box_deltas.view(1, 4, 1, 1)] * len(self.bbox_layer))
        return self.conf_layer[kernel].offsets(seen[kernel]).view(-1, 2)

    def _as_calibration_sees(self, box_deltas: Sequence[Tensor]) -> Sequence[Tensor]:
        """The regression values as input of FCB: "ali" assumes that the anchor has the kernel's shape; for other
        anchors the values are converted to an anchor of the kernel's shape."""
        if not self.boxes_relative_to_kernel:
            return box_deltas
        return [
            relative_to_kernel(deltas, anchor, SQUARE_KERNEL)
            for deltas, anchor in zip(box_deltas, self.anchor_shapes, strict=True)
        ]


def relative_to_kernel(box_deltas: Tensor, anchor: Kernel, kernel: Kernel) -> Tensor:
    """Regression values tx ty tw th [B,4,h,w] relative to anchors of `kernel` (height, width) cells, for the same boxes
    as `box_deltas` relative to anchors of `anchor` cells."""
    height, width = anchor[0] / kernel[0], anchor[1] / kernel[1]
    tx, ty, tw, th = box_deltas.unbind(dim=1)
    sides = (side + math.log(ratio) / SIZE_VARIANCE for side, ratio in ((tw, width), (th, height)))
    return torch.stack((tx * width, ty * height, *sides), dim=1)


def _each(layers: nn.Module) -> tuple[nn.Module, ...]:
    """The convolutions of an output: one per kernel, or one for all anchors of a cell."""
    return tuple(layers) if isinstance(layers, nn.ModuleList) else (layers,)


def _maps(layers: nn.Module, features: Tensor) -> list[Tensor]:
    """The output of each of the convolutions, [B,D,h,w], or [B,k·D,h,w] for k anchors, anchor slowest."""
    return [layer(features) for layer in _each(layers)]


def _anchor_fastest(levels: Sequence[Sequence[Tensor]], length: int) -> Tensor:
    """[B,A,D], D = `length`, ordered by level, row, column, anchor (fastest), from the maps of each level (`_maps`)."""
    levels = [[x.permute(0, 2, 3, 1) for x in maps] for maps in levels]
    batch, _, _, channels = levels[0][0].shape
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        merged = torch.cat([torch.stack(maps, dim=3).flatten(1, 3) for maps in levels], dim=1)
        return merged.reshape(batch, -1, length)
    # Writes each number once, in place; autograd does not support that, and the compiler does it by itself.
    counts = [sum(x.shape[1] * x.shape[2] for x in maps) for maps in levels]
    merged = levels[0][0].new_empty(batch, sum(counts), channels)
    for maps, part in zip(levels, merged.split(counts, dim=1), strict=True):
        torch.stack(maps, dim=3, out=part.view(batch, *maps[0].shape[1:3], len(maps), channels))
    return merged.view(batch, -1, length)
