"""DAVIS: one folder per video with one PNG per frame, whose pixels hold the number of the object they show.

0 is the ground and 255 is void, nothing that is known. In a set that knows no other number, as DAVIS 2016, 255 is the
only object. Categories are not in the pictures: a JSON file gives them, as
`{"<video>": {"<object number>": "<category>"}}` or like the meta.json of YouTube-VOS; without one all are "object".
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ytvis.annotations import AnnotationFile
from ytvis.convert.tracks import (
    TrackCollector,
    collect,
    encode_png,
    field,
    new_folder,
    paint_tracks,
    progress,
    read_label_pictures,
    videos_to_write,
)
from ytvis.files import InputError, atomic_write, read_json
from ytvis.frames import check_order, video_folders

logger = logging.getLogger(__name__)

CATEGORIES_FILE = "categories.json"
DEFAULT_CATEGORY = "object"
VOID = 255
VOID_KEY = "void"


def read(
    source: str | os.PathLike,
    images: str | os.PathLike | None = None,
    categories: str | os.PathLike | None = None,
) -> AnnotationFile:
    """The objects of every folder in or below `source` that holds PNG files.

    File names are relative to `images`, where frames of the same names are looked for. `categories` is the file that
    gives the categories; without it the categories.json in `source` is taken, if there is one.

    Raises:
        InputError: a file is not a picture of numbers, or of another size than the others of its video; a frame has no
            picture; or the file of categories lacks an object.
    """
    folders = video_folders(source, ".png")
    images = None if images is None else Path(images)
    default_file = Path(source) / CATEGORIES_FILE
    file = Path(categories) if categories is not None else default_file if default_file.is_file() else None
    names = None if file is None else _read_categories(file)
    collectors = [
        read_label_pictures(name, paths, partial(_identify, names, file, name))
        for name, paths in progress(folders, "videos")
    ]
    _resolve_void(collectors, source)
    for (_, paths), collector in zip(folders, collectors, strict=True):
        collector.bind_stems(images, len(folders) == 1, [path.stem for path in paths])
    return collect(source, collectors)


def _identify(
    names: Mapping[tuple[str, str], str] | None, file: Path | None, video: str, number: int, dtype: np.dtype, where: str
) -> tuple[int | str, str]:
    """(Key, category) of an object; the key of what may be void is `VOID_KEY`."""
    is_void = number == VOID and dtype == np.uint8
    category = DEFAULT_CATEGORY
    if names is not None:
        # The only object of a binary set may be listed under its value or as the first.
        category = names.get((video, str(number)), names.get((video, "1"), DEFAULT_CATEGORY) if is_void else None)
    if category is None:
        raise InputError(f"{file}: has no category for object {number} of video {video}")
    return VOID_KEY if is_void else number, category


def _resolve_void(collectors: Sequence[TrackCollector], source: str | os.PathLike) -> None:
    """Drops what may be void, unless the set has nothing else; logs which of the two."""
    unsure = [collector for collector in collectors if VOID_KEY in collector.objects]
    if not unsure:
        return
    if all(collector.objects <= {VOID_KEY} for collector in collectors):
        logger.warning("%s: the masks hold 0 and %d alone: %d is taken to be one object per video", source, VOID, VOID)
        return
    for collector in unsure:
        if len(collector.objects) == 1:
            logger.warning("%s: video %s has no object, but %d, which is void", source, collector.name, VOID)
        collector.drop(VOID_KEY)


def _read_categories(path: Path) -> dict[tuple[str, str], str]:
    """{(video, object number): category}."""
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("videos"), dict):
        content = {
            video: {number: field(known, "category", str, f"{path}: {video}") for number, known in objects.items()}
            for video, entry in content["videos"].items()
            for objects in [field(entry, "objects", dict, f"{path}: {video}")]
        }
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold an object with one entry per video")
    return {
        (video, number): field(objects, number, str, f"{path}: {video}")
        for video in content
        for objects in [field(content, video, dict, str(path))]
        for number in objects
    }


# ---------------------------------------------------------------------------------------------------- writing


def write(annotations: AnnotationFile, target: str | os.PathLike) -> None:
    """Writes <target>/<video>/<frame>.png for every frame, and categories.json; a track's number is its place, from 1.

    A pixel has one number: where tracks overlap the later one is kept, which is logged. Crowds are left out.

    Raises:
        InputError: `target` is not new or empty, or a video does not fit DAVIS: it has more than 254 tracks, or
            frames in another order than that of their names.
    """
    with new_folder(target) as target:
        videos = videos_to_write(annotations)
        stems = [check_order(folder, video.file_names, "DAVIS") for folder, video, _ in videos]
        for folder, _, tracks in videos:
            if len(tracks) >= VOID:
                raise InputError(f"video {folder} has {len(tracks)} tracks, DAVIS holds {VOID - 1} at most")
        for (folder, video, tracks), names in zip(progress(videos, "videos"), stems, strict=True):
            for frame_index, numbers in paint_tracks(folder, video, tracks):
                picture = Image.fromarray(numbers.astype(np.uint8))
                picture.putpalette(palette())
                with atomic_write(target / folder / f"{names[frame_index]}.png", "wb") as file:
                    file.write(encode_png(picture))
        with atomic_write(target / CATEGORIES_FILE) as file:
            names = annotations.categories
            objects_of = {
                folder: {str(number): names[track.category_id] for number, track in enumerate(tracks, start=1)}
                for folder, _, tracks in videos
            }
            json.dump(objects_of, file, indent=1)


def palette() -> list[int]:
    """The 256 colours r g b that DAVIS and PASCAL VOC paint objects with: the bits of the number, spread over three."""
    colours = []
    for number in range(256):
        for channel in range(3):
            bits = (number >> 3 * place + channel & 1 for place in range(3))
            colours.append(sum(bit << 7 - place for place, bit in enumerate(bits)))
    return colours
