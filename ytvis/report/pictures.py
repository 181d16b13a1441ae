"""Small pictures of frames, the truth beside the prediction, as data addresses."""

import base64
import logging
from collections.abc import Sequence

import cv2
import numpy as np

from ytvis.annotations import Track, resolve_frame
from ytvis.drawing import PixelObjects, truth_beside_prediction
from ytvis.files import InputError
from ytvis.pictures import read_picture
from ytvis.report.inputs import ReportInput
from ytvis.report.videos import VideoDetail

logger = logging.getLogger(__name__)

LONG_SIDE = 320  # pixels, of each half
LETTER_HEIGHT = 13  # pixels; the page shows a picture at about 0.6 of its size
JPEG_QUALITY = 82
GREY = 128


def draw_pictures(inputs: ReportInput, video: VideoDetail) -> list[str]:
    """A `data:image/jpeg` address for each of `video.frames`; the longer side of each half has LONG_SIDE pixels.

    A frame that cannot be read is grey.
    """
    category_ids = sorted({track.category_id for track in (*video.truths, *video.tracks)})
    names = [str(inputs.truth.cats[category_id]["name"]) for category_id in category_ids]
    size_hw = _thumbnail_size(inputs, video)
    addresses = []
    for frame in video.frames:
        truth, found = (
            _objects(tracks, numbers, frame, category_ids, size_hw)
            for tracks, numbers in ((video.truths, video.truth_numbers), (video.tracks, video.track_numbers))
        )
        pixels = _read_frame(inputs, video.video_id, frame, size_hw)
        addresses.append(_as_address(truth_beside_prediction(pixels, truth, found, names, LETTER_HEIGHT)))
    return addresses


def _thumbnail_size(inputs: ReportInput, video: VideoDetail) -> tuple[int, int]:
    """Height and width of a half, in the proportions of the video."""
    content = inputs.truth.vids[video.video_id]
    sizes = [mask["size"] for track in (*video.truths, *video.tracks) for mask in track.segmentations if mask]
    is_known = content.get("height") and content.get("width")
    height, width = (content["height"], content["width"]) if is_known else next(iter(sizes), (LONG_SIDE, LONG_SIDE))
    scale = LONG_SIDE / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _objects(
    tracks: Sequence[Track], numbers: Sequence[int], frame: int, category_ids: list[int], size_hw: tuple[int, int]
) -> PixelObjects:
    """The `tracks` of a frame at the size of the thumbnail; true ones have no scores."""
    shown = [(track, number) for track, number in zip(tracks, numbers, strict=True) if track.segmentations[frame]]
    scores = [track.score for track, _ in shown]
    return PixelObjects.from_rles(
        [track.segmentations[frame] for track, _ in shown],
        [category_ids.index(track.category_id) + 1 for track, _ in shown],
        [number for _, number in shown],
        size_hw,
        None if None in scores else scores,
    )


def _read_frame(inputs: ReportInput, video_id: int, frame: int, size_hw: tuple[int, int]) -> np.ndarray:
    """The pixels [h,w,3] uint8 RGB of a frame at `size_hw`, grey if they cannot be read.

    Reports are passed on to others, so a name that leads out of the folder of frames is not followed.
    """
    height, width = size_hw
    grey = np.full((height, width, 3), GREY, np.uint8)
    names = inputs.truth.vids[video_id].get("file_names") or []
    if inputs.image_root is None or frame >= len(names):
        return grey
    try:
        picture = read_picture(resolve_frame(inputs.image_root, names[frame]))
        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    except InputError as error:
        logger.warning("%s; the report shows its masks on grey", error)
        return grey


def _as_address(picture: np.ndarray) -> str:
    _, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    return "data:image/jpeg;base64," + base64.b64encode(encoded).decode("ascii")
