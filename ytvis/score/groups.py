"""AP by kind of object: by size, by length of the track, by occlusion, by how many objects the video has."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ytvis.report.material import Material
from ytvis.score.ap import STAT_NAMES
from ytvis.score.breakdown import OCCLUDED, evaluate_some, occlusions
from ytvis.score.ytvos import mean_area

GROUP_STATS = ("AP", "AP50", "AP75", "AR10")
OBJECT_COUNTS = (2, 3, 5)  # first numbers of objects of the groups after the first
OCCLUSION_EDGES = (OCCLUDED, 2 * OCCLUDED)


@dataclass(frozen=True)
class Kind:
    """A way to group objects: `values` by the objects' ids, cut at `edges`, or into thirds without; how the page calls
    it and says how it is measured. With `whole_videos` the objects of a video are all in one group."""

    title: str
    measured: str
    values: Mapping[int, float]
    edges: Sequence[float] = ()
    unit: str = ""
    whole_videos: bool = False


def score_groups(material: Material) -> list[dict]:
    """One entry a kind, with its `title`, how it is `measured`, and its `groups`: label, number of objects, scores.

    Sizes and lengths are cut into thirds of the objects, the others at fixed edges. Crowds are in no group; a group
    without objects is left out.
    """
    truths = [truth for truth in material.truth.dataset["annotations"] if not truth.get("iscrowd")]
    hidden = occlusions(material.truth)
    in_video = Counter(truth["video_id"] for truth in truths)
    sizes = {truth["id"]: math.sqrt(mean_area(truth["areas"])) for truth in truths}
    lengths = {truth["id"]: sum(1 for area in truth["areas"] if area) for truth in truths}
    kinds = (
        Kind("Size", "square root of the mean mask area; thirds of the objects", sizes, unit="px"),
        Kind("Track length", "frames in which the object is seen; thirds of the objects", lengths, unit="frames"),
        Kind(
            "Occlusion",
            "part of the box that another object's box covers, 1 while the object is not seen; mean over the track",
            {truth["id"]: hidden[truth["id"]] for truth in truths},
            OCCLUSION_EDGES,
        ),
        Kind(
            "Objects in the video",
            "number of true objects; only these videos count",
            {truth["id"]: in_video[truth["video_id"]] for truth in truths},
            OBJECT_COUNTS,
            whole_videos=True,
        ),
    )
    return [
        {
            "title": kind.title,
            "measured": kind.measured,
            "groups": [
                {"label": label, "objects": len(ids), **_scores(material, ids, kind.whole_videos)}
                for label, ids in split(kind.values, kind.edges or thirds(list(kind.values.values())), kind.unit)
            ],
        }
        for kind in kinds
    ]


def thirds(values: Sequence[float]) -> list[float]:
    """Up to two edges that cut `values` into thirds; fewer where values repeat, [] for none."""
    if not values:
        return []
    edges = np.quantile(values, [1 / 3, 2 / 3], method="higher").tolist()
    return sorted({edge for edge in edges if edge > min(values)})


def split(values: Mapping[int, float], edges: Sequence[float], unit: str) -> list[tuple[str, list[int]]]:
    """(label, ids) of the groups that `edges` cut `values` into, from low to high; an edge belongs to the upper group.

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
    """What a group from `low` to `high` is called, after its `own` values where they are whole numbers."""
    behind = f" {unit}" if unit else ""
    if whole:
        return f"{min(own):.0f}" + f" to {max(own):.0f}" * (max(own) > min(own)) + behind
    if math.isinf(low) and math.isinf(high):
        return "all"
    if math.isinf(high):
        return f"{low:.3g}{behind} or more"
    return f"under {high:.3g}{behind}" if math.isinf(low) else f"{low:.3g} to {high:.3g}{behind}"


def _scores(material: Material, ids: list[int], whole_videos: bool) -> dict[str, float | None]:
    """The scores of the objects `ids`; if these are all of their videos, what is predicted in others counts not."""
    results = material.results
    if whole_videos:
        videos = {material.truth.anns[key]["video_id"] for key in ids}
        results = results.with_tracks(track for track in material.predictions if track["video_id"] in videos)
    stats = evaluate_some(material.truth, results, ids).stats.tolist()
    named = dict(zip(STAT_NAMES, stats, strict=True))
    return {name: None if named[name] < 0 else named[name] for name in GROUP_STATS}
