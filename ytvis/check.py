"""Checks an annotation file in the YouTube-VIS or COCO format, and the frames it names, before training on it.

    python -m ytvis check data/mine/annotations/train.json --images data/mine/train/JPEGImages
    python -m ytvis check data/mine/annotations/train.json --no_images

Every fault is one line with its place; the same fault many times is one line with the first place. An image of a COCO
file counts as a video of one frame. Exit codes: 0 no faults (perhaps warnings), 1 faults, 2 unusable.
"""

import argparse
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ytvis.annotations import Video, read_annotations
from ytvis.diagnostics import Finding, Findings, Rule, exit_code, format_findings
from ytvis.files import InputError, natural_key
from ytvis.masks import mask_area, mask_boxes, to_rle
from ytvis.pictures import WrongSize, read_picture

BOX_TOLERANCE = 2.0  # pixels: tools disagree on whether a box ends on its last pixel or behind it, and they round
AREA_TOLERANCE = 0.1  # the area of a polygon is not quite that of its pixels

_TAKEN_TWICE = "give each its own"
_ONE_A_FRAME = "write one entry a frame of the video, null where the object is not seen"
_SEE_FORMAT = "docs/data.md says what the format holds"

NOT_AN_OBJECT = Rule("fault", "an entry is no object", _SEE_FORMAT)
SAME_VIDEO = Rule("fault", "a video id is there twice", _TAKEN_TWICE)
NO_SIZE = Rule("fault", "width and height are not over 0", "write the size of the frames in pixels")
NO_FRAMES = Rule("fault", "'file_names' is no list of at least one name", "name the frames in their order")
OTHER_LENGTH = Rule("fault", "'length' is not the number of file_names", "correct 'length', or complete file_names")
FRAME_ORDER = Rule("warning", "frames are not in the order of their numbers", "check that file_names is in time order")
SAME_FRAME = Rule("warning", "a frame is named twice in a video", "name each frame once")
SAME_CATEGORY = Rule("fault", "a category id is there twice", _TAKEN_TWICE)
NO_NAME = Rule("fault", "a category has an empty name", "name it: class names are taken from here")
SAME_NAME = Rule("warning", "two categories have the same name", _TAKEN_TWICE)
NO_ANNOTATIONS = Rule("warning", "there is no list 'annotations'", "without it nothing can be trained or scored")
SAME_ANNOTATION = Rule("fault", "an annotation id is there twice", _TAKEN_TWICE)
UNKNOWN_VIDEO = Rule("fault", "an annotation is of a video that is not there", "add the video or remove the annotation")
UNKNOWN_CATEGORY = Rule("fault", "an annotation has a category that is not there", "add the category or correct the id")
WRONG_LENGTH = Rule("fault", "a list is not as long as its video", _ONE_A_FRAME)
NO_SEGMENTATIONS = Rule("fault", "an annotation lacks 'segmentations'", _ONE_A_FRAME)
NO_AREAS = Rule("fault", "an annotation lacks 'areas'", "write the pixels of each mask: scoring needs them")
NO_BOXES = Rule("warning", "an annotation lacks 'bboxes'", "nothing to do: boxes are taken from the masks")
EMPTY_TRACK = Rule("fault", "a track is never seen", "remove it")
EMPTY_MASK = Rule("warning", "a mask has no pixels", "write null where the object is not seen")
UNREADABLE_MASK = Rule("fault", "a segmentation cannot be used", "write polygons or RLE [height, width] of the video")
NO_BOX = Rule("fault", "a box is not x, y, width, height", "write four numbers in pixels, or null")
BOX_ALONE = Rule("warning", "a box has no mask", "it is ignored: write its mask, or null for the box")
SMALL_BOX = Rule("warning", "a box is less than a pixel wide or high", "the object is left out there: correct the box")
BOX_OUTSIDE = Rule("fault", "a box reaches out of the frame", "boxes are x, y, width, height in pixels of the frame")
BOX_NOT_MASK = Rule("fault", "a box does not match its mask", "boxes are x, y, width, height around the mask")
AREA_NOT_MASK = Rule("warning", "an area does not match its mask", "areas are the pixels of each mask")
NOT_SEEN = Rule("warning", "a video has no annotations", "annotate it, or leave it out of the file")
NO_IMAGE = Rule("fault", "an image file is missing", "check --images and the file_names")
UNREADABLE_IMAGE = Rule("fault", "an image cannot be decoded", "write it anew")
IMAGE_SIZE = Rule("fault", "an image is not of its video's size", "correct width and height, or resize the image")


@dataclass
class Summary:
    """What a file holds, as far as it can be used; `per_class` counts the tracks, classes without any included."""

    videos: int = 0
    frames: int = 0
    tracks: int = 0
    masks: int = 0
    per_class: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        classes = ", ".join(f"{name} {count}" for name, count in self.per_class.items())
        return (
            f"{self.videos} videos, {self.frames} frames, {self.tracks} tracks, {self.masks} masks\n"
            f"tracks of {len(self.per_class)} classes: {classes or 'none'}"
        )


def examine_annotations(
    ann_file: str | os.PathLike,
    image_root: str | os.PathLike | None = None,
    *,
    decode: bool = True,
    progress: bool = False,
) -> tuple[list[Finding], Summary]:
    """(What is wrong with an annotation file, what it holds); with `image_root` the frames are looked at, too.

    Without `decode` frames only have to be there. `progress` shows a bar on the error stream.

    Raises:
        InputError: the file cannot be read, holds no videos or no categories, or there is no such folder.
    """
    if image_root is not None and not Path(image_root).is_dir():
        raise InputError(f"{image_root}: no such folder of frames")
    content = read_annotations(ann_file)
    findings = Findings()
    summary = Summary()
    videos = read_videos(content, ann_file, findings)
    categories = read_categories(content, ann_file, findings)
    _examine_tracks(content, videos, categories, findings, summary)
    if image_root is not None:
        usable = [video for video in videos.values() if video is not None]
        _examine_images(usable, Path(image_root), decode, progress, findings)
    return list(findings), summary


def class_names(ann_file: str | os.PathLike) -> tuple[str, ...]:
    """The names of an annotation file's categories in the order of their ids.

    Raises:
        InputError: the file cannot be read, or its categories have faults.
    """
    findings = Findings()
    categories = read_categories(read_annotations(ann_file), ann_file, findings)
    for finding in findings:
        raise InputError(f"{ann_file}: {finding.where}: {finding.what}; {finding.mend}")
    return tuple(categories.values())


# ---------------------------------------------------------------------------------------------------- the file


def read_videos(content: Mapping, path: str | os.PathLike, findings: Findings) -> dict[int, Video | None]:
    """{video id: the video, or None if it cannot be used}, in the file's order; what is wrong goes to `findings`.

    Raises:
        InputError: there is no list of videos, or it is empty.
    """
    videos: dict[int, Video | None] = {}
    for where, entry in _entries(content, "videos", "video", path, findings):
        video_id = _field(entry, "id", int, where, findings)
        if video_id is None:
            continue
        where = f"video {video_id}"
        if video_id in videos:
            findings.add(SAME_VIDEO, where)
        else:
            videos[video_id] = _video(entry, video_id, where, findings)
    return videos


def read_categories(content: Mapping, path: str | os.PathLike, findings: Findings) -> dict[int, str]:
    """{category id: name}, ids ascending; what is wrong goes to `findings`.

    Raises:
        InputError: there is no list of categories, or it is empty.
    """
    categories: dict[int, str] = {}
    for where, entry in _entries(content, "categories", "category", path, findings):
        category_id = _field(entry, "id", int, where, findings)
        if category_id is None:
            continue
        where = f"category {category_id}"
        name = _field(entry, "name", str, where, findings)
        if category_id in categories:
            findings.add(SAME_CATEGORY, where)
            continue
        if name is not None and not name.strip():
            findings.add(NO_NAME, where)
        elif name in categories.values():
            findings.add(SAME_NAME, where, name)
        categories[category_id] = name or f"category {category_id}"
    return dict(sorted(categories.items()))


def _entries(
    content: Mapping, key: str, noun: str, path: str | os.PathLike, findings: Findings
) -> Iterator[tuple[str, dict]]:
    """(place, entry) of the objects in the list `key`."""
    entries = content.get(key)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: {key!r} must be a list of at least one entry")
    for position, entry in enumerate(entries):
        where = f"{noun} number {position + 1}"
        if isinstance(entry, dict):
            yield where, entry
        else:
            findings.add(NOT_AN_OBJECT, where, str(entry))


def _field(entry: Mapping, key: str, kind: type, where: str, findings: Findings) -> Any | None:
    """`entry[key]`, or None where it is missing or of another type. The place begins with what the entry is."""
    value = entry.get(key)
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    noun = where.split()[0]
    kind_name = {int: "an integer", str: "text", list: "a list"}[kind]
    if key in entry:
        findings.add(Rule("fault", f"{noun} with {key!r} that is not {kind_name}", _SEE_FORMAT), where, str(value))
    else:
        findings.add(Rule("fault", f"{noun} without {key!r}, {kind_name}", _SEE_FORMAT), where)
    return None


def _video(entry: Mapping, video_id: int, where: str, findings: Findings) -> Video | None:
    """The video of an entry, None if it cannot be used."""
    width, height = (_field(entry, key, int, where, findings) for key in ("width", "height"))
    file_names = _field(entry, "file_names", list, where, findings)
    if None in (width, height, file_names):
        return None
    if not file_names or not all(isinstance(name, str) and name for name in file_names):
        findings.add(NO_FRAMES, where, str(file_names))
        return None
    if min(width, height) <= 0:
        findings.add(NO_SIZE, where, f"{width}×{height}")
        return None
    if entry.get("length", len(file_names)) != len(file_names):
        findings.add(OTHER_LENGTH, where, f"{entry['length']}, not {len(file_names)}")
    if len(set(file_names)) < len(file_names):
        findings.add(SAME_FRAME, where, Counter(file_names).most_common(1)[0][0])
    for before, after in pairwise(file_names):
        if natural_key(before) > natural_key(after):
            findings.add(FRAME_ORDER, where, f"{before} before {after}")
            break
    return Video(video_id, width, height, tuple(file_names))


# ---------------------------------------------------------------------------------------------------- the tracks


def _examine_tracks(
    content: Mapping,
    videos: Mapping[int, Video | None],
    categories: Mapping[int, str],
    findings: Findings,
    summary: Summary,
) -> None:
    """Looks into every annotation, and counts."""
    usable = [video for video in videos.values() if video is not None]
    summary.videos, summary.frames = len(usable), sum(map(len, usable))
    summary.per_class = dict.fromkeys(categories.values(), 0)
    annotations = content.get("annotations")
    if not isinstance(annotations, list):
        findings.add(NO_ANNOTATIONS, "the file")
        return
    seen_ids, seen_videos = set(), set()
    for position, entry in enumerate(annotations):
        where = f"annotation number {position + 1}"
        if not isinstance(entry, dict):
            findings.add(NOT_AN_OBJECT, where, str(entry))
            continue
        annotation_id = _field(entry, "id", int, where, findings)
        if annotation_id is not None:
            where = f"annotation {annotation_id}"
            if annotation_id in seen_ids:
                findings.add(SAME_ANNOTATION, where)
            seen_ids.add(annotation_id)
        video_id = _field(entry, "video_id", int, where, findings)
        category_id = _field(entry, "category_id", int, where, findings)
        seen_videos.add(video_id)
        if video_id is not None and video_id not in videos:
            findings.add(UNKNOWN_VIDEO, where, str(video_id))
        if category_id is not None and category_id not in categories:
            findings.add(UNKNOWN_CATEGORY, where, str(category_id))
        if videos.get(video_id) is not None:
            masks = _examine_track(entry, videos[video_id], where, findings)
            if masks and category_id in categories:
                summary.tracks += 1
                summary.masks += masks
                summary.per_class[categories[category_id]] += 1
    for video_id in videos:
        if video_id not in seen_videos:
            findings.add(NOT_SEEN, f"video {video_id}")


def _examine_track(entry: Mapping, video: Video, where: str, findings: Findings) -> int:
    """The number of frames in which a track is seen."""
    segmentations = _per_frame(entry, "segmentations", NO_SEGMENTATIONS, video, where, findings)
    if segmentations is None:
        return 0
    nothing = [None] * len(video)
    boxes = _per_frame(entry, "bboxes", NO_BOXES, video, where, findings) or nothing
    areas = _per_frame(entry, "areas", NO_AREAS, video, where, findings) or nothing
    seen = 0
    for frame_index, (segmentation, box, area) in enumerate(zip(segmentations, boxes, areas, strict=True)):
        frame = f"{where}, frame {frame_index}"
        try:
            rle = to_rle(segmentation, video.height, video.width)
        except InputError as error:
            findings.add(UNREADABLE_MASK, frame, str(error))
            seen += 1  # something is to be seen, though it is not known where
            continue
        pixels = mask_area(rle) if rle else 0
        seen += pixels > 0
        if segmentation and not pixels:
            findings.add(EMPTY_MASK, frame)
        _examine_box(box, rle if pixels else None, video, frame, findings)
        if pixels and _is_number(area) and abs(area - pixels) > max(AREA_TOLERANCE * pixels, 10):
            findings.add(AREA_NOT_MASK, frame, f"{area}, the mask has {pixels} pixels")
    if not seen:
        findings.add(EMPTY_TRACK, where)
    return seen


def _per_frame(entry: Mapping, key: str, if_missing: Rule, video: Video, where: str, findings: Findings) -> list | None:
    """A list of one entry a frame, or None."""
    values = entry.get(key)
    if not values:
        findings.add(if_missing, where)
        return None
    if not isinstance(values, list) or len(values) != len(video):
        length = len(values) if isinstance(values, list) else "no list"
        findings.add(WRONG_LENGTH, where, f"{key!r} {length}, frames {len(video)}")
        return None
    return values


def _examine_box(box: Any, rle: dict | None, video: Video, where: str, findings: Findings) -> None:
    """Looks at the box of one frame; `rle` is the mask there, None if there is none."""
    if box is None or box == []:
        return
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        findings.add(NO_BOX, where, str(box))
        return
    if rle is None:
        findings.add(BOX_ALONE, where, str(box))
        return
    x, y, width, height = box
    if min(width, height) < 1:
        findings.add(SMALL_BOX, where, str(box))
    if min(x, y) < -1 or x + width > video.width + 1 or y + height > video.height + 1:
        findings.add(BOX_OUTSIDE, where, f"{box} in {video.width}×{video.height}")
        return
    left, top, mask_width, mask_height = mask_boxes([rle])[0].tolist()
    sides = ((x, left), (y, top), (x + width, left + mask_width), (y + height, top + mask_height))
    if max(abs(ours - masks) for ours, masks in sides) > BOX_TOLERANCE:
        findings.add(
            BOX_NOT_MASK, where, f"{box}, the mask's is {[int(side) for side in (left, top, mask_width, mask_height)]}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


# ---------------------------------------------------------------------------------------------------- the frames


def _examine_images(
    videos: Sequence[Video], image_root: Path, decode: bool, progress: bool, findings: Findings
) -> None:
    """Looks for every frame, and decodes it if `decode`."""
    frames = [(video, name) for video in videos for name in video.file_names]

    def look(frame: tuple[Video, str]) -> tuple[Rule, str] | None:
        video, name = frame
        return _image_fault(image_root / name, video, decode)

    # Threads are enough: decoding leaves the interpreter to the others.
    with ThreadPool() as pool:
        faults = tqdm(pool.imap(look, frames, chunksize=16), "images", len(frames), unit="image", disable=not progress)
        for (video, name), fault in zip(frames, faults, strict=True):
            if fault is not None:
                rule, detail = fault
                findings.add(rule, f"video {video.video_id}, {name}", detail)


def _image_fault(path: Path, video: Video, decode: bool) -> tuple[Rule, str] | None:
    """(What is wrong with the file of a frame, details), None if nothing is."""
    if not path.is_file():
        return NO_IMAGE, str(path)
    if not decode:
        return None
    try:
        read_picture(path, (video.height, video.width))
    except InputError as error:
        return IMAGE_SIZE if isinstance(error, WrongSize) else UNREADABLE_IMAGE, str(error).removeprefix(f"{path}: ")
    return None


# ---------------------------------------------------------------------------------------------------- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Gives `parser` the command's arguments."""
    parser.add_argument("file", help="annotation file, YouTube-VIS or COCO format; with --ann_file a results file")
    parser.add_argument("--ann_file", metavar="FILE", help="the annotation file that the results are of")
    parser.add_argument("--images", metavar="DIR", help="folder that the file_names are relative to")
    parser.add_argument("--no_images", action="store_true", help="do not decode the images, only look for them")


def run(options: argparse.Namespace) -> int:
    """Prints what is wrong with the file, and what it holds; returns the exit code."""
    if options.ann_file is not None:
        from ytvis.check_results import examine_results

        findings = examine_results(options.ann_file, options.file)
        print(format_findings(findings))
        return exit_code(findings)
    findings, summary = examine_annotations(options.file, options.images, decode=not options.no_images, progress=True)
    print(format_findings(findings))
    print(summary)
    return exit_code(findings)
