import json

import torch

from layers.protonet import ProtoNet


def test_parameters_have_the_published_names_and_shapes(reference):
    keys = json.loads((reference / "STMask_plus_resnet50" / "keys_STMask_plus_resnet50_config.json").read_text("utf-8"))
    expected = {name.removeprefix("proto_net."): s for name, s in keys.items() if name.startswith("proto_net.")}
    with torch.device("meta"):
        net = ProtoNet(256, 32)
    assert {name: list(value.shape) for name, value in net.state_dict().items()} == expected


def plain_net(last):
    """One channel in; every 3×3 kernel copies its centre, and the last layer multiplies by each of `last`."""
    net = ProtoNet(1, len(last))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        for layer in (net[0], net[2], net[4], net[8]):
            layer.weight[0, 0, 1, 1] = 1
        net[10].weight.copy_(torch.tensor(last).view(-1, 1, 1, 1))
    return net.requires_grad_(False)


def test_prototypes_are_upsampled_twice_last_axis_rectified():
    net = plain_net([1.0, -1.0, 2.0])
    prototypes = net(torch.tensor([[[[0.0, 4.0]]]]))
    assert prototypes.shape == (1, 2, 4, 3)
    row = [[0, 0, 0], [1, 0, 2], [3, 0, 6], [4, 0, 8]]
    assert prototypes[0].tolist() == [row, row]


def test_bias_of_the_last_layer_comes_before_the_rectification():
    net = plain_net([1.0, 1.0])
    net[10].bias.copy_(torch.tensor([-1.0, -10.0]))
    assert net(torch.full((1, 1, 1, 1), 4.0)).flatten(0, 2).unique(dim=0).tolist() == [[3, 0]]


def test_batched_is_each_image_alone():
    torch.manual_seed(0)
    net = ProtoNet(4, 3)
    p3 = torch.randn(3, 4, 5, 6)
    with torch.no_grad():
        prototypes = net(p3)
        assert prototypes.shape == (3, 10, 12, 3)
        assert (prototypes >= 0).all()
        torch.testing.assert_close(prototypes, torch.cat([net(image[None]) for image in p3]), atol=1e-6, rtol=1e-5)
