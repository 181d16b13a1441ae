"""Two small videos with annotations, results and a picture, whose scores can be counted by hand."""

import json
from pathlib import Path

import cv2
import numpy as np

from tests.ytvis.rectangles import rectangle

HEIGHT, WIDTH, LENGTH = 40, 60, 6
EVIL = "<script>document.title='broken'</script>|*"  # must appear unchanged


def box(x: int, y: int, frames=range(LENGTH), side: int = 10) -> list[dict | None]:
    """A track that shows a square in `frames`."""
    shown = rectangle(x, y, side, side, (HEIGHT, WIDTH))
    return [shown if frame in frames else None for frame in range(LENGTH)]


def write_set(folder: Path) -> tuple[Path, Path]:
    """The annotation file and the results file of two videos whose mistakes can be counted by hand.

    Category 1 is a cat, 2 bears the name EVIL, 3 has no true object. In video 1 the cat at (0, 0) is found by track A;
    the cat at (20, 0) by B in frames 0…3, by C in 4 and 5; the EVIL at (40, 0) is taken for a cat by D; the EVIL at
    (0, 20) is missed; a crowd of cats is at (20, 20), found by E. Track F is false. In video 2, a cat is found. Its
    picture is there in frame 0 alone, and a track G with a low score is false.
    """
    objects = [
        (1, 1, box(0, 0), 0),
        (1, 1, box(20, 0), 0),
        (1, 2, box(40, 0), 0),
        (1, 2, box(0, 20), 0),
        (1, 1, box(20, 20), 1),
        (2, 1, box(0, 0), 0),
    ]
    tracks = [
        (1, 1, 0.9, box(0, 0)),  # A
        (1, 1, 0.8, box(20, 0, range(4))),  # B
        (1, 1, 0.7, box(20, 0, (4, 5))),  # C
        (1, 1, 0.6, box(40, 0)),  # D
        (1, 1, 0.95, box(20, 20)),  # E
        (1, 2, 0.5, box(40, 20)),  # F
        (2, 1, 0.5, box(0, 0)),
        (2, 1, 0.1, box(30, 20)),  # G
    ]
    size = {"height": HEIGHT, "width": WIDTH, "length": LENGTH}
    annotations = {
        "videos": [
            {"id": video, **size, "file_names": [f"{name}/{frame}.png" for frame in range(LENGTH)]}
            for video, name in ((1, EVIL.replace("/", "")), (2, "second"))
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": EVIL}, {"id": 3, "name": "dog"}],
        "annotations": [
            {
                "id": number,
                "video_id": video,
                "category_id": category,
                "iscrowd": crowd,
                "segmentations": masks,
                "areas": [mask and 100 for mask in masks],
                "bboxes": [None] * LENGTH,
            }
            for number, (video, category, masks, crowd) in enumerate(objects, start=1)
        ],
    }
    results = [
        {"video_id": video, "category_id": category, "score": score, "segmentations": masks}
        for video, category, score, masks in tracks
    ]
    (folder / "frames" / "second").mkdir(parents=True)
    cv2.imwrite(str(folder / "frames" / "second" / "0.png"), np.full((HEIGHT, WIDTH, 3), (0, 0, 255), np.uint8))
    for name, content in (("truth.json", annotations), ("found.json", results)):
        (folder / name).write_text(json.dumps(content), "utf-8")
    return folder / "truth.json", folder / "found.json"


def repeat(truth: Path, found: Path, times: int) -> tuple[Path, Path]:
    """The files of `write_set` with each video so many times, as 101, 102, …"""
    annotations, results = (json.loads(path.read_text("utf-8")) for path in (truth, found))
    videos, objects, tracks = [], [], []
    for copy in range(times):
        shift = 100 + 2 * copy
        videos += [{**video, "id": video["id"] + shift} for video in annotations["videos"]]
        for track in annotations["annotations"]:
            objects.append({**track, "id": len(objects) + 1, "video_id": track["video_id"] + shift})
        tracks += [{**track, "video_id": track["video_id"] + shift} for track in results]
    truth.write_text(json.dumps({**annotations, "videos": videos, "annotations": objects}), "utf-8")
    found.write_text(json.dumps(tracks), "utf-8")
    return truth, found
