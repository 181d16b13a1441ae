"""Anchors of the FCA head: one box the size of each kernel at every cell of a level (STMask, section 3.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def make_anchors(
    level_sizes: Sequence[tuple[int, int]], kernels: Sequence[tuple[int, int]], device: torch.device | str = "cpu"
) -> Tensor:
    """Returns anchors [A,4] float32 as cx cy w h, normalised, ordered by level, row, column, kernel (fastest).

    `level_sizes` are (height, width) in cells of P3…P7, `kernels` (height, width) in cells of the
    same level.
    """
    shapes = torch.tensor(kernels, dtype=torch.float32, device=device)  # [k,2] height, width
    levels = []
    for height, width in level_sizes:
        centers_y = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) / height
        centers_x = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) / width
        grid_y, grid_x = torch.meshgrid(centers_y, centers_x, indexing="ij")
        centers = torch.stack((grid_x, grid_y), dim=-1)[:, :, None]  # [h,w,1,2]
        sizes = torch.stack((shapes[:, 1] / width, shapes[:, 0] / height), dim=-1)  # [k,2]
        grid = (height, width, len(kernels), 2)
        levels.append(torch.cat((centers.expand(grid), sizes.expand(grid)), dim=-1).reshape(-1, 4))
    return torch.cat(levels)
