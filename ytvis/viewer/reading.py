"""Result and annotation files → the videos and tracks that the page shows."""

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ytvis.annotations import Video
from ytvis.files import InputError
from ytvis.masks import read_track
from ytvis.pictures import list_pictures, picture_size
from ytvis.score.ytvos import read_json
from ytvis.viewer.matching import Track

PICTURE_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}
Tracks = dict[int, list[Track]]  # by the id of their video


def read_content(path: str | os.PathLike, kind: type) -> Any:
    """What a JSON file holds. InputError if it cannot be read or is no `kind` (list or dict)."""
    content = read_json(path)
    if not isinstance(content, kind):
        names = {dict: "an object with 'videos' and 'categories'", list: "a list of results"}
        raise InputError(f"{path}: must hold {names[kind]}, not a {type(content).__name__}")
    return content


def parse_videos(content: dict, path: str | os.PathLike) -> tuple[Video, ...]:
    """The videos of an annotation file, at least one; InputError if there is none or one lacks something."""
    videos = []
    for number, entry in enumerate(_entries(content, "videos", path)):
        where = f"{path}: video number {number}"
        video_id, width, height = (_field(entry, key, int, where) for key in ("id", "width", "height"))
        names = _field(entry, "file_names", list, where)
        if min(width, height) <= 0 or not names or not all(isinstance(name, str) for name in names):
            raise InputError(f"{where}: needs a width and a height over 0, and at least one file name")
        videos.append(Video(video_id, width, height, tuple(names)))
    if not videos or len({video.video_id for video in videos}) < len(videos):
        raise InputError(f"{path}: must have videos, each with an id of its own")
    return tuple(videos)


def parse_categories(content: dict, path: str | os.PathLike) -> dict[int, str]:
    """{category id: name} of an annotation file."""
    return {
        _field(entry, "id", int, f"{path}: category number {number}"): str(entry.get("name"))
        for number, entry in enumerate(_entries(content, "categories", path))
    }


def parse_tracks(entries: list, videos: Iterable[Video], path: str | os.PathLike, *, scored: bool) -> Tracks:
    """The tracks of each video in the file's order, of results if `scored`, else of the truth.

    Raises:
        InputError: an entry is not in the format, or not of these videos.
    """
    if not isinstance(entries, list):
        raise InputError(f"{path}: 'annotations' must be a list, not {type(entries).__name__}")
    by_id = {video.video_id: video for video in videos}
    tracks: Tracks = {video_id: [] for video_id in by_id}
    for number, entry in enumerate(entries):
        if entry is None and not scored:
            continue
        where = f"{path}: {'entry' if scored else 'annotation number'} {number}"
        video = by_id.get(_field(entry, "video_id", int, where))
        if video is None:
            raise InputError(
                f"{where} is of video {entry['video_id']}, which is not among the {len(by_id)} videos given"
            )
        tracks[video.video_id].append(_parse_track(entry, video, where, scored))
    return tracks


def _parse_track(entry: dict, video: Video, where: str, scored: bool) -> Track:
    segmentations = _field(entry, "segmentations", list, where) or [None] * len(video)
    if len(segmentations) != len(video):
        raise InputError(
            f"{where} has {len(segmentations)} segmentations, its video {video.video_id} {len(video)} frames"
        )
    size = [video.height, video.width]
    masks, areas = read_track(segmentations, *size, where)
    for frame, mask in enumerate(masks):
        if mask is not None and list(mask["size"]) != size:
            raise InputError(f"{where}, frame {frame}: the mask is {mask['size']} (height, width), its video {size}")
    score = _field(entry, "score", int | float, where) if scored else None
    if score is not None and not math.isfinite(score):
        raise InputError(f"{where}: 'score' must be a finite number, not {score}")
    shifted = entry.get("shifted")
    return Track(
        category_id=_field(entry, "category_id", int, where),
        score=score,
        masks=tuple(
            {"size": size, "counts": _as_text(mask["counts"])} if area else None
            for mask, area in zip(masks, areas, strict=True)
        ),
        is_crowd=bool(entry.get("iscrowd")),
        shifted=tuple(frame for frame, flag in enumerate(shifted) if flag) if isinstance(shifted, list) else (),
        scores=_frame_scores(entry.get("scores"), len(video)),
    )


def _frame_scores(scores: Any, length: int) -> tuple[float | None, ...]:
    """`scores` if they are one finite number or null a frame: another tool may mean something else by the name."""
    if not isinstance(scores, list) or len(scores) != length:
        return ()
    return tuple(scores) if all(score is None or _is_number(score) for score in scores) else ()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def one_video(entries: list, folder: Path, path: str | os.PathLike) -> Video:
    """The one video of results without an annotation file: its frames are the pictures of `folder`.

    Raises:
        InputError: the results are of several videos, or there are no pictures.
    """
    video_ids = {_field(entry, "video_id", int, f"{path}: entry {number}") for number, entry in enumerate(entries)}
    if len(video_ids) > 1:
        raise InputError(f"{path}: holds {len(video_ids)} videos; say --ann_file=FILE, which names their frames")
    names = [name for name in list_pictures(folder) if Path(name).suffix.lower() in PICTURE_TYPES]
    if not names:
        raise InputError(f"{folder}: no pictures there; without --ann_file it must hold the frames of the one video")
    height, width = picture_size(folder / names[0])
    return Video(min(video_ids, default=0), width, height, tuple(names))


def _entries(content: Mapping, key: str, path: str | os.PathLike) -> list:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise InputError(f"{path}: {key!r} must be a list, not {type(entries).__name__}")
    return entries


def _field(entry: Any, key: str, kind: Any, where: str) -> Any:
    """`entry[key]` of the given type, or InputError."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {int: "a whole number", list: "a list", int | float: "a number"}
        raise InputError(f"{where}: {key!r} must be {names[kind]}, not {str(value)[:80]}")
    return value


def _as_text(counts: str | bytes) -> str:
    return counts.decode("ascii", errors="replace") if isinstance(counts, bytes) else counts
