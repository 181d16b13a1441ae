import numpy as np
import pytest
import torch

from layers.anchors import make_anchors

KERNELS = ((3, 3), (3, 5), (5, 3))
LEVELS = ((12, 20), (6, 10), (3, 5), (2, 3), (1, 2))


@pytest.mark.parametrize("height, width", [*LEVELS, (7, 4)])
def test_anchors_of_a_level_are_the_recorded_ones(reference, height, width):
    recorded = np.load(reference / "unit" / "priors.npz")[f"p_{height}x{width}"]
    torch.testing.assert_close(make_anchors([(height, width)], KERNELS), torch.from_numpy(recorded), atol=1e-6, rtol=0)


def test_anchors_of_all_levels_are_the_recorded_ones(reference):
    recorded = np.load(reference / "STMask_plus_resnet50" / "forward.npz")["priors"]
    torch.testing.assert_close(make_anchors(LEVELS, KERNELS), torch.from_numpy(recorded), atol=1e-6, rtol=0)


def test_order_is_level_row_column_kernel():
    anchors = make_anchors([(2, 2), (1, 1)], [(1, 1), (1, 3)])
    expected = [
        *([0.25, 0.25, 0.5, 0.5], [0.25, 0.25, 1.5, 0.5]),  # row 0, column 0
        *([0.75, 0.25, 0.5, 0.5], [0.75, 0.25, 1.5, 0.5]),
        *([0.25, 0.75, 0.5, 0.5], [0.25, 0.75, 1.5, 0.5]),
        *([0.75, 0.75, 0.5, 0.5], [0.75, 0.75, 1.5, 0.5]),
        *([0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 3.0, 1.0]),  # the second level
    ]
    assert anchors.tolist() == expected


def test_levels_are_independent():
    together = make_anchors(LEVELS, KERNELS)
    assert together.dtype == torch.float32
    assert torch.equal(together, torch.cat([make_anchors([level], KERNELS) for level in LEVELS]))


def test_a_level_without_cells_has_no_anchors():
    assert make_anchors([(0, 4)], KERNELS).shape == (0, 4)
    assert torch.equal(make_anchors([(0, 4), (1, 2)], KERNELS), make_anchors([(1, 2)], KERNELS))
