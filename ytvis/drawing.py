"""Draws the objects of a frame, predicted or true: tinted masks, outlines, boxes and labels, one colour per track."""

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Self

import cv2
import numpy as np

from ytvis.masks import decode_mask, mask_boxes

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

logger = logging.getLogger(__name__)

Colour = tuple[int, int, int]
Rect = tuple[int, int, int, int]

# Hues a golden section of the circle apart never come close to the last few; a lightness that cycles through three
# values separates the hues that do. Chroma and first hue keep the first 20 ids far apart in CIELAB.
_GOLDEN_SECTION = (math.sqrt(5) - 1) / 2
_LIGHTNESS = (85.0, 65.0, 45.0)
_CHROMA = 70.0
_FIRST_HUE = 0.65

DISPLAY_SCORE_THRESHOLD = 0.3  # of the tracks that are drawn, as of those that HOTA counts

_MASK_OPACITY = 0.45
_CAP_HEIGHT = 0.729  # of a capital letter of DejaVu Sans, as a part of the font's size
_OTHER_STYLES = ("bold", "black", "light", "thin", "italic", "oblique", "mono", "serif", "condensed", "narrow")
_PLACEHOLDERS = ("lastresort", "blank")  # in the names of fonts that have a sign for every letter, the same for many
_SMALLEST_CAP_HEIGHT = 8  # pixels; digits of smaller letters run together
_LABEL_SIGNS = frozenset(map(ord, " #.0123456789"))  # what a label adds to a name
_CONTROLS = frozenset(range(32))
_GAP = 8  # pixels between two pictures


@dataclass(frozen=True)
class PixelObjects:
    """N objects of one frame in its pixels, for drawing.

    `boxes_px` [N,4] integers x1 y1 x2 y2, `labels` [N] 1…C, `track_ids` [N], `masks` [N,h,w] bool; `scores` [N] in
    0…1, or None where there are none, as for the truth. Anything with these attributes, as arrays or as tensors on
    the CPU, can be drawn in its place, such as `utils.structures.FrameObjects`.
    """

    boxes_px: np.ndarray
    labels: np.ndarray
    track_ids: np.ndarray
    masks: np.ndarray
    scores: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes_px)

    @classmethod
    def from_rles(
        cls,
        rles: Sequence[dict],
        labels: Sequence[int],
        track_ids: Sequence[int],
        size_hw: tuple[int, int],
        scores: Sequence[float] | None = None,
        boxes: Sequence[Sequence[float] | None] | None = None,
    ) -> Self:
        """Returns objects from compressed RLEs, scaled to a picture of the frame of `size_hw` (height, width).

        `boxes` are x y width height in pixels of the frame, clipped at its edges; one that is None, or not given, is
        that of the mask.
        """
        height, width = size_hw
        masks = [
            cv2.resize(decode_mask(rle).view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
            for rle in rles
        ]
        corners = mask_boxes(rles)
        for corner, rle, box in zip(corners, rles, boxes or [None] * len(rles), strict=True):
            corner[:] = corner if box is None else box
            corner[2:] += corner[:2]
            corner *= np.tile(np.divide((width, height), rle["size"][::-1]), 2)
        return cls(
            boxes_px=corners.clip(0, [width - 1, height - 1] * 2).astype(np.int64),
            labels=np.array(labels, np.int64),
            track_ids=np.array(track_ids, np.int64),
            masks=np.array(masks, bool).reshape(-1, height, width),
            scores=None if scores is None else np.array(scores, np.float32),
        )


def track_colour(track_id: int) -> Colour:
    """The RGB colour of a track, three integers 0…255: always the same for an id, far from those of its neighbours."""
    hue = 2 * math.pi * (_FIRST_HUE + track_id * _GOLDEN_SECTION)
    lab = [_LIGHTNESS[track_id % len(_LIGHTNESS)], _CHROMA * math.cos(hue), _CHROMA * math.sin(hue)]
    rgb = cv2.cvtColor(np.array([[lab]], np.float32), cv2.COLOR_Lab2RGB)[0, 0]
    red, green, blue = (int(value) for value in np.clip(rgb * 255, 0, 255).round())
    return red, green, blue


def css_colour(colour: Colour) -> str:
    """An RGB colour in the notation of style sheets: #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def text_colour(background: Colour) -> Colour:
    """Black or white, whichever is more legible on `background` (BT.601 luma)."""
    luma = 0.299 * background[0] + 0.587 * background[1] + 0.114 * background[2]
    return (0, 0, 0) if luma > 140 else (255, 255, 255)


class Trails:
    """The box centres of tracks in the last `length` frames given to `add`."""

    def __init__(self, length: int = 30):
        self._frames: deque[dict[int, tuple[int, int]]] = deque(maxlen=length)

    def add(self, objects: PixelObjects) -> None:
        """Adds the objects of the next frame."""
        corners = np.asarray(objects.boxes_px)
        centres = (corners[:, :2] + corners[:, 2:]) // 2
        self._frames.append(dict(zip(objects.track_ids.tolist(), map(tuple, centres.tolist()), strict=True)))

    def of(self, track_id: int) -> list[tuple[int, int]]:
        """The centres x, y of a track in pixels, oldest first; frames without it are left out."""
        return [frame[track_id] for frame in self._frames if track_id in frame]


class FrameRate:
    """Frames per second of a stream over its last ten frames; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._times: deque[float] = deque(maxlen=11)

    def update(self) -> float | None:
        """Counts one more frame; returns the rate, None at the first."""
        self._times.append(self._clock())
        seconds = self._times[-1] - self._times[0]
        return (len(self._times) - 1) / seconds if seconds > 0 else None


class TrackScores:
    """The scores of tracks while a video is still running: the means over the frames in which each was seen so far.

    At the end of the video they are the scores in results.json, unless these depend on the length of tracks. The score
    in a single frame goes up and down, and what is drawn by it flickers.
    """

    def __init__(self):
        self._sums: dict[int, tuple[float, int]] = {}  # of the scores, and how many they are

    def update(self, objects: PixelObjects) -> dict[int, float]:
        """Adds the objects of the next frame; the scores of their tracks by id, {} if objects have no scores."""
        means = {}
        scores = [] if objects.scores is None else objects.scores.tolist()
        for track_id, score in zip(objects.track_ids.tolist(), scores, strict=objects.scores is not None):
            total, count = self._sums.get(track_id, (0.0, 0))
            self._sums[track_id] = total + score, count + 1
            means[track_id] = (total + score) / (count + 1)
        return means


@dataclass(frozen=True)
class Overlay:
    """Draws the frames of a stream with the options of `draw_objects`; keeps state between frames.

    `trails` adds the path of each object, `frame_rate` the frames per second in the corner. A track is drawn while its
    score, as `track_scores` has it, is at least `score_threshold`.
    """

    masks: bool = True
    boxes: bool = True
    text: bool = True
    scores: bool = True
    trails: Trails | None = None
    frame_rate: FrameRate | None = None
    score_threshold: float = DISPLAY_SCORE_THRESHOLD
    track_scores: TrackScores = field(default_factory=TrackScores)

    def draw(self, frame: np.ndarray, objects: PixelObjects, class_names: Sequence[str]) -> np.ndarray:
        """Returns a copy of the next `frame`, drawn as by `draw_objects`."""
        if self.trails is not None:
            self.trails.add(objects)
        scores = self.track_scores.update(objects)
        rate = self.frame_rate.update() if self.frame_rate is not None else None
        return draw_objects(
            frame,
            objects,
            class_names,
            masks=self.masks,
            boxes=self.boxes,
            text=self.text,
            scores=self.scores,
            trails=self.trails,
            caption="" if rate is None else f"{rate:.1f} FPS",
            hidden={track_id for track_id, score in scores.items() if score < self.score_threshold},
        )


def draw_objects(
    frame: np.ndarray,
    objects: PixelObjects,
    class_names: Sequence[str],
    *,
    masks: bool = True,
    boxes: bool = True,
    text: bool = True,
    scores: bool = True,
    trails: Trails | None = None,
    caption: str = "",
    letter_height: float | None = None,
    hidden: Collection[int] = (),
) -> np.ndarray:
    """Returns a copy of `frame` with every object's mask, outline, box and label "name #id score" on it.

    `frame` is uint8 RGB [h,w,3]; `objects` has masks of that size, boxes may reach beyond it; `class_names[0]` is the
    name of label 1. Small objects are drawn over large ones, labels over everything. Lines and letters grow with the
    frame; where the frame is too narrow for a label, the score and then the name are left out. A name with letters that
    no font here has is replaced by the number of its class. Without objects the result is a plain copy. Masks with
    their outlines, boxes, labels (`text`) and the `scores` in them can be switched off; `trails` adds the path of each
    object, `caption` a text in the lower left corner. `letter_height` is that of a capital letter in pixels (default: a
    fiftieth of the shorter side, at least 8). Tracks with an id among `hidden` are left out.
    """
    picture = np.array(frame, order="C")
    mask_pixels = np.asarray(objects.masks)
    corners = objects.boxes_px.tolist()
    track_ids = objects.track_ids.tolist()
    scores_shown = objects.scores.tolist() if scores and objects.scores is not None else [None] * len(objects)
    colours = [track_colour(track_id) for track_id in track_ids]
    large_first = sorted(
        (index for index, track_id in enumerate(track_ids) if track_id not in hidden),
        key=lambda index: _area(corners[index]),
        reverse=True,
    )
    short_side = min(frame.shape[:2])
    outline, thin = max(1, round(short_side / 360)), max(1, round(short_side / 720))
    letter_height = letter_height or max(_SMALLEST_CAP_HEIGHT, short_side / 50)

    for index in large_first if masks else ():
        _draw_mask(picture, mask_pixels[index], colours[index], outline)
    for index in large_first if trails else ():
        _draw_trail(picture, trails.of(track_ids[index]), colours[index], outline)
    for index in large_first if boxes else ():
        x1, y1, x2, y2 = corners[index]
        cv2.rectangle(picture, (x1, y1), (x2, y2), colours[index], thin)
    taken: list[Rect] = []
    for index in large_first if text else ():
        label = int(objects.labels[index])
        name = drawable_name(class_names[label - 1], label)
        texts = _label_texts(name, track_ids[index], scores_shown[index])
        taken.append(_draw_label(picture, texts, corners[index], colours[index], taken, letter_height))
    if caption:
        draw_caption(picture, caption, letter_height)
    return picture


def draw_caption(picture: np.ndarray, text: str, letter_height: float = _SMALLEST_CAP_HEIGHT) -> None:
    """Writes `text` into the lower left corner of `picture` [h,w,3] uint8 RGB, white on black, in ASCII with escapes if
    no font here has its letters, or some are control characters."""
    bottom = len(picture)
    text = _drawable(text, text.encode("unicode_escape").decode("ascii"))
    _draw_label(picture, [text], [0, bottom, 0, bottom], (0, 0, 0), [], letter_height)


def truth_beside_prediction(
    frame: np.ndarray,
    truth: PixelObjects,
    found: PixelObjects,
    class_names: Sequence[str],
    letter_height: float | None = None,
) -> np.ndarray:
    """Returns two pictures of `frame`, `truth` left and `found` right of a white gap: uint8 RGB [h,2w+8,3].

    Each is drawn by `draw_objects`, with a caption in the lower left corner. An object has the same colour on both
    sides only if the caller gives it the same track id in both.
    """
    halves = [
        draw_objects(frame, objects, class_names, caption=caption, letter_height=letter_height)
        for caption, objects in (("truth", truth), ("prediction", found))
    ]
    gap = np.full((frame.shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate((halves[0], gap, halves[1]), axis=1)


def _draw_mask(picture: np.ndarray, mask: np.ndarray, colour: Colour, outline: int) -> None:
    """Tints the pixels of `mask` [h,w] bool and draws the outline of each of its pieces and holes."""
    mask = mask.view(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    if not width:
        return
    window = np.s_[top : top + height, left : left + width]
    cv2.copyTo(cv2.LUT(picture[window], _tint_table(colour)), mask[window], picture[window])
    contours, _ = cv2.findContours(mask[window], cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE, offset=(left, top))
    cv2.drawContours(picture, contours, -1, colour, outline, cv2.LINE_AA)


def _tint_table(colour: Colour) -> np.ndarray:
    """The tinted value of each level of each channel: [256,1,3] uint8."""
    levels = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(256, 1, 3)
    return cv2.addWeighted(levels, 1 - _MASK_OPACITY, np.full_like(levels, colour), _MASK_OPACITY, 0)


def _draw_trail(picture: np.ndarray, way: list[tuple[int, int]], colour: Colour, outline: int) -> None:
    """Draws the points `way`, oldest first, as a widening line with a rim that makes it visible on its own mask."""
    rim = text_colour(colour)
    widths = [round(outline * (1 + 2 * step / max(1, len(way) - 1))) for step in range(1, len(way))]
    for extra, paint in ((2 * outline, rim), (0, colour)):
        for start, end, width in zip(way, way[1:], widths, strict=False):
            cv2.line(picture, start, end, paint, width + extra, cv2.LINE_AA)
    if way:
        cv2.circle(picture, way[-1], 3 * outline, rim, cv2.FILLED, cv2.LINE_AA)
        cv2.circle(picture, way[-1], 2 * outline, colour, cv2.FILLED, cv2.LINE_AA)


def _label_texts(name: str, track_id: int, score: float | None) -> list[str]:
    """The texts of a label, longest first, without a score if it is None."""
    texts = [f"{name} #{track_id}", f"#{track_id}"]
    return texts if score is None else [f"{name} #{track_id} {score:.2f}", *texts]


def _draw_label(
    picture: np.ndarray, texts: list[str], box: list[int], colour: Colour, taken: list[Rect], cap_height: float
) -> Rect:
    """Draws one of `texts`, each shorter than the one before, as the label of `box`; returns the label's x1 y1 x2 y2.

    It is the first text that is at most half as wide as the picture and fits inside the picture outside `taken`: on
    the box, inside or under it, at its left or its right side. If none fits, the label overlaps as little as possible.
    """
    height, width = picture.shape[:2]
    # The signs | and ( reach a third of a capital height below the line, accents as much above a capital letter.
    pad = math.ceil(0.4 * cap_height + max(1, round(cap_height / 9)) / 2)
    tag_height = round(cap_height) + 2 * pad
    x1, y1, x2, y2 = box
    places = []
    for text in texts:
        text_width = math.ceil(_font(_font_file(frozenset(text)), cap_height).getlength(text))
        if text_width <= width / 2 or text == texts[-1]:
            tag_width = text_width + pad
            for left in (max(0, min(side, width - tag_width)) for side in (x1, x2 - tag_width)):
                for top in (max(0, min(side, height - tag_height)) for side in (y1 - tag_height, y1, y2)):
                    places.append((text, (left, top, left + tag_width, top + tag_height)))
    text, rect = min(places, key=lambda place: sum(_overlap(place[1], other) for other in taken))

    cv2.rectangle(picture, rect[:2], (rect[2] - 1, rect[3] - 1), colour, cv2.FILLED)
    tag = picture[max(0, rect[1]) : rect[3], max(0, rect[0]) : rect[2]]
    cover = _letters(text, cap_height, pad, (rect[2] - rect[0], rect[3] - rect[1]))[: len(tag), : tag.shape[1], None]
    tag[:] = (1 - cover) * tag + cover * np.array(text_colour(colour), np.float32)
    return rect


def drawable_name(name: str, label: int) -> str:
    """The name of the class `label`, or "class LABEL" if no font here has its letters."""
    return _drawable(name, f"class {label}")


def font_families(names: Iterable[str]) -> list[str]:
    """The font families in which matplotlib draws all these names, those of `drawable_name`; a text in all of them may
    have any other sign of DejaVu Sans, too."""
    files = sorted({_font_file(frozenset(name)) for name in names} - {None})
    return list(dict.fromkeys(["DejaVu Sans", *map(_family, files)]))


@lru_cache(maxsize=256)
def _family(path: str) -> str:
    """The family of the font in a file, which matplotlib then knows."""
    from matplotlib.font_manager import FontProperties, fontManager

    fontManager.addfont(path)
    return FontProperties(fname=path).get_name()


def _drawable(text: str, instead: str) -> str:
    """`text`, or `instead` if no font here has its letters."""
    if _font_file(frozenset(text)) is not None:
        return text
    _warn_of_missing_font()
    return instead


@lru_cache(maxsize=1)  # once
def _warn_of_missing_font() -> None:
    logger.warning(
        "no font here has the letters of some names: classes are drawn by their numbers, other texts with escapes; "
        "install a font that has them, such as Noto Sans CJK for Chinese, Japanese and Korean"
    )


@lru_cache(maxsize=256)
def _font_file(letters: frozenset[str]) -> str | None:
    """A font with all these letters and `_LABEL_SIGNS`: DejaVu Sans, which matplotlib brings and which has those of
    most European languages, Arabic and Hebrew, or else the first such font of the system; None if there is none."""
    import matplotlib
    from matplotlib.font_manager import findSystemFonts

    codes = _LABEL_SIGNS.union(map(ord, letters))
    own = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf"
    if codes <= _codes_of(own):
        return own
    pages = {code >> 8 for code in codes}
    fonts = sorted(findSystemFonts(), key=_unlikeness)
    return next((font for font in fonts if pages <= _pages_of(font) and codes <= _codes_of(font)), None)


def _unlikeness(path: str) -> tuple[int, str]:
    """Sorts upright sans-serif fonts of usual weight first."""
    name = os.path.basename(path).lower()
    return 2 * ("sans" not in name) + any(word in name for word in _OTHER_STYLES), path


@lru_cache(maxsize=16)
def _codes_of(path: str) -> frozenset[int]:
    """The code points that a font has outlines for, none of them of control characters; none if it cannot be used."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        draws_all = any(word in os.path.basename(path).lower() for word in _PLACEHOLDERS)
        return frozenset(font.get_charmap()) - _CONTROLS if font.scalable and not draws_all else frozenset()
    except (RuntimeError, OSError, ValueError):  # damaged, or of another format
        return frozenset()


@lru_cache(maxsize=4096)
def _pages_of(path: str) -> frozenset[int]:
    """The code points of `_codes_of` divided by 256, which take less memory."""
    return frozenset(code >> 8 for code in _codes_of(path))


@lru_cache(maxsize=16)
def _font(path: str, cap_height: float) -> "FreeTypeFont":
    """The font in a file, at the size at which a capital letter of DejaVu Sans has this height."""
    from PIL import ImageFont

    return ImageFont.truetype(path, cap_height / _CAP_HEIGHT)


@lru_cache(maxsize=256)
def _letters(text: str, cap_height: float, pad: int, size: tuple[int, int]) -> np.ndarray:
    """How much of each pixel of a label of `size` (width, height) its text covers, [height,width] in 0…1."""
    from PIL import Image, ImageDraw

    label = Image.new("L", size)
    font = _font(_font_file(frozenset(text)), cap_height)
    ImageDraw.Draw(label).text((pad // 2, size[1] - pad), text, 255, font, anchor="ls")
    return np.asarray(label, np.float32) / 255


def _area(box: list[int]) -> int:
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)


def _overlap(a: Rect, b: Rect) -> int:
    """The pixels that two rectangles share."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
