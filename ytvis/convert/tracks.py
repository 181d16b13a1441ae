"""What every format is read into and written from, and what their modules share.

The module of a format has `read(source, …)` → `Annotations` and, if it can be written, `write(annotations, target, …)`.
Whatever is wrong with a file raises InputError with one line that names it.
"""

import io
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from ytvis.files import InputError, list_folder, make_folder, natural_key
from ytvis.masks import check_size, decode_mask, encode_mask, to_rle, unite_masks
from ytvis.messages import shown
from ytvis.pictures import picture_size, read_labels

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

TRACK_KEYS = ("track_id", "instance_id")  # where annotations and their attributes name their object
# Formats that hold only text or numbers write truth so, in whatever case.
_TRUTH = dict.fromkeys(("true", "1", "1.0", "yes"), True) | dict.fromkeys(
    ("false", "0", "0.0", "no", "none", ""), False
)


@dataclass(frozen=True)
class ObjectTrack:
    """One object of a video: `segmentations` has one entry per frame: polygons, an RLE, or None if not seen."""

    category: str
    segmentations: tuple[list | dict | None, ...]
    is_crowd: bool = False


@dataclass(frozen=True)
class TrackedVideo:
    """A video and its objects. `name` is no other video's and may have slashes, as the folder of its frames."""

    name: str
    height: int
    width: int
    file_names: tuple[str, ...]
    tracks: tuple[ObjectTrack, ...]

    def painted_frames(self) -> Iterator[tuple[int, np.ndarray]]:
        """`paint_frames` of every frame, by its index; a track's number is its place, from 1. Crowds are left out."""
        indices = progress(range(len(self.file_names)), self.name)
        return paint_frames(((index, self._seen_in(index)) for index in indices), self.height, self.width, self.name)

    def _seen_in(self, frame_index: int) -> Iterator[tuple[int, dict]]:
        for number, track in enumerate(self.tracks, start=1):
            rle = to_rle(track.segmentations[frame_index], self.height, self.width)
            if rle is not None and not track.is_crowd:
                yield number, rle


@dataclass(frozen=True)
class Annotations:
    """A data set: the names of its categories by id, ascending, and its videos."""

    categories: Mapping[int, str]
    videos: tuple[TrackedVideo, ...]

    @classmethod
    def with_seen_categories(cls, videos: Iterable[TrackedVideo]) -> Self:
        """The data set of `videos`, with the categories their tracks have, in natural order, from id 1."""
        videos = tuple(videos)
        names = sorted({track.category for video in videos for track in video.tracks}, key=natural_key)
        return cls(dict(enumerate(names, start=1)), videos)

    def category_entries(self) -> list[dict[str, Any]]:
        """The categories as annotation files list them."""
        return [{"id": category_id, "name": name} for category_id, name in self.categories.items()]

    def with_crowds_as_objects(self) -> Self:
        """The same with every crowd as an object."""
        videos = (
            replace(video, tracks=tuple(replace(track, is_crowd=False) for track in video.tracks))
            for video in self.videos
        )
        return replace(self, videos=tuple(videos))


class TrackCollector:
    """Puts the tracks of one video together from what its frames hold."""

    def __init__(self, name: str, height: int, width: int, where: str):
        """Begins a video; `where` is the place of its size in messages.

        Raises:
            InputError: no mask is read of frames of this size.
        """
        try:
            check_size(height, width)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        self.name = name
        self.height = height
        self.width = width
        self._parts: dict[Hashable, dict[int, list[list | dict]]] = {}
        self._categories: dict[Hashable, str] = {}
        self._counts: Counter[Hashable] = Counter()
        self._crowd_counts: Counter[Hashable] = Counter()

    def add(
        self,
        key: Hashable,
        category: str,
        frame_index: int,
        segmentation: list | dict,
        where: str,
        is_crowd: bool = False,
    ) -> None:
        """Adds a part, polygons or an RLE, of the object `key` in one frame; all its parts there are one mask.

        Raises:
            InputError: the segmentation cannot be used, or the object has another category elsewhere.
        """
        try:
            rle = to_rle(segmentation, self.height, self.width)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        known = self._categories.setdefault(key, category)
        if known != category:
            raise InputError(f"{where}: the object is {category!r} here and {known!r} in an earlier place")
        if rle is not None:
            self._counts[key] += 1
            self._crowd_counts[key] += is_crowd
            self._parts.setdefault(key, {}).setdefault(frame_index, []).append(segmentation)

    @property
    def objects(self) -> Collection[Hashable]:
        """The keys of the objects that are seen."""
        return self._parts.keys()

    def drop(self, key: Hashable) -> None:
        """Forgets an object."""
        del self._parts[key]

    def finish(self, file_names: Sequence[str]) -> TrackedVideo:
        """The video, tracks in the order of their first appearance; its frames are `file_names`.

        A track is a crowd if it is one wherever it is seen. A picture that is several frames is logged.
        """
        (picture, count), *_ = Counter(file_names).most_common(1)
        if count > 1:
            logger.warning("%s: the picture %s is %d of its frames; name each frame once", self.name, picture, count)
        mixed = [key for key in self._parts if 0 < self._crowd_counts[key] < self._counts[key]]
        if mixed:
            logger.warning(
                "%s: %d tracks are crowds (iscrowd 1) in some frames and objects in others; they are taken for objects",
                self.name,
                len(mixed),
            )
        tracks = tuple(
            ObjectTrack(
                self._categories[key],
                tuple(self._union(parts.get(frame_index)) for frame_index in range(len(file_names))),
                self._crowd_counts[key] == self._counts[key],
            )
            for key, parts in self._parts.items()
        )
        return TrackedVideo(self.name, self.height, self.width, tuple(file_names), tracks)

    def _union(self, parts: list[list | dict] | None) -> list | dict | None:
        if parts is None or len(parts) == 1:
            return parts and parts[0]
        if all(isinstance(part, list) for part in parts):
            return [polygon for part in parts for polygon in part]
        return unite_masks([to_rle(part, self.height, self.width) for part in parts])


def paint_frames(
    frames: Iterable[tuple[int, Iterable[tuple[int, dict]]]], height: int, width: int, name: str
) -> Iterator[tuple[int, np.ndarray]]:
    """(frame, [height, width] int32: the number of the object in each pixel, or 0) of each of `frames`, one at a time.

    A frame comes with (number ≥ 1, RLE) of each of its objects; where they overlap, the later one is on top. Logs at
    the end in how many frames of the video `name` that was so.
    """
    overlaps = 0
    for frame, objects in frames:
        canvas = np.zeros((height, width), np.int32)
        overlap = False
        for number, rle in objects:
            mask = decode_mask(rle)
            overlap |= bool(canvas[mask].any())
            canvas[mask] = number
        overlaps += overlap
        yield frame, canvas
    if overlaps:
        logger.warning("%s: objects overlap in %d frames; the later one is kept", name, overlaps)


def part_to_rle(part: np.ndarray, top: int, left: int, size_hw: tuple[int, int]) -> dict | None:
    """The RLE of a mask of `size_hw` that is empty but for `part` [h, w], whose first pixel is at `top`, `left`.

    None if the part does not fit in.
    """
    if min(top, left) < 0 or top + part.shape[0] > size_hw[0] or left + part.shape[1] > size_hw[1]:
        return None
    mask = np.zeros(size_hw, np.uint8)
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part > 0
    return encode_mask(mask)


def read_label_pictures(
    name: str, paths: Sequence[Path], identify: Callable[[int, np.dtype, str], tuple[Hashable, str] | None]
) -> TrackCollector:
    """What the pictures of object numbers of a video hold, one per frame; 0 is the ground.

    `identify(number, its type, place)` is (key, category) of an object, None for what is left out.

    Raises:
        InputError: a picture cannot be used, or is not of the size of the first.
    """
    collector = None
    for frame_index, path in enumerate(progress(paths, name)):
        numbers = read_labels(path)
        if collector is None:
            collector = TrackCollector(name, *numbers.shape, str(path))
        if numbers.shape != (collector.height, collector.width):
            raise InputError(f"{path}: is not of the size of {paths[0].name}")
        for number in np.unique(numbers[numbers > 0]).tolist():
            found = identify(number, numbers.dtype, str(path))
            if found is not None:
                collector.add(*found, frame_index, encode_mask(numbers == number), str(path))
    return collector


def encode_png(picture: Image.Image) -> bytes:
    """The PNG file of a picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def check_sizes(images: Path, file_names: Sequence[str], size_hw: tuple[int, int], where: str) -> None:
    """Looks at the head of every frame, relative to `images`.

    Raises:
        InputError: a picture is missing, or not of the size of the masks; the message begins with `where`.
    """
    for file_name in progress(file_names, "sizes of pictures"):
        height, width = picture_size(images / file_name)
        if (height, width) != tuple(size_hw):
            raise InputError(
                f"{where}: its masks are of {size_hw[1]}×{size_hw[0]}, but {images / file_name} is {width}×{height}"
            )


@contextmanager
def new_folder(target: str | os.PathLike) -> Iterator[Path]:
    """The folder `target`, which must be new or empty, so that no files of two conversions mix.

    If the block ends with an exception, it is new or empty again.

    Raises:
        InputError: something is there, or it cannot be made.
    """
    target = Path(target)
    is_new = not os.path.lexists(target)
    if not is_new and (not os.path.isdir(target) or list_folder(target)):
        raise InputError(f"{target}: is there already; name a new or empty folder")
    make_folder(target)
    try:
        yield target
    except BaseException:
        with suppress(InputError):
            for name in list_folder(target):
                path = target / name
                shutil.rmtree(path, ignore_errors=True) if os.path.isdir(path) else path.unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):
                target.rmdir()
        raise


def progress(items: Iterable[Item], what: str) -> Iterator[Item]:
    """`items`, with a bar on stderr once they take more than two seconds."""
    return tqdm(items, what, delay=2, leave=False)


def is_set(value: Any, name: str, where: str) -> bool:
    """Whether the value of the attribute `name` is true, be it in words; None is not.

    Raises:
        InputError: it is neither true nor false; the message begins with `where`.
    """
    truth = _TRUTH.get(str(value).strip().lower())
    if truth is None:
        raise InputError(f"{where}: {name} must be true or false, not {shown(value)}")
    return truth


def track_id(attributes: Mapping[str, Any], where: str) -> int | str | None:
    """The object that `attributes` name, None if they do not.

    Raises:
        InputError: it is neither a whole number nor text; the message begins with `where`.
    """
    for key in TRACK_KEYS:
        value = attributes.get(key)
        if value is None:
            continue
        if isinstance(value, str):
            return value
        is_whole = isinstance(value, int | np.integer) or (isinstance(value, float) and value.is_integer())
        if is_whole and not isinstance(value, bool):
            return int(value)
        raise InputError(f"{where}: {key} must be a whole number or text, not {shown(value)}")
    return None


def field(entry: Any, key: str, kind: type, where: str) -> Any:
    """`entry[key]` of the given type.

    Raises:
        InputError: it is missing or of another type; the message begins with `where`.
    """
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {int: "an integer", str: "text", list: "a list", dict: "an object"}
        found = "is missing" if value is None else f"is {shown(value)}"
        raise InputError(f"{where}: {key!r} must be {names[kind]}, but {found}")
    return value
