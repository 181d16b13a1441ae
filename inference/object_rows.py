"""Converts the objects of a video for other tools: supervision, COCO, LabelMe, pandas, CSV, MOTS, results.json.

supervision and pandas are imported only by the functions that need them; these raise InputError with the command that
installs them if they are missing.
"""

import csv
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.structures import FrameObjects
from ytvis.convert import mots
from ytvis.convert.coco import annotation_entry
from ytvis.convert.labelme import frame_content, polygon_shape
from ytvis.convert.tracks import paint_frames
from ytvis.files import atomic_write, make_folder, writing
from ytvis.masks import encode_masks, mask_area
from ytvis.optional import import_extra
from ytvis.results import SeenObject

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRow(SeenObject):
    """One object in one frame: box corners in pixels, `area` in pixels of the mask, `file_name` that of the picture if
    each frame has its own, else ""."""

    time_s: float
    class_name: str
    x1: int
    y1: int
    x2: int
    y2: int
    area: int
    file_name: str = ""


TABLE_COLUMNS = ("frame", "time_s", "track_id", "label", "class_name", "score", "x1", "y1", "x2", "y2", "area")
FILE_NAME_COLUMN = "file_name"  # the last one, in a table of frames that have names


def frame_file_name(index: int) -> str:
    """The name of a frame, counted from 0, where its source has none: that of the picture written of it."""
    return f"{index:06d}.png"


def object_rows(
    objects: FrameObjects, frame_index: int, time_s: float, class_names: Sequence[str], file_name: str = ""
) -> list[ObjectRow]:
    """One row for each of `objects`, in their order; `class_names[0]` is the name of label 1."""
    rles = encode_masks(objects.masks.cpu().numpy())
    return [
        ObjectRow(
            frame=frame_index,
            time_s=time_s,
            track_id=track_id,
            label=label,
            class_name=class_names[label - 1],
            score=score,
            **dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)),
            area=mask_area(rle),
            rle=rle,
            shifted=shifted,
            file_name=file_name,
        )
        for track_id, label, score, box, rle, shifted in zip(
            objects.track_ids.tolist(),
            objects.labels.tolist(),
            objects.scores.tolist(),
            objects.boxes_px.tolist(),
            rles,
            objects.shifted.tolist(),
            strict=True,
        )
    ]


# ---------------------------------------------------------------------------------------------------- one frame


def to_supervision(objects: FrameObjects, class_names: Sequence[str]) -> Any:
    """A `supervision.Detections` of `objects`: boxes, masks, scores, track ids, class ids 0…C−1 and class names.

    Raises:
        InputError: supervision is not installed.
    """
    labels = objects.labels.numpy()
    return import_extra("supervision").Detections(
        xyxy=objects.boxes_px.numpy().astype(np.float32),
        mask=objects.masks.numpy(),
        confidence=objects.scores.numpy(),
        class_id=labels - 1,
        tracker_id=objects.track_ids.numpy(),
        data={"class_name": np.array([class_names[label - 1] for label in labels], dtype=str)},
    )


def to_coco(rows: Sequence[ObjectRow], first_id: int = 1, category_ids: Sequence[int] = ()) -> list[dict]:
    """COCO annotations, one a row: the frame's index is the image id, `category_ids[label - 1]` the category id (by
    default the label 1…C); `id` counts from `first_id`; they also have `score` and `track_id`."""
    return [
        annotation_entry(
            {"id": annotation_id, "image_id": row.frame, "track_id": row.track_id}
            | {"category_id": category_ids[row.label - 1] if category_ids else row.label},
            row.rle,
            [row.x1, row.y1, row.x2 - row.x1, row.y2 - row.y1],
            row.area,
        )
        | {"score": row.score}
        for annotation_id, row in enumerate(rows, start=first_id)
    ]


def to_labelme(objects: FrameObjects, class_names: Sequence[str], image_path: str) -> dict:
    """The content of a LabelMe file of one frame: each piece of a mask is a polygon that can be edited.

    The track id is the group_id. Holes are filled, and pieces of fewer than three corners are left out.
    """
    shapes = []
    for mask, label, track_id in zip(
        objects.masks.numpy(), objects.labels.tolist(), objects.track_ids.tolist(), strict=True
    ):
        contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        shapes += [
            polygon_shape(contour[:, 0].tolist(), class_names[label - 1], track_id)
            for contour in contours
            if len(contour) >= 3
        ]
    return frame_content(shapes, image_path, objects.masks.shape[1:])


# ---------------------------------------------------------------------------------------------------- a whole video


def to_dataframe(rows: Iterable[ObjectRow]) -> Any:
    """A `pandas.DataFrame` with the columns of `write_csv`, one row an object and frame.

    Raises:
        InputError: pandas is not installed.
    """
    pandas = import_extra("pandas")
    columns, lines = _table(rows)
    return pandas.DataFrame(list(lines), columns=columns)


def write_csv(rows: Iterable[ObjectRow], path: str | os.PathLike) -> None:
    """Writes the columns `TABLE_COLUMNS`, one line an object and frame, under a line with their names.

    If frames have file names, those of pictures, they are in a last column `file_name`.
    """
    columns, lines = _table(rows)
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(lines)


def _table(rows: Iterable[ObjectRow]) -> tuple[tuple[str, ...], Iterator[tuple]]:
    """(The columns of a table, its lines)."""
    rows = iter(rows)
    first = next(rows, None)
    columns = TABLE_COLUMNS if first is None or not first.file_name else (*TABLE_COLUMNS, FILE_NAME_COLUMN)
    return columns, map(attrgetter(*columns), chain(() if first is None else (first,), rows))


def write_mots(
    rows: Iterable[ObjectRow],
    labels: Mapping[int, int],
    class_names: Sequence[str],
    size_hw: tuple[int, int],
    path: str | os.PathLike,
) -> None:
    """Writes the rows of one video as MOTS text, `path`, and beside it the names of the classes, labels.txt.

    `rows` are in order of frames, of which one is in memory at a time; `labels` are the classes by track id. Frames are
    numbered from 0, and the number of an object is 1000 × class + track id. If a track id is over 999, the format's
    limit, the objects of each class are numbered from 1 instead, which is logged. A pixel shows one object: where
    tracks overlap, the later one of `labels` is kept. Without objects only labels.txt is written, as the format cannot
    represent an empty video.

    Raises:
        InputError: a class has more than 999 tracks, or the folder cannot be created.
    """
    path = Path(path)
    if max(labels, default=0) < mots.INSTANCES:
        numbers = [mots.INSTANCES * label + track_id for track_id, label in labels.items()]
    else:
        logger.warning("%s: MOTS has no numbers over 999, so its objects have other numbers than the tracks", path)
        numbers = mots.number_objects(path.stem, [class_names[label - 1] for label in labels.values()], class_names)
    places = {track_id: place for place, track_id in enumerate(labels, start=1)}
    frames = (
        (frame, sorted(((places[row.track_id], row.rle) for row in seen), key=itemgetter(0)))
        for frame, seen in groupby(rows, attrgetter("frame"))
    )
    make_folder(path.parent)
    with writing(path):
        path.unlink(missing_ok=True)
    mots.write_text(path, paint_frames(frames, *size_hw, path.stem), numbers)
    mots.write_labels(path.parent, class_names)
