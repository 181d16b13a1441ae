"""Checks an annotation file in the YouTube-VIS or COCO format, and its frames, before training on it.

    python -m ytvis check data/mine/annotations/train.json --images data/mine/train/JPEGImages
    python -m ytvis check data/mine/annotations/train.json --images data/mine/train/JPEGImages --no_images
    python -m ytvis check results.json --ann_file data/mine/annotations/valid.json

Every fault is one line with its place; a repeated fault is one line with the first place. An image of a COCO file
counts as a video of one frame. Training, evaluation and scoring accept files without faults. Exit codes: 0 no faults
(perhaps warnings), 1 faults, 2 unusable.
"""

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path

from tqdm import tqdm

from ytvis.annotations import (
    AnnotationParser,
    Track,
    Video,
    box_fault,
    frame_path,
    read_content,
    read_masks,
)
from ytvis.diagnostics import Diagnostic, Diagnostics, Rule, exit_code, format_diagnostics
from ytvis.files import InputError, image_folder
from ytvis.masks import mask_boxes
from ytvis.messages import short_name
from ytvis.pictures import WrongSize, read_picture

AREA_TOLERANCE = 0.1  # the area of a polygon is not quite that of its pixels
MOST_CLASSES = 100  # whose tracks are listed

NO_ANNOTATIONS = Rule(
    "warning", "the file has no annotations", "use it to run a model; training and scoring need annotations"
)
NO_AREAS = Rule("warning", "an annotation lacks 'areas'", "nothing to do: areas are computed from the masks")
NO_BOXES = Rule("warning", "an annotation lacks 'bboxes'", "nothing to do: boxes are computed from the masks")
CROWD = Rule("warning", "an object is a crowd", "training leaves it out and scoring ignores it: check 'iscrowd'")
EMPTY_TRACK = Rule("warning", "a track is never visible", "remove it: in scoring it counts as missed")
EMPTY_MASK = Rule("warning", "a mask has no pixels", "write null where the object is not visible")
BOX_ALONE = Rule("warning", "a box has no mask", "it is ignored: write its mask, or null for the box")
AREA_NOT_MASK = Rule("warning", "an area does not match its mask", "write the number of pixels of each mask")
NOT_SEEN = Rule("warning", "a video has no annotations", "annotate it, or leave it out of the file")
NO_IMAGE = Rule("fault", "an image file is missing", "check --images and the file_names")
UNREADABLE_IMAGE = Rule("fault", "an image cannot be decoded", "write it again")
IMAGE_SIZE = Rule("fault", "an image differs in size from its video", "correct width and height, or resize the image")


@dataclass
class Summary:
    """Counts of the usable content of a file; `per_class` counts the tracks, classes without any included."""

    videos: int = 0
    frames: int = 0
    tracks: int = 0
    crowds: int = 0
    masks: int = 0
    per_class: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        used = {name: count for name, count in self.per_class.items() if count}
        listed = dict(Counter(used).most_common(MOST_CLASSES)) if len(used) > MOST_CLASSES else used
        classes = ", ".join(f"{short_name(name)} {count}" for name, count in used.items() if name in listed) or "none"
        rest = [f"{len(used) - len(listed)} more classes"] if len(used) > len(listed) else []
        rest += [f"{len(self.per_class) - len(used)} without a track"] if len(used) < len(self.per_class) else []
        crowds = f" ({self.crowds} of them crowds)" if self.crowds else ""
        return (
            f"{self.videos} videos, {self.frames} frames, {self.tracks} tracks{crowds}, {self.masks} masks\n"
            f"tracks of {len(used)} classes: {' and '.join([classes, *rest])}"
        )


def examine_annotations(
    ann_file: str | os.PathLike,
    image_root: str | os.PathLike | None = None,
    *,
    decode: bool = True,
    progress: bool = False,
) -> tuple[list[Diagnostic], Summary]:
    """Returns (the faults of an annotation file, counts of its content); with `image_root` also checks the frames.

    Without `decode` frames only have to exist. `progress` shows a bar on the error stream.

    Raises:
        InputError: the file cannot be read, has no videos or no categories, or the folder is not found.
    """
    folder = None if image_root is None else image_folder(image_root)
    found = Diagnostics()
    content = read_content(ann_file)
    parser = AnnotationParser(content, ann_file, found)
    videos = [video for video in parser.videos.values() if video is not None]
    summary = Summary(len(videos), sum(map(len, videos)), per_class=dict.fromkeys(parser.categories.values(), 0))
    if content.get("annotations") is None:
        found.add(NO_ANNOTATIONS, "the file")
    else:
        _examine_tracks(parser, found, summary)
    if folder is not None:
        _examine_images(videos, folder, decode, progress, found)
    return list(found), summary


# ---------------------------------------------------------------------------------------------------- the tracks


def _examine_tracks(parser: AnnotationParser, found: Diagnostics, summary: Summary) -> None:
    """Checks and counts every annotation."""
    annotated = set()
    for entry, track in parser.tracks():
        if isinstance(entry.get("video_id"), int):
            annotated.add(entry["video_id"])
        if track is None:
            continue
        masks = _examine_track(track, parser.videos[track.video_id], found)
        if masks:
            summary.tracks += 1
            summary.crowds += track.iscrowd
            summary.masks += masks
            summary.per_class[parser.categories[track.category_id]] += 1
    for video_id in parser.videos:
        if video_id not in annotated:
            found.add(NOT_SEEN, f"video {video_id}")


def _examine_track(track: Track, video: Video, found: Diagnostics) -> int:
    """Checks a track; returns the number of frames in which it is visible."""
    where = f"annotation {track.annotation_id}"
    masks, pixels = read_masks(track, video, found)
    boxes = mask_boxes(masks)
    if track.iscrowd:
        found.add(CROWD, where)
    if track.bboxes is None:
        found.add(NO_BOXES, where)
    if track.areas is None:
        found.add(NO_AREAS, where)
    for frame, (segmentation, area) in enumerate(zip(track.segmentations, pixels.tolist(), strict=True)):
        place = f"{where}, frame {frame}"
        if segmentation is not None and area == 0:
            found.add(EMPTY_MASK, place)
        box = track.bboxes and track.bboxes[frame]
        if box and area == 0:
            found.add(BOX_ALONE, place, box)
        elif box and area > 0:
            _examine_box(box, boxes[frame].tolist(), video, place, found)
        stated = track.areas and track.areas[frame]
        if area > 0 and stated is not None and abs(stated - area) > max(AREA_TOLERANCE * area, 10):
            found.add(AREA_NOT_MASK, place, f"{stated}, the mask has {area} pixels")
    if not pixels.any():
        found.add(EMPTY_TRACK, where)
    return int((pixels != 0).sum())  # an unusable mask shows that the object is visible, but not where


def _examine_box(box: list[float], mask_box: list[float], video: Video, where: str, found: Diagnostics) -> None:
    """Compares the box of one frame with that of its mask."""
    rule = box_fault(box, mask_box, video)
    if rule is not None:
        sides = [int(side) for side in mask_box]
        found.add(rule, where, f"{box}, the mask's is {sides}, the frame {video.width}×{video.height}")


# ---------------------------------------------------------------------------------------------------- the frames


def _examine_images(
    videos: Sequence[Video], image_root: Path, decode: bool, progress: bool, found: Diagnostics
) -> None:
    """Checks that every frame exists, and decodes it if `decode`."""
    frames = [(video, name) for video in videos for name in video.file_names]

    def look(frame: tuple[Video, str]) -> tuple[Rule, str] | None:
        video, name = frame
        try:
            path = frame_path(image_root, name)
        except InputError as error:
            return NO_IMAGE, str(error)
        return _image_fault(path, video, decode)

    # Threads are enough: decoding releases the interpreter's lock.
    with ThreadPool() as pool:
        faults = tqdm(pool.imap(look, frames, chunksize=16), "images", len(frames), unit="image", disable=not progress)
        for (video, name), fault in zip(frames, faults, strict=True):
            if fault is not None:
                rule, detail = fault
                found.add(rule, f"video {video.video_id}, {name}", detail)


def _image_fault(path: Path, video: Video, decode: bool) -> tuple[Rule, str] | None:
    """Returns (the fault of the file of a frame, details), or None."""
    if not os.path.isfile(path):
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
    """Adds the command's arguments to `parser`."""
    parser.add_argument("file", help="annotation file, YouTube-VIS or COCO format; with --ann_file a results file")
    parser.add_argument("--ann_file", metavar="FILE", help="annotation file of the results")
    parser.add_argument("--images", metavar="DIR", help="folder that the file_names are relative to")
    parser.add_argument(
        "--no_images", action="store_true", help="check only that the images exist, without decoding them"
    )


def run(options: argparse.Namespace) -> int:
    """Prints the faults and the content of the file; returns the exit code."""
    if options.ann_file is not None:
        from ytvis.check_results import examine_results

        found = examine_results(options.ann_file, options.file)
        print(format_diagnostics(found))
        return exit_code(found)
    found, summary = examine_annotations(options.file, options.images, decode=not options.no_images, progress=True)
    print(format_diagnostics(found))
    print(summary)
    return exit_code(found)
