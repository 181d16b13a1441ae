"""The numbers as Markdown tables, to paste into a README or a pull request."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ytvis.report.sections import CATEGORY_STATS, SCORE_TITLES, percent, score_text, threshold_text
from ytvis.score.groups import GROUP_STATS

_SPECIAL = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>#|~"} | {"\n": " ", "\r": " "})


def markdown_text(numbers: dict[str, Any]) -> str:
    """The scores with their intervals, then those of the categories and the groups."""
    return "\n".join(_lines(numbers)) + "\n"


def _lines(numbers: dict[str, Any]) -> Iterator[str]:
    counts = f"{numbers['videos']} videos, {numbers['objects']} objects, {numbers['tracks']} tracks"
    results, annotations = (_plain(Path(numbers[key]).name) for key in ("results", "annotations"))
    yield f"{results} against {annotations}: {counts}; in percent."
    yield ""
    yield from _table(
        ("score", "value", "95 % interval"),
        [(SCORE_TITLES.get(name, name), *score_text(score)) for name, score in numbers["scores"].items()],
    )
    yield f"HOTA, DetA, AssA, IDF1 and ID switches are of tracks with a {threshold_text(numbers)}."
    yield ""
    yield from _table(
        ("category", "objects", *CATEGORY_STATS),
        [
            (row["name"], row["objects"], *(percent(row[name]) for name in CATEGORY_STATS))
            for row in numbers["categories"]
        ],
    )
    yield from _table(
        ("kind", "group", "objects", *GROUP_STATS),
        [
            (
                kind["title"],
                group["label"],
                group["objects"],
                *(percent(group[name]) for name in GROUP_STATS),
            )
            for kind in numbers["groups"]
            for group in kind["groups"]
        ],
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(_plain(value) for value in row) + " |"
    yield ""


def _plain(value: Any) -> str:
    """`value` so that Markdown shows it as it is, in one line."""
    return str(value).encode("utf-8", errors="replace").decode("utf-8").translate(_SPECIAL)
