"""Drawings of the page, as SVG. Sizes are in percent or stretched units: they fit any width, with legible text.

Colours come from the style sheet's classes, save those of tracks.
"""

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from ytvis.drawing import track_colour
from ytvis.report.markup import node
from ytvis.report.videos import Row, Span

UNITS = 1000  # of recall and precision 1 in the stretched part of a plot
CURVE_CLASSES = ("mean", "low", "high")


def curve_group(key: str, curves: Sequence[Sequence[float]], hidden: bool) -> Element:
    """The precision [R] at evenly spaced recalls 0…1 of `CURVE_CLASSES`, as one group that can be shown or hidden."""
    lines = [
        node("polyline", points=_points(values), class_=f"curve {name}", vector_effect="non-scaling-stroke")
        for name, values in zip(CURVE_CLASSES, curves, strict=True)
    ]
    return node("g", lines, data_key=key, class_="hidden" if hidden else None)


def _points(values: Sequence[float]) -> str:
    """The points of a line, without those between two of the same height."""
    heights = [round(UNITS * (1 - value)) for value in values]
    inner = range(1, len(heights) - 1)
    kept = [0, *(i for i in inner if not heights[i - 1] == heights[i] == heights[i + 1]), len(heights) - 1]
    return " ".join(f"{round(UNITS * place / (len(heights) - 1))},{heights[place]}" for place in kept)


def curve_plot(groups: Sequence[Element]) -> Element:
    """The frame, the grid and the scales around groups of curves; recall to the right, precision upwards."""
    marks = [0, 20, 40, 60, 80, 100]
    return node(
        "svg",
        [node("line", x1="0%", x2="100%", y1=f"{mark}%", y2=f"{mark}%", class_="grid") for mark in marks],
        [node("line", x1=f"{mark}%", x2=f"{mark}%", y1="0%", y2="100%", class_="grid") for mark in marks],
        [node("text", mark, x="-6", y=f"{100 - mark}%", dy="0.35em", text_anchor="end") for mark in marks],
        [node("text", mark, x=f"{mark}%", y="100%", dy="1.4em", text_anchor="middle") for mark in marks],
        node("text", "precision, %", x="-6", y="0%", dx="-1.6em", dy="-0.9em"),
        node("text", "recall, %", x="100%", y="100%", dy="2.7em", text_anchor="end"),
        node(
            "svg",
            groups,
            node("line", x1=0, x2=0, y1=0, y2=UNITS, id="cursor", class_="hidden", vector_effect="non-scaling-stroke"),
            **{"viewBox": f"0 0 {UNITS} {UNITS}", "preserveAspectRatio": "none"},
            width="100%",
            height="100%",
        ),
        id="plot",
        role="img",
        aria_label="Precision in percent over recall in percent; the arrow keys move the cursor",
        tabindex=0,
    )


def interval(value: float | None, low: float | None, high: float | None) -> Element:
    """A value 0…1 as a bar, with a line over its interval."""
    if value is None:
        return node("svg", class_="bar", aria_hidden="true")
    whisker = None
    if low is not None and high is not None:
        whisker = node("line", x1=_percent(low), x2=_percent(high), y1="50%", y2="50%", class_="whisker")
    return node(
        "svg",
        node("rect", width="100%", height="100%", class_="track"),
        node("rect", width=_percent(value), height="100%", class_="value"),
        whisker,
        class_="bar",
        aria_hidden="true",
    )


def time_line(row: Row, length: int) -> Element:
    """An object's spans over the frames of its video, coloured by the track that covers it; switches are strokes."""
    parts = []
    for span in row.spans:
        left, width = _percent(span.start / length), _percent((span.end - span.start) / length)
        colour = None if span.track is None else "#{:02x}{:02x}{:02x}".format(*track_colour(span.track))
        parts.append(
            node(
                "rect",
                node("title", _describe(span)),
                x=left,
                y=5,
                width=width,
                height=14,
                fill=colour,
                class_="missed" if colour is None else "covered",
            )
        )
        if colour is not None and 20 * (span.end - span.start) >= length:
            # A number every span that has room for it: colours alone do not tell tracks apart for everybody.
            luma = 0.299 * int(colour[1:3], 16) + 0.587 * int(colour[3:5], 16) + 0.114 * int(colour[5:7], 16)
            ink = "#000000" if luma > 140 else "#ffffff"
            parts.append(node("text", span.track, x=left, dx=4, y=16, fill=ink, aria_hidden="true"))
    for frame in row.switches:
        at = _percent(frame / length)
        parts.append(node("line", node("title", f"switch at frame {frame + 1}"), x1=at, x2=at, y1=0, y2=24))
    text = ", ".join(_describe(span) for span in row.spans) or "never seen"
    return node("svg", parts, class_="timeline", role="img", aria_label=text)


def _describe(span: Span) -> str:
    what = "not covered" if span.track is None else f"track {span.track}"
    return f"frames {span.start + 1} to {span.end}: {what}"


def _percent(part: float) -> str:
    return f"{100 * part:.2f}%"
