"""The one door to deformable convolution (Dai et al., ICCV 2017; modulated: Zhu et al., CVPR 2019).

Behind it stand backends of the same meaning. "torchvision" works everywhere. "native" is ours, for the CPU, and is
there when setup.py could compile it: `_deform_im2col.pyx` gathers the samples of all taps into the columns of a matrix
product with the weights. Its arithmetic runs as the custom operators `stmask::deform_conv2d` and
`stmask::deform_conv2d_backward`, so autograd, torch.compile and torch.export know it. "mmcv" is for people who have
mmcv and want its kernels; nothing here needs it.

Letters: B images, Cin and Cout channels, H W input, H' W' output, K = kh·kw taps, G weight groups, O offset groups.
"""

import importlib.util
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from layers.cpu.packed_products import PackedMatrices, can_pack
from layers.cpu.threads import usable_threads
from ytvis.files import InputError

try:
    from layers.cpu import _deform_im2col
except ImportError:  # not compiled: "torchvision" does all
    _deform_im2col = None

COLUMN_BYTES = 8 << 20  # columns at a time: they stay in the cache between being gathered and being multiplied
MIN_BLOCK_CHANNELS = 16  # with fewer in a block, finding a sample's place costs more than reading it

BACKENDS = ("native", "torchvision", "mmcv")
HINTS = {
    "native": " (it needs a C compiler: run pip install -e . again)",
    "mmcv": " (it is a package of its own, mmcv with its operators)",
}

_backend: ContextVar[str] = ContextVar("deform_backend", default="auto")


def available_backends() -> tuple[str, ...]:
    """The names that `deform_backend` takes here, besides "auto", the faster first; "mmcv" where it is installed."""
    own = ("torchvision",) if _deform_im2col is None else ("native", "torchvision")
    return (*own, "mmcv") if importlib.util.find_spec("mmcv") else own


@contextmanager
def deform_backend(name: str) -> Iterator[None]:
    """A context, of this thread alone, in which `deformable_conv2d` runs on the backend `name`.

    "auto", as outside of any context, is "native" for tensors on the CPU if it is built, and "torchvision" otherwise.
    What torch.compile has compiled keeps the backend that it was compiled with.

    Raises:
        InputError: there is no such backend here, or it is an mmcv that pads rectangular kernels wrongly.
    """
    if name not in ("auto", *available_backends()):
        hint = HINTS.get(name, "")
        known = ", ".join(("auto", *available_backends()))
        raise InputError(f"no deformable convolution called {name} here{hint}; there are: {known}")
    if name == "mmcv":
        _check_mmcv()
    token = _backend.set(name)
    try:
        yield
    finally:
        _backend.reset(token)


@torch.compiler.assume_constant_result
def _runs_native(device_type: str) -> bool:
    name = _backend.get()
    if name == "native" and device_type != "cpu":
        raise InputError(f"the native deformable convolution runs on the CPU, not on {device_type}")
    return name == "native" or (name == "auto" and device_type == "cpu" and _deform_im2col is not None)


@torch.compiler.assume_constant_result
def _runs_mmcv() -> bool:
    return _backend.get() == "mmcv"


def _mmcv_forward(features, offsets, weight, bias, stride, padding, dilation, modulation) -> Tensor:
    """As torchvision's `deform_conv2d`, with the arguments as there, by mmcv's modulated operator."""
    operators = importlib.import_module("mmcv.ops")
    groups = features.shape[1] // weight.shape[1]
    offset_groups = offsets.shape[1] // (2 * weight.shape[2] * weight.shape[3])
    if modulation is None:
        batch, channels, *size = offsets.shape
        modulation = offsets.new_ones(batch, channels // 2, *size)
    return operators.modulated_deform_conv2d(
        features, offsets, modulation, weight, bias, stride, padding, dilation, groups, offset_groups
    )


def _check_mmcv() -> None:
    """Raises InputError unless the installed mmcv has the operator and computes 3×5 kernels as torchvision does."""
    features, weight = torch.arange(12.0).view(1, 1, 3, 4), torch.arange(15.0).view(1, 1, 3, 5)
    offsets = torch.full((1, 30, 3, 4), 0.25)
    geometry = ((1, 1), (1, 2), (1, 1))
    expected = deform_conv2d(features, offsets, weight, None, *geometry)
    try:
        found = _mmcv_forward(features, offsets, weight, None, *geometry, None)
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"the deformable convolution of the installed mmcv does not run here: {reason}") from None
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-4):
        raise InputError(
            "the installed mmcv pads kernels of 3×5 and 5×3 the wrong way round (its issue 1080): install a newer one, "
            "or use the deformable convolution native or torchvision"
        )


@torch.compiler.assume_constant_result
def _multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products in bfloat16; without, they are far slower than in float32."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


@torch.compiler.assume_constant_result
def _knows_autocast(device_type: str) -> bool:
    return torch.amp.is_autocast_available(device_type)


def deformable_conv2d(
    features: Tensor,
    offsets: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    modulation: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
) -> Tensor:
    """Convolution of `features` [B,Cin,H,W] that samples each tap at its place moved by `offsets`.

    `offsets` [B,2·O·K,H',W'] are (dy, dx) per tap in pixels of `features`, taps row by row; `modulation` [B,O·K,H',W']
    scales each sample; samples outside are zero. `weight` is [Cout,Cin/G,kh,kw]; G and O follow from the shapes.
    Returns [B,Cout,H',W'], H' and W' as for a plain convolution, in the dtype of `weight`, or under autocast in the
    autocast dtype. Places and samples are computed in float32 at least; the product with the weights in bfloat16 only
    if that is the dtype of the result, the backend is native and the CPU has instructions for it.
    """
    device_type = features.device.type
    out_dtype = weight.dtype
    if _knows_autocast(device_type) and torch.is_autocast_enabled(device_type):
        out_dtype = torch.get_autocast_dtype(device_type)
    native = _runs_native(device_type)
    sample_dtype = torch.promote_types(weight.dtype, torch.float32)
    fast_half = native and out_dtype == torch.bfloat16 and _multiplies_bfloat16()
    weight = weight.to(torch.bfloat16 if fast_half else sample_dtype)
    features, offsets = features.to(sample_dtype), offsets.to(sample_dtype)
    bias = None if bias is None else bias.to(weight.dtype)
    modulation = None if modulation is None else modulation.to(sample_dtype)
    if native:
        out = torch.ops.stmask.deform_conv2d(features, offsets, modulation, weight, bias, stride, padding, dilation)
    else:
        convolve = _mmcv_forward if _runs_mmcv() else deform_conv2d
        out = convolve(features, offsets, weight, bias, stride, padding, dilation, modulation)
    return out.to(out_dtype)


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


class _Columns:
    """The columns [G,B·H'·W',K·Cin/G] of one convolution on the CPU, made a chunk of pixels at a time.

    Raises:
        ValueError: shapes or dtypes that do not belong together.
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
        """Runs of pixels, each with uninitialised columns [G,n,K·Cin/G] for it, which share their memory."""
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
        """Adds to `sums` what follows from the gradients in `columns`, and then fills these as `gather` does."""
        threads = usable_threads(columns.numel())
        arrays = [None if tensor is None else _array(tensor) for tensor in sums]
        _deform_im2col.scatter(*self.samples, _array(columns), chunk.start, *self.geometry, threads, blocks, *arrays)


def _array(tensor: Tensor):
    """The memory of `tensor` as a numpy array, which knows no bfloat16: its bits then, as int16."""
    tensor = tensor.detach()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _as_matrices(weight: Tensor, groups: int) -> Tensor:
    """`weight` [Cout,Cin/G,kh,kw] as a matrix a group [G,Cout/G,K·Cin/G], in the order of the columns."""
    return weight.permute(0, 2, 3, 1).reshape(groups, weight.shape[0] // groups, weight[0].numel())


def _memory_format(features: Tensor) -> torch.memory_format:
    """Channels last for results where `features` are, and only so."""
    channels_last = features.is_contiguous(memory_format=torch.channels_last) and not features.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def _check_shapes(features, offsets, modulation, weight, stride, padding, dilation) -> None:
    """Raises ValueError if shapes or dtypes do not belong together: the kernel would leave its memory."""
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


@torch.library.custom_op(
    "stmask::deform_conv2d",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor features, Tensor offsets, Tensor? modulation, Tensor weight, Tensor? bias, int[2] stride, "
    "int[2] padding, int[2] dilation) -> Tensor",
)
def _native_forward(features, offsets, modulation, weight, bias, stride, padding, dilation):
    """As `deformable_conv2d`, in the dtype of `weight` and `bias`: that of the rest, or bfloat16 beside float32."""
    source = _Columns(features, offsets, modulation, weight, stride, padding, dilation)
    weights = _as_matrices(weight, source.groups)
    out = weight.new_empty(source.pixels, weight.shape[0])
    packed = []
    if torch.is_inference_mode_enabled() and weight.dtype == torch.float32 and can_pack(weight.device, weight.dtype):
        # In training the other rounding would take other steps than the recorded ones.
        packed = [PackedMatrices(group[None], source.chunk_pixels) for group in weights]
    for chunk, columns in source.chunks():
        source.gather(chunk, columns)
        for group, group_out in enumerate(out[chunk].chunk(source.groups, dim=1)):
            if packed:
                group_out.copy_(packed[group].multiply(columns[group, :, None])[:, 0])
            else:
                # With `out` it keeps its dtypes in autocast.
                torch.mm(columns[group], weights[group].t(), out=group_out)
    if bias is not None:
        out += bias
    batch, _, height, width = offsets.shape
    images = out.view(batch, height, width, weight.shape[0]).permute(0, 3, 1, 2)
    return images.contiguous(memory_format=_memory_format(features))


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

    The same numbers come out of every run with as many threads.
    """
    source = _Columns(features, offsets, modulation, weight, stride, padding, dilation)
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
