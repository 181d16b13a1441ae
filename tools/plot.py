"""Draws the curves of trainings from the logs of train.py.

    python -m tools.plot weights/STMask_demo_training.jsonl --output=curves.png
    python -m tools.plot fp32/STMask_demo_log.jsonl bf16/STMask_demo_log.jsonl --labels=fp32,bf16 --output=both.svg

There is a panel for the total loss, each loss, the learning rate, and AP and AP50 of validations, if any. Several logs
are drawn over each other. Each point of a loss is the mean of ten iterations; a stage of a recipe that lacks the
loss is a gap.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from utils.training_log import MEASURES, read_log
from ytvis.command_line import Parser, positive
from ytvis.files import InputError, atomic_write

COLUMNS = 3
PANEL_INCHES = (16 / COLUMNS, 3.2)
DOTS_PER_INCH = 100  # 1600 pixels wide
LINE_STYLES = ("-", "--", "-.", ":")  # the next one after ten colours
WIDEST, NARROWEST = 3.6, 1.2  # points; each run is narrower than the one before, so that equal curves all show
MAX_MARKED = 30  # curves with at most this many points mark them; a single point would not show otherwise
# The same logs give the same file regardless of the user's settings (ids in SVG are random without the salt), and a
# dollar sign in a path is not parsed.
STYLE = ["default", {"svg.hashsalt": "tools.plot", "text.parse_math": False}]

Record = Mapping[str, Any]
Curve = tuple[list[int], list[float]]  # iterations, ascending; values, NaN where they are not finite

MEANINGS = {
    **{"total": "sum of the losses", "BIoU": "boxes, 1 − DIoU", "B": "boxes, smooth L1", "center": "centerness"},
    **{"C": "classes", "M": "masks", "T": "tracking embeddings", "S": "semantic segmentation"},
    **{"B_shift": "boxes moved to the next frame", "M_shift": "masks moved to the next frame"},
    **{f"C{level}": f"classes of crops from C{level}" for level in (3, 4, 5)},
}


class Panel(NamedTuple):
    """A quantity to draw: its value in a line of the log (None where the line lacks it), and whether it is a loss,
    which is noisy and which some stages lack."""

    title: str
    value: Callable[[Record], float | None]
    is_loss: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = Parser(prog="python -m tools.plot", description=__doc__)
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG", help="a training's <config>_log.jsonl")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="picture to write, .png or .svg")
    parser.add_argument("--title", help="title above the panels")
    parser.add_argument("--labels", metavar="A,B,…", help="names of the logs in the legend (default: from the files')")
    parser.add_argument(
        "--smooth",
        type=positive,
        default=1,
        metavar="N",
        help="draw losses as means over N lines of the log, and the lines themselves pale behind (default: 1)",
    )
    options = parser.parse_args(arguments)
    labels = options.labels.split(",") if options.labels else default_labels(options.logs)
    if len(labels) != len(options.logs):
        parser.error(f"--labels has {len(labels)} names for {len(options.logs)} logs")
    try:
        with style.context(STYLE):
            figure = draw_curves([read_log(path) for path in options.logs], labels, options.title, options.smooth)
            save_figure(figure, options.output)
    except InputError as error:
        print(f"tools.plot: error: {error}", file=sys.stderr)
        return 2
    return 0


def default_labels(paths: Sequence[Path]) -> list[str]:
    """The files' names without `_log.jsonl`, or their paths if the names are not unique."""
    names = [path.stem.removesuffix("_log") for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def draw_curves(
    runs: Sequence[Sequence[Record]], labels: Sequence[str], title: str | None = None, smooth: int = 1
) -> Figure:
    """The curves of `runs`, each the lines of a log (see `read_log`), over each other in one panel per quantity.

    A run has no curve in the panels of quantities that it lacks. Losses are means over the last `smooth` lines.

    Raises:
        InputError: a run has nothing to draw.
    """
    drawn = []
    for panel in _panels(runs):
        curves = [_curve(run, panel) for run in runs]
        if any(iterations for iterations, _ in curves):
            drawn.append((panel, curves))
    for index, label in enumerate(labels):
        if not any(curves[index][0] for _, curves in drawn):
            raise InputError(f"{label}: the log has nothing to draw yet; train.py writes a line every ten iterations")

    width, height = PANEL_INCHES
    num_rows = math.ceil(len(drawn) / COLUMNS)
    figure = Figure((COLUMNS * width, num_rows * height + 0.8), dpi=DOTS_PER_INCH, layout="constrained")
    looks = [_looks(index, len(runs)) for index in range(len(runs))]
    axes = None
    for place, (panel, curves) in enumerate(drawn):
        axes = figure.add_subplot(num_rows, COLUMNS, place + 1, title=panel.title, sharex=axes)
        axes.set_ylabel(MEANINGS.get(panel.title))
        axes.grid(alpha=0.3)
        if place >= len(drawn) - COLUMNS:  # no panel is below
            axes.set_xlabel("iteration")
        for curve, look in zip(curves, looks, strict=True):
            _draw_curve(axes, curve, smooth if panel.is_loss else 1, look)
    handles = [Line2D([], [], label=label, **look) for label, look in zip(labels, looks, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(runs), 5), frameon=False)
    if title is not None:
        figure.suptitle(title)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Writes `figure` as PNG or SVG, by the ending of the name; the same figure gives the same bytes.

    Raises:
        InputError: the name has another ending, or the file cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise InputError(f"{path}: cannot be written: the name of the picture must end in .png or .svg")
    try:
        with atomic_write(path, "wb") as file:
            figure.savefig(file, format=kind, metadata={"Date": None} if kind == "svg" else None)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None


def _panels(runs: Sequence[Sequence[Record]]) -> list[Panel]:
    """The panels, with losses in the order in which they first appear."""
    others = ("stage", "iteration", "total", "validation", *MEASURES)
    losses = dict.fromkeys(name for run in runs for record in run for name in record if name not in others)
    return [
        *(Panel(name, lambda record, name=name: record.get(name), is_loss=True) for name in ("total", *losses)),
        Panel("learning rate", lambda record: record.get("lr")),
        *(Panel(f"{name} (%)", lambda record, name=name: _percentage(record, name)) for name in ("AP", "AP50")),
    ]


def _percentage(record: Record, name: str) -> float | None:
    """A validation's score in percent; None if it is missing or -1, for a set without truth."""
    score = record.get("validation", {}).get(name, -1)
    return None if score < 0 else 100 * score


def _curve(run: Sequence[Record], panel: Panel) -> Curve:
    """The values by iteration; if the log has an iteration twice, the later line is used.

    In a stage between that lacks the loss there are NaNs, as for values that are not finite.
    """
    points = {}
    for record in run:
        value = panel.value(record)
        if value is not None or (panel.is_loss and "total" in record):
            points[record["iteration"]] = value
    known = [x for x, value in points.items() if value is not None]
    iterations = [x for x in sorted(points) if known and min(known) <= x <= max(known)]
    values = (points[x] for x in iterations)
    return iterations, [math.nan if value is None or not math.isfinite(value) else value for value in values]


def _looks(index: int, count: int) -> dict[str, Any]:
    """The style of run `index` of `count`."""
    return {
        "color": f"C{index % 10}",
        "linestyle": LINE_STYLES[index // 10 % len(LINE_STYLES)],
        "linewidth": NARROWEST + (WIDEST - NARROWEST) * (count - 1 - index) / max(count - 1, 1),
    }


def _draw_curve(axes: Axes, curve: Curve, smooth: int, look: Mapping[str, Any]) -> None:
    iterations, values = curve
    if smooth > 1:
        axes.plot(iterations, values, **{**look, "linewidth": 0.8}, alpha=0.3)
        values = _trailing_means(values, smooth)
    axes.plot(iterations, values, **look, marker="." if len(values) <= MAX_MARKED else None)


def _trailing_means(values: Sequence[float], count: int) -> list[float]:
    """At each place the mean of up to `count` last values; NaNs are ignored."""
    windows = ([v for v in values[max(0, end - count) : end] if not math.isnan(v)] for end in range(1, len(values) + 1))
    return [fmean(window) if window else math.nan for window in windows]


if __name__ == "__main__":
    sys.exit(main())
