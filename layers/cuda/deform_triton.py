"""Deformable convolution on CUDA as one Triton kernel, forward only.

A program computes a tile of output pixels × output channels. For each tap it finds where its pixels sample, in float32;
for each block of input channels it reads the four neighbours of every sample, interpolates in float32, rounds to the
dtype of the weights, and adds the product with the weights to float32 sums. There is no matrix of columns in memory and
one launch, on the current stream, so a CUDA graph can record it.

Importing this module needs triton. With TRITON_INTERPRET=1 in the environment the kernel runs on CPU tensors.

Letters: B images, Cin and Cout channels, H W input, H' W' output, K = kh·kw taps.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# (pixels, output channels) of a tile, largest first: a large tile reads samples and weights less often.
TILES = ((64, 256), (64, 128), (32, 128), (32, 64), (16, 64))
BLOCK_CHANNELS = 32


@triton.jit
def _sample(features, image, row, column, share, channel, stride_row, stride_column, height, width, is_channel):
    """[pixels,channels] float32: `share` · the features at (row, column), zero outside the image."""
    is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    start = image + row.to(tl.int64) * stride_row + column.to(tl.int64) * stride_column
    mask = is_inside[:, None] & is_channel[None, :]
    return tl.load(features + start[:, None] + channel[None, :], mask=mask, other=0.0).to(tl.float32) * share[:, None]


@triton.jit
def _convolve(
    features,
    offsets,
    modulation,
    weight,
    bias,
    out,
    height,
    width,
    channels,
    out_width,
    out_pixels,
    pixels,
    out_channels,
    feature_image,
    feature_row,
    feature_column,
    offset_image,
    offset_channel,
    offset_row,
    offset_column,
    modulation_image,
    modulation_channel,
    modulation_row,
    modulation_column,
    stride_y,
    stride_x,
    padding_y,
    padding_x,
    dilation_y,
    dilation_x,
    TAPS: tl.constexpr,
    KERNEL_WIDTH: tl.constexpr,
    IS_MODULATED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    MULTIPLY_FLOAT32: tl.constexpr,
    TILE_PIXELS: tl.constexpr,
    TILE_OUT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`out` [B,H',W',Cout] of `features` [B,H,W,Cin] and `weight` [Cout,K,Cin], whose last axes are contiguous."""
    pixel = tl.program_id(0) * TILE_PIXELS + tl.arange(0, TILE_PIXELS)
    output = tl.program_id(1) * TILE_OUT + tl.arange(0, TILE_OUT)
    is_pixel, is_output = pixel < pixels, output < out_channels
    image = (pixel // out_pixels).to(tl.int64)
    row = (pixel % out_pixels) // out_width
    column = pixel % out_width
    offsets += image * offset_image + row.to(tl.int64) * offset_row + column.to(tl.int64) * offset_column
    modulation += image * modulation_image + row.to(tl.int64) * modulation_row + column.to(tl.int64) * modulation_column
    image *= feature_image
    sums = tl.zeros((TILE_PIXELS, TILE_OUT), tl.float32)
    for tap in range(TAPS):
        dy = tl.load(offsets + 2 * tap * offset_channel, mask=is_pixel, other=0.0).to(tl.float32)
        dx = tl.load(offsets + (2 * tap + 1) * offset_channel, mask=is_pixel, other=0.0).to(tl.float32)
        y = (row * stride_y - padding_y + tap // KERNEL_WIDTH * dilation_y).to(tl.float32) + dy
        x = (column * stride_x - padding_x + tap % KERNEL_WIDTH * dilation_x).to(tl.float32) + dx
        samples_inside = is_pixel & (y > -1) & (y < height) & (x > -1) & (x < width)  # false for NaN
        y = tl.where(samples_inside, y, 0.0)
        x = tl.where(samples_inside, x, 0.0)
        top, left = tl.floor(y), tl.floor(x)
        below, right = y - top, x - left
        factor = tl.where(samples_inside, 1.0, 0.0)
        if IS_MODULATED:
            factor *= tl.load(modulation + tap * modulation_channel, mask=is_pixel, other=0.0).to(tl.float32)
        top, left = top.to(tl.int32), left.to(tl.int32)
        top_left, top_right = factor * (1 - below) * (1 - right), factor * (1 - below) * right
        bottom_left, bottom_right = factor * below * (1 - right), factor * below * right
        for first in range(0, channels, BLOCK):
            channel = first + tl.arange(0, BLOCK)
            is_channel = channel < channels
            strides = (feature_row, feature_column)
            size = (height, width)
            samples = _sample(features, image, top, left, top_left, channel, *strides, *size, is_channel)
            samples += _sample(features, image, top, left + 1, top_right, channel, *strides, *size, is_channel)
            samples += _sample(features, image, top + 1, left, bottom_left, channel, *strides, *size, is_channel)
            samples += _sample(features, image, top + 1, left + 1, bottom_right, channel, *strides, *size, is_channel)
            place = (output[None, :] * TAPS + tap) * channels + channel[:, None]
            weights = tl.load(weight + place, mask=is_channel[:, None] & is_output[None, :], other=0.0)
            rounded = samples.to(weights.dtype)
            if MULTIPLY_FLOAT32:
                rounded, weights = rounded.to(tl.float32), weights.to(tl.float32)
            sums = tl.dot(rounded, weights, sums, input_precision="ieee")
    if HAS_BIAS:
        sums += tl.load(bias + output, mask=is_output, other=0.0).to(tl.float32)[None, :]
    place = pixel.to(tl.int64)[:, None] * out_channels + output[None, :]
    tl.store(out + place, sums.to(out.dtype.element_ty), mask=is_pixel[:, None] & is_output[None, :])


def tile_size(pixels: int, out_channels: int, num_processors: int) -> tuple[int, int]:
    """The largest of `TILES` that keeps all processors of a GPU busy, else the smallest."""
    for tile_pixels, tile_out in TILES:
        if triton.cdiv(pixels, tile_pixels) * triton.cdiv(out_channels, tile_out) >= num_processors:
            return tile_pixels, tile_out
    return TILES[-1]


def convolve(
    features: Tensor,
    offsets: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    modulation: Tensor | None,
    tile: tuple[int, int] | None = None,
) -> Tensor:
    """[B,Cout,H',W'] in the dtype of `weight`, channels last: see `layers.deform_conv.deformable_conv2d`.

    One weight group and one offset group only. Fastest with `features` and `weight` in channels last, which are copied
    otherwise. `tile` (pixels, output channels), powers of two from 16 on, is by default `tile_size`.
    """
    features = features.contiguous(memory_format=torch.channels_last)
    weight = weight.contiguous(memory_format=torch.channels_last)
    batch, channels, height, width = features.shape
    out_channels, _, *kernel = weight.shape
    out_height, out_width = offsets.shape[2:]
    shape = (batch, out_channels, out_height, out_width)
    out = torch.empty(shape, dtype=weight.dtype, device=weight.device, memory_format=torch.channels_last)
    pixels = batch * out_height * out_width
    if pixels == 0:
        return out
    on_cpu = features.device.type == "cpu"  # the interpreter
    num_processors = 1 if on_cpu else torch.cuda.get_device_properties(features.device).multi_processor_count
    tile = tile or tile_size(pixels, out_channels, num_processors)
    unused = features  # a pointer that the kernel does not read
    shifts = offsets if modulation is None else modulation
    grid = (triton.cdiv(pixels, tile[0]), triton.cdiv(out_channels, tile[1]))
    _convolve[grid](
        features,
        offsets,
        shifts,
        weight,
        unused if bias is None else bias,
        out,
        height,
        width,
        channels,
        out_width,
        out_height * out_width,
        pixels,
        out_channels,
        features.stride(0),
        features.stride(2),
        features.stride(3),
        *offsets.stride(),
        *shifts.stride(),
        *stride,
        *padding,
        *dilation,
        TAPS=kernel[0] * kernel[1],
        KERNEL_WIDTH=kernel[1],
        IS_MODULATED=modulation is not None,
        HAS_BIAS=bias is not None,
        MULTIPLY_FLOAT32=on_cpu,  # the interpreter multiplies bfloat16 as if it were integers
        TILE_PIXELS=tile[0],
        TILE_OUT=tile[1],
        BLOCK=BLOCK_CHANNELS,
        num_warps=8 if tile[0] * tile[1] > 64 * 128 else 4,
        num_stages=3,
    )
    return out
