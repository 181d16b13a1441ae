"""Deformable convolution on CUDA where Triton does not run: a kernel compiled by NVRTC, and a matrix product.

NVRTC comes with torch and needs no compiler on the machine. The kernel gathers the samples of all taps into columns, in
the dtype of the weights; one product with the weights follows. Both run on the current stream, so a CUDA graph can
record them. torch compiles and launches kernels by private functions, which may be absent: see `is_available`.

Letters: B images, Cin and Cout channels, H W input, H' W' output, K = kh·kw taps.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

# No headers: where CUDA's lie differs between releases of torch.
SOURCE = r"""
struct ALIGNED vector { SCALAR values[VECTOR]; };

// Each thread fills VECTOR neighbouring channels of the column of one pixel and tap, then goes on to the next.
extern "C" __global__ void gather(const SCALAR* features, const OFFSET* offsets, const OFFSET* modulation,
    SCALAR* columns, int height, int width, int channels, int out_width, int out_pixels, int pixels,
    int taps, int kernel_width, int feature_image, int feature_row, int feature_column,
    int offset_image, int offset_channel, int offset_row, int offset_column,
    int modulation_image, int modulation_channel, int modulation_row, int modulation_column,
    int stride_y, int stride_x, int padding_y, int padding_x, int dilation_y, int dilation_x) {
  const int vectors = channels / VECTOR;
  const long long count = (long long)pixels * taps * vectors;
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < count; i += step) {
    const int channel = (int)(i % vectors) * VECTOR;
    const int tap = (int)(i / vectors % taps);
    const long long pixel = i / vectors / taps;
    const int row = (int)(pixel % out_pixels) / out_width, column = (int)(pixel % out_pixels) % out_width;
    const long long image = pixel / out_pixels;
    const OFFSET* shift = offsets + image * offset_image
        + (long long)row * offset_row + (long long)column * offset_column;
    const float dy = OFFSET_TO_FLOAT(shift[(2LL * tap) * offset_channel]);
    const float dx = OFFSET_TO_FLOAT(shift[(2LL * tap + 1) * offset_channel]);
    const float y = (float)(row * stride_y - padding_y + tap / kernel_width * dilation_y) + dy;
    const float x = (float)(column * stride_x - padding_x + tap % kernel_width * dilation_x) + dx;
    float factor = 1.f;
    if (IS_MODULATED)
      factor = OFFSET_TO_FLOAT(modulation[image * modulation_image + (long long)tap * modulation_channel
          + (long long)row * modulation_row + (long long)column * modulation_column]);
    float sums[VECTOR] = {};
    if (y > -1.f && y < height && x > -1.f && x < width) {  // false for NaN
      const int top = (int)floorf(y), left = (int)floorf(x);
      const float below = y - top, right = x - left;
      for (int corner = 0; corner < 4; ++corner) {
        const int r = top + corner / 2, c = left + corner % 2;
        if (r < 0 || r >= height || c < 0 || c >= width) continue;
        const float share = factor * (corner / 2 ? below : 1.f - below) * (corner % 2 ? right : 1.f - right);
        const SCALAR* at = features + image * feature_image
            + (long long)r * feature_row + (long long)c * feature_column;
        const struct vector found = *(const struct vector*)(at + channel);
        for (int v = 0; v < VECTOR; ++v) sums[v] += share * TO_FLOAT(found.values[v]);
      }
    }
    struct vector rounded;
    for (int v = 0; v < VECTOR; ++v) rounded.values[v] = FROM_FLOAT(sums[v]);
    *(struct vector*)(columns + (pixel * taps + tap) * channels + channel) = rounded;
  }
}
"""
FLOAT32 = """
static __device__ float from_float32(float x) { return x; }
static __device__ float to_float32(float x) { return x; }
"""
BFLOAT16 = """
static __device__ float from_bfloat16(unsigned short x) { return __uint_as_float((unsigned)x << 16); }
static __device__ unsigned short to_bfloat16(float x) {  // to nearest, ties to even
  const unsigned bits = __float_as_uint(x);
  if (x != x) return 0x7fc0;
  return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
"""
FLOAT16 = """
static __device__ float from_float16(unsigned short x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}
static __device__ unsigned short to_float16(float x) {
  unsigned short y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
"""
# dtype: type in C, suffix of its conversions, their source
SCALARS = {
    torch.float32: ("float", "float32", FLOAT32),
    torch.bfloat16: ("unsigned short", "bfloat16", BFLOAT16),
    torch.float16: ("unsigned short", "float16", FLOAT16),
}
THREADS = 256
MAX_BLOCKS = 1 << 16
INT_MAX = 2**31 - 1  # the kernel takes strides as C ints


def is_available() -> bool:
    """Whether this torch can compile and launch kernels, and has CUDA."""
    return torch.version.cuda is not None and hasattr(torch.cuda, "_compile_kernel")


def source(dtype: torch.dtype, offset_dtype: torch.dtype, vector: int, is_modulated: bool) -> str:
    """The CUDA source of `gather` for features of `dtype` whose channels are a multiple of `vector`."""
    scalar, name, conversions = SCALARS[dtype]
    offset, offset_name, offset_conversions = SCALARS[offset_dtype]
    macros = {
        "SCALAR": scalar,
        "TO_FLOAT": f"from_{name}",
        "FROM_FLOAT": f"to_{name}",
        "OFFSET": offset,
        "OFFSET_TO_FLOAT": f"from_{offset_name}",
        "VECTOR": vector,
        "ALIGNED": f"__align__({vector * dtype.itemsize})",
        "IS_MODULATED": int(is_modulated),
    }
    defines = (f"#define {macro} {value}" for macro, value in macros.items())
    return "\n".join((*dict.fromkeys((conversions, offset_conversions)), *defines, SOURCE))


@functools.cache
def _compiled(device: torch.device, *kind) -> Callable:
    with torch.cuda.device(device):
        return torch.cuda._compile_kernel(source(*kind), "gather")


def convolve(
    features: Tensor,
    offsets: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    modulation: Tensor | None,
) -> Tensor:
    """[B,Cout,H',W'] in the dtype of `weight`, channels last: see `layers.deform_conv.deformable_conv2d`.

    One weight group and one offset group only.

    Raises:
        RuntimeError: the kernel cannot be compiled, or a tensor is too large for it.
    """
    dtype = weight.dtype
    features = features.to(dtype).contiguous(memory_format=torch.channels_last)
    modulation = None if modulation is None else modulation.to(offsets.dtype)
    batch, channels, height, width = features.shape
    out_channels, _, *kernel = weight.shape
    out_height, out_width = offsets.shape[2:]
    pixels, taps = batch * out_height * out_width, kernel[0] * kernel[1]
    columns = features.new_empty(pixels, taps * channels)
    if pixels:
        largest = 16 // dtype.itemsize
        vector = largest if channels % largest == 0 and features.data_ptr() % 16 == 0 else 1
        shifts = offsets if modulation is None else modulation
        numbers = (
            *(height, width, channels, out_width, out_height * out_width, pixels, taps, kernel[1]),
            *(features.stride(0), features.stride(2), features.stride(3)),
            *offsets.stride(),
            *shifts.stride(),
            *stride,
            *padding,
            *dilation,
        )
        if max(numbers) > INT_MAX:
            raise RuntimeError(f"features {tuple(features.shape)} are too large for the kernel")
        blocks = min(MAX_BLOCKS, -(-pixels * taps * (channels // vector) // THREADS))
        gather = _compiled(features.device, dtype, offsets.dtype, vector, modulation is not None)
        gather((blocks, 1, 1), (THREADS, 1, 1), [features, offsets, shifts, columns, *numbers])
    matrix = weight.permute(0, 2, 3, 1).reshape(out_channels, -1).t()  # a view of a weight in channels last
    out = columns @ matrix if bias is None else torch.addmm(bias.to(dtype), columns, matrix)
    return out.view(batch, out_height, out_width, out_channels).permute(0, 3, 1, 2)
