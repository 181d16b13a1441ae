import json

import pytest
import torch

from layers.fpn import FPN, level_sizes


def plain_fpn(downsample=1.0):
    """One channel; every kernel copies its centre, the downsampling ones times `downsample`."""
    fpn = FPN([1, 1, 1], 1)
    with torch.no_grad():
        for name, parameter in fpn.named_parameters():
            parameter.zero_()
            if name.endswith("weight"):
                middle = parameter.shape[-1] // 2
                parameter[..., middle, middle] = downsample if name.startswith("downsample") else 1
    return fpn.requires_grad_(False)


def constant(value, height, width):
    return torch.full((1, 1, height, width), float(value))


def test_parameters_have_the_published_names_and_shapes(reference):
    keys = json.loads((reference / "STMask_plus_resnet50" / "keys_STMask_plus_resnet50_config.json").read_text("utf-8"))
    expected = {name.removeprefix("fpn."): shape for name, shape in keys.items() if name.startswith("fpn.")}
    with torch.device("meta"):
        fpn = FPN([512, 1024, 2048], 256)
    assert {name: list(value.shape) for name, value in fpn.state_dict().items()} == expected


def test_lower_levels_add_what_is_above_them():
    p3, p4, p5, p6, p7 = plain_fpn()([constant(1, 8, 8), constant(10, 4, 4), constant(100, 2, 2)])
    assert torch.equal(p5, constant(100, 2, 2))
    assert torch.equal(p4, constant(110, 4, 4))
    assert torch.equal(p3, constant(111, 8, 8))
    assert torch.equal(p6, constant(100, 1, 1))
    assert torch.equal(p7, constant(100, 1, 1))


def test_what_goes_down_is_not_rectified_but_the_levels_are():
    p3, p4, p5, *_ = plain_fpn()([constant(4, 8, 8), constant(3, 4, 4), constant(-5, 2, 2)])
    assert torch.equal(p5, constant(0, 2, 2))
    assert torch.equal(p4, constant(0, 4, 4))
    assert torch.equal(p3, constant(2, 8, 8))


def test_p6_and_p7_are_not_rectified():
    *_, p6, p7 = plain_fpn(downsample=-1)([constant(0, 16, 16), constant(0, 8, 8), constant(7, 4, 4)])
    assert torch.equal(p6, constant(-7, 2, 2))
    assert torch.equal(p7, constant(7, 1, 1))


def test_upsampling_is_bilinear_between_pixel_centers():
    c5 = torch.tensor([[[[0.0, 4.0]]]])
    _, p4, *_ = plain_fpn()([constant(0, 2, 8), constant(0, 1, 4), c5])
    assert p4.flatten().tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize(
    "sizes", [((12, 20), (6, 10), (3, 5), (2, 3), (1, 2)), ((7, 5), (4, 3), (2, 2), (1, 1), (1, 1))]
)
def test_levels_have_the_sizes_of_the_stages_and_then_halve(sizes):
    fpn = FPN([3, 4, 5], 6)
    with torch.no_grad():
        levels = fpn([torch.randn(2, c, *size) for c, size in zip((3, 4, 5), sizes[:3], strict=True)])
    assert [level.shape for level in levels] == [(2, 6, *size) for size in sizes]
    assert all((level >= 0).all() for level in levels[:3])


def test_batched_is_each_image_alone():
    torch.manual_seed(0)
    fpn = FPN([3, 4, 5], 6)
    stages = [torch.randn(2, 3, 8, 8), torch.randn(2, 4, 4, 4), torch.randn(2, 5, 2, 2)]
    with torch.no_grad():
        batched = fpn(stages)
        for i in range(2):
            for level, alone in zip(batched, fpn([stage[i : i + 1] for stage in stages]), strict=True):
                torch.testing.assert_close(level[i : i + 1], alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("input_hw", [(192, 320), (64, 64), (32, 224)])
def test_sizes_are_those_of_the_levels(input_hw):
    stages = [constant(0, input_hw[0] // stride, input_hw[1] // stride) for stride in (8, 16, 32)]
    assert level_sizes(input_hw) == tuple(level.shape[-2:] for level in plain_fpn()(stages))


def test_sizes_halve_and_round_up():
    assert level_sizes((192, 320)) == ((24, 40), (12, 20), (6, 10), (3, 5), (2, 3))
    assert level_sizes((550, 103)) == ((69, 13), (35, 7), (18, 4), (9, 2), (5, 1))  # no multiples of 32
