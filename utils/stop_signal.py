"""Being told to stop, and stopping when it suits."""

import signal
from typing import Self


class StopSignal:
    """A context manager that notes Ctrl+C and SIGTERM in `requested` instead of dying of them."""

    def __init__(self):
        self.requested: str | None = None

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        self.requested = signal.Signals(number).name
