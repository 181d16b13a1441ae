"""Values of a device that the host reads without waiting for the device's queue."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from utils.device import record_event

STEPS_AHEAD = 2  # of the host: as long as a step is in the queue, the device does not wait for the host


class DelayedReads:
    """Tensors that come to the host `delay` tensors later: their copies are then done, and nothing waits.

    With `delay` 0, for a device without a queue, a tensor is read at once.
    """

    def __init__(self, delay: int):
        self.delay = delay
        self._pending: deque[tuple[Any, Tensor, Any]] = deque()

    def add(self, key: Any, values: Tensor) -> None:
        """Begins to copy `values` [N], which are known by `key`."""
        if values.device.type != "cuda":
            self._pending.append((key, values.detach().clone(), None))
            return
        copy = torch.empty_like(values, device="cpu", pin_memory=True)
        copy.copy_(values.detach(), non_blocking=True)
        self._pending.append((key, copy, record_event(values.device)))

    def read(self, everything: bool = False) -> Iterator[tuple[Any, list[float]]]:
        """Yields (key, its values) of the tensors that are due, the oldest first; of all that are left with
        `everything`, for which the host waits."""
        while len(self._pending) > (0 if everything else self.delay):
            key, copy, event = self._pending.popleft()
            if event is not None:
                event.synchronize()
            yield key, copy.tolist()
