"""The one door to deformable convolution (Dai et al., ICCV 2017; modulated: Zhu et al., CVPR 2019)."""

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d


def deformable_conv2d(
    features: Tensor,
    offsets: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    modulation: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> Tensor:
    """Convolution of `features` [B,Cin,H,W] that samples each tap at its place moved by `offsets`.

    `offsets` [B,2·kh·kw,H',W'] are (dy, dx) per tap in pixels of `features`, taps row by row; `modulation`
    [B,kh·kw,H',W'] scales each sample; samples outside are zero. Returns [B,Cout,H',W'], H' and W' as for a plain
    convolution, in the dtype of `weight`, in which all is computed, autocast or not: torchvision has no kernel for
    bfloat16 on a CPU.
    """
    features, offsets = features.to(weight.dtype), offsets.to(weight.dtype)
    if modulation is not None:
        modulation = modulation.to(weight.dtype)
    return deform_conv2d(features, offsets, weight, bias, stride, padding, mask=modulation)


class ModulatedDeformConv2d(nn.Module):
    """A deformable convolution with bias that predicts its own offsets and modulation from its input (DCNv2).

    `conv_offset_mask` gives 3·k·k channels: 2·k·k offsets as (dy, dx) per tap, then k·k modulations before a sigmoid.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1):
        super().__init__()
        self.stride = (stride, stride)
        self.padding = (kernel_size // 2, kernel_size // 2)
        self.taps = kernel_size * kernel_size
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.conv_offset_mask = nn.Conv2d(in_channels, 3 * self.taps, kernel_size, stride, self.padding)
        nn.init.xavier_uniform_(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        offsets, modulation = self.conv_offset_mask(features).split((2 * self.taps, self.taps), dim=1)
        return deformable_conv2d(
            features, offsets, self.weight, self.bias, modulation.sigmoid(), self.stride, self.padding
        )
