"""ShapesVIS, the embedded demo data set: drawn videos of eight shapes, in YouTube-VIS 2019 format.

    python -m data.synthetic --root data/ShapesVIS --train_videos 160 --valid_videos 40 --seed 0
    python -m data.synthetic --root data/Pencil --train_videos 24 --valid_videos 20 --style pencil
    python -m data.synthetic --root data/Absent --train_videos 1 --valid_videos 60 --seed 5 --absence 12

Paper-cut shapes move over a textured ground under a moving camera; they enter, leave, cross and hide each other. The
shape alone decides the category; colour, texture, size, rotation and stretch are random. In the style "pencil", the
same scenes are outlined and hatched on squared paper, for data that differ from what a network was trained on.
With an absence, videos are longer, and most objects vanish for a while and come back elsewhere, for tracking.

The same seed gives the same pixels and the same annotation bytes on every machine. That holds because
- random numbers are `random()` and `integers()` of a PCG64 generator seeded with (seed, split, index);
- floats only see + - * / sqrt, floor and comparisons, which IEEE 754 rounds in one way; sines are rounded to 2^-20;
- shapes are painted from their signed distance and textures are read in integers, by elementwise numpy, since the
  resampling and filters of image libraries differ between versions and processors;
- frames are PNG: a JPEG's pixels depend on the library that wrote it and on the one that reads it.

Letters used in shapes: N objects, T frames, h×w the video's own size, S side of a texture tile.
"""

import argparse
import json
import math
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from data.config import DATASETS
from ytvis.command_line import Parser, run_command
from ytvis.files import InputError, atomic_write, read_json
from ytvis.masks import encode_masks, mask_boxes, measure_masks

# Part of the stamp: raise it with every change of the drawing, so that cached sets are drawn again.
GENERATOR_VERSION = 1
CATEGORY_NAMES: tuple[str, ...] = DATASETS["ShapesVIS"]["dataset.class_names"]
DEFAULT_ROOT: str = DATASETS["ShapesVIS"]["dataset.root"]
SPLITS = ("train", "valid")

# Most frames that an object is invisible between two appearances, or behind others; below the usual max_hidden_age.
MAX_HIDDEN_FRAMES = 8
# Longest `absence`, frames: videos have three times as many, all of whose masks are in memory at once.
MAX_ABSENCE = 200
# An object with fewer pixels counts as hidden: it vanishes in the network input.
MIN_VISIBLE_PIXELS = 12
MIN_FRAMES = 6  # in which an object is seen

_STAMP_NAME = "shapesvis.json"
_FRAME_SIZES_HW = ((180, 320), (192, 320), (216, 384), (256, 256), (320, 240))
_OBJECT_COUNTS = (1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 6, 6)
_TURN = 1 << 16  # angles are integers, this many to a full turn
_GROUND_SIDE, _OBJECT_SIDE = 512, 64  # texture tiles, powers of two

_GROUND_COLOURS = (
    ((44, 56, 64), (70, 90, 102), (112, 134, 146)),
    ((152, 122, 88), (190, 160, 118), (222, 200, 162)),
    ((48, 64, 42), (82, 102, 60), (128, 144, 90)),
    ((46, 38, 66), (82, 66, 104), (130, 106, 140)),
    ((98, 56, 44), (146, 90, 68), (190, 138, 108)),
    ((146, 172, 184), (184, 206, 214), (220, 232, 234)),
    ((18, 58, 80), (34, 98, 120), (84, 150, 160)),
    ((200, 192, 176), (224, 217, 202), (243, 238, 226)),
    ((30, 30, 36), (50, 51, 60), (84, 86, 96)),
)
_OBJECT_COLOURS = (
    (212, 48, 48),
    (240, 128, 32),
    (250, 206, 58),
    (138, 200, 62),
    (24, 140, 84),
    (0, 168, 168),
    (64, 148, 230),
    (36, 62, 146),
    (124, 72, 190),
    (238, 108, 168),
    (244, 242, 234),
    (42, 42, 48),
)


@dataclass(frozen=True)
class _Style:
    """What scenes are painted with. `rim` is the width in pixels and the darkening (of 256) of an object's inner edge,
    `shadow` the darkening (of 8) of the ground, `fill` the second colour of every object, drawn by lot if None."""

    ground_ramps: Sequence[Sequence[tuple[int, int, int]]]
    ground_patterns: Sequence[str]
    colours: Sequence[tuple[int, int, int]]
    patterns: Sequence[str]
    rim: tuple[float, int]
    shadow: int
    fill: tuple[int, int, int] | None = None


_STYLES = {
    "paper": _Style(
        _GROUND_COLOURS,
        ("clouds", "contours", "stripes", "checks", "planks"),
        _OBJECT_COLOURS,
        ("clouds", "stripes", "checks", "dots", "grain", "grain"),
        rim=(3.0, 90),
        shadow=3,
    ),
    "pencil": _Style(
        (((150, 176, 214), (244, 243, 238), (252, 251, 247)), ((206, 186, 160), (240, 233, 216), (249, 244, 232))),
        ("squares",),
        ((52, 52, 60), (30, 54, 132), (140, 32, 36), (28, 92, 52)),
        ("stripes",),
        rim=(5.0, 220),
        shadow=0,
        fill=(250, 249, 244),
    ),
}
STYLES = tuple(_STYLES)


@dataclass(frozen=True)
class ShapesVideo:
    """A drawn video: `frames` [T,h,w,3] uint8 RGB, `masks` [N,T,h,w] bool, `category_ids` [N] from 1.

    A mask holds the object's visible pixels: masks of one frame are disjoint, and all False where the object is out of
    view or hidden by others.
    """

    frames: np.ndarray
    masks: np.ndarray
    category_ids: tuple[int, ...]


# ---------------------------------------------------------------------------------------------------- numbers


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number in low…high. Not `rng.uniform`: compilers may fuse its product and sum, which changes the last bit."""
    return low + (high - low) * rng.random()


def _pick(rng: np.random.Generator, choices: Sequence):
    return choices[int(rng.random() * len(choices))]


def _direction(angle: int) -> tuple[float, float]:
    """Cosine and sine of an integer angle, rounded until every libm gives the same."""
    radians = 2 * math.pi * (angle % _TURN) / _TURN
    return round(math.cos(radians) * 2**20) / 2**20, round(math.sin(radians) * 2**20) / 2**20


# ---------------------------------------------------------------------------------------------------- shapes
# A shape is a function (x, y, a, b) → signed distance to its outline in pixels, negative inside, good near the
# outline. x and y are pixel arrays centred on the shape, a and b the half sides of the box it was designed in.


def _ellipse(x, y, a, b):
    value = (x / a) * (x / a) + (y / b) * (y / b) - 1
    slope = 2 * np.sqrt((x / (a * a)) * (x / (a * a)) + (y / (b * b)) * (y / (b * b)))
    return value / np.maximum(slope, 1e-6)


def _ring(x, y, a, b):
    return np.maximum(_ellipse(x, y, a, b), -_ellipse(x, y, 0.55 * a, 0.55 * b))


def _rectangle(x, y, a, b):
    return np.maximum(np.abs(x) - a, np.abs(y) - b)


def _triangle(x, y, a, b):
    side = (2 * b * np.abs(x) - a * (y + b)) / math.sqrt(4 * b * b + a * a)
    return np.maximum(side, y - b)


def _star(x, y, a, b):
    """A five-pointed star: the points within at least four of the five lines through its tips."""
    first = second = np.full(np.broadcast_shapes(x.shape, y.shape), -np.inf)
    for k in range(5):
        nx, ny = _direction(_TURN // 4 + round(k * _TURN / 5))
        line = (nx * x / a + ny * y / b - 0.33) / math.sqrt(nx * nx / (a * a) + ny * ny / (b * b))
        first, second = np.maximum(first, line), np.maximum(second, np.minimum(first, line))
    return second


def _cross(x, y, a, b):
    arm = 0.3 * min(a, b)
    return np.minimum(_rectangle(x, y, a, arm), _rectangle(x, y, arm, b))


def _crescent(x, y, a, b):
    return np.maximum(_ellipse(x, y, a, b), -_ellipse(x - 0.5 * a, y, 0.78 * a, 0.78 * b))


@dataclass(frozen=True)
class _Shape:
    """A shape's outline, the range of its width / height before rotation, and `solid`: whether it covers its box well
    enough to hide others."""

    distance: Callable[..., np.ndarray]
    stretch: tuple[float, float]
    solid: bool = False


_SHAPES = {
    "circle": _Shape(_ellipse, (1.0, 1.5), solid=True),
    "ring": _Shape(_ring, (1.0, 1.5)),
    "square": _Shape(_rectangle, (1.0, 1.2), solid=True),
    "bar": _Shape(_rectangle, (3.0, 6.5)),
    "triangle": _Shape(_triangle, (0.65, 1.4)),
    "star": _Shape(_star, (0.85, 1.2)),
    "cross": _Shape(_cross, (0.7, 1.4)),
    "crescent": _Shape(_crescent, (0.75, 1.1)),
}


# ---------------------------------------------------------------------------------------------------- motion


@dataclass(frozen=True)
class _Pose:
    x: float
    y: float
    angle: int
    scale: float


@dataclass(frozen=True)
class _Motion:
    """Steady motion, turn and growth with a sway across: `pose` holds at frame `moment`, rates are per frame."""

    moment: float
    pose: _Pose
    rate: _Pose
    sway: tuple[float, float]
    sway_rate: int

    def at(self, frame: float) -> _Pose:
        step = frame - self.moment
        sway = _direction(math.floor(self.sway_rate * step))[1]
        return _Pose(
            self.pose.x + self.rate.x * step + self.sway[0] * sway,
            self.pose.y + self.rate.y * step + self.sway[1] * sway,
            self.pose.angle + math.floor(self.rate.angle * step),
            self.pose.scale + self.rate.scale * step,
        )


@dataclass(frozen=True)
class _Object:
    """An object, which is not there in the frames `gone`."""

    category_id: int
    half_size: tuple[float, float]
    motion: _Motion
    gone: range = range(0)

    def distance(self, pose: _Pose, window: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Signed distance, and the object's own x and y in unscaled pixels, over a window of the frame."""
        rows, columns = window
        across = np.arange(columns.start, columns.stop) + 0.5 - pose.x
        down = (np.arange(rows.start, rows.stop) + 0.5 - pose.y)[:, None]
        cos, sin = _direction(pose.angle)
        x = (across * cos + down * sin) / pose.scale
        y = (down * cos - across * sin) / pose.scale
        return _SHAPES[CATEGORY_NAMES[self.category_id - 1]].distance(x, y, *self.half_size) * pose.scale, x, y

    def window(self, pose: _Pose, margin: float, hw: tuple[int, int]) -> tuple[slice, slice] | None:
        """The rows and columns of the frame that the object can touch, or None if it is out of view."""
        a, b = self.half_size
        reach = math.sqrt(a * a + b * b) * pose.scale + margin
        (top, bottom), (left, right) = (
            (max(0, math.floor(centre - reach)), min(side, math.floor(centre + reach) + 1))
            for centre, side in ((pose.y, hw[0]), (pose.x, hw[1]))
        )
        return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None


@dataclass(frozen=True)
class _Scene:
    """The motion of the camera and of all objects; later objects are above earlier ones."""

    hw: tuple[int, int]
    length: int
    camera: _Motion
    objects: tuple[_Object, ...]

    def pose(self, item: _Object, frame: float) -> _Pose:
        """The object's pose on the screen."""
        camera, pose = self.camera.at(frame), item.motion.at(frame)
        cos, sin = _direction(camera.angle)
        x, y = pose.x - camera.x, pose.y - camera.y
        return _Pose(
            self.hw[1] / 2 + camera.scale * (cos * x - sin * y),
            self.hw[0] / 2 + camera.scale * (sin * x + cos * y),
            pose.angle + camera.angle,
            pose.scale * camera.scale,
        )

    def silhouette(self, item: _Object) -> np.ndarray:
        """[T,h,w] bool: the object's pixels in view, also those that others hide."""
        result = np.zeros((self.length, *self.hw), bool)
        for t in range(self.length):
            pose = self.pose(item, t)
            window = item.window(pose, 1, self.hw)
            if window is not None and t not in item.gone:
                result[t][window] = item.distance(pose, window)[0] < 0
        return result


def _plan_camera(rng: np.random.Generator, hw: tuple[int, int], length: int) -> _Motion:
    """A camera that drifts, sways, zooms and turns a little; one in four stands still."""
    moves = 0.0 if rng.random() < 0.25 else 1.0 / length
    shake = _between(rng, 0, 4) * (moves > 0)
    rate = _Pose(
        x=_between(rng, -0.3, 0.3) * hw[1] * moves,
        y=_between(rng, -0.2, 0.2) * hw[0] * moves,
        angle=math.floor(_between(rng, -0.03, 0.03) * _TURN * moves),
        scale=_between(rng, -0.2, 0.2) * moves,
    )
    start = _Pose(_between(rng, 0, _GROUND_SIDE), _between(rng, 0, _GROUND_SIDE), 0, 1.0)
    return _Motion(length / 2, start, rate, (_between(rng, -shake, shake), shake), math.floor(_TURN / 9))


def _plan_object(rng: np.random.Generator, category_id: int, scene: _Scene, crowd: int) -> _Object:
    """An object that is in view at some moment; more often than not it crosses an earlier object at that moment; a
    solid one is then made large enough to hide it."""
    shape, side = _SHAPES[CATEGORY_NAMES[category_id - 1]], min(scene.hw)
    luck = rng.random()
    size = side * (0.095 + (0.2 - 0.012 * crowd) * luck * luck)
    moment = _between(rng, 0.15, 0.85) * scene.length
    if scene.objects and rng.random() < (0.85 if shape.solid else 0.55):
        other = _pick(rng, scene.objects)
        centre, spread = other.motion.at(moment), (0.03 * side, 0.03 * side)
        if shape.solid:
            size = max(size, min(0.3 * side, 1.6 * max(other.half_size)))
    else:
        centre, spread = scene.camera.at(moment), (0.38 * scene.hw[1], 0.38 * scene.hw[0])
    x, y = (middle + _between(rng, -far, far) for middle, far in zip((centre.x, centre.y), spread, strict=True))
    # Half of them are axis-aligned: turned at random, few long shapes would have long, thin boxes.
    angle = math.floor(_between(rng, -0.03, 0.03) * _TURN) + _pick(rng, range(4)) * _TURN // 4
    spin = _between(rng, -0.006, 0.006)
    if rng.random() < 0.5:
        angle, spin = math.floor(rng.random() * _TURN), _between(rng, -0.025, 0.025)
    travel = _between(rng, 0.1, 1.3) * side / scene.length
    cos, sin = _direction(math.floor(rng.random() * _TURN))
    rate = _Pose(travel * cos * 1.3, travel * sin, spin * _TURN, _between(rng, -0.35, 0.35) / scene.length)
    sway = (_between(rng, -0.06, 0.06) * side, _between(rng, -0.06, 0.06) * side)
    motion = _Motion(moment, _Pose(x, y, angle, 1.0), rate, sway, math.floor(_TURN / _between(rng, 10, 24)))
    stretch = math.sqrt(_between(rng, *shape.stretch))
    return _Object(category_id, (size * stretch, size / stretch), motion)


def _plan_absence(rng: np.random.Generator, length: int, least: int) -> range:
    """The frames in which an object is gone: two in three are, once, for `least` frames to twice as many; none if 0."""
    if not least or rng.random() < 1 / 3:
        return range(0)
    duration = _pick(rng, range(least, 2 * least + 1))
    first = _pick(rng, range(MIN_FRAMES, length - duration - MIN_FRAMES + 1))
    return range(first, first + duration)


def _plan_categories(rng: np.random.Generator, index: int) -> list[int]:
    """The objects' category ids. The first cycles with the index, so that small sets hold all of them."""
    category_ids = [index % len(CATEGORY_NAMES) + 1]
    for _ in range(_pick(rng, _OBJECT_COUNTS) - 1):
        # Sometimes two of one category, which tracking has to tell apart.
        repeat = rng.random() < 0.15
        category_ids.append(category_ids[-1] if repeat else _pick(rng, range(1, len(CATEGORY_NAMES) + 1)))
    return category_ids


def _plan_scene(rng: np.random.Generator, category_ids: Sequence[int], absence: int) -> tuple[_Scene, np.ndarray]:
    """A random scene of such objects and their masks [N,T,h,w]; each is redrawn until it and those below are valid."""
    hw = _pick(rng, _FRAME_SIZES_HW)
    length = _pick(rng, range(12, 25)) + 3 * absence
    scene = _Scene(hw, length, _plan_camera(rng, hw, length), ())
    silhouettes = masks = np.zeros((0, length, *hw), bool)
    for category_id in category_ids:
        fits = False
        while not fits:
            item = _plan_object(rng, category_id, scene, len(category_ids))
            item = replace(item, gone=_plan_absence(rng, length, absence))
            trial = np.concatenate([silhouettes, scene.silhouette(item)[None]])
            masks = _visible(trial)
            fits = _acceptable(trial, masks, [*(other.gone for other in scene.objects), item.gone])
        scene, silhouettes = replace(scene, objects=(*scene.objects, item)), trial
    return scene, masks


def _visible(silhouettes: np.ndarray) -> np.ndarray:
    """[N,T,h,w] bool: the visible parts of silhouettes [N,T,h,w], each above those before it."""
    masks = silhouettes.copy()
    covered = np.zeros(silhouettes.shape[1:], bool)
    for mask in masks[::-1]:
        mask &= ~covered
        covered |= mask
        mask[mask.sum(axis=(1, 2)) < MIN_VISIBLE_PIXELS] = False
    return masks


def _longest_run(flags: np.ndarray) -> int:
    """The length of the longest run of True in `flags` [T] bool; 0 if all are False."""
    longest = current = 0
    for flag in flags:
        current = current + 1 if flag else 0
        longest = max(longest, current)
    return longest


def _acceptable(silhouettes: np.ndarray, masks: np.ndarray, gone: Sequence[range] | None = None) -> bool:
    """Whether every object is seen enough, also before and after it is `gone`, and is otherwise never hidden behind
    others, nor invisible between two appearances, for more than MAX_HIDDEN_FRAMES."""
    gone = gone or [range(0)] * len(masks)
    for in_view, seen, missing in zip(silhouettes.sum(axis=(2, 3)), masks.sum(axis=(2, 3)), gone, strict=True):
        if missing and not (seen[: missing.start].any() and seen[missing.stop :].any()):
            return False
        in_view, seen = (np.delete(counts, slice(missing.start, missing.stop)) for counts in (in_view, seen))
        frames = np.flatnonzero(seen)
        if len(frames) < MIN_FRAMES or 2 * seen.sum() < in_view.sum() or seen.max() < 100:
            return False
        gaps = seen[frames[0] : frames[-1] + 1] == 0
        behind = (seen == 0) & (in_view >= MIN_VISIBLE_PIXELS)
        if max(_longest_run(gaps), _longest_run(behind)) > MAX_HIDDEN_FRAMES:
            return False
    return True


# ---------------------------------------------------------------------------------------------------- textures


def _noise(rng: np.random.Generator, side: int, cells: int) -> np.ndarray:
    """Smooth noise [side,side] int64 in 0…255, of cells × cells bumps, that continues across its borders."""
    grid = rng.integers(0, 256, (cells, cells))
    cell, part = np.divmod(np.arange(side) * cells * 256 // side, 256)
    weight = part * part * (768 - 2 * part) >> 16
    rows = grid[cell] * (256 - weight)[:, None] + grid[(cell + 1) % cells] * weight[:, None]
    return rows[:, cell] * (256 - weight) + rows[:, (cell + 1) % cells] * weight >> 16


def _clouds(rng: np.random.Generator, side: int) -> np.ndarray:
    """Noise of four octaves, [side,side] int64 stretched to 0…255."""
    value = sum(_noise(rng, side, max(2, side // 128) << k) * (8 >> k) for k in range(4))
    return (value - value.min()) * 255 // max(1, int(value.max() - value.min()))


def _pattern(rng: np.random.Generator, kind: str, side: int, cells: int) -> np.ndarray:
    """A tile [side,side] int64 in 0…255 that continues across its borders, with cells × cells periods."""
    clouds = _clouds(rng, side)
    row, column = np.arange(side)[:, None], np.arange(side)
    down, across, period = row * cells // side, column * cells // side, side // cells
    match kind:
        case "clouds":
            value = clouds
        case "contours":
            value = clouds // 36 * 36
        case "grain":
            value = 70 + (clouds >> 1)
        case "stripes":
            value = (column + (clouds * side >> 13)) * cells * 2 // side % 2 * 190 + (clouds >> 2)
        case "checks":
            value = (down + across) % 2 * 130 + (clouds * 3 >> 3)
        case "planks":
            value = rng.integers(40, 216, cells)[down] + (clouds >> 3) - 20 * (row % period == 0)
        case "dots":
            x, y = 2 * (column % period) - period + 1, 2 * (row % period) - period + 1
            value = 200 * (x * x + y * y < period * period // 3) + (clouds >> 3)
        case "squares":
            value = 225 + (clouds >> 4) - 200 * ((row % (period // 4) == 0) | (column % (period // 4) == 0))
        case _:
            raise ValueError(f"unknown pattern {kind!r}")
    return np.clip(value, 0, 255)


def _tile(pattern: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """`pattern` [S,S] 0…255 painted with a ramp through the colours: a packed tile [S,S]."""
    stops = np.array(colours)
    position = np.arange(256) * (len(stops) - 1)
    low = np.minimum(position // 255, len(stops) - 2)
    part = (position - low * 255)[:, None]
    ramp = (stops[low] * (255 - part) + stops[low + 1] * part) // 255
    return _pack(_blur(ramp[pattern], "wrap"))


def _blur(image: np.ndarray, border: str) -> np.ndarray:
    """`image` [h,w,3] integer, smoothed by 1-2-1 in both directions; `border` as in `numpy.pad`."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), border)
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    return rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:] + 8 >> 4


def _pack(tile: np.ndarray) -> np.ndarray:
    """The texture tile [S,S,3] 0…255 as [S,S] int64, 20 bits a channel: one sum then mixes all three colours."""
    tile = tile.astype(np.int64)
    return tile[..., 0] << 40 | tile[..., 1] << 20 | tile[..., 2]


def _sample(tile: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Colours [h,w,3] int32 of the endlessly repeated packed tile [S,S] at x, y [h,w], bilinear in 1/32 steps."""
    side = len(tile)
    x, y = np.floor(x * 32).astype(np.int64), np.floor(y * 32).astype(np.int64)
    left, top = (x >> 5) & (side - 1), ((y >> 5) & (side - 1)) * side
    right, bottom = (left + 1) & (side - 1), (top + side) & (side * side - 1)
    x, y = x & 31, y & 31
    texels = tile.ravel()
    above = texels[top + left] * (32 - x) + texels[top + right] * x
    below = texels[bottom + left] * (32 - x) + texels[bottom + right] * x
    mixed = above * (32 - y) + below * y
    return np.stack([mixed >> 50, mixed >> 30 & 255, mixed >> 10 & 255], axis=-1).astype(np.int32)


# ---------------------------------------------------------------------------------------------------- painting


@dataclass(frozen=True)
class _Look:
    """How a scene is painted: tiles, light and lens. `shutter` is the open fraction of a frame's time."""

    style: _Style
    ground: np.ndarray
    objects: tuple[np.ndarray, ...]
    shadow: tuple[float, float]
    shutter: float
    blur_passes: int
    flicker: int
    grain: int


def _plan_look(rng: np.random.Generator, style: _Style, count: int) -> _Look:
    ramp = _pick(rng, style.ground_ramps)
    kind = _pick(rng, style.ground_patterns)
    ground = _tile(_pattern(rng, kind, _GROUND_SIDE, _pick(rng, (8, 16))), ramp)
    # Colours that differ clearly from the background: only the shape should be hard.
    fitting = [c for c in style.colours if sum(abs(p - q) for p, q in zip(c, ramp[1], strict=True)) > 150]
    tiles = []
    for _ in range(count):
        colour, other = _pick(rng, fitting), _pick(rng, fitting)
        if other == colour or rng.random() < 0.6:
            other = tuple(value * 5 // 8 + _pick(rng, (0, 80)) for value in colour)
        kind = _pick(rng, style.patterns)
        tiles.append(_tile(_pattern(rng, kind, _OBJECT_SIDE, _pick(rng, (4, 8))), (style.fill or other, colour)))
    return _Look(
        style,
        ground,
        tuple(tiles),
        shadow=(_between(rng, -4, 4), _between(rng, 2, 5)),
        shutter=_pick(rng, (0.0, 0.3, 0.6)),
        blur_passes=_pick(rng, (0, 0, 0, 1, 2)),
        flicker=_pick(rng, (2, 4, 10)),
        grain=_pick(rng, (0, 0, 0, 0, 3)),
    )


def _cover(distance: np.ndarray, softness: float = 1.0) -> np.ndarray:
    """Opacity 0…256 int32 from the signed distance in pixels: half on the outline."""
    return np.floor(np.clip(0.5 - distance / softness, 0, 1) * 256).astype(np.int32)


def _paint_object(canvas: np.ndarray, scene: _Scene, look: _Look, n: int, t: int) -> None:
    """Paints object n, with its shadow and motion blur, over `canvas` [h,w,3] int32."""
    item = scene.objects[n]
    if t in item.gone:
        return
    pose, opening, shutting = (scene.pose(item, t + look.shutter * part) for part in (0, -0.5, 0.5))
    across, down = shutting.x - opening.x, shutting.y - opening.y
    blur_length = math.sqrt(across * across + down * down)
    window = item.window(pose, blur_length + 10, scene.hw)
    if window is None:
        return
    patch = canvas[window]
    shade = _Pose(pose.x + look.shadow[0], pose.y + look.shadow[1], pose.angle, pose.scale)
    patch -= patch * (_cover(item.distance(shade, window)[0], 5.0) * look.style.shadow >> 3)[..., None] >> 8

    distance, x, y = item.distance(pose, window)
    colour = _sample(look.objects[n], x + _OBJECT_SIDE / 2, y + _OBJECT_SIDE / 2)
    width, darkening = look.style.rim
    edge = np.floor(np.clip(distance / width + 1, 0, 1) * darkening).astype(np.int32)
    colour = colour * (256 - edge)[..., None] >> 8

    samples = min(5, 1 + 2 * math.floor(blur_length / 4 + 0.5))
    cover = _cover(distance)
    if samples > 1:
        parts = [look.shutter * (k / (samples - 1) - 0.5) for k in range(samples)]
        cover = sum(_cover(item.distance(scene.pose(item, t + part), window)[0]) for part in parts) // samples
    patch += (colour - patch) * cover[..., None] >> 8


def _paint_frame(rng: np.random.Generator, scene: _Scene, look: _Look, t: int) -> np.ndarray:
    """Frame t, [h,w,3] uint8 RGB."""
    height, width = scene.hw
    camera = scene.camera.at(t)
    cos, sin = _direction(camera.angle)
    across = (np.arange(width) + 0.5 - width / 2) / camera.scale
    down = ((np.arange(height) + 0.5 - height / 2) / camera.scale)[:, None]
    canvas = _sample(look.ground, across * cos + down * sin + camera.x, down * cos - across * sin + camera.y)
    for n in range(len(scene.objects)):
        _paint_object(canvas, scene, look, n, t)
    for _ in range(look.blur_passes):
        canvas = _blur(canvas, "edge")
    canvas = canvas * (256 + int(rng.integers(-look.flicker, look.flicker + 1))) >> 8
    if look.grain:
        canvas += rng.integers(-look.grain, look.grain + 1, (height, width, 1))
    # Six bits a channel: not visible, and a third less on disk.
    return np.clip(canvas, 0, 255).astype(np.uint8) & 252 | 2


def _check_absence(absence: int) -> None:
    """Raises InputError for an absence that is too long to be drawn."""
    if absence > MAX_ABSENCE:
        raise InputError(f"absence of ShapesVIS must be {MAX_ABSENCE} or less, not {absence}")


def draw_video(seed: int, split: str, index: int, style: str = STYLES[0], absence: int = 0) -> ShapesVideo:
    """Video number `index` (from 0) of a split, "train" or "valid"; it depends on these values alone.

    It has 1…6 objects and 12…24 frames of one of five sizes. Objects are added one by one, each redrawn until all are
    seen in at least MIN_FRAMES frames, and none is invisible between two appearances, or wholly behind others, for more
    than MAX_HIDDEN_FRAMES. With an `absence` in frames, videos are longer by three times as many, and two thirds of the
    objects are gone once for `absence` frames to twice as many.

    Raises:
        InputError: an unknown split or style, a negative seed, index or absence, or one over MAX_ABSENCE.
    """
    _check_style(style)
    if split not in SPLITS:
        raise InputError(f"unknown ShapesVIS split {split!r}: take one of {', '.join(SPLITS)}")
    if min(seed, index, absence) < 0:
        raise InputError(f"{seed=}, {index=} and {absence=} of a ShapesVIS video must be 0 or more")
    _check_absence(absence)
    rng = np.random.Generator(np.random.PCG64([seed, SPLITS.index(split), index]))
    category_ids = _plan_categories(rng, index)
    scene, masks = _plan_scene(rng, category_ids, absence)
    look = _plan_look(rng, _STYLES[style], len(scene.objects))
    frames = np.stack([_paint_frame(rng, scene, look, t) for t in range(scene.length)])
    return ShapesVideo(frames, masks, tuple(category_ids))


def _check_style(style: str) -> None:
    """Raises InputError for a style that is not in `STYLES`."""
    if style not in STYLES:
        raise InputError(f"unknown ShapesVIS style {style!r}: take one of {', '.join(STYLES)}")


# ---------------------------------------------------------------------------------------------------- files


def generate(
    root: str | os.PathLike = DEFAULT_ROOT,
    train_videos: int = 160,
    valid_videos: int = 40,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = False,
    style: str = STYLES[0],
    absence: int = 0,
) -> Path:
    """Draws ShapesVIS into the folder `root`, unless it already has the set of the same numbers; returns `root`.

        annotations/train.json, valid.json               YouTube-VIS 2019 format, compressed RLE
        train/JPEGImages/train_00000/00000.png …         the frames; valid likewise
        shapesvis.json                                   the numbers it was drawn with

    `style` and `absence` are those of `draw_video`. A set drawn with other numbers or in another style is replaced. The
    set is written whole or not at all: it is drawn into a temporary folder beside `root`, which is then renamed.
    `workers` processes draw (default: one per CPU core, at most 8; 1 draws in this process). They are spawned, so a
    script that calls this needs an `if __name__ == "__main__":` guard. `progress` shows a bar on the error stream.

    Raises:
        InputError: a number out of range, `root` holds something else, or it cannot be written.
    """
    counts = {"train": train_videos, "valid": valid_videos}
    workers = min(8, os.cpu_count() or 1) if workers is None else workers
    numbers = (("train_videos", train_videos, 0), ("valid_videos", valid_videos, 0), ("seed", seed, 0))
    numbers += (("absence", absence, 0),)
    for name, value, least in (*numbers, ("workers", workers, 1)):
        if value < least:
            raise InputError(f"{name} of ShapesVIS must be {least} or more, not {value}")
    _check_absence(absence)
    _check_style(style)
    stamp = {"generator_version": GENERATOR_VERSION, "seed": seed, "videos": counts}
    if style != STYLES[0]:  # older sets of the first style do not have this key
        stamp["style"] = style
    if absence:
        stamp["absence"] = absence
    target = Path(os.path.realpath(root))
    try:
        if _read_stamp(target) == stamp:
            return Path(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp") as scratch:
            fresh = Path(scratch, "fresh")
            draw = partial(draw_video, seed, style=style, absence=absence)
            _write_set(fresh, counts, seed, draw, workers, progress)
            with atomic_write(fresh / _STAMP_NAME, "wb") as file:
                file.write(_json_bytes(stamp))
            # Another process may have drawn the same meanwhile.
            if _read_stamp(target) != stamp:
                if target.exists():
                    target.rename(Path(scratch, "old"))
                fresh.rename(target)
    except OSError as error:
        raise InputError(f"{root}: cannot write ShapesVIS there ({error}); choose another folder") from error
    return Path(root)


def _read_stamp(root: Path) -> dict | None:
    """The numbers `root` was drawn with, None if it is missing or empty; InputError if it is not a ShapesVIS set."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return None
    ours = {_STAMP_NAME, "annotations", *SPLITS}
    strange = sorted(path.name for path in root.iterdir() if path.name not in ours) if root.is_dir() else [root.name]
    try:
        stamp = json.loads((root / _STAMP_NAME).read_bytes()) if not strange else None
    except (FileNotFoundError, ValueError):
        stamp = None
    if not isinstance(stamp, dict):
        found = strange[0] if strange else f"no readable {_STAMP_NAME}"
        raise InputError(f"{root}: holds something other than ShapesVIS ({found}); choose another folder or empty it")
    return stamp


def _json_bytes(value) -> bytes:
    return (json.dumps(value, separators=(",", ":")) + "\n").encode("ascii")


def _write_set(
    folder: Path,
    counts: dict[str, int],
    seed: int,
    draw: Callable[[str, int], ShapesVideo],
    workers: int,
    progress: bool,
) -> None:
    """Writes both splits into `folder`; `draw` takes the split and the index of a video."""
    jobs = [(split, index) for split in SPLITS for index in range(counts[split])]
    workers = min(workers, len(jobs))
    work = partial(_write_video, folder, draw)
    bar = tqdm(total=len(jobs), desc="drawing ShapesVIS", unit="video", disable=not progress)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) if workers > 1 else None
    records = {split: [] for split in SPLITS}
    try:
        for (split, _), record in zip(jobs, (pool.map if pool else map)(work, jobs), strict=True):
            records[split].append(record)
            bar.update()
    finally:
        bar.close()
        if pool:
            pool.shutdown(cancel_futures=True)
    for split in SPLITS:
        (folder / split / "JPEGImages").mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "annotations" / f"{split}.json", "wb") as file:
            file.write(_json_bytes(_document(seed, records[split])))


def _write_video(
    folder: Path, draw: Callable[[str, int], ShapesVideo], job: tuple[str, int]
) -> tuple[dict, list[dict]]:
    """Draws video (split, index) and writes its frames; returns its entry under "videos" and its annotations, less
    the annotations' ids."""
    split, index = job
    video = draw(split, index)
    length, height, width = video.frames.shape[:3]
    name = f"{split}_{index:05d}"
    (folder / split / "JPEGImages" / name).mkdir(parents=True)
    file_names = [f"{name}/{t:05d}.png" for t in range(length)]
    for file_name, frame in zip(file_names, video.frames, strict=True):
        png = cv2.imencode(".png", frame[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 4])[1]
        (folder / split / "JPEGImages" / file_name).write_bytes(png.tobytes())
    size = {"length": length, "width": width, "height": height}
    entry = {"id": index + 1, **size, "file_names": file_names}
    annotations = [
        {"video_id": index + 1, "category_id": category_id, "iscrowd": 0, **size, **_encode(masks)}
        for masks, category_id in zip(video.masks, video.category_ids, strict=True)
    ]
    return entry, annotations


def _encode(masks: np.ndarray) -> dict[str, list]:
    """`segmentations`, `bboxes` (x y w h) and `areas` of one object's masks [T,h,w] bool, None where all False.

    The RLE is COCO's compressed form, as in results.json: a tenth of the size of the list form, and pycocotools
    reads it as it stands.
    """
    rles = encode_masks(masks)
    result = {"segmentations": [], "bboxes": [], "areas": []}
    for rle, box, area in zip(rles, mask_boxes(rles), measure_masks(rles), strict=True):
        seen = int(area) > 0
        result["segmentations"].append(rle if seen else None)
        result["bboxes"].append([int(value) for value in box] if seen else None)
        result["areas"].append(int(area) if seen else None)
    return result


def _document(seed: int, records: list[tuple[dict, list[dict]]]) -> dict:
    """The annotation file of one split."""
    annotations = [annotation for _, found in records for annotation in found]
    return {
        "info": {"description": "ShapesVIS", "version": GENERATOR_VERSION, "seed": seed},
        "videos": [entry for entry, _ in records],
        "categories": [
            {"id": number, "name": name, "supercategory": "shape"} for number, name in enumerate(CATEGORY_NAMES, 1)
        ],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)],
    }


# ---------------------------------------------------------------------------------------------------- command line


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m data.synthetic`: draws the set, unless it exists, and prints its path and contents."""
    parser = Parser(
        prog="python -m data.synthetic",
        description="Draw ShapesVIS, the demo data set of eight moving shapes, in YouTube-VIS 2019 format.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--root", default=DEFAULT_ROOT, help="folder to write; a ShapesVIS set there is replaced")
    parser.add_argument("--train_videos", type=int, default=160, metavar="N", help="videos to train on")
    parser.add_argument("--valid_videos", type=int, default=40, metavar="N", help="videos to validate on")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same videos on every machine")
    parser.add_argument("--style", choices=STYLES, default=STYLES[0], help="what the shapes look like")
    parser.add_argument(
        "--absence",
        type=int,
        default=0,
        metavar="N",
        help="longer videos, in which two thirds of the objects vanish once, for N (at most 200) to 2 N frames",
    )
    parser.add_argument("--workers", type=int, help="number of processes; None: one per CPU core, at most 8")
    options = parser.parse_args(arguments)
    return run_command("data.synthetic", lambda: describe(generate(**vars(options), progress=True)))


def describe(root: Path) -> None:
    """Prints the numbers of videos, frames and objects in the set at `root`."""
    for split in SPLITS:
        path = root / "annotations" / f"{split}.json"
        content = read_json(path)
        frames = sum(video["length"] for video in content["videos"])
        print(f"{path}: {len(content['videos'])} videos, {frames} frames, {len(content['annotations'])} objects")


if __name__ == "__main__":
    sys.exit(main())
