"""Shapes that several tools draw, as polygons; and what to say of those that are no area."""

import math

SIDES = 64  # of the polygon that stands for an ellipse

# Kinds of shapes of LabelMe and its relatives, CVAT and Datumaro → why they are left out.
_NO_AREAS = (
    dict.fromkeys(("line", "linestrip", "linestring", "polyline", "point", "points"), "is no area")
    | {"skeleton": "is of points and no area", "cuboid": "is a solid and not the area that shows it"}
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


def refusal(kind: str, detail: str = "", reason: str | None = None) -> str:
    """Why a shape of this kind cannot be used, and what to do; `detail` says more about the shape."""
    kind = str(kind)[:40]
    article = "a shape of" if kind.endswith("s") else "an" if kind[:1] in "aeiou" else "a"
    shape = " ".join(filter(None, (article, kind, detail)))
    reason = reason or _NO_AREAS.get(kind, "is not supported")
    return f"{shape} {reason}; delete it, or draw a polygon or a mask"
