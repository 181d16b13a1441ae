"""Reads the files that commands wrote, for comparisons in tests."""

import json
import os
from pathlib import Path

from ytvis.diagnostics import Diagnostics
from ytvis.results import ResultsParser


def read_results(path: str | os.PathLike) -> list[dict]:
    """The entries of a results file; InputError if an entry is invalid."""
    entries = json.loads(Path(path).read_text("utf-8"))
    parser = ResultsParser(Diagnostics(refuse=path))
    for index, entry in enumerate(entries):
        parser.parse(entry, f"entry {index}")
    return entries
