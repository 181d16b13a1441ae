"""MOTS: one text file per video with one line per object and frame, or one folder per video with 16-bit PNGs.

A line is `frame object class height width rle`; a pixel of a PNG holds the object. Objects are numbered
1000 × class + instance. Classes are the lines of labels.txt, from 1 or as the lines number them, otherwise those of
KITTI MOTS and MOTSChallenge: car and pedestrian. Class 10, regions to be ignored, is left out unless there are labels
for it.

The layouts of others are known: <video>/gt/gt.txt beside <video>/img1/ (MOTSChallenge), and instances/ with labels.txt
beside images/ (CVAT, Datumaro).
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ytvis.annotations import AnnotationFile
from ytvis.convert.tracks import (
    TrackCollector,
    collect,
    new_folder,
    paint_tracks,
    progress,
    read_label_pictures,
    videos_to_write,
)
from ytvis.files import InputError, atomic_write, natural_key, read_text
from ytvis.frames import check_order, frame_numbers, video_folders, video_of_path, walk_folders
from ytvis.masks import encode_mask
from ytvis.pictures import list_pictures

logger = logging.getLogger(__name__)

LABELS_FILE = "labels.txt"
PUBLISHED_LABELS = ("car", "pedestrian")
IGNORED_CLASS = 10
INSTANCES = 1000  # of a class
LAYOUT = ("gt", "instances")  # folders that do not name a video
TRUTH_FILE = Path("gt/gt.txt")
# A line of labels.txt where all of them begin with the number of their class: "1 car", "1: car", "1,car".
_NUMBERED = re.compile(r"([0-9]{1,9})(?:\s*[:,;=]\s*|\s+)(\S.*)", re.ASCII)
# Each number of at most 18 digits: frame, object, class, height, width.
_LINE = re.compile(r"\s*" + r"([0-9]{1,18})\s+" * 5 + r"(\S+)\s*", re.ASCII)


def read(
    source: str | os.PathLike,
    images: str | os.PathLike | None = None,
    categories: str | os.PathLike | None = None,
) -> AnnotationFile:
    """The objects of the text files in or below `source`, or of its folders of PNG files.

    File names are relative to `images`. With text files, all pictures of a video are its frames, found by the number
    in their name; without `images` they are guessed to be <video>/000000.jpg and on, or from 000001 where no frame 0
    is named. `categories` is a file with one class name per line; without it the labels.txt in or below `source` is
    taken, if there is one. All classes named are kept.

    Raises:
        InputError: a file is not in the format, a frame has no picture, or a class has no name.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source}: no such folder")
    images = None if images is None else Path(images)
    texts = [path for _, files in walk_folders(source) for path in files if path.suffix.lower() == ".txt"]
    label_files = [path for path in texts if path.name == LABELS_FILE]
    labels = _read_labels(label_files if categories is None else [Path(categories)])
    videos = _text_videos([path for path in texts if path not in label_files], source)
    if images is None and any(map(partial(_has_pictures, source), videos)):
        logger.warning("%s: holds the pictures, too: file names are relative to it", source)
        images = source
    if videos:
        read_video, of_each = _read_text, videos
    else:
        read_video, of_each = _read_pngs, video_folders(source, ".png", LAYOUT)
    is_only = len(of_each) == 1
    collectors = (read_video(name, found, images, labels, is_only) for name, found in progress(of_each, "videos"))
    return collect(source, collectors, labels)


def _text_videos(paths: list[Path], source: Path) -> list[tuple[str, Path]]:
    """(video, file) of those text files that are of videos, in natural order."""
    in_layout = [path for path in paths if path.parts[-2:] == TRUTH_FILE.parts]
    if in_layout:  # other texts beside them, as of detections, are none
        named = [(video_of_path(path.parent, source, LAYOUT), path) for path in in_layout]
    else:
        named = [(path.relative_to(source).with_suffix("").as_posix(), path) for path in paths]
    return sorted(named, key=lambda video: natural_key(video[0]))


def _has_pictures(source: Path, video: tuple[str, Path]) -> bool:
    """Whether a text file has its pictures beside it in the layout of MOTSChallenge, within `source`."""
    folder = video[1].parent.parent
    return folder.is_relative_to(source) and bool(list_pictures(folder / "img1"))


def _read_labels(paths: list[Path]) -> dict[int, str]:
    """{class: name}; all files must hold the same."""
    found = {path: _names_of_classes(path) for path in paths}
    for path, names in found.items():
        if names != found[paths[0]]:
            raise InputError(f"{path}: holds other classes than {paths[0]}; pass --categories")
    return found[paths[0]] if found else dict(enumerate(PUBLISHED_LABELS, start=1))


def _names_of_classes(path: Path) -> dict[int, str]:
    """{class: name} of a file; empty lines at the end and comments, which begin with #, name none."""
    lines = [line.strip() for line in read_text(path).rstrip().split("\n")]
    lines = [line for line in lines if not line.startswith("#")]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(numbered) and len({match[2] for match in numbered}) == len(lines):
        numbers, lines = [int(match[1]) for match in numbered], [match[2] for match in numbered]
        logger.warning("%s: its numbers are taken for those of the classes, %d is %r", path, numbers[0], lines[0])
    else:
        numbers = range(1, len(lines) + 1)
    if not lines or not all(lines) or len(set(lines)) < len(lines) or len(set(numbers)) < len(lines):
        raise InputError(f"{path}: must hold one class name per line, each once")
    return dict(sorted(zip(numbers, lines, strict=True)))


def _category(number: int, labels: dict[int, str], where: str) -> str | None:
    """The category of an object, None for a region to be ignored."""
    class_number = number // INSTANCES
    if class_number == IGNORED_CLASS and class_number not in labels:
        return None
    if class_number not in labels:
        raise InputError(f"{where}: object {number} is of class {class_number}, which has no name; pass --categories")
    return labels[class_number]


def _read_text(name: str, path: Path, images: Path | None, labels: dict[int, str], is_only: bool) -> TrackCollector:
    rows = []
    for line_number, line in enumerate(read_text(path).splitlines(), start=1):
        where = f"{path}, line {line_number}"
        parts = _LINE.fullmatch(line)
        if not parts:
            raise InputError(f"{where}: is not 'frame object class height width rle'")
        frame, number, class_number, height, width = map(int, parts.groups()[:5])
        if number // INSTANCES != class_number:
            raise InputError(f"{where}: object {number} is not of class {class_number}")
        rows.append((where, frame, number, {"size": [height, width], "counts": parts[6]}))
    if not rows:
        raise InputError(f"{path}: is empty, so the size of its frames is not known; remove it")
    collector = TrackCollector(name, *rows[0][3]["size"], str(path))
    frame_indices = collector.bind_numbers(images, is_only, {frame for _, frame, _, _ in rows})
    for where, frame, number, rle in progress(rows, name):
        category = _category(number, labels, where)
        if category is not None:
            collector.add(number, category, frame_indices[frame], rle, where)
    return collector


def _read_pngs(
    name: str, paths: list[Path], images: Path | None, labels: dict[int, str], is_only: bool
) -> TrackCollector:
    collector = read_label_pictures(name, paths, partial(_identify, labels))
    collector.bind_stems(images, is_only, [path.stem for path in paths])
    return collector


def _identify(labels: dict[int, str], number: int, dtype: np.dtype, where: str) -> tuple[int, str] | None:
    """(Object, category), None for a region to be ignored."""
    if dtype != np.uint16:
        raise InputError(f"{where}: is not a PNG of 16-bit object numbers")
    category = _category(number, labels, where)
    return None if category is None else (number, category)


# ---------------------------------------------------------------------------------------------------- writing


def write(annotations: AnnotationFile, target: str | os.PathLike) -> None:
    """Writes <target>/<video>.txt for every video in which something is seen, and labels.txt.

    Frames are numbered by the numbers in their names (`frame_numbers`). A pixel shows one object: where tracks overlap
    the later one is kept, which is logged. Crowds are left out.

    Raises:
        InputError: `target` is not new or empty, or a video does not fit MOTS: it has more than 999 tracks of a
            class, or frames in another order than that of their names.
    """
    with new_folder(target) as target:
        classes = list(annotations.categories.values())
        videos = videos_to_write(annotations)
        objects_of = [
            number_objects(folder, [annotations.categories[track.category_id] for track in tracks], classes)
            for folder, _, tracks in videos
        ]
        for (folder, video, tracks), objects in zip(progress(videos, "videos"), objects_of, strict=True):
            numbers = frame_numbers(check_order(folder, video.file_names, "MOTS"))
            frames = ((numbers[index], canvas) for index, canvas in paint_tracks(folder, video, tracks))
            write_text(target / f"{folder}.txt", frames, objects)
        write_labels(target, classes)


def number_objects(video: str, categories: Iterable[str], classes: Sequence[str]) -> list[int]:
    """The number of each track of a video, whose category is in `categories`, one of `classes`.

    Raises:
        InputError: there are more than 999 tracks of a class.
    """
    first = {name: INSTANCES * number for number, name in enumerate(classes, start=1)}
    instances: Counter[str] = Counter()
    numbers = []
    for category in categories:
        instances[category] += 1
        if instances[category] == INSTANCES:
            raise InputError(f"video {video} has over {INSTANCES - 1} tracks of {category}, MOTS no more")
        numbers.append(first[category] + instances[category])
    return numbers


def write_text(path: Path, frames: Iterable[tuple[int, np.ndarray]], numbers: Sequence[int]) -> None:
    """Writes the file of one video, frame by frame; none if nothing is seen, for the format cannot say so.

    A frame is its number and a canvas [h, w] of places in `numbers`, from 1, or 0; see `paint_frames`.
    """
    lines = _lines(frames, numbers)
    first = next(lines, None)
    if first is not None:
        with atomic_write(path) as file:
            file.write(first)
            file.writelines(lines)


def _lines(frames: Iterable[tuple[int, np.ndarray]], numbers: Sequence[int]) -> Iterator[str]:
    for frame, canvas in frames:
        size = f"{canvas.shape[0]} {canvas.shape[1]}"
        for place in np.unique(canvas[canvas > 0]).tolist():
            number, rle = numbers[place - 1], encode_mask(canvas == place)
            yield f"{frame} {number} {number // INSTANCES} {size} {rle['counts']}\n"


def write_labels(folder: Path, classes: Sequence[str]) -> None:
    """Writes the names of the classes, by rising number from 1, with the numbers where a reader needs them."""
    is_clear = not any(name.strip().startswith("#") for name in classes) and not all(map(_NUMBERED.match, classes))
    with atomic_write(folder / LABELS_FILE) as file:
        file.writelines(f"{name}\n" if is_clear else f"{number} {name}\n" for number, name in enumerate(classes, 1))
