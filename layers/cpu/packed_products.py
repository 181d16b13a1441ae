"""Products with constant matrices, which oneDNN computes faster, in float32 on a CPU, than torch's own product.

They run as convolutions of one tap, whose weights are laid out once. They are for inference: autograd does not
support them, and they round differently.
"""

import torch
from torch import Tensor


class PackedMatrices:
    """Products with `matrices` [G,M,K] float32, group by group; laid out for about `rows` rows at a time."""

    def __init__(self, matrices: Tensor, rows: int):
        self._groups, self._outputs, inputs = matrices.shape
        weights = matrices.reshape(-1, inputs, 1, 1)
        size = [1, self._groups * inputs, rows, 1]
        self._weights = torch.ops.mkldnn._reorder_convolution_weight(
            weights, [0, 0], [1, 1], [1, 1], self._groups, size
        )

    def multiply(self, rows: Tensor) -> Tensor:
        """[n,G,M] of `rows` [n,G,K] float32, contiguous."""
        image = rows.flatten(1).t()[None, :, :, None]  # of n places, channels last
        convolve = torch.ops.mkldnn._convolution_pointwise
        products = convolve(image, self._weights, None, [0, 0], [1, 1], [1, 1], self._groups, "none", [], "")
        return products[0, :, :, 0].t().unflatten(1, (self._groups, self._outputs))


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN's fused operators are available on `device`, and fast in `dtype`."""
    ops = torch.ops.mkldnn
    known = device.type == "cpu" and torch.backends.mkldnn.is_available() and hasattr(ops, "_convolution_pointwise")
    return known and (dtype == torch.float32 or (dtype == torch.bfloat16 and ops._is_mkldnn_bf16_supported()))
