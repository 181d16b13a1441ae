"""Masks of rectangles, encoded by pycocotools and so not by the code that the tests are of."""

import numpy as np
from pycocotools import mask as coco_mask


def rectangle(left: int, top: int, width: int, height: int, size_hw: tuple[int, int]) -> dict:
    """The RLE, with text for counts, of a filled rectangle in a frame of `size_hw`, of which it may be outside."""
    mask = np.zeros(size_hw, np.uint8, order="F")
    mask[top : top + height, left : left + width] = 1
    return {"size": list(size_hw), "counts": coco_mask.encode(mask)["counts"].decode()}
