"""Deformable convolution (Dai et al., ICCV 2017; modulated: Zhu et al., CVPR 2019), on one of several backends.

All backends compute the same. "torchvision" works everywhere. "native" is our own for the CPU
(`layers.cpu.deform_columns`), available if setup.py could compile it. "triton" and "nvrtc" are our own for inference on
a GPU (`layers.cuda`); where gradients or several groups are needed, torchvision computes instead. "mmcv" is for people
who have mmcv and want its kernels; nothing here needs it.

Letters: B images, Cin and Cout channels, H W input, H' W' output, K = kh·kw taps, G weight groups, O offset groups.
"""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from layers.cpu import deform_columns
from layers.cpu.packed_products import PackedMatrices
from layers.cuda import deform_kernels
from ytvis.files import InputError

BACKENDS = ("native", "triton", "nvrtc", "torchvision", "mmcv")
HINTS = {
    "native": " (it needs a C compiler: run pip install -e . again)",
    "triton": " (it needs the package triton and a GPU of compute capability 8.0)",
    "nvrtc": " (it needs a GPU and torch 2.9 or newer)",
    "mmcv": " (it is a package of its own, mmcv with its operators)",
}

_backend: ContextVar[str] = ContextVar("deform_backend", default="auto")


def available_backends() -> tuple[str, ...]:
    """The names that `deform_backend` accepts here besides "auto", faster ones first; "mmcv" if it is installed."""
    native = ("native",) if deform_columns.is_built() else ()
    own = (*native, *deform_kernels.installed_kernels(), "torchvision")
    return (*own, "mmcv") if importlib.util.find_spec("mmcv") else own


def runs_on(backend: str, device: torch.device) -> bool:
    """Whether the backend of that name computes on devices of that kind."""
    return backend not in (deform_kernels.KERNELS if device.type == "cpu" else ("native",))


@contextmanager
def deform_backend(name: str) -> Iterator[None]:
    """A context, for this thread alone, in which `deformable_conv2d` runs on the backend `name`.

    "auto", also the default outside a context, is "native" for tensors on the CPU if it is built; on a GPU
    `layers.cuda.deform_kernels.preferred_backend`; "torchvision" otherwise. Code that torch.compile has compiled keeps
    the backend that it was compiled with.

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
    return name == "native" or (name == "auto" and device_type == "cpu" and deform_columns.is_built())


def _cuda_kernel(features, offsets, weight, modulation, dtype) -> Callable[..., Tensor] | None:
    """Our kernel that computes this on a GPU; None if torchvision does."""
    name = _backend.get()
    if name in deform_kernels.KERNELS and features.device.type != "cuda":
        raise InputError(f"the {name} deformable convolution runs on a GPU, not on {features.device.type}")
    if features.device.type != "cuda" or torch.compiler.is_compiling() or dtype not in deform_kernels.TOLERANCE:
        return None
    tensors = (features, offsets, weight, *(() if modulation is None else (modulation,)))
    needs_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    one_group = features.shape[1] == weight.shape[1] and offsets.shape[1] == 2 * weight.shape[2] * weight.shape[3]
    if needs_gradient or not one_group:
        return None
    name = deform_kernels.preferred_backend(features.device, dtype) if name == "auto" else name
    if name not in deform_kernels.KERNELS:
        return None
    return deform_kernels.find_kernel(name, features.device, dtype)


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
    """Whether this CPU has instructions for products in bfloat16; without them they are far slower than in float32."""
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
    packed: PackedMatrices | None = None,
) -> Tensor:
    """[B,Cout,H',W']: the convolution of `features` [B,Cin,H,W] with each tap's sampling point moved by `offsets`.

    `offsets` [B,2·O·K,H',W'] are (dy, dx) per tap in pixels of `features`, taps row by row; `modulation` [B,O·K,H',W']
    scales each sample; samples outside are zero. `weight` is [Cout,Cin/G,kh,kw]; G and O follow from the shapes. H' and
    W' are those of a plain convolution. The result has the dtype of `weight`, or under autocast the autocast dtype.
    Sampling points and samples are computed in float32 at least. The product with the weights is in bfloat16 or float16
    only if that is the dtype of the result, and the backend is "triton", "nvrtc", or (bfloat16) "native" on a CPU that
    has instructions for it.

    `packed` is `layers.cpu.deform_columns.pack_weight(weight)`: with it the native backend need not lay the weight out
    at each call. It is for inference, and changes no result.

    Raises:
        ValueError, RuntimeError: shapes or dtypes do not fit each other.
    """
    device_type = features.device.type
    out_dtype = weight.dtype
    if _knows_autocast(device_type) and torch.is_autocast_enabled(device_type):
        out_dtype = torch.get_autocast_dtype(device_type)
    if convolve := _cuda_kernel(features, offsets, weight, modulation, out_dtype):
        bias = None if bias is None else bias.to(out_dtype)
        return convolve(features, offsets, weight.to(out_dtype), bias, stride, padding, dilation, modulation)
    native = _runs_native(device_type)
    sample_dtype = torch.promote_types(weight.dtype, torch.float32)
    fast_half = native and out_dtype == torch.bfloat16 and _multiplies_bfloat16()
    weight = weight.to(torch.bfloat16 if fast_half else sample_dtype)
    features, offsets = features.to(sample_dtype), offsets.to(sample_dtype)
    bias = None if bias is None else bias.to(weight.dtype)
    modulation = None if modulation is None else modulation.to(sample_dtype)
    if native and packed and weight.dtype == torch.float32:
        arguments = (features, offsets, modulation, weight, bias, stride, padding, dilation)
        out = deform_columns.convolve(*arguments, packed)
    elif native:
        out = torch.ops.stmask.deform_conv2d(features, offsets, modulation, weight, bias, stride, padding, dilation)
    else:
        convolve = _mmcv_forward if _runs_mmcv() else deform_conv2d
        out = convolve(features, offsets, weight, bias, stride, padding, dilation, modulation)
    return out.to(out_dtype)


def inference_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """`weight` as `deformable_conv2d` reads it fastest in inference in `dtype`: on a GPU our kernels take it in that
    dtype and in channels last, on a CPU it stays as it is."""
    return weight.to(dtype=dtype, memory_format=torch.channels_last) if weight.device.type == "cuda" else weight


class ModulatedDeformConv2d(nn.Module):
    """A deformable convolution with bias that predicts its own offsets and modulation from its input (DCNv2).

    `conv_offset_mask` gives 3·k·k channels: 2·k·k offsets as (dy, dx) per tap, then k·k modulations before a sigmoid.
    """

    packed: PackedMatrices | None = None  # of the weight, in a copy for inference

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
        geometry = {"stride": self.stride, "padding": self.padding}
        modulation = modulation.sigmoid()
        return deformable_conv2d(features, offsets, self.weight, self.bias, modulation, **geometry, packed=self.packed)
