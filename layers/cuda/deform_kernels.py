"""Which kernel computes a deformable convolution on a GPU."""

import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor
from torchvision.ops import deform_conv2d

from layers.cuda import deform_nvrtc

logger = logging.getLogger(__name__)

KERNELS = {"triton": "layers.cuda.deform_triton", "nvrtc": "layers.cuda.deform_nvrtc"}
TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}  # of the largest number of the result
TRITON_CAPABILITY = (8, 0)


def torchvision_follows_the_stream() -> bool:
    """Whether torchvision launches its kernel on the current stream, as CUDA graphs need: from 0.29 on."""
    return tuple(int(part) for part in torchvision.__version__.split(".")[:2]) >= (0, 29)


def installed_kernels() -> tuple[str, ...]:
    """The names of `KERNELS` that may run on this machine's GPU, faster ones first; none without a GPU."""
    if not torch.cuda.is_available() or torch.version.cuda is None:
        return ()
    runs = {
        "triton": importlib.util.find_spec("triton") and torch.cuda.get_device_capability() >= TRITON_CAPABILITY,
        "nvrtc": deform_nvrtc.is_available(),
    }
    return tuple(name for name in KERNELS if runs[name])


@functools.cache
def preferred_backend(device: torch.device, dtype: torch.dtype) -> str:
    """The backend that computes fastest in `dtype` on the GPU `device` and follows the current stream.

    One of `KERNELS`, tried on the GPU first; else "torchvision", which may do neither.
    """
    if dtype == torch.float32 and torchvision_follows_the_stream():
        return "torchvision"  # without tensor cores our kernels gain nothing
    names = ("nvrtc",) if dtype == torch.float32 else tuple(KERNELS)
    return next(
        (name for name in names if name in installed_kernels() and find_kernel(name, device, dtype)), "torchvision"
    )


@functools.cache
def find_kernel(name: str, device: torch.device, dtype: torch.dtype) -> Callable[..., Tensor] | None:
    """The function `convolve` of the kernel `name`; None, and one line in the log, if it does not compute in `dtype` on
    `device` what torchvision computes on the CPU, where no other stream can be in its way."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 16, 7, 9), (2, 18, 7, 9), (24, 16, 3, 3), (24,), (2, 9, 7, 9))
    *tensors, modulation = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    geometry = ((1, 1), (1, 1), (1, 1))
    try:
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            convolve = importlib.import_module(KERNELS[name]).convolve
            there = (tensor.to(device) for tensor in tensors)
            found = convolve(*there, *geometry, modulation.to(device)).float().cpu()
            expected = deform_conv2d(*(tensor.float() for tensor in tensors), *geometry, modulation.float())
            error = float((found - expected).abs().max() / expected.abs().max())
    except Exception as failure:  # whatever a compiler raises: there are other kernels
        reason = (str(failure).strip() or type(failure).__name__).splitlines()[0]
        logger.warning("the %s deformable convolution does not run on %s: %s", name, device, reason)
        return None
    if not error <= TOLERANCE[dtype]:
        logger.warning("the %s deformable convolution is wrong on %s by %.1g: not used", name, device, error)
        return None
    return convolve
