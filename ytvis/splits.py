"""Divides the videos of an annotation file: a random part for validation, or the videos of a list.

    python -m ytvis split all.json --valid_fraction 0.1 --train train.json --valid valid.json
    python -m ytvis split all.json --video_ids mine.txt --output mine.json

A list holds one video id per line; a comment follows a #. With --write_ids a list is written beside each file. COCO
files stay COCO files; lists then hold the ids of images.

The public valid sets of YouTube-VIS and OVIS come without labels. For scores without them use the split valid_sub, the
last tenth of the videos of the train split's annotation file, and train on train_sub, the videos before it.
"""

import argparse
import os
import random
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ytvis.annotations import dump_content, kind_of, read_checked
from ytvis.command_line import number_in, positive, seed_number
from ytvis.files import InputError, atomic_write, atomic_writes, read_text

SPLITS = ("train", "valid", "test", "train_sub", "valid_sub")


def base_split(split: str) -> str:
    """The split of the config (train, valid or test) whose annotation file contains `split` of `SPLITS`.

    Raises:
        InputError: `split` is not in `SPLITS`.
    """
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
    return "train" if split in ("train_sub", "valid_sub") else split


def videos_of_split(split: str, video_ids: Sequence[int]) -> Sequence[int]:
    """The ids of `split` among `video_ids`, all ids of a file in its order.

    valid_sub is the last tenth, rounded down, but at least one; train_sub is the rest, empty for a single video; any
    other split has all of them.
    """
    first_valid = len(video_ids) - max(1, len(video_ids) // 10)
    if split == "valid_sub":
        return video_ids[first_valid:]
    return video_ids[:first_valid] if split == "train_sub" else video_ids


@dataclass(frozen=True)
class VideoChoice:
    """Selects videos of an annotation file: those of `split` that the file `ids_file` lists, and of these the first
    `most`. Their ids are written to the file `write_to`, if that is given."""

    split: str = "valid"
    ids_file: str | os.PathLike | None = None
    most: int | None = None
    write_to: str | os.PathLike | None = None

    def of(self, video_ids: Sequence[int]) -> Sequence[int]:
        """Returns the chosen ids among `video_ids`, those of the whole file.

        Raises:
            InputError: a list of ids cannot be read or written, or names a video that the file lacks.
        """
        chosen = videos_of_split(self.split, video_ids)
        if self.ids_file:
            chosen = read_video_ids(self.ids_file, chosen)
        chosen = chosen[: self.most]
        if self.write_to:
            write_video_ids(self.write_to, chosen)
        return chosen


def add_choice_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a `VideoChoice` to `parser`."""
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="valid",
        help="train_sub, valid_sub: only the first nine tenths, or the last tenth, of the file's videos; "
        "anything else: all (default: valid)",
    )
    parser.add_argument("--video_ids", metavar="FILE", help="only the videos with the ids in this file, one per line")
    parser.add_argument("--write_video_ids", metavar="FILE", help="write the ids of the videos to this file")
    parser.add_argument("--max_videos", type=positive, metavar="N", help="only the first N videos")


def subset_annotations(content: dict[str, Any], video_ids: Iterable[int]) -> dict[str, Any]:
    """The `content` of a YouTube-VIS or COCO file with only the videos or images `video_ids` and their annotations.

    The file's order is kept; `content` is not changed. No ids give no videos; missing annotations stay missing.

    Raises:
        InputError: `content` lacks a video, or has an entry that is not a video or annotation.
    """
    wanted = set(video_ids)
    kind = kind_of(content)
    key = "video_id" if kind == "videos" else "image_id"
    videos, tracks = content.get(kind) or [], content.get("annotations")
    try:
        subset = {**content, kind: [video for video in videos if video["id"] in wanted]}
        if tracks is not None:
            subset["annotations"] = [track for track in tracks if track and track[key] in wanted]
    except (KeyError, TypeError):
        raise InputError(
            "the annotations must have 'videos' with an 'id' and 'annotations' with a 'video_id'"
        ) from None
    unknown = wanted - {video["id"] for video in subset[kind]}
    if unknown:
        raise InputError(f"the annotations have no video {min(unknown)}")
    return subset


def write_video_ids(path: str | os.PathLike, video_ids: Iterable[int]) -> None:
    """Writes `video_ids` as text, one per line, for `read_video_ids`."""
    with atomic_write(path) as file:
        _dump_ids(video_ids, file)


def _dump_ids(video_ids: Iterable[int], file: IO[str]) -> None:
    file.writelines(f"{video_id}\n" for video_id in video_ids)


def read_video_ids(path: str | os.PathLike, known: Collection[int] | None = None) -> tuple[int, ...]:
    """Reads the ids of a text file with one per line, in its order; text after a # and blank lines are skipped.

    Raises:
        InputError: the file is missing or has no ids, or a line is not an id, repeats one, or is not in `known`, if
            given.
    """
    first_lines: dict[int, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        where = f"{path}, line {number}"
        if not re.fullmatch("-?[0-9]{1,19}", text):
            raise InputError(f"{where}: {text[:80]!r} is not a video id; write one whole number per line")
        video_id = int(text)
        if video_id in first_lines:
            raise InputError(f"{where}: video {video_id} is repeated, first in line {first_lines[video_id]}")
        if known is not None and video_id not in known:
            raise InputError(f"{where}: video {video_id} is not in the data set")
        first_lines[video_id] = number
    if not first_lines:
        raise InputError(f"{path}: has no video ids")
    return tuple(first_lines)


# ---------------------------------------------------------------------------------------------------- the command


def draw_videos(video_ids: Sequence[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Returns random (ids for training, ids for validation), both in the order of `video_ids`; the seed decides them.

    `fraction` is the part for validation; either part has at least one video.

    Raises:
        InputError: there are fewer than two videos.
    """
    if len(video_ids) < 2:
        raise InputError(f"{len(video_ids)} video cannot be divided; at least two are needed")
    count = min(max(1, round(fraction * len(video_ids))), len(video_ids) - 1)
    valid = set(random.Random(seed).sample(list(video_ids), count))
    return [i for i in video_ids if i not in valid], [i for i in video_ids if i in valid]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to `parser`."""
    parser.add_argument("file", metavar="FILE.json", help="annotation file, YouTube-VIS or COCO format")
    parser.add_argument("--train", metavar="OUT.json", help="file to write the training videos to")
    parser.add_argument("--valid", metavar="OUT.json", help="file to write the validation videos to")
    parser.add_argument(
        "--valid_fraction",
        metavar="PART",
        type=number_in(float, 0, 1),
        default=0.1,
        help="fraction of the videos for validation; each file has at least one video (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", metavar="N", type=seed_number, default=0, help="seed of the random draw (default: %(default)s)"
    )
    parser.add_argument(
        "--video_ids", metavar="LIST.txt", help="select the videos with the ids in this file, one per line"
    )
    parser.add_argument("--output", metavar="OUT.json", help="with --video_ids: file to write the selected videos to")
    parser.add_argument("--write_ids", action="store_true", help="write the ids beside each file, as OUT.txt")


def run(options: argparse.Namespace) -> int:
    """Writes the parts given by the options; returns the exit code."""
    if bool(options.video_ids) == bool(options.train or options.valid):
        raise InputError("pass --train=OUT.json and --valid=OUT.json, or --video_ids=LIST.txt and --output=OUT.json")
    if bool(options.train) != bool(options.valid) or bool(options.video_ids) != bool(options.output):
        raise InputError("--train and --valid go together, and so do --video_ids and --output")
    outputs = [Path(path) for path in (options.train, options.valid, options.output) if path]
    lists = [path.with_suffix(".txt") for path in outputs] if options.write_ids else []
    paths = [path for path in (*outputs, *lists, options.file, options.video_ids) if path]
    if len(set(map(os.path.realpath, paths))) < len(paths):
        raise InputError("the files to read and to write must be different")
    content, annotations = read_checked(options.file)
    video_ids = list(annotations.videos)
    if options.video_ids:
        chosen = set(read_video_ids(options.video_ids, annotations.videos.keys()))
        parts = [[video_id for video_id in video_ids if video_id in chosen]]
    else:
        parts = list(draw_videos(video_ids, options.valid_fraction, options.seed))
    with atomic_writes([*outputs, *lists]) as files:
        for file, part in zip(files, parts, strict=False):
            dump_content(subset_annotations(content, part), file)
        for file, part in zip(files[len(outputs) :], parts, strict=False):
            _dump_ids(part, file)
    for path, part in zip(outputs, parts, strict=True):
        print(f"{path}: {len(part)} of {len(video_ids)} {'images' if annotations.is_static else 'videos'}")
    return 0
