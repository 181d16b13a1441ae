"""The backbone: ResNet stages C2…C5 (He et al., CVPR 2016), with deformable blocks as in YOLACT++ (TPAMI 2020).

backbone = make_backbone(config.backbone)
backbone.out_channels                     # of the four feature maps
backbone(images)                          # [B,3,H,W] → C2…C5, each [B,out_channels[i],H/2^(i+2),W/2^(i+2)]
fuse_backbone(backbone, dtype, pack)      # for inference, in place
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from layers.cpu.deform_columns import pack_weight
from layers.cpu.fused_convolution import FusedConv2d, fold_batch_norm
from layers.deform_conv import ModulatedDeformConv2d, inference_weight


class BasicBlock(nn.Module):
    """Two 3×3 convolutions, the first strided, the second deformable if asked, around a shortcut: [B,Cin,H,W] →
    [B,width,H',W']. Parameter names are torchvision's."""

    expansion: ClassVar[int] = 1  # output channels / width
    num_convolutions: ClassVar[int] = 2

    def __init__(self, in_channels: int, width: int, stride: int, deformable: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = make_convolution(width, 1, deformable)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = make_shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class Bottleneck(nn.Module):
    """1×1, 3×3 (strided; deformable if asked), 1×1 convolutions around a shortcut: [B,Cin,H,W] → [B,4·width,H',W']."""

    expansion: ClassVar[int] = 4
    num_convolutions: ClassVar[int] = 3

    def __init__(self, in_channels: int, width: int, stride: int, deformable: bool):
        super().__init__()
        out_channels = self.expansion * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = make_convolution(width, stride, deformable)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = make_shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


BLOCKS = {"bottleneck": Bottleneck, "basic": BasicBlock}


def make_convolution(width: int, stride: int, deformable: bool) -> nn.Module:
    """A block's 3×3 convolution of `width` channels, plain or deformable."""
    if deformable:
        return ModulatedDeformConv2d(width, width, 3, stride)
    return nn.Conv2d(width, width, 3, stride, padding=1, bias=False)


def make_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """The projection of a block's input before it is added to the output; None if their shapes agree."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResNet(nn.Module):
    """The four stages C2…C5 of a ResNet, strides 4, 8, 16, 32.

    `blocks` gives the blocks per stage; in C3…C5 every `dcn_interval`-th block, the first included, is deformable
    (0: none). `out_channels` lists the channels of the four outputs.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        stem_channels: int = 64,
        dcn_interval: int = 0,
        block: type[BasicBlock] | type[Bottleneck] = Bottleneck,
    ):
        super().__init__()
        self.layers = nn.ModuleList()
        self.out_channels = []
        channels = stem_channels
        for stage, count in enumerate(blocks):
            width = stem_channels * 2**stage
            stage_blocks = []
            for index in range(count):
                deformable = dcn_interval > 0 and stage > 0 and index % dcn_interval == 0
                stride = 2 if stage > 0 and index == 0 else 1
                stage_blocks.append(block(channels, width, stride, deformable))
                channels = block.expansion * width
            self.layers.append(nn.Sequential(*stage_blocks))
            self.out_channels.append(channels)
        self.conv1 = nn.Conv2d(3, stem_channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features C2…C5 of `images` [B,3,H,W], each [B,out_channels[i],H/2^(i+2),W/2^(i+2)] and ≥ 0."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        stages = []
        for layer in self.layers:
            x = layer(x)
            stages.append(x)
        return stages


def make_backbone(config) -> ResNet:
    """The backbone of a `data.config.BackboneConfig`, with fresh weights."""
    return ResNet(config.blocks, config.stem_channels, config.dcn_interval, BLOCKS[config.block])


# ---------------------------------------------------------------------------------------------------- for inference


class FusedDeformConv2d(nn.Module):
    """As `FusedConv2d`, for a deformable convolution with a ReLU; gives `conv` its `inference_weight`."""

    def __init__(self, conv: ModulatedDeformConv2d, norm: nn.BatchNorm2d, dtype: torch.dtype, pack: bool):
        super().__init__()
        weight, bias = fold_batch_norm(conv.weight, conv.bias, norm)
        if pack and dtype == torch.float32:
            conv.packed = pack_weight(weight)
        weight = inference_weight(weight, dtype)
        conv.weight, conv.bias = (nn.Parameter(tensor, requires_grad=False) for tensor in (weight, bias))
        self.conv = conv
        self.dtype = dtype

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        out = self.conv(x).to(self.dtype)
        return (out if other is None else out + other).relu_()


class FusedBlock(nn.Module):
    """Computes `block` in evaluation, with batch norms, ReLUs and sum fused into its convolutions; changes `block`."""

    def __init__(self, block: BasicBlock | Bottleneck, dtype: torch.dtype, pack: bool):
        super().__init__()
        fused = []
        for number in range(1, block.num_convolutions + 1):
            conv, norm = getattr(block, f"conv{number}"), getattr(block, f"bn{number}")
            if isinstance(conv, ModulatedDeformConv2d):
                fused.append(FusedDeformConv2d(conv, norm, dtype, pack))
            else:
                fused.append(FusedConv2d(conv, norm, True, dtype, pack))
        *first, self.last = fused
        self.first = nn.Sequential(*first)
        self.downsample = None
        if block.downsample is not None:
            self.downsample = FusedConv2d(*block.downsample, False, dtype, pack)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.last(self.first(x), shortcut)


def fuse_backbone(backbone: ResNet, dtype: torch.dtype, pack: bool) -> None:
    """Folds the batch norms of `backbone` into its convolutions, in place; see `FusedConv2d`."""
    for stage in backbone.layers:
        for index, block in enumerate(stage):
            stage[index] = FusedBlock(block, dtype, pack)
    backbone.conv1 = FusedConv2d(backbone.conv1, backbone.bn1, True, dtype, pack)
    backbone.bn1 = backbone.relu = nn.Identity()
