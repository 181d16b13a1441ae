"""CVAT for video 1.1: an XML file a video, whose tracks hold a polygon, a mask or a box for each frame.

CVAT lists every frame of a track when it exports, those between key frames too; a frame that a file does not list is
taken as one where the object is not seen, as is one that is marked `outside`. Boxes count as filled rectangles.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from ytvis.convert.tracks import (
    Annotations,
    TrackCollector,
    TrackedVideo,
    frame_folder,
    frames_of_stems,
)
from ytvis.files import InputError, natural_key
from ytvis.masks import encode_mask
from ytvis.pictures import list_pictures

logger = logging.getLogger(__name__)


def read(source: str | os.PathLike, images: str | os.PathLike | None = None) -> Annotations:
    """The tracks of an XML file, or of all XML files of a folder; a video has the name of its file.

    File names are relative to `images`: frame n is the n-th picture of <images>/<video>/, from 0, in natural order.
    Without it they are guessed to be <video>/frame_000000.jpg and on.

    Raises:
        InputError: a file is not in the format, a shape is no area, or a frame has no picture.
    """
    source = Path(source)
    paths = [source]
    if source.is_dir():
        paths = sorted(source.glob("*.xml"), key=lambda path: natural_key(path.name))
    if not paths:
        raise InputError(f"{source}: holds no *.xml")
    images = None if images is None else Path(images)
    return Annotations.with_seen_categories(_read_video(path, images, is_only=len(paths) == 1) for path in paths)


def _read_video(path: Path, images: Path | None, is_only: bool) -> TrackedVideo:
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ElementTree.ParseError, UnicodeError) as error:
        raise InputError(f"{path}: not an XML file: {error}") from None
    if root.find("image") is not None:
        raise InputError(f"{path}: holds images without tracks; export it as 'CVAT for video 1.1'")
    size = next(root.iter("original_size"), None)
    if root.tag != "annotations" or size is None:
        raise InputError(f"{path}: is not a file of 'CVAT for video 1.1', with the original_size of the video")
    height, width = (_integer(size.findtext(key), f"{path}: the video's {key}") for key in ("height", "width"))
    if min(height, width) < 1:
        raise InputError(f"{path}: the video's size is {width}×{height}")
    shapes = list(_shapes(root, path))
    prefix = frame_folder(images, path.stem, is_only)
    if images is None:
        told = _integer(next(root.iter("size"), Element("size")).text or "0", f"{path}: the number of frames")
        length = max([told, *(frame + 1 for _, frame, _, _ in shapes)])
        file_names = frames_of_stems(None, prefix, [f"frame_{frame:06d}" for frame in range(length)])
    else:
        file_names = [prefix + name for name in list_pictures(images / prefix)]
    if not file_names:
        raise InputError(f"{path}: has no frames; --images says where its pictures are")
    collector = TrackCollector(path.stem, height, width)
    for track, frame, shape, where in shapes:
        if frame >= len(file_names):
            raise InputError(f"{where}: {images / prefix} holds no more than {len(file_names)} pictures")
        segmentation = _segmentation(shape, (height, width), where)
        collector.add(track.get("id"), track.get("label"), frame, segmentation, where)
    return collector.finish(file_names)


def _shapes(root: Element, path: Path) -> Iterator[tuple[Element, int, Element, str]]:
    """(track, frame, shape, place) of every shape that is seen."""
    gaps = []
    for track in root.iter("track"):
        where = f"{path}: track {track.get('id')}"
        if not track.get("id") or not track.get("label"):
            raise InputError(f"{where} lacks its id or its label")
        shapes = [(_integer(shape.get("frame"), f"{where}: the frame of a shape"), shape) for shape in track]
        next_frames = [frame for frame, _ in shapes[1:]] + [None]
        for (frame, shape), next_frame in zip(shapes, next_frames, strict=True):
            if shape.get("outside") != "1":
                yield track, frame, shape, f"{where}, frame {frame}"
                if next_frame is not None and next_frame > frame + 1:
                    gaps.append(f"{where}, frame {frame}")
    if gaps:
        logger.warning(
            "%s: the frames behind it are not listed, as in %d other places: the object is taken as not seen there; if "
            "the file holds nothing but key frames, import it into CVAT and export it again",
            gaps[0],
            len(gaps) - 1,
        )


def _segmentation(shape: Element, size_hw: tuple[int, int], where: str) -> list | dict:
    """The polygon or the RLE of a shape."""
    if shape.get("rotation") not in (None, "0", "0.0"):
        raise InputError(f"{where}: a rotated {shape.tag} cannot be used; draw a polygon or a mask")
    try:
        if shape.tag == "polygon":
            pairs = [point.split(",") for point in shape.get("points", "").split(";")]
            return [[float(number) for x, y in pairs for number in (x, y)]]
        if shape.tag == "box":
            left, top, right, bottom = (float(shape.get(key, "")) for key in ("xtl", "ytl", "xbr", "ybr"))
            return [[left, top, right, top, right, bottom, left, bottom]]
        if shape.tag == "mask":
            return _mask(shape, size_hw)
    except ValueError:
        raise InputError(f"{where}: the {shape.tag} cannot be read") from None
    raise InputError(f"{where}: a {shape.tag} is no area; draw a polygon or a mask")


def _mask(shape: Element, size_hw: tuple[int, int]) -> dict:
    """The RLE of a mask that CVAT tells as runs of its rows, ground first, within a box; ValueError if it cannot be."""
    left, top, width, height = (int(shape.get(key, "")) for key in ("left", "top", "width", "height"))
    runs = np.array([int(run) for run in shape.get("rle", "").split(",")])
    if min(left, top, width, height, *runs) < 0 or top + height > size_hw[0] or left + width > size_hw[1]:
        raise ValueError
    part = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
    mask = np.zeros(size_hw, np.uint8)
    mask[top : top + height, left : left + width] = part
    return encode_mask(mask)


def _integer(text: str | None, what: str) -> int:
    if text is None or not text.strip().isdecimal():
        raise InputError(f"{what} must be a whole number from 0, not {text!r}")
    return int(text)
