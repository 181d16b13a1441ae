"""Values that come to the host later."""

import torch

from utils.delayed_reads import DelayedReads


def test_values_come_in_order_after_the_delay_and_all_on_request():
    reads = DelayedReads(delay=2)
    values = torch.zeros(2)
    for number in range(4):
        reads.add(number, values.fill_(number))
    assert list(reads.read()) == [(0, [0.0, 0.0]), (1, [1.0, 1.0])]
    assert list(reads.read()) == []
    assert list(reads.read(everything=True)) == [(2, [2.0, 2.0]), (3, [3.0, 3.0])]


def test_without_a_delay_values_come_at_once():
    reads = DelayedReads(delay=0)
    reads.add("first", torch.ones(1))
    assert list(reads.read()) == [("first", [1.0])]
