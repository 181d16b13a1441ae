"""LabelMe: one folder per video with one JSON file per frame, as the LabelMe program writes them.

The label and the `group_id` of a shape say which object of its video it is: give the shapes of one object the same
group_id in every frame. Shapes without one are, label by label, one object of the video.

Frames without a JSON file are left out: not labelled is not the same as empty.
"""

import base64
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from ytvis.annotations import AnnotationFile, Track
from ytvis.convert.shapes import ellipse, refusal
from ytvis.convert.tracks import (
    TrackCollector,
    check_sizes,
    collect,
    encode_png,
    field,
    new_folder,
    part_to_rle,
    progress,
    videos_to_write,
)
from ytvis.files import InputError, atomic_write, read_json
from ytvis.frames import check_order, video_folders, warn_if_unrelated
from ytvis.masks import decode_mask
from ytvis.messages import shown
from ytvis.pictures import decode_labels, list_pictures

logger = logging.getLogger(__name__)

POLYGONS = ("polygon", "rectangle", "oriented_rectangle", "rotation", "quadrilateral")


def read(source: str | os.PathLike, images: str | os.PathLike | None = None) -> AnnotationFile:
    """The annotations of every folder in or below `source` that holds JSON files.

    File names are relative to `images`, or without it to `source`, where LabelMe found the pictures. Categories are
    the labels, in natural order.

    Raises:
        InputError: a file is not LabelMe's, or is at odds with the others of its video or with its picture.
    """
    folders = video_folders(source, ".json")
    root = Path(source if images is None else images)
    videos = (
        _read_video(name, paths, root, images is not None, is_only=len(folders) == 1)
        for name, paths in progress(folders, "videos")
    )
    return collect(source, videos)


def _read_video(name: str, paths: list[Path], root: Path, has_images: bool, is_only: bool) -> TrackCollector:
    collector, file_names, sharing = None, [], []
    own_folder = f"{name}/" if not is_only or (root / name).is_dir() else ""
    for frame_index, path in enumerate(progress(paths, name)):
        content = read_json(path)
        height, width = (field(content, key, int, str(path)) for key in ("imageHeight", "imageWidth"))
        if collector is None:
            collector = TrackCollector(name, height, width, str(path))
        if (height, width) != (collector.height, collector.width):
            raise InputError(
                f"{path}: is {width}×{height}, frames before it {collector.width}×{collector.height}; the pictures of "
                "a folder are the frames of one video: put unrelated ones into folders of their own"
            )
        image_path = field(content, "imagePath", str, str(path))
        file_names.append(_file_name(path, image_path, root, own_folder, has_images))
        labels = _add_shapes(collector, frame_index, field(content, "shapes", list, str(path)), path)
        sharing += [(path, label) for label in set(labels) if labels.count(label) > 1]
    if sharing:
        logger.warning(
            "%s: several shapes %r without a group_id are taken for parts of one object, as in %d other places of the "
            "video; if they are several objects, give each its group_id",
            *sharing[0],
            len(sharing) - 1,
        )
    twice = [file_name for file_name, count in Counter(file_names).items() if count > 1]
    if twice:
        raise InputError(f"{paths[0].parent}: two of its JSON files are of the picture {twice[0]}; keep one of them")
    warn_if_unrelated(file_names, str(paths[0].parent))
    there = file_names if has_images else [file_name for file_name in file_names if (root / file_name).is_file()]
    check_sizes(root, there, (collector.height, collector.width), str(paths[0].parent))
    unlabelled = len(list_pictures(root / own_folder)) - len(file_names)
    if unlabelled > 0:
        logger.warning("%s: %d pictures without a JSON file are left out", root / own_folder, unlabelled)
    collector.name_frames(file_names)
    return collector


def _file_name(path: Path, image_path: str, root: Path, own_folder: str, has_images: bool) -> str:
    """The name of a frame relative to `root`."""
    image_path = image_path.replace("\\", "/")  # LabelMe on Windows
    picture = Path(os.path.abspath(path.parent / image_path))
    if picture.is_relative_to(os.path.abspath(root)) and not PureWindowsPath(image_path).is_absolute():
        return picture.relative_to(os.path.abspath(root)).as_posix()
    if not has_images:
        raise InputError(
            f"{path}: its picture {image_path} is outside {root}; name the folder of pictures with --images"
        )
    return own_folder + picture.name


def _add_shapes(collector: TrackCollector, frame_index: int, shapes: list, path: Path) -> list[str]:
    """Adds the shapes of a frame; returns the labels of those without a group_id."""
    labels = []
    for position, shape in enumerate(shapes):
        where = f"{path}: shape {position + 1}"
        label = field(shape, "label", str, where).strip()
        if not label:
            raise InputError(f"{where} has an empty label")
        group_id = shape.get("group_id")
        if group_id is None:
            labels.append(label)
        else:
            group_id = field(shape, "group_id", int, where)
        flags = shape.get("flags")
        is_crowd = isinstance(flags, dict) and bool(flags.get("iscrowd"))
        segmentation = _segmentation(shape, (collector.height, collector.width), where)
        collector.add((label, group_id), label, frame_index, segmentation, where, is_crowd)
    return labels


def _segmentation(shape: dict, size_hw: tuple[int, int], where: str) -> list | dict:
    """The polygon or the RLE of a shape."""
    points = field(shape, "points", list, where)
    for point in points:
        if not isinstance(point, list) or len(point) != 2 or not all(map(_is_finite, point)):
            raise InputError(f"{where}: a point must be x, y, not {shown(point)}")
    kind = shape.get("shape_type") or "polygon"  # null is a polygon to LabelMe
    match kind, len(points):
        case "mask", 2:
            return _mask(shape, points[0], size_hw, where)
        case "rectangle", 2:
            (left, top), (right, bottom) = points
            points = [[left, top], [right, top], [right, bottom], [left, bottom]]
        case "circle", 2:
            radius = math.dist(*points)
            return [ellipse(*points[0], radius, radius)]
        case "ellipse", 2:
            (left, top), (right, bottom) = points
            return [ellipse((left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2)]
        case str(), count if kind in POLYGONS and count >= 3:
            pass
        case _:
            reason = "is not an area" if kind in (*POLYGONS, "mask", "circle", "ellipse") else None
            raise InputError(f"{where}: {refusal(kind, f'of {len(points)} points', reason)}")
    return [[coordinate for point in points for coordinate in point]]


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _mask(shape: dict, corner: list, size_hw: tuple[int, int], where: str) -> dict:
    """The RLE of a shape whose mask is a PNG, to be placed with its first pixel at `corner` x y."""
    try:
        part = decode_labels(base64.b64decode(field(shape, "mask", str, where), validate=True), where)
    except ValueError:
        raise InputError(f"{where}: its mask is not a PNG in base64") from None
    rle = part_to_rle(part, round(corner[1]), round(corner[0]), size_hw)
    if rle is None:
        raise InputError(f"{where}: its mask does not fit into the picture")
    return rle


# ---------------------------------------------------------------------------------------------------- writing


def write(annotations: AnnotationFile, target: str | os.PathLike, images: str | os.PathLike | None = None) -> None:
    """Writes <target>/<video>/<frame>.json for every frame; a track's number in its video, from 1, is its group_id.

    Polygons stay polygons, an RLE becomes a mask. LabelMe finds the pictures in `images`; without it they have to be
    copied beside the JSON files.

    Raises:
        InputError: `target` is not new or empty, or the frames of a video are in another order than their names.
    """
    with new_folder(target) as target:
        videos = videos_to_write(annotations)
        stems = [check_order(folder, video.file_names, "LabelMe") for folder, video, _ in videos]
        for (folder, video, tracks), names in zip(progress(videos, "videos"), stems, strict=True):
            frames = zip(progress(names, folder), video.file_names, strict=True)
            for frame_index, (stem, file_name) in enumerate(frames):
                path = target / folder / f"{stem}.json"
                image_path = Path(file_name).name
                if images is not None:
                    image_path = Path(os.path.relpath(Path(images) / file_name, path.parent)).as_posix()
                shapes = [
                    shape
                    for group_id, track in enumerate(tracks, start=1)
                    for shape in _shapes(track, annotations.categories[track.category_id], group_id, frame_index)
                ]
                content = frame_content(shapes, image_path, (video.height, video.width))
                with atomic_write(path) as file:
                    json.dump(content, file, indent=1, ensure_ascii=False)


def frame_content(shapes: list[dict[str, Any]], image_path: str, size_hw: Sequence[int]) -> dict[str, Any]:
    """What the LabelMe file of a picture of `size_hw` holds; `image_path` is relative to the file."""
    return {
        "version": "5.4.1",  # a version of LabelMe that knows masks
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": size_hw[0],
        "imageWidth": size_hw[1],
    }


def polygon_shape(points: list[list[float]], label: str, group_id: int, is_crowd: bool = False) -> dict[str, Any]:
    """A shape of a LabelMe file: the polygon with the corners `points`, x y in pixels."""
    return {**_shape(label, group_id, is_crowd), "points": points, "shape_type": "polygon", "mask": None}


def _shape(label: str, group_id: int, is_crowd: bool) -> dict[str, Any]:
    flags = {"iscrowd": True} if is_crowd else {}
    return {"label": label, "group_id": group_id, "description": "", "flags": flags}


def _shapes(track: Track, category: str, group_id: int, frame_index: int) -> list[dict[str, Any]]:
    """What LabelMe writes for a track in one frame: a shape for each polygon, or one for the mask."""
    segmentation = track.segmentations[frame_index]
    if not segmentation:
        return []
    common = (category, group_id, track.iscrowd)
    if isinstance(segmentation, list):
        pairs = [[list(pair) for pair in zip(polygon[::2], polygon[1::2], strict=True)] for polygon in segmentation]
        return [polygon_shape(points, *common) for points in pairs]
    mask = decode_mask(segmentation)
    if not mask.any():
        return []
    rows, columns = (np.flatnonzero(mask.any(axis=axis)).tolist() for axis in (1, 0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    points = [[columns[0], rows[0]], [columns[-1], rows[-1]]]
    text = base64.b64encode(encode_png(Image.fromarray(part.astype(np.uint8)))).decode("ascii")
    return [{**_shape(*common), "points": points, "shape_type": "mask", "mask": text}]
