import pytest
import torch
import torchvision
from torch import nn

from backbone import make_backbone
from data.config import get_config
from stmask import STMask
from utils.torchvision_names import from_torchvision, is_torchvision
from ytvis.files import InputError

SMALL = "STMask_plus_resnet50_config"


def theirs(make):
    """A network of torchvision's in evaluation mode; its batch norms are not the identity."""
    torch.manual_seed(0)
    network = make().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, least in ((module.running_mean, -0.1), (module.bias.data, -0.1)):
                value.uniform_(least, 0.1)
            for value in (module.running_var, module.weight.data):
                value.uniform_(0.8, 1.2)
    return network


def config_of(**keys):
    return get_config(SMALL, {name.replace("__", "."): value for name, value in keys.items()})


def shapes(**keys):
    """The state dict of a network of ours without numbers."""
    with torch.device("meta"):
        return STMask.from_config(config_of(**keys)).state_dict()


def detector():
    return torchvision.models.detection.maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)


@pytest.mark.parametrize(
    "make, block, blocks, dcn_interval",
    [
        (torchvision.models.resnet18, "basic", (2, 2, 2, 2), 0),
        (torchvision.models.resnet18, "basic", (2, 2, 2, 2), 1),
        (torchvision.models.resnet34, "basic", (3, 4, 6, 3), 2),
        (torchvision.models.resnet50, "bottleneck", (3, 4, 6, 3), 0),
        (torchvision.models.resnet50, "bottleneck", (3, 4, 6, 3), 1),
        (torchvision.models.resnet101, "bottleneck", (3, 4, 23, 3), 3),
    ],
)
@torch.no_grad()
def test_the_backbone_begins_with_torchvisions_features(make, block, blocks, dcn_interval):
    network = theirs(make)
    keys = {"backbone__block": block, "backbone__blocks": blocks, "backbone__dcn_interval": dcn_interval}
    backbone = make_backbone(config_of(**keys).backbone).eval()
    for name, parameter in backbone.named_parameters():
        if "conv_offset_mask" in name:
            nn.init.ones_(parameter)  # what is taken puts them back
    assert is_torchvision(network.state_dict()) and not is_torchvision(shapes(**keys))
    taken = from_torchvision(network.state_dict(), shapes(**keys))
    backbone.load_state_dict({name.removeprefix("backbone."): value for name, value in taken.items()})  # all of it
    images = torch.randn(1, 3, 64, 96)
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    layers = (network.layer1, network.layer2, network.layer3, network.layer4)
    for found, layer in zip(backbone(images), layers, strict=True):
        x = layer(x)
        torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-5 * float(x.abs().max()))


def test_offsets_and_bias_of_deformable_convolutions_are_zero():
    taken = from_torchvision(torchvision.models.resnet50().state_dict(), shapes())
    zero = [name for name in taken if "conv_offset_mask" in name or name.endswith("conv2.bias")]
    assert len(zero) == 3 * 7  # every second block of 4, 6 and 3: 2 + 3 + 2
    assert not any(taken[name].any() for name in zero)


@torch.no_grad()
def test_a_detectors_pyramid_is_taken_where_it_fits():
    network = theirs(detector)
    model = STMask.from_config(config_of())
    taken = from_torchvision(network.state_dict(), model.state_dict())
    assert {name for name in taken if name.startswith("fpn.")} == {
        f"fpn.{layer}.{level}.{part}"
        for layer in ("lat_layers", "pred_layers")
        for level in range(3)
        for part in ("weight", "bias")
    }
    model.load_state_dict(taken, strict=False)
    fpn = network.backbone.fpn
    for level, channels in ((1, 512), (2, 1024), (3, 2048)):  # C3, C4, C5
        stage, merged = torch.randn(1, channels, 4, 5), torch.randn(1, 256, 4, 5)
        lateral, prediction = model.fpn.lat_layers[3 - level], model.fpn.pred_layers[3 - level]
        torch.testing.assert_close(lateral(stage), fpn.inner_blocks[level](stage), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(prediction(merged), fpn.layer_blocks[level](merged), rtol=1e-4, atol=1e-4)


def test_a_pyramid_with_biases_is_taken_too():
    network = torchvision.models.detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    state = network.state_dict()
    taken = from_torchvision(state, shapes())
    assert torch.equal(taken["fpn.lat_layers.0.weight"], state["backbone.fpn.inner_blocks.3.0.weight"])
    assert torch.equal(taken["fpn.pred_layers.2.bias"], state["backbone.fpn.layer_blocks.1.0.bias"])


def test_a_pyramid_of_other_channels_is_left():
    taken = from_torchvision(detector().state_dict(), shapes(head__channels=48))
    assert taken and all(name.startswith("backbone.") for name in taken)


@pytest.mark.parametrize(
    "make, keys, advice",
    [
        (torchvision.models.resnet101, {}, "backbone.block=bottleneck --set backbone.blocks=3,4,23,3"),
        (torchvision.models.resnet18, {}, "backbone.block=basic --set backbone.blocks=2,2,2,2"),
        (torchvision.models.resnet50, {"backbone__blocks": (3, 4, 23, 3)}, "backbone.blocks=3,4,6,3"),
        (torchvision.models.resnet50, {"backbone__stem_channels": 20}, "backbone.stem_channels=64"),
    ],
)
def test_another_backbone_is_refused_with_the_settings_that_fit(make, keys, advice):
    with pytest.raises(InputError, match=r"another than the config's") as caught:
        from_torchvision(make().state_dict(), shapes(**keys))
    assert advice in str(caught.value)
