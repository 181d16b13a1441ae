"""Copies to and from the device; as on a GPU, with a stand-in whose copies arrive only when they are waited for."""

from dataclasses import dataclass, field

import torch

from utils.transfers import Transfers

CPU = torch.device("cpu")


@dataclass
class Late:
    """An event: the copy into `memory` is done when it is waited for, and not before."""

    memory: torch.Tensor
    number: int
    calls: list[str]

    def __post_init__(self):
        self.content = self.memory.clone()
        self.memory.fill_(0xFF)

    def synchronize(self):
        self.calls.append(f"wait for {self.number}")
        self.memory.copy_(self.content)


@dataclass
class StandIn(Transfers):
    """A GPU's transfers on a CPU; `calls` are "send N", when the copy N to the host begins, and "wait for N"."""

    calls: list[str] = field(default_factory=list)
    device: torch.device = CPU
    are_asynchronous: bool = True

    def host_memory(self, shape, dtype):
        self.memory = torch.empty(tuple(shape), dtype=dtype)
        return self.memory

    def record(self):
        number = sum(call.startswith("send") for call in self.calls)
        self.calls.append(f"send {number}")
        return Late(self.memory, number, self.calls)


def mixed():
    """Tensors of several types, nested, one of them not contiguous and one empty."""
    rows = (torch.arange(10)[::2], torch.zeros(0, 4, dtype=torch.int64))
    return [torch.tensor([True, False, True]), torch.arange(6.0).view(2, 3), None, rows, torch.tensor(2**60)]


def assert_arrived(found, expected):
    pairs = [*zip(found[:2], expected[:2], strict=True), *zip(found[3], expected[3], strict=True)]
    for ours, theirs in [*pairs, (found[4], expected[4])]:
        assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype and ours.shape == theirs.shape
    assert found[2] is None
    storages = {ours.untyped_storage().data_ptr() for ours, _ in pairs}
    assert len(storages) == 1 and expected[0].untyped_storage().data_ptr() not in storages


def test_all_tensors_come_to_the_host_in_one_copy():
    assert_arrived(Transfers(CPU).to_host(mixed())(), mixed())


def test_what_is_under_way_arrives_whole_in_any_order_and_stays():
    transfers = StandIn()
    first, second, third = (transfers.to_host([torch.full((4,), value), torch.tensor(value)]) for value in (1, 2, 3))
    assert transfers.calls == ["send 0", "send 1", "send 2"]
    found = [second(), first()]
    assert transfers.calls[3:] == ["wait for 1", "wait for 0"]
    transfers.memory.zero_()
    found.append(third())
    assert [(numbers.tolist(), number.item()) for numbers, number in found] == [([v] * 4, v) for v in (2, 1, 3)]


def test_what_has_arrived_does_not_keep_the_memory_of_the_copy():
    """Page-locked memory is scarce, and callers may keep all objects of a video."""
    transfers = StandIn()
    (found,) = transfers.to_host([torch.arange(3)])()
    assert found.untyped_storage().data_ptr() != transfers.memory.untyped_storage().data_ptr()


def test_images_become_a_batch():
    images = [torch.full((4, 6, 3), value, dtype=torch.uint8) for value in (1, 2)]
    for transfers in (Transfers(CPU), StandIn()):
        batch = transfers.to_device(images)
        assert batch.dtype == torch.uint8 and torch.equal(batch, torch.stack(images))
        assert transfers.to_device([torch.ones(3, 2, 2)]).dtype == torch.float32
