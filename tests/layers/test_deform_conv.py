import numpy as np
import pytest
import torch
from torch.nn import functional as F

from layers.deform_conv import ModulatedDeformConv2d, deformable_conv2d


@pytest.fixture(scope="module")
def recorded(reference):
    return {name: torch.from_numpy(array) for name, array in np.load(reference / "unit" / "dcn.npz").items()}


def near(ours, expected):
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_modulated_layer_and_its_gradients_are_the_recorded_ones(recorded, stride):
    case = {name.removeprefix(f"s{stride}_"): array for name, array in recorded.items() if f"s{stride}_" in name}
    layer = ModulatedDeformConv2d(8, 6, 3, stride)
    layer.load_state_dict(
        {name.removeprefix("param_"): array for name, array in case.items() if name.startswith("param_")}
    )
    x = case["x"].clone().requires_grad_()
    out = layer(x)
    near(out, case["out"])
    out.backward(case["upstream"])
    near(x.grad, case["grad_x"])
    for name, parameter in layer.named_parameters():
        near(parameter.grad, case[f"grad_{name}"])


@pytest.mark.parametrize("stride", [1, 2])
def test_without_offsets_it_is_half_a_convolution(stride):
    torch.manual_seed(0)
    layer = ModulatedDeformConv2d(3, 5, 3, stride)
    with torch.no_grad():
        layer.bias.uniform_()
        layer.conv_offset_mask.weight.zero_()
        layer.conv_offset_mask.bias.zero_()
    x = torch.randn(2, 3, 7, 6)
    # A sigmoid of zero lets half of every sample through.
    expected = 0.5 * F.conv2d(x, layer.weight, None, stride, 1) + layer.bias[:, None, None]
    near(layer(x), expected)


def test_offsets_are_dy_dx_and_samples_outside_are_zero():
    x = torch.arange(1.0, 7.0).view(1, 1, 2, 3)  # 1 2 3 / 4 5 6
    weight = torch.ones(1, 1, 1, 1)
    offsets = torch.zeros(1, 2, 2, 3)
    offsets[:, 1] = 1  # one to the right
    assert deformable_conv2d(x, offsets, weight)[0, 0].tolist() == [[2, 3, 0], [5, 6, 0]]
    offsets[:, 1] = 0
    offsets[:, 0] = -1  # one up
    assert deformable_conv2d(x, offsets, weight)[0, 0].tolist() == [[0, 0, 0], [1, 2, 3]]
    offsets[:, 0] = 0.5  # between two rows; half of the lower neighbour is outside
    assert deformable_conv2d(x, offsets, weight)[0, 0].tolist() == [[2.5, 3.5, 4.5], [2, 2.5, 3]]


def test_every_tap_has_its_own_offset_and_modulation():
    x = torch.tensor([[[[1.0, 10.0, 100.0, 1000.0]]]])
    weight = torch.ones(1, 1, 1, 2)  # taps at columns 0 and 1
    offsets = torch.zeros(1, 4, 1, 3)
    offsets[0, 3] = 1  # dx of the second tap
    assert deformable_conv2d(x, offsets, weight).flatten().tolist() == [101, 1010, 100]
    modulation = torch.tensor([2.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3).contiguous()
    bias = torch.tensor([0.5])
    assert deformable_conv2d(x, offsets, weight, bias, modulation).flatten().tolist() == [302.5, 3020.5, 200.5]


@pytest.mark.parametrize("kernel", [(3, 3), (3, 5), (5, 3)])
@pytest.mark.parametrize("size", [(6, 9), (1, 2)])
def test_zero_offsets_are_a_convolution_of_the_kernels_own_shape(kernel, size):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, *size), torch.randn(4, 3, *kernel)
    padding = (kernel[0] // 2, kernel[1] // 2)
    offsets = torch.zeros(2, 2 * kernel[0] * kernel[1], *size)
    near(deformable_conv2d(x, offsets, weight, padding=padding), F.conv2d(x, weight, padding=padding))


def test_batched_is_each_image_alone(recorded):
    layer = ModulatedDeformConv2d(8, 6)
    x = recorded["s1_x"]
    with torch.no_grad():
        torch.testing.assert_close(layer(x), torch.cat([layer(image[None]) for image in x]), atol=1e-6, rtol=1e-5)


def test_all_is_computed_in_the_dtype_of_the_weights(recorded):
    layer = ModulatedDeformConv2d(8, 6).requires_grad_(False)
    half = recorded["s1_x"].bfloat16()
    offsets, weight = torch.zeros(2, 18, 9, 11), layer.weight
    out = deformable_conv2d(half, offsets.bfloat16(), weight, None, torch.ones(2, 9, 9, 11).bfloat16(), padding=(1, 1))
    assert out.dtype == torch.float32
    near(out, F.conv2d(half.float(), weight, padding=1))
    double = layer.double()(recorded["s1_x"].double())
    assert double.dtype == torch.float64
