"""The branch that predicts prototype masks (YOLACT, ICCV 2019)."""

from torch import Tensor, nn
from torch.nn import functional as F


class ProtoNet(nn.Sequential):
    """Prototypes [B,2h,2w,K] ≥ 0 from P3 [B,C,h,w]; stride 4 relative to the network input."""

    def __init__(self, channels: int, num_prototypes: int):
        def conv() -> nn.Conv2d:
            return nn.Conv2d(channels, channels, 3, padding=1)

        super().__init__(
            *(conv(), nn.ReLU(inplace=True)),
            *(conv(), nn.ReLU(inplace=True)),
            *(conv(), nn.ReLU(inplace=True)),
            # The ReLU after the upsampling changes nothing; it keeps the published layer numbers.
            *(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), nn.ReLU(inplace=True)),
            *(conv(), nn.ReLU(inplace=True)),
            nn.Conv2d(channels, num_prototypes, 1),
        )

    def forward(self, p3: Tensor) -> Tensor:
        return F.relu(super().forward(p3)).permute(0, 2, 3, 1)
