"""Converts annotations of other tools to the YouTube-VIS format, and back.

    python -m ytvis convert labelme recordings ann.json               # a folder a video, a JSON file a frame
    python -m ytvis convert coco tracked.json ann.json                # images and annotations with a track_id
    python -m ytvis convert davis Annotations/480p ann.json --images JPEGImages/480p
    python -m ytvis convert mots instances_txt ann.json --images training/image_02
    python -m ytvis convert cvat task.xml ann.json --images frames    # "CVAT for video 1.1"
    python -m ytvis convert datumaro folder ann.json --images frames      # what Datumaro reads (an extra)
    python -m ytvis convert ytvis ann.json labelled --to labelme --images frames

The first word says what the source is, --to what is written; file names are relative to --images. docs/your-data.md
tells what the formats hold. Exit codes: 0 done, 2 bad input, in one line that names the file.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass

from ytvis.convert import coco, cvat, datumaro, davis, labelme, mots
from ytvis.convert import youtube_vis as ytvis
from ytvis.convert.tracks import Annotations
from ytvis.files import InputError


@dataclass(frozen=True)
class Format:
    """How to read and write a format, and the options each of them takes."""

    read: Callable[..., Annotations]
    write: Callable[..., None] | None = None
    read_options: tuple[str, ...] = ()
    write_options: tuple[str, ...] = ()


FORMATS = {
    "ytvis": Format(ytvis.read, ytvis.write),
    "labelme": Format(labelme.read, labelme.write, ("images",), ("images",)),
    "coco": Format(coco.read, coco.write),
    "davis": Format(davis.read, davis.write, ("images", "categories")),
    "mots": Format(mots.read, mots.write, ("images", "categories")),
    "cvat": Format(cvat.read, None, ("images",)),
    "datumaro": Format(datumaro.read, None, ("images", "kind")),
}


def convert(
    format: str,
    source: str | os.PathLike,
    target: str | os.PathLike,
    to: str = "ytvis",
    **options: str | os.PathLike | None,
) -> Annotations:
    """What `source` held, after it was read as `format` and written to `target` as `to`, both of `FORMATS`.

    `options` are `images`, the folder of the frames, `categories`, the file that names them, and `kind`, the format
    among those of Datumaro; None is not given.

    Raises:
        InputError: something cannot be read or written, or an option is given that neither format takes.
    """
    reader, writer = FORMATS[format], FORMATS[to]
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in reader.read_options + writer.write_options:
            raise InputError(f"--{key} means nothing from {format} to {to}; leave it out")
    annotations = reader.read(source, **{key: given[key] for key in reader.read_options if key in given})
    writer.write(annotations, target, **{key: given[key] for key in writer.write_options if key in given})
    return annotations


def summary(annotations: Annotations) -> str:
    """One line: how many videos, frames, tracks, and of which classes."""
    frames = sum(len(video.file_names) for video in annotations.videos)
    tracks = sum(len(video.tracks) for video in annotations.videos)
    names = ", ".join(annotations.categories.values()) or "none"
    return f"{len(annotations.videos)} videos, {frames} frames, {tracks} tracks; classes: {names}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Gives `parser` the command's arguments."""
    parser.add_argument("format", choices=FORMATS, help="what the source is")
    parser.add_argument("source", help="file or folder to read")
    parser.add_argument("target", help="file to write (ytvis, coco), or new folder (labelme, davis, mots)")
    writable = [name for name, known in FORMATS.items() if known.write]
    parser.add_argument("--to", choices=writable, default="ytvis", help="what to write (default: %(default)s)")
    parser.add_argument("--images", metavar="DIR", help="folder of the frames")
    parser.add_argument(
        "--categories",
        metavar="FILE",
        help="davis: JSON with the category of each object; mots: text with the name of a class a line",
    )
    parser.add_argument("--kind", help="datumaro: which of its formats it is, e.g. mots (default: as it recognises)")


def run(options: argparse.Namespace) -> int:
    """Converts what the options say; returns the exit code."""
    annotations = convert(
        options.format,
        options.source,
        options.target,
        options.to,
        images=options.images,
        categories=options.categories,
        kind=options.kind,
    )
    print(f"{options.target}: {summary(annotations)}")
    return 0
