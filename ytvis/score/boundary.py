"""The boundary regions of masks, for the tube-boundary AP of HQ-YTVIS.

The boundary region of a mask is the mask less the mask eroded d times with a 3×3 square: its pixels at most d from its
edge. The outside of the frame counts as empty, so a mask has an edge there too. d is 0.02 of the frame's diagonal, in
whole pixels, at least 1. Sources: Cheng et al., "Boundary IoU", CVPR 2021; Ke et al., "Video Mask Transfiner for
High-Quality Video Instance Segmentation" (HQ-YTVIS), ECCV 2022.
"""

import math

import numpy as np

from ytvis.masks import decode_mask, encode_mask, mask_boxes

DILATION_RATIO = 0.02  # of the frame's diagonal


def boundary_width(height: int, width: int) -> int:
    """d of a frame of this size in pixels: the number of erosions."""
    return max(1, round(DILATION_RATIO * math.hypot(height, width)))


def boundary_mask(mask: dict | None) -> dict | None:
    """The boundary region of a compressed mask as a compressed mask of the same size; None for None.

    A mask without a pixel has an empty region. Only one frame is decoded at a time.
    """
    if mask is None:
        return None
    import cv2  # imported here because it is slow and only this score needs it

    height, width = mask["size"]
    x, y, box_width, box_height = (int(side) for side in mask_boxes([mask])[0])
    if not box_width or not box_height:
        return mask
    pixels = decode_mask(mask).view(np.uint8)  # [height, width], by columns
    region = pixels.T[x : x + box_width, y : y + box_height]  # [w, h], by rows, as OpenCV wants it
    side = 2 * boundary_width(height, width) + 1  # d erosions with a 3×3 square equal one with this square
    inside = cv2.erode(region, np.ones((side, side), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    region -= inside
    return encode_mask(pixels)
