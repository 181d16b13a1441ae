"""Fused convolutions compute what the layers they are made of do."""

import pytest
import torch
from torch import nn

from layers.cpu.fused_convolution import FusedConv2d, fuse_convolutions
from layers.cpu.packed_products import can_pack

CPU = torch.device("cpu")


def seeded_norm(channels):
    norm = nn.BatchNorm2d(channels).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return norm


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@torch.inference_mode()
@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "bias"), [((3, 3), 1, True), ((1, 1), 2, False), ((3, 5), 1, True)])
def test_norm_sum_and_relu_are_in_the_convolution(pack, relu, kernel, stride, bias):
    conv = nn.Conv2d(6, 8, kernel, stride, (kernel[0] // 2, kernel[1] // 2), bias=bias)
    norm = seeded_norm(8)
    fused = FusedConv2d(conv, norm, relu, pack=pack)
    for size in ((9, 12), (2, 3)):
        x = torch.randn(2, 6, *size)
        plain = norm(conv(x))
        other = torch.randn_like(plain)
        torch.testing.assert_close(fused(x), plain.relu() if relu else plain, atol=1e-5, rtol=1e-5)
        expected = (plain + other).relu() if relu else plain + other
        kept = other.clone()
        torch.testing.assert_close(fused(x, other), expected, atol=1e-5, rtol=1e-5)
        assert torch.equal(other, kept)
    assert list(fused.state_dict()) == []


@torch.inference_mode()
def test_every_convolution_is_replaced_once_and_takes_the_relu_behind_it():
    tower = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 2, 1))
    network = nn.ModuleDict({"tower": tower, "kept": nn.Conv2d(2, 2, 1), "rest": nn.ModuleList([nn.Conv2d(2, 3, 1)])})
    x = torch.randn(1, 4, 5, 6)
    expected = tower(x)
    kept = network["kept"]
    fuse_convolutions(network, torch.float32, True, keep={kept})
    torch.testing.assert_close(network["tower"](x), expected, atol=1e-5, rtol=1e-5)
    assert [type(module) for module in network["tower"]] == [FusedConv2d, nn.Identity, FusedConv2d, FusedConv2d]
    assert [module.relu for module in network["tower"] if isinstance(module, FusedConv2d)] == [True, False, False]
    assert network["kept"] is kept
    assert isinstance(network["rest"][0], FusedConv2d)


@pytest.mark.skipif(not can_pack(CPU, torch.float32), reason="oneDNN is not here")
@torch.inference_mode()
def test_weights_are_laid_out_once_for_any_number_of_images():
    conv = nn.Conv2d(6, 8, 3, padding=1)
    fused = FusedConv2d(conv)
    for count in (3, 1, 7):
        x = torch.randn(count, 6, 7, 7)
        torch.testing.assert_close(fused(x), conv(x), atol=1e-5, rtol=1e-5)
    assert len(fused._packed) == 1


@torch.inference_mode()
def test_reduced_precision_computes_in_it():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    fused = FusedConv2d(conv, None, True, torch.bfloat16)
    out = fused(torch.randn(1, 4, 5, 6))
    assert out.dtype == torch.bfloat16
