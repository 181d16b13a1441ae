"""Text from files and command lines in messages of one printable line."""

import re
from typing import Any

LONGEST_WORD = 300  # characters of a word, such as a path, that a message shows
LONGEST_LINE = 2000
LONGEST_NAME = 60  # characters of a class name in tables and lists


def one_line(text: str) -> str:
    """A message as one line of bounded length: line breaks, NUL and halves of surrogate pairs are escaped, the middles
    of very long words and lines are left out."""
    text = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: _shortened(word[0], LONGEST_WORD), text)
    return _shortened("".join(letter if letter.isprintable() else _escape(letter) for letter in text), LONGEST_LINE)


def short_name(name: str) -> str:
    """A class name shortened for tables and lists."""
    return excerpt(name, LONGEST_NAME)


def shown(value: Any, longest: int = 120) -> str:
    """The beginning of a value of a file for a message; text is quoted."""
    return excerpt(f"{value!r}" if isinstance(value, str) else value, longest)


def excerpt(value: Any, longest: int = 120) -> str:
    """The beginning of a value's text, printable, with single spaces for line breaks."""
    try:
        text = str(value)
    except ValueError:  # Python prints no integer of more than 4300 digits
        return "a number of thousands of digits"
    if len(text) > longest:
        text = f"{text[: longest - 1]}…"
    text = "".join(letter if letter.isprintable() else " " if letter.isspace() else _escape(letter) for letter in text)
    return " ".join(text.split())


def _shortened(text: str, limit: int) -> str:
    half = (limit - 1) // 2
    return text if len(text) <= limit else f"{text[:half]}…{text[-half:]}"


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
