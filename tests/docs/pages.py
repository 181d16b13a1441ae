"""The fenced blocks of the pages, and the commands in them."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_MORE = "…"  # as a word of its own: and so on
_PROGRAMS = ("python", "torchrun", "make", "pip", "srun", "git", "conda")


def blocks(page: str, *languages: str) -> list[str]:
    """The blocks of `page`, a path from the repository's root, whose fence names one of `languages` ("" for none)."""
    text = (ROOT / page).read_text("utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for language, block in found if language in languages]


def lines(block: str) -> list[str]:
    """The lines of a block; a line that ends with a backslash is joined with the next one."""
    return re.sub(r"\\\n *", "", block).splitlines()


def pages() -> list[str]:
    """Every page of the documentation."""
    paths = [ROOT / "README.md", ROOT / "weights" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in paths]


def commands(page: str) -> list[list[str]]:
    """The words of each command in the shell blocks of `page`.

    Comments are removed, and so are brackets around optional words. A shell's `$name` is replaced by the value that the
    block assigns to it.
    """
    found = []
    for block in blocks(page, "", "sh", "bash"):
        values = dict(re.findall(r"\b(\w+)=(\S+)$", block, re.MULTILINE))
        for line in lines(block):
            if line.split(" ", 1)[0] in _PROGRAMS:
                line = re.sub(r"\[(--[^\]]*)\]", r"\1", line)
                words = [_substituted(word, values) for word in shlex.split(line, comments=True)]
                found.append([word for word in words if word != _MORE])
    return found


def _substituted(word: str, values: dict[str, str]) -> str:
    return values[word[1:]] if word.startswith("$") and word[1:] in values else word
