"""Assigns the pictures of a video to its frames.

A picture with a number in its name is the frame of that number; pictures without numbers are used in their order.
`bind_frames` decides between the two, logs its choice where both are possible, and refuses where neither fits.

Hidden files and folders are skipped, and so are those that systems leave behind (`._x`, `.DS_Store`, `__MACOSX`). Links
to folders are followed.
"""

import logging
import os
import re
from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from ytvis.files import InputError, list_folder, natural_key
from ytvis.pictures import list_pictures

logger = logging.getLogger(__name__)

LEFT_BEHIND = frozenset(("__MACOSX", "@eaDir", "$RECYCLE.BIN"))  # folders of macOS, Synology and Windows
PICTURE_FOLDERS = ("", "img1/", "images/")  # within a video's folder: plain, MOTSChallenge, CVAT and Datumaro
MOST_GUESSED_FRAMES = 200_000  # of a video without pictures at hand: over two hours at 25 frames a second


# ---------------------------------------------------------------------------------------------------- folders


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden or left behind by a system."""
    return name.startswith(".") or name in LEFT_BEHIND


def walk_folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """(folder, its files) of `root` and of all folders below it.

    Links to folders are followed, except upwards; a folder that several paths lead to is given once.

    Raises:
        InputError: a folder cannot be read.
    """
    real_root = Path(os.path.realpath(root))
    visited, above = set(), set(real_root.parents)
    folders, links = deque([root]), deque()
    while folders or links:
        folder = (folders or links).popleft()
        real = Path(os.path.realpath(folder))
        if real in visited or real in above:
            logger.warning("%s: skipped: it is a link to a folder that is already read, or to one above", folder)
            continue
        visited.add(real)
        files = []
        for name in sorted(list_folder(folder), key=natural_key):
            path = folder / name
            if is_hidden(name):
                continue
            if os.path.isdir(path):
                (links if os.path.islink(path) else folders).append(path)
            elif os.path.isfile(path):
                files.append(path)
        yield folder, files


def video_folders(source: str | os.PathLike, suffix: str, layout: Collection[str] = ()) -> list[tuple[str, list[Path]]]:
    """(video, files in natural order) of every folder in or below `source` with files of this suffix, in natural order.

    A video's name is its folder's path below `source`, without the folders of `layout`, which name a kind of content
    and not a video; if a video has such folders, its other folders are ignored. Files in `source` itself belong to a
    single video with the name of `source`.

    Raises:
        InputError: the folder or such files in it are not found, or such a file is beside folders that hold others.
    """
    source = Path(source)
    if not source.is_dir():
        raise InputError(f"{source}: no such folder")
    folders = {
        folder: found
        for folder, files in walk_folders(source)
        if (found := [path for path in files if path.suffix.lower() == suffix])
    }
    in_layout = {folder: files for folder, files in folders.items() if {*layout} & {*folder.relative_to(source).parts}}
    videos: dict[str, list[Path]] = {}
    for folder, found in (in_layout or folders).items():
        name = video_of_path(folder, source, layout)
        if name in videos:
            raise InputError(f"{found[0]}: is of the same video as {videos[name][0]}; give each video one folder")
        videos[name] = found
    if not videos:
        raise InputError(f"{source}: has no *{suffix}")
    at_top = [files[0] for files in videos.values() if files[0].parent == source]
    if at_top and len(videos) > 1:
        raise InputError(f"{at_top[0]}: is beside folders of videos; give it a folder of its own")
    return sorted(videos.items(), key=lambda item: natural_key(item[0]))


def video_of_path(path: Path, source: Path, layout: Collection[str] = ()) -> str:
    """The name of the video that `path`, in or below `source`, is of: see `video_folders`."""
    parts = [part for part in path.relative_to(source).parts if part not in layout]
    if parts:
        return "/".join(parts)
    parts = [part for part in Path(os.path.realpath(source)).parts if part not in layout]
    return parts[-1].strip("/") or "video"


def name_of_folder(folder: str, otherwise: str) -> str:
    """The name of a video whose frames are in `folder`: that, or `otherwise` if it is not valid for a folder."""
    parts = PurePosixPath(folder.strip("/")).parts
    return otherwise if not parts or ".." in parts else "/".join(parts)


def find_pictures(images: Path, video: str, is_only: bool, where: str) -> tuple[str, list[str]]:
    """(Prefix, names) of the pictures of a video: its frames are the files `images` / prefix + name.

    They are in <images>/<video>/, or in the img1/ or images/ of that folder. Those of a single video may be in `images`
    itself.

    Raises:
        InputError: no pictures are found; the message begins with `where`.
    """
    prefixes = [f"{video}/{inner}" for inner in PICTURE_FOLDERS] + [*PICTURE_FOLDERS] * is_only
    for prefix in prefixes:
        names = list_pictures(images / prefix)
        if names:
            return prefix, names
    places = ", ".join(str(images / prefix) for prefix in prefixes[:: len(PICTURE_FOLDERS)])
    raise InputError(f"{where}: no pictures found in {places}; set --images to the folder of the videos' folders")


# ---------------------------------------------------------------------------------------------------- frames by number


def number_columns(names: Sequence[str]) -> list[list[int]]:
    """Returns the possible numberings of files by their names, the most likely one first; [] without any.

    The names have to differ in their numbers alone. A numbering is the number at one place in all names, if it differs
    between all of them; the last place is the most likely one.
    """
    parts = [re.split("([0-9]{1,18})", PurePosixPath(name).stem.casefold()) for name in names]
    if len({tuple(part[::2]) for part in parts}) != 1:
        return []
    columns = zip(*(map(int, part[1::2]) for part in parts), strict=True)
    return [list(column) for column in columns if len(set(column)) == len(names)][::-1]


def frame_numbers(names: Sequence[str]) -> list[int]:
    """The numbers of frames: those in their names, or 0, 1, 2, … if the names have none."""
    return next(iter(number_columns(names)), list(range(len(names))))


def bind_frames(
    pictures: Sequence[str],
    annotated: Collection[int],
    expected: range | None,
    where: str,
    order: Literal["number", "text"] | None = None,
) -> dict[int, str]:
    """{frame number: picture} of the frames of a video, in their order.

    `pictures` are in natural order, and not empty. `annotated` are the numbers that have annotations. `expected`, not
    empty, are the numbers of the whole video if its source has them, and contain `annotated`; then only these are
    frames, otherwise all pictures. With `order` the numbers in names are ignored: pictures are used in this order,
    with numbers in their names sorted by value or as text.

    Raises:
        InputError: annotations would be assigned to wrong pictures, or to none; the message begins with `where`.
    """
    if order == "text":
        pictures = sorted(pictures)
    columns = [] if order else [dict(zip(column, pictures, strict=True)) for column in number_columns(pictures)]
    if expected is not None:
        return _bind_expected(pictures, columns, annotated, expected, where, is_sure=order is not None)
    return _bind_by_name(columns, annotated, where) or _bind_by_place(pictures, columns, annotated, where)


def _bind_by_name(columns: Sequence[dict[int, str]], annotated: Collection[int], where: str) -> dict[int, str] | None:
    fitting = [column for column in columns if all(number in column for number in annotated)]
    if not fitting:
        return None
    from_1 = 0 in fitting[0] and 1 in annotated and 0 not in annotated
    if len(fitting) > 1 or from_1:
        number = min(annotated, default=next(iter(fitting[0])))
        logger.warning("%s: frame %d is assigned to %s, by the number in its name", where, number, fitting[0][number])
    return fitting[0]


def _bind_by_place(
    pictures: Sequence[str], columns: Sequence[dict[int, str]], annotated: Collection[int], where: str
) -> dict[int, str]:
    first = int(0 not in annotated and len(pictures) in annotated)
    last = first + len(pictures) - 1
    has_gaps = columns and not any(max(column) - min(column) == len(pictures) - 1 for column in columns)
    if has_gaps or max(annotated, default=first) > last:
        known = columns[0] if columns else range(first, last + 1)
        stray = next(number for number in sorted(annotated) if number not in known)
        raise InputError(f"{where}: no picture of frame {stray} among the {len(pictures)}, {_first_and_last(pictures)}")
    logger.warning(
        "%s: frame %d is taken to be the first picture, %s: the names do not hold the frames' numbers",
        where,
        first,
        pictures[0],
    )
    return dict(enumerate(pictures, start=first))


def _bind_expected(
    pictures: Sequence[str],
    columns: Sequence[dict[int, str]],
    annotated: Collection[int],
    expected: range,
    where: str,
    is_sure: bool,
) -> dict[int, str]:
    """`bind_frames` with `expected`. `is_sure` is True if the user chose the order of `pictures`."""
    has_one_order = is_sure or list(pictures) == sorted(pictures)
    for column in columns:
        if len(expected) <= len(column) and all(number in column for number in expected):
            if len(column) > len(expected) or not has_one_order:
                logger.warning(
                    "%s: frames %s are taken to be the pictures with these numbers in their names, frame %d is %s (%d "
                    "others are left out); if another order of all pictures is theirs, pass --order",
                    where,
                    _span(expected),
                    expected[0],
                    column[expected[0]],
                    len(column) - len(expected),
                )
            return {number: column[number] for number in expected}
    if len(pictures) == len(expected):
        if not has_one_order:
            raise InputError(
                f"{where}: frames {_span(expected)} are not the numbers in the names of the pictures, whose order is "
                f"not certain: {sorted(pictures)[0]} … {sorted(pictures)[-1]} as text, {_first_and_last(pictures)} by "
                "number; pass --order text or --order number"
            )
        if columns:
            logger.warning(
                "%s: the pictures are taken in their order, frame %d is %s: they are as many as the frames, but the "
                "numbers in their names are others",
                where,
                expected[0],
                pictures[0],
            )
        return dict(zip(expected, pictures, strict=True))
    for column in columns:
        if all(number in column for number in annotated) and all(number in expected for number in column):
            logger.warning("%s: %d frames have no picture and are left out", where, len(expected) - len(column))
            return dict(sorted(column.items()))
    raise InputError(
        f"{where}: has {len(expected)} frames, {_span(expected)}, but there are {len(pictures)} pictures, "
        f"{_first_and_last(pictures)}: neither their numbers nor their count fit"
    )


def _span(numbers: range) -> str:
    step = f" in steps of {numbers.step}" if numbers.step > 1 else ""
    return f"{numbers[0]}…{numbers[-1]}{step}"


def _first_and_last(pictures: Sequence[str]) -> str:
    return " … ".join(dict.fromkeys((pictures[0], pictures[-1])))


# ---------------------------------------------------------------------------------------------------- frames by name


def bind_stems(images: Path | None, video: str, stems: Sequence[str], is_only: bool, where: str) -> list[str]:
    """The file names, relative to `images`, of the frames with these names without suffix.

    If no picture has such a name, they are matched by the numbers in both. Without `images`, <video>/<stem>.jpg is
    guessed.

    Raises:
        InputError: a frame has no picture, or two.
    """
    if images is None:
        return guess_file_names(video, stems)
    # The frames of all videos may be in one folder, if their names tell them apart.
    has_all = not is_only and {PurePosixPath(name).stem for name in list_pictures(images)}.issuperset(stems)
    prefix, pictures = find_pictures(images, video, is_only or has_all, where)
    by_stem: dict[str, list[str]] = {}
    for picture in pictures:
        by_stem.setdefault(PurePosixPath(picture).stem, []).append(picture)
    for stem in stems:
        if len(by_stem.get(stem, ())) > 1:
            found = " and ".join(by_stem[stem])
            raise InputError(f"{images / prefix}: has {found} for the same frame; keep one of them")
    missing = [stem for stem in stems if stem not in by_stem]
    if len(pictures) > len(stems) and (is_only or prefix):
        logger.warning("%s: %d pictures without a mask are left out", images / prefix, len(pictures) - len(stems))
    if not missing:
        return [prefix + by_stem[stem][0] for stem in stems]
    bound = bind_numbers(pictures, stems, where) if len(missing) == len(stems) else None
    if bound is None:
        raise InputError(f"{images / prefix}: has no picture {missing[0]}.jpg or the like")
    return [prefix + picture for picture in bound]


def bind_numbers(pictures: Sequence[str], stems: Sequence[str], where: str) -> list[str] | None:
    """The picture of each of the frames with these names, by the numbers in both; None where these do not fit."""
    numbers = next(iter(number_columns(stems)), None)
    columns = [dict(zip(column, pictures, strict=True)) for column in number_columns(pictures)]
    bound = numbers and _bind_by_name(columns, numbers, where)
    if not bound:
        return None
    logger.warning("%s: %s is taken to be of %s", where, stems[0], bound[numbers[0]])
    return [bound[number] for number in numbers]


def guess_file_names(video: str, stems: Sequence[str]) -> list[str]:
    """<video>/<stem>.jpg for each of `stems`; logs the guess."""
    logger.warning("%s/*: the names of the frames are guessed to end with .jpg; use --images to find them", video)
    return [f"{video}/{stem}.jpg" for stem in stems]


def guess_numbers(annotated: Collection[int], expected: range | None, where: str) -> range:
    """The frame numbers of a video without pictures: `expected`, or all from 0, or from 1 where 0 has no annotation.

    Raises:
        InputError: there would be more than `MOST_GUESSED_FRAMES`.
    """
    if expected is None:
        expected = range(min(1, min(annotated, default=0)), max(annotated, default=0) + 1)
    if len(expected) > MOST_GUESSED_FRAMES:
        raise InputError(
            f"{where}: frame {expected[-1]} is far from the first; pass --images, so that the pictures are the frames"
        )
    return expected


def warn_if_unrelated(file_names: Sequence[str], where: str) -> None:
    """Logs a warning if `file_names`, used as the frames of one video, do not differ in a number as such frames do."""
    if len(file_names) > 1 and not number_columns(file_names):
        logger.warning(
            "%s: the names of its %d pictures, %s, do not number the frames of one video, but are taken for such in "
            "natural order; put unrelated pictures into folders of their own",
            where,
            len(file_names),
            _first_and_last(file_names),
        )


def check_order(video: str, file_names: Sequence[str], format: str) -> list[str]:
    """Returns the names of frames without folder and suffix, for a format that identifies and orders frames by them.

    Raises:
        InputError: two are the same, or they are in another order.
    """
    stems = [PurePosixPath(name).stem for name in file_names]
    twice = [stem for stem, count in Counter(stems).items() if count > 1]
    if twice:
        raise InputError(f"video {video}: two of its frames are named {twice[0]}, which is one file's name")
    if stems != sorted(stems, key=natural_key):
        raise InputError(f"video {video}: its frames are not in the order of their names, which is that of {format}")
    return stems
