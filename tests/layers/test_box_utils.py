import numpy as np
import pytest
import torch

from layers.box_utils import box_iou, decode, to_cxcywh


@pytest.fixture(scope="module")
def recorded(reference):
    arrays = np.load(reference / "unit" / "boxes.npz")
    return {name: torch.from_numpy(arrays[name]) for name in arrays.files if arrays[name].dtype.kind != "U"}


def near(ours, expected):
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)


# ---------------------------------------------------------------------------------------------------- coding


def test_decode_is_the_recorded_one(recorded):
    near(decode(recorded["loc"], recorded["prior"]), recorded["decoded"])


def test_decode_batched_is_decode_of_each(recorded):
    deltas, anchors = recorded["loc"].view(4, 10, 4), recorded["prior"][:10]
    batched = decode(deltas, anchors)
    assert torch.equal(batched, torch.stack([decode(image, anchors) for image in deltas]))


def test_zero_deltas_give_the_anchor(recorded):
    boxes = decode(torch.zeros(40, 4), recorded["prior"])
    near(to_cxcywh(boxes), recorded["prior"])


def test_deltas_move_by_tenths_of_the_anchor_and_scale_by_fifths_of_the_exponent():
    anchor = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    moved = decode(torch.tensor([[5.0, -2.5, 0.0, 0.0]]), anchor)  # half a width right, a quarter height up
    near(moved, torch.tensor([[0.5, 0.2, 0.7, 0.6]]))
    doubled = decode(torch.tensor([[0.0, 0.0, 5 * np.log(2), 5 * np.log(0.5)]], dtype=torch.float32), anchor)
    near(doubled, torch.tensor([[0.3, 0.4, 0.7, 0.6]]))


def test_center_form_is_the_recorded_one(recorded):
    near(to_cxcywh(recorded["gt"]), recorded["center_size"])
    near(to_cxcywh(recorded["point_form"]), recorded["prior"])  # point_form holds the corners of `prior`


def test_coding_of_no_boxes():
    assert decode(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)
    assert to_cxcywh(torch.zeros(0, 4)).shape == (0, 4)


# ---------------------------------------------------------------------------------------------------- overlap


def test_iou_is_the_recorded_one(recorded):
    near(box_iou(recorded["a"], recorded["b"]), recorded["jaccard"])


def test_iou_batched_is_the_recorded_one_and_that_of_each(recorded):
    a, b = recorded["batch_a"], recorded["batch_b"]
    ious = box_iou(a, b)
    near(ious, recorded["batch_jaccard"])
    assert torch.equal(ious, torch.stack([box_iou(a[i], b[i]) for i in range(len(a))]))


def test_iou_by_hand():
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    others = torch.tensor(
        [
            [0.0, 0.0, 2.0, 2.0],  # itself
            [1.0, 0.0, 3.0, 2.0],  # half of each: 2 of 6
            [1.0, 1.0, 2.0, 2.0],  # inside: 1 of 4
            [2.0, 0.0, 4.0, 2.0],  # touching
            [5.0, 5.0, 6.0, 6.0],  # apart on both axes
        ]
    )
    near(box_iou(boxes, others), torch.tensor([[1.0, 1 / 3, 1 / 4, 0.0, 0.0]]))
    near(box_iou(others, boxes), box_iou(boxes, others).t())


def test_iou_of_points_is_zero_not_nan():
    points = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.2, 0.2, 0.2, 0.2]])
    assert torch.equal(box_iou(points, points), torch.zeros(2, 2))


@pytest.mark.parametrize("n, m", [(0, 0), (0, 3), (3, 0)])
def test_iou_of_no_boxes(n, m):
    assert box_iou(torch.rand(n, 4), torch.rand(m, 4)).shape == (n, m)
    assert box_iou(torch.rand(2, n, 4), torch.rand(2, m, 4)).shape == (2, n, m)
