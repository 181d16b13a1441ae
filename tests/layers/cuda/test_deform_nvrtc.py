"""The kernel for NVRTC, compiled as C++ for the CPU and by NVRTC for GPUs; neither needs a GPU."""

import ctypes
import shutil
import subprocess

import pytest
import torch

from layers.cuda import deform_nvrtc
from tests.layers.cuda.deform_cases import CASES, TOLERANCE, arguments, expected, relative_error

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")

# What CUDA gives a kernel, for three blocks of two threads that run one after the other.
CUDA = """
#include <cmath>
#include <cstring>
#define __global__
#define __device__
#define __align__(n) __attribute__((aligned(n)))
struct Place { int x; };
static Place blockIdx, threadIdx, gridDim = {3}, blockDim = {2};
static unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
static float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
extern "C" void set_place(int block, int thread) { blockIdx.x = block; threadIdx.x = thread; }
"""


@pytest.fixture
def on_the_cpu(tmp_path, monkeypatch):
    """Lets `deform_nvrtc.convolve` run its kernel on CPU tensors."""
    if COMPILER is None:
        pytest.skip("no C++ compiler")

    def compiled(device, *kind):
        code, library = tmp_path / "gather.cpp", tmp_path / f"{len(list(tmp_path.iterdir()))}.so"
        code.write_text(CUDA + deform_nvrtc.source(*kind))
        subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", code, "-o", library], check=True, timeout=120)
        kernel = ctypes.CDLL(str(library))

        def launch(grid, block, args):
            values = [ctypes.c_void_p(arg.data_ptr()) if isinstance(arg, torch.Tensor) else arg for arg in args]
            for block_index in range(3):
                for thread in range(2):
                    kernel.set_place(block_index, thread)
                    kernel.gather(*values)

        return launch

    monkeypatch.setattr(deform_nvrtc, "_compiled", compiled)


@pytest.mark.usefixtures("on_the_cpu")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_and_the_product_compute_what_torchvision_does(name, dtype):
    inputs = arguments(CASES[name], dtype)
    out = deform_nvrtc.convolve(*inputs)
    assert out.dtype == dtype
    assert relative_error(out, expected(*inputs)) < TOLERANCE[dtype]


@pytest.mark.usefixtures("on_the_cpu")
def test_offsets_beyond_the_integers_sample_nothing():
    features, offsets, *rest = arguments(CASES["backbone"], torch.float32)
    offsets = offsets.round()
    offsets[0, 0], offsets[1, 2, 1], offsets[1, 3, 2] = -1.0, 1e20, -1e20
    out = deform_nvrtc.convolve(features, offsets, *rest)
    assert relative_error(out, expected(features, offsets, *rest)) < TOLERANCE[torch.float32]
    offsets[:, 4] = torch.nan
    assert deform_nvrtc.convolve(features, offsets, *rest).isfinite().all()


@pytest.mark.usefixtures("on_the_cpu")
def test_no_images_give_no_images():
    features, offsets, *rest, modulation = arguments(CASES["backbone"], torch.float32)
    assert deform_nvrtc.convolve(features[:0], offsets[:0], *rest, modulation[:0]).shape == (0, 24, 7, 9)


@pytest.mark.parametrize("capability", ["75", "90"])
@pytest.mark.parametrize("dtype", deform_nvrtc.SCALARS)
@pytest.mark.parametrize("offset_dtype", deform_nvrtc.SCALARS)
def test_nvrtc_compiles_the_kernel(dtype, offset_dtype, capability):
    compiler = pytest.importorskip("torch.cuda._utils")
    try:
        compiler._get_gpu_rtc_library()
    except (AttributeError, OSError) as error:
        pytest.skip(f"no NVRTC here: {error}")
    for vector in (1, 16 // dtype.itemsize):
        source = deform_nvrtc.source(dtype, offset_dtype, vector, is_modulated=True)
        cubin, name = compiler._nvrtc_compile(source, "gather", capability)
        assert cubin.startswith(b"\x7fELF")
        assert name == "gather"
