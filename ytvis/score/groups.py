"""AP and HOTA by kind of object: by size, by length of the track, by longest absence, by occlusion, by how many objects
the video has.

Works on any YouTube-VIS-format file: the properties of an object are computed from its boxes and masks. If a file
labels occlusion frame by frame, as OVIS does, the objects are grouped by that too.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

import numpy as np

from ytvis.files import InputError
from ytvis.masks import mask_boxes
from ytvis.score.ap import STAT_NAMES, Metrics, YTVOSeval
from ytvis.score.tracking import TrackingScores
from ytvis.score.ytvos import YTVOS, Results, Truth, load_pair, mean_area

GROUP_STATS = ("AP", "AP50", "AP75", "AR10", "HOTA", "AssA")
OCCLUDED = 0.25  # the box occlusion from which an object counts as occluded
OCCLUSION_EDGES = (OCCLUDED, 2 * OCCLUDED)
OCCLUSION_LABELS = ("no_occlusion", "slight_occlusion", "severe_occlusion")  # OVIS' labels of a frame, by rising level
LONG_ABSENCE = 11  # frames: longer than the published tracker shows an object that it does not detect
OBJECT_COUNTS = (2, 3, 5)  # first numbers of objects of the groups after the first

Box = tuple[float, float, float, float]


# ----------------------------------------------------------------------------------------------- properties of objects


def box_occlusion(track: Sequence[Box | None], others: Sequence[Sequence[Box | None]]) -> float:
    """The overlap of an object with the `others` of its video, 0…1: after OVIS' bounding-box occlusion rate.

    Objects are given by their box x y width height in every frame of the video, None where they are not visible. The
    mean, over the frames from the first to the last appearance, of the largest fraction of the box that another
    object's box covers; 1 for a frame in which the object is not visible. 0 for an object that is never visible.
    """
    seen = [frame for frame, box in enumerate(track) if box]
    if not seen:
        return 0.0
    rates = []
    for frame in range(seen[0], seen[-1] + 1):
        box, boxes = track[frame], [other[frame] for other in others if frame < len(other) and other[frame]]
        rates.append(max((_covered(box, other) for other in boxes), default=0.0) if box else 1.0)
    return fmean(rates)


def box_occlusions(truth: YTVOS) -> dict[int, float]:
    """The `box_occlusion` of every annotation, by id."""
    rates = {}
    for tracks in truth.vidToAnns.values():
        boxes = {track["id"]: _boxes(track) for track in tracks}
        for track_id, own in boxes.items():
            rates[track_id] = box_occlusion(own, [other for key, other in boxes.items() if key != track_id])
    return rates


def _boxes(track: Mapping) -> list[Box | None]:
    """The box of each mask of an annotation, None for an empty or missing mask."""
    boxes = mask_boxes(track["segmentations"]).tolist()
    return [tuple(box) if box[2] * box[3] > 0 else None for box in boxes]


def _covered(box: Box, other: Box) -> float:
    """The fraction of `box` x y width height that `other` covers, 0…1."""
    width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    return max(width, 0.0) * max(height, 0.0) / (box[2] * box[3])


def longest_absence(areas: Sequence[float | None]) -> int:
    """The most frames in a row that an object is not visible between two appearances; `areas` are those of its masks,
    0 or None where it is not visible."""
    seen = [frame for frame, area in enumerate(areas) if area]
    return max((later - earlier - 1 for earlier, later in pairwise(seen)), default=0)


def returning_objects(truth: YTVOS) -> list[int]:
    """The ids of the objects, without crowds, that come back after `LONG_ABSENCE` frames or more."""
    objects = (track for track in truth.dataset["annotations"] if not track.get("iscrowd"))
    return [track["id"] for track in objects if longest_absence(track["areas"]) >= LONG_ABSENCE]


def labelled_occlusion(labels: Any) -> str | None:
    """The highest of `OCCLUSION_LABELS` that a third or more of an object's labelled frames have; None without labels.

    `labels` is the `occlusion` of an annotation, a list with a label or None for each frame; other values are ignored.
    One of three labels always applies to a third of the frames. The rule is our own: OVIS labels frames, not objects.
    """
    counts = Counter(label for label in labels if label in OCCLUSION_LABELS) if isinstance(labels, list) else Counter()
    frequent = [label for label in OCCLUSION_LABELS if counts[label] and 3 * counts[label] >= counts.total()]
    return frequent[-1] if frequent else None


# -------------------------------------------------------------------------------------------------- scores of some


def evaluate_some(
    annotations: Truth,
    results: Results,
    wanted: Iterable[int],
    ious: Mapping[tuple[int, int], np.ndarray] | None = None,
) -> Metrics:
    """The metrics of the annotations with the ids `wanted` alone; `ious` as in `YTVOSeval.evaluate`.

    The others count as crowds: a prediction that matches one is ignored. A prediction that matches no object counts
    against every group.
    """
    wanted = set(wanted)
    truth, predictions = load_pair(annotations, results)
    tracks = (track if track["id"] in wanted else {**track, "iscrowd": 1} for track in truth.dataset["annotations"])
    evaluation = YTVOSeval(truth.with_tracks(tracks), predictions)
    evaluation.evaluate(ious)
    return Metrics.of(evaluation)


def evaluate_occluded(annotations: Truth, results: Results) -> Metrics:
    """The metrics of the occluded objects: those with a `box_occlusion` of at least `OCCLUDED`.

    Raises:
        InputError: no object is occluded, or a file cannot be used.
    """
    truth, predictions = load_pair(annotations, results)
    wanted = [track_id for track_id, rate in box_occlusions(truth).items() if rate >= OCCLUDED]
    if not wanted:
        raise InputError(f"{truth.source}: no object is occluded")
    return evaluate_some(truth, predictions, wanted)


# ---------------------------------------------------------------------------------------------------------- groups


@dataclass(frozen=True)
class Kind:
    """A way to group objects, with its title and the description of its measure for the page.

    `groups` are (label, ids of the objects). With `whole_videos` the objects of a video are all in one group.
    """

    title: str
    measured: str
    groups: Sequence[tuple[str, list[int]]]
    whole_videos: bool = False


def score_groups(evaluation: YTVOSeval, tracking: TrackingScores | None = None) -> list[dict]:
    """One entry per kind, with its `title`, how it is `measured`, and its `groups`: label, number of objects, scores.

    The masks are not compared again: `evaluation` has done it. HOTA and AssA, as `tracking` matched the objects, are
    None without it.

    Sizes and lengths are cut into thirds of the objects, the others at fixed edges. Crowds are in no group; groups
    without objects are left out, and so are absences if no object is absent, and labelled occlusion without labels.
    """
    return [
        {
            "title": kind.title,
            "measured": kind.measured,
            "groups": [
                {"label": label, "objects": len(ids), **_scores(evaluation, tracking, ids, kind.whole_videos)}
                for label, ids in kind.groups
            ],
        }
        for kind in kinds_of_objects(evaluation.cocoGt)
    ]


def kinds_of_objects(truth: YTVOS) -> list[Kind]:
    """The ways to group the objects of a file, each with its groups."""
    objects = [track for track in truth.dataset["annotations"] if not track.get("iscrowd")]
    occlusions = box_occlusions(truth)
    in_video = Counter(track["video_id"] for track in objects)
    sizes = {track["id"]: math.sqrt(mean_area(track["areas"])) for track in objects}
    lengths = {track["id"]: sum(1 for area in track["areas"] if area) for track in objects}
    occlusions = {track["id"]: occlusions[track["id"]] for track in objects}
    absences = {track["id"]: longest_absence(track["areas"]) for track in objects}
    counts = {track["id"]: in_video[track["video_id"]] for track in objects}
    kinds = [
        Kind("Size", "square root of the mean mask area; thirds of the objects", split(sizes, thirds(sizes), "px")),
        Kind(
            "Track length",
            "frames in which the object is visible; thirds of the objects",
            split(lengths, thirds(lengths), "frames"),
        ),
        Kind(
            "Occlusion",
            "fraction of the box that another object's box covers, 1 while the object is hidden; mean over the track",
            split(occlusions, OCCLUSION_EDGES),
        ),
        Kind(
            "Objects in the video",
            "number of true objects; only these videos count",
            split(counts, OBJECT_COUNTS),
            whole_videos=True,
        ),
    ]
    levels = {track["id"]: labelled_occlusion(track.get("occlusion")) for track in objects}
    groups = [(label, [key for key, level in levels.items() if level == label]) for label in OCCLUSION_LABELS]
    labelled = [(label.replace("_", " "), ids) for label, ids in groups if ids]
    if labelled:
        text = "the file's labels: the highest level that applies to a third of the object's labelled frames"
        kinds.insert(3, Kind("Labelled occlusion", text, labelled))
    if any(absences.values()):
        text = "most frames in a row that the object is not visible between two appearances"
        kinds.insert(2, Kind("Longest absence", text, split(absences, (1, LONG_ABSENCE), "frames")))
    return kinds


def thirds(values: Mapping[int, float]) -> list[float]:
    """Up to two edges that cut `values` into thirds; fewer where values repeat, [] for none."""
    if not values:
        return []
    numbers = list(values.values())
    edges = np.quantile(numbers, [1 / 3, 2 / 3], method="higher").tolist()
    return sorted({edge for edge in edges if edge > min(numbers)})


def split(values: Mapping[int, float], edges: Sequence[float], unit: str = "") -> list[tuple[str, list[int]]]:
    """(label, ids) of the groups of `values` between `edges`, from low to high; an edge belongs to the upper group.

    Groups without ids are left out.
    """
    bounds = [-math.inf, *edges, math.inf]
    whole = all(float(value).is_integer() for value in (*values.values(), *edges))
    groups = []
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        ids = [key for key, value in values.items() if low <= value < high]
        if ids:
            groups.append((_label(low, high, [values[key] for key in ids], unit, whole), ids))
    return groups


def _label(low: float, high: float, own: Sequence[float], unit: str, whole: bool) -> str:
    """The label of a group from `low` to `high`, given by its `own` values if they are whole numbers."""
    after = f" {unit}" if unit else ""
    if whole:
        return f"{min(own):.0f}" + f" to {max(own):.0f}" * (max(own) > min(own)) + after
    if math.isinf(low) and math.isinf(high):
        return "all"
    if math.isinf(high):
        return f"{low:.3g}{after} or more"
    return f"under {high:.3g}{after}" if math.isinf(low) else f"{low:.3g} to {high:.3g}{after}"


def _scores(
    evaluation: YTVOSeval, tracking: TrackingScores | None, ids: list[int], whole_videos: bool
) -> dict[str, float | None]:
    """The scores of the objects `ids`; if these are all of their videos, predictions in other videos are ignored."""
    truth, results, ious = evaluation.cocoGt, evaluation.cocoDt, evaluation.ious
    videos = set(truth.vids)
    if whole_videos:
        videos = {truth.anns[key]["video_id"] for key in ids}
        results = results.with_tracks(t for t in results.dataset["annotations"] if t["video_id"] in videos)
        ious = {key: values for key, values in ious.items() if key[0] in videos}
    stats = evaluate_some(truth, results, ids, ious).stats.tolist()
    named = dict(zip(STAT_NAMES, stats, strict=True)) | {"HOTA": -1.0, "AssA": -1.0}
    if tracking is not None:
        weights = np.array([[video in videos for video in tracking.video_ids]], np.int64)
        named |= {name: values.item() for name, values in tracking.of_objects(ids).statistics(weights).items()}
    return {name: named[name] if named[name] >= 0 else None for name in GROUP_STATS}
