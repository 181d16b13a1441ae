"""Makes results with known kinds of mistakes from the truth, to try the viewer without a network.

python -m tests.ytvis.viewer.imperfect data/ShapesVIS/annotations/valid.json results.json
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from ytvis.masks import decode_mask, encode_mask, to_rle
from ytvis.results import write_results


def spoil(content: dict, seed: int = 0) -> list[dict]:
    """Entries of a results.json for the videos of an annotation file.

    Masks grow or shrink by up to two pixels; tracks lose a stretch of frames; in every third video two tracks swap
    their masks halfway; every seventh track has the next class; every other video gets a false track.
    """
    generator = np.random.default_rng(seed)
    category_ids = [category["id"] for category in content["categories"]]
    entries = []
    for video in content["videos"]:
        annotations = [entry for entry in content["annotations"] if entry["video_id"] == video["id"]]
        found = [_predict(entry, video, category_ids, generator) for entry in annotations]
        if len(found) > 2 and video["id"] % 3 == 1:
            half = len(video["file_names"]) // 2
            first, second = found[0]["segmentations"], found[1]["segmentations"]
            first[half:], second[half:] = second[half:], first[half:]
        if found and video["id"] % 2:
            found.append(_false_track(found[-1], video))
        entries += found
    return entries


def _predict(annotation: dict, video: dict, category_ids: list[int], generator: np.random.Generator) -> dict:
    length = len(video["file_names"])
    category_id = annotation["category_id"]
    if annotation["id"] % 7 == 0:
        category_id = category_ids[(category_ids.index(category_id) + 1) % len(category_ids)]
    kernel = np.ones((3, 3), np.uint8)
    segmentations = []
    for segmentation in annotation["segmentations"]:
        rle = to_rle(segmentation, video["height"], video["width"])
        if rle is not None:
            change, times = generator.choice([cv2.dilate, cv2.erode]), int(generator.integers(0, 3))
            rle = encode_mask(change(decode_mask(rle).astype(np.uint8), kernel, iterations=times))
        segmentations.append(rle)
    start = int(generator.integers(0, length))
    gap = range(start, min(length, start + length // 6))
    carried = [start - 2 <= frame < start for frame in range(length)]
    return {
        "video_id": video["id"],
        "category_id": category_id,
        "score": round(float(generator.uniform(0.35, 0.98)), 3),
        "segmentations": [None if frame in gap else rle for frame, rle in enumerate(segmentations)],
        "shifted": carried,
    }


def _false_track(track: dict, video: dict) -> dict:
    """A low-scored track where the mirrored object is not."""
    length = len(video["file_names"])
    masks = [rle and encode_mask(decode_mask(rle)[:, ::-1]) for rle in track["segmentations"]]
    kept = [rle if length // 3 <= frame < 2 * length // 3 else None for frame, rle in enumerate(masks)]
    return {**track, "score": 0.12, "segmentations": kept, "shifted": []}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ann_file", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_results(spoil(json.loads(options.ann_file.read_text("utf-8")), options.seed), options.results)
