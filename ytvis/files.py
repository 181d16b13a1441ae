"""Files: written whole or not at all, read piece by piece, and in the order that people put them in."""

import errno
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

CHUNK = 2**16  # characters of a JSON list that are read at a time


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class InputError(Exception):
    """Something the person gave cannot be used. The message is one line: which file, what is wrong, what to do.

    The command lines print it and exit with code 2.
    """


class NotAList(ValueError):
    """What should hold a JSON list begins as something else."""


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """A file object whose content appears under `path` only when the block ends without an exception.

    The bytes go to a temporary file in the same folder (created if missing), are flushed to disk and renamed over
    `path`; after a crash or an exception `path` holds what it held before. `mode` is "w" (UTF-8 text) or "wb".

    Raises:
        InputError: `path` is a folder, nothing can be put there, or the disk is full.
    """
    path = Path(path)
    if os.path.isdir(path):  # Path.is_dir raises where the name is too long
        raise InputError(f"{path}: cannot be written: it is a folder; name a file")
    make_folder(path.parent)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise _not_written(path, error) from None
    try:
        with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError) and (error.errno in _NO_ROOM or error.filename == temporary):
            raise _not_written(path, error) from None
        raise
    _sync_folder(path.parent)


def make_folder(path: str | os.PathLike) -> Path:
    """The folder `path`, made if it is missing, with those above it.

    Raises:
        InputError: it cannot be made; a file is there, say.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made a folder: {error.strerror}; choose another place") from None
    return path


def image_folder(path: str | os.PathLike) -> Path:
    """The folder of frames `path`, which may be a link.

    Raises:
        InputError: it is no folder.
    """
    if not os.path.isdir(path):  # Path.is_dir raises where the name is too long
        raise InputError(f"{path}: no such folder of frames")
    return Path(path)


def read_json(path: str | os.PathLike, object_hook: Callable[[dict], Any] | None = None) -> Any:
    """What a JSON file holds; `object_hook` makes what stands for each of its objects.

    Raises:
        InputError: the file cannot be read or is no JSON.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file, object_hook=object_hook)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file: {error}") from None


def read_json_list(
    path: str | os.PathLike, object_hook: Callable[[dict], Any] | None = None, encoding: str = "utf-8"
) -> Iterator[Any]:
    """The entries of the JSON list in a file, of which no more than one and a chunk are in memory.

    `object_hook` makes what stands for each JSON object; it may be asked twice for the same one.

    Raises:
        OSError: the file cannot be read.
        NotAList: it holds something else.
        ValueError: it is no whole JSON; the entries before the fault have come.
    """
    decoder = json.JSONDecoder(object_hook=object_hook)
    with open(path, encoding=encoding) as file:
        text = _more("", file)
        if not text.startswith("["):
            raise NotAList(f"it begins with {text[:20]!r}")
        text = _more(text[1:], file)
        if text.startswith("]"):
            text = text[1:]
        else:
            while True:
                entry, text = _next_entry(decoder, text, file)
                yield entry
                if text[0] == "]":
                    text = text[1:]
                    break
                text = _more(text[1:], file)
        if _more(text, file):
            raise ValueError("something follows the end of the list")


def _more(text: str, file: IO) -> str:
    """`text`, and more of the file if it holds nothing but white space, without white space before it."""
    text = text.lstrip()
    while not text and (read := file.read(CHUNK)):
        text = read.lstrip()
    return text


def _next_entry(decoder: json.JSONDecoder, text: str, file: IO) -> tuple[Any, str]:
    """(The value that `text` begins with, the text from the comma or bracket behind it on), reading what is needed."""
    while True:
        try:
            entry, end = decoder.raw_decode(text)
        except json.JSONDecodeError as error:
            problem = f"{error.msg} at {text[error.pos : error.pos + 20]!r}"
            # What is only cut off by the chunk shows at its end, or as a string that has none.
            if error.pos < len(text) - 16 and not error.msg.startswith("Unterminated string"):
                raise ValueError(problem) from None
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        else:
            rest = text[end:].lstrip()
            if rest and rest[0] in ",]":
                return entry, rest
            problem = f"{rest[:20]!r} follows an entry" if rest else "the list has no end"
            if len(rest) > 16:  # otherwise it may be the rest of a number
                raise ValueError(problem)
        read = file.read(max(CHUNK, len(text)))  # twice as much each time: a large entry is not decoded too often
        if not read:
            raise ValueError(f"{problem}, at the end of the file")
        text += read


def natural_key(name: str) -> tuple[tuple[int, int, str, str], ...]:
    """A key that sorts names as people do, numbers by their value: frame2 comes before frame10."""
    parts = re.split(r"([0-9]+)", name)
    # Numbers compare by their length and then as text, which any number of digits can; int() takes 4300 at most.
    numbers = [part.lstrip("0") for part in parts]
    return tuple(
        (0, len(number), number, part) if part.isdecimal() else (1, 0, part, "")
        for part, number in zip(parts, numbers, strict=True)
    )


def _not_written(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written: {error.strerror}; choose another place")


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable, on systems that can open a folder."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
