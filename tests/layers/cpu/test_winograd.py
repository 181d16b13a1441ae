"""Winograd's convolution equals the direct one, up to the rounding of float32."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import layers.cpu.threads
from layers.cpu import winograd
from layers.cpu.fused_convolution import FusedConv2d
from layers.cpu.winograd import WinogradConv2d

pytestmark = pytest.mark.skipif(winograd._winograd is None, reason="the kernel is not built")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def conv_and_map(in_channels=70, out_channels=66, batch=1, size=(32, 32), bias=True):
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias).requires_grad_(False)
    return conv, torch.randn(batch, in_channels, *size).to(memory_format=torch.channels_last)


def exactly(conv, x, relu):
    out = F.conv2d(x.double(), conv.weight.double(), None if conv.bias is None else conv.bias.double(), padding=1)
    return out.relu() if relu else out


# Of tiles: one not full, two chunks that share some, several images in a chunk, borders within tiles.
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("batch", "size"), [(1, (24, 40)), (1, (1, 1)), (1, (33, 39)), (3, (18, 21)), (2, (96, 30)), (40, (7, 7))]
)
def test_it_is_the_convolution(batch, size, bias, relu):
    conv, x = conv_and_map(batch=batch, size=size, bias=bias)
    out = WinogradConv2d(conv.weight, conv.bias, relu)(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    expected = exactly(conv, x, relu)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize(("in_channels", "out_channels"), [(64, 64), (3, 130), (128, 1), (300, 257)])
def test_any_number_of_channels(in_channels, out_channels):
    conv, x = conv_and_map(in_channels, out_channels)
    out = WinogradConv2d(conv.weight, conv.bias, relu=False)(x)
    torch.testing.assert_close(out.double(), exactly(conv, x, False), rtol=0, atol=1e-4)


def test_maps_need_not_lie_channels_last():
    conv, x = conv_and_map()
    ours = WinogradConv2d(conv.weight, conv.bias, relu=True)
    assert torch.equal(ours(x.contiguous()), ours(x))


def test_an_image_is_the_same_in_a_batch_and_with_any_number_of_threads(monkeypatch):
    conv, x = conv_and_map(batch=3, size=(40, 52))
    ours = WinogradConv2d(conv.weight, conv.bias, relu=True)
    batch = ours(x)
    for image in range(3):
        torch.testing.assert_close(ours(x[image : image + 1]), batch[image : image + 1], rtol=0, atol=1e-6)
    monkeypatch.setattr(layers.cpu.threads, "THREAD_NUMBERS", 1)
    before = torch.get_num_threads()
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            torch.testing.assert_close(ours(x), batch, rtol=0, atol=1e-6)
        finally:
            torch.set_num_threads(before)


def test_nan_stays_nan_behind_a_relu_and_no_farther_than_its_tiles():
    conv, x = conv_and_map()
    x[0, 5, 13, 14] = float("nan")
    out = WinogradConv2d(conv.weight, conv.bias, relu=True)(x)
    expected = F.conv2d(x, conv.weight, conv.bias, padding=1)
    assert out[expected.isnan()].isnan().all()
    assert not out[:, :, 24:].isnan().any() and not out[:, :, :, :8].isnan().any()


@pytest.mark.parametrize(
    ("changes", "suits"),
    [
        ({}, True),
        ({"in_channels": 32}, False),
        ({"out_channels": 27}, False),
        ({"stride": 2}, False),
        ({"dilation": 2, "padding": 2}, False),
        ({"padding": 0}, False),
        ({"groups": 2}, False),
        ({"kernel_size": (3, 5), "padding": (1, 2)}, False),
        ({"padding_mode": "reflect"}, False),
    ],
)
def test_what_it_suits(changes, suits):
    conv = nn.Conv2d(**({"in_channels": 64, "out_channels": 64, "kernel_size": 3, "padding": 1} | changes))
    assert WinogradConv2d.suits(conv) == suits


@torch.inference_mode()
def test_the_network_uses_it_where_it_pays(monkeypatch):
    seen = []
    call = WinogradConv2d.__call__
    monkeypatch.setattr(WinogradConv2d, "__call__", lambda self, x: seen.append(tuple(x.shape)) or call(self, x))
    conv, large = conv_and_map(64, 64)
    small, other = large[:, :, :8, :8], torch.randn(1, 64, 32, 32)
    fused = FusedConv2d(conv, None, relu=True)
    for x in (large, small):
        torch.testing.assert_close(fused(x), F.conv2d(x, conv.weight, conv.bias, padding=1).relu(), atol=2e-5, rtol=0)
    fused(large, other)
    FusedConv2d(conv, None, relu=True, pack=False)(large)
    FusedConv2d(conv, None, relu=True, direct=True)(large)
    FusedConv2d(conv, None, relu=True, dtype=torch.bfloat16)(large)
    assert seen == [(1, 64, 32, 32)]
