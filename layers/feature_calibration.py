"""FCB, feature calibration for boxes (STMask, section 3.2): classifies features sampled over the regressed box."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layers.box_utils import CENTER_VARIANCE, SIZE_VARIANCE
from layers.cpu.packed_products import PackedMatrices
from layers.deform_conv import deformable_conv2d


def aligned_offsets(box_deltas: Tensor, kernel: tuple[int, int]) -> Tensor:
    """Offsets [B,2·kh·kw,h,w], (dy, dx) per tap, that spread the kernel's grid over the regressed boxes ("ali").

    `box_deltas` [B,4,h,w] are regression values tx ty tw th relative to an anchor of `kernel` = (kh, kw) cells.
    """
    kernel_height, kernel_width = kernel
    tx, ty, tw, th = box_deltas.unsqueeze(1).unbind(dim=2)  # each [B,1,h,w]
    rows, columns = (
        torch.arange(size, device=box_deltas.device, dtype=box_deltas.dtype) - size // 2 for size in kernel
    )
    rows = rows.repeat_interleave(kernel_width)[:, None, None]  # [kh·kw,1,1]
    columns = columns.repeat(kernel_height)[:, None, None]
    dy = CENTER_VARIANCE * ty * kernel_height + (torch.exp(SIZE_VARIANCE * th) - 1) * rows
    dx = CENTER_VARIANCE * tx * kernel_width + (torch.exp(SIZE_VARIANCE * tw) - 1) * columns
    return torch.stack((dy, dx), dim=2).flatten(1, 2)  # [B,kh·kw,2,h,w] → [B,2·kh·kw,h,w]


class FeatureCalibration(nn.Module):
    """Class logits [B,C+1,h,w] from features sampled where the box regression points.

    `kind` "ada" learns the offsets from the four regression values, "ali" computes them (`aligned_offsets`). No
    gradient flows into the regression.
    """

    packed: PackedMatrices | None = None  # of the weight of `conv_adaption`, in a copy for inference

    def __init__(self, channels: int, num_outputs: int, kernel: tuple[int, int], kind: str):
        super().__init__()
        self.kernel = kernel
        self.padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_offset = nn.Conv2d(4, 2 * kernel[0] * kernel[1], 1, bias=False) if kind == "ada" else None
        self.conv_adaption = nn.Conv2d(channels, channels, kernel, padding=self.padding, bias=False)
        self.conv = nn.Conv2d(channels, num_outputs, kernel, padding=self.padding)

    def offsets(self, box_deltas: Tensor) -> Tensor:
        """Sampling offsets [B,2·kh·kw,h,w] in cells, (dy, dx) per tap, for `box_deltas` [B,4,h,w]."""
        if self.conv_offset is None:
            return aligned_offsets(box_deltas.detach(), self.kernel)
        return self.conv_offset(box_deltas.detach())

    def forward(self, features: Tensor, box_deltas: Tensor) -> Tensor:
        offsets = self.offsets(box_deltas)
        weight = self.conv_adaption.weight
        calibrated = deformable_conv2d(features, offsets, weight, padding=self.padding, packed=self.packed)
        return self.conv(F.relu(calibrated))
