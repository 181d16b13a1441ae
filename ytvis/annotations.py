"""Annotation files in the YouTube-VIS and COCO formats: the types of their content, and their reader.

`read_annotations` returns an `AnnotationFile`, and refuses a file at its first fault; `ytvis.check` collects all faults
of the same parser. Training, evaluation, scoring, the viewer and the converters all use this reader, so they accept
the same files.

COCO lists `images` where YouTube-VIS lists `videos`, and gives each annotation one `segmentation`, `bbox` and `area`
where a track has a list of them. Everything else is the same: an image is a video of one frame.
"""

import json
import logging
import os
import posixpath
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

import numpy as np

from ytvis.diagnostics import Diagnostics, Rule
from ytvis.files import ORDER_HINT, InputError, atomic_write, natural_key, read_json
from ytvis.masks import check_rle, check_size, read_track
from ytvis.messages import excerpt, shown

logger = logging.getLogger(__name__)

MAX_NUMBER = 2.0**53  # of an area, a side of a box, or a score
MAX_ID = 2**63 - 1

_TAKEN_TWICE = "give each its own"
_ONE_A_FRAME = "write one entry per frame of the video, null where the object is not visible"
_SEE_FORMAT = "docs/data.md describes the format"

NOT_AN_OBJECT = Rule("fault", "an entry is not a JSON object", _SEE_FORMAT)
BAD_ID = Rule("fault", "an id is not a 64-bit integer", "number videos, categories and annotations from 1")
SAME_VIDEO = Rule("fault", "a video id is used twice", _TAKEN_TWICE)
NO_SIZE = Rule("fault", "width and height cannot be used", "write the size of the frames in pixels")
NO_FRAMES = Rule("fault", "'file_names' is not a list of at least one name", "name the frames in their order")
BAD_NAME = Rule("fault", "a name has control characters or lone surrogates", "write it as plain text in one line")
OTHER_LENGTH = Rule("warning", "'length' is not the number of file_names", "correct 'length', or complete file_names")
FRAME_ORDER = Rule("warning", "frames are not in the order of their numbers", "check that file_names is in time order")
SAME_FRAME = Rule("warning", "a frame is named twice in a video", "name each frame once")
SAME_CATEGORY = Rule("fault", "a category id is used twice", _TAKEN_TWICE)
NO_NAME = Rule("fault", "a category has an empty name", "name it: class names are read from here")
SAME_NAME = Rule("warning", "two categories have the same name", "they count as two classes: give each its own name")
NOT_A_LIST = Rule("fault", "a value is not a list", _ONE_A_FRAME)
NULL_ANNOTATION = Rule("warning", "an annotation is null", "it is ignored: remove it")
SAME_ANNOTATION = Rule("fault", "an annotation id is used twice", _TAKEN_TWICE)
UNKNOWN_VIDEO = Rule("fault", "an annotation has a video that is not in the file", "add the video or remove it")
UNKNOWN_CATEGORY = Rule("fault", "an annotation has a category that is not in the file", "add it or correct the id")
BAD_CROWD = Rule("fault", "'iscrowd' is neither 0 nor 1", "write one number per track: 1 for a crowd of objects")
LONG_LIST = Rule("fault", "a list is longer than its video", _ONE_A_FRAME)
SHORT_LIST = Rule("warning", "a list ends before its video", f"the rest counts as null: {_ONE_A_FRAME}")
NO_SEGMENTATIONS = Rule(
    "warning", "an annotation lacks 'segmentations'", "the object is never visible: write its masks"
)
UNREADABLE_MASK = Rule("fault", "a segmentation cannot be used", "write polygons or RLE [height, width] of the video")
BAD_BOX = Rule("fault", "a box is not x, y, width, height", "write four numbers in pixels, or null")
BAD_AREA = Rule("fault", "an area is not a number of pixels", "write the pixels of each mask, or null")

SMALL_BOX = Rule("warning", "a box is less than a pixel wide or high", "the object is left out there: correct the box")
BOX_OUTSIDE = Rule(
    "warning", "a box extends outside the frame", "the mask's is used; write x, y, width, height in pixels"
)
BOX_NOT_MASK = Rule(
    "warning", "a box does not match its mask", "the mask's is used; write x, y, width, height around it"
)

_COCO_IMAGE = {"file_name": "file_names"}
_COCO_ANNOTATION = {"image_id": "video_id", "segmentation": "segmentations", "bbox": "bboxes", "area": "areas"}

BOX_TOLERANCE = 2.0  # pixels: tools disagree on whether a box ends on its last pixel or after it, and they round


@dataclass(frozen=True, slots=True)
class Video:
    """A video of a data set; its length is the number of its frames, at least 1. Sizes are in pixels.

    `file_names` are relative to the folder of the frames; see `frame_path`. `given_name` is its name in a converter's
    source, with slashes if it is a path of folders; annotation files do not name videos. `frame_rate` is in frames per
    second, None if the file does not have it.
    """

    video_id: int
    width: int
    height: int
    file_names: tuple[str, ...]
    given_name: str | None = None
    frame_rate: float | None = None

    def __len__(self) -> int:
        return len(self.file_names)

    @property
    def name(self) -> str:
        """The video's name in messages and pages: its `given_name`, or that of `video_name`."""
        return self.given_name or video_name(self.file_names, self.video_id)


@dataclass(frozen=True, slots=True)
class Track:
    """One object of a video in an annotation file or a results file.

    `segmentations` has one entry per frame: polygons, an RLE, or None where the object is not visible. So do, if the
    file has them, `bboxes` (x y width height in pixels), `areas` (pixels), `scores` (of a single frame, None where the
    track is not visible) and `shifted` (whether only temporal fusion shows the track). Annotations have `annotation_id`
    and `iscrowd`, results have `score` and `track_id`, the object's number in all outputs of a run. The class has slots
    because a set may have a million tracks.
    """

    video_id: int
    category_id: int
    segmentations: tuple[list | dict | None, ...]
    annotation_id: int | None = None
    iscrowd: bool = False
    bboxes: tuple[list[float] | None, ...] | None = None
    areas: tuple[float | None, ...] | None = None
    score: float | None = None
    scores: tuple[float | None, ...] | None = None
    shifted: tuple[bool, ...] | None = None
    track_id: int | None = None


@dataclass(frozen=True)
class AnnotationFile:
    """The content of an annotation file: videos by id, in the file's order, and category names by ascending id.

    Names are unique: a repeated one has its id appended. `tracks` is None if the file has no truth. The images of a
    COCO file (`is_static`) are videos of one frame.
    """

    path: str
    is_static: bool
    videos: Mapping[int, Video]
    categories: Mapping[int, str]
    tracks: tuple[Track, ...] | None

    def of_video(self) -> dict[int, list[Track]]:
        """The tracks of each video, in the file's order."""
        tracks: dict[int, list[Track]] = {video_id: [] for video_id in self.videos}
        for track in self.tracks or ():
            tracks[track.video_id].append(track)
        return tracks


# ---------------------------------------------------------------------------------------------------- reading


def read_annotations(path: str | os.PathLike) -> AnnotationFile:
    """Reads an annotation file; masks stay unchecked until `read_masks` reads them.

    Faults that do not prevent reading are logged.

    Raises:
        InputError: the file cannot be read, or has a fault that `ytvis.check` reports.
    """
    found = Diagnostics(refuse=path)
    annotations = parse_annotations(read_content(path), path, found)
    for diagnostic in found:
        logger.warning("%s: %s", path, diagnostic)
    return annotations


def read_categories(path: str | os.PathLike) -> dict[int, str]:
    """Returns the names of an annotation file's categories by their ids, in the order of these.

    Raises:
        InputError: the file cannot be read, or its videos or categories have faults.
    """
    return dict(AnnotationParser(read_content(path), path, Diagnostics(refuse=path)).categories)


def read_class_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Returns the names of `read_categories`, which raises likewise."""
    return tuple(read_categories(path).values())


def read_content(path: str | os.PathLike) -> dict[str, Any]:
    """Returns the JSON object of an annotation file, values unchecked; a COCO file's in the YouTube-VIS format.

    Lists of runs are compressed and polygons become arrays while reading, as lists of numbers take many times the
    memory.

    Raises:
        InputError: the file is not found, or does not hold a JSON object.
    """
    return as_content(read_json(path, compact_masks()), path)


def compact_masks() -> Callable[[dict], dict]:
    """Returns an `object_hook` for a JSON file of masks that saves memory while reading.

    A mask of runs becomes compressed RLE, and masks of equal size share one size object. The polygons of a COCO file's
    `segmentation` become arrays. Unusable values are left unchanged, for the reader to report.
    """
    sizes: dict[tuple, list] = {}

    def compact(item: dict) -> dict:
        if item.keys() == {"size", "counts"}:
            with suppress(TypeError, InputError):
                item["size"] = sizes.setdefault(tuple(item["size"]), item["size"])
                if isinstance(item["counts"], list):
                    item["counts"] = check_rle(item)["counts"].encode("ascii")
        elif isinstance(polygons := item.get("segmentation"), list) and all(
            isinstance(part, list) for part in polygons
        ):
            with suppress(TypeError, OverflowError):
                item["segmentation"] = [array("d", polygon) for polygon in polygons]
        return item

    return compact


def kind_of(content: Mapping[str, Any]) -> str:
    """The key of the list of videos in an annotation file's content: "images" in a COCO file, otherwise "videos"."""
    return "images" if "images" in content and "videos" not in content else "videos"


def as_content(content: Any, path: str | os.PathLike) -> dict[str, Any]:
    """Returns `content` in the YouTube-VIS format; unchanged if it is not a COCO file's, else its lists are emptied.

    Raises:
        InputError: it is not a JSON object.
    """
    if not isinstance(content, dict):
        is_results = isinstance(content, list) and any(
            isinstance(entry, dict) and "score" in entry for entry in content
        )
        found = f"list: it is a results file; {ORDER_HINT}" if is_results else type(content).__name__
        raise InputError(f"{path}: must hold an object with 'videos' and 'categories', not a {found}")
    if kind_of(content) == "videos":
        return content
    images, annotations = content["images"], content.get("annotations")
    for entries, names in ((images, _COCO_IMAGE), (annotations, _COCO_ANNOTATION)):
        for position, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, dict):
                entries[position] = _renamed(entry, names)
    return {**content, "videos": images}


def as_video_entry(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns an entry of results in the YouTube-VIS format: an image of COCO's results is a video of one frame."""
    return _renamed(entry, _COCO_ANNOTATION) if "image_id" in entry and "video_id" not in entry else entry


def _renamed(entry: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """An entry of a COCO file under the `names` of the YouTube-VIS format, its values as those of the only frame."""
    renamed = {
        ours: entry[theirs] if ours == "video_id" else [entry[theirs]]
        for theirs, ours in names.items()
        if theirs in entry
    }
    others = {key: value for key, value in entry.items() if key not in names and key not in names.values()}
    return others | renamed


def read_checked(path: str | os.PathLike) -> tuple[dict[str, Any], AnnotationFile]:
    """(The unchanged content of an annotation file, a COCO file's in COCO's format; the result of `read_annotations`).

    Raises:
        InputError: the file has a fault, or a mask that cannot be used.
    """
    content = read_json(path, compact_masks())
    copy = (
        {key: list(value) if isinstance(value, list) else value for key, value in content.items()}
        if isinstance(content, dict)
        else content
    )
    found = Diagnostics(refuse=path)
    annotations = parse_annotations(as_content(copy, path), path, found)
    for track in annotations.tracks or ():
        read_masks(track, annotations.videos[track.video_id], found)
    return content, annotations


def write_content(content: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Writes the content of an annotation file, as returned by `read_checked`.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_write(path) as file:
        dump_content(content, file)


def dump_content(content: Mapping[str, Any], file: IO[str]) -> None:
    """Writes the content of an annotation file into an open one."""
    json.dump(content, file, default=_plain, separators=(",", ":"))
    file.write("\n")


def _plain(value: Any) -> Any:
    """The JSON form of compressed runs and of a polygon made by `compact_masks`."""
    return value.decode("ascii") if isinstance(value, bytes) else list(value)


def is_static(content: Mapping[str, Any]) -> bool:
    """Whether the `content` of `read_content` is that of a COCO file."""
    return "images" in content and content.get("videos") is content["images"]


def parse_annotations(content: dict[str, Any], path: str | os.PathLike, found: Diagnostics) -> AnnotationFile:
    """Returns the usable part of the `content` of `read_content`; reports faults to `found`.

    Raises:
        InputError: it has no videos or no categories, or `found` refuses a fault.
    """
    parser = AnnotationParser(content, path, found)
    tracks = tuple(track for _, track in parser.tracks() if track is not None)
    usable = {video_id: video for video_id, video in parser.videos.items() if video is not None}
    has_truth = content.get("annotations") is not None
    return AnnotationFile(str(path), is_static(content), usable, parser.categories, tracks if has_truth else None)


class AnnotationParser:
    """Reads the content of an annotation file piece by piece; reports faults to a `Diagnostics`.

    `videos` are by id, None for an unusable one; `categories` are names by ascending id.
    """

    def __init__(self, content: Mapping[str, Any], path: str | os.PathLike, found: Diagnostics, complete: bool = True):
        """Unless `complete`, as for scoring what a program made, videos and categories may be empty, an annotation id
        may be used twice, and videos may lack size and `file_names`: these are 0×0, and their tracks of any length.

        Raises:
            InputError: the list of videos or categories is missing or empty, or `found` refuses a fault.
        """
        self._content = content
        self._path = path
        self._found = found
        self._complete = complete
        coco = {ours: theirs for theirs, ours in (_COCO_IMAGE | _COCO_ANNOTATION).items()}
        self._words = coco | {"video": "image"} if is_static(content) else {}
        self.videos = self._parse_videos()
        self.categories = self._parse_categories()

    def tracks(self) -> Iterator[tuple[dict[str, Any], Track | None]]:
        """(entry, its track or None if unusable) for each annotation that is not null."""
        entries = self._content.get("annotations")
        if entries is None:
            return
        if not isinstance(entries, list):
            self._found.add(NOT_A_LIST, "'annotations'", shown(entries))
            return
        seen: set[int] = set()
        for position, entry in enumerate(entries):
            where = f"annotation number {position + 1}"
            if entry is None:
                self._found.add(NULL_ANNOTATION, where)
            elif not isinstance(entry, dict):
                self._found.add(NOT_AN_OBJECT, where, shown(entry))
            else:
                yield entry, self._parse_track(entry, where, seen)

    # ------------------------------------------------------------------------------------------ videos, categories

    def _parse_videos(self) -> dict[int, Video | None]:
        videos: dict[int, Video | None] = {}
        for where, entry in self._entries("videos", "video"):
            video_id = self._id(entry, "id", where)
            if video_id is None:
                continue
            where = f"{self._word('video')} {video_id}"
            if video_id in videos:
                self._found.add(SAME_VIDEO, where)
            else:
                videos[video_id] = self._parse_video(entry, video_id, where)
        return videos

    def _parse_video(self, entry: Mapping, video_id: int, where: str) -> Video | None:
        """The video of an entry, None if it cannot be used."""
        if not self._complete and "file_names" not in entry:
            has_size = isinstance(entry.get("width"), int) and isinstance(entry.get("height"), int)
            return Video(video_id, *((entry["width"], entry["height"]) if has_size else (0, 0)), ())
        width, height = (self._field(entry, key, int, where) for key in ("width", "height"))
        names = self._field(entry, "file_names", list, where)
        if None in (width, height, names):
            return None
        try:
            check_size(height, width)
        except InputError as error:
            self._found.add(NO_SIZE, where, error)
            return None
        if not names or not all(isinstance(name, str) and name for name in names):
            self._found.add(NO_FRAMES, where, shown(names))
            return None
        if not all(map(is_plain, names)):
            self._found.add(BAD_NAME, where, next(name for name in names if not is_plain(name)))
            return None
        names = tuple(name.replace("\\", "/") if "\\" in name else name for name in names)
        if entry.get("length", len(names)) != len(names):
            self._found.add(OTHER_LENGTH, where, f"{shown(entry['length'])}, not {len(names)}")
        if len(set(names)) < len(names):
            self._found.add(SAME_FRAME, where, Counter(names).most_common(1)[0][0])
        for before, after in pairwise(names):
            if natural_key(before) > natural_key(after):
                self._found.add(FRAME_ORDER, where, f"{before} before {after}")
                break
        rate = entry.get("frame_rate")
        frame_rate = float(rate) if is_number(rate) and rate > 0 else None
        return Video(video_id, width, height, names, frame_rate=frame_rate)

    def _parse_categories(self) -> dict[int, str]:
        names: dict[int, str] = {}
        known: set[str] = set()
        for where, entry in self._entries("categories", "category"):
            category_id = self._id(entry, "id", where)
            if category_id is None:
                continue
            where = f"category {category_id}"
            name = self._field(entry, "name", str, where)
            if category_id in names:
                self._found.add(SAME_CATEGORY, where)
                continue
            if name is not None and not name.strip():
                self._found.add(NO_NAME, where)
                name = None
            elif name is not None and not is_plain(name):
                self._found.add(BAD_NAME, where, name)
                name = None
            elif name is not None and normalised_name(name) in known:
                self._found.add(SAME_NAME, where, name)
            names[category_id] = name or f"category {category_id}"
            known.add(normalised_name(names[category_id]))
        return distinct_names(names)

    def _entries(self, key: str, noun: str) -> Iterator[tuple[str, dict]]:
        """(place, entry) of the objects in the list `key`."""
        entries = self._content.get(key)
        if not isinstance(entries, list) or (not entries and self._complete):
            raise InputError(f"{self._path}: {key!r} must be a list of at least one entry")
        for position, entry in enumerate(entries):
            where = f"{self._word(noun)} number {position + 1}"
            if isinstance(entry, dict):
                yield where, entry
            else:
                self._found.add(NOT_AN_OBJECT, where, shown(entry))

    # ------------------------------------------------------------------------------------------ tracks

    def _parse_track(self, entry: dict[str, Any], where: str, seen: set[int]) -> Track | None:
        """The track of an annotation, None if it cannot be used; `seen` are the ids before it."""
        annotation_id = self._id(entry, "id", where)
        if annotation_id is not None:
            where = f"annotation {annotation_id}"
            if annotation_id in seen and self._complete:
                self._found.add(SAME_ANNOTATION, where)
            seen.add(annotation_id)
        video_id, category_id = (self._id(entry, key, where) for key in ("video_id", "category_id"))
        if video_id is not None and video_id not in self.videos:
            self._found.add(UNKNOWN_VIDEO, where, video_id)
        if category_id is not None and category_id not in self.categories:
            self._found.add(UNKNOWN_CATEGORY, where, category_id)
        crowd = entry.get("iscrowd")
        is_crowd_known = is_crowd_flag(crowd)
        if not is_crowd_known:
            self._found.add(BAD_CROWD, where, shown(crowd))
        video = self.videos.get(video_id)
        if video is None:
            return None
        length = len(video) or (len(entry["segmentations"]) if isinstance(entry.get("segmentations"), list) else 0)
        segmentations = self._per_frame(entry, "segmentations", length, where, is_segmentation, UNREADABLE_MASK)
        if segmentations is None:
            self._found.add(NO_SEGMENTATIONS, where)
        boxes = self._per_frame(entry, "bboxes", length, where, is_box, BAD_BOX)
        areas = self._per_frame(entry, "areas", length, where, is_area, BAD_AREA)
        if annotation_id is None or category_id not in self.categories or not is_crowd_known:
            return None
        nothing = (None,) * length
        return Track(video_id, category_id, segmentations or nothing, annotation_id, bool(crowd), boxes, areas)

    def _per_frame(
        self,
        entry: Mapping,
        key: str,
        length: int,
        where: str,
        is_valid: Callable[[Any], bool],
        if_invalid: Rule,
    ) -> tuple[Any | None, ...] | None:
        """A list of one entry per frame, None for null, [] and unusable values.

        None if the list is missing or empty, or holds only null, which means the same.
        """
        values = entry.get(key)
        if values is None or values == []:
            return None
        if not isinstance(values, list):
            self._found.add(NOT_A_LIST, where, f"{self._word(key)!r} {shown(values)}")
            return None
        if len(values) != length:
            rule = LONG_LIST if len(values) > length else SHORT_LIST
            self._found.add(rule, where, f"{self._word(key)!r} {len(values)}, frames {length}")
            values = values[:length] + [None] * (length - len(values))
        values = [None if value is None or value == [] else value for value in values]
        for frame, value in enumerate(values):
            if value is not None and not is_valid(value):
                self._found.add(if_invalid, f"{where}, frame {frame}", shown(value))
                values[frame] = None
        return tuple(values) if key == "segmentations" or any(value is not None for value in values) else None

    # ------------------------------------------------------------------------------------------ fields

    def _id(self, entry: Mapping, key: str, where: str) -> int | None:
        """`entry[key]`, or None if it is not an id."""
        value = entry.get(key)
        if is_id(value):
            return int(value)
        if self._field(entry, key, int, where) is not None:
            self._found.add(BAD_ID, where, shown(value))
        return None

    def _field(self, entry: Mapping, key: str, kind: type, where: str) -> Any | None:
        """`entry[key]`, or None if it is missing or of another type. The place begins with the kind of the entry."""
        value = entry.get(key)
        if isinstance(value, kind) and not isinstance(value, bool):
            return value
        noun = where.split()[0]
        kind_name = {int: "an integer", str: "text", list: "text" if self._words else "a list"}[kind]
        name = self._word(key)
        if key in entry:
            rule = Rule("fault", f"{noun} with {name!r} that is not {kind_name}", _SEE_FORMAT)
            self._found.add(rule, where, shown(value))
        else:
            self._found.add(Rule("fault", f"{noun} without {name!r}, {kind_name}", _SEE_FORMAT), where)
        return None

    def _word(self, word: str) -> str:
        """`word` in the terms of the file's format."""
        return self._words.get(word, word)


def is_id(value: Any) -> bool:
    """Whether `value` is a 64-bit integer, as ids are."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and -MAX_ID <= value <= MAX_ID


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -MAX_NUMBER <= value <= MAX_NUMBER


def is_crowd_flag(value: Any) -> bool:
    """Whether `value` can be an annotation's `iscrowd`: 0, 1 or None, which is 0."""
    return value is None or (isinstance(value, int | float) and value in (0, 1))


def is_segmentation(value: Any) -> bool:
    """Whether `value` may be polygons or an RLE; `read_masks` checks it fully."""
    return isinstance(value, list | dict)


def is_area(value: Any) -> bool:
    """Whether `value` is a number of pixels."""
    return is_number(value) and value >= 0


def is_box(value: Any) -> bool:
    """Whether `value` is a list of four numbers."""
    return isinstance(value, list) and len(value) == 4 and all(map(is_number, value))


def is_plain(text: str) -> bool:
    """Whether a name can be printed in one line and written to a file: no control characters, no lone surrogates."""
    return text.isprintable() or not any(
        letter < " " or "\x7f" <= letter <= "\x9f" or "\ud800" <= letter <= "\udfff" or letter in "\u2028\u2029"
        for letter in text
    )


# ---------------------------------------------------------------------------------------------------- masks, boxes


def read_masks(
    track: Track, video: Video, found: Diagnostics, where: str | None = None, frames: Sequence[int] | None = None
) -> tuple[list[dict | None], np.ndarray]:
    """(The RLE of a track on each of `frames`, by default all, or None; the pixels of each, int64 [frames]).

    An unusable segmentation gives None and -1 pixels, and is reported to `found` under `where`, by default with the
    annotation's id. A mask must be of the size of its video, if that is known.

    Raises:
        InputError: `found` refuses a fault.
    """
    where = f"annotation {track.annotation_id}" if where is None else where
    frames = range(len(track.segmentations)) if frames is None else frames
    segmentations = [track.segmentations[frame] for frame in frames]
    size = [video.height, video.width]

    def report(place: int, fault: str) -> None:
        found.add(UNREADABLE_MASK, f"{where}, frame {frames[place]}", fault)

    masks, areas = read_track(segmentations, *size, where, report)
    if all(size):
        for place, mask in enumerate(masks):
            if mask is not None and list(mask["size"]) != size:
                report(place, f"it is {list(mask['size'])} (height, width), its video {size}")
                masks[place], areas[place] = None, -1
    return masks, areas


def box_fault(box: Sequence[float], mask_box: Sequence[float], video: Video) -> Rule | None:
    """Returns the fault of the `box` x y width height of an object whose mask has `mask_box`, or None."""
    x, y, width, height = box
    if min(width, height) < 1:
        return SMALL_BOX
    if min(x, y) < -1 or x + width > video.width + 1 or y + height > video.height + 1:
        return BOX_OUTSIDE
    left, top, mask_width, mask_height = mask_box
    sides = ((x, left), (y, top), (x + width, left + mask_width), (y + height, top + mask_height))
    return BOX_NOT_MASK if max(abs(ours - masks) for ours, masks in sides) > BOX_TOLERANCE else None


# ---------------------------------------------------------------------------------------------------- names


def is_within(file_name: str) -> bool:
    """Whether the name of a frame, in which back-slashes separate folders, stays below the folder it is relative to."""
    name = posixpath.normpath(file_name.replace("\\", "/"))
    return not (name.startswith("/") or PureWindowsPath(name).is_absolute() or PurePosixPath(name).parts[:1] == ("..",))


def frame_path(image_root: Path, file_name: str) -> Path:
    """Returns the path of a frame of an annotation file within the folder `image_root`; it may be missing.

    Back-slashes, as written on Windows, separate folders, unless they are part of the name of an existing file. Links
    are followed.

    Raises:
        InputError: `file_name` is absolute or leads out of the folder.
    """
    name = PurePosixPath(posixpath.normpath(file_name.replace("\\", "/")))
    if not is_within(file_name):
        raise InputError(f"{file_name}: is not within the folder of frames, {image_root}: name frames relative to it")
    path = image_root / name
    as_written = image_root / str(name).replace("/", "\\")
    try:
        return as_written if len(name.parts) > 1 and not path.is_file() and as_written.is_file() else path
    except (OSError, ValueError):  # too long, or a NUL
        return path


def resolve_frame(image_root: Path, file_name: str) -> Path:
    """Returns the `frame_path` of a frame with all links resolved, for pages that show files to others; it may be
    missing.

    `image_root` itself must be without links.

    Raises:
        InputError: the name or a link leads out of the folder, or the name is not valid for a file.
    """
    try:
        path = frame_path(image_root, file_name).resolve()
    except (OSError, RuntimeError, ValueError):  # too long, links in a circle, a null byte
        raise InputError(f"{excerpt(file_name)}: not a valid name of a frame") from None
    if not path.is_relative_to(image_root):
        raise InputError(f"{excerpt(file_name)}: leads out of the folder of frames, {image_root}")
    return path


def video_name(file_names: Sequence[str], video_id: int) -> str:
    """Returns a video's name: the folder of its frames, or else the name of its only picture, or else its number."""
    path = PurePosixPath(str(file_names[0]).replace("\\", "/")) if file_names else PurePosixPath()
    return path.parent.name or (path.stem if len(file_names) == 1 else f"video {video_id}")


def normalised_name(name: str) -> str:
    """A class name in its form for comparison: lower case, with _ for spaces and hyphens."""
    return re.sub(r"[\s-]", "_", name.strip().lower())


def distinct_names(names: Mapping[int, str]) -> dict[int, str]:
    """`names` of categories by rising id; the id is appended to a name that is already used."""
    distinct: dict[int, str] = {}
    used: set[str] = set()
    for category_id in sorted(names):
        name = names[category_id]
        distinct[category_id] = f"{name} ({category_id})" if name in used else name
        used.add(distinct[category_id])
    return distinct


def match_categories(
    categories: Mapping[int, str], class_names: Sequence[str], path: str | os.PathLike
) -> dict[int, int]:
    """The label 1…C of each category id, by name, or else by order.

    Raises:
        InputError: both the names and their number differ.
    """
    labels = {normalised_name(name): label for label, name in enumerate(class_names, start=1)}
    names = [normalised_name(name) for name in categories.values()]
    if len(set(names)) == len(names) and labels.keys() >= set(names):
        return {category_id: labels[name] for category_id, name in zip(categories, names, strict=True)}
    unknown = [name for name, key in zip(categories.values(), names, strict=True) if key not in labels]
    if len(categories) != len(class_names):
        other = f"the model does not know {excerpt(', '.join(unknown))}" if unknown else "a name is there twice"
        raise InputError(
            f"{path}: has {len(categories)} categories, the model {len(class_names)} classes, and {other}; use data of "
            "the model's classes, or name these in label order with --set dataset.class_names=NAME,NAME,…"
        )
    logger.warning(
        "%s: the model's classes have other names (%s); categories are taken in the order of their ids",
        path,
        excerpt(", ".join(unknown)) or "a name is used twice",
    )
    return {category_id: label for label, category_id in enumerate(categories, start=1)}
