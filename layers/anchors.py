"""Anchors: boxes at every cell of a level, of the kernels' sizes (FCA; STMask, section 3.1) or of sizes in pixels
(YOLACT, ICCV 2019)."""

from collections.abc import Sequence

import torch
from torch import Tensor

ASPECT_RATIOS = (1.0, 0.5, 2.0)  # width over height of YOLACT's anchors


def make_anchors(
    level_sizes: Sequence[tuple[int, int]], kernels: Sequence[tuple[int, int]], device: torch.device | str = "cpu"
) -> Tensor:
    """Returns anchors [A,4] float32 as cx cy w h, normalised, ordered by level, row, column, kernel (fastest).

    `level_sizes` are (height, width) in cells of P3…P7, `kernels` (height, width) in cells of the
    same level.
    """
    shapes = torch.tensor(kernels, dtype=torch.float32, device=device)  # [k,2] height, width
    return _at_every_cell(
        level_sizes,
        [torch.stack((shapes[:, 1] / width, shapes[:, 0] / height), dim=-1) for height, width in level_sizes],
    )


def make_scaled_anchors(
    level_sizes: Sequence[tuple[int, int]],
    shapes_px: Sequence[Sequence[tuple[float, float]]],
    input_hw: tuple[int, int],
    device: torch.device | str = "cpu",
) -> Tensor:
    """As `make_anchors`, for anchors with sizes in pixels: `shapes_px` gives for each level the (height, width) of its
    anchors in pixels of an input of `input_hw`."""
    height, width = input_hw
    sizes = [[(w / width, h / height) for h, w in shapes] for shapes in shapes_px]
    return _at_every_cell(level_sizes, [torch.tensor(level, dtype=torch.float32, device=device) for level in sizes])


def anchor_shapes_px(scales: Sequence[Sequence[float]], square: bool) -> list[list[tuple[float, float]]]:
    """For each level the (height, width) in pixels of anchors of its `scales`, ordered by scale, aspect ratio
    (fastest).

    An anchor of scale s and aspect ratio r is s/√r high and s·√r wide; with `square` it is as high as wide, a mistake
    that the published YOLACT was trained with (docs/quirks.md).
    """
    return [
        [
            (scale * ratio**0.5 if square else scale / ratio**0.5, scale * ratio**0.5)
            for scale in level
            for ratio in ASPECT_RATIOS
        ]
        for level in scales
    ]


def _at_every_cell(level_sizes: Sequence[tuple[int, int]], sizes: Sequence[Tensor]) -> Tensor:
    """Anchors [A,4] of the `sizes` [k,2], width and height, of each level, centred on each of its cells."""
    levels = []
    for (height, width), size in zip(level_sizes, sizes, strict=True):
        centers_y = (torch.arange(height, dtype=torch.float32, device=size.device) + 0.5) / height
        centers_x = (torch.arange(width, dtype=torch.float32, device=size.device) + 0.5) / width
        grid_y, grid_x = torch.meshgrid(centers_y, centers_x, indexing="ij")
        centers = torch.stack((grid_x, grid_y), dim=-1)[:, :, None]  # [h,w,1,2]
        grid = (height, width, len(size), 2)
        levels.append(torch.cat((centers.expand(grid), size.expand(grid)), dim=-1).reshape(-1, 4))
    return torch.cat(levels)
