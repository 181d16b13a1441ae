"""ResNet-50/101 stages C2…C5 (He et al., CVPR 2016), with deformable blocks as in YOLACT++ (TPAMI 2020)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from layers.cpu.fused_convolution import FusedConv2d, fold_batch_norm
from layers.deform_conv import ModulatedDeformConv2d

EXPANSION = 4


class Bottleneck(nn.Module):
    """1×1, 3×3 (strided; deformable if asked), 1×1 convolutions around a shortcut: [B,Cin,H,W] → [B,4·width,H',W']."""

    def __init__(self, in_channels: int, width: int, stride: int, deformable: bool):
        super().__init__()
        out_channels = EXPANSION * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        if deformable:
            self.conv2 = ModulatedDeformConv2d(width, width, 3, stride)
        else:
            self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Module):
    """The four stages C2…C5 of a bottleneck ResNet, strides 4, 8, 16, 32.

    `blocks` gives the blocks per stage; in C3…C5 every `dcn_interval`-th block, the first included, is deformable
    (0: none). `out_channels` lists the channels of the four outputs.
    """

    def __init__(self, blocks: Sequence[int], stem_channels: int = 64, dcn_interval: int = 0):
        super().__init__()
        self.layers = nn.ModuleList()
        self.out_channels = []
        channels = stem_channels
        for stage, count in enumerate(blocks):
            width = stem_channels * 2**stage
            stage_blocks = []
            for block in range(count):
                deformable = dcn_interval > 0 and stage > 0 and block % dcn_interval == 0
                stride = 2 if stage > 0 and block == 0 else 1
                stage_blocks.append(Bottleneck(channels, width, stride, deformable))
                channels = EXPANSION * width
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


class FusedBottleneck(nn.Module):
    """What `block` computes in evaluation, with its batch norms, ReLUs and sum in the convolutions; takes it over."""

    def __init__(self, block: Bottleneck, dtype: torch.dtype, pack: bool):
        super().__init__()
        self.conv1 = FusedConv2d(block.conv1, block.bn1, True, dtype, pack)
        if isinstance(block.conv2, ModulatedDeformConv2d):
            self.conv2 = nn.Sequential(block.conv2, nn.ReLU(inplace=True))
            weight, bias = fold_batch_norm(block.conv2.weight, block.conv2.bias, block.bn2)
            block.conv2.weight, block.conv2.bias = (nn.Parameter(t, requires_grad=False) for t in (weight, bias))
        else:
            self.conv2 = FusedConv2d(block.conv2, block.bn2, True, dtype, pack)
        self.conv3 = FusedConv2d(block.conv3, block.bn3, True, dtype, pack)
        self.downsample = None
        if block.downsample is not None:
            self.downsample = FusedConv2d(*block.downsample, False, dtype, pack)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.conv3(self.conv2(self.conv1(x)), shortcut)


def fuse_backbone(backbone: ResNet, dtype: torch.dtype, pack: bool) -> None:
    """Folds the batch norms of `backbone` into its convolutions, in place; see `FusedConv2d`."""
    for stage in backbone.layers:
        for index, block in enumerate(stage):
            stage[index] = FusedBottleneck(block, dtype, pack)
    backbone.conv1 = FusedConv2d(backbone.conv1, backbone.bn1, True, dtype, pack)
    backbone.bn1 = backbone.relu = nn.Identity()
