"""Command lines: parsers, and the exit codes and one-line messages that all programs here share."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence

from ytvis.files import InputError

LONGEST_WORD = 300  # characters of a word, such as a path, that a message shows
LONGEST_LINE = 2000
KILLED_BY_INTERRUPT = 130  # what a shell reports for Ctrl+C


class Parser(argparse.ArgumentParser):
    """A parser that shows `description` as it is written, and reports bad arguments in one line, with exit code 2."""

    def __init__(self, prog: str | None = None, description: str | None = None, epilog: str | None = None):
        super().__init__(
            prog=prog, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
        )

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: error: {one_line(message)}; --help lists the options\n")

    def refuse_options_of(self, other: "Parser", arguments: Sequence[str], reason: str) -> None:
        """Raises InputError, "--OPTION `reason`", if `arguments` have an option that `other` knows and this does not.

        It is for a program with several modes, each with a parser of its own.
        """
        for text in arguments:
            name = text.partition("=")[0]
            if name in other._option_string_actions and name not in self._option_string_actions:
                raise InputError(f"{name} {reason}")


def run_command(program: str, command: Callable[[], int], hint: str = "") -> int:
    """The exit code of `command`, which runs one command line of `program`.

    InputError is 2 and Ctrl+C 130, with one line on stderr each; `hint` ends the latter. A reader of the output that
    has ended, such as `head`, is no error.
    """
    try:
        code = command()
        sys.stdout.flush()
    except InputError as error:
        print(f"{program}: error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted{hint}", file=sys.stderr)
        return KILLED_BY_INTERRUPT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def one_line(text: str) -> str:
    """`text` in one line of bounded length: the middles of very long words and lines are left out."""
    text = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: _shortened(word[0], LONGEST_WORD), text)
    text = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
    return _shortened(text, LONGEST_LINE)


def _shortened(text: str, limit: int) -> str:
    half = (limit - 1) // 2
    return text if len(text) <= limit else f"{text[:half]}…{text[-half:]}"
