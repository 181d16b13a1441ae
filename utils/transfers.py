"""Copies between the host and the device that runs the network, for which the host does not wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from utils.device import record_event
from utils.structures import tensors_in, with_tensors

T = TypeVar("T")


class Event(Protocol):
    """A point in the queue of a device."""

    def synchronize(self) -> None:
        """Waits until the device has come to it."""
        ...


class Transfers:
    """Copies to and from `device`. With a GPU they go through page-locked memory, so that the GPU copies by itself.

    That memory comes from torch's cache: a block is used again only after its content was read, or dropped, and after
    the GPU's copy.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.are_asynchronous = device.type == "cuda"

    def to_device(self, images: Sequence[Tensor]) -> Tensor:
        """`images` [...] of the host, at least one and all of one shape and dtype, as a batch [B,...] on the device."""
        batch = self.host_memory((len(images), *images[0].shape), images[0].dtype)
        torch.stack(list(images), out=batch)
        return batch.to(self.device, non_blocking=self.are_asynchronous)

    def to_host(self, value: T) -> Callable[[], T]:
        """Begins to copy the tensors of `value` from the device, in one piece; a call of what is returned waits for
        them and returns `value` on the host."""
        tensors = tensors_in(value)
        by_alignment = sorted(range(len(tensors)), key=lambda i: -tensors[i].element_size())
        flat = [tensors[i].contiguous().view(-1).view(torch.uint8) for i in by_alignment]
        sizes = [len(part) for part in flat]
        slot = self.host_memory((sum(sizes),), torch.uint8)
        slot.copy_(torch.cat(flat), non_blocking=self.are_asynchronous)
        arrival = self.record() if self.are_asynchronous else None

        def arrived() -> T:
            if arrival is not None:
                arrival.synchronize()
            found = dict(zip(by_alignment, slot.clone().split(sizes), strict=True))  # page-locked memory is scarce
            return with_tensors(value, (found[i].view(t.dtype).view(t.shape) for i, t in enumerate(tensors)))

        return arrived

    def host_memory(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor of any content in the host's memory, page-locked if the copies are asynchronous."""
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=self.are_asynchronous)

    def record(self) -> Event:
        """The point that the device's queue has now."""
        return record_event(self.device)
