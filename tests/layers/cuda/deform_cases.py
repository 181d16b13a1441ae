"""Convolutions that kernels for a GPU are tried on, and torchvision's results in float64."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}  # of the largest number of the result


@dataclass(frozen=True)
class Case:
    """The shape of a convolution; `spread` is the standard deviation of its offsets in pixels."""

    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    channels: int = 16
    out_channels: int = 24
    size: tuple[int, int] = (7, 9)
    spread: float = 1.0
    modulated: bool = True
    bias: bool = True
    batch: int = 2
    channels_last_offsets: bool = False


CASES = {
    "backbone": Case(),
    "backbone, stride 2": Case(stride=(2, 2), channels_last_offsets=True),
    "calibration, 3x3": Case(modulated=False, bias=False, out_channels=16),
    "calibration, 3x5": Case(kernel=(3, 5), modulated=False, bias=False),
    "calibration, 5x3": Case(kernel=(5, 3), modulated=False, bias=False),
    "channels that fill no block": Case(channels=40, out_channels=20, batch=1),
    "one odd channel": Case(channels=1, out_channels=3, size=(5, 4)),
    "far offsets": Case(spread=30.0),
    "no offsets": Case(spread=0.0),
    "dilation": Case(dilation=(2, 2)),
    "one pixel": Case(size=(1, 1)),
    "1x1": Case(kernel=(1, 1), stride=(1, 2)),
}


def arguments(case: Case, dtype: torch.dtype) -> tuple:
    """(features, offsets, weight, bias, stride, padding, dilation, modulation) as `convolve` of a kernel takes them."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    taps = case.kernel[0] * case.kernel[1]
    geometry = list(zip(case.size, case.kernel, case.stride, case.dilation, strict=True))
    padding = tuple(dilation * (kernel // 2) for _, kernel, _, dilation in geometry)
    out_size = [
        (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for (size, kernel, stride, dilation), pad in zip(geometry, padding, strict=True)
    ]
    features = normal(case.batch, case.channels, *case.size).to(dtype)
    # Views of one tensor, as the network's are.
    predicted = normal(case.batch, 3 * taps, *out_size) * case.spread
    if case.channels_last_offsets:
        predicted = predicted.contiguous(memory_format=torch.channels_last)
    offsets, modulation = predicted.split((2 * taps, taps), dim=1)
    weight = (normal(case.out_channels, case.channels, *case.kernel) / (case.channels * taps) ** 0.5).to(dtype)
    bias = normal(case.out_channels) if case.bias else None
    return features, offsets, weight, bias, case.stride, padding, case.dilation, modulation if case.modulated else None


def expected(features, offsets, weight, bias, stride, padding, dilation, modulation) -> Tensor:
    """torchvision's result in float64."""
    bias, modulation = (None if tensor is None else tensor.double() for tensor in (bias, modulation))
    return deform_conv2d(
        features.double(), offsets.double(), weight.double(), bias, stride, padding, dilation, modulation
    )


def relative_error(found: Tensor, truth: Tensor) -> float:
    """The largest difference, relative to the largest number of `truth`; raises if the shapes differ."""
    assert found.shape == truth.shape
    return float((found.double() - truth).abs().max() / truth.abs().max())
