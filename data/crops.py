"""Crops of single objects, for training the backbone to tell the classes apart.

    crops = CropDataset.from_config(cfg, YTVISDataset.from_config(cfg, "train"))
    batch = collate_crops([crops[key] for key in keys])          # keys are those of a `ClipSampler`

A crop is much smaller than a frame of a clip: without weights to start from, a backbone learns the classes from crops
many times as fast.
"""

from collections.abc import Sequence
from typing import Self

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms import v2

from data.clips import SampleKey
from data.config import Config
from data.dataset import YTVISDataset
from utils.structures import CropBatch
from ytvis.annotations import frame_path
from ytvis.pictures import read_picture

GROUND = 0  # the label of a crop that shows no object
CROP_SIDE = 48  # pixels; an object fills most of its width
SURROUNDINGS = (1.1, 1.7)  # the side of the square that is cut out, in longer sides of the object's box
MAX_OFFSET = 0.15  # greatest offset of the object from the middle, in sides of the square
GROUND_TRIES = 10


class CropDataset(Dataset[CropBatch]):
    """The crops of each annotated frame; its length is the number of frames that show something.

    A frame gives one crop of each of its objects and, where there is room, one of the background. A crop is a square
    around the object, randomly moved and scaled, resized to `CROP_SIDE` pixels; the crops of a frame are flipped, and
    their colours changed, together.
    """

    def __init__(
        self,
        dataset: YTVISDataset,
        mean: Sequence[float],
        std: Sequence[float],
        flip_probability: float = 0.5,
    ):
        """`mean` and `std` are RGB, for values 0…255.

        Raises:
            InputError: no frame has a valid annotation.
        """
        self.dataset = dataset
        self._frames = [(video, frame_index) for video, frames in dataset.key_frames() for frame_index in frames]
        self._augment = v2.Compose(
            [
                v2.RandomHorizontalFlip(flip_probability),
                v2.RandomPhotometricDistort(p=0.8),
                v2.RandomChannelPermutation(),
                v2.ToDtype(torch.float32),
                v2.Normalize(list(mean), list(std)),
            ]
        )

    @classmethod
    def from_config(cls, cfg: Config, dataset: YTVISDataset) -> Self:
        """The crops of `dataset`, normalised as in `cfg.input`.

        Raises:
            InputError: no frame has a valid annotation.
        """
        return cls(dataset, cfg.input.mean, cfg.input.std, cfg.train.flip_probability)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, key: SampleKey) -> CropBatch:
        """Returns the crops of a key's frame. They depend on the key alone; torch's generators are unchanged.

        Raises:
            IndexError: the index is out of range.
            InputError: the frame's file cannot be used.
        """
        video, frame_index = self._frames[key.index]
        frame = read_picture(
            frame_path(self.dataset.image_root, video.file_names[frame_index]), (video.height, video.width)
        )
        truth = self.dataset.frame_annotations(video.video_id, frame_index, skip_unusable=True)
        boxes, labels = truth.boxes_px.numpy(), truth.labels.tolist()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(key.seed)
            squares = [_square_about(box) for box in boxes]
            ground = _ground_square(boxes, frame.shape[:2], squares)
            if ground is not None:
                squares.append(ground)
                labels.append(GROUND)
            crops = [torch.from_numpy(_cut(frame, square)).permute(2, 0, 1) for square in squares]
            # All at once, with the same draws: for small pictures a call costs more than the work.
            images = self._augment(torch.stack(crops)) if crops else torch.zeros(0, 3, CROP_SIDE, CROP_SIDE)
        return CropBatch(images, torch.tensor(labels, dtype=torch.int64))


def collate_crops(parts: Sequence[CropBatch]) -> CropBatch:
    """Returns all crops of `parts`, at least one, as one batch."""
    return CropBatch.cat(list(parts))


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def _square_about(box: np.ndarray) -> tuple[float, float, float]:
    """Centre x, y and side in pixels of a random square around `box` x1 y1 x2 y2."""
    x1, y1, x2, y2 = box.tolist()
    side = max(x2 - x1 + 1, y2 - y1 + 1) * _uniform(*SURROUNDINGS)
    move_x, move_y = (side * _uniform(-MAX_OFFSET, MAX_OFFSET) for _ in "xy")
    return (x1 + x2) / 2 + move_x, (y1 + y2) / 2 + move_y, side


def _ground_square(
    boxes: np.ndarray, size_hw: tuple[int, int], squares: Sequence[tuple[float, float, float]]
) -> tuple[float, float, float] | None:
    """A square as large as one of `squares` whose middle is in no box of `boxes` [N,4]; None if none is found."""
    if not squares:
        return None
    side = squares[int(torch.randint(len(squares), ()))][2]
    for _ in range(GROUND_TRIES):
        x, y = _uniform(0, size_hw[1]), _uniform(0, size_hw[0])
        if not ((boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])).any():
            return x, y, side
    return None


def _cut(frame: np.ndarray, square: tuple[float, float, float]) -> np.ndarray:
    """The `square` (centre x, y, side) of a frame [h,w,3], as [CROP_SIDE,CROP_SIDE,3]; black outside the frame."""
    x, y, side = square
    scale = CROP_SIDE / side
    middle = (CROP_SIDE - 1) / 2
    matrix = np.array([[scale, 0, middle - scale * x], [0, scale, middle - scale * y]])
    if scale < 1:  # averaged first: sampling alone would skip pixels
        kernel = max(1, round(1 / scale))
        frame = cv2.blur(frame, (kernel, kernel))
    return cv2.warpAffine(frame, matrix, (CROP_SIDE, CROP_SIDE), flags=cv2.INTER_LINEAR)
