"""Result and annotation files → the videos and tracks that the page shows."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ytvis.annotations import AnnotationFile, Track, Video, is_id, read_annotations, read_masks
from ytvis.diagnostics import Diagnostics
from ytvis.files import InputError
from ytvis.masks import plain_rle
from ytvis.pictures import list_pictures, picture_size
from ytvis.results import NOT_NUMBERS, SWAPPED_SIZE, WRONG_LENGTH, WRONG_SIZE, ResultsParser

logger = logging.getLogger(__name__)

PICTURE_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}
Tracks = dict[int, list[Track]]  # by the id of their video


def read_truth(path: str | os.PathLike) -> tuple[AnnotationFile, Tracks | None]:
    """(What an annotation file holds, its tracks; None if it has none).

    Raises:
        InputError: the file cannot be used.
    """
    annotations = read_annotations(path)
    if not annotations.tracks:
        return annotations, None
    found = Diagnostics(refuse=path)
    return annotations, {
        video_id: [_shown(track, *read_masks(track, annotations.videos[video_id], found)) for track in tracks]
        for video_id, tracks in annotations.of_video().items()
    }


def read_predictions(entries: Iterable[Any], videos: Mapping[int, Video], path: str | os.PathLike) -> Tracks:
    """The tracks of each video in the order of a results file's `entries`.

    Raises:
        InputError: an entry cannot be used, is of another video, or its masks are not those of its video's frames.
    """
    found = Diagnostics(refuse=path, also=(WRONG_LENGTH, WRONG_SIZE, SWAPPED_SIZE))
    parser = ResultsParser(found, videos)
    tracks: Tracks = {video_id: [] for video_id in videos}
    for index, entry in enumerate(entries):
        track = parser.parse(entry, f"entry {index}")
        tracks[track.video_id].append(_shown(track, track.segmentations, track.areas))
    for diagnostic in found.of(*NOT_NUMBERS):
        logger.warning("%s: %s", path, diagnostic)
    return tracks


def _shown(track: Track, masks: Iterable[dict | None], areas: Iterable[int | None]) -> Track:
    """`track` with these `masks` as JSON holds them, None where they have no pixel."""
    shown = tuple(plain_rle(mask) if area else None for mask, area in zip(masks, areas, strict=True))
    return replace(track, segmentations=shown)


def one_video(entries: list, folder: Path, names: Sequence[str], path: str | os.PathLike) -> Video:
    """The one video of results without an annotation file: its frames are the pictures `names` in `folder`.

    Raises:
        InputError: the results are of several videos.
    """
    video_ids = {entry.get("video_id") for entry in entries if isinstance(entry, dict)}
    video_ids = {video_id for video_id in video_ids if is_id(video_id)}  # the others are refused as they are read
    if len(video_ids) > 1:
        raise InputError(f"{path}: holds {len(video_ids)} videos; pass --ann_file=FILE, which names their frames")
    height, width = picture_size(folder / names[0])
    return Video(min(video_ids, default=0), width, height, tuple(names))


def frame_names(folder: Path) -> list[str]:
    """The names of the pictures in a folder that is one video, in natural order.

    Raises:
        InputError: there are none.
    """
    names = [name for name in list_pictures(folder) if Path(name).suffix.lower() in PICTURE_TYPES]
    if not names:
        raise InputError(f"{folder}: no pictures there; without --ann_file it must hold the frames of the one video")
    return names


def video_description(results: str | os.PathLike) -> Path | None:
    """The file beside results NAME.json that says which video they are of, NAME_video.json: an annotation file with one
    video and the classes, but no annotations. None if there is no such file."""
    path = Path(results)
    path = path.with_name(f"{path.stem}_video.json")
    return path if os.path.isfile(path) else None


def one_of(videos: Mapping[int, Video], file: str | os.PathLike, path: str | os.PathLike) -> Video:
    """The one video of the annotation file `path`, as the video `file` needs it.

    Raises:
        InputError: there are several.
    """
    if len(videos) > 1:
        raise InputError(f"{path}: holds {len(videos)} videos, and {file} is the file of one; name a folder of frames")
    return next(iter(videos.values()))


def with_frames(video: Video, names: Sequence[str], images: str | os.PathLike, path: str | os.PathLike) -> Video:
    """A video of the annotation file `path` with the frames `names` of its video file or folder `images`.

    Raises:
        InputError: it has another number of frames.
    """
    if len(video) != len(names):
        raise InputError(f"{path}: video {video.video_id} has {len(video)} frames, and {images} {len(names)}")
    return replace(video, file_names=tuple(names))
