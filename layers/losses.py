"""STMask's training losses.

Letters: I images of the batch (clip-major), A anchors, P positives (anchors that learn an instance) of all images.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layers.anchor_targets import BACKGROUND, NEUTRAL, Match, compaction_of, hide_unlabelled, match
from layers.box_utils import decode, distance_iou_loss, encode, to_cxcywh
from layers.compaction import Compaction, drop_rows, order_rows
from layers.mask_utils import assemble_batch, assemble_in_slots
from layers.temporal_fusion import fuse
from utils.loss_weights import LossWeights
from utils.structures import ClipTargets, FrameTargets, FusionFeatures, Predictions, map_tensors
from ytvis.files import InputError

BOX_GROWTH = 1.2  # factor of the sides of the predicted box that crops a mask in training
NEGATIVES_PER_POSITIVE = 3
MASK_PIXELS = 8 << 20  # of prototypes' size, processed at a time: a dozen numbers are kept for each
TEMPERATURE = 0.1  # of the cosines in the contrastive track loss


@dataclass(frozen=True)
class Owners:
    """Which of I images each of N objects is of, image by image: `counts` [I]. Where N is not the sum of the counts,
    objects of no image follow: then `slots` [N] are those of `layers.mask_utils.assemble_in_slots`, with
    `slots_per_image`."""

    counts: Tensor
    slots: Tensor | None = None
    slots_per_image: int = 0

    @classmethod
    def of(cls, counts: Tensor, image: Tensor, are_real: Tensor, most: int | None) -> Self:
        """The owners of objects of `image` [N], of which some `are_real` [N]; no image has more than `most`, or with
        None all are real."""
        if most is None:
            return cls(counts)
        place = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image]
        return cls(counts, torch.where(are_real, image * most + place, len(counts) * most), most)


@dataclass(frozen=True)
class Positives:
    """The positives of a batch: `image` [P], `anchor` [P] and `row` [P] in the truth of all images; `owners` of their
    images, `weights` [P] 1/(their number in the image); `boxes` [P,4] as predicted, `truth_boxes` [P,4],
    `instance_ids` [P]. Rows with weight 0 are no positives; they follow the others."""

    image: Tensor
    anchor: Tensor
    row: Tensor
    owners: Owners
    weights: Tensor
    boxes: Tensor
    truth_boxes: Tensor
    instance_ids: Tensor


def find_positives(predictions: Predictions, targets: ClipTargets, matched: Match) -> Positives:
    """The positives of I images in the order image, anchor; P = 0 is fine. If the targets' candidates are counted, P is
    their number."""
    positive = matched.labels > 0
    places, are_real = compaction_of(targets)(positive.flatten())
    image, anchor = places // positive.shape[1], places % positive.shape[1]
    counts = positive.sum(dim=1)
    row = targets.rows[image, matched.targets[image, anchor]].clamp(min=0)
    most = None if targets.candidates is None else int(targets.candidates_of_frames().max())
    return Positives(
        image=image,
        anchor=anchor,
        row=row,
        owners=Owners.of(counts, image, are_real, most),
        weights=torch.where(are_real, 1 / counts[image].float(), 0),
        boxes=decode(predictions.box_deltas[image, anchor].float(), predictions.anchors[anchor]),
        truth_boxes=targets.truth.boxes[row],
        instance_ids=targets.truth.instance_ids[row],
    )


def alone(rows: Tensor) -> Tensor:
    """Returns `rows` unchanged, as the gather of a single process."""
    return rows


def class_loss(
    class_logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    weights_by_position: bool,
    gather: Callable[[Tensor], Tensor] = alone,
    compact: Compaction = drop_rows,
) -> Tensor:
    """Weighted cross-entropy over positives and hard negatives, summed, /4.

    `class_logits` [I,A,C+1], −∞ where `hide_unlabelled` hides them, `labels` [I,A] (−1 neutral), `weights` [P] of the
    positives in order. Hard negatives are the 3·P anchors of the whole batch with the lowest background probability;
    each weighs 3·I/(their number). With `weights_by_position` the vector of all weights, positives' first, is assigned
    to the anchors in the order of their index, so that weights and anchors do not correspond (docs/quirks.md).
    `compact` chooses the anchors that are summed.

    The batch may be spread over processes with equally many images each: `gather` returns the images [I,…] of all
    processes for this process's own, and the result is the sum over all images divided by the number of processes.
    """
    logits = class_logits.float()
    cross_entropy = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=NEUTRAL, reduction="none")
    positive = labels > 0
    with torch.no_grad():
        hardness = (logits.logsumexp(dim=2) - logits[..., 0]).masked_fill(labels != BACKGROUND, float("-inf"))
        image_weights = logits.new_zeros(labels.shape).masked_scatter(positive, weights)
    cross_entropy, hardness, image_weights = map(gather, (cross_entropy.view_as(labels), hardness, image_weights))
    anchor_weights = _with_hard_negatives(image_weights, hardness, weights_by_position)
    kept, are_real = compact(anchor_weights.flatten() > 0)
    costs = torch.where(are_real, anchor_weights.flatten()[kept] * cross_entropy.flatten()[kept], 0)
    return costs.sum() / 4 * (len(labels) / len(anchor_weights))


def _with_hard_negatives(positive_weights: Tensor, hardness: Tensor, weights_by_position: bool) -> Tensor:
    """The weights [I,A] in the class loss: `positive_weights` [I,A], 0 for anchors that are not positive, and those of
    the hard negatives among the anchors with a `hardness` [I,A] over −∞."""
    weights, hardness_of = positive_weights.flatten(), hardness.flatten()
    positive, background = weights > 0, hardness_of > float("-inf")
    count = torch.minimum(NEGATIVES_PER_POSITIVE * positive.sum(), background.sum())
    is_hardest = torch.arange(len(weights), device=weights.device) < count
    negative = torch.zeros_like(positive).scatter(0, hardness_of.argsort(descending=True), is_hardest)
    of_negative = NEGATIVES_PER_POSITIVE * len(hardness) / count.clamp(min=1).to(weights.dtype)
    if not weights_by_position:
        return torch.where(negative, of_negative, weights).view_as(hardness)
    chosen = positive | negative
    place = chosen.cumsum(0) - 1
    of_positives = weights[order_rows(positive)[0]]
    of_chosen = torch.where(place < positive.sum(), of_positives[place.clamp(min=0)], of_negative)
    return torch.where(chosen, of_chosen, 0).view_as(hardness)


def track_loss(embeddings: Tensor, instance_ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean over pairs of positives of BCE((cos+1)/2, same instance); 0 for fewer than two positives.

    `embeddings` [P,E] of unit length, `instance_ids` [P], `weights` [P].
    """
    similarity = ((embeddings @ embeddings.t() + 1) / 2).clamp(0, 1)
    same = (instance_ids[:, None] == instance_ids[None]).to(similarity.dtype)
    pair_weights = (weights[:, None] * weights[None]).triu(diagonal=1)
    cross_entropy = F.binary_cross_entropy(similarity, same, reduction="none")
    return (pair_weights * cross_entropy).sum() / pair_weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def contrastive_track_loss(
    embeddings: Tensor, instance_ids: Tensor, weights: Tensor, compact: Compaction = drop_rows
) -> Tensor:
    """Supervised contrastive loss (Khosla et al., 2020, their L_out) of positives, weighted; 0 if no instance has two.

    Each positive has a softmax over all others, of their cosines / `TEMPERATURE` + log weight; its loss is the mean
    of −log over those of its own instance. `embeddings` [P,E] of unit length, `instance_ids` [P], `weights` [P] ≥ 0,
    0 for rows that are no positives. `compact` chooses the positives that are not the only ones of their instance.
    """
    tiny = torch.finfo(weights.dtype).tiny
    oneself = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    is_positive = weights > 0
    logits = embeddings @ embeddings.t() / TEMPERATURE + weights.clamp(min=tiny).log()
    log_shares = logits.masked_fill(oneself, float("-inf")).log_softmax(dim=1).masked_fill(oneself, 0)
    same = (instance_ids[:, None] == instance_ids) & ~oneself & is_positive & is_positive[:, None]
    paired, are_real = compact(same.any(dim=1))
    same_weights = (weights * same)[paired]
    per_positive = -(same_weights * log_shares[paired]).sum(dim=1) / same_weights.sum(dim=1).clamp(min=tiny)
    paired_weights = torch.where(are_real, weights[paired], 0)
    return (paired_weights * per_positive).sum() / paired_weights.sum().clamp(min=tiny)


def mask_loss(masks: Tensor, truth: Tensor, rows: Tensor, boxes: Tensor, whole: bool = False) -> Tensor:
    """Sum over pixels of BCE per mask [N], divided by the box's area in pixels.

    `masks` [N,h,w] are soft and resized bilinearly to `truth` [M,H,W] 0/1, of which they are compared with `rows` [N];
    H/h = W/w is whole. `boxes` [N,4] are normalised; their sides count as at least one pixel. Where a mask is cropped
    to zero, a truth pixel costs BCE's cap of 100. With `whole` all pixels are compared, otherwise only those around the
    masks, for which the host waits.
    """
    height, width = truth.shape[-2:]
    if len(masks) == 0:
        return masks.sum(dim=(1, 2))
    scale = height // masks.shape[1]
    if truth.shape[1:] != (scale * masks.shape[1], scale * masks.shape[2]):
        raise ValueError(f"truth {list(truth.shape)} is not a whole number of times the masks' {list(masks.shape)}")
    # Only a window around the pixels over zero, of the same size for all masks, is resized and compared.
    inside = masks.detach() > 0
    rows_in, columns_in = (_window(inside.any(dim=dim), whole) for dim in (2, 1))
    fine_rows, fine_columns = _finer(rows_in, scale), _finer(columns_in, scale)
    number = torch.arange(len(masks), device=masks.device)[:, None, None]
    window = masks[number, rows_in[:, :, None], columns_in[:, None, :]]
    window_truth = truth[rows[:, None, None], fine_rows[:, :, None], fine_columns[:, None, :]].to(masks.dtype)
    size = (fine_rows.shape[1], fine_columns.shape[1])
    resized = F.interpolate(window[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    pixels = F.binary_cross_entropy(resized.clamp(0, 1), window_truth, reduction="none").sum(dim=(1, 2))
    left_out = truth.flatten(1).sum(dim=1, dtype=masks.dtype)[rows] - window_truth.sum(dim=(1, 2))
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = (sides[:, 0] * width).clamp(min=1) * (sides[:, 1] * height).clamp(min=1)
    return (pixels + 100 * left_out) / areas


def mask_losses(
    prototypes: Tensor, mask_coeffs: Tensor, boxes: Tensor, owners: Owners, truth: Tensor, rows: Tensor
) -> Tensor:
    """`mask_loss` [N] of the masks of I images' objects, image by image, each cropped to its box.

    `prototypes` [I,h,w,K], `mask_coeffs` [N,K] before tanh, `boxes` [N,4], `owners` of the objects; `truth` [M,H,W] and
    `rows` [N] as for `mask_loss`. Images whose masks have `MASK_PIXELS` together are processed at a time; with slots,
    all at once.
    """
    if owners.slots is not None:
        masks = assemble_in_slots(prototypes.float(), mask_coeffs, boxes, owners.slots, owners.slots_per_image)
        return mask_loss(masks, truth, rows, boxes, whole=True)
    losses = [mask_coeffs[:0, 0]]  # not new zeros: the coefficients need a gradient without objects too
    pixels = prototypes.shape[1] * prototypes.shape[2]
    counts = owners.counts.tolist()
    for images, mine in _runs(counts, MASK_PIXELS // pixels):
        masks = assemble_batch(prototypes[images].float(), mask_coeffs[mine], boxes[mine], counts[images])
        losses.append(mask_loss(masks, truth, rows[mine], boxes[mine]))
    return torch.cat(losses)


def _runs(counts: Sequence[int], most: int) -> Iterator[tuple[slice, slice]]:
    """(images, objects) of runs of images with at most `most` objects, or one image; `counts` of objects of each."""
    start = begin = total = 0
    for image, count in enumerate([*counts, most + 1]):
        if total and total + count > most:
            yield slice(start, image), slice(begin, begin + total)
            start, begin, total = image, begin + total, 0
        total += count


def _window(inside: Tensor, whole: bool) -> Tensor:
    """The rows [N,k], for each of `inside` [N,h] bool, of a window that covers its True rows and one more on each side
    (the reach of bilinear resizing) within the image; k is the smallest that suffices for all, or h with `whole`."""
    height = inside.shape[1]
    first = inside.int().argmax(dim=1) - 1
    last = height - inside.flip(1).int().argmax(dim=1)
    spans = torch.where(inside.any(dim=1), last - first + 1, 1)
    size = height if whole else min(int(spans.max()), height)
    return first.clamp(0, height - size)[:, None] + torch.arange(size, device=inside.device)


def _finer(rows: Tensor, scale: int) -> Tensor:
    """The rows [N,scale·k] of an image `scale` times as fine that `rows` [N,k] are made of."""
    return (rows[:, :, None] * scale + torch.arange(scale, device=rows.device)).flatten(1)


def semantic_loss(logits: Tensor, targets: ClipTargets, known: Tensor | None = None) -> Tensor:
    """Cross-entropy of the class of every cell, averaged over images: an image's is the mean over the cells that
    show an object plus the mean over the background.

    `logits` [I,C+1,h,w] of a map of the I images of `targets`, 0 for background. A cell has the class at its centre.
    `known` [I,C+1] is that of `hide_unlabelled`.
    """
    truth = targets.truth
    rows, columns = (
        ((torch.arange(cells, device=logits.device) + 0.5) * size / cells).long()
        for cells, size in zip(logits.shape[-2:], truth.masks.shape[-2:], strict=True)
    )
    labels = truth.labels[:, None, None] * truth.masks[:, rows[:, None], columns].bool()  # [N,h,w]
    classes = torch.zeros((len(logits), *logits.shape[-2:]), dtype=torch.int64, device=logits.device)
    # Where objects overlap, the greatest label is used.
    classes = classes.scatter_reduce(0, targets.image[:, None, None].expand_as(labels), labels, "amax")
    of_cells = hide_unlabelled(logits.float().movedim(1, -1), classes, known)
    cross_entropy = F.cross_entropy(of_cells.movedim(-1, 1), classes, reduction="none")
    parts = [
        (cross_entropy * part).sum(dim=(1, 2)) / part.sum(dim=(1, 2)).clamp(min=1)
        for part in (classes > 0, classes == 0)
    ]
    return (parts[0] + parts[1]).mean()


def known_of_images(known: Tensor | None, num_images: int) -> Tensor | None:
    """`known` [B,C+1] of clips (see `utils.structures.Clip`) as [I,C+1] of their I images; None stays None."""
    return None if known is None else known.repeat_interleave(num_images // len(known), dim=0)


def of_frames(maps: Tensor, num_clips: int, frames: slice) -> Tensor:
    """Those of the `maps` [B·T,…] of B clips that are of `frames` of each clip, clip by clip."""
    return maps.unflatten(0, (num_clips, -1))[:, frames].flatten(0, 1)


def grow_boxes(boxes: Tensor) -> Tensor:
    """`boxes` [N,4] with sides 1.2 times as long about the same centre, clamped to 1e-5…1."""
    boxes = to_cxcywh(boxes)
    half = boxes[:, 2:] * BOX_GROWTH / 2
    return torch.cat((boxes[:, :2] - half, boxes[:, :2] + half), dim=1).clamp(1e-5, 1)


class MultiBoxLoss:
    """The losses of a batch of clips, as {name: scalar}, each multiplied by its weight.

    `BIoU` (or `B`, smooth L1, with `box_iou_loss` off) boxes, `C` classes, `center` centerness, `M` masks, `T`
    embeddings, of all frames; with temporal fusion `B_shift` and `M_shift`: the boxes and masks that the temporal net
    predicts for a frame from the frame before it in its clip, left out if both have weight 0.
    """

    def __init__(
        self,
        box_iou_loss: bool = True,
        contrastive: bool = False,
        weights_by_position: bool = True,
        crop_with_predicted_box: bool = True,
        patch_size: int = 11,
        detach_features: bool = False,
        gather: Callable[[Tensor], Tensor] = alone,
        weights: LossWeights | None = None,
    ):
        """With `contrastive` T is `contrastive_track_loss` instead of `track_loss`.

        With `detach_features` the shift losses train the temporal net alone, not the features it reads.

        `gather` returns the rows of all processes for this process's rows, in the order in which they share a batch's
        clips, so that a loss over the whole batch uses the batch of all processes. The mean of the processes' losses,
        and of their gradients, is that of one process with all the clips (see `utils.distributed.World.gather`).

        `weights` are the published ones by default."""
        self.weights = weights or LossWeights()
        self.box_iou_loss = box_iou_loss
        self.contrastive = contrastive
        self.weights_by_position = weights_by_position
        self.crop_with_predicted_box = crop_with_predicted_box
        self.patch_size = patch_size
        self.detach_features = detach_features
        self.gather = gather

    @classmethod
    def from_config(cls, config, gather: Callable[[Tensor], Tensor] = alone) -> "MultiBoxLoss":
        """The losses of a config, set up by its keys of the recipe, the quirks and the temporal fusion.

        Raises:
            InputError: the network lacks outputs that the losses need.
        """
        if not config.head.centerness or not config.head.embedding_dim:
            raise InputError(
                f"{config.name} has no centerness or no embeddings, which training needs; choose an STMask config"
            )
        return cls(
            box_iou_loss=config.train.box_iou_loss,
            contrastive=config.train.contrastive,
            weights_by_position=config.quirks.ohem_weights_by_position,
            crop_with_predicted_box=config.quirks.mask_bce_outside_crop,
            patch_size=config.temporal_fusion.patch_size,
            detach_features=config.temporal_fusion.detach_features,
            gather=gather,
            weights=config.train.loss_weights,
        )

    def __call__(
        self,
        model: nn.Module,
        predictions: Predictions,
        targets: ClipTargets | Sequence[Sequence[FrameTargets]],
        known: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The losses of B clips of T ≥ 2 frames; `known` [B,C+1] as in `ClipBatch`."""
        targets = ClipTargets.pack(targets)
        num_images = len(predictions.class_logits)
        matched = match(predictions.anchors, predictions.class_logits.detach(), targets)
        positives = find_positives(predictions, targets, matched)
        losses = self._box_losses(predictions, positives, num_images)
        class_total = self._class_loss(predictions, positives, matched.labels, targets, known)
        losses["C"] = self.weights.classes * class_total / num_images
        losses["M"] = self.weights.masks * self._mask_loss(predictions, positives, targets.truth) / num_images
        embeddings = predictions.embeddings[positives.image, positives.anchor].float()
        compared = map(self.gather, (embeddings, positives.instance_ids, positives.weights))
        if self.contrastive:
            total = contrastive_track_loss(*compared, compact=_compaction(targets))
            losses["T"] = self.weights.track_contrastive * total
        else:
            losses["T"] = self.weights.track_pairs * track_loss(*compared)
        if hasattr(model, "TemporalNet") and (self.weights.shifted_boxes or self.weights.shifted_masks):
            losses |= self._shift_losses(model.TemporalNet, predictions, positives, targets)
        return losses

    def _box_losses(self, predictions: Predictions, positives: Positives, num_images: int) -> dict[str, Tensor]:
        """BIoU or B, and center: sums over positives by weight, divided by the number of images."""
        centerness = predictions.centerness[positives.image, positives.anchor].float()
        distance_iou = 1 - distance_iou_loss(positives.boxes, positives.truth_boxes)
        if self.box_iou_loss:
            losses = {"BIoU": self.weights.box_iou * (positives.weights * (1 - distance_iou)).sum() / num_images}
        else:
            deltas = predictions.box_deltas[positives.image, positives.anchor].float()
            wanted = encode(positives.truth_boxes, predictions.anchors[positives.anchor])
            per_box = F.smooth_l1_loss(deltas, wanted, reduction="none").sum(dim=1)
            losses = {"B": self.weights.box_smooth_l1 * (positives.weights * per_box).sum() / num_images}
        per_box = F.smooth_l1_loss(centerness, distance_iou, reduction="none")
        losses["center"] = self.weights.centerness * (positives.weights * per_box).sum() / num_images
        return losses

    def _class_loss(
        self,
        predictions: Predictions,
        positives: Positives,
        labels: Tensor,
        targets: ClipTargets,
        known: Tensor | None,
    ) -> Tensor:
        """The class loss; processes share clips, so the images of a clip are gathered together."""

        def gather(images: Tensor) -> Tensor:
            return self.gather(images.unflatten(0, (len(targets), -1))).flatten(0, 1)

        logits = hide_unlabelled(predictions.class_logits, labels, known_of_images(known, len(labels)))
        return class_loss(
            logits, labels, positives.weights, self.weights_by_position, gather, compact=_compaction(targets)
        )

    def _mask_loss(self, predictions: Predictions, positives: Positives, truth: FrameTargets) -> Tensor:
        """The sum over positives, by weight, of the mask loss in the box that crops the mask."""
        crops = grow_boxes(positives.boxes.detach()) if self.crop_with_predicted_box else positives.truth_boxes
        coeffs = predictions.mask_coeffs[positives.image, positives.anchor].float()
        per_mask = mask_losses(predictions.prototypes, coeffs, crops, positives.owners, truth.masks, positives.row)
        return (positives.weights * per_mask).sum() + predictions.prototypes.sum() * 0

    def _shift_losses(
        self, temporal_net: nn.Module, predictions: Predictions, positives: Positives, targets: ClipTargets
    ) -> dict[str, Tensor]:
        """B_shift and M_shift: means over a frame's positives whose instance is also in the next frame of its clip,
        averaged over all such pairs of frames."""
        num_pairs = len(targets) * (len(targets.counts[0]) - 1)
        box_total = mask_total = predictions.prototypes.sum() * 0
        shown = find_shown_again(positives, targets)
        if len(shown.which):
            truth, which = targets.truth, shown.which
            features = predictions.fusion_features
            if self.detach_features:
                features = FusionFeatures(features.pyramid.detach(), features.shared.detach())
            of_earlier = partial(of_frames, num_clips=len(targets), frames=slice(-1))
            of_later = partial(of_frames, num_clips=len(targets), frames=slice(1, None))
            fused = fuse(map_tensors(features, of_earlier), map_tensors(features, of_later), self.patch_size)
            deltas, changes = temporal_net(fused, positives.boxes[which].detach(), shown.pair)
            boxes = truth.boxes[shown.partner]
            wanted = encode(boxes, to_cxcywh(positives.truth_boxes[which]))
            per_box = F.smooth_l1_loss(deltas.float(), wanted, reduction="none").sum(dim=1)
            box_total = (shown.weights * per_box).sum()
            coeffs = predictions.mask_coeffs[positives.image[which], positives.anchor[which]].detach().float()
            prototypes = of_later(predictions.prototypes).detach()
            per_mask = mask_losses(
                prototypes, coeffs + changes.float(), boxes, shown.owners, truth.masks, shown.partner
            )
            mask_total = (shown.weights * per_mask).sum()
        return {
            "B_shift": self.weights.shifted_boxes * box_total / num_pairs,
            "M_shift": self.weights.shifted_masks * mask_total / num_pairs,
        }


@dataclass(frozen=True)
class ShownAgain:
    """N positives whose instance is also in the next frame of their clip: `which` [N] of the positives, `pair` [N] of
    neighbouring frames, `partner` [N], the instance's row of truth in the next frame, `owners` by pair, `weights` [N]
    1/(their number in the pair). Rows with weight 0 are none; they follow the others."""

    which: Tensor
    pair: Tensor
    partner: Tensor
    owners: Owners
    weights: Tensor


def find_shown_again(positives: Positives, targets: ClipTargets) -> ShownAgain:
    """The positives whose instance is also in the next frame; N = 0 is fine. If the targets' candidates are counted, N
    is their number in frames that have a next one."""
    clip_frames = len(targets.counts[0])
    is_earlier = (positives.image % clip_frames < clip_frames - 1) & (positives.weights > 0)
    in_next = targets.image == positives.image[:, None] + 1
    same = (positives.instance_ids[:, None] == targets.truth.instance_ids) & in_next & is_earlier[:, None]  # [P,M]
    compact, most = drop_rows, None
    if targets.candidates is not None:
        of_earlier = targets.candidates_of_frames()[:, :-1]
        compact, most = partial(order_rows, size=int(of_earlier.sum())), int(of_earlier.max())
    which, are_real = compact(same.any(dim=1))
    pair = positives.image[which] - positives.image[which] // clip_frames
    counts = torch.zeros(len(targets) * (clip_frames - 1), dtype=torch.int64, device=pair.device)
    counts = counts.index_add(0, pair, are_real.long())
    rows = torch.arange(same.shape[1], device=pair.device)
    return ShownAgain(
        which=which,
        pair=pair,
        partner=torch.where(same[which], rows, 0).sum(dim=1),
        owners=Owners.of(counts, pair, are_real, most),
        weights=torch.where(are_real, 1 / counts[pair].float(), 0),
    )


def _compaction(targets: ClipTargets) -> Compaction:
    """How rows are chosen that need not stand for anchors which learn an instance; see `compaction_of`."""
    return drop_rows if targets.candidates is None else order_rows
