import numpy as np
import pytest
import torch

from layers.mask_utils import assemble_masks, crop_window, mask_iou, translate


@pytest.fixture(scope="module")
def recorded(reference):
    return {name: torch.from_numpy(array) for name, array in np.load(reference / "unit" / "masks.npz").items()}


WHOLE = (0.0, 0.0, 1.0, 1.0)


def test_masks_are_the_recorded_ones(recorded):
    masks = assemble_masks(recorded["proto"], recorded["coeff"], recorded["box"])
    torch.testing.assert_close(masks, recorded["cropped"], atol=1e-6, rtol=0)


def test_masks_of_whole_boxes_are_the_recorded_uncropped_ones(recorded):
    masks = assemble_masks(recorded["proto"], recorded["coeff"], torch.tensor([WHOLE] * 7))
    torch.testing.assert_close(masks, recorded["full"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("padding", [0, 1])
def test_crop_windows_are_the_recorded_ones(recorded, padding):
    window = crop_window(recorded["box"], 12, 20, padding)
    assert torch.equal(window.permute(1, 2, 0), recorded[f"crop_window_pad{padding}"])


def test_crop_windows_are_widened_by_one_pixel_unless_told_otherwise(recorded):
    assert torch.equal(crop_window(recorded["box"], 12, 20), crop_window(recorded["box"], 12, 20, padding=1))


def window_of(box, padding):
    """(rows, columns) of a 4×10 mask that the window of `box` covers."""
    window = crop_window(torch.tensor([box]), 4, 10, padding)[0]
    rows, columns = window.any(dim=1).nonzero().flatten().tolist(), window.any(dim=0).nonzero().flatten().tolist()
    assert int(window.sum()) == len(rows) * len(columns)
    return rows, columns


@pytest.mark.parametrize(
    "box, padding, rows, columns",
    [
        ((0.25, 0.25, 0.5, 0.75), 0, [1, 2], [3, 4]),  # columns 2.5 … 5: the integer index counts, not the centre
        ((0.25, 0.25, 0.5, 0.75), 1, [0, 1, 2, 3], [2, 3, 4, 5]),
        ((0.5, 0.75, 0.25, 0.25), 1, [0, 1, 2, 3], [2, 3, 4, 5]),  # corners swapped
        ((-9.0, 0.25, 0.125, 0.25), 0, [], []),  # no height
        ((-9.0, 0.25, 0.125, 0.25), 1, [0, 1], [0, 1, 2]),
        ((0.75, 0.0, 9.0, 9.0), 0, [0, 1, 2, 3], [8, 9]),
        (WHOLE, 0, [0, 1, 2, 3], list(range(10))),
        ((1.25, 1.5, 1.5, 2.0), 1, [], []),  # outside
    ],
)
def test_crop_windows_by_hand(box, padding, rows, columns):
    assert window_of(box, padding) == (rows, columns)


def test_masks_by_hand():
    prototypes = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [0.0, 5.0]]])  # 1×3 pixels, two prototypes
    coeffs = torch.tensor([[100.0, -100.0], [0.0, 0.0]])  # tanh makes ±1 of them
    masks = assemble_masks(prototypes, coeffs, torch.tensor([WHOLE, WHOLE]))
    expected = torch.sigmoid(torch.tensor([[[0.0, 2.0, -5.0]], [[0.0, 0.0, 0.0]]]))
    torch.testing.assert_close(masks, expected)


def test_masks_are_assembled_one_by_one(recorded):
    together = assemble_masks(recorded["proto"], recorded["coeff"], recorded["box"])
    alone = [
        assemble_masks(recorded["proto"], recorded["coeff"][i : i + 1], recorded["box"][i : i + 1]) for i in range(7)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-6, rtol=0)


def test_no_objects_give_no_masks(recorded):
    assert crop_window(torch.zeros(0, 4), 12, 20).shape == (0, 12, 20)
    assert assemble_masks(recorded["proto"], torch.zeros(0, 32), torch.zeros(0, 4)).shape == (0, 12, 20)


# ---------------------------------------------------------------------------------------------------- overlap


def test_mask_iou_is_the_recorded_one(reference):
    recorded = np.load(reference / "unit" / "mask_iou.npz")
    masks, others = torch.from_numpy(recorded["m1"]), torch.from_numpy(recorded["m2"])
    torch.testing.assert_close(mask_iou(masks, others), torch.from_numpy(recorded["iou"]), atol=1e-6, rtol=0)
    assert torch.equal(mask_iou(masks.bool(), others.bool()), mask_iou(masks, others))


def test_mask_iou_by_hand():
    masks = torch.tensor([[[1, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]], dtype=torch.bool)
    others = torch.tensor([[[1, 1, 0], [0, 0, 0]], [[0, 1, 1], [0, 1, 0]], [[0, 0, 0], [0, 0, 0]]], dtype=torch.bool)
    assert mask_iou(masks, others).tolist() == [[1, 0.25, 0], [0, 0, 0]]


@pytest.mark.parametrize("n, m", [(0, 0), (0, 2), (2, 0)])
def test_mask_iou_of_no_masks(n, m):
    assert mask_iou(torch.zeros(n, 3, 4, dtype=torch.bool), torch.zeros(m, 3, 4, dtype=torch.bool)).shape == (n, m)


def test_masks_are_translated_with_zeros_from_outside():
    mask = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    offsets = torch.tensor([[0, 0], [1, 0], [-2, 1], [0, -5], [10**12, 0]])
    expected = [
        *([[1, 2, 3], [4, 5, 6]], [[0, 1, 2], [0, 4, 5]], [[0, 0, 0], [3, 0, 0]]),
        *([[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]),
    ]
    assert translate(mask.repeat(5, 1, 1), offsets).tolist() == expected
    assert translate(mask[None] > 2, offsets[1:2]).tolist() == [[[False, False, False], [False, True, True]]]
    assert translate(torch.zeros(0, 2, 3), torch.zeros(0, 2, dtype=torch.int64)).shape == (0, 2, 3)
