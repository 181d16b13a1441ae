"""DAVIS: a folder a video, and in it a palette PNG a frame, whose pixels hold the number of the object they show.

0 is the ground and 255 is nothing that is known. Categories are not in the pictures: a JSON file tells them, as
`{"<video>": {"<object number>": "<category>"}}` or like the meta.json of YouTube-VOS; without one all are "object".
"""

import io
import json
import logging
import os
from pathlib import Path

import numpy as np
from PIL import Image

from ytvis.convert.tracks import (
    Annotations,
    TrackCollector,
    TrackedVideo,
    field,
    frame_folder,
    frames_of_stems,
    new_folder,
    video_folders,
)
from ytvis.files import InputError, atomic_write
from ytvis.masks import encode_mask
from ytvis.pictures import read_labels
from ytvis.results import read_json

logger = logging.getLogger(__name__)

CATEGORIES_FILE = "categories.json"
DEFAULT_CATEGORY = "object"
VOID = 255


def read(
    source: str | os.PathLike,
    images: str | os.PathLike | None = None,
    categories: str | os.PathLike | None = None,
) -> Annotations:
    """The objects of every folder in or below `source` that holds PNG files.

    File names are relative to `images`, where frames of the same names are looked for. `categories` is the file that
    tells the categories; without it the categories.json in `source` is taken, if there is one.

    Raises:
        InputError: a file is no palette PNG, or of another size than the others of its video; a frame has no picture;
            or the file of categories lacks an object.
    """
    folders = video_folders(source, "*.png")
    images = None if images is None else Path(images)
    default_file = Path(source) / CATEGORIES_FILE
    file = Path(categories) if categories is not None else default_file if default_file.is_file() else None
    names = None if file is None else _read_categories(file)
    videos = []
    for name, paths in folders:
        collector = None
        for frame_index, path in enumerate(paths):
            pixels = read_labels(path)
            if collector is None:
                collector = TrackCollector(name, *pixels.shape)
            if pixels.shape != (collector.height, collector.width):
                raise InputError(f"{path}: is not of the size of {paths[0].name}")
            for number in sorted(set(np.unique(pixels).tolist()) - {0, VOID}):
                category = DEFAULT_CATEGORY if names is None else names.get((name, str(number)))
                if category is None:
                    raise InputError(f"{file}: tells no category of object {number} of video {name}")
                collector.add(number, category, frame_index, encode_mask(pixels == number), str(path))
        prefix = frame_folder(images, name, is_only=len(folders) == 1)
        videos.append(collector.finish(frames_of_stems(images, prefix, [path.stem for path in paths])))
    return Annotations.with_seen_categories(videos)


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
        raise InputError(f"{path}: must hold an object with an entry a video")
    return {
        (video, number): field(objects, number, str, f"{path}: {video}")
        for video in content
        for objects in [field(content, video, dict, str(path))]
        for number in objects
    }


# ---------------------------------------------------------------------------------------------------- writing


def write(annotations: Annotations, target: str | os.PathLike) -> None:
    """Writes <target>/<video>/<frame>.png for every frame, and categories.json; a track's number is its place, from 1.

    A pixel has one number: where tracks overlap the later one is kept, and that is said. Crowds are left out.

    Raises:
        InputError: `target` is not new or empty, or a video has more than 254 tracks.
    """
    target = new_folder(target)
    for video in annotations.videos:
        if len(video.tracks) >= VOID:
            raise InputError(f"video {video.name} has {len(video.tracks)} tracks, DAVIS holds {VOID - 1} at most")
        overlaps = 0
        for frame_index, stem in enumerate(video.stems()):
            numbers, overlap = video.paint(frame_index)
            overlaps += overlap
            picture = Image.fromarray(numbers.astype(np.uint8))
            picture.putpalette(palette())
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            with atomic_write(target / video.name / f"{stem}.png", "wb") as file:
                file.write(buffer.getvalue())
        if overlaps:
            logger.warning("%s: objects overlap in %d frames; the later one is kept", video.name, overlaps)
    with atomic_write(target / CATEGORIES_FILE) as file:
        json.dump({video.name: _categories_of(video) for video in annotations.videos}, file, indent=1)


def _categories_of(video: TrackedVideo) -> dict[str, str]:
    return {str(number): track.category for number, track in enumerate(video.tracks, start=1)}


def palette() -> list[int]:
    """The 256 colours r g b that DAVIS and PASCAL VOC paint objects with: the bits of the number, spread over three."""
    colours = []
    for number in range(256):
        for channel in range(3):
            bits = (number >> 3 * place + channel & 1 for place in range(3))
            colours.append(sum(bit << 7 - place for place, bit in enumerate(bits)))
    return colours
