"""A file of JSON lines that a run appends to, and of which a crash costs at most the last line."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from ytvis.files import InputError, atomic_write, open_input, writing


class Journal:
    """The first line is the header, which tells one run from another; the others are what `_append` is given.

    Made by `create` or `resume`. What is kept in memory of the lines is for subclasses to say in `_take`.
    """

    def __init__(self, path: str | os.PathLike, header: Mapping[str, Any]):
        self.path = Path(path)
        self.header = json.loads(json.dumps(header))  # as the file gives it back: tuples are lists
        self._end = 0

    @classmethod
    def create(cls, path: str | os.PathLike, header: Mapping[str, Any]) -> Self:
        """A new, empty journal; one that is there already is replaced."""
        journal = cls(path, header)
        line = json_line(journal.header)
        with atomic_write(path, "wb") as file:
            file.write(line)
        journal._end = len(line)
        return journal

    @classmethod
    def resume(cls, path: str | os.PathLike, header: Mapping[str, Any]) -> Self:
        """The journal at `path` with what it holds; a new one if there is none.

        A last line cut short by a crash is dropped.

        Raises:
            InputError: the journal is of another run (the message names the first key of the header that differs), or
                is damaged before its last line.
        """
        journal = cls(path, header)
        if not os.path.lexists(path):
            return cls.create(path, header)
        with open_input(path) as file:
            size = os.fstat(file.fileno()).st_size
            for number, line in enumerate(file):
                content = parse_line(line)
                if content is None and number > 0 and file.tell() == size:
                    break  # cut short
                journal._take_line(number, content)
                journal._end += len(line)
        if journal._end == 0:
            return cls.create(path, header)
        with writing(path):
            os.truncate(path, journal._end)
        return journal

    def remove(self) -> None:
        """Deletes the file."""
        with writing(self.path):
            self.path.unlink()

    def _take(self, content: dict) -> bool:
        """Notes what a line found by `resume` at `_end` holds; whether it can be one of this journal's."""
        raise NotImplementedError

    def _append(self, text: bytes, durable: bool = True) -> None:
        """Writes `text`, whole lines, to the end of the file: if `durable` on disk when this returns, else where the
        end of the process cannot harm it. InputError if it cannot be written; then the file holds what it held."""
        with writing(self.path), open(self.path, "r+b") as file:
            file.seek(self._end)
            file.truncate()  # whatever an earlier, failed call left
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        self._end += len(text)

    def _lines(self, places: Iterable[int]) -> Iterator[dict]:
        """What the lines that begin at `places` of the file hold, read one at a time."""
        with open(self.path, "rb") as file:
            for place in places:
                file.seek(place)
                yield json.loads(file.readline())

    def _take_line(self, number: int, content: dict | None) -> None:
        """Notes one line found by `resume`; the first must be this run's header."""
        if number == 0:
            self._check_header(content)
        elif content is None or not self._take(content):
            raise InputError(f"{self.path}: line {number + 1} is damaged; delete the file to start again")

    def _check_header(self, found: dict | None) -> None:
        if found is None:
            raise InputError(f"{self.path}: not the journal of a run; move it away to start again")
        for key in (*self.header, *found):
            old, new = found.get(key), self.header.get(key)
            if old != new:
                raise InputError(
                    f"{self.path} was begun with {key} = {old!r}, this run has {new!r}: "
                    "run with the same settings to resume, or delete the file to start again"
                )


def json_line(content: Mapping) -> bytes:
    """`content` as a line of JSON; numpy numbers are accepted."""
    return json.dumps(content, default=plain_number).encode() + b"\n"


def plain_number(value: Any) -> Any:
    """What JSON writes for a numpy number."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def parse_line(line: bytes) -> dict | None:
    """The object a whole line holds; None if it is cut short or is not a JSON object."""
    if not line.endswith(b"\n"):
        return None
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None
