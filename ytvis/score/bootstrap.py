"""Bootstrap intervals of one result and of a difference: how much scores depend on the choice of videos.

A validation set is a sample. As many of its videos are drawn with replacement and scored again; the middle 95 % of
these scores show how the score varies. Videos are drawn and not objects, because the objects of a video are not
independent. The limits are percentiles, as AP is skewed and far from normal on small sets.

The AP of draws is too high: repeated videos make precision fluctuate, and AP uses its upper envelope. Therefore the
limits of a score are moved by the difference between the mean of the draws and the value. (In samples of 100 of 300
synthetic videos with 40 categories that was 3 points; 68 % of the intervals contained the expected AP, and 98 % of the
moved ones.) Two results are compared on the same draws, which cancels the difficulty of each video and this error too:
the limits of a difference are not moved.

Masks are compared and matched only once: a video that is drawn twice counts twice in the sums of each number.

Letters used in shapes: B resamples, V videos, n predictions of a category, h its true positives, T IoU thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from ytvis.files import InputError
from ytvis.score.ap import EPS, STATISTICS, CategoryMatches, YTVOSeval, has_truths
from ytvis.score.groups import LONG_ABSENCE, returning_objects
from ytvis.score.tracking import SCORE_THRESHOLD, TrackingScores, evaluate_tracking
from ytvis.score.ytvos import Results, Truth, load_pair

LEVEL = 0.95
RESAMPLES = 1000
RETURNING = f"objects that return after more than {LONG_ABSENCE - 1} frames"
OF_RETURNING = {name: f"{name} of {RETURNING}" for name in ("HOTA", "AssA")}
BATCH = 100  # resamples at a time, so that the work fits in memory


@dataclass(frozen=True)
class Interval:
    """A number, or a difference of two, and the limits of its 95 % confidence interval.

    `low` and `high` are nan with fewer than two videos, and all three if there is nothing to measure.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, draws: np.ndarray, is_moved: bool) -> Self:
        """The interval of `value`, from its values [B] on draws of videos; nan among these is left out.

        With `is_moved` the limits are moved so that the mean of the draws is the value, but stay in 0…1 unless draws
        are outside.
        """
        defined = draws[~np.isnan(draws)]
        if np.isnan(value) or not defined.size:
            return cls(float(value), np.nan, np.nan)
        low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        if is_moved:
            shift = value - defined.mean()
            low, high = max(low + shift, min(0, defined.min())), min(high + shift, max(1, defined.max()))
        return cls(float(value), float(low), float(high))

    @property
    def excludes_zero(self) -> bool:
        """Whether zero is outside the interval: then the choice of videos alone does not explain a difference."""
        return self.low > 0 or self.high < 0


class Resampled(Protocol):
    """Scores that can be computed with any multiplicity of the videos."""

    video_ids: list[int]

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Numbers by name, [B] float64, with video v counted `weights[b, v]` times; nan for nothing to measure."""


class MeanStatistics:
    """The means of the numbers of several scores on the same videos, such as those of networks trained with several
    seeds; `Resampled`. All are computed on the same draws; a number that is nan in one of them is nan."""

    def __init__(self, parts: Sequence[Resampled]):
        """Takes at least one of the scores.

        Raises:
            InputError: their videos differ.
        """
        self._parts, self.video_ids = parts, parts[0].video_ids
        if any(part.video_ids != self.video_ids for part in parts):
            raise InputError("only results on the same videos can be averaged")

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """See `Resampled`."""
        of_parts = [part.statistics(weights) for part in self._parts]
        return {name: np.mean([values[name] for values in of_parts], axis=0) for name in of_parts[0]}


# ---------------------------------------------------------------------------------------------------------- intervals


def bootstrap(scores: Resampled, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Interval]:
    """The interval of each of the statistics, by name; the same for the same seed."""
    values, draws = _resample(scores, resamples, seed)
    return {name: Interval.of(values[name], draws[name], is_moved=True) for name in values}


def compare(first: Resampled, second: Resampled, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Interval]:
    """The interval of `second` - `first` for each of the statistics, by name, each on the same draws of videos.

    Raises InputError if their videos differ.
    """
    if first.video_ids != second.video_ids:
        raise InputError("only results on the same videos can be compared")
    (old, old_draws), (new, new_draws) = (_resample(scores, resamples, seed) for scores in (first, second))
    return {name: Interval.of(new[name] - old[name], new_draws[name] - old_draws[name], is_moved=False) for name in old}


def _resample(scores: Resampled, resamples: int, seed: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The statistics of the videos, and [B] of the draws of videos; [0] with fewer than two videos."""
    videos = len(scores.video_ids)
    values = {name: value[0] for name, value in scores.statistics(np.ones((1, videos), np.int64)).items()}
    if videos < 2:
        return values, {name: np.zeros(0) for name in values}
    weights = np.random.default_rng(seed).multinomial(videos, np.full(videos, 1 / videos), size=resamples)
    parts = [scores.statistics(weights[start : start + BATCH]) for start in range(0, resamples, BATCH)]
    return values, {name: np.concatenate([part[name] for part in parts]) for name in values}


def describe_difference(name: str, interval: Interval, videos: int) -> str:
    """Returns a line, in percent, on whether a difference is significant on a set of so many videos."""
    if np.isnan(interval.value):
        return f"{name}: nothing to compare"
    if np.isnan(interval.low):
        return f"{name} {100 * interval.value:+.1f}: too few videos to tell whether it is significant"
    limits = f"{LEVEL:.0%} interval {100 * interval.low:+.1f} to {100 * interval.high:+.1f}".replace("%", " %")
    verdict = "more than the choice of videos explains" if interval.excludes_zero else "noise"
    return f"{name} {100 * interval.value:+.1f} ({limits}): {verdict}, on these {videos} videos"


# -------------------------------------------------------------------------------------------------- results of a model


def compare_results(
    annotations: Truth,
    first: Results,
    second: Results,
    score_threshold: float = SCORE_THRESHOLD,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Interval]:
    """The interval of `second` - `first` for each of `STAT_NAMES`, of tracking's `RATES`, and of `OF_RETURNING` if
    objects return, by name.

    Takes files or their contents; the threshold is for the tracking metrics. Raises InputError for bad ones.
    """
    truth, first = load_pair(annotations, first)
    both = (ResultStatistics.of(truth, results, score_threshold) for results in (first, second))
    return compare(*both, resamples, seed)


class ResultStatistics:
    """AP, AR and the tracking metrics of predictions, with any multiplicity of the videos; `Resampled`.

    `evaluation` is a `YTVOSeval` after `evaluate()`, `tracking` of the same videos and predictions. If there are
    `returning_objects`, `OF_RETURNING` are HOTA and AssA of these alone.
    """

    def __init__(self, evaluation: YTVOSeval, tracking: TrackingScores):
        self._parts = (PrecisionStatistics(evaluation), tracking)
        self.video_ids = tracking.video_ids
        returning = returning_objects(evaluation.cocoGt)
        self._returning = tracking.of_objects(returning) if returning else None

    @classmethod
    def of(cls, annotations: Truth, results: Results, score_threshold: float = SCORE_THRESHOLD) -> Self:
        """The statistics of files or their contents; the threshold is for the tracking metrics."""
        truth, predictions = load_pair(annotations, results)
        evaluation = YTVOSeval(truth, predictions)
        evaluation.evaluate()
        return cls(evaluation, evaluate_tracking(truth, predictions, score_threshold))

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """See `Resampled`."""
        values = {name: values for part in self._parts for name, values in part.statistics(weights).items()}
        if self._returning is None:
            return values
        alone = self._returning.statistics(weights)
        return values | {title: alone[name] for name, title in OF_RETURNING.items()}


# -------------------------------------------------------------------------------------------------- average precision


class PrecisionStatistics:
    """AP and AR of an evaluation, with any multiplicity of its videos; `Resampled`.

    `evaluation` is a `YTVOSeval` after `evaluate()`. The numbers are those of a set with that many copies of a video,
    each as a separate video.
    """

    def __init__(self, evaluation: YTVOSeval):
        self.params, self.video_ids = evaluation.params, list(evaluation.params.vidIds)
        self._categories = [matches for matches in evaluation.categories.values() if has_truths(matches)]

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """`STAT_NAMES`; see `Resampled`."""
        p = self.params
        sums, categories = ({s.name: np.zeros(len(weights)) for s in STATISTICS} for _ in range(2))
        for category in self._categories:
            rankings: dict[tuple[int, int], Ranking] = {}
            for statistic in STATISTICS:
                area = p.areaRngLbl.index(statistic.area)
                most = 100 if statistic.limit is None else p.maxDets[statistic.limit]
                if (area, most) not in rankings:
                    rankings[area, most] = rank(category, area, most, weights)
                ranking = rankings[area, most]
                chosen = [statistic.iou in (None, iou) for iou in p.iouThrs]
                values = ranking.precision(chosen, p.recThrs) if statistic.of == "precision" else ranking.recall(chosen)
                # A category without true tracks in the drawn videos is left out.
                sums[statistic.name] += np.where(ranking.truths > 0, values, 0)
                categories[statistic.name] += ranking.truths > 0
        undefined = np.full(len(weights), np.nan)
        return {
            name: np.divide(sums[name], number, out=undefined.copy(), where=number > 0)
            for name, number in categories.items()
        }


@dataclass(frozen=True)
class Ranking:
    """The predictions of a category by falling score, for an area range and a limit.

    `weights` [B,n] are the copies of each, `truths` [B] the numbers of tracks to find; `hits` and `misses` [T,n] bool
    mark them at an IoU threshold, all others are ignored.
    """

    weights: np.ndarray
    truths: np.ndarray
    hits: np.ndarray
    misses: np.ndarray

    def recall(self, thresholds: list[bool]) -> np.ndarray:
        """Mean recall over these IoU thresholds, [B]."""
        found = self.weights.astype(float) @ self.hits[thresholds].T.astype(float)
        return (found / np.maximum(1, self.truths)[:, None]).mean(axis=1)

    def precision(self, thresholds: list[bool], recall_thresholds: np.ndarray) -> np.ndarray:
        """Mean precision over these IoU thresholds and all recall thresholds, [B]."""
        rows = zip(self.hits[thresholds], self.misses[thresholds], strict=True)
        return np.mean([self._area_under_curve(*row, recall_thresholds) for row in rows], axis=0)

    def _area_under_curve(self, hits: np.ndarray, misses: np.ndarray, recall_thresholds: np.ndarray) -> np.ndarray:
        """Mean over the recall thresholds of the precision where each is reached, [B].

        A recall is always reached at a hit, where precision rises as well. A hit with several copies is passed in as
        many steps; each uses the precision after the last of them, which is the highest from there on.
        """
        true_positives = np.cumsum(self.weights[:, hits], axis=1, dtype=float)  # [B,h]
        false_before = np.cumsum(self.weights[:, misses], axis=1, dtype=float)
        false_before = np.pad(false_before, ((0, 0), (1, 0)))[:, np.cumsum(misses)[hits]]
        precision = true_positives / (false_before + true_positives + EPS)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = true_positives / np.maximum(1, self.truths)[:, None]
        reached = np.searchsorted(recall_thresholds, recall, side="right")  # number of thresholds so far
        return (precision * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(recall_thresholds)


def rank(category: CategoryMatches, area: int, most: int, weights: np.ndarray) -> Ranking:
    """The ranking of the predictions of a category, at most `most` a video, with `weights` [B,V] of the videos."""
    kept = np.flatnonzero(category.places < most)
    kept = kept[np.argsort(-category.scores[kept], kind="stable")]
    kept, copies = _unroll_ties(kept, category, weights.max(initial=1))
    of_video = weights[:, category.prediction_videos[kept]]
    counts, matched = ~category.prediction_ignored[area][:, kept], category.matched[area][:, kept] >= 0
    truth_videos = category.truth_videos[~category.truth_ignored[area]]
    return Ranking(
        weights=np.where(copies < 0, of_video, of_video > copies),
        truths=weights[:, truth_videos].sum(axis=1),
        hits=counts & matched,
        misses=counts & ~matched,
    )


def _unroll_ties(ranked: np.ndarray, category: CategoryMatches, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """`ranked`, with predictions of one video that have the same score repeated as a block, and the copy of each.

    A video that is drawn twice ranks such a, b as a b a b and not as a a b b. Predictions with a unique score are not
    repeated: their copy is -1, for all copies.
    """
    keys = np.stack([category.scores[ranked], category.prediction_videos[ranked]])
    starts = np.flatnonzero(np.append(True, (keys[:, 1:] != keys[:, :-1]).any(axis=0))[: len(ranked)])
    if len(starts) == len(ranked):
        return ranked, np.full(len(ranked), -1)
    blocks = [
        (np.tile(block, copies), np.repeat(np.arange(copies), len(block))) if len(block) > 1 else (block, [-1])
        for block in np.split(ranked, starts[1:])
    ]
    return tuple(np.concatenate(parts) for parts in zip(*blocks, strict=True))
