"""Choosing rows of tensors: two ways with the same result for the rows that count.

Detection, tracking and training work on rows of which some are real and the others are to be ignored. `drop_rows`
leaves only real rows: no more work than there are objects, but the host waits for the device to learn their number.
`order_rows` leaves as many rows as there were, or as there can be, the real ones first: no shape depends on a value,
the host never waits, and the work can be recorded once and replayed.
"""

from collections.abc import Callable

import torch
from torch import Tensor

LOWEST = float("-inf")  # for rows that are not real, where a maximum is sought

Compaction = Callable[[Tensor], tuple[Tensor, Tensor]]


def drop_rows(keep: Tensor) -> tuple[Tensor, Tensor]:
    """(index [n] int64, [n] true): the n rows where `keep` [N] bool is true."""
    index = keep.nonzero().squeeze(1)
    return index, torch.ones_like(index, dtype=torch.bool)


def order_rows(keep: Tensor, size: int | None = None) -> tuple[Tensor, Tensor]:
    """(index [S] int64, is real [S] bool): the n rows where `keep` [N] bool is true, then S − n times row 0.

    S is the lower of N and `size`, which must be at least n (default: N)."""
    rows = torch.arange(keep.shape[0], device=keep.device)
    length = keep.shape[0] if size is None else min(size, keep.shape[0])
    # The type is given because OpenVINO would count to 255.
    places = torch.where(keep, keep.cumsum(0, dtype=torch.int64) - 1, length)
    index = rows.new_zeros(length + 1).scatter(0, places, rows)[:length]
    return index, (rows if size is None else rows[:length]) < keep.sum()
