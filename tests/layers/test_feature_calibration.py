import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from layers.feature_calibration import FeatureCalibration, aligned_offsets

KERNELS = ((3, 3), (3, 5), (5, 3))


@pytest.fixture(scope="module")
def recorded(reference):
    return {name: torch.from_numpy(array) for name, array in np.load(reference / "unit" / "feature_align.npz").items()}


def near(ours, expected):
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("size", ["6x9", "1x2"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["ali", "ada"])
def test_output_offsets_and_gradients_are_the_recorded_ones(recorded, kind, kernel, size):
    prefix = f"{kind}_{kernel[0]}x{kernel[1]}_{size}_"
    case = {name.removeprefix(prefix): array for name, array in recorded.items() if name.startswith(prefix)}
    layer = FeatureCalibration(8, 6, kernel, kind)
    layer.load_state_dict(
        {name.removeprefix("param_"): array for name, array in case.items() if name.startswith("param_")}
    )
    x, loc = case["x"].clone().requires_grad_(), case["loc"].clone().requires_grad_()
    near(layer.offsets(loc), case["offset"])
    out = layer(x, loc)
    near(out, case["out"])
    out.backward(case["upstream"])
    near(x.grad, case["grad_x"])
    near(layer.conv_adaption.weight.grad, case["grad_conv_adaption"])
    if kind == "ada":
        near(layer.conv_offset.weight.grad, case["grad_conv_offset"])
    assert loc.grad is None  # the class branch has no gradient to the regression


def test_only_ada_learns_its_offsets():
    assert "conv_offset.weight" in FeatureCalibration(4, 2, (3, 5), "ada").state_dict()
    assert list(FeatureCalibration(4, 2, (3, 5), "ali").state_dict()) == [
        "conv_adaption.weight",
        "conv.weight",
        "conv.bias",
    ]


@pytest.mark.parametrize("kernel", KERNELS)
def test_aligned_offsets_of_the_anchor_itself_are_zero(kernel):
    offsets = aligned_offsets(torch.zeros(2, 4, 3, 2), kernel)
    assert torch.equal(offsets, torch.zeros(2, 2 * kernel[0] * kernel[1], 3, 2))


def test_aligned_offsets_by_hand():
    # Half an anchor (of 3 by 5 cells) right, a fifth of one down, doubled in height, as wide as before.
    tx, ty, tw, th = 5.0, 2.0, 0.0, 5 * math.log(2)
    deltas = torch.tensor([tx, ty, tw, th]).view(1, 4, 1, 1)
    offsets = aligned_offsets(deltas, (3, 5)).view(3, 5, 2)  # row, column, (dy, dx)
    near(offsets[..., 1], torch.full((3, 5), 2.5))
    # Twice the height spreads the three rows by one cell each about the middle one.
    near(offsets[..., 0], torch.tensor([0.6 - 1, 0.6, 0.6 + 1])[:, None].expand(3, 5))


def test_a_box_twice_as_wide_is_sampled_at_every_other_column():
    layer = FeatureCalibration(1, 1, (3, 3), "ali")
    x = torch.arange(25.0).view(1, 1, 5, 5)
    deltas = torch.zeros(1, 4, 5, 5)
    deltas[:, 2:] = 5 * math.log(2)
    with torch.no_grad():
        layer.conv_adaption.weight.fill_(1)
        layer.conv.weight.zero_()
        layer.conv.weight[..., 1, 1] = 1
        layer.conv.bias.zero_()
        out = layer(x, deltas)
    dilated = F.conv2d(x, torch.ones(1, 1, 3, 3), padding=2, dilation=2)
    torch.testing.assert_close(out, dilated, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("kind", ["ali", "ada"])
def test_batched_is_each_image_alone(recorded, kind):
    layer = FeatureCalibration(8, 6, (3, 5), kind)
    x, loc = recorded["ali_3x5_6x9_x"], recorded["ali_3x5_6x9_loc"]
    with torch.no_grad():
        single = torch.cat([layer(x[i : i + 1], loc[i : i + 1]) for i in range(len(x))])
        torch.testing.assert_close(layer(x, loc), single, atol=1e-6, rtol=1e-5)
