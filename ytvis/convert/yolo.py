"""YOLO segmentation, as Ultralytics reads and writes it: one text file per picture, one object per line.

A line is `class x1 y1 x2 y2 x3 y3 …`, a polygon, or `class x y width height`, a box around its centre, all as shares of
the picture's sides. A confidence, a track id, or both in this order may follow, as Ultralytics writes them with
`model.track(save_txt=True, save_conf=True)`. data.yaml has the names of the classes and the folders of the pictures
of each split; a picture's labels are at its path with `labels` in place of the last `images`, and a picture without
any has no object.

A folder of pictures is a video, in which an object is the lines of one class and one track id. If no line has an id,
every picture is a video of its own, because nothing says which objects are the same.
"""

import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ytvis.annotations import AnnotationFile
from ytvis.convert.shapes import join_outlines, outlines
from ytvis.convert.tracks import TrackCollector, check_sizes, collect, new_folder, progress, videos_to_write
from ytvis.files import InputError, atomic_write, list_folder, natural_key, read_text
from ytvis.frames import bind_numbers, check_order, is_hidden, video_of_path, walk_folders
from ytvis.masks import decode_mask, to_rle
from ytvis.messages import excerpt, shown
from ytvis.optional import import_extra
from ytvis.pictures import list_pictures, picture_size

logger = logging.getLogger(__name__)

DATA_FILE = "data.yaml"
NAMES_FILE = "classes.txt"  # of labelImg and Label Studio
SPLITS = {"train": ("train",), "val": ("val", "validation"), "test": ("test",)}  # and their keys in data.yaml
TOLERANCE = 0.01  # by which a coordinate may be outside the picture, as in Ultralytics
DECIMALS = 8  # of the coordinates that are written: 0.001 pixels of the longest side

# Option → (whether a confidence, whether a track id may follow the coordinates).
COLUMNS = {"none": (False, False), "id": (False, True), "confidence": (True, False), "both": (True, True)}


@dataclass(frozen=True)
class _Line:
    """A line of a label file: `values` are the numbers after the class."""

    where: str
    category: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class _Object:
    """A line that is understood: `coordinates` are those of a polygon, or the four of a box, as shares of the sides."""

    where: str
    category: str
    coordinates: tuple[float, ...]
    track_id: int | None


@dataclass(frozen=True)
class _Folder:
    """The pictures of a folder, and the label file of each that has one."""

    path: Path
    labels: Mapping[str, Path | None]


def read(
    source: str | os.PathLike,
    images: str | os.PathLike | None = None,
    categories: str | os.PathLike | None = None,
    split: str | None = None,
    columns: str | None = None,
) -> AnnotationFile:
    """The objects of the splits of a data.yaml, or of the folder it is in; or of label files without one.

    File names are relative to `images`, where the pictures are looked for, or without it to the folder of data.yaml.
    `categories` is a data.yaml or a file with one class name per line; without it the names are those of data.yaml or
    classes.txt in the source. All classes are kept. `split` is one of `SPLITS`, None all. `columns`, one of `COLUMNS`,
    says what follows the coordinates; None finds it out.

    Raises:
        InputError: a file is not in the format, a class has no name, or a label file no picture.
    """
    source = Path(source)
    data_file = _find_data_file(source)
    names = _names(source, data_file, categories)
    root, folders = _folders(source, data_file, None if images is None else Path(images), split)
    lines = {
        path: _read_lines(path, names)
        for folder in progress(folders, "folders")
        for path in folder.labels.values()
        if path is not None
    }
    if not lines:
        raise InputError(f"{source}: has no label file of a picture")
    pictures = sum(len(folder.labels) for folder in folders)
    if len(lines) < pictures:
        logger.warning(
            "%s: %d of %d pictures have no label file and are taken to show no object",
            source,
            pictures - len(lines),
            pictures,
        )
    objects = _understand(lines, columns, source)
    ids = {found.track_id for of_file in objects.values() for found in of_file}
    has_no_tracks = ids == {None}
    if has_no_tracks:
        logger.warning(
            "%s: no line has a track id, so every picture is a video of its own; to keep tracks, end each line with "
            "the id of its object",
            source,
        )
        folders = [_Folder(folder.path, {name: label}) for folder in folders for name, label in folder.labels.items()]
    videos: dict[str, TrackCollector] = {}
    for folder in progress(folders, "videos"):
        video = _read_video(folder, root, objects, has_no_tracks)
        if video.name in videos:
            raise InputError(f"{folder.path}: is of the same video as another folder, {video.name}; rename one")
        videos[video.name] = video
    in_order = sorted(videos.values(), key=lambda video: natural_key(video.name))
    return collect(source, in_order, {number + 1: name for number, name in names.items()})


def _read_video(
    folder: _Folder, root: Path, objects: Mapping[Path, Sequence[_Object]], is_picture: bool
) -> TrackCollector:
    """The video of a folder, or with `is_picture` that of its only picture."""
    file_names = [Path(os.path.relpath(folder.path / name, root)).as_posix() for name in folder.labels]
    name = video_of_path(folder.path, root, ("images",))
    if is_picture:
        name = PurePosixPath(file_names[0]).with_suffix("").as_posix()
    size_hw = picture_size(root / file_names[0])
    check_sizes(root, file_names[1:], size_hw, str(folder.path))
    collector = TrackCollector(name, *size_hw, str(folder.path / next(iter(folder.labels))))
    collector.name_frames(file_names)
    for frame_index, label in enumerate(folder.labels.values()):
        for place, found in enumerate(objects.get(label, ())):
            key = (found.category, found.track_id)
            if found.track_id is None:
                key = (frame_index, place)
            collector.add(key, found.category, frame_index, [_polygon(found.coordinates, size_hw)], found.where)
    return collector


def _polygon(coordinates: Sequence[float], size_hw: tuple[int, int]) -> list[float]:
    """The polygon x y x y …, in pixels."""
    if len(coordinates) == 4:
        x, y, width, height = coordinates
        left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
        coordinates = (left, top, right, top, right, bottom, left, bottom)
    sides = size_hw[::-1]
    return [share * sides[place % 2] for place, share in enumerate(coordinates)]


# ---------------------------------------------------------------------------------------------------- lines


def _read_lines(path: Path, names: Mapping[int, str]) -> list[_Line]:
    lines = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        words = line.split()
        if not words:
            continue
        where = f"{path}, line {number}"
        try:
            index, *values = map(float, words)
        except ValueError:
            raise InputError(f"{where}: is not numbers with spaces between them: {shown(line)}") from None
        if not all(map(math.isfinite, (index, *values))):
            raise InputError(f"{where}: holds a number that is not finite")
        if index not in names:
            is_gapless = len(names) == max(names) - min(names) + 1
            known = f"{min(names)} to {max(names)}" if is_gapless else excerpt(", ".join(map(str, names)))
            raise InputError(f"{where}: there is no class {index:g}; the classes are {known}")
        lines.append(_Line(where, names[int(index)], tuple(values)))
    return lines


def _understand(lines: Mapping[Path, Sequence[_Line]], columns: str | None, source: Path) -> dict[Path, list[_Object]]:
    """The objects of the lines of each file; logs what is guessed and left out."""
    all_lines = [line for of_file in lines.values() for line in of_file]
    if columns is None:
        has_confidence, has_id = _recognise(all_lines, source), True
    else:
        has_confidence, has_id = COLUMNS[columns]
    objects = {path: [_object(line, has_confidence, has_id) for line in of_file] for path, of_file in lines.items()}
    found = [known for of_file in objects.values() for known in of_file]
    boxes = sum(len(known.coordinates) == 4 for known in found)
    if boxes:
        logger.warning("%s: %d of %d lines are boxes; their masks are the filled boxes", source, boxes, len(found))
    if has_confidence:
        logger.warning("%s: the confidences in its lines are left out", source)
    without_id = sum(known.track_id is None for known in found)
    if 0 < without_id < len(found):
        logger.warning(
            "%s: %d of %d lines have no track id; each is an object of one frame", source, without_id, len(found)
        )
    return objects


def _recognise(lines: Sequence[_Line], source: Path) -> bool:
    """Whether the lines hold confidences.

    An odd number of values without confidences ends with an id, and with confidences with one; an even number holds
    both or nothing more than coordinates. What fits all lines is taken, and coordinates and ids if both do.
    """
    faults = {has_confidence: _faults(lines, has_confidence) for has_confidence in (False, True)}
    if lines and not faults[False] and not faults[True]:
        logger.warning(
            "%s: its lines are read as coordinates and track ids; if they hold confidences, say what follows the "
            "coordinates by --columns confidence or --columns both",
            source,
        )
    return faults[True] < faults[False]


def _faults(lines: Iterable[_Line], has_confidence: bool) -> int:
    faults = 0
    for line in lines:
        try:
            _object(line, has_confidence, has_id=True)
        except InputError:
            faults += 1
    return faults


def _object(line: _Line, has_confidence: bool, has_id: bool) -> _Object:
    """The object of a line; the parity of its numbers says whether it has an id."""
    is_odd = len(line.values) % 2 == 1
    with_id = is_odd != has_confidence
    end = len(line.values) - has_confidence - with_id
    coordinates, confidence, track_id = line.values[:end], line.values[end:][:has_confidence], line.values[-1:]
    if end != 4 and end < 6:
        raise InputError(f"{line.where}: is neither 'class x1 y1 x2 y2 x3 y3 …' nor 'class x y width height'")
    outside = [value for value in coordinates if not -TOLERANCE <= value <= 1 + TOLERANCE]
    if outside:
        raise InputError(
            f"{line.where}: the coordinate {outside[0]:g} is not a share of the picture's side, from 0 to 1; divide "
            "pixels by width and height"
        )
    if any(not 0 <= value <= 1 for value in confidence):
        raise InputError(f"{line.where}: the confidence {confidence[0]:g} is not between 0 and 1")
    if not with_id:
        return _Object(line.where, line.category, coordinates, None)
    if not has_id:
        raise InputError(f"{line.where}: has a number too many or too few; --columns says what a line holds")
    if track_id[0] < 0 or track_id[0] % 1:
        raise InputError(f"{line.where}: the track id {track_id[0]:g} is not a whole number from 0")
    return _Object(line.where, line.category, coordinates, int(track_id[0]))


# ---------------------------------------------------------------------------------------------------- classes


def _find_data_file(source: Path) -> Path | None:
    """The data.yaml that `source` is or holds, by whatever name."""
    if os.path.isfile(source):
        return source
    if not os.path.isdir(source):
        raise InputError(f"{source}: no such folder or file")
    found = [name for name in list_folder(source) if name.lower().endswith((".yaml", ".yml")) and not is_hidden(name)]
    if DATA_FILE in found:
        return source / DATA_FILE
    if len(found) > 1:
        raise InputError(f"{source}: has {found[0]} and {found[1]}; name the one that describes the data set")
    return source / found[0] if found else None


def _read_yaml(path: Path) -> dict:
    yaml = import_extra("yaml", "pyyaml")
    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or type(error).__name__
        mark = getattr(error, "problem_mark", None)
        raise InputError(f"{path}: is not a YAML file: {problem}{f', line {mark.line + 1}' if mark else ''}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold 'names' and the folders of the pictures, as a data.yaml of Ultralytics")
    return content


def _names(source: Path, data_file: Path | None, categories: str | os.PathLike | None) -> dict[int, str]:
    """{class: name}, ascending."""
    path = Path(categories) if categories is not None else data_file or source / NAMES_FILE
    if categories is None and not os.path.isfile(path):
        raise InputError(f"{source}: has no {DATA_FILE} and no {NAMES_FILE}; name the classes with --categories")
    if path == data_file or path.suffix.lower() in (".yaml", ".yml"):
        listed = _read_yaml(path).get("names")
    else:
        listed = [line.strip() for line in read_text(path).rstrip().split("\n")]
    if isinstance(listed, list):
        listed = dict(enumerate(listed))
    if not isinstance(listed, dict) or not listed:
        raise InputError(f"{path}: 'names' must be a list of the classes' names, or an object with their numbers")
    for number, name in listed.items():
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**31:
            raise InputError(f"{path}: the number of a class must be a whole number from 0")
        if isinstance(name, bool) or not isinstance(name, str | int | float) or not str(name).strip():
            raise InputError(f"{path}: the name of class {number} must be text; write it in quotes")
    names = {number: str(name).strip() for number, name in sorted(listed.items())}
    if len(set(names.values())) < len(names):
        raise InputError(f"{path}: two classes have the same name; give each its own")
    return names


# ---------------------------------------------------------------------------------------------------- pictures


def _folders(
    source: Path, data_file: Path | None, images: Path | None, split: str | None
) -> tuple[Path, list[_Folder]]:
    """(The folder that file names are relative to, the folders of pictures)."""
    if data_file is None:
        if split is not None:
            raise InputError(f"{source}: has no {DATA_FILE}, so it has no splits; leave --split out")
        pictures, labels = (source / name if os.path.isdir(source / name) else source for name in ("images", "labels"))
        root = source if images is None else images
        return root, list(_walk(pictures if images is None else images, labels))
    home, places = _places(data_file, split)
    root = Path(os.path.abspath(home if images is None else images))
    folders: dict[Path, _Folder] = {}
    for place in places:
        if os.path.isfile(place):
            found = _listed(place, home)
        else:
            found = _walk(_pictures_of(place, images, len(places) == 1), _labels_of(place))
        for folder in found:
            labels = dict(folder.labels)
            if folder.path in folders:
                labels |= folders[folder.path].labels
            in_order = sorted(labels.items(), key=lambda label: natural_key(label[0]))
            folders[folder.path] = _Folder(folder.path, dict(in_order))
    for path in folders:
        if not path.is_relative_to(root):
            raise InputError(f"{data_file}: its pictures in {path} are outside {root}; name their folder by --images")
    return root, list(folders.values())


def _places(data_file: Path, split: str | None) -> tuple[Path, list[Path]]:
    """(The folder of a data set, the folders and lists of the pictures of `split` or of all splits, each once)."""
    content = _read_yaml(data_file)
    home = Path(os.path.abspath(data_file.parent))
    given = content.get("path")
    if isinstance(given, str) and os.path.isdir(home / given):
        home = Path(os.path.abspath(home / given))
    named = []
    for key in SPLITS[split] if split else [key for keys in SPLITS.values() for key in keys]:
        value = content.get(key)
        listed = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(name, str) and name.strip() for name in listed):
            raise InputError(f"{data_file}: {key!r} must be a folder of pictures, a list of such, or a text file")
        named += listed
    if not named:
        raise InputError(f"{data_file}: has no pictures of the split {split or 'train, val or test'}")
    return home, list(dict.fromkeys(_place(name, home, data_file) for name in named))


def _place(name: str, home: Path, data_file: Path) -> Path:
    """The folder or list that `name` in data.yaml means; `../` before it may mean the folder of the file itself."""
    name = name.replace("\\", "/")
    candidates = [home / name, data_file.parent / name, home / name.removeprefix("../")]
    found = next((path for path in candidates if os.path.exists(path)), candidates[0])
    return Path(os.path.abspath(found))


def _labels_of(pictures: Path) -> Path:
    """The folder of labels of a folder of pictures."""
    parts = list(pictures.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def _pictures_of(place: Path, images: Path | None, is_only: bool) -> Path:
    """The folder of the pictures of `place`: itself, or its counterpart in `images`."""
    if images is None:
        return place
    images = Path(os.path.abspath(images))
    if os.path.isdir(place) and place.is_relative_to(images):
        return place
    inner = place.parts[len(place.parts) - place.parts[::-1].index("images") :] if "images" in place.parts else ()
    below = images.joinpath(*inner)
    return images if is_only and not os.path.isdir(below) else below


def _walk(pictures: Path, labels: Path) -> Iterator[_Folder]:
    """The folders in and below `pictures`, whose labels are at the same paths in `labels`."""
    for path in (pictures, labels):
        if not os.path.isdir(path):
            raise InputError(f"{path}: no such folder of {'pictures' if path == pictures else 'labels'}")
    of_labels = {
        folder.relative_to(labels): [
            path for path in files if path.suffix.lower() == ".txt" and path.name != NAMES_FILE
        ]
        for folder, files in walk_folders(labels)
    }
    for folder, _ in walk_folders(pictures):
        names = list_pictures(folder)
        if names:
            yield _Folder(folder, _bind(folder, names, of_labels.pop(folder.relative_to(pictures), [])))
    stray = next((found[0] for found in of_labels.values() if found), None)
    if stray is not None:
        raise InputError(f"{stray}: there is no picture of it below {pictures}; --images names their folder")


def _listed(path: Path, home: Path) -> Iterator[_Folder]:
    """The folders of the pictures that a text file lists, one per line, relative to its own folder or to `home`."""
    names: dict[Path, list[str]] = {}
    for line in filter(None, map(str.strip, read_text(path).replace("\\", "/").split("\n"))):
        found = next((root / line for root in (path.parent, home) if os.path.isfile(root / line)), None)
        if found is None:
            raise InputError(f"{path}: lists {shown(line)}, which is not a file")
        picture = Path(os.path.abspath(found))
        names.setdefault(picture.parent, []).append(picture.name)
    for folder, of_folder in names.items():
        labels = {name: (_labels_of(folder) / name).with_suffix(".txt") for name in of_folder}
        yield _Folder(folder, {name: label if os.path.isfile(label) else None for name, label in labels.items()})


def _bind(folder: Path, pictures: Sequence[str], labels: Sequence[Path]) -> dict[str, Path | None]:
    """{picture: its label file}, by name, or where no name is the same by the numbers in them."""
    by_stem: dict[str, str] = {}
    for picture in pictures:
        other = by_stem.setdefault(PurePosixPath(picture).stem, picture)
        if other != picture:
            raise InputError(f"{folder}: has {other} and {picture} for the same labels; keep one of them there")
    missing = [label for label in labels if label.stem not in by_stem]
    if missing:
        stems = [label.stem for label in labels]
        bound = bind_numbers(pictures, stems, str(labels[0].parent)) if len(missing) == len(labels) else None
        if bound is None:
            raise InputError(f"{missing[0]}: there is no picture {missing[0].stem}.jpg or the like in {folder}")
        found = dict(zip(bound, labels, strict=True))
    else:
        found = {by_stem[label.stem]: label for label in labels}
    return {picture: found.get(picture) for picture in pictures}


# ---------------------------------------------------------------------------------------------------- writing


def write(annotations: AnnotationFile, target: str | os.PathLike, columns: str | None = None) -> None:
    """Writes <target>/labels/<video>/<frame>.txt for every frame, and data.yaml, whose pictures are in images/.

    A line is an object's class, its polygon, and its number in its video, from 1, unless `columns` is "none", which
    Ultralytics needs for training. An object of several polygons or with holes is one outline, whose parts are joined
    by lines of no width. Crowds are left out.

    Raises:
        InputError: `target` is not new or empty, the frames of a video are in another order than their names, or
            `columns` asks for confidences.
    """
    if columns not in (None, "id", "none"):
        raise InputError(f"--columns {columns}: annotations have no confidences; choose id or none")
    numbers = {category_id: number for number, category_id in enumerate(annotations.categories)}
    with new_folder(target) as target:
        videos = videos_to_write(annotations)
        stems = [check_order(folder, video.file_names, "YOLO") for folder, video, _ in videos]
        for (folder, video, tracks), names in zip(progress(videos, "videos"), stems, strict=True):
            for frame_index, stem in enumerate(progress(names, folder)):
                with atomic_write(target / "labels" / folder / f"{stem}.txt") as file:
                    for track_id, track in enumerate(tracks, start=1):
                        shares = _shares(track.segmentations[frame_index], (video.height, video.width))
                        if shares is None or track.iscrowd:
                            continue
                        words: list[Any] = [numbers[track.category_id], *(f"{share:.10g}" for share in shares.ravel())]
                        file.write(" ".join(map(str, words + [track_id] * (columns != "none"))) + "\n")
        with atomic_write(target / DATA_FILE) as file:
            file.write("train: images\nval: images\nnames:\n")
            for number, name in enumerate(annotations.categories.values()):
                # A text in JSON is one in YAML.
                file.write(f"  {number}: {json.dumps(name, ensure_ascii=False)}\n")


def _shares(segmentation: list | dict | None, size_hw: tuple[int, int]) -> np.ndarray | None:
    """The outline of a segmentation, [corners,2] x y as shares of the sides, which covers the same pixels; None for
    none."""
    rle = to_rle(segmentation, *size_hw)
    mask = rle and decode_mask(rle)
    if mask is None or not mask.any():
        return None
    sides = np.array(size_hw[::-1])
    if isinstance(segmentation, list):
        polygons = [np.reshape(polygon, (-1, 2)) for polygon in segmentation if len(polygon) >= 6]
        shares = np.round(join_outlines(polygons) / sides, DECIMALS)
        is_inside = shares.min() >= 0 and shares.max() <= 1
        if is_inside and to_rle([(shares * sides).ravel()], *size_hw) == rle:
            return shares
    return np.round(join_outlines(outlines(mask)) / sides, DECIMALS)
