"""Command lines: parsers, and the exit codes and one-line messages shared by all programs here."""

import argparse
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from ytvis.files import InputError
from ytvis.messages import one_line, shown

KILLED_BY_INTERRUPT = 130  # what a shell reports for Ctrl+C


class Parser(argparse.ArgumentParser):
    """A parser that does not wrap `description`, and reports bad arguments in one line, with exit code 2.

    Text and paths must not be empty, for a script passes "" where a variable is not set, and as a path it would be the
    working directory. An argument that may be empty has the type str.
    """

    def __init__(self, prog: str | None = None, description: str | None = None, **options: Any):
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(prog=prog, description=description, **options)
        for kind in (None, Path):  # what names, files and folders are read as
            self.register("type", kind, partial(_not_empty, kind or str))

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: error: {one_line(message)}; --help lists the options\n")

    def refuse_options_of(self, other: "Parser", arguments: Sequence[str], reason: str) -> None:
        """Raises InputError, "--OPTION `reason`", if `arguments` have an option of `other` that this parser lacks.

        It is for a program with several modes, each with its own parser.
        """
        for text in arguments:
            name = text.partition("=")[0]
            if name in other._option_string_actions and name not in self._option_string_actions:
                raise InputError(f"{name} {reason}")


def _not_empty(kind: Callable[[str], Any], text: str) -> Any:
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return kind(text)


def number_in(kind: type[int] | type[float], least: float = -math.inf, most: float = math.inf) -> Callable[[str], Any]:
    """Returns a converter for argparse from text to an int or a float in `least`…`most`."""
    noun = "a whole number" if kind is int else "a number"
    limits = f" in {least}…{most}" if most < math.inf else f" of at least {least}" if least > -math.inf else ""

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:  # True for nan too
            raise argparse.ArgumentTypeError(f"{shown(text, 80)} is not {noun}{limits}")
        return value

    return convert


positive = number_in(int, 1)
not_negative = number_in(int, 0)
seed_number = number_in(int, 0, 2**32 - 1)  # valid for every random generator here


def exit_at_interrupt(program: str) -> None:
    """Makes an unhandled interrupt (Ctrl+C) end the process like one in `run_command`.

    A script calls it before imports that take seconds.
    """

    def report(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, traceback)
            return
        print(f"{program}: interrupted", file=sys.stderr, flush=True)
        os._exit(KILLED_BY_INTERRUPT)  # after this hook Python would end itself by the signal

    sys.excepthook = report


def end_process(code: int | None) -> NoReturn:
    """Ends the process with the exit code returned by `run_command`.

    Python itself would end by the signal after an interrupt that came while an imported module ran `exec`.
    """
    if code == KILLED_BY_INTERRUPT:
        os._exit(code)
    sys.exit(code)


def run_command(program: str, command: Callable[[], int | None], hint: str = "") -> int:
    """Runs `command`, one command line of `program`, and returns its exit code; None is 0.

    InputError and errors of the system (a full disk) give 2, too little memory or the loss of a worker process 1,
    Ctrl+C 130, with one line on stderr each; `hint` is appended to the last two kinds. If the reader of the output has
    ended, such as `head`, that is not an error.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name may have characters that the stream's encoding lacks
    try:
        code = command() or 0
        if sys.stdout is not None:  # None if the process was started without one
            sys.stdout.flush()
        return code
    except InputError as error:
        problem = str(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        problem = error.strerror or str(error)
        if error.filename is not None:
            problem = f"{os.fsdecode(error.filename)}: {problem}"
    except (MemoryError, RuntimeError) as error:
        problem = _lack_of_memory(error)
        if problem is None:
            raise
        _report(f"{program}: error: {problem}{hint}")
        return 1
    except KeyboardInterrupt:
        _report(f"{program}: interrupted{hint}")
        return KILLED_BY_INTERRUPT
    _report(f"{program}: error: {one_line(problem)}")
    return 2


def _lack_of_memory(error: MemoryError | RuntimeError) -> str | None:
    """What is said where memory ran out, here, on the device, or in a worker process; None for another error.

    Torch's errors on the host and of its DataLoader have no type of their own.
    """
    text = one_line(str(error))
    if isinstance(error, BrokenExecutor) or text.startswith("DataLoader worker (pid"):
        return "a worker process was killed, probably because memory ran out; use fewer workers"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return f"memory ran out; use smaller sizes or batches, or fewer processes ({text or type(error).__name__})"
    return None


class _HeldLog(logging.Handler):
    """Keeps log records until it is flushed, and passes them to `handlers` then."""

    def __init__(self, handlers: Sequence[logging.Handler]):
        super().__init__()
        self.handlers = handlers
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def flush(self) -> None:
        for record in self.records:
            for handler in self.handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)
        self.records.clear()


@contextmanager
def log_if_accepted() -> Iterator[None]:
    """Shows what is logged in the block when it ends; nothing if it refuses its input, so that one line says why.

    A block that goes on for long flushes the handlers of the root logger after it has accepted its input.
    """
    root = logging.getLogger()
    held = _HeldLog(root.handlers)
    root.handlers = [held]
    try:
        yield
    except (InputError, OSError):
        held.records.clear()
        raise
    finally:
        root.handlers = held.handlers
        held.flush()


def _report(line: str) -> None:
    """Prints a line to stderr if that is possible; otherwise the exit code alone reports the error."""
    with suppress(OSError):
        if sys.stderr is not None:
            print(line, file=sys.stderr, flush=True)
