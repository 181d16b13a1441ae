"""A file of JSON lines that a run appends to; a crash loses at most the last line."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from ytvis.files import InputError, atomic_write, open_input, writing
from ytvis.messages import shown


class Journal:
    """A journal: its first line is the header, which identifies the run; `_append` adds the others.

    Create it with `create` or `resume`. Subclasses define in `_take` what they keep of the lines in memory.
    """

    def __init__(self, path: str | os.PathLike, header: Mapping[str, Any]):
        self.path = Path(path)
        self.header = json.loads(json.dumps(header))  # as read back from the file: tuples are lists
        self._end = 0

    @classmethod
    def create(cls, path: str | os.PathLike, header: Mapping[str, Any]) -> Self:
        """Returns a new, empty journal; an existing one is replaced."""
        journal = cls(path, header)
        line = json_line(journal.header)
        with atomic_write(path, "wb") as file:
            file.write(line)
        journal._end = len(line)
        return journal

    @classmethod
    def resume(cls, path: str | os.PathLike, header: Mapping[str, Any]) -> Self:
        """Opens the journal at `path` with its content; creates it if it is missing.

        A last line cut short by a crash is dropped.

        Raises:
            InputError: the journal belongs to another run (the message names the first key of the header that differs),
                or is damaged before its last line.
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
        """Takes the content of a line found by `resume` at `_end`; returns whether it is valid in this journal."""
        raise NotImplementedError

    def _append(self, text: bytes, durable: bool = True) -> None:
        """Appends `text`, whole lines: if `durable` it is on disk when this returns, else it survives only the end of
        the process. InputError if it cannot be written; the file is then unchanged."""
        with writing(self.path), open(self.path, "r+b") as file:
            file.seek(self._end)
            file.truncate()  # removes what an earlier, failed call left
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        self._end += len(text)

    def _lines(self, places: Iterable[int]) -> Iterator[dict]:
        """Yields the content of the lines that begin at `places` of the file, read one at a time."""
        with open(self.path, "rb") as file:
            for place in places:
                file.seek(place)
                yield json.loads(file.readline())

    def _take_line(self, number: int, content: dict | None) -> None:
        """Takes one line found by `resume`; the first must be this run's header."""
        if number == 0:
            self._check_header(content)
        elif content is None or not self._take(content):
            raise InputError(f"{self.path}: line {number + 1} is damaged; delete the file to start again")

    def _check_header(self, found: dict | None) -> None:
        if found is None:
            raise InputError(f"{self.path}: not the journal of a run; move it away to start again")
        for key in (*self.header, *found):
            if key not in found:
                difference = f"without {key}, this run has {shown(self.header[key])}"
            elif key not in self.header:
                difference = f"with {key} = {shown(found[key])}, which this run lacks"
            elif found[key] != self.header[key]:
                difference = f"with {key} = {shown(found[key])}, this run has {shown(self.header[key])}"
            else:
                continue
            raise InputError(
                f"{self.path} was started {difference}: run with the same settings and version to resume, or delete "
                "the file to start again"
            )


def json_line(content: Mapping) -> bytes:
    """`content` as a line of JSON; numpy numbers are accepted."""
    return json.dumps(content, default=plain_number).encode() + b"\n"


def plain_number(value: Any) -> Any:
    """The Python number of a numpy number, for JSON."""
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
