"""Prints the size of the code: files, lines and functions, and the longest five of each.

python -m tools.sizes                # the working tree
python -m tools.sizes 7177877        # a revision
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ytvis.command_line import Parser

ROOT = Path(__file__).parent.parent
ENDINGS = (".py", ".pyx", ".js", ".css", ".html", ".jinja", ".j2")
LONGEST = 5


def git(*words: str) -> str:
    """The output of a git command."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def read_sources(revision: str | None) -> dict[str, str]:
    """{path: text} of the tracked code, in the working tree or at a revision."""
    listed = git("ls-tree", "-r", "--name-only", revision) if revision else git("ls-files")
    paths = [path for path in listed.splitlines() if path.endswith(ENDINGS)]
    if revision:
        return {path: git("show", f"{revision}:{path}") for path in paths}
    return {path: (ROOT / path).read_text("utf-8") for path in paths if (ROOT / path).is_file()}


def functions(path: str, text: str) -> Iterator[tuple[int, str]]:
    """(lines, place) of each function of a Python file."""
    for node in ast.walk(ast.parse(text)) if path.endswith(".py") else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.end_lineno - node.lineno + 1, f"{path}:{node.name}"


def describe(sources: dict[str, str]) -> str:
    """The sizes of `sources` as a few lines."""
    files = sorted(((text.count("\n"), path) for path, text in sources.items()), reverse=True)
    found = sorted((entry for path, text in sources.items() for entry in functions(path, text)), reverse=True)
    lines = [f"{len(files)} files, {sum(size for size, _ in files)} lines, {len(found)} functions in Python"]
    lines += [f"  {size:5} {place}" for size, place in (*files[:LONGEST], *found[:LONGEST])]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m tools.sizes`: prints the sizes of the code, and separately of the tests and tools."""
    parser = Parser(prog="python -m tools.sizes", description=__doc__)
    parser.add_argument("revision", nargs="?", help="a revision of git (default: the working tree)")
    options = parser.parse_args(arguments)
    try:
        sources = read_sources(options.revision)
    except subprocess.CalledProcessError as error:
        print(f"tools.sizes: error: {error.stderr.strip()}", file=sys.stderr)
        return 2
    for name in ("tests", "tools"):
        part = {path: sources.pop(path) for path in list(sources) if path.startswith(f"{name}/")}
        print(f"{name}: {describe(part)}")
    print(f"all else: {describe(sources)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
