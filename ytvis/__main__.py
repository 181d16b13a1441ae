"""Check, convert, score, compare and view files in the YouTube-VIS format.

    python -m ytvis score annotations.json results.json
    python -m ytvis check annotations.json --images frames
    python -m ytvis check results.json --ann_file annotations.json
    python -m ytvis COMMAND --help

Exit codes: 0 done, 1 `check` found faults, 2 bad input, in one line that names the file, 130 interrupted.
"""

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from ytvis import __version__
from ytvis.command_line import Parser, end_process, exit_at_interrupt, log_if_accepted, run_command

# {command: (its module, what it does)}. A module has `add_arguments(parser)` and `run(options) -> exit code`; only the
# module of the given command is imported.
COMMANDS = {
    "score": ("ytvis.score.command", "score a results file: AP, HOTA, IDF1, ID switches"),
    "compare": ("ytvis.score.compare", "test whether one results file is significantly better than another"),
    "check": ("ytvis.check", "check an annotation file or a results file"),
    "convert": ("ytvis.convert.command", "convert annotations of other tools to the YouTube-VIS format, and back"),
    "merge": ("ytvis.merge", "join annotation files, merging classes of the same name"),
    "split": ("ytvis.splits", "divide an annotation file at random, or select the videos of a list"),
    "browse": ("ytvis.browse", "draw a contact sheet of a data set"),
    "report": ("ytvis.report.command", "write a web page with the scores and mistakes of a results file"),
    "view": ("ytvis.viewer.command", "show results beside the video, in a web page"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, `arguments` by default those of the process; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] not in COMMANDS:
        # The first word is parsed alone, so that --help or a typing error imports no command's module.
        _top_parser().parse_args(arguments[:1])
        _top_parser().error("name a command")
    name, rest = arguments[0], arguments[1:]
    module = importlib.import_module(COMMANDS[name][0])
    parser = Parser(prog=f"ytvis {name}", description=module.__doc__)
    module.add_arguments(parser)
    options = parser.parse_args(rest)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def command() -> int:
        with log_if_accepted():
            return module.run(options)

    return run_command(parser.prog, command)


def _top_parser() -> argparse.ArgumentParser:
    """The parser of the first word."""
    commands = "\n".join(f"  {name:<10} {what}" for name, (_, what) in COMMANDS.items())
    parser = Parser(
        prog="ytvis",
        description=f"{__doc__}\nCommands:\n{commands}",
        usage="ytvis COMMAND …",
    )
    parser.add_argument("--version", action="version", version=f"ytvis {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those above")
    return parser


def run_process() -> NoReturn:
    """Runs the process's command line and ends it."""
    exit_at_interrupt("ytvis")
    end_process(main())


if __name__ == "__main__":
    run_process()
