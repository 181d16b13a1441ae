r"""Draws a contact sheet of a data set: a row a video, with the masks, boxes and class names of its annotations.

    python -m ytvis browse annotations/train.json --images train/JPEGImages --output sheet.png
    python -m ytvis browse annotations/train.json --images train/JPEGImages --output sheet.png \
        --videos 3,17 --columns 10

Without --videos it shows the first eight. An object keeps its colour over the frames of its video.
"""

import argparse
import colorsys
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks, make_grid

from data.dataset import FrameAnnotations, YTVISDataset
from ytvis.annotations import Video, frame_path, read_class_names
from ytvis.files import InputError, atomic_write
from ytvis.pictures import read_picture

DEFAULT_VIDEOS = 8
TILE_WIDTH = 320  # pixels
LINE_HEIGHT = 16


def draw_sheet(
    ann_file: str | os.PathLike,
    image_root: str | os.PathLike,
    video_ids: Sequence[int] | None = None,
    columns: int = 6,
) -> np.ndarray:
    """The sheet [h,w,3] uint8 RGB: a row for each of `video_ids` (default: the first eight videos of the file), with
    `columns` frames spread evenly over those of the video that have annotations, or over all if none has.

    Raises:
        InputError: a file cannot be used, or there is no such video.
    """
    names = read_class_names(ann_file)
    dataset = YTVISDataset(ann_file, image_root, names)
    videos = {video.video_id: video for video in dataset.videos}
    video_ids = list(videos)[:DEFAULT_VIDEOS] if video_ids is None else video_ids
    unknown = [video_id for video_id in video_ids if video_id not in videos]
    if unknown:
        raise InputError(
            f"{ann_file}: there is no video {unknown[0]}; it has {', '.join(map(str, list(videos)[:10]))}, …"
        )
    rows = [_draw_row(dataset, videos[video_id], names, columns) for video_id in video_ids]
    return torch.cat(rows, dim=1).permute(1, 2, 0).numpy()


def _draw_row(dataset: YTVISDataset, video: Video, names: Sequence[str], columns: int) -> Tensor:
    """A row [3,h,w] uint8 of `columns` tiles; they stay black behind the last frame of the video."""
    frames = dataset.annotated_frames(video.video_id) or range(len(video))
    places = np.linspace(0, len(frames) - 1, min(columns, len(frames))).round().astype(int).tolist()
    colours = {track.annotation_id: _colour(number) for number, track in enumerate(dataset.annotations(video.video_id))}
    tiles = []
    for frame_index in (frames[place] for place in places):
        path = frame_path(dataset.image_root, video.file_names[frame_index])
        frame = read_picture(path, (video.height, video.width))
        annotations = dataset.frame_annotations(video.video_id, frame_index, skip_unusable=True)
        tile = draw_annotations(frame, annotations, names, [colours[i] for i in annotations.instance_ids.tolist()])
        captioned = np.pad(tile, ((LINE_HEIGHT, 0), (0, 0), (0, 0)))
        _write(captioned, f"video {video.video_id}, frame {frame_index} of {len(video)}", 0, 0)
        tiles.append(torch.from_numpy(captioned).permute(2, 0, 1))
    tiles += [torch.zeros_like(tiles[0])] * (columns - len(tiles))
    return make_grid(tiles, nrow=columns, padding=2)


def draw_annotations(
    frame: np.ndarray, annotations: FrameAnnotations, names: Sequence[str], colours: Sequence[tuple[int, int, int]]
) -> np.ndarray:
    """The frame [h,w,3] uint8 RGB, resized to the width of a tile, with what it shows drawn; a colour an object.

    `names[label - 1]` is written on the box of an object.
    """
    scale = TILE_WIDTH / frame.shape[1]
    size = [max(1, round(frame.shape[0] * scale)), TILE_WIDTH]
    picture = transforms.resize(torch.from_numpy(frame).permute(2, 0, 1), size, antialias=True)
    # A box that lies outside is the checker's business, not a reason to stop here.
    boxes = annotations.boxes_px * scale
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, size[1] - 1)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, size[0] - 1)
    if len(annotations):
        masks = annotations.masks[:, None].to(torch.uint8)
        masks = transforms.resize(masks, size, transforms.InterpolationMode.NEAREST)[:, 0].bool()
        picture = draw_segmentation_masks(picture, masks, alpha=0.5, colors=list(colours))
        picture = draw_bounding_boxes(picture, boxes, colors=list(colours))
    drawn = picture.permute(1, 2, 0).contiguous().numpy()
    for (left, top, _, _), label in zip(boxes.int().tolist(), annotations.labels.tolist(), strict=True):
        _write(drawn, names[label - 1], left, top)
    return drawn


def _write(picture: np.ndarray, text: str, left: int, top: int) -> None:
    """Writes a line of text into `picture`, white with a black rim, to be read on any ground."""
    black, white = (0, 0, 0), (255, 255, 255)
    for right, down, colour in ((-1, 0, black), (1, 0, black), (0, -1, black), (0, 1, black), (0, 0, white)):
        place = (left + 3 + right, top + LINE_HEIGHT - 4 + down)
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)


def _colour(number: int) -> tuple[int, int, int]:
    """A colour r g b, far from those of the numbers before: each takes the golden section of the hues left."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.8, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Gives `parser` the command's arguments."""
    parser.add_argument("ann_file", help="annotation file, YouTube-VIS or COCO format")
    parser.add_argument("--images", metavar="DIR", required=True, help="folder that the file_names are relative to")
    parser.add_argument("--output", metavar="FILE", required=True, help="picture to write, .png or .jpg")
    parser.add_argument("--videos", metavar="ID,ID,…", type=_ids, help="ids of the videos to show")
    parser.add_argument("--columns", metavar="N", type=_positive, default=6, help="frames a video (default: 6)")


def run(options: argparse.Namespace) -> int:
    """Writes the sheet; returns the exit code."""
    sheet = draw_sheet(options.ann_file, options.images, options.videos, options.columns)
    _write_picture(sheet, Path(options.output))
    print(f"{options.output}: {sheet.shape[1]}×{sheet.shape[0]} pixels")
    return 0


def _write_picture(picture: np.ndarray, path: Path) -> None:
    """Writes a picture [h,w,3] uint8 RGB in the format its name ends with."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"{path}: must end with .png or .jpg")
    _, encoded = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    with atomic_write(path, "wb") as file:
        file.write(encoded)


def _ids(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)
