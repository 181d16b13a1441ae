"""Whatever Datumaro imports and whose shapes name a track: its own format, CVAT, COCO, MOTS PNGs, and others.

An object is the shapes of one class with the same `track_id` or `instance_id` among their attributes, or Datumaro's own
`object_id`, in a video: the folder of the item's id or, if it has none, its subset. A box or an ellipse counts as an
area where the object has neither polygon nor mask. Datumaro is an extra: `pip install 'stmask[datumaro]'`.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ytvis.annotations import AnnotationFile
from ytvis.convert.tracks import TrackCollector, check_sizes, collect, is_set, progress, track_id
from ytvis.files import InputError, natural_key
from ytvis.frames import bind_frames, find_pictures, name_of_folder
from ytvis.masks import encode_mask
from ytvis.optional import import_extra
from ytvis.pictures import picture_size

logger = logging.getLogger(__name__)


def read(source: str | os.PathLike, images: str | os.PathLike | None = None, kind: str | None = None) -> AnnotationFile:
    """The tracks of a data set in Datumaro's format `kind`, or the one it recognises; all its labels are kept.

    The pictures of <images>/<video>/ are the frames; an item is that of its name or, as in CVAT's, of its number.

    Raises:
        InputError: Datumaro is not installed or cannot read it, `images` is missing, an item has no picture, or a shape
            no class or no track, or attributes that cannot be used.
    """
    if images is None:
        raise InputError("datumaro: pass --images, the folder of the frames; what it reads need not list all of them")
    dataset = _import(source, kind)
    labels = [label.name for kind, known in dataset.categories().items() if kind.name == "label" for label in known]
    videos: dict[str, list[Any]] = {}
    for item in dataset:
        folder = _path(item).parent.as_posix()
        videos.setdefault(name_of_folder("" if folder == "." else folder, item.subset), []).append(item)
    in_order = sorted(videos.items(), key=lambda video: natural_key(video[0]))
    collectors = (
        _read_video(name, items, labels, Path(images), f"{source}: video {name}", is_only=len(videos) == 1)
        for name, items in in_order
    )
    return collect(source, collectors, dict(enumerate(labels, start=1)))


def _path(item: Any) -> PurePosixPath:
    """The id of an item, which is its picture's path without suffix, written on Windows or elsewhere."""
    return PurePosixPath(item.id.replace("\\", "/"))


def _import(source: str | os.PathLike, kind: str | None) -> Any:
    """Datumaro's data set."""
    datumaro = import_extra("datumaro")
    if not Path(source).exists():
        raise InputError(f"{source}: no such file or folder")
    try:
        return datumaro.Dataset.import_from(str(source), kind)
    except datumaro.components.errors.NoMatchingFormatsError:
        reason = "it is in no format that Datumaro recognises; --kind names one"
    except datumaro.components.errors.MultipleFormatsMatchError as error:
        reason = f"it may be {', '.join(sorted(error.formats))}; --kind says which"
    except Exception as error:  # its importers raise whatever their parsers do
        reason = " ".join(str(error.__cause__ or error).split())
    raise InputError(f"{source}: Datumaro cannot read it: {reason}")


def _read_video(
    name: str, items: list[Any], labels: list[str], images: Path, where: str, is_only: bool
) -> TrackCollector:
    prefix, pictures = find_pictures(images, name, is_only, where)
    height, width = picture_size(images / prefix / pictures[0])
    file_names = [prefix + picture for picture in pictures]
    check_sizes(images, file_names, (height, width), where)
    frame_indices = _frame_indices(items, pictures, f"{where}: in {images / prefix}")
    collector = TrackCollector(name, height, width, where)
    collector.name_frames(file_names)
    skipped: Counter[str] = Counter()
    for item, frame_index in zip(progress(items, name), frame_indices, strict=True):
        _add(item.annotations, frame_index, labels, collector, f"{where}, {item.id}", skipped)
    for kind, count in skipped.items():
        logger.warning("%s: %d annotations that are not areas are left out: %s", where, count, kind)
    return collector


def _frame_indices(items: list[Any], pictures: list[str], where: str) -> list[int]:
    """The place among `pictures` of every item: that of its name or, if some have none, of its frame's number."""
    stems = {PurePosixPath(picture).stem: index for index, picture in enumerate(pictures)}
    found = [stems.get(_path(item).name) for item in items]
    if None not in found:
        return found
    numbers = [item.attributes.get("frame") for item in items]
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise InputError(f"{where}: there is no picture of {items[found.index(None)].id!r}")
    bound = list(bind_frames(pictures, set(numbers), None, where))
    return [bound.index(number) for number in numbers]


def _add(
    shapes: Iterable[Any],
    frame_index: int,
    labels: list[str],
    collector: TrackCollector,
    where: str,
    skipped: Counter[str],
) -> None:
    """Adds what is seen in one frame, and counts in `skipped` what is not an area."""
    exact: dict[tuple[str, int | str], list[Any]] = {}
    coarse: dict[tuple[str, int | str], list[Any]] = {}
    for shape in shapes:
        kind = shape.type.name
        if kind not in ("mask", "polygon", "bbox", "rotated_bbox", "ellipse"):
            skipped[kind] += 1
        elif not is_set(shape.attributes.get("outside"), "outside", f"{where}: a {kind}"):
            if shape.label is None:
                raise InputError(f"{where}: a {kind} has no label")
            if not 0 <= shape.label < len(labels):
                raise InputError(f"{where}: a {kind} has the label {shape.label}, of {len(labels)} counted from 0")
            key = labels[shape.label], _track_id(shape, f"{where}: a {kind}")
            (exact if kind in ("mask", "polygon") else coarse).setdefault(key, []).append(shape)
    for key, parts in (coarse | exact).items():
        for shape in parts:
            if shape.type.name == "mask":
                segmentation = encode_mask(shape.image)
            else:  # x y x y …, but of a rotated box (x, y), …
                segmentation = [np.asarray(shape.as_polygon(), float).ravel().tolist()]
            is_crowd = is_set(shape.attributes.get("is_crowd"), "is_crowd", f"{where}: a {shape.type.name}")
            collector.add(key, key[0], frame_index, segmentation, where, is_crowd)


def _track_id(shape: Any, where: str) -> int | str:
    found = track_id(shape.attributes, where)
    if found is not None:
        return found
    if getattr(shape, "object_id", -1) >= 0:
        return shape.object_id
    raise InputError(f"{where}: has no track_id among its attributes: give all shapes of an object the same one")
