"""The parts of the page, from the numbers of metrics.json and what was drawn of the worst videos."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from ytvis.report.charts import curve_group, curve_plot, interval, time_line
from ytvis.report.markup import Child, node
from ytvis.report.videos import VideoDetail
from ytvis.score.groups import GROUP_STATS

LEVELS = 8  # shades of a cell in the confusion matrix
MOST_CATEGORIES = 40  # a larger matrix is cut down to the categories with the most mistakes
SCORE_TITLES = {"IDSW": "ID switches"}
CATEGORY_STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10")

Pictures = Sequence[tuple[VideoDetail, Sequence[str]]]


def page_body(numbers: dict[str, Any], names: dict[int, str], pictures: Pictures) -> list[Element]:
    """The body of the page; `names` are those of all categories by id."""
    sections = {
        "scores": ("Scores", scores_section(numbers)),
        "categories": ("Categories", categories_section(numbers)),
        "curves": ("Precision and recall", curves_section(numbers)),
        "groups": ("Kinds of objects", groups_section(numbers)),
        "confusion": ("Confusion", confusion_section(numbers, names)),
        "videos": ("Worst videos", videos_section(numbers, names, pictures)),
    }
    links = [node("li", node("a", title, href=f"#{key}")) for key, (title, _) in sections.items()]
    counts = f"{numbers['videos']} videos, {numbers['objects']} true objects, {numbers['tracks']} predicted tracks"
    return [
        node("header", node("h1", "How well were the tracks found?"), _files(numbers), node("p", counts)),
        node("nav", node("ul", links), aria_label="Sections"),
        node(
            "main",
            [node("section", node("h2", title), parts, id=key) for key, (title, parts) in sections.items()],
        ),
    ]


def _files(numbers: dict[str, Any]) -> Element:
    """The names of the files, without the folders they were in on somebody's machine."""
    results, annotations = (node("code", Path(numbers[key]).name) for key in ("results", "annotations"))
    return node("p", results, " against ", annotations)


def percent(value: float | None) -> str:
    """A part of 1 in percent with one decimal; a dash for None."""
    return "–" if value is None else f"{100 * value:.1f}"


def score_text(score: dict[str, Any]) -> tuple[str, str]:
    """(the value, its interval) as text; counts are whole numbers, all else percent. "" without an interval."""
    value, low, high = (
        f"{score[key]:.0f}" if score["is_count"] and score[key] is not None else percent(score[key])
        for key in ("value", "low", "high")
    )
    return value, "" if score["low"] is None else f"{low} to {high}"


def threshold_text(numbers: dict[str, Any]) -> str:
    """Which tracks HOTA, IDF1 and switches are of."""
    return f"score of at least {numbers['tracking_threshold']:.3g}"


def scores_section(numbers: dict[str, Any]) -> list[Child]:
    tiles = []
    for name, score in numbers["scores"].items():
        value, between = score_text(score)
        drawn = None if score["is_count"] else interval(score["value"], score["low"], score["high"])
        tiles.append(
            node(
                "div",
                node("dt", SCORE_TITLES.get(name, name)),
                node("dd", node("b", value), node("span", between), drawn),
            )
        )
    note = (
        "In percent, switches counted; a dash where there is nothing to measure. Behind a value stands its 95 % "
        f"bootstrap interval: where it falls if the videos are drawn anew, with seed {numbers['seed']}. HOTA, IDF1 and "
        f"switches are of tracks with a {threshold_text(numbers)}, each category alone."
    )
    return [node("p", note, class_="quiet"), node("dl", tiles, class_="tiles")]


def categories_section(numbers: dict[str, Any]) -> list[Child]:
    columns = ("category", "objects", *CATEGORY_STATS)
    head = node(
        "tr", [node("th", node("button", name, type="button"), scope="col", aria_sort="none") for name in columns]
    )
    rows = [
        node(
            "tr",
            node("th", row["name"], scope="row"),
            node("td", row["objects"], data_value=row["objects"]),
            [_number_cell(row[name]) for name in CATEGORY_STATS],
        )
        for row in numbers["categories"]
    ]
    note = "Categories with true objects; scores in percent. The heads of the columns sort."
    table = node("table", node("thead", head), node("tbody", rows), class_="sortable")
    return [node("p", note, class_="quiet"), _scrolling(table)]


def _number_cell(value: float | None) -> Element:
    return node("td", percent(value), data_value=-1 if value is None else value)


def _scrolling(table: Element) -> Element:
    """A table that scrolls sideways by itself where it is wider than the page; also with the keyboard."""
    return node("div", table, class_="wide", tabindex=0, role="group", aria_label="table")


def curves_section(numbers: dict[str, Any]) -> list[Child]:
    names = {row["id"]: row["name"] for row in numbers["categories"]} | {None: "all categories"}
    keys = [str(place) for place in range(len(numbers["curves"]))]
    options, groups = [], []
    for key, curve in zip(keys, numbers["curves"], strict=True):
        options.append(node("option", names[curve["category"]], value=key))
        groups.append(curve_group(key, [curve[name] for name in ("mean", "low", "high")], hidden=key != "0"))
    legend = [
        node("li", node("svg", node("line", x1=0, x2="100%", y1="50%", y2="50%", class_=f"curve {name}")), f" {text}")
        for name, text in (("low", "IoU 0.5"), ("high", "IoU 0.75"), ("mean", "mean over 0.5…0.95"))
    ]
    return [
        node("p", node("label", "Category ", node("select", options, id="category"))),
        node("figure", curve_plot(groups), node("figcaption", node("ul", legend, class_="legend"))),
        node("output", "Precision over recall, in percent.", id="readout"),
    ]


def groups_section(numbers: dict[str, Any]) -> list[Child]:
    note = (
        "Each group is scored alone: finding an object of another group gains and loses nothing, but a false track "
        "counts against every group, so that these AP are lower than that of all objects."
    )
    tables = []
    for kind in numbers["groups"]:
        head = node("tr", [node("th", name, scope="col") for name in ("", "objects", *GROUP_STATS, "AP")])
        rows = [
            node(
                "tr",
                node("th", group["label"], scope="row"),
                node("td", group["objects"]),
                [_number_cell(group[name]) for name in GROUP_STATS],
                node("td", interval(group["AP"], None, None), class_="drawn"),
            )
            for group in kind["groups"]
        ]
        table = _scrolling(node("table", node("thead", head), node("tbody", rows)))
        tables.append(node("div", node("h3", kind["title"]), node("p", kind["measured"], class_="quiet"), table))
    return [node("p", note, class_="quiet"), node("div", tables, class_="pair")]


def confusion_section(numbers: dict[str, Any], names: dict[int, str]) -> list[Child]:
    cells = {(cell["true"], cell["predicted"]): cell["tracks"] for cell in numbers["confusion"]}
    keys, left_out = shown_categories(cells, list(names))
    totals = {key: sum(count for (true, _), count in cells.items() if true == key) for key in (*keys, None)}
    head = node(
        "tr",
        node("th", "true ↓ taken for →", scope="col"),
        [node("th", names[key], scope="col") for key in keys],
        node("th", "missed", scope="col"),
    )
    rows = [
        node(
            "tr",
            node("th", "nothing there" if true is None else names[true], scope="row"),
            [_cell(cells.get((true, key), 0), totals[true], true, key) for key in (*keys, None)],
        )
        for true in (*keys, None)
    ]
    cut = f"{numbers['cut']:.3g}"
    note = (
        f"Tracks with a score of at least {cut}, the cut at which F1 is the greatest, and the object that each takes: "
        "at an IoU of whole tracks of 0.5 or more, whatever the category. Shades are parts of a row."
    )
    more = f" Shown are the {len(keys)} categories with the most mistakes, of {len(keys) + left_out}." * bool(left_out)
    return [
        node("p", note, more, class_="quiet"),
        _scrolling(node("table", node("thead", head), node("tbody", rows), class_="matrix")),
    ]


def shown_categories(cells: dict, names: list[int]) -> tuple[list[int], int]:
    """(the categories of the matrix by id, how many are left out)."""
    used = [key for key in names if any(key in cell for cell in cells)]
    mistakes = {key: sum(n for cell, n in cells.items() if key in cell and cell[0] != cell[1]) for key in used}
    chosen = sorted(used, key=lambda key: -mistakes[key])[:MOST_CATEGORIES]
    return sorted(chosen), len(used) - len(chosen)


def _cell(count: int, total: int, true: int | None, predicted: int | None) -> Element:
    if true is None and predicted is None:
        return node("td", class_="empty")
    level = round(LEVELS * count / total) if total else 0
    kind = "right" if true == predicted else "wrong"
    return node("td", count or "·", class_=f"{kind} level-{level if count == 0 else max(level, 1)}")


def videos_section(numbers: dict[str, Any], names: dict[int, str], pictures: Pictures) -> list[Child]:
    note = (
        "Worst first. The quality of a video is the F1 of its tracks, twice the right ones by all tracks and objects, "
        f"in percent and as the mean over IoU 0.5…0.95; tracks from a score of {numbers['cut']:.3g} on. A true object "
        "has the number and the colour of the track that covers it in the most frames. Its line shows which track "
        "covers it, with a mask IoU of at least 0.5; an upright stroke is a switch, a dashed frame a miss, a gap says "
        "that it is not seen."
    )
    if not pictures:
        return [node("p", "No video has a mistake.")]
    return [node("p", note, class_="quiet"), [_video(video, addresses, names) for video, addresses in pictures]]


def _video(video: VideoDetail, addresses: Sequence[str], names: dict[int, str]) -> Element:
    figures = [
        node(
            "figure",
            node("img", src=address, alt=f"{video.name}, frame {frame + 1}: truth left, prediction right"),
            node("figcaption", f"frame {frame + 1} of {video.length}"),
        )
        for frame, address in zip(video.frames, addresses, strict=True)
    ]
    rows = [
        node(
            "tr",
            node("th", f"{names[row.category_id]} #{row.number}", scope="row"),
            node("td", time_line(row, video.length), class_="drawn"),
        )
        for row in video.rows
    ]
    objects = sum(1 for truth in video.truths if not truth.is_crowd)
    counts = " · ".join(
        f"{count} {what}{'es' if what == 'switch' else 's'}" if count != 1 else f"1 {what}"
        for count, what in ((objects, "object"), (len(video.tracks), "track"), (video.switches, "switch"))
    )
    return node(
        "article",
        node("h3", video.name, node("span", f"quality {percent(video.quality)} · {counts}", class_="quiet")),
        node("div", figures, class_="frames"),
        node("table", node("tbody", rows), class_="lines") if rows else node("p", "No true object is in this video."),
    )
