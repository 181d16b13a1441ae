"""Mask rescoring (YOLACT++, TPAMI 2020, section 6.1): predicts how well a mask fits its object from its shape."""

from itertools import pairwise

from torch import Tensor, nn

from ytvis.files import InputError

CHANNELS = (1, 8, 16, 32, 64, 128)
LEAST_SIDE = 63  # pixels of a mask, of which five unpadded convolutions of stride 2 leave one


class MaskIoUNet(nn.Module):
    """Predicts the IoU of masks with the truth, for each of `num_classes` classes."""

    def __init__(self, num_classes: int):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise(CHANNELS):
            layers += [nn.Conv2d(before, after, 3, stride=2), nn.ReLU(inplace=True)]
        self.maskiou_net = nn.Sequential(*layers, nn.Conv2d(CHANNELS[-1], num_classes, 1), nn.ReLU(inplace=True))

    def forward(self, masks: Tensor) -> Tensor:
        """Expected IoUs [N,C] ≥ 0, which may exceed 1, of soft `masks` [N,h,w] in 0…1, zero outside their boxes.

        Raises:
            InputError: the masks are smaller than 63×63 pixels, as those of an input below about 249 pixels are.
        """
        if min(masks.shape[1:]) < LEAST_SIDE:
            raise InputError(
                f"mask rescoring needs masks of at least {LEAST_SIDE}×{LEAST_SIDE} pixels, these have "
                f"{masks.shape[1]}×{masks.shape[2]}; raise input.size_hw to at least 249 pixels"
            )
        if masks.shape[0] == 0:  # of len(masks) torch.export would make a constant
            return masks.new_zeros(0, self.maskiou_net[-2].weight.shape[0])
        return self.maskiou_net(masks[:, None]).amax(dim=(2, 3))

    def of_labels(self, masks: Tensor, labels: Tensor) -> Tensor:
        """Expected IoUs [N] of `masks`, each for its class, `labels` [N] 1…C."""
        return self(masks).float().gather(1, labels[:, None] - 1).squeeze(1)
