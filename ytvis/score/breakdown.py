"""Scores by kind of object: how well are the occluded, the short-lived, the crowded ones found?

Works on any YouTube-VIS-format file; what an object is like is read off its boxes and masks.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from pycocotools import mask as rle_tools

from ytvis.files import InputError
from ytvis.score.ap import Metrics, evaluate_results
from ytvis.score.ytvos import YTVOS, Results, Truth, load_pair

OCCLUDED = 0.25  # the occlusion from which an object counts as occluded

Box = tuple[float, float, float, float]


def occlusion(track: Sequence[Box | None], others: Sequence[Sequence[Box | None]]) -> float:
    """How much an object is in touch with the `others` of its video, 0…1: after OVIS's bounding-box occlusion rate.

    Objects are given by their box x y width height in every frame of the video, None where they are not seen. The mean,
    over the frames from the first to the last appearance, of the largest part of the box that another object's box
    covers; 1 for a frame in which the object is not seen. 0 for an object that is never seen.
    """
    seen = [frame for frame, box in enumerate(track) if box]
    if not seen:
        return 0.0
    rates = []
    for frame in range(seen[0], seen[-1] + 1):
        box, boxes = track[frame], [other[frame] for other in others if other[frame]]
        rates.append(max((_covered(box, other) for other in boxes), default=0.0) if box else 1.0)
    return fmean(rates)


def occlusions(truth: YTVOS) -> dict[int, float]:
    """The `occlusion` of every annotation, by id."""
    rates = {}
    for video_id in truth.getVidIds():
        boxes = {track["id"]: _boxes(track) for track in truth.loadAnns(truth.getAnnIds(vidIds=[video_id]))}
        for track_id, own in boxes.items():
            rates[track_id] = occlusion(own, [others for other_id, others in boxes.items() if other_id != track_id])
    return rates


def evaluate_some(annotations: Truth, results: Results, wanted: Iterable[int]) -> Metrics:
    """The metrics of the annotations whose ids are `wanted` alone.

    The others count as crowds: who finds them gains nothing and loses nothing. A prediction that finds no object at all
    counts against every group.
    """
    wanted = set(wanted)
    truth, predictions = load_pair(annotations, results)
    tracks = (track if track["id"] in wanted else {**track, "iscrowd": 1} for track in truth.dataset["annotations"])
    return evaluate_results(truth.with_tracks(tracks), predictions)


def evaluate_occluded(annotations: Truth, results: Results) -> Metrics:
    """The metrics of the occluded objects: those with an `occlusion` of at least `OCCLUDED`.

    Raises:
        InputError: there is no such object, or a file cannot be used.
    """
    truth, predictions = load_pair(annotations, results)
    wanted = [track_id for track_id, rate in occlusions(truth).items() if rate >= OCCLUDED]
    if not wanted:
        raise InputError(f"{truth.source}: no object is occluded")
    return evaluate_some(truth, predictions, wanted)


def _boxes(track: Mapping) -> list[Box | None]:
    """The box of each mask of an annotation, None where nothing is seen."""
    boxes = [rle_tools.toBbox(rle).tolist() if rle else None for rle in track["segmentations"]]
    return [tuple(box) if box and box[2] * box[3] > 0 else None for box in boxes]


def _covered(box: Box, other: Box) -> float:
    """The part of `box` x y width height that `other` covers, 0…1."""
    width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    area = box[2] * box[3]
    return max(width, 0.0) * max(height, 0.0) / area if area > 0 else 0.0
