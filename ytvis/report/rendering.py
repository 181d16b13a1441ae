"""The texts of a report: its page, and its numbers as Markdown tables, from the templates in page/."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ytvis.drawing import css_colour, text_colour, track_colour
from ytvis.report.chart import precision_chart
from ytvis.report.mistakes import confusion_matrix
from ytvis.report.scores import AP_NAMES
from ytvis.report.videos import VideoDetail
from ytvis.score.groups import GROUP_STATS

if TYPE_CHECKING:
    from jinja2 import Environment

CONSTANTS = {"category_stats": AP_NAMES, "group_stats": GROUP_STATS, "titles": {"IDSW": "ID switches"}}
_MARKDOWN_SIGNS = str.maketrans({character: f"\\{character}" for character in "\\`*_{}[]<>#|~"})


def page_text(
    numbers: dict[str, Any], names: dict[int, str], videos: Sequence[tuple[VideoDetail, Sequence[str]]]
) -> str:
    """Returns the whole page; its security policy allows only its own style and script.

    `numbers` are those of metrics.json, `names` those of all categories by id, `videos` the worst ones, each with the
    addresses of its pictures.
    """
    page = files(__package__) / "page"
    return _render(
        "report.html",
        numbers=numbers,
        names=names,
        videos=videos,
        chart=precision_chart(numbers["curves"]),
        matrix=confusion_matrix(numbers["confusion"]),
        style=(page / "report.css").read_text("utf-8"),
        script=(page / "report.js").read_text("utf-8"),
    )


def markdown_text(numbers: dict[str, Any]) -> str:
    """The scores with their intervals, then those of the categories and of the groups, as Markdown tables."""
    return _render("metrics.md", numbers=numbers)


def _render(name: str, **values: Any) -> str:
    """Renders a template of page/ with `values`; characters of names that UTF-8 or HTML lacks are replaced."""
    text = _environment().get_template(name).render(**CONSTANTS, **values)
    return text.encode("utf-8", errors="replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "page"),
        autoescape=lambda name: name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "colour": lambda track: css_colour(track_colour(track)),
        "digest": _digest,
        "file_name": lambda path: Path(path).name,  # without its folder, which is private
        "ink": lambda track: css_colour(text_colour(track_colour(track))),
        "percent": percent,
        "plain": lambda text: " ".join(str(text).translate(_MARKDOWN_SIGNS).splitlines()),
        "score_text": score_text,
        "short": lambda value: f"{value:.3g}",
        "width": lambda part: f"{100 * part:.2f}%",
    }
    return environment


def percent(value: float | None) -> str:
    """A fraction in percent with one decimal; a dash for None."""
    return "–" if value is None else f"{100 * value:.1f}"


def score_text(score: dict[str, Any]) -> tuple[str, str]:
    """(the value, its interval) as text; counts are whole numbers, all others percent. "" without an interval."""
    value, low, high = (
        f"{score[key]:.0f}" if score["is_count"] and score[key] is not None else percent(score[key])
        for key in ("value", "low", "high")
    )
    return value, "" if score["low"] is None else f"{low} to {high}"


def _digest(text: str) -> str:
    """The source of a content security policy that allows just this inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
