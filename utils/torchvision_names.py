"""Converts torchvision's weights, for a start of training, to the published names and values.

    layer1.0.conv2.weight                  backbone.layers.0.0.conv2.weight
    layer1.0.downsample.0.weight           backbone.layers.0.0.downsample.0.weight
    conv1.weight, bn1.…                    backbone.conv1.weight, backbone.bn1.…
    fc.…                                   dropped
    backbone.body.…                        as above, of a detector
    backbone.fpn.inner_blocks.1…3          fpn.lat_layers.2…0: C3…C5, with the batch norm folded in
    backbone.fpn.layer_blocks.1…3          fpn.pred_layers.2…0
    rpn.…, roi_heads.…                     dropped

Where the network's convolution is deformable and torchvision's is not, offsets and bias are zero. The modulation then
starts at sigmoid(0) = ½ everywhere, so weights are doubled: the network begins with exactly torchvision's features,
which fit the frozen batch norms.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ytvis.files import InputError

StateDict = dict[str, Tensor]

BATCH_NORM_EPS = 1e-5
START_OF_MODULATION = 0.5  # sigmoid(0)
_OFFSETS = ".conv_offset_mask."

_BLOCK = re.compile(r"layer([1-4])\.(\d{1,3})\.(.+)")
_STEM = re.compile(r"(conv1|bn1)\..+")
_PYRAMID = re.compile(r"backbone\.fpn\.(inner|layer)_blocks\.([1-3])\.0\.weight")


def is_torchvision(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has torchvision's names, those of a ResNet or of a detector with one."""
    return any(name.removeprefix("backbone.body.").startswith("layer1.0.conv1.") for name in state)


def from_torchvision(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> StateDict:
    """Returns the tensors of torchvision's `state` that fit the network with the state dict `expected`, renamed.

    These are the whole backbone, with zeros for its deformable convolutions, and of a detector the pyramid's
    convolutions if they have the network's channels.

    Raises:
        InputError: the backbone is another one; the message gives its settings.
    """
    backbone = {}
    for name, value in state.items():
        name = name.removeprefix("backbone.body.")
        if block := _BLOCK.fullmatch(name):
            backbone[f"backbone.layers.{int(block[1]) - 1}.{block[2]}.{block[3]}"] = value
        elif _STEM.fullmatch(name):
            backbone[f"backbone.{name}"] = value
    ours = {name: value for name, value in expected.items() if name.startswith("backbone.")}
    unlike = {name for name, value in backbone.items() if name not in ours or value.shape != ours[name].shape}
    backbone |= _deformable(backbone, ours)
    missing = [name for name in ours if name not in backbone and not name.endswith("num_batches_tracked")]
    if unlike or missing:
        raise InputError(f"torchvision's backbone is another than the config's; {_settings(backbone)}")
    pyramid = _pyramid(state)
    fits = all(name in expected and value.shape == expected[name].shape for name, value in pyramid.items())
    return backbone | (pyramid if fits else {})


def _deformable(backbone: StateDict, ours: Mapping[str, Tensor]) -> StateDict:
    """The tensors of convolutions that are plain in `backbone` and deformable in `ours`."""
    different = {}
    for name in ours:
        convolution, offsets, _ = name.partition(_OFFSETS)
        weight, bias = f"{convolution}.weight", f"{convolution}.bias"
        if offsets and weight in backbone:
            different[weight] = backbone[weight] / START_OF_MODULATION
            different |= {zero: torch.zeros(ours[zero].shape) for zero in (bias, name)}
    return different


def _settings(backbone: StateDict) -> str:
    """The settings of the backbone of these tensors, as the end of a message."""
    blocks = [0, 0, 0, 0]
    for name in backbone:
        parts = name.split(".")
        if parts[1] == "layers":
            blocks[int(parts[2])] = max(blocks[int(parts[2])], int(parts[3]) + 1)
    kind = "bottleneck" if any(".conv3." in name for name in backbone) else "basic"
    counts = ",".join(map(str, blocks))
    stem = len(backbone["backbone.conv1.weight"]) if "backbone.conv1.weight" in backbone else 64
    return (
        f"pass --set backbone.block={kind} --set backbone.blocks={counts} --set backbone.stem_channels={stem}, or "
        "start from another"
    )


def _pyramid(state: Mapping[str, Tensor]) -> StateDict:
    """A detector's pyramid over C3…C5, whose convolutions have no bias but a batch norm, in newer ones, or a bias."""
    pyramid = {}
    for name, weight in state.items():
        place = _PYRAMID.fullmatch(name)
        if place is None:
            continue
        convolution, block = name.removesuffix(".weight"), name.removesuffix(".0.weight")
        bias = state.get(f"{convolution}.bias")
        norm = [state.get(f"{block}.1.{part}") for part in ("running_mean", "running_var", "weight", "bias")]
        if all(value is not None and value.shape == weight.shape[:1] for value in norm):
            mean, variance, scale, shift = norm
            weight, bias = fuse_conv_bn_weights(weight, bias, mean, variance, BATCH_NORM_EPS, scale, shift)
        layer = {"inner": "lat_layers", "layer": "pred_layers"}[place[1]]
        target = f"fpn.{layer}.{3 - int(place[2])}"
        pyramid[f"{target}.weight"] = weight.detach()
        if bias is not None:
            pyramid[f"{target}.bias"] = bias.detach()
    return pyramid
