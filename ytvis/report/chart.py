"""Draws precision over recall with matplotlib as SVG, coloured by the style sheet of the page."""

import io
import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

CURVES = ("mean", "low", "high")  # of a category, in the order in which they are drawn
SIZE_INCHES = (5.6, 3.4)
LABEL = "Precision in percent over recall in percent; the arrow keys move the cursor"
STYLE = {
    "font.size": 12,
    "svg.fonttype": "none",  # keeps letters as text
    "svg.hashsalt": "report",  # without it the ids in the file are random
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "figure.frameon": False,
    "axes.facecolor": "none",
    "xtick.major.size": 0,  # a mark is a reference to another part of the file, which the page does not need
    "ytick.major.size": 0,
}


def precision_chart(curves: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """The SVG element of the precision over recall, both in percent, of several `curves`.

    Each has the precision [R] in 0…1 at evenly spaced recalls 0…1 under the names `CURVES`, and becomes a group of the
    class "curves" with its place among `curves` as data-key; all but the first are hidden. The page sets the colours.
    Equal input gives equal text.
    """
    from matplotlib import style
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]):
        figure = Figure(SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="recall, %", ylabel="precision, %")
        axes.patch.set_gid("area")
        for place, curve in enumerate(curves):
            lines = [_corners([100 * value for value in curve[name]]) for name in CURVES]
            axes.add_collection(LineCollection(lines, gid=f"curves-{place}", clip_on=False, zorder=3))
        axes.axvline(0, gid="cursor")
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return _page_svg(file.getvalue())


def _corners(values: Sequence[float]) -> list[tuple[float, float]]:
    """The points of a line over 0…100, without those between two of the same height."""
    last = len(values) - 1
    kept = [i for i in range(last + 1) if i in (0, last) or not values[i - 1] == values[i] == values[i + 1]]
    return [(100 * i / last, values[i]) for i in kept]


def _page_svg(text: str) -> str:
    """Turns a file of matplotlib into a part of a page, whose security policy forbids style attributes.

    Styles become attributes, which the style sheet overrides; fonts, name spaces and metadata are dropped.
    """
    root = ElementTree.fromstring(text)
    for element in list(root.iter()):
        element.tag = _plain_tag(element)
        for child in [child for child in element if _plain_tag(child) in ("metadata", "style")]:
            element.remove(child)
        for declaration in filter(None, element.attrib.pop("style", "").split(";")):
            name, _, value = (part.strip() for part in declaration.partition(":"))
            if not name.startswith("font"):
                element.set(name, value)
        if match := re.fullmatch(r"curves-(\d+)", element.get("id", "")):
            del element.attrib["id"]
            element.attrib |= {"class": "curves" if match[1] == "0" else "curves hidden", "data-key": match[1]}
    view_box = root.get("viewBox")
    root.attrib.clear()
    root.attrib |= {"viewBox": view_box, "id": "plot", "role": "img", "aria-label": LABEL, "tabindex": "0"}
    return ElementTree.tostring(root, encoding="unicode", method="html")


def _plain_tag(element: ElementTree.Element) -> str:
    """The name of an element without its name space."""
    return element.tag.rpartition("}")[2]
