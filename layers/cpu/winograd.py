"""3×3 convolutions with a quarter of the products: Winograd's F(4×4, 3×3) on the CPU (Lavin and Gray, CVPR 2016).

A tile of 4×4 output pixels takes 36 products a pair of channels instead of 144. `_winograd.pyx` computes the sums
before and after; the products are one grouped convolution of oneDNN. Rounding errors are three to five times as large
(root mean square; the largest up to ten times) as those of a direct convolution in float32. It needs a C compiler.

Letters: B images, Cin and Cout channels, H W both input and output, N tiles of all images.
"""

import math

import torch
from torch import Tensor, nn

from layers.cpu.packed_products import PackedMatrices
from layers.cpu.threads import usable_threads
from ytvis.optional import import_native

_winograd = import_native("layers.cpu._winograd", "spread_tiles", "gather_tiles")

POINTS = 36  # products a tile
CHUNK = 60  # tiles at a time: they stay in the cache until they are multiplied; weights are laid out for this number
MIN_CHANNELS = 64  # with fewer, the sums cost more than the products saved
MIN_TILES = 32  # with fewer, reading four times the weights costs more

# The transform of a kernel row of three taps.
_SPREAD = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


class WinogradConv2d:
    """The convolution with `weight` [Cout,Cin,3,3] and `bias` [Cout] or None, stride 1 and padding 1, of float32 maps
    on the CPU, followed by a ReLU if `relu`. It is for inference: autograd does not support it."""

    def __init__(self, weight: Tensor, bias: Tensor | None, relu: bool):
        self.out_channels, in_channels = weight.shape[:2]
        spread = torch.tensor(_SPREAD, dtype=torch.float64)
        points = torch.einsum("ij,ocjk,lk->iloc", spread, weight.double(), spread).float()
        self._bias = torch.zeros(self.out_channels) if bias is None else bias.contiguous()
        self._relu = relu
        self._points = PackedMatrices(points.reshape(POINTS, self.out_channels, in_channels), CHUNK)

    @staticmethod
    def suits(conv: nn.Conv2d) -> bool:
        """Whether it can replace `conv`, and is faster for maps of a usual size."""
        geometry = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
        plain = geometry == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")
        return _winograd is not None and plain and min(conv.in_channels, conv.out_channels) >= MIN_CHANNELS

    @staticmethod
    def pays(x: Tensor) -> bool:
        """Whether `x` [B,Cin,H,W] has enough tiles to be faster than a direct convolution."""
        return _count_tiles(x) >= MIN_TILES

    def __call__(self, x: Tensor) -> Tensor:
        """[B,Cout,H,W], channels last, of `x` [B,Cin,H,W] float32."""
        features = x.permute(0, 2, 3, 1).contiguous()
        out = features.new_empty(*features.shape[:3], self.out_channels)
        count, threads = _count_tiles(x), usable_threads(CHUNK * POINTS * features.shape[3])
        tiles = features.new_zeros(CHUNK, POINTS, features.shape[3])
        for start in range(0, count, CHUNK):
            start = max(0, min(start, count - CHUNK))  # the last chunk is full too, and repeats some tiles
            used = slice(min(CHUNK, count))
            _winograd.spread_tiles(features.numpy(), tiles[used].numpy(), start, threads)
            products = self._points.multiply(tiles)[used]
            _winograd.gather_tiles(products.numpy(), self._bias.numpy(), out.numpy(), start, self._relu, threads)
        return out.permute(0, 3, 1, 2)


def _count_tiles(x: Tensor) -> int:
    return x.shape[0] * math.ceil(x.shape[2] / 4) * math.ceil(x.shape[3] / 4)
