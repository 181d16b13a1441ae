"""Reads and writes files: only regular files are read, files are written whole or not at all, errors are one line.

A path given by a person or a file may be anything: a name that is too long or holds a NUL, a link to itself, a folder,
a pipe. Check it with `os.path.isfile`, `isdir` and `exists` (False for all of these, where the methods of `Path`
raise), and use the functions here to open, list and write.
"""

import io
import json
import os
import re
import shutil
import signal
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any, BinaryIO

CHUNK = 2**16  # characters of a JSON list that are read at a time

# First bytes of files that are sometimes given in place of a JSON file.
_OTHER_KINDS = {
    b"\x1f\x8b": "compressed by gzip; unpack it",
    b"PK\x03\x04": "a ZIP archive; unpack it",
    b"BZh": "compressed by bzip2; unpack it",
    b"\xfd7zXZ": "compressed by xz; unpack it",
    b"version https://git-lfs": "a pointer of Git LFS, which `git lfs pull` replaces by the file",
    b"<": "XML or a web page",
}
# A JSON object that has one of the lists of an annotation file, as far as its beginning shows.
_ANNOTATIONS = re.compile(r'\{.*?"(videos|images|annotations|categories)"\s*:\s*\[', re.DOTALL)
ORDER_HINT = "--help says which file goes where"
_WHITE_SPACE = re.compile(r"[ \t\n\r]*")


class InputError(Exception):
    """Input from the user cannot be used. The message is one line: which file, what is wrong, what to do.

    The command lines print it and exit with code 2.
    """


class NotJSON(InputError):
    """A file is not whole JSON; `problem` is the reason, without the file's name."""

    def __init__(self, path: str | os.PathLike, problem: str):
        super().__init__(f"{path}: is not a JSON file: {problem}")
        self.problem = problem


class NotAList(InputError):
    """A file that should hold a JSON list does not begin as one; `problem` is its beginning."""

    def __init__(self, path: str | os.PathLike, problem: str):
        super().__init__(f"{path}: must be a list: {problem}")
        self.problem = problem


# ---------------------------------------------------------------------------------------------------- reading


def open_input(path: str | os.PathLike) -> BinaryIO:
    """Opens a regular file for reading bytes; a link to one is followed.

    Raises:
        InputError: it cannot be read, or is a folder, a pipe or a device (which could keep a command waiting for ever).
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise _not_possible(path, "read", error) from None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    kind = "a folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "a pipe or a device"
    os.close(descriptor)
    raise InputError(f"{path}: cannot be read: it is {kind}; name a file")


def read_bytes(path: str | os.PathLike) -> bytes:
    """Returns the content of a regular file.

    Raises:
        InputError: it cannot be read, or is not a regular file.
    """
    with open_input(path) as file:
        try:
            return file.read()
        except OSError as error:
            raise _not_possible(path, "read", error) from None


def read_text(path: str | os.PathLike) -> str:
    """The text of a file in UTF-8, with a byte order mark or without, in UTF-16 or in UTF-32; lines end with \\n.

    Raises:
        InputError: it cannot be read, or has another encoding.
    """
    content = read_bytes(path)
    try:
        text = content.decode(json.detect_encoding(content))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8 or UTF-16: {_decoding_problem(error)}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | os.PathLike, object_hook: Callable[[dict], Any] | None = None) -> Any:
    """Returns the content of a JSON file in any encoding of `read_text`; `object_hook` converts each of its objects.

    As Python's own reader it accepts NaN and Infinity, numbers of up to 4300 digits, repeated keys (the last is used),
    and halves of surrogate pairs.

    Raises:
        InputError: the file cannot be read.
        NotJSON: it is not JSON.
    """
    content = read_bytes(path)
    try:
        text = content.decode(json.detect_encoding(content))
        return json.loads(text, object_hook=object_hook)
    except (ValueError, RecursionError) as error:
        problem = _other_kind(content) or _json_problem(error)
        if isinstance(error, json.JSONDecodeError) and not text[error.pos :].strip():
            problem = f"{problem}, at the end of the file: it is cut off" if content.strip() else "it is empty"
        raise NotJSON(path, problem) from None


def read_json_list(path: str | os.PathLike, object_hook: Callable[[dict], Any] | None = None) -> Iterator[Any]:
    """Yields the entries of the JSON list in a file, keeping no more than one and a chunk in memory.

    It accepts the same files as `read_json`. `object_hook` converts each JSON object; it may be called twice for the
    same one.

    Raises:
        InputError: the file cannot be read.
        NotAList: it does not hold a list.
        NotJSON: it is not whole JSON; raised after the entries before the fault.
    """
    with open_input(path) as file:
        try:
            head = file.read(32)
            if kind := _other_kind(head):
                raise NotJSON(path, kind)
            encoding = json.detect_encoding(head[:4])
            file.seek(0)
            yield from _ListReader(io.TextIOWrapper(file, encoding), object_hook).entries(path)
        except OSError as error:
            raise _not_possible(path, "read", error) from None
        except UnicodeDecodeError as error:
            raise NotJSON(path, _decoding_problem(error)) from None


class _ListReader:
    """Parses a JSON list: `text` is the part of the file in memory, `place` the position of the next character."""

    def __init__(self, file: IO[str], object_hook: Callable[[dict], Any] | None):
        self.file = file
        self.decoder = json.JSONDecoder(object_hook=object_hook)
        self.text = ""
        self.place = 0

    def entries(self, path: str | os.PathLike) -> Iterator[Any]:
        if self.next_character() != "[":
            is_annotations = _ANNOTATIONS.match(self.text[self.place :])
            problem = (
                f"it is an annotation file; {ORDER_HINT}" if is_annotations else f"it begins with {self.text[:20]!r}"
            )
            raise NotAList(path, problem if self.text else "it is empty")
        self.place += 1
        try:
            if self.next_character() == "]":
                self.place += 1
            else:
                while True:
                    yield self.entry()
                    self.place += 1
                    if self.text[self.place - 1] == "]":
                        break
                    self.next_character()
            if self.next_character():
                raise ValueError("something follows the end of the list")
        except (ValueError, RecursionError) as error:
            if isinstance(error, UnicodeDecodeError):
                raise
            raise NotJSON(path, _json_problem(error)) from None

    def next_character(self) -> str:
        """Skips white space and returns the next character; "" at the end of the file."""
        while True:
            self.place = _WHITE_SPACE.match(self.text, self.place).end()
            if self.place < len(self.text):
                return self.text[self.place]
            if not self.read(CHUNK):
                return ""

    def read(self, number: int) -> bool:
        """Reads so many more characters, if the file has them, and drops those already parsed."""
        new = self.file.read(number)
        self.text, self.place = self.text[self.place :] + new, 0
        return bool(new)

    def entry(self) -> Any:
        """Returns the entry that begins at `place`; moves to the comma or bracket after it."""
        while True:
            try:
                entry, end = self.decoder.raw_decode(self.text, self.place)
            except json.JSONDecodeError as error:
                problem = f"{error.msg} at {self.text[error.pos : error.pos + 20]!r}"
                # A value cut by the end of the chunk fails there, or as a string without an end.
                may_go_on = error.pos >= len(self.text) - 16 or error.msg.startswith("Unterminated string")
            else:
                end = _WHITE_SPACE.match(self.text, end).end()
                rest = self.text[end : end + 20]
                if rest[:1] in ("]", ","):
                    self.place = end
                    return entry
                problem = f"{rest!r} follows an entry" if rest else "the list has no end"
                may_go_on = len(rest) <= 16  # the rest of the number may follow
            if not may_go_on:
                raise ValueError(problem)
            # Twice as much each time: a large entry is not decoded too often.
            if not self.read(max(CHUNK, len(self.text) - self.place)):
                raise ValueError(f"{problem}, at the end of the file")


def _other_kind(content: bytes) -> str | None:
    """Returns the kind of a file that is not JSON by its first bytes, None if unknown."""
    return next((f"it is {kind}" for first, kind in _OTHER_KINDS.items() if content.startswith(first)), None)


def _json_problem(error: ValueError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return _decoding_problem(error)
    return "it holds a number of thousands of digits" if "integer string conversion" in str(error) else str(error)


def _decoding_problem(error: UnicodeDecodeError) -> str:
    byte = f"byte {error.object[error.start]:#04x} " if error.start < len(error.object) else ""
    return f"{byte}cannot be read as {error.encoding}; save it as UTF-8"


def list_folder(path: str | os.PathLike) -> list[str]:
    """The names in a folder, sorted; a link to a folder is followed.

    Raises:
        InputError: the folder is not found or cannot be listed.
    """
    try:
        return sorted(os.listdir(path))
    except (OSError, ValueError) as error:
        raise _not_possible(path, "listed", error) from None


def image_folder(path: str | os.PathLike) -> Path:
    """Returns the folder of frames `path`, which may be a link.

    Raises:
        InputError: it is not a folder.
    """
    if not os.path.isdir(path):
        raise InputError(f"{path}: no such folder of frames")
    return Path(path)


def natural_key(name: str) -> tuple[tuple[int, int, str, str], ...]:
    """Returns a key that sorts numbers in names by their value: frame2 comes before frame10."""
    parts = ((part, part.lstrip("0")) for part in re.split(r"([0-9]+)", name))
    # Not by int(), which refuses thousands of digits.
    return tuple((0, len(value), value, part) if part.isdecimal() else (1, 0, part, "") for part, value in parts)


# ---------------------------------------------------------------------------------------------------- writing


class _Output(io.FileIO):
    """A file that keeps the error of a failed write, as some writers replace it by their own."""

    error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            self.error = error
            raise


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Opens a file whose content appears under `path` only when the block ends without an exception.

    The bytes go to a temporary file in the same folder (created if missing), are flushed to disk and renamed over
    `path`; after a crash or an exception `path` is unchanged. `mode` is "w" (UTF-8 text, in which halves of surrogate
    pairs are escaped), "wb", or "w+b" to read in it too.

    Raises:
        InputError: `path` is a folder, a pipe or a device, or cannot be written, for example because the disk is full.
    """
    path = Path(path)
    make_folder(path.parent)
    try:
        with suppress(FileNotFoundError):
            os.lstat(path)  # refuses a name that is too long before anything is written
        if os.path.exists(path) and not os.path.isfile(path):
            kind = "a folder" if os.path.isdir(path) else "a pipe or a device"
            raise InputError(f"{path}: cannot be written: it is {kind}; name a file")
        # The name is cut, so that the temporary one is not too long.
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".tmp")
    except (OSError, ValueError) as error:
        raise _not_possible(path, "written", error) from None
    raw = _Output(descriptor, "w+")
    try:
        file: IO = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" not in mode:
            file = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="\n")
        with file:
            yield file
            with writing(path):
                file.flush()
                os.fsync(descriptor)
        with writing(path):
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if raw.error is not None and isinstance(error, Exception):
            raise _not_possible(path, "written", raw.error) from None
        raise
    _sync_folder(path.parent)


@contextmanager
def atomic_writes(paths: Sequence[str | os.PathLike]) -> Iterator[list[IO[str]]]:
    """Opens several text files as `atomic_write` does; all their bytes are on disk before the first of them appears.

    Raises:
        InputError: one of them cannot be written; then all are unchanged.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(atomic_write(path)) for path in paths]
        yield files
        for path, file in zip(paths, files, strict=True):
            with writing(path):
                file.flush()
                os.fsync(file.fileno())


def make_folder(path: str | os.PathLike) -> Path:
    """Creates the folder `path` and its parents if they are missing, and returns it.

    Raises:
        InputError: it cannot be created, for example because it is a file.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise _not_possible(path, "made a folder", error) from None
    return path


@contextmanager
def hold_interrupts() -> Iterator[None]:
    """Ctrl+C in the block takes effect at its end: for a few quick steps that belong together."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    received: list[tuple] = []
    handler = signal.signal(signal.SIGINT, lambda *signalled: received.append(signalled))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if received and callable(handler):
            handler(*received[0])


def remove_folder(path: str | os.PathLike) -> None:
    """Deletes a temporary folder with all it holds, as far as that is possible; Ctrl+C takes effect afterwards."""
    with hold_interrupts():
        shutil.rmtree(path, ignore_errors=True)


def put_aside(path: str | os.PathLike, ending: str = "") -> Path:
    """Renames the file NAME.SUFFIX to the first free name of NAME.1.SUFFIX, NAME.2.SUFFIX, …, and returns that.

    An `ending` stays the end of the name; the name without it must be free too.

    Raises:
        InputError: it cannot be renamed.
    """
    path = Path(path)
    name = path.with_name(path.name.removesuffix(ending))
    for number in count(1):
        free = name.with_name(f"{name.stem}.{number}{name.suffix}")
        kept = free.with_name(free.name + ending)
        if not os.path.lexists(free) and not os.path.lexists(kept):
            with writing(path):
                path.rename(kept)
            return kept


@contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turns an OSError of writing, renaming or removing `path` into an InputError that names it."""
    try:
        yield
    except OSError as error:
        raise _not_possible(path, "written", error) from None


def _not_possible(path: str | os.PathLike, what: str, error: OSError | ValueError) -> InputError:
    reason = error.strerror or str(error) if isinstance(error, OSError) else "the name is not valid for a file"
    advice = "" if what in ("read", "listed") else "; choose another place"
    return InputError(f"{path}: cannot be {what}: {reason}{advice}")


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` durable, on systems that can open a folder; errors are ignored."""
    if os.name == "posix":
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
