"""Feature pyramid (Lin et al., CVPR 2017), as in YOLACT++: P3…P7 from C3…C5."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

FINEST_LEVEL = 3  # P3, of stride 8
NUM_LEVELS = 5


def level_sizes(input_hw: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(height, width) in cells of P3…P7 for images of (H, W): each half of the one before, rounded up."""
    sizes = [tuple(-(-side // 2**FINEST_LEVEL) for side in input_hw)]
    while len(sizes) < NUM_LEVELS:
        height, width = sizes[-1]
        sizes.append((-(-height // 2), -(-width // 2)))
    return tuple(sizes)


class FPN(nn.Module):
    """Pyramid levels P3…P7 with `channels` channels each, strides 8…128; see `level_sizes`.

    `in_channels` are the channels of C3, C4, C5. Layers are stored from C5 down to C3, as in the published checkpoints.
    """

    def __init__(self, in_channels: Sequence[int], channels: int):
        super().__init__()
        self.lat_layers = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in reversed(in_channels))
        self.pred_layers = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.downsample_layers = nn.ModuleList(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(2))

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """[P3, P4, P5, P6, P7] from `stages` [C3, C4, C5]; P3…P5 are ≥ 0, P6 and P7 have any sign."""
        levels = []
        top_down = None
        for stage, lateral, prediction in zip(reversed(stages), self.lat_layers, self.pred_layers, strict=True):
            merged = lateral(stage)
            if top_down is not None:
                merged = merged + F.interpolate(top_down, merged.shape[-2:], mode="bilinear", align_corners=False)
            top_down = merged
            levels.insert(0, F.relu(prediction(merged)))
        for downsample in self.downsample_layers:
            levels.append(downsample(levels[-1]))
        return levels
