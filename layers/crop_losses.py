"""Losses that train the backbone alone: classification of crops of single objects."""

from torch import Tensor, nn
from torch.nn import functional as F

from layers.anchor_targets import hide_unlabelled
from utils.distributed import World
from utils.precision import autocast
from utils.structures import CropBatch
from ytvis.files import InputError


class CropLosses(nn.Module):
    """The cross-entropies C3, C4 and C5 of one linear classifier per stage, applied to the stage's mean over a crop."""

    def __init__(self, model: nn.Module, world: World, precision: str = "fp32"):
        super().__init__()
        if model.config.train.freeze_batch_norm:
            raise InputError("--task=crops starts from nothing: pass --set train.freeze_batch_norm=false")
        self.backbone = model.backbone
        outputs = model.config.num_classes + 1
        self.auxiliary = nn.ModuleList(nn.Linear(c, outputs) for c in model.backbone.out_channels[1:]).to(world.device)
        self.autocast = autocast(precision, world.device)
        self.gather = world.gather

    def forward(self, batch: CropBatch) -> dict[str, Tensor]:
        with self.autocast():
            stages = self.backbone(batch.images)[1:]
        losses = {}
        for number, (stage, classifier) in enumerate(zip(stages, self.auxiliary, strict=True), start=3):
            logits = hide_unlabelled(classifier(stage.float().mean(dim=(2, 3))), batch.labels, batch.known)
            cross_entropy = self.gather(F.cross_entropy(logits, batch.labels, reduction="none"))
            losses[f"C{number}"] = cross_entropy.sum() / max(len(cross_entropy), 1)
        return losses
