"""Annotation files in the YouTube-VIS format, and in COCO's: the types of what they hold, and their one reader."""

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ytvis.coco import as_videos
from ytvis.files import InputError
from ytvis.masks import mask_area, mask_boxes
from ytvis.results import read_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Video:
    """A video of a data set; its length is the number of its frames, at least 1. Sizes are in pixels.

    `file_names` are relative to the folder of the frames.
    """

    video_id: int
    width: int
    height: int
    file_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.file_names)


@dataclass(frozen=True, slots=True)
class TrackAnnotation:
    """One annotated object of a video, as the file has it: every tuple has one entry a frame, None where it is absent.

    `segmentations` are polygons or RLEs (see `ytvis.masks.to_rle`), `bboxes` x y width height in pixels. A set may
    have a million of these, hence the slots.
    """

    annotation_id: int
    video_id: int
    category_id: int
    iscrowd: bool
    segmentations: tuple[list | dict | None, ...]
    bboxes: tuple[list[float] | None, ...]
    areas: tuple[float | None, ...]


def _valid_box(track: TrackAnnotation, frame_index: int, rle: dict | None) -> list[float] | None:
    """x y width height, or None if the object is too small. `rle` stands in for a box or an area the file lacks."""
    box, area = track.bboxes[frame_index], track.areas[frame_index]
    box = mask_boxes([rle])[0].tolist() if box is None else box
    area = mask_area(rle) if area is None else area
    return box if box[2] >= 1 and box[3] >= 1 and area > 0 else None


def read_annotations(path: str | os.PathLike, object_hook: Callable[[dict], dict] | None = None) -> dict:
    """The content of an annotation file, in the YouTube-VIS format even if the file is in COCO's; values unchecked.

    `object_hook` makes what stands for each of its JSON objects.

    Raises:
        InputError: there is no such file, or it holds no JSON object.
    """
    path = Path(path)
    return as_videos(_read_content(path, object_hook), path)


def _read_content(path: Path, object_hook: Callable[[dict], dict] | None = None) -> dict:
    content = read_json(path, object_hook)
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold an object with 'videos' and 'categories', not a {type(content).__name__}")
    return content


def _parse_videos(content: dict, path: Path) -> Iterator[Video]:
    seen = set()
    for position, entry in enumerate(_entries(content, "videos", path)):
        video_id = _field(entry, "id", int, f"{path}: video number {position + 1}")
        where = f"{path}: video {video_id}"
        if video_id in seen:
            raise InputError(f"{where} is there twice")
        seen.add(video_id)
        sizes = [_field(entry, key, int, where) for key in ("width", "height")]
        if min(sizes) <= 0:
            raise InputError(f"{where}: 'width' and 'height' must be over 0, not {sizes}")
        file_names = _field(entry, "file_names", list, where)
        if not file_names or not all(isinstance(name, str) for name in file_names):
            raise InputError(f"{where}: 'file_names' must be a list of at least one file name")
        yield Video(video_id, *sizes, tuple(file_names))


def _parse_categories(content: dict, path: Path) -> dict[int, str]:
    """{category id: name}, ids ascending."""
    categories = {}
    for position, entry in enumerate(_entries(content, "categories", path)):
        category_id = _field(entry, "id", int, f"{path}: category number {position + 1}")
        if category_id in categories:
            raise InputError(f"{path}: category {category_id} is there twice")
        categories[category_id] = _field(entry, "name", str, f"{path}: category {category_id}")
    return dict(sorted(categories.items()))


def _match_categories(categories: dict[int, str], class_names: Sequence[str], path: Path) -> dict[int, int]:
    """{category id: label 1…C}, by name or else by order."""
    labels = {normalised_name(name): label for label, name in enumerate(class_names, start=1)}
    names = [normalised_name(name) for name in categories.values()]
    if len(set(names)) == len(names) and labels.keys() >= set(names):
        return {category_id: labels[name] for category_id, name in zip(categories, names, strict=True)}
    if len(categories) != len(class_names):
        raise InputError(
            f"{path}: has {len(categories)} categories, the model {len(class_names)} classes, and not all of their "
            "names agree; name the model's classes in label order with --set dataset.class_names=NAME,NAME,…"
        )
    unknown = [name for name, key in zip(categories.values(), names, strict=True) if key not in labels]
    logger.warning(
        "%s: the model's classes have other names (%s); categories are taken in the order of their ids",
        path,
        ", ".join(unknown) or "a name is there twice",
    )
    return {category_id: label for label, category_id in enumerate(categories, start=1)}


def normalised_name(name: str) -> str:
    """A class name as it is compared: without regard to case, and with _ for spaces and hyphens."""
    return re.sub(r"[\s-]", "_", name.strip().lower())


def _parse_annotations(
    content: dict, videos: Mapping[int, Video], labels: Mapping[int, int], path: Path
) -> Iterator[TrackAnnotation]:
    entries = content.get("annotations") or []  # absent or null where the truth is withheld
    if not isinstance(entries, list):
        raise InputError(f"{path}: 'annotations' must be a list, not {type(entries).__name__}")
    seen = set()
    for position, entry in enumerate(entries):
        if entry is None:
            continue
        annotation_id = _field(entry, "id", int, f"{path}: annotation number {position + 1}")
        where = f"{path}: annotation {annotation_id}"
        if annotation_id in seen:
            raise InputError(f"{where} is there twice")
        seen.add(annotation_id)
        video_id = _field(entry, "video_id", int, where)
        if video_id not in videos:
            raise InputError(f"{where}: there is no video {video_id}")
        category_id = _field(entry, "category_id", int, where)
        if category_id not in labels:
            raise InputError(f"{where}: there is no category {category_id}")
        length = len(videos[video_id])
        yield TrackAnnotation(
            annotation_id,
            video_id,
            category_id,
            bool(entry.get("iscrowd")),
            _per_frame(entry, "segmentations", length, lambda value: isinstance(value, list | dict), where),
            _per_frame(entry, "bboxes", length, _is_box, where),
            _per_frame(entry, "areas", length, _is_number, where),
        )


def _per_frame(
    entry: dict, key: str, length: int, is_valid: Callable[[Any], bool], where: str
) -> tuple[Any | None, ...]:
    """A list of one entry a frame, None for null and []; all None if the list is absent, null or empty."""
    values = entry.get(key)
    if values is None or values == []:
        return (None,) * length
    if not isinstance(values, list):
        raise InputError(f"{where}: {key!r} must be a list, not {type(values).__name__}")
    if len(values) != length:
        raise InputError(f"{where}: {key!r} has {len(values)} entries, its video {length} frames")
    values = [None if value == [] else value for value in values]
    for frame_index, value in enumerate(values):
        if value is not None and not is_valid(value):
            raise InputError(f"{where}: {key!r} of frame {frame_index} cannot be used: {str(value)[:80]}")
    return tuple(values)


def _entries(content: dict, key: str, path: Path) -> list:
    entries = content.get(key)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: {key!r} must be a list of at least one entry")
    return entries


def _field(entry: Any, key: str, kind: type, where: str) -> Any:
    """`entry[key]` of the given type, or InputError."""
    if not isinstance(entry, dict):
        raise InputError(f"{where} must be an object, not {type(entry).__name__}")
    if key not in entry:
        raise InputError(f"{where} lacks {key!r}")
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {int: "an integer", str: "text", list: "a list"}
        raise InputError(f"{where}: {key!r} must be {names[kind]}, not {str(value)[:80]!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(_is_number(side) for side in value)


def _located(function: Callable, where: str, *arguments: Any) -> Any:
    """`function(*arguments)`, its InputError preceded by the place it is about."""
    try:
        return function(*arguments)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
