"""Temporal fusion (STMask, section 3.3): predicts the objects of one frame in the next."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from layers.box_utils import decode, to_cxcywh
from layers.mask_utils import assemble_masks
from utils.structures import FusionFeatures, Tracks

CORRELATION_SLOPE = 0.1  # negative slope of the leaky ReLU after the correlation, as in FlowNet


def correlate(a: Tensor, b: Tensor, patch_size: int = 11) -> Tensor:
    """Correlation [B,patch_size²,h,w] of `a` with shifted copies of `b`, both [B,C,h,w].

    Entry (i, j) of the window, rows slowest, is the dot product over channels of a at (y, x) with b at
    (y + i − r, x + j − r), r = patch_size // 2, zero outside, divided by C; then a leaky ReLU of slope 0.1.
    """
    radius = patch_size // 2
    batch, channels, height, width = a.shape
    rows = a.permute(0, 2, 3, 1).reshape(batch * height, width, channels)
    padded = F.pad(b, (radius,) * 4).permute(0, 2, 1, 3)  # [B,h+2r,C,w+2r]
    span = width + 2 * radius
    products = []
    for i in range(patch_size):
        # A row of a times the row of b that is i - r lower: all pairs of columns; only a band of them is needed.
        pairs = rows @ padded[:, i : i + height].reshape(batch * height, channels, span)
        band = pairs.as_strided((batch * height, patch_size, width), (width * span, 1, span + 1))
        products.append(band.view(batch, height, patch_size, width))
    window = torch.stack(products, dim=1).transpose(2, 3).flatten(1, 2)  # [B,i,h,j,w] → [B,i·j,h,w]
    return F.leaky_relu(window / channels, CORRELATION_SLOPE)


def fuse(last: FusionFeatures, current: FusionFeatures, patch_size: int) -> Tensor:
    """The input map of the temporal net, [B,patch_size² + 2·C,h,w] ≥ 0, for frames last → current, both at P4."""
    correlation = correlate(last.pyramid, current.pyramid, patch_size)
    return F.relu(torch.cat((correlation, last.shared, current.shared), dim=1))


class TemporalNet(nn.Module):
    """Predicts how N objects change between two frames: box regression [N,4] and coefficient change [N,K]."""

    def __init__(self, in_channels: int, channels: tuple[int, int, int], num_prototypes: int, roi_size: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.conv2 = nn.Conv2d(channels[0], channels[1], 3, padding=1)
        self.conv3 = nn.Conv2d(channels[1], channels[2], 3, padding=1)
        self.fc = nn.Linear(channels[2], 4)
        self.fc_coeff = nn.Linear(channels[2], num_prototypes)
        self.roi_size = roi_size

    def crop(self, fused: Tensor, boxes: Tensor, maps: Tensor | None = None) -> Tensor:
        """Crops [N,D,roi,roi] of the maps `fused` [B,D,h,w] at `boxes` [N,4], normalised and clamped to the image.

        `maps` [N] int64 are the indices of the maps, by default 0.
        """
        height, width = fused.shape[-2:]
        low = torch.minimum(boxes[:, :2], boxes[:, 2:])
        high = torch.maximum(boxes[:, :2], boxes[:, 2:])
        x, y = torch.stack((low, high), dim=1).clamp(0, 1).unbind(dim=2)  # [N,2] each
        clamped = torch.stack((x * width, y * height), dim=2).flatten(1)
        maps = torch.zeros_like(boxes[:, 0]) if maps is None else maps.to(boxes.dtype)
        # In float32 even under autocast: rounding to bfloat16 would move box edges.
        regions = torch.cat((maps[:, None], clamped), dim=1)
        # 0 samples adaptively, as -1 does, and is what other runtimes expect of an exported network.
        return roi_align(fused.to(boxes.dtype), regions, self.roi_size, sampling_ratio=0, aligned=True)

    def forward(self, fused: Tensor, boxes: Tensor, maps: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(box regression [N,4], coefficient change [N,K]) for `boxes` [N,4] of the earlier frame; see `crop`."""
        x = self.crop(fused, boxes, maps)
        for conv in (self.conv1, self.conv2, self.conv3):
            x = F.relu(conv(x))
        x = x.mean(dim=(2, 3))
        return self.fc(x), self.fc_coeff(x)


def shift_tracks(
    tracks: Tracks, box_deltas: Tensor, coeff_changes: Tensor, prototypes: Tensor, score_decay: float
) -> Tracks:
    """`tracks` as predicted for the current frame: one frame older, with new boxes, masks and scores.

    `box_deltas` [N,4] and `coeff_changes` [N,K] are the output of `TemporalNet`, `prototypes` [h,w,K] those of the
    current frame.
    """
    boxes = decode(box_deltas, to_cxcywh(tracks.boxes))
    mask_coeffs = tracks.mask_coeffs + coeff_changes
    return replace(
        tracks,
        boxes=boxes,
        mask_coeffs=mask_coeffs,
        masks=assemble_masks(prototypes, mask_coeffs, boxes),
        scores=tracks.scores * score_decay,
        ages=tracks.ages + 1,
    )
