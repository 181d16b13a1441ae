"""Values that come to the host later."""

import torch

from tests.utils.test_transfers import StandIn
from utils.delayed_reads import DelayedReads
from utils.transfers import Transfers


def test_values_come_in_order_after_the_delay_and_all_on_request():
    reads = DelayedReads(2, Transfers(torch.device("cpu")))
    values = torch.zeros(2)
    for number in range(4):
        reads.add(number, values.fill_(number))
    assert list(reads.read()) == [(0, [0.0, 0.0]), (1, [1.0, 1.0])]
    assert list(reads.read()) == []
    assert list(reads.read(everything=True)) == [(2, [2.0, 2.0]), (3, [3.0, 3.0])]


def test_without_a_delay_values_come_at_once():
    reads = DelayedReads(0, Transfers(torch.device("cpu")))
    reads.add("first", torch.ones(1))
    assert list(reads.read()) == [("first", [1.0])]


def test_the_host_waits_for_values_that_are_read_alone():
    transfers = StandIn()
    reads = DelayedReads(1, transfers)
    for number in range(2):
        reads.add(number, torch.full((2,), float(number)))
    assert list(reads.read()) == [(0, [0.0, 0.0])]
    assert transfers.calls == ["send 0", "send 1", "wait for 0"]
