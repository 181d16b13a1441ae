"""Delays Ctrl+C and SIGTERM until a suitable moment."""

import signal
from typing import Self


class StopSignal:
    """A context manager in which Ctrl+C and SIGTERM only set `requested`, to the signal's name. Main thread only."""

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
