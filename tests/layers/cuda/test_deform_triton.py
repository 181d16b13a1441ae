"""The Triton kernel in Triton's interpreter, and compiled for two generations of GPUs; neither needs a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.layers.cuda.deform_cases import CASES, DTYPES, TOLERANCE

pytest.importorskip("triton")

ROOT = Path(__file__).parents[3]
INTERPRETED = """
import json
import torch
from layers.cuda.deform_triton import convolve
from tests.layers.cuda.deform_cases import CASES, DTYPES, arguments, expected, relative_error

found = {}
for name, case in CASES.items():
    for dtype in DTYPES:
        inputs = arguments(case, dtype)
        out = convolve(*inputs)
        assert out.dtype == dtype and out.is_contiguous(memory_format=torch.channels_last), name
        found[f"{name} {dtype}"] = relative_error(out, expected(*inputs))
inputs = arguments(CASES["channels that fill no block"], torch.float32)
found["large tile"] = relative_error(convolve(*inputs, tile=(64, 32)), expected(*inputs))
features, offsets, *rest = arguments(CASES["backbone"], torch.float32)
offsets = offsets.round()  # samples exactly on pixels, at -1 and on the last row and column
offsets[0, 0], offsets[0, 1, 0] = -1.0, 9.0
offsets[1, 2, 1], offsets[1, 3, 2] = 1e20, -1e20
found["offsets on the border and beyond int"] = relative_error(
    convolve(features, offsets, *rest), expected(features, offsets, *rest)
)
offsets[:, 4] = torch.nan  # a sample nowhere is zero
zeroed = [*rest[:4], rest[4], rest[5].clone()]
zeroed[5][:, 2] = 0
found["NaN"] = relative_error(
    convolve(features, offsets, *rest), expected(features, offsets.nan_to_num(), *zeroed)
)
found["empty"] = convolve(features[:0], offsets[:0], *rest[:5], rest[5][:0]).numel()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def errors():
    """The relative error of every case, computed in a process of its own: Triton reads its switch when imported."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_the_interpreted_kernel_computes_what_torchvision_does(errors, name, dtype):
    assert errors[f"{name} {dtype}"] < TOLERANCE[dtype]


@pytest.mark.parametrize("name", ["large tile", "offsets on the border and beyond int", "NaN"])
def test_tiles_and_odd_offsets_change_nothing(errors, name):
    assert errors[name] < TOLERANCE[torch.float32]


def test_no_images_give_no_images(errors):
    assert errors["empty"] == 0


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_the_kernel_compiles_and_fits_into_shared_memory(dtype, capability):
    import triton
    from triton.backends.compiler import GPUTarget

    from layers.cuda import deform_triton

    constants = {"TAPS": 9, "KERNEL_WIDTH": 3, "IS_MODULATED": True, "HAS_BIAS": True, "MULTIPLY_FLOAT32": False}
    tile = dict(zip(("TILE_PIXELS", "TILE_OUT"), deform_triton.TILES[0], strict=True))
    constants |= tile | {"BLOCK": deform_triton.BLOCK_CHANNELS}
    pointers = dict.fromkeys(("features", "weight", "out"), f"*{dtype}")
    pointers |= dict.fromkeys(("offsets", "modulation", "bias"), "*fp32")
    names = deform_triton._convolve.arg_names
    signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names}
    source = triton.compiler.ASTSource(fn=deform_triton._convolve, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 8})
    assert compiled.asm["cubin"]
    assert compiled.metadata.shared <= 163 * 1024  # what a block may have on an A100


def test_few_pixels_get_small_tiles():
    from layers.cuda.deform_triton import tile_size

    assert tile_size(48 * 80 * 8, 256, num_processors=132) == (64, 256)
    assert tile_size(48 * 80, 256, num_processors=132) == (32, 128)
    assert tile_size(12 * 20, 512, num_processors=132) == (16, 64)
