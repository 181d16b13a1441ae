r"""Draws a contact sheet of a data set: a row for each video, with the masks, boxes and names of its annotations.

    python -m ytvis browse annotations/train.json --images train/JPEGImages --output sheet.png
    python -m ytvis browse annotations/train.json --images train/JPEGImages --output sheet.png \
        --videos 3,17 --columns 10

Without --videos the first eight are shown. An object keeps its number and colour over the frames of its video.
"""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ytvis.annotations import Track, Video, frame_path, read_annotations, read_masks
from ytvis.command_line import number_in
from ytvis.diagnostics import Diagnostics
from ytvis.drawing import PixelObjects, draw_caption, draw_objects
from ytvis.files import InputError, atomic_write, image_folder
from ytvis.pictures import read_picture

logger = logging.getLogger(__name__)

DEFAULT_VIDEOS = 8
TILE_WIDTH = 320  # pixels
HIGHEST_TILE = 2 * TILE_WIDTH  # of an upright video, which is as much narrower
MOST_COLUMNS = 100
MOST_JPEG_ROWS = 65500
LINE_HEIGHT = 16  # pixels of the caption above a tile
GAP = 2  # pixels around each tile
LONGEST_NAME = 20  # letters of a video's name in a caption


def draw_sheet(
    ann_file: str | os.PathLike,
    image_root: str | os.PathLike,
    video_ids: Sequence[int] | None = None,
    columns: int = 6,
) -> np.ndarray:
    """Returns the sheet [h,w,3] uint8 RGB: a row for each of `video_ids` (default: the first eight videos of the file).

    A row has `columns` tiles: frames spread evenly over those of the video that show an object, or over all if none
    does; the rest of the row stays black. Crowds are not drawn; segmentations that cannot be used are logged.

    Raises:
        InputError: a file cannot be used, or a video is not found.
    """
    image_root = image_folder(image_root)
    annotations = read_annotations(ann_file)
    videos, tracks = annotations.videos, annotations.of_video()
    video_ids = list(videos)[:DEFAULT_VIDEOS] if video_ids is None else video_ids
    unknown = [video_id for video_id in video_ids if video_id not in videos]
    if unknown:
        known = ", ".join(map(str, list(videos)[:10]))
        raise InputError(
            f"{ann_file}: video {unknown[0]} not found; the file has {known}{', …' if len(videos) > 10 else ''}"
        )
    found = Diagnostics()
    rows = []
    for video_id in video_ids:
        row = _Row(videos[video_id], [track for track in tracks[video_id] if not track.iscrowd], found)
        tiles = [row.draw(frame, image_root, annotations.categories) for frame in row.choose(columns)]
        tiles += [np.zeros_like(tiles[0])] * (columns - len(tiles))
        rows.append(np.concatenate(tiles, axis=1))
    for diagnostic in found:
        logger.warning("%s: %s", ann_file, diagnostic)
    return np.concatenate(rows)


class _Row:
    """A video of the sheet with its objects, which are numbered from 0."""

    def __init__(self, video: Video, tracks: Sequence[Track], found: Diagnostics):
        self.video = video
        self.tracks = tracks
        scale = min(TILE_WIDTH / video.width, HIGHEST_TILE / video.height)
        self.size = max(1, round(video.width * scale)), max(1, round(video.height * scale))
        self.masks = [
            [mask if area > 0 else None for mask, area in zip(*read_masks(track, video, found), strict=True)]
            for track in tracks
        ]

    def choose(self, count: int) -> list[int]:
        """At most `count` frames, spread evenly over those that show an object, or over all if none does."""
        length = len(self.video)
        frames = [frame for frame in range(length) if any(masks[frame] for masks in self.masks)] or range(length)
        places = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
        return [frames[place] for place in places]

    def draw(self, frame: int, image_root: Path, categories: dict[int, str]) -> np.ndarray:
        """A tile: the frame with its objects, under a caption, and with a gap around."""
        video, (width, height) = self.video, self.size
        path = frame_path(image_root, video.file_names[frame])
        picture = read_picture(path, (video.height, video.width))
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        category_ids = sorted({track.category_id for track in self.tracks})
        drawn = draw_objects(picture, self._objects(frame, category_ids), [categories[i] for i in category_ids])
        # Three dots, because the font of OpenCV 4 has ASCII alone.
        name = video.name if len(video.name) <= LONGEST_NAME else f"...{video.name[3 - LONGEST_NAME :]}"
        caption = f"{name} (video {video.video_id}), frame {frame} of {len(video)}"
        tile = np.zeros((LINE_HEIGHT + height, TILE_WIDTH, 3), np.uint8)
        draw_caption(tile[:LINE_HEIGHT], caption)
        tile[LINE_HEIGHT:, :width] = drawn
        return np.pad(tile, ((GAP, GAP), (GAP, GAP), (0, 0)))

    def _objects(self, frame: int, category_ids: list[int]) -> PixelObjects:
        """Returns the objects of a frame at the size of its tile; boxes are the file's, or else those of the masks."""
        shown = [number for number, masks in enumerate(self.masks) if masks[frame]]
        tracks = [self.tracks[number] for number in shown]
        return PixelObjects.from_rles(
            [self.masks[number][frame] for number in shown],
            [category_ids.index(track.category_id) + 1 for track in tracks],
            shown,
            self.size[::-1],
            boxes=[track.bboxes and track.bboxes[frame] for track in tracks],
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to `parser`."""
    parser.add_argument("ann_file", help="annotation file, YouTube-VIS or COCO format")
    parser.add_argument("--images", metavar="DIR", required=True, help="folder that the file_names are relative to")
    parser.add_argument("--output", metavar="FILE", required=True, help="picture to write, .png or .jpg")
    parser.add_argument("--videos", metavar="ID,ID,…", type=_ids, help="ids of the videos to show")
    parser.add_argument(
        "--columns", metavar="N", type=number_in(int, 1, MOST_COLUMNS), default=6, help="frames per video (default: 6)"
    )


def run(options: argparse.Namespace) -> int:
    """Writes the sheet; returns the exit code."""
    output = Path(options.output)
    if output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"{output}: must end with .png or .jpg")
    sheet = draw_sheet(options.ann_file, options.images, options.videos, options.columns)
    if output.suffix.lower() != ".png" and len(sheet) > MOST_JPEG_ROWS:
        raise InputError(
            f"{output}: the sheet has {len(sheet)} rows, too many for a JPEG; name a .png, or fewer videos"
        )
    _, encoded = cv2.imencode(output.suffix, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    with atomic_write(output, "wb") as file:
        file.write(encoded)
    print(f"{output}: {sheet.shape[1]}×{sheet.shape[0]} pixels")
    return 0


def _ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is not a list of numbers such as 3,17") from None
