"""Choosing rows of tensors: two ways with the same result for the rows that count.

Detection and tracking work on rows of which some are real and the others are to be ignored. `drop_rows` leaves only
real rows: no more work than there are objects, but the host waits for the device to learn how many there are.
`order_rows` leaves as many rows as there were, the real ones first: no shape depends on a value, the host never waits,
and the work can be recorded once and replayed.
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


def order_rows(keep: Tensor) -> tuple[Tensor, Tensor]:
    """(index [N] int64, is real [N] bool): the n rows where `keep` [N] bool is true, then N − n times row 0."""
    rows = torch.arange(keep.shape[0], device=keep.device)
    # The type is given because OpenVINO would count to 255.
    places = torch.where(keep, keep.cumsum(0, dtype=torch.int64) - 1, keep.shape[0])
    index = rows.new_zeros(keep.shape[0] + 1).scatter(0, places, rows)[: keep.shape[0]]
    return index, rows < keep.sum()
