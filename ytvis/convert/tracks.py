"""What every format is read into and written from, and what their modules share.

The module of a format has `read(source, …)` → `Annotations` and, if it can be written, `write(annotations, target, …)`.
Whatever is wrong with a file raises InputError with one line that names it.
"""

import logging
import os
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

import numpy as np

from ytvis.files import InputError, natural_key
from ytvis.masks import decode_mask, to_rle, unite_masks
from ytvis.pictures import list_pictures

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObjectTrack:
    """One object of a video: `segmentations` has one entry a frame, polygons, an RLE, or None where it is not seen."""

    category: str
    segmentations: tuple[list | dict | None, ...]
    is_crowd: bool = False


@dataclass(frozen=True)
class TrackedVideo:
    """A video and its objects. `name` tells it from the others and may have slashes, as the folder of its frames."""

    name: str
    height: int
    width: int
    file_names: tuple[str, ...]
    tracks: tuple[ObjectTrack, ...]

    def stems(self) -> list[str]:
        """The frames' names without folder and suffix; InputError if two are the same."""
        stems = [Path(name).stem for name in self.file_names]
        twice = [stem for stem, count in Counter(stems).items() if count > 1]
        if twice:
            raise InputError(f"video {self.name}: two of its frames are named {twice[0]}, which is one file's name")
        return stems

    def paint(self, frame_index: int) -> tuple[np.ndarray, bool]:
        """([height, width] int32: the number of the track seen in each pixel, from 1, or 0; whether any overlap).

        Where tracks overlap, the later one lies above. Crowds are left out.
        """
        canvas = np.zeros((self.height, self.width), np.int32)
        overlap = False
        for number, track in enumerate(self.tracks, start=1):
            rle = to_rle(track.segmentations[frame_index], self.height, self.width)
            if rle is not None and not track.is_crowd:
                mask = decode_mask(rle)
                overlap |= bool(canvas[mask].any())
                canvas[mask] = number
        return canvas, overlap


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


class TrackCollector:
    """Puts the tracks of one video together from what its frames hold."""

    def __init__(self, name: str, height: int, width: int):
        self.name = name
        self.height = height
        self.width = width
        self._parts: dict[Hashable, dict[int, list[list | dict]]] = {}
        self._categories: dict[Hashable, str] = {}
        self._crowds: set[Hashable] = set()

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
        if is_crowd:
            self._crowds.add(key)
        if rle is not None:
            self._parts.setdefault(key, {}).setdefault(frame_index, []).append(segmentation)

    def finish(self, file_names: Sequence[str]) -> TrackedVideo:
        """The video, tracks in the order of their first appearance; its frames are `file_names`."""
        tracks = tuple(
            ObjectTrack(
                self._categories[key],
                tuple(self._union(parts.get(frame_index)) for frame_index in range(len(file_names))),
                key in self._crowds,
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


# ---------------------------------------------------------------------------------------------------- folders


def video_folders(source: str | os.PathLike, pattern: str) -> list[tuple[str, list[Path]]]:
    """(name, files in natural order) of every folder in or below `source` with files like `pattern`, in natural order.

    The name is the folder's path below `source`; files in `source` itself are of the only video, which has its name.

    Raises:
        InputError: there is no such folder, no such file in it, or such a file beside folders that hold others.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source}: no such folder")
    folders: dict[Path, list[Path]] = {}
    for path in source.rglob(pattern):
        folders.setdefault(path.parent, []).append(path)
    if not folders:
        raise InputError(f"{source}: holds no {pattern}")
    if source in folders and len(folders) > 1:
        raise InputError(f"{folders[source][0]}: lies beside folders of videos; give it a folder of its own")
    videos = {
        source.resolve().name if folder == source else folder.relative_to(source).as_posix(): sorted(
            paths, key=lambda path: natural_key(path.name)
        )
        for folder, paths in folders.items()
    }
    return sorted(videos.items(), key=lambda item: natural_key(item[0]))


def video_name(folder: str, otherwise: str) -> str:
    """The name of a video whose frames lie in `folder`: that, or `otherwise` if no folder can be made of it."""
    parts = PurePosixPath(folder.strip("/")).parts
    return otherwise if not parts or ".." in parts else "/".join(parts)


def frame_folder(images: Path | None, video: str, is_only: bool) -> str:
    """Where below `images` the frames of a video lie, as a prefix of its file names: "<video>/".

    It is "" if they lie in `images` itself, which is so for the only video, `is_only`, if it has no folder there.
    """
    return "" if images is not None and is_only and not (images / video).is_dir() else f"{video}/"


def frames_of_stems(images: Path | None, prefix: str, stems: Sequence[str]) -> list[str]:
    """The file names of the frames `stems`, whatever their suffix below `images`; without `images` .jpg is guessed.

    Raises:
        InputError: a frame is not there.
    """
    if images is None:
        logger.warning("%s*: the names of the frames are guessed to end with .jpg; --images looks for them", prefix)
        return [f"{prefix}{stem}.jpg" for stem in stems]
    names = {Path(name).stem: name for name in list_pictures(images / prefix)}
    for stem in stems:
        if stem not in names:
            raise InputError(f"{images / prefix}: has no picture {stem}.jpg or the like")
    return [prefix + names[stem] for stem in stems]


def new_folder(target: str | os.PathLike) -> Path:
    """The folder `target`, which must be new or empty, so that no files of two conversions mix.

    Raises:
        InputError: something is there.
    """
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target}: is there already; say a new or empty folder")
    return target


def field(entry: Any, key: str, kind: type, where: str) -> Any:
    """`entry[key]` of the given type.

    Raises:
        InputError: it is missing or of another type; the message begins with `where`.
    """
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {int: "an integer", str: "text", list: "a list", dict: "an object"}
        found = "is missing" if value is None else f"is {str(value)[:80]!r}"
        raise InputError(f"{where}: {key!r} must be {names[kind]}, but {found}")
    return value
