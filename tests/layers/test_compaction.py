import pytest
import torch

from layers.compaction import drop_rows, order_rows

KEEP = torch.tensor([False, True, False, True, True])


def test_rows_are_dropped():
    index, are_real = drop_rows(KEEP)
    assert index.tolist() == [1, 3, 4]
    assert are_real.tolist() == [True] * 3
    assert [len(values) for values in drop_rows(KEEP[:0])] == [0, 0]


def test_rows_are_ordered():
    index, are_real = order_rows(KEEP)
    assert index.tolist() == [1, 3, 4, 0, 0] and index.dtype == torch.int64
    assert are_real.tolist() == [True, True, True, False, False]
    assert [len(values) for values in order_rows(KEEP[:0])] == [0, 0]


@pytest.mark.parametrize(("size", "rows"), [(3, [1, 3, 4]), (4, [1, 3, 4, 0]), (9, [1, 3, 4, 0, 0])])
def test_rows_are_ordered_in_as_many_as_there_can_be(size, rows):
    index, are_real = order_rows(KEEP, size)
    assert index.tolist() == rows and are_real.tolist() == [row > 0 for row in rows]


@pytest.mark.parametrize("keep", [[False], [True], [True, True], [False, False, True], [True, False, True, False]])
def test_both_find_the_same_rows(keep):
    index, are_real = order_rows(torch.tensor(keep))
    assert len(index) == len(keep)
    assert torch.equal(index[are_real], drop_rows(torch.tensor(keep))[0])
