"""Values of a device that the host reads without waiting for the device's queue."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from utils.transfers import Transfers

STEPS_AHEAD = 2  # of the host: as long as a step is in the queue, the device does not wait for the host


class DelayedReads:
    """Tensors that come to the host `delay` tensors later: their copies are then done, and nothing waits.

    With `delay` 0, for a device without a queue, a tensor is read at once.
    """

    def __init__(self, delay: int, transfers: Transfers):
        self.delay = delay
        self._transfers = transfers
        self._pending: deque[tuple[Any, Callable[[], Tensor]]] = deque()

    def add(self, key: Any, values: Tensor) -> None:
        """Begins to copy `values` [N], which are known by `key`."""
        self._pending.append((key, self._transfers.to_host(values.detach())))

    def read(self, everything: bool = False) -> Iterator[tuple[Any, list[float]]]:
        """Yields (key, its values) of the tensors that are due, the oldest first; of all that are left with
        `everything`, for which the host waits."""
        while len(self._pending) > (0 if everything else self.delay):
            key, arrived = self._pending.popleft()
            yield key, arrived().tolist()
