"""The losses, one by one; tests/tools/test_parity.py compares a whole training step."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from data.config import get_config
from layers import losses as losses_module
from layers.anchor_targets import count_candidates, hide_unlabelled
from layers.losses import (
    MultiBoxLoss,
    Owners,
    class_loss,
    contrastive_track_loss,
    grow_boxes,
    mask_loss,
    mask_losses,
    semantic_loss,
    track_loss,
)
from layers.mask_utils import assemble_masks
from stmask import STMask
from tools.parity import load_for_training, training_batch
from utils.loss_weights import LossWeights
from utils.structures import ClipTargets, FrameTargets, map_tensors


@pytest.fixture(scope="module")
def recorded(request):
    folder = request.path.parent.parent / "fixtures" / "reference" / "unit"
    return {key: torch.as_tensor(value) for key, value in np.load(folder / "losses.npz").items()}


def weights_of(labels):
    positive = labels > 0
    return (positive / positive.sum(dim=1, keepdim=True))[positive]


def test_recorded_class_loss_and_its_gradient(recorded):
    logits = recorded["conf"].clone().requires_grad_()
    loss = 6.125 * class_loss(logits, recorded["conf_t"], weights_of(recorded["conf_t"]), weights_by_position=True)
    torch.testing.assert_close(loss, recorded["C"], rtol=1e-5, atol=0)
    loss.backward()
    torch.testing.assert_close(logits.grad, recorded["grad_conf"], rtol=1e-4, atol=1e-6)


def test_recorded_track_loss_and_its_gradient(recorded):
    positive = recorded["conf_t"] > 0
    track = recorded["track"].clone().requires_grad_()
    loss = 5 * track_loss(track[positive], recorded["ids_t"][positive], weights_of(recorded["conf_t"]))
    torch.testing.assert_close(loss, recorded["T"], rtol=1e-5, atol=0)
    loss.backward()
    torch.testing.assert_close(track.grad, recorded["grad_track"], rtol=1e-4, atol=1e-6)


def test_quirk_ohem_weights_lie_by_position():
    # A hard negative first, the positive second: by position the positive's weight 1 falls on the negative.
    logits = torch.tensor([[[0.0, 1.0], [2.0, 0.0]]])
    labels = torch.tensor([[0, 1]])
    negative, positive = torch.nn.functional.cross_entropy(logits[0], labels[0], reduction="none").tolist()
    one = torch.ones(1)
    right = class_loss(logits, labels, one, weights_by_position=False)
    published = class_loss(logits, labels, one, weights_by_position=True)
    assert right.item() == pytest.approx((1 * positive + 3 * negative) / 4)
    assert published.item() == pytest.approx((1 * negative + 3 * positive) / 4)


def test_neutral_anchors_and_easy_negatives_cost_nothing():
    logits = torch.zeros(1, 6, 3)
    logits[0, 1, 0] = 9.0  # an easy negative; of four background anchors the three hardest count
    logits[0, 5, 1] = 9.0  # neutral
    labels = torch.tensor([[1, 0, 0, 0, 0, -1]])
    loss = class_loss(logits, labels, torch.ones(1), weights_by_position=False)
    assert loss.item() == pytest.approx((np.log(3) + 3 * np.log(3)) / 4)


def test_a_class_that_a_set_does_not_label_is_not_background_there():
    """Anchors: an object of class 1, then background that looks like class 2. The second image's set lacks class 2."""
    logits = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 4.0]]]).repeat(2, 1, 1).requires_grad_()
    labels = torch.tensor([[1, 0], [1, 0]])
    known = torch.tensor([[True, True, True], [True, True, False]])
    loss = class_loss(hide_unlabelled(logits, labels, known), labels, torch.ones(2), weights_by_position=False)
    object_cost = math.log(2 + math.e) - 1  # other labelled or unlabelled classes are what the object is not
    negatives = math.log(2 + math.exp(4)), math.log(2)
    assert loss.item() == pytest.approx((2 * object_cost + (3 * 2 / 2) * sum(negatives)) / 4)
    loss.backward()
    assert logits.grad[0, 1, 2] > 0.7 and logits.grad[1, 1, 2] == 0
    assert logits.grad[1, 0, 2] > 0


def test_what_may_be_an_unlabelled_object_is_no_hard_negative():
    logits = torch.zeros(1, 5, 3)
    logits[0, 4, 2] = 9.0  # the hardest of four background anchors, unless class 2 is unknown
    logits[0, 1, 1] = 1.0
    labels = torch.tensor([[1, 0, 0, 0, 0]])
    known = torch.tensor([[True, True, False]])
    loss = class_loss(hide_unlabelled(logits, labels, known), labels, torch.ones(1), weights_by_position=False)
    assert loss.item() == pytest.approx((math.log(3) + math.log(1 + math.e) + 2 * math.log(2)) / 4)


def test_classes_that_are_all_labelled_change_no_bit():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 30, 4), torch.randint(-1, 4, (2, 30))
    weights, known = torch.ones(int((labels > 0).sum())), torch.ones(2, 4, dtype=torch.bool)
    shown = hide_unlabelled(logits, labels, known)
    assert class_loss(logits, labels, weights, True) == class_loss(shown, labels, weights, True)


def test_no_positive_costs_nothing():
    assert class_loss(torch.zeros(1, 4, 3), torch.zeros(1, 4, dtype=torch.int64), torch.zeros(0), True) == 0
    assert track_loss(torch.zeros(0, 8), torch.zeros(0), torch.zeros(0)) == 0
    assert track_loss(torch.ones(1, 1), torch.ones(1), torch.ones(1)) == 0
    assert contrastive_track_loss(torch.zeros(0, 8), torch.zeros(0), torch.zeros(0)) == 0
    for ids in ([1], [1, 2]):  # no object has a partner
        embeddings = torch.eye(2)[: len(ids)].requires_grad_()
        loss = contrastive_track_loss(embeddings, torch.tensor(ids), torch.ones(len(ids)))
        assert loss == 0
        loss.backward()
        assert (embeddings.grad == 0).all()


def test_track_loss_by_hand():
    embeddings = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # cos 0, so the similarity is a half
    for ids in ([1, 1], [1, 2]):
        loss = track_loss(embeddings, torch.tensor(ids), torch.tensor([0.5, 0.5]))
        assert loss.item() == pytest.approx(np.log(2))


def test_contrastive_track_loss_by_hand():
    angles = [0.0, 0.1, 0.3, 2.0]
    embeddings = torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles], dtype=torch.float64)
    ids, weights = [5, 5, 7, 5], [0.5, 0.25, 0.25, 1.0]
    total = mass = 0.0
    for i in range(4):
        shares = [weights[j] * math.exp(math.cos(angles[i] - angles[j]) / 0.1) * (i != j) for j in range(4)]
        partners = [j for j in range(4) if j != i and ids[j] == ids[i]]
        if partners:
            costs = [-weights[j] * math.log(shares[j] / sum(shares)) for j in partners]
            total += weights[i] * sum(costs) / sum(weights[j] for j in partners)
            mass += weights[i]
    loss = contrastive_track_loss(embeddings, torch.tensor(ids), torch.tensor(weights, dtype=torch.float64))
    assert loss.item() == pytest.approx(total / mass, rel=1e-9)


def test_contrastive_embeddings_fall_apart_by_instance():
    torch.manual_seed(0)
    raw = torch.randn(8, 4).requires_grad_()
    ids = torch.arange(8) % 3
    optimizer = torch.optim.Adam([raw], 0.05)
    for _ in range(200):
        loss = contrastive_track_loss(F.normalize(raw), ids, torch.ones(8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    cosines = F.normalize(raw.detach()) @ F.normalize(raw.detach()).t()
    same = ids[:, None] == ids
    assert cosines[same].min() > cosines[~same].max() + 0.5


def test_the_config_chooses_the_track_loss():
    config = get_config("STMask_demo_config", {"train.contrastive": True, "input.size_hw": (64, 96)})
    torch.manual_seed(0)
    model = STMask.from_config(config).train()
    frames, truth = torch.randn(1, 2, 3, 64, 96), frame_with([1, 2], torch.ones(2, 64, 96))
    clip = [truth, truth]
    predictions = model(frames)
    losses = {
        contrastive: MultiBoxLoss(contrastive=contrastive)(model, predictions, [clip])["T"].item()
        for contrastive in (False, True)
    }
    assert MultiBoxLoss.from_config(config)(model, predictions, [clip])["T"].item() == losses[True] != losses[False]


def test_the_config_weighs_the_losses():
    names = {  # key → name in the log
        "box_iou": "BIoU",
        "classes": "C",
        "centerness": "center",
        "masks": "M",
        "track_pairs": "T",
        "shifted_boxes": "B_shift",
        "shifted_masks": "M_shift",
    }
    overrides = {f"train.loss_weights.{key}": number for number, key in enumerate(names)}
    config = get_config("STMask_demo_config", overrides)
    torch.manual_seed(0)
    model = STMask.from_config(config).train()
    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.7], [0.3, 0.2, 0.9, 0.8]])
    truth = FrameTargets(boxes, torch.tensor([1, 2]), torch.ones(2, 64, 96), torch.tensor([1, 2]))
    with torch.no_grad():
        predictions = model(torch.randn(1, 2, 3, 64, 96))
        losses = MultiBoxLoss.from_config(config)(model, predictions, [[truth, truth]])
        usual = get_config("STMask_demo_config")
        published = MultiBoxLoss.from_config(usual)(model, predictions, [[truth, truth]])
    for number, (key, name) in enumerate(names.items()):
        expected = published[name].item() * number / getattr(LossWeights(), key)
        assert losses[name].item() == pytest.approx(expected), name


def test_mask_loss_by_hand():
    truth = torch.ones(1, 2, 2)
    half, one = torch.full((1, 2, 2), 0.5), torch.tensor([0])
    whole, quarter = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[0.0, 0, 0.1, 0.1]])
    assert mask_loss(half, truth, one, whole).item() == pytest.approx(np.log(2))  # four pixels in a box of four
    assert mask_loss(half, truth, one, quarter).item() == pytest.approx(
        4 * np.log(2)
    )  # sides count as a pixel at least
    assert mask_loss(torch.zeros(1, 2, 2), truth, one, whole).item() == pytest.approx(100)  # BCE's cap a pixel
    assert mask_loss(torch.zeros(0, 2, 2), truth, one[:0], whole[:0]).shape == (0,)


def whole_mask_loss(masks, truth, rows, boxes):
    """`mask_loss` over all pixels, directly from its definition."""
    truth = truth[rows]
    size = truth.shape[-2:]
    resized = F.interpolate(masks[:, None], size, mode="bilinear", align_corners=False)[:, 0].clamp(0, 1)
    pixels = F.binary_cross_entropy(resized, truth.to(masks.dtype), reduction="none").sum(dim=(1, 2))
    return pixels / ((boxes[:, 2:] - boxes[:, :2]) * boxes.new_tensor(size[::-1])).clamp(min=1).prod(dim=1)


@pytest.mark.parametrize("largest", [0.2, 0.5, 2.0])
def test_mask_loss_leaves_no_pixel_out(largest):
    generator = torch.Generator().manual_seed(int(10 * largest))
    centers = torch.rand(40, 2, generator=generator)
    half = torch.rand(40, 2, generator=generator) * largest / 2
    boxes = torch.cat((centers - half, centers + half), dim=1).clamp(0, 1)
    prototypes = torch.randn(12, 20, 4, generator=generator)
    coeffs = torch.randn(40, 4, generator=generator)
    truth = torch.rand(30, 48, 80, generator=generator) > 0.7
    rows = torch.randint(30, (40,), generator=generator)
    crops = torch.cat((boxes[:-1], torch.tensor([[0.5, 0.5, 0.5, 0.5]]) + 5))  # the last crop holds nothing
    leaves = [t.clone().requires_grad_() for t in (prototypes, coeffs) for _ in range(2)]
    ours, whole = (
        loss(assemble_masks(leaves[i], leaves[2 + i], crops), truth, rows, boxes)
        for i, loss in enumerate((mask_loss, whole_mask_loss))
    )
    torch.testing.assert_close(ours, whole, rtol=1e-5, atol=0)
    (ours.sum() + whole.sum()).backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(leaves[2].grad, leaves[3].grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("most", [1, 5, 9, 1000])  # masks at a time
def test_masks_of_many_images_are_compared_a_few_images_at_a_time(monkeypatch, most):
    monkeypatch.setattr(losses_module, "MASK_PIXELS", most * 12 * 20)
    generator = torch.Generator().manual_seed(0)
    counts = [3, 0, 4, 5, 0]
    prototypes = torch.randn(5, 12, 20, 4, generator=generator)
    coeffs = torch.randn(12, 4, generator=generator)
    low = torch.rand(12, 2, generator=generator) / 2
    boxes = torch.cat((low, low + 0.1 + torch.rand(12, 2, generator=generator) / 2), dim=1)
    truth = torch.rand(7, 24, 40, generator=generator) > 0.5
    rows = torch.randint(7, (12,), generator=generator)
    image = torch.repeat_interleave(torch.arange(5), torch.tensor(counts))
    owners = Owners(torch.tensor(counts))
    ours = mask_losses(prototypes, coeffs, boxes, owners, truth, rows)
    expected = [
        mask_loss(assemble_masks(image, *part[:2]), truth, part[2], part[1])
        for image, *part in zip(prototypes, *(x.split(counts) for x in (coeffs, boxes, rows)), strict=True)
    ]
    torch.testing.assert_close(ours, torch.cat(expected), rtol=1e-5, atol=0)
    owners = Owners.of(torch.tensor(counts), image, torch.ones(12, dtype=torch.bool), most=6)
    torch.testing.assert_close(mask_losses(prototypes, coeffs, boxes, owners, truth, rows), ours, rtol=1e-5, atol=0)


def test_mask_loss_wants_masks_that_divide_the_truth():
    with pytest.raises(ValueError, match="whole number of times"):
        mask_loss(torch.zeros(1, 3, 3), torch.ones(1, 8, 8), torch.tensor([0]), torch.zeros(1, 4))


def test_grown_boxes():
    boxes = torch.tensor([[0.4, 0.4, 0.6, 0.8], [-0.5, 0.0, 0.5, 1.0]])
    expected = torch.tensor([[0.38, 0.36, 0.62, 0.84], [1e-5, 1e-5, 0.6, 1.0]])
    torch.testing.assert_close(grow_boxes(boxes), expected)


@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        ("smooth_l1_box", {"train.box_iou_loss": False}),
        ("crop_with_gt_box", {"quirks.mask_bce_outside_crop": False}),
        ("no_temporal_fusion", {"temporal_fusion.enabled": False}),
    ],
)
def test_recorded_variants(reference, variant, settings):
    name = "STMask_plus_resnet50"
    expected = json.loads((reference / name / "loss_variants.json").read_text())[variant]["losses"]
    config = get_config(f"{name}_config", settings)
    model = load_for_training(name)
    if not config.temporal_fusion.enabled:
        del model.TemporalNet
    frames, targets = training_batch()
    with torch.no_grad():
        losses = MultiBoxLoss.from_config(config)(model, model(frames), targets)
    assert {key: pytest.approx(value, rel=1e-4) for key, value in expected.items()} == {
        key: loss.item() for key, loss in losses.items()
    }


def test_a_batch_without_instances_trains_nothing_and_stops_nothing():
    torch.manual_seed(0)
    model = STMask.from_config(get_config("STMask_demo_config")).train()
    empty = FrameTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 64, 96), torch.zeros(0))
    predictions = model(torch.randn(1, 2, 3, 64, 96))
    losses = MultiBoxLoss.from_config(model.config)(model, predictions, [[empty, empty]])
    assert set(losses) == {"BIoU", "C", "center", "M", "T", "B_shift", "M_shift"}
    assert all(loss.item() == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_the_temporal_net_does_not_run_if_its_losses_weigh_nothing():
    config = get_config(
        "STMask_demo_config", {f"train.loss_weights.{key}": 0 for key in ("shifted_boxes", "shifted_masks")}
    )
    torch.manual_seed(0)
    model = STMask.from_config(config).train()
    model.TemporalNet.forward = None
    truth = FrameTargets(
        torch.tensor([[0.2, 0.2, 0.6, 0.8]]), torch.tensor([1]), torch.ones(1, 64, 96), torch.tensor([7])
    )
    losses = MultiBoxLoss.from_config(config)(model, model(torch.randn(1, 2, 3, 64, 96)), [[truth, truth]])
    assert set(losses) == {"BIoU", "C", "center", "M", "T"}


@pytest.mark.parametrize("detached", [False, True])
def test_shift_losses_train_the_features_unless_they_are_detached(detached):
    torch.manual_seed(0)
    config = get_config("STMask_demo_config", {"temporal_fusion.detach_features": detached})
    model = STMask.from_config(config).train()
    box = torch.tensor([[0.2, 0.2, 0.6, 0.8]])
    mask = torch.zeros(1, 64, 96)
    mask[:, 13:51, 19:57] = 1
    truth = FrameTargets(box, torch.tensor([1]), mask, torch.tensor([7]))
    losses = MultiBoxLoss.from_config(config)(model, model(torch.randn(1, 2, 3, 64, 96)), [[truth, truth]])
    assert losses["B_shift"] > 0 and losses["M_shift"] > 0
    (losses["B_shift"] + losses["M_shift"]).backward()
    assert model.TemporalNet.conv1.weight.grad.abs().sum() > 0
    reached = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.backbone.parameters()]
    assert not any(reached) if detached else any(reached)


def object_at(left, instance_id, label=1):
    """A frame of 64×96 pixels that shows one object."""
    mask = torch.zeros(1, 64, 96)
    mask[:, 13:51, int(96 * left) : int(96 * left) + 38] = 1
    box = torch.tensor([[left, 0.2, left + 0.4, 0.8]])
    return FrameTargets(box, torch.tensor([label]), mask, torch.tensor([instance_id]))


@pytest.fixture(scope="module")
def of_six_frames():
    """(a network, its predictions for six frames, of two clips of three, and their truth)."""
    torch.manual_seed(0)
    model = STMask.from_config(get_config("STMask_demo_config")).eval()
    clips = [[object_at(0.1, 7), object_at(0.2, 7), object_at(0.4, 7)]]
    clips += [[object_at(0.5, 8, 2), object_at(0.3, 8, 2), object_at(0.3, 9, 3)]]  # another object in the last frame
    with torch.no_grad():
        return model, model(torch.randn(2, 3, 3, 64, 96)), clips


def of_images(predictions, images):
    selected = map_tensors(replace(predictions, anchors=None), lambda tensor: tensor[list(images)])
    return replace(selected, anchors=predictions.anchors)


def test_the_shift_losses_take_the_neighbouring_frames_of_longer_clips(of_six_frames):
    model, predictions, clips = of_six_frames
    criterion = MultiBoxLoss()
    losses = criterion(model, predictions, clips)
    pairs = [(0, 1), (1, 2), (3, 4), (4, 5)]
    frames = [frame for clip in clips for frame in clip]
    by_pair = [criterion(model, of_images(predictions, pair), [[frames[i] for i in pair]]) for pair in pairs]
    for name in ("B_shift", "M_shift"):
        values = torch.stack([of_pair[name] for of_pair in by_pair])
        assert (values > 0).tolist() == [True, True, True, False]  # the last pair shows no object twice
        torch.testing.assert_close(losses[name], values.mean(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("contrastive", [False, True])
def test_all_other_losses_run_over_all_frames_whatever_their_clips(of_six_frames, contrastive):
    _, predictions, clips = of_six_frames
    criterion = MultiBoxLoss(contrastive=contrastive)
    losses, alone = (
        criterion(nn.Identity(), predictions, parts) for parts in (clips, [[frame] for clip in clips for frame in clip])
    )
    assert set(losses) == {"BIoU", "C", "center", "M", "T"} and all(loss > 0 for loss in losses.values())
    assert losses == alone
    predictions = replace(predictions, embeddings=predictions.embeddings.clone().requires_grad_())
    criterion(nn.Identity(), predictions, clips)["T"].backward()
    assert (predictions.embeddings.grad.flatten(1).abs().sum(dim=1) > 0).all()  # an object is compared in all frames


def frame_with(labels, masks):
    count = len(labels)
    return FrameTargets(torch.zeros(count, 4), torch.tensor(labels, dtype=torch.int64), masks, torch.arange(count))


def test_the_semantic_loss_weighs_objects_as_much_as_ground():
    masks = torch.zeros(1, 8, 16, dtype=torch.uint8)
    masks[0, :4, :4] = 1  # the first of 2×4 cells, of 4×4 pixels each
    logits = torch.zeros(2, 3, 2, 4)
    logits[:, 2, 0, 0] = 5.0  # class 2 in the first cell of both images; in the second there is nothing
    loss = semantic_loss(logits, ClipTargets.pack([[frame_with([2], masks), frame_with([], masks[:0])]]))
    sure, unsure = torch.tensor([[0.0, 0, 5]]), torch.zeros(1, 3)
    seen = torch.nn.functional.cross_entropy(sure, torch.tensor([2])).item()
    missed = torch.nn.functional.cross_entropy(sure, torch.tensor([0])).item()
    even = torch.nn.functional.cross_entropy(unsure, torch.tensor([0])).item()
    assert loss.item() == pytest.approx(((seen + even) + (missed + 7 * even) / 8) / 2)


def test_the_semantic_loss_of_ground_leaves_out_classes_that_are_not_labelled():
    masks = torch.zeros(1, 4, 8, dtype=torch.uint8)
    masks[0, :4, :4] = 1  # the first of two cells
    logits = torch.zeros(1, 3, 1, 2)
    logits[0, 2, 0, 1] = 5.0
    loss = semantic_loss(logits, ClipTargets.pack([[frame_with([1], masks)]]), torch.tensor([[True, True, False]]))
    assert loss.item() == pytest.approx(math.log(3) + math.log(2))


def test_the_semantic_loss_looks_at_the_middle_of_a_cell():
    masks = torch.ones(1, 8, 16, dtype=torch.uint8)
    masks[0, 2::4, 2::4] = 0  # the middles alone are ground
    targets = ClipTargets.pack([[frame_with([1], masks)]])
    assert semantic_loss(torch.tensor([9.0, 0]).view(1, 2, 1, 1).expand(1, 2, 2, 4), targets) < 1e-3


def some_clips(num_objects):
    """Clips of frames with the given numbers of objects, 64×96; an object of a clip is in all frames that have it."""
    generator = torch.Generator().manual_seed(0)

    def frame(clip, count):
        low = torch.rand(count, 2, generator=generator) * 0.5
        boxes = torch.cat((low, low + 0.1 + torch.rand(count, 2, generator=generator) * 0.4), dim=1)
        masks = torch.rand(count, 64, 96, generator=generator) > 0.5
        labels = torch.randint(1, 9, (count,), generator=generator)
        return FrameTargets(boxes, labels, masks.byte(), 10 * clip + torch.arange(count))

    return tuple(tuple(frame(clip, count) for count in counts) for clip, counts in enumerate(num_objects))


@pytest.mark.parametrize(
    ("num_objects", "settings"),
    [
        (((3, 2), (0, 4), (5, 0)), {}),
        (((2, 2, 3), (1, 0, 4)), {"train.contrastive": True, "quirks.ohem_weights_by_position": False}),
        (((1, 1),), {"train.contrastive": True, "train.box_iou_loss": False, "quirks.mask_bce_outside_crop": False}),
        (((1, 0), (0, 0)), {"train.contrastive": True}),
        (((0, 0),), {}),
    ],
)
def test_counted_candidates_give_the_same_losses_and_gradients_in_more_rows(num_objects, settings):
    torch.manual_seed(0)
    model = STMask.from_config(get_config("STMask_demo_config", settings)).train()
    frames = torch.randn(len(num_objects), len(num_objects[0]), 3, 64, 96)
    with torch.no_grad():
        predictions = model(frames)
    leaves = {
        name: getattr(predictions, name).requires_grad_()
        for name in ("box_deltas", "class_logits", "centerness", "mask_coeffs", "embeddings", "prototypes")
    }
    targets = ClipTargets.pack(some_clips(num_objects))
    counted = replace(targets, candidates=count_candidates(predictions.anchors, targets))
    results = []
    for each in (targets, counted):
        losses = MultiBoxLoss.from_config(model.config)(model, predictions, each)
        read = [*leaves.values(), *model.TemporalNet.parameters()]
        gradients = torch.autograd.grad(sum(losses.values()), read, allow_unused=True, materialize_grads=True)
        results.append((losses, gradients))
    (losses, gradients), (losses_of_counted, gradients_of_counted) = results
    for name, loss in losses.items():
        torch.testing.assert_close(losses_of_counted[name], loss, rtol=1e-5, atol=1e-6)
    for ours, expected in zip(gradients_of_counted, gradients, strict=True):
        assert (ours - expected).norm() <= 1e-5 * expected.norm()
