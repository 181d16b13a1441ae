"""The numbers of a report, as in metrics.json: fractions of 1, null if there is nothing to measure."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ytvis.report.inputs import ReportInput
from ytvis.report.mistakes import PooledMatches, best_cut, confusion, video_qualities
from ytvis.score.ap import STAT_NAMES, Metrics, Params, YTVOSeval
from ytvis.score.bootstrap import Interval, ResultStatistics, bootstrap
from ytvis.score.groups import score_groups
from ytvis.score.tracking import RATES, TrackingScores, evaluate_tracking

AP_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10")
TRACKING_NAMES = ("HOTA", "DetA", "AssA", "IDF1", "IDSW")


def measure(inputs: ReportInput, seed: int, score_threshold: float) -> dict[str, Any]:
    """All numbers of a report; docs/report.md describes the keys."""
    evaluation = YTVOSeval(inputs.truth, inputs.results)
    evaluation.evaluate()
    metrics = Metrics.of(evaluation)
    tracking = evaluate_tracking(inputs.truth, inputs.results, score_threshold)
    intervals = bootstrap(ResultStatistics(evaluation, tracking), seed=seed)
    matches = PooledMatches.of(inputs)
    cut = best_cut(matches)
    names = inputs.truth.category_names()
    truths = inputs.truth.dataset["annotations"]
    counts = Counter(truth["category_id"] for truth in truths if not truth.get("iscrowd"))
    stats = dict(zip(names, metrics.per_category.values(), strict=True))  # both by ascending id
    qualities = video_qualities(matches, cut)
    return {
        "annotations": inputs.truth.source,
        "results": inputs.results.source,
        "seed": seed,
        "videos": len(inputs.truth.vids),
        "objects": counts.total(),
        "tracks": len(inputs.predictions),
        "cut": cut,
        "tracking_threshold": tracking.score_threshold,
        "scores": headline(metrics, tracking, intervals),
        "categories": [
            {"id": key, "name": names[key], "objects": counts[key], **_all_valid(own)}
            for key, own in stats.items()
            if own["AP"] >= 0
        ],
        "curves": curves(metrics),
        "groups": score_groups(evaluation, tracking),
        "confusion": [
            {"true": true, "predicted": predicted, "tracks": tracks}
            for (true, predicted), tracks in sorted(confusion(matches, cut).items(), key=_cell_order)
        ],
        "video_qualities": [
            {"id": video, "name": inputs.video_name(video), "quality": quality} for video, quality in qualities.items()
        ],
    }


def headline(
    metrics: Metrics, tracking: TrackingScores, intervals: Mapping[str, Interval]
) -> dict[str, dict[str, Any]]:
    """Each score at the top of the page: its `value`, its interval `low` to `high`, and whether it `is_count`."""
    values = dict(zip(STAT_NAMES, metrics.stats.tolist(), strict=True)) | tracking.overall()
    rows = {}
    for name in (*AP_NAMES, *TRACKING_NAMES):
        limits = (intervals[name].low, intervals[name].high) if name in intervals else (math.nan, math.nan)
        value, low, high = map(_valid, (values[name], *limits))
        rows[name] = {"value": value, "low": low, "high": high, "is_count": name not in (*AP_NAMES, *RATES)}
    return rows


def curves(metrics: Metrics) -> list[dict[str, Any]]:
    """Precision [R] at the protocol's recalls: over all categories, then of each with true objects.

    `mean` is over the IoU thresholds, `low` at 0.5 and `high` at 0.75; the mean of a `mean` curve is the AP.
    """
    thresholds = Params().iouThrs
    low, high = (int(np.flatnonzero(thresholds == iou)[0]) for iou in (0.5, 0.75))
    precision = metrics.curves.precision[..., 0, -1]  # [T,R,K] of all areas, at the largest limit
    category_ids = metrics.curves.category_ids
    places = np.flatnonzero((precision >= 0).all(axis=(0, 1)))
    chosen = [(None, places), *((category_ids[place], [place]) for place in places)] if places.size else []
    return [
        {
            "category": category,
            **{
                name: np.round(values[:, :, own].mean(axis=(0, 2)), 6).tolist()
                for name, values in (
                    ("mean", precision),
                    ("low", precision[low : low + 1]),
                    ("high", precision[high : high + 1]),
                )
            },
        }
        for category, own in chosen
    ]


def _valid(value: float) -> float | None:
    """The value for JSON: None for -1 and nan, which mean that there is nothing to measure."""
    return None if math.isnan(value) or value < 0 else value


def _all_valid(stats: dict[str, float]) -> dict[str, float | None]:
    return {name: _valid(value) for name, value in stats.items()}


def _cell_order(cell: tuple[tuple[int | None, int | None], int]) -> list[tuple[bool, int]]:
    """By category id, None last."""
    return [(key is None, key or 0) for key in cell[0]]
