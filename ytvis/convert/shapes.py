"""Shapes that several tools draw, as polygons; the outlines of masks; and what to say of shapes that are not areas."""

import math
from collections.abc import Sequence

import numpy as np

SIDES = 64  # of the polygon that stands for an ellipse

# Kinds of shapes of LabelMe and its relatives, CVAT and Datumaro → why they are left out.
_NO_AREAS = (
    dict.fromkeys(("line", "linestrip", "linestring", "polyline", "point", "points"), "is not an area")
    | {"skeleton": "consists of points and is not an area", "cuboid": "is a solid and not the area that shows it"}
    | {"cuboid_2d": "is a solid and not the area that shows it", "tag": "marks a frame and no object"}
)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0) -> list[float]:
    """The polygon x y x y … of an ellipse around (`x`, `y`), turned clockwise by `degrees`."""
    angles = [2 * math.pi * side / SIDES for side in range(SIDES)]
    return turned([(radius_x * math.cos(angle), radius_y * math.sin(angle)) for angle in angles], (x, y), degrees)


def turned(offsets: list[tuple[float, float]], centre: tuple[float, float], degrees: float) -> list[float]:
    """The polygon x y x y … of the points at `offsets` from `centre`, turned clockwise around it by `degrees`."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    if degrees % 90 == 0:
        cosine, sine = round(cosine), round(sine)  # exact, as the corners of an upright box are
    x, y = centre
    return [side for dx, dy in offsets for side in (x + dx * cosine - dy * sine, y + dx * sine + dy * cosine)]


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The borders of the pieces of `mask` [h,w] bool and of their holes, along the edges of the pixels: [corners,2] x y
    int64 each. Polygons of these corners cover the pixels in an odd number of them, which are those of the mask."""
    padded = np.pad(mask, 1)
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
    is_corner = upper_left ^ upper_right ^ lower_left ^ lower_right
    # Pixels that only touch at a corner have one each there.
    is_double = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    corners = np.argwhere(is_corner | is_double)
    corners = np.repeat(corners, 1 + is_double[tuple(corners.T)], axis=0)[:, ::-1]
    # Along a row the first corner has an edge to the second, the third to the fourth, …; and so down a column.
    by_column = np.lexsort((corners[:, 1], corners[:, 0]))
    below = np.empty(len(corners), np.int64)
    below[by_column[::2]], below[by_column[1::2]] = by_column[1::2], by_column[::2]
    result, is_taken = [], np.zeros(len(corners), bool)
    for first in range(len(corners)):
        border, corner = [], first
        while not is_taken[corner]:
            border += [corner, corner ^ 1]
            is_taken[border[-2:]] = True
            corner = below[corner ^ 1]
        if border:
            result.append(corners[border])
    return result


def join_outlines(parts: Sequence[np.ndarray]) -> np.ndarray:
    """One outline [corners,2] of several, at least one: a line leads from each to the next, and the same way back."""
    if len(parts) == 1:
        return parts[0]
    there = [np.concatenate((part, part[:1])) for part in parts]
    back = [part[:1] for part in parts[-2::-1]]
    return np.concatenate(there + back)


def refusal(kind: str, detail: str = "", reason: str | None = None) -> str:
    """Why a shape of this kind cannot be used, and what to do; `detail` says more about the shape."""
    kind = str(kind)[:40]
    article = "a shape of" if kind.endswith("s") else "an" if kind[:1] in "aeiou" else "a"
    shape = " ".join(filter(None, (article, kind, detail)))
    reason = reason or _NO_AREAS.get(kind, "is not supported")
    return f"{shape} {reason}; delete it, or draw a polygon or a mask"
