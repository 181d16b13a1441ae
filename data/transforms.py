"""From a picture to the network's input: resize, normalise, pad; the same for evaluation and for live video."""

from typing import Self

import cv2
import numpy as np
import torch
from torch import Tensor

from data.config import Config


class FrameTransform:
    """Turns frames into network input; the same sizes for every frame, whatever the frame's own.

    `size_hw` is the (height, width) a frame is resized to, `padded_hw` the network input: `size_hw` rounded up to
    multiples of `size_divisor`. `mean` and `std` are RGB, for values 0…255.
    """

    def __init__(
        self,
        size_hw: tuple[int, int],
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        size_divisor: int,
    ):
        height, width = size_hw
        self.size_hw = (height, width)
        self.padded_hw = (-(-height // size_divisor) * size_divisor, -(-width // size_divisor) * size_divisor)
        self._mean = torch.tensor(mean, dtype=torch.float32).view(3, 1, 1)
        self._std = torch.tensor(std, dtype=torch.float32).view(3, 1, 1)

    @classmethod
    def from_config(cls, cfg: Config) -> Self:
        """The transform of `cfg.input`."""
        return cls(cfg.input.size_hw, cfg.input.mean, cfg.input.std, cfg.input.size_divisor)

    def __call__(self, frame: np.ndarray) -> tuple[Tensor, tuple[int, int], tuple[int, int]]:
        """(image [3,H,W] float32, resized (height, width), padded (H, W)) of a frame [h,w,3] uint8 RGB.

        The frame is resized bilinearly, its aspect ratio not kept; what is padded, right and below, is 0, the mean
        colour.

        Raises:
            ValueError: `frame` is not [h,w,3] uint8 with at least one pixel.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
            raise ValueError(f"a frame must be [h,w,3] uint8, not {list(frame.shape)} {frame.dtype}")
        height, width = self.size_hw
        # Resized before it becomes float: the published weights saw pixels rounded to whole numbers.
        resized = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
        image = torch.zeros(3, *self.padded_hw)
        inside = image[:, :height, :width]
        torch.sub(torch.from_numpy(resized).permute(2, 0, 1), self._mean, out=inside)
        inside.div_(self._std)  # divided, not multiplied by the reciprocal: that differs in the last bit
        return image, self.size_hw, self.padded_hw
