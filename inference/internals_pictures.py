"""Pictures of the method's internals: prototypes, anchors (FCA), samples (FCB), the shift of temporal fusion.

Each picture is a matplotlib figure of panels over the frame; `PICTURES` lists them all.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.patheffects import withStroke

from inference.internals import ObjectInternals
from ytvis.drawing import css_colour, drawable_name, font_families, text_colour, track_colour
from ytvis.files import InputError

DOTS_PER_INCH = 100
WIDTH_INCHES = 12.0
HIGHEST_INCHES = 5.5  # of a panel of the whole frame, which may be upright
MOST_OBJECTS = 3  # objects with their own panel
PROTOTYPE_COLUMNS = 8
KERNEL_COLOURS = ("#4cc9f0", "#f72585", "#ffd60a", "#80ed99", "#ff9f1c")
STYLE = ["default", {"text.parse_math": False, "font.size": 10, "axes.titlesize": 10}]
_HALO = [withStroke(linewidth=3, foreground="black", alpha=0.6)]


@dataclass(frozen=True)
class FrameInternals:
    """One frame and how the method found its objects.

    `frame` and `last_frame`, the one before if there is one, are [h,w,3] uint8 RGB; `prototypes` [h',w',K] ≥ 0 without
    padding; `objects` are by falling score; `kernels` (height, width) in cells, of each anchor of a cell.
    """

    frame: np.ndarray
    last_frame: np.ndarray | None
    prototypes: np.ndarray
    objects: Sequence[ObjectInternals]
    kernels: Sequence[tuple[int, int]]
    class_names: Sequence[str]

    @property
    def extent(self) -> tuple[int, int, int, int]:
        """Left, right, bottom and top of the frame in its pixels, for matplotlib."""
        height, width = self.frame.shape[:2]
        return 0, width, height, 0

    def name(self, item: ObjectInternals) -> str:
        """The label of an object, such as "ring #3"."""
        return f"{drawable_name(self.class_names[item.label - 1], item.label)} #{item.track_id}"


def draw_internals(name: str, view: FrameInternals) -> np.ndarray:
    """The picture `name` of `PICTURES`, [h,w,3] uint8 RGB.

    Raises:
        InputError: the frame has nothing to show in it.
    """
    families = font_families(view.name(item) for item in view.objects)
    with style.context([*STYLE, {"font.family": families}]):
        figure = PICTURES[name](view)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_prototypes(view: FrameInternals) -> Figure:
    """For the best object: the prototypes with their weights, the most important first, and their sum."""
    item = _several(view, lambda item: True, "object")[0]
    order = np.argsort(-np.abs(item.weights) * _brightness(view, item), kind="stable")
    columns = PROTOTYPE_COLUMNS
    rows = -(-len(order) // columns)
    tile = WIDTH_INCHES / columns * _aspect(view)
    top = WIDTH_INCHES / 3 * _aspect(view)
    heights = top + 0.4, rows * (tile + 0.3) + 0.25
    figure = Figure((WIDTH_INCHES, sum(heights)), dpi=DOTS_PER_INCH, layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=heights)
    total = view.prototypes @ item.weights
    limit = max(float(np.abs(total).max()), 1e-6)
    object_axes, sum_axes, mask_axes = upper.subplots(1, 3)
    _show(object_axes, view, view.frame, f"{view.name(item)}, score {item.score:.2f}")
    _box(object_axes, item.box, _colour(item))
    image = _show(sum_axes, view, total, "sum of prototype × weight")
    image.set(cmap="RdBu_r", clim=(-limit, limit))
    _box(sum_axes, item.box, "black", linewidth=1.2)
    _show(mask_axes, view, view.frame, "sigmoid of it, cut to the box")
    shade = np.zeros((*item.mask.shape, 4))
    shade[..., 3] = 0.7 * (1 - item.mask)
    mask_axes.imshow(shade, extent=view.extent, interpolation="bilinear")
    _box(mask_axes, item.box, _colour(item), linewidth=1.2)
    lower.suptitle(f"the {len(order)} prototypes of the frame, and the object's weight of each", fontsize=10)
    brightest = max(float(np.percentile(view.prototypes, 99.5)), 1e-6)
    for place, number in enumerate(order):
        axes = lower.add_subplot(rows, columns, place + 1)
        weight = item.weights[number]
        image = _show(axes, view, view.prototypes[..., number], "")
        image.set(cmap="magma", clim=(0, brightest))
        axes.set_title(
            f"{weight:+.2f}".replace("-", "−"), color="#b2182b" if weight > 0 else "#2166ac", fontweight="bold", pad=3
        )
        _box(axes, item.box, "white", linewidth=0.8)
    return figure


def draw_anchors(view: FrameInternals) -> Figure:
    """FCA: the anchor of each object, and for the best ones all anchors of its cell."""
    detected = _several(
        view, lambda item: item.anchors is not None, "object that one of FCA's anchors detected in this frame"
    )
    figure, (axes,), zooms = _layout(view, 1, len(detected[:MOST_OBJECTS]))
    _show(axes, view, view.frame, "each object (solid) and the anchor that found it (dashed)")
    for item in detected:
        _box(axes, item.anchors[item.kernel], _colour(item), linestyle=(0, (4, 2)), linewidth=1.4)
        _box(axes, item.box, _colour(item))
        kernel = _kernel_name(view.kernels[item.kernel])
        _label(axes, item.box, f"#{item.track_id}  P{item.level}  {kernel}", item)
    for zoom, item in zip(zooms, detected, strict=False):
        _show(zoom, view, view.frame, f"{view.name(item)}: a cell of P{item.level}, stride {2**item.level}")
        _zoom(zoom, view, np.concatenate([item.box[None], item.anchors]))
        colours = _kernel_colours(view)
        for kernel in sorted(range(len(view.kernels)), key=lambda kernel: -math.prod(view.kernels[kernel])):
            # The smaller are drawn dashed, as they coincide with edges of the larger.
            line = "-" if math.prod(view.kernels[kernel]) == max(map(math.prod, view.kernels)) else (0, (5, 5))
            _box(zoom, item.anchors[kernel], colours[kernel], 3.2 if kernel == item.kernel else 1.8, line)
        taps = _cells(item.anchors[item.kernel], view.kernels[item.kernel])
        zoom.plot(*taps.T, "o", color=colours[item.kernel], markersize=6, markeredgecolor="black", markeredgewidth=0.8)
        _box(zoom, item.box, "white", linestyle=(0, (1, 1.2)))
    handles = [
        Line2D([], [], color=colour, linewidth=2, label=f"kernel and anchor of {_kernel_name(kernel)} cells")
        for kernel, colour in zip(view.kernels, _kernel_colours(view), strict=True)
    ]
    handles += [
        Line2D([], [], color="grey", marker="o", linestyle="", label="cells that the kernel sees"),
        Line2D([], [], color="grey", linestyle=":", linewidth=2, label="the box that came of it"),
    ]
    _legend(figure, handles)
    return figure


def draw_calibration(view: FrameInternals) -> Figure:
    """FCB: the samples of the classification's kernels, before and after calibration."""
    calibrated = _several(
        view, lambda item: item.samples is not None, "detected object whose class FCB calibrated (head.calibration)"
    )
    figure, (axes,), zooms = _layout(view, 1, len(calibrated[:MOST_OBJECTS]))
    _show(axes, view, view.frame, "where the class of each object is read from")
    for item in calibrated:
        _box(axes, item.box, _colour(item))
        _samples(axes, item, 3)
        _label(axes, item.box, view.name(item), item)
    for zoom, item in zip(zooms, calibrated, strict=False):
        _show(zoom, view, view.frame, f"{view.name(item)}: {len(item.taps)} samples on P{item.level}")
        _zoom(zoom, view, np.concatenate([item.box[None], np.tile(item.taps, 2), np.tile(item.samples, 2)]))
        _box(zoom, item.anchors[item.kernel], "white", linestyle=(0, (4, 2)), linewidth=1.4)
        _box(zoom, item.box, _colour(item))
        _samples(zoom, item, 6)
    _legend(
        figure,
        [
            Line2D([], [], color="grey", linestyle=(0, (4, 2)), label="anchor"),
            Line2D([], [], color="grey", linewidth=2, label="box"),
            Line2D([], [], color="white", marker="o", markeredgecolor="black", linestyle="", label="regular samples"),
            Line2D([], [], color="grey", marker="o", markeredgecolor="black", linestyle="", label="calibrated samples"),
        ],
    )
    return figure


def draw_shift(view: FrameInternals) -> Figure:
    """Temporal fusion: its shift of the boxes of the frame before, and their detections in this one."""
    moved = _several(view, lambda item: item.shifted_box is not None, "object that was known in the frame before")
    moved = sorted(moved, key=lambda item: -np.abs(item.shifted_box - item.last_box).max())
    figure, (before, now), zooms = _layout(view, 2, len(moved[:MOST_OBJECTS]))
    _show(before, view, view.frame if view.last_frame is None else view.last_frame, "the frame before")
    _show(now, view, view.frame, "this frame")
    for item in moved:
        _box(before, item.last_box, _colour(item))
        _label(before, item.last_box, view.name(item), item)
        _shift(now, item)
        _label(now, item.box, view.name(item), item)
    for zoom, item in zip(zooms, moved, strict=False):
        step = (item.shifted_box - item.last_box).reshape(2, 2).mean(axis=0)
        fate = "then detected there" if item.anchors is not None else "not detected: carried on"
        _show(zoom, view, view.frame, f"{view.name(item)}: moved by {np.hypot(*step):.1f} pixels, {fate}")
        _zoom(zoom, view, np.stack([item.box, item.last_box, item.shifted_box]))
        _shift(zoom, item)
    _legend(
        figure,
        [
            Line2D([], [], color="grey", linestyle=(0, (1, 1.2)), linewidth=2, label="box in the frame before"),
            Line2D([], [], color="grey", linestyle=(0, (4, 2)), linewidth=2, label="moved by temporal fusion"),
            Line2D([], [], color="grey", linewidth=2, label="box in this frame"),
        ],
    )
    return figure


PICTURES: Mapping[str, Callable[[FrameInternals], Figure]] = {
    "prototypes": draw_prototypes,
    "anchors": draw_anchors,
    "calibration": draw_calibration,
    "shift": draw_shift,
}


# ---------------------------------------------------------------------------------------------------- parts


def _several(view: FrameInternals, wanted: Callable[[ObjectInternals], bool], what: str) -> list[ObjectInternals]:
    found = [item for item in view.objects if wanted(item)]
    if not found:
        raise InputError(f"the frame has no {what}")
    return found


def _aspect(view: FrameInternals) -> float:
    return view.frame.shape[0] / view.frame.shape[1]


def _brightness(view: FrameInternals, item: ObjectInternals) -> np.ndarray:
    """[K]: how bright each prototype is in the object's box on average."""
    scale = np.divide(view.prototypes.shape[:2], view.frame.shape[:2])[::-1]
    x1, y1, x2, y2 = np.round(item.box.reshape(2, 2).clip(0) * scale).astype(int).ravel()
    return view.prototypes[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)].mean(axis=(0, 1))


def _layout(view: FrameInternals, num_frames: int, num_zooms: int) -> tuple[Figure, Sequence[Axes], Sequence[Axes]]:
    """A figure with `num_frames` panels of the whole frame side by side, below `num_zooms` square ones of details."""
    upper_height = min(WIDTH_INCHES / max(num_frames, 1.5) * _aspect(view), HIGHEST_INCHES)
    zoom_height = WIDTH_INCHES / MOST_OBJECTS
    figure = Figure((WIDTH_INCHES, upper_height + zoom_height + 1.0), dpi=DOTS_PER_INCH, layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(upper_height + 0.3, zoom_height + 0.3))
    return figure, upper.subplots(1, num_frames, squeeze=False)[0], lower.subplots(1, num_zooms, squeeze=False)[0]


def _show(axes: Axes, view: FrameInternals, picture: np.ndarray, title: str) -> AxesImage:
    axes.set(xticks=[], yticks=[], xlim=view.extent[:2], ylim=view.extent[2:])
    axes.set_title(title, pad=4)
    return axes.imshow(picture, extent=view.extent, interpolation="bilinear")


def _zoom(axes: Axes, view: FrameInternals, boxes: np.ndarray) -> None:
    """Shows the square around `boxes` [n,4], with some room."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    side = max(*(high - low) * 1.15, 8)
    middle = (low + high) / 2
    axes.set(xlim=(middle[0] - side / 2, middle[0] + side / 2), ylim=(middle[1] + side / 2, middle[1] - side / 2))
    axes.set_facecolor("#cccccc")


def _box(axes: Axes, box: np.ndarray, colour, linewidth: float = 2.0, linestyle="-") -> None:
    x1, y1, x2, y2 = box
    patch = Rectangle(
        (x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=linewidth, linestyle=linestyle
    )
    patch.set_path_effects([withStroke(linewidth=linewidth + 1.4, foreground="black", alpha=0.55)])
    axes.add_patch(patch)


def _label(axes: Axes, box: np.ndarray, text: str, item: ObjectInternals) -> None:
    left, right = sorted(axes.get_xlim())
    axes.annotate(
        text,
        (min(max(box[0], left), right), max(box[1], 0)),
        textcoords="offset points",
        xytext=(1, 2),
        color=css_colour(text_colour(track_colour(item.track_id))),
        fontsize=8,
        bbox={"facecolor": _colour(item), "edgecolor": "none", "pad": 1.5},
        annotation_clip=False,
    )


def _samples(axes: Axes, item: ObjectInternals, size: float) -> None:
    lines = LineCollection(np.stack([item.taps, item.samples], axis=1), colors="black", linewidths=0.8, alpha=0.7)
    axes.add_collection(lines)
    look = {"marker": "o", "linestyle": "", "markeredgecolor": "black", "markeredgewidth": 0.7}
    axes.plot(*item.taps.T, **look, color="white", markersize=0.7 * size)
    axes.plot(*item.samples.T, **look, color=_colour(item), markersize=1.2 * size)


def _shift(axes: Axes, item: ObjectInternals) -> None:
    colour = _colour(item)
    _box(axes, item.last_box, colour, 1.6, (0, (1, 1.2)))
    _box(axes, item.box, colour, 2.2)
    _box(axes, item.shifted_box, colour, 1.8, (0, (4, 2)))
    tail, head = (box.reshape(2, 2).mean(axis=0) for box in (item.last_box, item.shifted_box))
    axes.add_patch(
        FancyArrowPatch(
            tail, head, arrowstyle="-|>", mutation_scale=9, color=colour, shrinkA=0, shrinkB=0, path_effects=_HALO
        )  # fmt: skip
    )


def _cells(box: np.ndarray, kernel: tuple[int, int]) -> np.ndarray:
    """The middles [kh·kw,2] of the cells of an anchor of `kernel` (height, width) cells."""
    x1, y1, x2, y2 = box
    rows = y1 + (np.arange(kernel[0]) + 0.5) / kernel[0] * (y2 - y1)
    columns = x1 + (np.arange(kernel[1]) + 0.5) / kernel[1] * (x2 - x1)
    return np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 2)


def _legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)


def _colour(item: ObjectInternals) -> tuple[float, float, float]:
    return tuple(channel / 255 for channel in track_colour(item.track_id))


def _kernel_colours(view: FrameInternals) -> list[str]:
    return [KERNEL_COLOURS[number % len(KERNEL_COLOURS)] for number in range(len(view.kernels))]


def _kernel_name(kernel: tuple[int, int]) -> str:
    return f"{kernel[0]}×{kernel[1]}"
