import json
import re

import numpy as np
import pytest
import torch
from torchvision.models import resnet18, resnet34

from backbone import BasicBlock, ResNet, fuse_backbone, make_backbone
from data.config import get_config
from layers.deform_conv import ModulatedDeformConv2d
from tests.fixtures.reference import fill, inputs

RESNET50 = {"blocks": (3, 4, 6, 3), "dcn_interval": 2}
RESNET101 = {"blocks": (3, 4, 23, 3), "dcn_interval": 3}


def deformable_blocks(backbone):
    """{stage: indices of its deformable blocks}, stages from C2."""
    found = {
        stage + 2: [i for i, block in enumerate(layer) if isinstance(block.conv2, ModulatedDeformConv2d)]
        for stage, layer in enumerate(backbone.layers)
    }
    return {stage: blocks for stage, blocks in found.items() if blocks}


def small_backbone(kind="bottleneck"):
    """Deformable blocks with weights that make them differ from plain ones."""
    torch.manual_seed(0)
    keys = {"block": kind, "blocks": (1, 2, 1, 1), "stem_channels": 4, "dcn_interval": 1}
    config = get_config("STMask_demo", {f"backbone.{key}": value for key, value in keys.items()})
    return make_backbone(config.backbone).eval().requires_grad_(False)


# ---------------------------------------------------------------------------------------------------- recorded


@pytest.fixture(scope="module")
def recorded_keys(reference):
    """{name: shape} of the published R50's backbone."""
    path = reference / "STMask_plus_resnet50" / "keys_STMask_plus_resnet50_config.json"
    keys = json.loads(path.read_text("utf-8"))
    return {name.removeprefix("backbone."): shape for name, shape in keys.items() if name.startswith("backbone.")}


def test_parameters_have_the_published_names_and_shapes(recorded_keys):
    with torch.device("meta"):
        backbone = ResNet(**RESNET50)
    assert {name: list(value.shape) for name, value in backbone.state_dict().items()} == recorded_keys


def test_stages_are_the_recorded_ones(reference, recorded_keys):
    folder = reference / "STMask_plus_resnet50"
    recipe = json.loads((folder / "recipe.json").read_text("utf-8"))
    shapes = {f"backbone.{name}": shape for name, shape in recorded_keys.items()}
    weights = fill.fill_state_dict(shapes, recipe["seed"], recipe["overrides"])
    with torch.device("meta"):
        backbone = ResNet(**RESNET50)
    state = {name.removeprefix("backbone."): torch.as_tensor(value) for name, value in weights.items()}
    backbone.load_state_dict(state, assign=True)
    images = torch.as_tensor(inputs.normalise(np.load(reference / "inputs.npz")["video1"][:2]))
    with torch.inference_mode():
        stages = backbone.eval()(images)
    recorded = np.load(folder / "forward.npz")
    assert len(stages) == 4
    for i, stage in enumerate(stages):
        assert list(stage.shape) == recorded[f"backbone{i}_shape"].tolist()
        flat = stage.flatten()
        scale = float(recorded[f"backbone{i}_std"])
        for ours, name in ((flat[:64], "first64"), (flat[:: int(recorded[f"backbone{i}_stride"])], "sample")):
            expected = torch.from_numpy(recorded[f"backbone{i}_{name}"])
            torch.testing.assert_close(ours / scale, expected / scale, atol=1e-4, rtol=1e-4)
        assert abs(float(flat.double().mean()) - float(recorded[f"backbone{i}_mean"])) < 1e-4 * scale
        assert abs(float(flat.double().std(unbiased=False)) - scale) < 1e-4 * scale


# ---------------------------------------------------------------------------------------------------- structure


@pytest.mark.parametrize(
    "arguments, deformable",
    [
        (RESNET50, {3: [0, 2], 4: [0, 2, 4], 5: [0, 2]}),
        (RESNET101, {3: [0, 3], 4: [0, 3, 6, 9, 12, 15, 18, 21], 5: [0]}),
        ({"blocks": (3, 4, 6, 3)}, {}),
        ({"blocks": (2, 2, 2, 2), "dcn_interval": 1}, {3: [0, 1], 4: [0, 1], 5: [0, 1]}),
    ],
)
def test_every_interval_th_block_of_c3_to_c5_is_deformable(arguments, deformable):
    with torch.device("meta"):
        backbone = ResNet(**arguments)
    assert deformable_blocks(backbone) == deformable
    assert [len(layer) for layer in backbone.layers] == list(arguments["blocks"])
    assert backbone.out_channels == [256, 512, 1024, 2048]


def test_only_the_first_block_of_a_stage_changes_size_and_by_its_3x3():
    with torch.device("meta"):
        backbone = ResNet(**RESNET50)
    for stage, layer in enumerate(backbone.layers):
        for i, block in enumerate(layer):
            stride = 2 if stage > 0 and i == 0 else 1
            assert block.conv1.stride == block.conv3.stride == (1, 1)
            assert block.conv2.stride == (stride, stride)
            assert (block.downsample is not None) == (i == 0)


@pytest.mark.parametrize("size", [(32, 64), (64, 32)])
def test_stages_have_strides_4_to_32_and_are_rectified(size):
    backbone = small_backbone()
    stages = backbone(torch.randn(2, 3, *size))
    assert backbone.out_channels == [16, 32, 64, 128]
    assert [tuple(stage.shape) for stage in stages] == [
        (2, channels, size[0] // stride, size[1] // stride)
        for channels, stride in zip(backbone.out_channels, (4, 8, 16, 32), strict=True)
    ]
    assert all((stage >= 0).all() and stage.any() for stage in stages)


@pytest.mark.parametrize(("depth", "blocks"), [(resnet18, (2, 2, 2, 2)), (resnet34, (3, 4, 6, 3))])
def test_basic_blocks_are_those_of_resnet_18_and_34(depth, blocks):
    torch.manual_seed(0)
    known = depth(weights=None).eval()
    backbone = ResNet(blocks, block=BasicBlock).eval()
    state = {name.replace("layer", "layers."): value for name, value in known.state_dict().items() if "fc." not in name}
    state = {re.sub(r"layers\.(\d)", lambda found: f"layers.{int(found[1]) - 1}", k): v for k, v in state.items()}
    assert backbone.state_dict().keys() == state.keys()
    backbone.load_state_dict(state)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        x = known.maxpool(known.relu(known.bn1(known.conv1(images))))
        for ours, layer in zip(backbone(images), (known.layer1, known.layer2, known.layer3, known.layer4), strict=True):
            x = layer(x)
            torch.testing.assert_close(ours, x)
    assert backbone.out_channels == [64, 128, 256, 512]


@pytest.mark.parametrize("kind", ["bottleneck", "basic"])
@pytest.mark.parametrize("pack", [False, True])
def test_the_fused_backbone_computes_the_same(kind, pack):
    backbone, images = small_backbone(kind), torch.randn(2, 3, 64, 96)
    for name, value in backbone.state_dict().items():
        if "conv_offset_mask.weight" in name:
            torch.nn.init.xavier_uniform_(value)  # they start as zeros, which samples as a plain convolution does
        elif value.ndim == 1:
            value.copy_(torch.rand(len(value)) + 0.5)  # of batch norms
    with torch.inference_mode():
        expected = backbone(images)
        fuse_backbone(backbone, torch.float32, pack)
        stages = backbone(images)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in backbone.modules())
    for ours, stage in zip(stages, expected, strict=True):
        assert stage.any()
        torch.testing.assert_close(ours, stage, atol=1e-4, rtol=1e-4)


def test_the_second_convolution_of_a_basic_block_is_deformable():
    assert deformable_blocks(small_backbone("basic")) == {3: [0, 1], 4: [0], 5: [0]}


def test_batched_is_each_image_alone():
    backbone, images = small_backbone(), torch.randn(3, 3, 64, 32)
    alone = [backbone(image[None]) for image in images]
    for ours, parts in zip(backbone(images), zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.cat(parts), atol=1e-5, rtol=1e-4)


def test_a_block_adds_its_shortcut():
    backbone = small_backbone()
    block = backbone.layers[1][1]  # the shortcut is the input itself
    block.bn3.weight.zero_()
    x = torch.rand(1, 32, 4, 4)
    assert torch.equal(block(x.clone()), x)
    block.bn3.bias.fill_(-2)  # the rectification comes after the sum
    assert not block(x.clone()).any()
