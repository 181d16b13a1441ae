"""Two videos whose errors can be counted by hand.

The first has six frames of 64×48 pixels; "large" and "blob" are true objects, a blob only in frames 0…3:

    frame        0         1       2       3        4          5
    large        p0        p0      p0      missed   p1 (was p0) p1
    blob         p2, of the wrong class in all four frames
    false        p3

The second has one frame, whose picture is missing, and no tracks. The other results file has nothing but p0.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco_mask

WIDTH, HEIGHT, LENGTH = 64, 48, 6
EVIL_NAME = "<img src=x onerror=document.title='broken'>"  # must appear unchanged


@dataclass(frozen=True)
class SmallSet:
    images: Path
    ann_file: Path
    results: Path
    compare: Path


def rectangle(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask


def blob() -> np.ndarray:
    """A ragged mask with holes, in several pieces, that touches a border."""
    noise = cv2.GaussianBlur(np.random.default_rng(3).normal(size=(HEIGHT, WIDTH)), (0, 0), 2)
    return ((noise > 0.02) & (rectangle(30, 8, WIDTH, 34) > 0)).astype(np.uint8)


def encode(mask: np.ndarray) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def in_frames(mask: np.ndarray, frames) -> list[dict | None]:
    return [encode(mask) if frame in frames else None for frame in range(LENGTH)]


def frame_picture(frame: int) -> np.ndarray:
    """Blocks of colour [height, width, 3] BGR that differ from frame to frame."""
    blocks = np.random.default_rng(frame).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def write_small_set(folder: Path) -> SmallSet:
    """Writes the set under `folder`."""
    large, second = rectangle(4, 4, 24, 28), blob()
    names = [f"walk/{frame:05d}.png" for frame in range(LENGTH)]
    (folder / "frames" / "walk").mkdir(parents=True)
    for frame, name in enumerate(names):
        cv2.imwrite(str(folder / "frames" / name), frame_picture(frame))
    size = {"width": WIDTH, "height": HEIGHT}
    truth = {"video_id": 7, "iscrowd": 0, "areas": [], "bboxes": []}
    annotations = {
        "videos": [
            {"id": 7, **size, "length": LENGTH, "file_names": names},
            {"id": 9, **size, "length": 1, "file_names": ["gone/00000.png"]},
        ],
        "categories": [{"id": 1, "name": "circle"}, {"id": 2, "name": EVIL_NAME}],
        "annotations": [
            {**truth, "id": 1, "category_id": 1, "segmentations": in_frames(large, range(LENGTH))},
            {**truth, "id": 2, "category_id": 2, "segmentations": in_frames(second, range(4))},
        ],
    }
    p0 = {"video_id": 7, "category_id": 1, "score": 0.9, "segmentations": in_frames(large, range(3))}
    p1 = {"video_id": 7, "category_id": 1, "score": 0.8, "segmentations": in_frames(large, (4, 5))}
    p2 = {"video_id": 7, "category_id": 1, "score": 0.3, "segmentations": in_frames(second, range(4))}
    p2["shifted"] = [False, False, False, True, False, False]
    p3 = {"video_id": 7, "category_id": 2, "score": 0.1, "segmentations": in_frames(rectangle(48, 36, 60, 46), [0])}
    paths = SmallSet(folder / "frames", folder / "valid.json", folder / "ours.json", folder / "theirs.json")
    for path, content in ((paths.ann_file, annotations), (paths.results, [p0, p1, p2, p3]), (paths.compare, [p0])):
        path.write_text(json.dumps(content), "utf-8")
    return paths
