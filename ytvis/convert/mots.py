"""MOTS: a text file a video with a line an object and frame, or a folder a video with a 16-bit PNG a frame.

A line is `frame object class height width rle`; a pixel of a PNG holds the object. Objects are numbered
1000 × class + instance. Classes are the lines of labels.txt, from 1, otherwise those of KITTI MOTS and MOTSChallenge:
car and pedestrian. Class 10, regions to be ignored, is left out unless there are labels for it.
"""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ytvis.convert.tracks import (
    Annotations,
    TrackCollector,
    TrackedVideo,
    frame_folder,
    frames_of_stems,
    new_folder,
    video_folders,
)
from ytvis.files import InputError, atomic_write, natural_key
from ytvis.masks import encode_mask
from ytvis.pictures import list_pictures, read_labels

logger = logging.getLogger(__name__)

LABELS_FILE = "labels.txt"
PUBLISHED_LABELS = ("car", "pedestrian")
IGNORED_CLASS = 10
INSTANCES = 1000  # of a class


def read(
    source: str | os.PathLike,
    images: str | os.PathLike | None = None,
    categories: str | os.PathLike | None = None,
) -> Annotations:
    """The objects of the text files in `source`, or of its folders of PNG files (or of instances/ in it).

    File names are relative to `images`. With text files, all pictures of a video are its frames, found by the number
    in their name; without `images` they are guessed to be <video>/000000.jpg and on, or from 000001 where no frame 0
    is named. `categories` is a file with the name of a class a line; without it the labels.txt in `source` is taken, if
    there is one. All classes named are kept.

    Raises:
        InputError: a file is not in the format, a frame has no picture, or a class has no name.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source}: no such folder")
    images = None if images is None else Path(images)
    labels = _read_labels(source, None if categories is None else Path(categories))
    paths = sorted(source.rglob("*.txt"), key=lambda path: natural_key(str(path)))
    paths = [path for path in paths if path.name != LABELS_FILE]
    if paths:
        videos = [_read_text(path, source, images, labels, is_only=len(paths) == 1) for path in paths]
    else:
        folder = source / "instances" if (source / "instances").is_dir() else source
        folders = video_folders(folder, "*.png")
        videos = [_read_pngs(name, files, images, labels, is_only=len(folders) == 1) for name, files in folders]
    return Annotations(labels, tuple(videos))


def _read_labels(source: Path, path: Path | None) -> dict[int, str]:
    """{class: name}."""
    if path is None:
        path = source / LABELS_FILE
        if not path.is_file():
            return dict(enumerate(PUBLISHED_LABELS, start=1))
    names = [line.strip() for line in _read_lines(path)]
    if not all(names) or len(set(names)) < len(names) or not names:
        raise InputError(f"{path}: must hold the name of a class a line, each once")
    return dict(enumerate(names, start=1))


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no text") from None


def _category(number: int, labels: dict[int, str], where: str) -> str | None:
    """The category of an object, None for a region to be ignored."""
    class_number = number // INSTANCES
    if class_number == IGNORED_CLASS and class_number not in labels:
        return None
    if class_number not in labels:
        raise InputError(f"{where}: object {number} is of class {class_number}, which has no name; say --categories")
    return labels[class_number]


def _read_text(path: Path, source: Path, images: Path | None, labels: dict[int, str], is_only: bool) -> TrackedVideo:
    rows = []
    for line_number, line in enumerate(_read_lines(path), start=1):
        where = f"{path}, line {line_number}"
        parts = line.split()
        if len(parts) != 6 or not all(part.isdecimal() for part in parts[:5]):
            raise InputError(f"{where}: is not 'frame object class height width rle'")
        frame, number, class_number, height, width = map(int, parts[:5])
        if number // INSTANCES != class_number:
            raise InputError(f"{where}: object {number} is not of class {class_number}")
        rows.append((where, frame, number, {"size": [height, width], "counts": parts[5]}))
    if not rows:
        raise InputError(f"{path}: is empty, so the size of its frames is not known; remove it")
    name = path.relative_to(source).with_suffix("").as_posix()
    prefix = frame_folder(images, name, is_only)
    numbers = sorted({frame for _, frame, _, _ in rows})
    if images is None:
        numbers = list(range(min(1, numbers[0]), numbers[-1] + 1))
        file_names = frames_of_stems(None, prefix, [f"{number:06d}" for number in numbers])
    else:
        pictures = list_pictures(images / prefix)
        numbers, file_names = frame_numbers(pictures), [prefix + picture for picture in pictures]
    frame_indices = {number: frame_index for frame_index, number in enumerate(numbers)}
    collector = TrackCollector(name, *rows[0][3]["size"])
    for where, frame, number, rle in rows:
        if frame not in frame_indices:
            raise InputError(f"{where}: there is no picture of frame {frame} in {images / prefix}")
        category = _category(number, labels, where)
        if category is not None:
            collector.add(number, category, frame_indices[frame], rle, where)
    return collector.finish(file_names)


def frame_numbers(file_names: Sequence[str]) -> list[int]:
    """The numbers that name the frames, or 0, 1, 2, … if not all of them are named by a number of their own."""
    stems = [Path(name).stem for name in file_names]
    if all(stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems):
        return [int(stem) for stem in stems]
    return list(range(len(stems)))


def _read_pngs(
    name: str, paths: list[Path], images: Path | None, labels: dict[int, str], is_only: bool
) -> TrackedVideo:
    collector = None
    for frame_index, path in enumerate(paths):
        pixels = read_labels(path)
        if pixels.dtype != np.uint16:
            raise InputError(f"{path}: is no PNG of 16-bit object numbers")
        if collector is None:
            collector = TrackCollector(name, *pixels.shape)
        if pixels.shape != (collector.height, collector.width):
            raise InputError(f"{path}: is not of the size of {paths[0].name}")
        for number in np.unique(pixels[pixels > 0]).tolist():
            category = _category(number, labels, str(path))
            if category is not None:
                collector.add(number, category, frame_index, encode_mask(pixels == number), str(path))
    prefix = frame_folder(images, name, is_only)
    return collector.finish(frames_of_stems(images, prefix, [path.stem for path in paths]))


# ---------------------------------------------------------------------------------------------------- writing


def write(annotations: Annotations, target: str | os.PathLike) -> None:
    """Writes <target>/<video>.txt for every video in which something is seen, and labels.txt.

    Frames are numbered by their names, if these are numbers, otherwise from 0. A pixel shows one object: where tracks
    overlap the later one is kept, and that is said. Crowds are left out.

    Raises:
        InputError: `target` is not new or empty, or a video has more than 999 tracks of a class.
    """
    target = new_folder(target)
    classes = {name: number for number, name in enumerate(annotations.categories.values(), start=1)}
    for video in annotations.videos:
        objects = _number_objects(video, classes)
        lines, overlaps = [], 0
        for frame_index, frame in enumerate(frame_numbers(video.file_names)):
            canvas, overlap = video.paint(frame_index)
            overlaps += overlap
            for place in np.unique(canvas[canvas > 0]).tolist():
                number, rle = objects[place - 1], encode_mask(canvas == place)
                lines.append(f"{frame} {number} {number // INSTANCES} {video.height} {video.width} {rle['counts']}\n")
        if overlaps:
            logger.warning("%s: objects overlap in %d frames; the later one is kept", video.name, overlaps)
        if lines:
            with atomic_write(target / f"{video.name}.txt") as file:
                file.writelines(lines)
    with atomic_write(target / LABELS_FILE) as file:
        file.writelines(f"{name}\n" for name in classes)


def _number_objects(video: TrackedVideo, classes: dict[str, int]) -> list[int]:
    """The number of each track."""
    instances: Counter[str] = Counter()
    numbers = []
    for track in video.tracks:
        instances[track.category] += 1
        if instances[track.category] == INSTANCES:
            raise InputError(f"video {video.name} has over {INSTANCES - 1} tracks of {track.category}, MOTS no more")
        numbers.append(INSTANCES * classes[track.category] + instances[track.category])
    return numbers
