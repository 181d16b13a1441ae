from dataclasses import replace

import numpy as np
import pytest
import torch

from layers.box_utils import to_cxcywh
from layers.compaction import drop_rows, order_rows
from layers.detection import Detector, fast_nms
from layers.mask_utils import assemble_masks
from utils.structures import FusionFeatures, Predictions

CROSS_CLASS = Detector(0.05, 0.5, top_k=200, cross_class_nms=True, score_threshold=None, max_detections=None)
PER_CLASS = Detector(0.05, 0.5, top_k=200, cross_class_nms=False, score_threshold=0.05, max_detections=100)


def make_predictions(probabilities, boxes, centerness=None, mask_coeffs=None, embeddings=None, prototypes=None):
    """Predictions for one image whose anchors are `boxes` [A,4]; `probabilities` [A,C+1] start with the background."""
    num = len(boxes)
    probabilities, boxes = torch.as_tensor(probabilities), torch.as_tensor(boxes)
    centerness = torch.ones(num) if centerness is None else torch.as_tensor(centerness)
    mask_coeffs = torch.arange(2.0 * num).view(num, 2) / 10 if mask_coeffs is None else mask_coeffs
    embeddings = torch.eye(num, 3) if embeddings is None else embeddings
    prototypes = torch.ones(4, 6, mask_coeffs.shape[1]) if prototypes is None else prototypes
    return Predictions(
        box_deltas=torch.zeros(1, num, 4),
        class_logits=probabilities.log()[None],
        centerness=centerness[None],
        mask_coeffs=mask_coeffs[None],
        embeddings=embeddings[None],
        prototypes=prototypes[None],
        anchors=to_cxcywh(boxes),
        fusion_features=FusionFeatures(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)),
    )


# ---------------------------------------------------------------------------------------------------- recorded


@pytest.fixture(scope="module")
def recorded(reference):
    return {name: torch.from_numpy(array) for name, array in np.load(reference / "unit" / "nms.npz").items()}


@pytest.fixture(scope="module")
def recorded_predictions(recorded):
    return make_predictions(
        recorded["conf_with_bg"],
        recorded["box"],
        recorded["centerness"],
        recorded["mask_coeff"],
        recorded["track"],
        recorded["proto"],
    )


@pytest.mark.parametrize(
    "case, detector",
    [
        ("cc_top200", CROSS_CLASS),
        ("cc_top10", replace(CROSS_CLASS, top_k=10)),
        ("pc_top200", PER_CLASS),
        ("pc_top10", replace(PER_CLASS, top_k=10)),
        ("detect_cc", CROSS_CLASS),
        # The published per-frame detector leaves the centerness out of per-class NMS.
        ("detect_pc", replace(PER_CLASS, use_centerness=False)),
    ],
)
def test_detections_are_the_recorded_ones(recorded, recorded_predictions, case, detector):
    found = detector(recorded_predictions)
    assert torch.equal(found.labels, recorded[f"{case}_class"])
    assert torch.equal(found.mask_coeffs, recorded[f"{case}_mask_coeff"])
    assert torch.equal(found.embeddings, recorded[f"{case}_track"])
    torch.testing.assert_close(found.boxes, recorded[f"{case}_box"], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.scores, recorded[f"{case}_score"], atol=1e-6, rtol=0)
    if f"{case}_centerness" in recorded:
        assert torch.equal(found.centerness, recorded[f"{case}_centerness"].flatten())
    masks = assemble_masks(recorded["proto"], found.mask_coeffs, found.boxes)
    assert torch.equal(found.masks, masks)


@pytest.mark.parametrize("detector", [CROSS_CLASS, PER_CLASS])
def test_an_image_of_a_batch_is_detected_as_if_alone(recorded_predictions, detector):
    torch.manual_seed(0)
    per_image = {name: value for name, value in vars(recorded_predictions).items() if torch.is_tensor(value)}
    del per_image["anchors"]
    batch = replace(
        recorded_predictions, **{name: torch.cat((torch.rand_like(value), value)) for name, value in per_image.items()}
    )
    alone, in_batch = detector(recorded_predictions), detector(batch, 1)
    assert all(torch.equal(getattr(alone, name), value) for name, value in vars(in_batch).items())
    assert not torch.equal(detector(batch, 0).scores, alone.scores)


# ---------------------------------------------------------------------------------------------------- fixed shapes


DETECTORS = [
    CROSS_CLASS,
    PER_CLASS,
    replace(CROSS_CLASS, top_k=10),
    replace(PER_CLASS, top_k=10, max_detections=7),
    replace(PER_CLASS, use_centerness=False),
    replace(CROSS_CLASS, score_threshold=0.05, double_tanh=True),
]


@pytest.mark.parametrize("detector", DETECTORS)
def test_detections_of_fixed_shapes_are_the_same(recorded_predictions, detector):
    compact, are_real = detector.detect(recorded_predictions, 0, drop_rows)
    assert are_real.all() and len(compact) > 3
    found, are_real = detector.detect(recorded_predictions, 0, order_rows)
    assert are_real.tolist() == [True] * len(compact) + [False] * (len(found) - len(compact))
    for name, value in vars(compact).items():
        torch.testing.assert_close(getattr(found, name)[are_real], value, atol=1e-6 if name == "masks" else 0, rtol=0)


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_number_of_rows_does_not_depend_on_what_is_found(recorded_predictions, detector):
    nothing = torch.zeros_like(recorded_predictions.class_logits)
    nothing[..., 0] = 20.0
    found, are_real = detector.detect(replace(recorded_predictions, class_logits=nothing), 0, order_rows)
    assert not are_real.any()
    assert len(found) == len(detector.detect(recorded_predictions, 0, order_rows)[0]) > 0


# ---------------------------------------------------------------------------------------------------- fast NMS


def spans(*pairs):
    """Boxes of full height from x1 to x2."""
    return torch.tensor([[x1, 0.0, x2, 1.0] for x1, x2 in pairs])


def test_a_dropped_box_still_suppresses():
    # IoU of neighbours 3/5; of the first and the third 1/3. The second is dropped and still takes the third with it.
    assert fast_nms(spans((0.0, 0.4), (0.1, 0.5), (0.2, 0.6)), 0.5).tolist() == [True, False, False]
    assert fast_nms(spans((0.0, 0.4), (0.2, 0.6)), 0.5).tolist() == [True, True]


def test_only_boxes_before_suppress_and_only_over_the_threshold():
    boxes = spans((0.0, 0.5), (0.0, 1.0), (2.0, 3.0))  # IoU exactly 0.5
    assert fast_nms(boxes, 0.5).tolist() == [True, True, True]
    assert fast_nms(boxes, 0.49).tolist() == [True, False, True]
    assert fast_nms(boxes.flip(0), 0.49).tolist() == [True, True, False]


def test_each_row_of_boxes_is_suppressed_by_itself():
    one, other = spans((0.0, 0.4), (0.1, 0.5), (0.2, 0.6)), spans((0.0, 0.4), (0.5, 0.9), (0.5, 0.9))
    assert fast_nms(torch.stack((one, other)), 0.5).tolist() == [[True, False, False], [True, True, False]]


def test_no_boxes_keep_none():
    assert fast_nms(torch.zeros(0, 4), 0.5).shape == (0,)
    assert fast_nms(torch.zeros(3, 0, 4), 0.5).shape == (3, 0)


# ---------------------------------------------------------------------------------------------------- by hand

APART = spans((0.0, 0.2), (0.3, 0.5), (0.6, 0.8))
SAME = spans((0.1, 0.4), (0.1, 0.4), (0.1, 0.4))


def test_score_is_the_best_probability_times_centerness():
    predictions = make_predictions([[0.1, 0.6, 0.3], [0.2, 0.1, 0.7], [0.5, 0.25, 0.25]], APART, [0.5, 0.9, 1.0])
    found = CROSS_CLASS(predictions)
    torch.testing.assert_close(found.scores, torch.tensor([0.63, 0.3, 0.25]))
    assert found.labels.tolist() == [2, 1, 1]
    torch.testing.assert_close(found.centerness, torch.tensor([0.9, 0.5, 1.0]))
    torch.testing.assert_close(found.boxes, APART[[1, 0, 2]])
    assert torch.equal(found.embeddings, torch.eye(3)[[1, 0, 2]])
    assert found.masks.shape == (3, 4, 6)


def test_without_centerness_the_score_is_the_probability():
    predictions = make_predictions([[0.1, 0.6, 0.3], [0.2, 0.1, 0.7], [0.5, 0.25, 0.25]], APART, [0.5, 0.9, 1.0])
    found = replace(CROSS_CLASS, use_centerness=False)(predictions)
    torch.testing.assert_close(found.scores, torch.tensor([0.7, 0.6, 0.25]))


def test_the_class_is_chosen_by_probability_even_where_the_centerness_is_negative():
    found = CROSS_CLASS(make_predictions([[0.1, 0.7, 0.2]], APART[:1], [-0.5]))
    assert found.labels.tolist() == [1]
    torch.testing.assert_close(found.scores, torch.tensor([-0.35]))


def test_candidates_are_over_the_threshold_by_foreground_alone():
    predictions = make_predictions([[0.96, 0.03, 0.01], [0.9, 0.06, 0.04], [0.9, 0.04, 0.06]], APART)
    found = CROSS_CLASS(predictions)
    assert found.labels.tolist() == [1, 2]
    torch.testing.assert_close(found.boxes, APART[1:])


def test_cross_class_nms_lets_one_of_a_place_live_and_per_class_one_of_each_class():
    probabilities = [[0.1, 0.8, 0.1], [0.1, 0.2, 0.7], [0.4, 0.5, 0.1]]
    predictions = make_predictions(probabilities, SAME)
    found = CROSS_CLASS(predictions)
    assert found.labels.tolist() == [1]
    torch.testing.assert_close(found.scores, torch.tensor([0.8]))
    found = PER_CLASS(predictions)
    assert found.labels.tolist() == [1, 2]
    torch.testing.assert_close(found.scores, torch.tensor([0.8, 0.7]))


def test_per_class_nms_reports_an_anchor_under_each_class_that_passes():
    found = PER_CLASS(make_predictions([[0.1, 0.5, 0.36, 0.04]], APART[:1]))
    assert found.labels.tolist() == [1, 2]
    torch.testing.assert_close(found.scores, torch.tensor([0.5, 0.36]))
    assert torch.equal(found.boxes[0], found.boxes[1])


def test_per_class_limits_are_over_all_classes_and_keep_the_best():
    predictions = make_predictions([[0.1, 0.5, 0.4], [0.1, 0.6, 0.3], [0.1, 0.2, 0.7]], APART)
    found = replace(PER_CLASS, max_detections=4)(predictions)
    torch.testing.assert_close(found.scores, torch.tensor([0.7, 0.6, 0.5, 0.4]))
    assert found.labels.tolist() == [2, 1, 1, 2]


def test_top_k_counts_before_suppression():
    # The best two lie on one place: only one is left, although a third would have passed.
    boxes = spans((0.1, 0.4), (0.1, 0.4), (0.6, 0.8))
    predictions = make_predictions([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]], boxes)
    assert len(CROSS_CLASS(predictions)) == 2
    assert len(replace(CROSS_CLASS, top_k=2)(predictions)) == 1


@pytest.mark.parametrize("detector", [CROSS_CLASS, PER_CLASS, replace(CROSS_CLASS, double_tanh=True)])
@pytest.mark.parametrize("num_anchors", [0, 3])
def test_nothing_found(detector, num_anchors):
    probabilities = torch.tensor([[0.98, 0.01, 0.01]]).expand(num_anchors, 3)
    found = detector(make_predictions(probabilities, APART[:num_anchors]))
    assert len(found) == 0
    shapes = {name: tuple(value.shape) for name, value in vars(found).items()}
    assert shapes == {
        "boxes": (0, 4),
        "scores": (0,),
        "labels": (0,),
        "centerness": (0,),
        "mask_coeffs": (0, 2),
        "embeddings": (0, 3),
        "masks": (0, 4, 6),
    }
    assert found.labels.dtype == torch.int64


# ---------------------------------------------------------------------------------------------------- quirks


def test_quirk_hidden_low_scores():
    # As published, nothing is thrown away after the product with the centerness, not even a negative score.
    predictions = make_predictions([[0.4, 0.6], [0.1, 0.9], [0.2, 0.8]], APART, [1.0, -0.5, 0.05])
    kept = CROSS_CLASS(predictions)
    torch.testing.assert_close(kept.scores, torch.tensor([0.6, 0.04, -0.45]))
    dropped = replace(CROSS_CLASS, score_threshold=0.05)(predictions)
    assert len(dropped) == 1
    assert torch.equal(dropped.scores, kept.scores[:1])


def test_quirk_double_tanh():
    predictions = make_predictions([[0.1, 0.9]], APART[:1], mask_coeffs=torch.tensor([[2.0, -1.0]]))
    once = CROSS_CLASS(predictions)
    twice = replace(CROSS_CLASS, double_tanh=True)(predictions)
    assert torch.equal(once.mask_coeffs, torch.tensor([[2.0, -1.0]]))
    assert torch.equal(twice.mask_coeffs, once.mask_coeffs.tanh())
    inside = twice.masks > 0
    expected = torch.sigmoid(once.mask_coeffs.tanh().tanh().sum())
    torch.testing.assert_close(twice.masks[inside].unique(), expected[None])
    assert torch.sigmoid(once.mask_coeffs.tanh().sum()) > expected + 0.01
    assert once.masks.max() > twice.masks.max() + 0.01


def test_quirk_plain_scores():
    # Per-frame per-class NMS, as published, ranks and suppresses by probability alone.
    predictions = make_predictions([[0.1, 0.9], [0.2, 0.8]], SAME[:2], [0.1, 1.0])
    plain = replace(PER_CLASS, use_centerness=False)(predictions)
    torch.testing.assert_close(plain.scores, torch.tensor([0.9]))
    torch.testing.assert_close(plain.centerness, torch.tensor([0.1]))
    weighted = PER_CLASS(predictions)
    torch.testing.assert_close(weighted.scores, torch.tensor([0.8]))
    torch.testing.assert_close(weighted.centerness, torch.tensor([1.0]))
