"""Parts of a data set: the labelled tenth of its train split, and lists of video ids in files.

The public valid sets come without labels. What can be scored by everyone is `valid_sub`, the last tenth of the videos
of the train split's annotation file, with `train_sub`, all before it, to train on.
"""

import argparse
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ytvis.files import InputError, atomic_write

SPLITS = ("train", "valid", "test", "train_sub", "valid_sub")


def base_split(split: str) -> str:
    """The split of the config (train, valid or test) whose annotation file `split` of `SPLITS` is taken from.

    Raises:
        InputError: `split` is none of `SPLITS`.
    """
    if split not in SPLITS:
        raise InputError(f"there is no split {split!r}; say one of {', '.join(SPLITS)}")
    return "train" if split in ("train_sub", "valid_sub") else split


def videos_of_split(split: str, video_ids: Sequence[int]) -> Sequence[int]:
    """Those of `video_ids`, all of a file in its order, that belong to `split`.

    valid_sub is the last tenth, rounded down, but at least one; train_sub is the rest, nothing of a single video; any
    other split is all of them.
    """
    first_valid = len(video_ids) - max(1, len(video_ids) // 10)
    if split == "valid_sub":
        return video_ids[first_valid:]
    return video_ids[:first_valid] if split == "train_sub" else video_ids


@dataclass(frozen=True)
class VideoChoice:
    """Which videos of an annotation file take part: those of `split`, of them those that the file `ids_file` lists, and
    of these the first `most`. Their ids are written to the file `write_to`, if that is given."""

    split: str = "valid"
    ids_file: str | os.PathLike | None = None
    most: int | None = None
    write_to: str | os.PathLike | None = None

    def of(self, video_ids: Sequence[int]) -> Sequence[int]:
        """The chosen ones of `video_ids`, those of the whole file.

        Raises:
            InputError: a list of ids cannot be read or written, or names a video that the file does not have.
        """
        chosen = videos_of_split(self.split, video_ids)
        if self.ids_file:
            chosen = read_video_ids(self.ids_file, chosen)
        chosen = chosen[: self.most]
        if self.write_to:
            write_video_ids(self.write_to, chosen)
        return chosen


def add_choice_arguments(parser: argparse.ArgumentParser) -> None:
    """Gives `parser` the options that make a `VideoChoice`."""
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="valid",
        help="train_sub, valid_sub: only the first nine tenths, or the last tenth, of the file's videos; "
        "anything else: all (default: valid)",
    )
    parser.add_argument("--video_ids", metavar="FILE", help="only the videos whose ids the file lists, one a line")
    parser.add_argument("--write_video_ids", metavar="FILE", help="write the ids of the videos, to be cited")
    parser.add_argument("--max_videos", type=_positive, metavar="N", help="only the first N videos")


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def subset_annotations(content: dict[str, Any], video_ids: Iterable[int]) -> dict[str, Any]:
    """The `content` of a YouTube-VIS-format file with only the videos `video_ids` and their annotations.

    The order stays the file's; `content` is not changed. No ids give no videos; no annotations stay none.

    Raises:
        InputError: `content` has no video of such an id, or an entry that is no video or annotation.
    """
    wanted = set(video_ids)
    videos, tracks = content.get("videos") or [], content.get("annotations")
    try:
        subset = {**content, "videos": [video for video in videos if video["id"] in wanted]}
        if tracks is not None:
            subset["annotations"] = [track for track in tracks if track and track["video_id"] in wanted]
    except (KeyError, TypeError):
        raise InputError(
            "the annotations must have 'videos' with an 'id' and 'annotations' with a 'video_id'"
        ) from None
    unknown = wanted - {video["id"] for video in subset["videos"]}
    if unknown:
        raise InputError(f"the annotations have no video {min(unknown)}")
    return subset


def write_video_ids(path: str | os.PathLike, video_ids: Iterable[int]) -> None:
    """Writes `video_ids` as text, one a line, as `read_video_ids` takes them."""
    with atomic_write(path) as file:
        file.writelines(f"{video_id}\n" for video_id in video_ids)


def read_video_ids(path: str | os.PathLike, known: Collection[int] | None = None) -> tuple[int, ...]:
    """The ids of a text file with one a line, in its order; what follows a # is a comment, blank lines are skipped.

    Raises:
        InputError: the file is missing or holds no id, or a line is no id, one that was there before, or none of
            `known`, if given.
    """
    path = Path(path)
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is no text; it must hold one video id a line") from None
    first_lines: dict[int, int] = {}
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        where = f"{path}, line {number}"
        if not re.fullmatch("-?[0-9]+", text):
            raise InputError(f"{where}: {text[:80]!r} is no video id; there must be one whole number a line")
        video_id = int(text)
        if video_id in first_lines:
            raise InputError(f"{where}: video {video_id} is there twice, first in line {first_lines[video_id]}")
        if known is not None and video_id not in known:
            raise InputError(f"{where}: there is no video {video_id} in the data set")
        first_lines[video_id] = number
    if not first_lines:
        raise InputError(f"{path}: holds no video id")
    return tuple(first_lines)
