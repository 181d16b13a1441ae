"""Deformable convolution on the CPU: samples gathered into columns, and a matrix product with the weights.

`_deform_im2col.pyx` gathers the samples of all taps. The arithmetic runs as the custom operators
`stmask::deform_conv2d` and `stmask::deform_conv2d_backward`, so autograd, torch.compile and torch.export support it.
It needs kernels built by a C compiler (`is_built`).

Letters: B images, Cin and Cout channels, H W input, H' W' output, K = kh·kw taps, G weight groups, O offset groups.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from layers.cpu.packed_products import PackedMatrices, can_pack
from layers.cpu.threads import usable_threads
from ytvis.optional import import_native

_deform_im2col = import_native("layers.cpu._deform_im2col", "gather", "scatter")

COLUMN_BYTES = 8 << 20  # columns at a time: they stay in the cache until they are multiplied
LAYOUT_ROWS = 256  # packed weights are laid out for about this number of pixels; more and fewer are hardly slower
MIN_BLOCK_CHANNELS = 16  # with fewer in a block, computing a sample's place costs more than reading it


def is_built() -> bool:
    """Whether the kernels are compiled."""
    return _deform_im2col is not None


class Columns:
    """The columns [G,B·H'·W',K·Cin/G] of one convolution on the CPU, made a chunk of pixels at a time.

    Raises:
        ValueError: shapes or dtypes do not fit each other.
    """

    def __init__(self, features, offsets, modulation, weight, stride, padding, dilation):
        _check_shapes(features, offsets, modulation, weight, stride, padding, dilation)
        self.groups = features.shape[1] // weight.shape[1]
        self.pixels = offsets.shape[0] * offsets.shape[2] * offsets.shape[3]
        self.length = weight[0].numel()
        self.dtype = weight.dtype
        count = math.ceil(self.pixels * self.groups * self.length * self.dtype.itemsize / COLUMN_BYTES)
        self.chunk_pixels = max(1, math.ceil(self.pixels / max(count, 1)))
        samples = (features.permute(0, 2, 3, 1), offsets, modulation)
        self.samples = tuple(None if tensor is None else _array(tensor.contiguous()) for tensor in samples)
        self.geometry = tuple(tuple(pair) for pair in (weight.shape[2:], stride, padding, dilation))

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yields runs of pixels, each with uninitialised columns [G,n,K·Cin/G], all in the same memory."""
        pixel_numbers = self.groups * self.length
        memory = torch.empty(self.chunk_pixels * pixel_numbers, dtype=self.dtype)
        for start in range(0, self.pixels, self.chunk_pixels):
            chunk = slice(start, min(start + self.chunk_pixels, self.pixels))
            numbers = (chunk.stop - start) * pixel_numbers
            yield chunk, memory[:numbers].view(self.groups, -1, self.length)

    def gather(self, chunk: slice, columns: Tensor) -> None:
        """Fills `columns` with the samples for the pixels of `chunk`."""
        threads = usable_threads(columns.numel())
        _deform_im2col.gather(*self.samples, _array(columns), chunk.start, *self.geometry, threads)

    def scatter(self, chunk: slice, columns: Tensor, blocks: int, sums: Sequence[Tensor | None]) -> None:
        """Adds to `sums` the gradients that follow from those in `columns`, then fills `columns` as `gather` does."""
        threads = usable_threads(columns.numel())
        arrays = [None if tensor is None else _array(tensor) for tensor in sums]
        _deform_im2col.scatter(*self.samples, _array(columns), chunk.start, *self.geometry, threads, blocks, *arrays)


def _array(tensor: Tensor):
    """The memory of `tensor` as a numpy array; of bfloat16, which numpy lacks, the bits as int16."""
    tensor = tensor.detach()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _as_matrices(weight: Tensor, groups: int) -> Tensor:
    """`weight` [Cout,Cin/G,kh,kw] as a matrix a group [G,Cout/G,K·Cin/G], in the order of the columns."""
    return weight.permute(0, 2, 3, 1).reshape(groups, weight.shape[0] // groups, weight[0].numel())


def pack_weight(weight: Tensor) -> PackedMatrices | None:
    """Returns `weight` [Cout,Cin,kh,kw] of a convolution with one group, laid out for `convolve` in inference; None if
    that is not faster on this machine. The layout is a copy: it does not follow later changes of `weight`."""
    if not is_built() or weight.dtype != torch.float32 or not can_pack(weight.device, weight.dtype):
        return None
    return PackedMatrices(_as_matrices(weight.detach(), 1), LAYOUT_ROWS)


def _memory_format(features: Tensor) -> torch.memory_format:
    """Returns channels last if `features` are channels last and not contiguous, else contiguous."""
    channels_last = features.is_contiguous(memory_format=torch.channels_last) and not features.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def _check_shapes(features, offsets, modulation, weight, stride, padding, dilation) -> None:
    """Raises ValueError if shapes or dtypes do not fit each other: the kernel would read outside its memory."""
    batch, channels, *size = features.shape
    taps = weight.shape[2] * weight.shape[3]
    out_size = [
        (length + 2 * pad - spread * (kernel - 1) - 1) // step + 1
        for length, kernel, step, pad, spread in zip(size, weight.shape[2:], stride, padding, dilation, strict=True)
    ]
    groups = channels // weight.shape[1]
    offset_groups = offsets.shape[1] // (2 * taps)
    if groups * weight.shape[1] != channels or groups == 0 or weight.shape[0] % groups:
        raise ValueError(f"weights of shape {tuple(weight.shape)} do not fit {channels} channels")
    if min(out_size) < 1:
        raise ValueError(f"a map of {tuple(size)} is too small for a kernel of {tuple(weight.shape[2:])}")
    if offset_groups == 0 or channels % offset_groups:
        raise ValueError(f"{offsets.shape[1]} channels of offsets do not fit {taps} taps and {channels} channels")
    for name, tensor, factor in (("offsets", offsets, 2), ("modulation", modulation, 1)):
        expected = (batch, factor * offset_groups * taps, *out_size)
        if tensor is not None and tuple(tensor.shape) != expected:
            raise ValueError(f"{name} have shape {tuple(tensor.shape)}, expected {expected}")
        if tensor is not None and tensor.dtype != features.dtype:
            raise ValueError(f"{name} are {tensor.dtype}, features {features.dtype}")


def convolve(
    features, offsets, modulation, weight, bias, stride, padding, dilation, packed: PackedMatrices | None = None
) -> Tensor:
    """As `layers.deform_conv.deformable_conv2d`; the result has the dtype of `weight` and `bias`, which is that of the
    other tensors, or bfloat16 if these are float32. Autograd does not see it."""
    source = Columns(features, offsets, modulation, weight, stride, padding, dilation)
    out = weight.new_empty(source.pixels, weight.shape[0])
    weights = None if packed else _as_matrices(weight, source.groups)
    for chunk, columns in source.chunks():
        source.gather(chunk, columns)
        if packed:
            out[chunk] = packed.multiply(columns[0, :, None])[:, 0]
            continue
        for group, group_out in enumerate(out[chunk].chunk(source.groups, dim=1)):
            # With `out` it keeps its dtypes in autocast.
            torch.mm(columns[group], weights[group].t(), out=group_out)
    if bias is not None:
        out += bias
    batch, _, height, width = offsets.shape
    images = out.view(batch, height, width, weight.shape[0]).permute(0, 3, 1, 2)
    return images.contiguous(memory_format=_memory_format(features))


@torch.library.custom_op(
    "stmask::deform_conv2d",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor features, Tensor offsets, Tensor? modulation, Tensor weight, Tensor? bias, int[2] stride, "
    "int[2] padding, int[2] dilation) -> Tensor",
)
def _native_forward(features, offsets, modulation, weight, bias, stride, padding, dilation):
    """`convolve`, for autograd and torch.compile."""
    packed = None
    if torch.is_inference_mode_enabled() and weight.shape[1] == features.shape[1]:
        packed = pack_weight(weight)  # not in training: another rounding would change the recorded steps
    return convolve(features, offsets, modulation, weight, bias, stride, padding, dilation, packed)


@_native_forward.register_fake
def _(features, offsets, modulation, weight, bias, stride, padding, dilation):
    _check_shapes(features, offsets, modulation, weight, stride, padding, dilation)
    batch, _, height, width = offsets.shape
    return weight.new_empty(batch, weight.shape[0], height, width).to(memory_format=_memory_format(features))


@torch.library.custom_op(
    "stmask::deform_conv2d_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor upstream, Tensor features, Tensor offsets, Tensor? modulation, Tensor weight, int[2] stride, "
    "int[2] padding, int[2] dilation, bool[4] needed) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _native_backward(upstream, features, offsets, modulation, weight, stride, padding, dilation, needed):
    """The gradients of features, offsets, modulation and weight; empty where not `needed`.

    Runs with the same number of threads give the same numbers.
    """
    source = Columns(features, offsets, modulation, weight, stride, padding, dilation)
    groups, channels = source.groups, features.shape[1]
    upstream = upstream.to(weight.dtype).permute(0, 2, 3, 1).reshape(source.pixels, weight.shape[0])
    weights = _as_matrices(weight, groups)
    blocks = max(1, min(torch.get_num_threads(), channels // MIN_BLOCK_CHANNELS))
    sums = [None, None, None]
    if needed[0]:
        sums[0] = features.new_zeros(features.permute(0, 2, 3, 1).shape)
    if needed[1] or needed[2]:
        sums[1] = offsets.new_zeros(blocks, *offsets.shape)
    if needed[2]:
        sums[2] = modulation.new_zeros(blocks, *modulation.shape)
    to_weights = features.new_zeros(weights.shape)  # sums over chunks in bfloat16 would lose digits
    product = torch.empty_like(weights)
    for chunk, columns in source.chunks():
        gradients = upstream[chunk].chunk(groups, dim=1)
        if any(needed[:3]):
            for group in range(groups):
                torch.mm(gradients[group], weights[group], out=columns[group])
            source.scatter(chunk, columns, blocks, sums)
        else:
            source.gather(chunk, columns)
        if needed[3]:
            for group in range(groups):
                torch.mm(gradients[group].t(), columns[group], out=product[group])
            to_weights += product
    results = [features.new_empty(0) for _ in needed]
    if needed[0]:
        results[0] = sums[0].permute(0, 3, 1, 2).contiguous(memory_format=_memory_format(features))
    if needed[1]:
        results[1] = sums[1].sum(0)
    if needed[2]:
        results[2] = sums[2].sum(0)
    if needed[3]:
        kernel_last = to_weights.view(weight.shape[0], *weight.shape[2:], weight.shape[1])
        results[3] = kernel_last.permute(0, 3, 1, 2).to(weight.dtype).contiguous()
    return tuple(results)


@_native_backward.register_fake
def _(upstream, features, offsets, modulation, weight, stride, padding, dilation, needed):
    results = [features.new_empty(0) for _ in needed]
    if needed[0]:
        results[0] = features.new_empty(features.shape).to(memory_format=_memory_format(features))
    for index, tensor in enumerate((offsets, modulation, weight), start=1):
        if needed[index]:
            results[index] = tensor.new_empty(tensor.shape)
    return tuple(results)


def _keep_for_backward(ctx, inputs, output) -> None:
    features, offsets, modulation, weight, bias, *ctx.geometry = inputs
    ctx.save_for_backward(features, offsets, modulation, weight)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(ctx, upstream):
    *needed, bias_needed = ctx.needs_input_grad[:5]
    results = torch.ops.stmask.deform_conv2d_backward(upstream, *ctx.saved_tensors, *ctx.geometry, needed)
    gradients = [result if need else None for result, need in zip(results, needed, strict=True)]
    gradients.append(upstream.sum((0, 2, 3)).to(ctx.bias_dtype) if bias_needed else None)
    return (*gradients, None, None, None)


_native_forward.register_autograd(_backward, setup_context=_keep_for_backward)
