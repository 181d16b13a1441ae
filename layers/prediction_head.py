"""The prediction head: FCA predicts each anchor with a convolution of the anchor's own shape (STMask, section 3.1),
FCB calibrates the class branch (section 3.2)."""

import math
from collections.abc import Iterable, Sequence
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
    centerness: Tensor
    mask_coeffs: Tensor | AtAnchors
    embeddings: Tensor | AtAnchors


@dataclass(frozen=True)
class ConvolvedAtAnchors(TensorFields):
    """Evaluates k convolutions, one per anchor shape, at selected anchors only.

    `values[index, anchors]` is [n,D] for image `index` and `anchors` [n] int64: the rows that the dense maps of
    `layers` over `features` [B,C,h,w] … have there, of unit length if `normalized`. Only a few dozen of thousands of
    anchors become objects and need mask coefficients and embeddings.
    """

    features: tuple[Tensor, ...]
    layers: tuple[nn.Module, ...]
    normalized: bool

    def __getitem__(self, at: tuple[int, Tensor]) -> Tensor:
        index, anchors = at
        cells, kernels = anchors // len(self.layers), anchors % len(self.layers)
        values = self.features[0].new_empty(len(anchors), self.layers[0].weight.shape[0])
        table = [level[index].permute(1, 2, 0).flatten(0, 1) for level in self.features]  # [cells,C], level by level
        table = torch.cat((*table, table[0].new_zeros(1, table[0].shape[1])))  # the last row stands for the padding
        for number, layer in enumerate(self.layers):
            mine = (kernels == number).nonzero().squeeze(1)
            seen = table[self._around(cells[mine], layer.weight.shape[2:])].flatten(1)  # [n,taps·C]
            values[mine] = F.linear(seen, layer.weight.permute(0, 2, 3, 1).flatten(1), layer.bias)
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
    ):
        super().__init__()
        self.at_anchors = False
        self.centerness_kernel_major = centerness_kernel_major
        self.anchor_shapes = tuple(kernels)
        if square_kernels:
            kernels = [SQUARE_KERNEL] * len(kernels)

        def per_kernel(outputs: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Conv2d(channels, outputs, kernel, padding=(kernel[0] // 2, kernel[1] // 2)) for kernel in kernels
            )

        def tower() -> nn.Sequential:
            convs = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
            return nn.Sequential(*(layer for conv in convs for layer in (conv, nn.ReLU(inplace=True))))

        self.upfeature = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True))
        self.bbox_layer = per_kernel(4)
        self.track_layer = per_kernel(embedding_dim)
        self.mask_layer = per_kernel(num_prototypes)
        self.centerness_layer = per_kernel(1)
        self.calibrated = calibration != "none"
        self.boxes_relative_to_kernel = square_kernels and calibration == "ali"
        if self.calibrated:
            self.conf_layer = nn.ModuleList(
                FeatureCalibration(channels, num_outputs, kernel, calibration) for kernel in kernels
            )
        else:
            self.conf_layer = per_kernel(num_outputs)
        self.track_extra, self.conf_extra, self.bbox_extra, self.mask_extra = (tower() for _ in range(4))

    def forward(self, levels: Sequence[Tensor]) -> tuple[HeadOutput, list[Tensor]]:
        """(outputs for all anchors of `levels` [B,C,h,w] …, the shared feature U [B,C,h,w] ≥ 0 of each level)."""
        shared = [self.upfeature(level) for level in levels]
        maps = [self._predict(features) for features in shared]
        box_deltas, logits, centerness, mask_features, track_features = zip(*maps, strict=True)
        if self.centerness_kernel_major:
            centerness = torch.cat([x.flatten(1) for level in centerness for x in level], dim=1)
        else:
            centerness = _kernel_fastest(centerness).squeeze(-1)
        outputs = HeadOutput(
            box_deltas=_kernel_fastest(box_deltas),
            class_logits=_kernel_fastest(logits),
            centerness=torch.tanh(centerness),
            mask_coeffs=self._convolve(mask_features, self.mask_layer),
            embeddings=self._convolve(track_features, self.track_layer, normalized=True),
        )
        return outputs, shared

    def _convolve(
        self, features: tuple[Tensor, ...], layers: Iterable[nn.Module], normalized: bool = False
    ) -> Tensor | ConvolvedAtAnchors:
        """[B,A,D] from the `features` of each level, one layer per kernel; with `at_anchors` evaluated on request."""
        if self.at_anchors:
            return ConvolvedAtAnchors(features, tuple(layers), normalized)
        values = _kernel_fastest([[layer(level) for layer in layers] for level in features])
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

    def _predict(self, shared: Tensor) -> tuple[list[Tensor] | Tensor, ...]:
        """Box deltas, class logits and centerness of a level, one map per kernel each, and the features for mask
        coefficients and embeddings."""
        box_features = self.bbox_extra(shared)
        class_features = self.conf_extra(shared)
        box_deltas = [layer(box_features) for layer in self.bbox_layer]
        centerness = [layer(box_features) for layer in self.centerness_layer]
        if self.calibrated:
            seen = self._as_calibration_sees(box_deltas)
            logits = [layer(class_features, deltas) for layer, deltas in zip(self.conf_layer, seen, strict=True)]
        else:
            logits = [layer(class_features) for layer in self.conf_layer]
        return box_deltas, logits, centerness, self.mask_extra(shared), self.track_extra(shared)

    def _as_calibration_sees(self, box_deltas: Sequence[Tensor]) -> Sequence[Tensor]:
        """The regression values as FCB needs them: "ali" assumes that the anchor has the kernel's shape; where it does
        not, the values are made relative to an anchor of the kernel's shape."""
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
    factors = box_deltas.new_tensor([width, height, 1, 1])[:, None, None]
    terms = box_deltas.new_tensor([0, 0, math.log(width), math.log(height)])[:, None, None]
    return box_deltas * factors + terms / SIZE_VARIANCE


def _kernel_fastest(levels: Sequence[Sequence[Tensor]]) -> Tensor:
    """[B,A,D], ordered by level, row, column, kernel (fastest), from k maps [B,D,h,w] per level."""
    levels = [[x.permute(0, 2, 3, 1) for x in maps] for maps in levels]
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return torch.cat([torch.stack(maps, dim=3).flatten(1, 3) for maps in levels], dim=1)
    # Writes each number once, in place; autograd cannot follow that, and the compiler finds it by itself.
    batch, _, _, length = levels[0][0].shape
    counts = [sum(x.shape[1] * x.shape[2] for x in maps) for maps in levels]
    merged = levels[0][0].new_empty(batch, sum(counts), length)
    for maps, part in zip(levels, merged.split(counts, dim=1), strict=True):
        torch.stack(maps, dim=3, out=part.view(batch, *maps[0].shape[1:3], len(maps), length))
    return merged
