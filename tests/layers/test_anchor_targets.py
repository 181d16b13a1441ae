"""Which ground truth each anchor learns."""

import numpy as np
import pytest
import torch

from layers.anchor_targets import BACKGROUND, NEUTRAL, Match, count_candidates, hide_unlabelled, match
from utils.structures import ClipTargets, FrameTargets


def truth(boxes, labels):
    count = len(labels)
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(count, 4)
    return FrameTargets(
        boxes, torch.tensor(labels, dtype=torch.int64), torch.zeros(count, 4, 4), torch.arange(count) + 1
    )


def anchors(boxes):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    return torch.cat(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), dim=1)


def match_one(anchors_cxcywh, class_logits, frame):
    """`match` of one image."""
    matched = match(anchors_cxcywh, class_logits[None], ClipTargets.pack([[frame]]))
    return Match(matched.labels[0], matched.targets[0])


@pytest.mark.parametrize("classifier", ["conf", "conf_strong"])
def test_recorded_matches(reference, classifier):
    recorded = np.load(reference / "unit" / "match.npz")
    frame = FrameTargets(*(torch.as_tensor(recorded[key]) for key in ("gt_box", "label", "loc", "id")))
    logits = torch.as_tensor(recorded[classifier])
    ours = match_one(torch.as_tensor(recorded["prior"]), logits, frame)
    suffix = classifier.removeprefix("conf")
    assert np.array_equal(ours.labels, recorded[f"conf_t{suffix}"])
    assert np.array_equal(ours.targets, recorded[f"idx_t{suffix}"])
    instance = torch.where(ours.labels > 0, frame.instance_ids[ours.targets], 0)
    assert np.array_equal(instance, recorded[f"ids_t{suffix}"])


def test_no_truth_is_all_background():
    ours = match_one(anchors([[0, 0, 1, 1], [0, 0, 0.5, 0.5]]), torch.zeros(2, 4), truth([], []))
    assert ours.labels.tolist() == [BACKGROUND, BACKGROUND]


def test_limits_by_hand():
    # One object 0…1 × 0…1; anchors of IoU 1, 0.6, 0.45 (between the limits), 0.3. All logits are equal: every good
    # anchor gains the same q, the limits rise by q, and only their own IoU decides.
    boxes = [[0, 0, 1, 1], [0, 0, 1, 0.6], [0, 0, 1, 0.45], [0, 0, 1, 0.3]]
    ours = match_one(anchors(boxes), torch.zeros(4, 5), truth([[0, 0, 1, 1]], [3]))
    q = 2 / (1 + 5)  # CE = log 5
    assert 0.4 + q > 0.45  # so the third anchor, which gains nothing, is below the raised limit
    assert ours.labels.tolist() == [3, 3, BACKGROUND, BACKGROUND]


def test_an_anchor_that_classifies_worse_than_the_mean_drops_out():
    boxes = [[0, 0, 1, 1], [0, 0, 1, 0.55], [0, 0, 1, 0.6]]
    logits = torch.zeros(3, 3)
    logits[:, 2] = torch.tensor([5.0, -5.0, 5.0])  # the second is confident that it is not class 2
    ours = match_one(anchors(boxes), logits, truth([[0, 0, 1, 1]], [2]))
    assert ours.labels.tolist() == [2, NEUTRAL, 2] or ours.labels.tolist() == [2, BACKGROUND, 2]


def test_an_anchor_between_two_instances_is_neutral_unless_it_is_one_s_best():
    both = [[0, 0, 1, 0.6], [0, 0.1, 1, 0.7]]
    between = [0, 0.05, 1, 0.65]
    ours = match_one(anchors([both[0], both[1], between]), torch.zeros(3, 3), truth(both, [1, 2]))
    assert ours.labels.tolist()[:2] == [1, 2]
    assert ours.labels[2] != 1 and ours.labels[2] != 2


def test_every_instance_keeps_its_best_anchor_and_the_best_pair_chooses_first():
    # Both objects fit anchor 0 best; the second fits it better, so the first gets anchor 1, whatever its IoU.
    objects = [[0, 0, 1, 0.5], [0, 0, 1, 0.4]]
    ours = match_one(anchors([[0, 0, 1, 0.4], [0, 0.4, 1, 0.9]]), torch.zeros(2, 3), truth(objects, [1, 2]))
    assert ours.labels.tolist() == [2, 1]
    assert ours.targets.tolist() == [1, 0]


def test_images_are_matched_each_by_itself():
    generator = torch.Generator().manual_seed(0)

    def some_boxes(count):
        corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values
        return torch.cat((corners[:, 0], corners[:, 1] + 0.05), dim=1)

    places = anchors(some_boxes(300).tolist())
    truths = []
    for count in (3, 0, 6, 1):
        labels = torch.randint(1, 4, (count,), generator=generator)
        truths.append(truth(some_boxes(count).tolist(), labels.tolist()))
    logits = 3 * torch.randn(4, 300, 4, generator=generator)
    packed = ClipTargets.pack([truths])
    together = match(places, logits, packed)
    of_frames = [count_candidates(places, ClipTargets.pack([[frame]])) for frame in truths]
    assert count_candidates(places, packed).tolist() == np.concatenate(of_frames).tolist()
    for index, frame in enumerate(truths):
        single = match_one(places, logits[index], frame)
        positive = single.labels > 0
        assert torch.equal(together.labels[index], single.labels)
        assert torch.equal(together.targets[index][positive], single.targets[positive])
        assert len(single.targets[positive].unique()) == len(frame)  # every instance has an anchor
        candidates = of_frames[index]
        assert (single.targets[positive].bincount(minlength=len(frame)).numpy() <= candidates).all()
        assert candidates.sum() <= 3 * positive.sum() + len(frame)
    assert (together.labels == NEUTRAL).any()


@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
def test_background_has_no_logits_of_the_classes_that_its_image_does_not_label(shape):
    torch.manual_seed(0)
    logits, labels = torch.randn(2, *shape, 4), torch.randint(-1, 4, (2, *shape))
    known = torch.tensor([[True, True, False, True], [True, False, True, True]])
    found = hide_unlabelled(logits, labels, known)
    for image, missing in enumerate((2, 1)):
        expected = logits[image].clone()
        expected[..., missing] = torch.where(labels[image] == 0, float("-inf"), expected[..., missing])
        assert torch.equal(found[image], expected)
    assert hide_unlabelled(logits, labels, None) is logits
