"""Convolutions for inference, with batch norm and ReLU folded in, and weights laid out in advance."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from layers.cpu.packed_products import can_pack
from layers.cpu.winograd import WinogradConv2d


class FusedConv2d(nn.Module):
    """The convolution `conv` with the batch norm `norm` folded into it, followed by a ReLU if `relu`.

    It computes in `dtype`. On a CPU that is fast in that dtype, oneDNN runs as one operator, with weights laid out for
    each size of input (a copy of the weights for each); in float32 `WinogradConv2d` is used where it is faster, except
    if `direct`. Elsewhere, and without `pack`, plain operators run; torch.compile needs these, as it does not support
    such weights. The module has no parameters.
    """

    def __init__(
        self,
        conv: nn.Conv2d,
        norm: nn.BatchNorm2d | None = None,
        relu: bool = False,
        dtype: torch.dtype = torch.float32,
        pack: bool = True,
        direct: bool = False,
    ):
        super().__init__()
        weight, bias = conv.weight.detach(), None if conv.bias is None else conv.bias.detach()
        if norm is not None:
            weight, bias = fold_batch_norm(weight, bias, norm)
        self.weight = weight.to(dtype=dtype, memory_format=torch.channels_last)
        self.bias = None if bias is None else bias.to(dtype)
        self.relu = relu
        self.geometry = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self._packs = pack and can_pack(weight.device, dtype)
        self._packed: dict[torch.Size, Tensor] = {}
        self._may_be_winograd = self._packs and not direct and dtype == torch.float32 and WinogradConv2d.suits(conv)
        self._winograd: WinogradConv2d | None = None  # created on demand: it has four times the weights

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """[B,Cout,H',W'] of `x` [B,Cin,H,W]; `other`, of the result's shape, is added before the ReLU."""
        x = x.to(self.weight.dtype)
        if not self._packs:
            padding, stride, dilation, groups = self.geometry
            out = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
            out = out if other is None else out + other
            return out.relu_() if self.relu else out
        if self._may_be_winograd and other is None and WinogradConv2d.pays(x):
            self._winograd = self._winograd or WinogradConv2d(self.weight, self.bias, self.relu)
            return self._winograd(x)
        fused = torch.ops.mkldnn._convolution_pointwise
        weight = self._packed_for(x.shape[1:])
        if other is None:
            return fused(x, weight, self.bias, *self.geometry, "relu" if self.relu else "none", [], "")
        return fused.binary(
            x, other, weight, self.bias, *self.geometry, "add", 1.0, "relu" if self.relu else None, [], ""
        )

    def _packed_for(self, shape: torch.Size) -> Tensor:
        """The weights laid out by oneDNN for images of `shape` (Cin, H, W), in batches of any size."""
        if shape not in self._packed:
            reorder = torch.ops.mkldnn._reorder_convolution_weight
            self._packed[shape] = reorder(self.weight, *self.geometry, [1, *shape])
        return self._packed[shape]


def fold_batch_norm(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """(weight, bias) of a convolution equal to that of `weight` and `bias` followed by `norm` in evaluation mode."""
    folded = fuse_conv_bn_weights(weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    return tuple(tensor.detach() for tensor in folded)


def fuse_convolutions(network: nn.Module, dtype: torch.dtype, pack: bool, keep: set[nn.Module]) -> None:
    """Replaces every convolution in `network`, except those in `keep`, by a `FusedConv2d`, in place.

    A ReLU that follows it in a Sequential becomes part of it.
    """
    for module in list(network.modules()):
        for name, following in pairwise([*module._modules, None]):
            conv = module._modules[name]
            if not isinstance(conv, nn.Conv2d) or conv in keep:
                continue
            relu = isinstance(module, nn.Sequential) and isinstance(module._modules.get(following), nn.ReLU)
            module._modules[name] = FusedConv2d(conv, None, relu, dtype, pack)
            if relu:
                module._modules[following] = nn.Identity()
