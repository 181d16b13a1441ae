"""Converts annotations of other tools to the YouTube-VIS format, and back.

    python -m ytvis convert labelme recordings ann.json               # one folder per video, one JSON file per frame
    python -m ytvis convert coco tracked.json ann.json                # images and annotations with a track_id
    python -m ytvis convert davis Annotations/480p ann.json --images JPEGImages/480p
    python -m ytvis convert mots instances_txt ann.json --images training/image_02
    python -m ytvis convert cvat task.xml ann.json --images frames    # "CVAT for video 1.1"
    python -m ytvis convert yolo dataset train.json --split train     # a folder with data.yaml, images/ and labels/
    python -m ytvis convert datumaro folder ann.json --images frames      # what Datumaro reads (an extra)
    python -m ytvis convert ytvis ann.json labelled --to labelme --images frames

The first word says what the source is, --to what is written; file names are relative to --images. docs/your-data.md
describes the formats. Exit codes: 0 done, 2 bad input, in one line that names the file.
"""

import argparse
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain

from ytvis.annotations import AnnotationFile, is_plain, is_within
from ytvis.convert import coco, cvat, datumaro, davis, labelme, mots, yolo, youtube_vis
from ytvis.files import InputError
from ytvis.messages import LONGEST_LINE, excerpt, short_name, shown

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Format:
    """How to read and write a format, and the options each of them takes."""

    read: Callable[..., AnnotationFile]
    write: Callable[..., None] | None = None
    read_options: tuple[str, ...] = ()
    write_options: tuple[str, ...] = ()


FORMATS = {
    "ytvis": Format(youtube_vis.read, youtube_vis.write),
    "labelme": Format(labelme.read, labelme.write, ("images",), ("images",)),
    "coco": Format(coco.read, coco.write),
    "davis": Format(davis.read, davis.write, ("images", "categories")),
    "mots": Format(mots.read, mots.write, ("images", "categories")),
    "cvat": Format(cvat.read, None, ("images", "order")),
    "yolo": Format(yolo.read, yolo.write, ("images", "categories", "split", "columns"), ("columns",)),
    "datumaro": Format(datumaro.read, None, ("images", "kind")),
}


def convert(
    format: str,
    source: str | os.PathLike,
    target: str | os.PathLike,
    to: str = "ytvis",
    crowds_are_objects: bool = False,
    **options: str | os.PathLike | None,
) -> AnnotationFile:
    """What `source` held, after it was read as `format` and written to `target` as `to`, both of `FORMATS`.

    `options` are `images`, the folder of the frames, `categories`, the file that names them, `order`, how numbers in
    the pictures' names sort them, `split`, the part of the data set, `columns`, what follows the coordinates in a line,
    and `kind`, the format among those of Datumaro; None is not given. With `crowds_are_objects` every crowd is written
    as an object.

    Raises:
        InputError: something cannot be read or written, there is no class, or an option is given that neither format
            takes.
    """
    reader, writer = FORMATS[format], FORMATS[to]
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in reader.read_options + writer.write_options:
            raise InputError(f"--{key} means nothing from {format} to {to}; leave it out")
    annotations = reader.read(source, **{key: given[key] for key in reader.read_options if key in given})
    if not annotations.categories:
        raise InputError(f"{source}: holds no labelled object, so there are no classes; nothing is written")
    _check_names(annotations, source)
    annotations = _resolve_crowds(annotations, crowds_are_objects, source)
    if not annotations.tracks:
        logger.warning("%s: holds no object", source)
    writer.write(annotations, target, **{key: given[key] for key in writer.write_options if key in given})
    return annotations


def _check_names(annotations: AnnotationFile, source: str | os.PathLike) -> None:
    """Raises InputError for a name that no annotation file can have; logs frames outside every folder of frames."""
    names = chain(
        annotations.categories.values(),
        *((video.name, *video.file_names) for video in annotations.videos.values()),
    )
    for name in names:
        if not name.strip() or not is_plain(name):
            raise InputError(
                f"{source}: {shown(name)} cannot be the name of a class or a file; write it as plain text in one line"
            )
    outside = [name for video in annotations.videos.values() for name in video.file_names if not is_within(name)]
    if outside:
        logger.warning(
            "%s: %d pictures, as %s, are outside every folder of frames, so that nothing will read them: name them "
            "relative to one",
            source,
            len(outside),
            shown(outside[0]),
        )


def _resolve_crowds(annotations: AnnotationFile, are_objects: bool, source: str | os.PathLike) -> AnnotationFile:
    """`annotations`, whose crowds become objects if they `are_objects`; logs how many crowds there are."""
    tracks = annotations.tracks or ()
    crowds = sum(track.iscrowd for track in tracks)
    if not crowds:
        return annotations
    if are_objects:
        logger.warning("%s: %d of %d tracks were crowds and are objects now", source, crowds, len(tracks))
        return replace(annotations, tracks=tuple(replace(track, iscrowd=False) for track in tracks))
    logger.warning(
        "%s: %d of %d tracks are crowds (iscrowd 1), which training leaves out and scoring ignores; some tools mark "
        "all masks of a brush so: if these are objects, pass --crowds_are_objects",
        source,
        crowds,
        len(tracks),
    )
    return annotations


def summary(annotations: AnnotationFile) -> str:
    """One line: how many videos, frames, tracks, and of which classes."""
    frames = sum(map(len, annotations.videos.values()))
    tracks = len(annotations.tracks or ())
    names = excerpt(", ".join(map(short_name, annotations.categories.values())), LONGEST_LINE) or "none"
    return f"{len(annotations.videos)} videos, {frames} frames, {tracks} tracks; classes: {names}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Gives `parser` the command's arguments."""
    parser.add_argument("format", choices=FORMATS, help="what the source is")
    parser.add_argument("source", help="file or folder to read")
    parser.add_argument("target", help="file to write (ytvis, coco), or new folder (labelme, davis, mots, yolo)")
    writable = [name for name, known in FORMATS.items() if known.write]
    parser.add_argument("--to", choices=writable, default="ytvis", help="what to write (default: %(default)s)")
    parser.add_argument("--images", metavar="DIR", help="folder of the frames")
    parser.add_argument(
        "--categories",
        metavar="FILE",
        help="davis: JSON with the category of each object; mots, yolo: text with one class name per line",
    )
    parser.add_argument(
        "--order",
        choices=("number", "text"),
        help="cvat: take the pictures in their order, numbers in names by value or as text, whatever the numbers are",
    )
    parser.add_argument(
        "--crowds_are_objects", action="store_true", help="write what the source marks as crowds as objects"
    )
    parser.add_argument("--split", choices=yolo.SPLITS, help="yolo: the part of the data set (default: all)")
    parser.add_argument(
        "--columns",
        choices=yolo.COLUMNS,
        help="yolo: what follows the coordinates of a line: nothing, a track id, a confidence, or both (default: as it "
        "recognises); written are id (default) or none, which Ultralytics needs for training",
    )
    parser.add_argument("--kind", help="datumaro: which of its formats it is, e.g. mots (default: as it recognises)")


def run(options: argparse.Namespace) -> int:
    """Converts what the options say; returns the exit code."""
    annotations = convert(
        options.format,
        options.source,
        options.target,
        options.to,
        options.crowds_are_objects,
        images=options.images,
        categories=options.categories,
        order=options.order,
        split=options.split,
        columns=options.columns,
        kind=options.kind,
    )
    print(f"{options.target}: {summary(annotations)}")
    return 0
