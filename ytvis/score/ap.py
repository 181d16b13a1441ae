"""YouTube-VIS average precision and recall of tracks, without the evaluation server.

The numbers equal those of the official evaluator (youtubevos/cocoapi). The flow of the data: `YTVOS` reads a file →
tracks are grouped by category and video → `tube_ious` → `match_tracks` → `precision_recall` → `summary_stats`. Use
`evaluate_results` for all of it, or `YTVOS` and `YTVOSeval`, which keep the official names, for single steps.

Letters used in shapes: D predictions of a video and category by falling score, G its true tracks, N predictions of a
category over all videos, by video and then by falling score, T IoU thresholds, R recall thresholds, K categories,
A area ranges, M limits on predictions.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple, Self

import numpy as np

from ytvis.files import InputError
from ytvis.masks import Tubes, frame_overlaps, read_track
from ytvis.messages import short_name
from ytvis.optional import import_native
from ytvis.score.boundary import boundary_mask
from ytvis.score.ytvos import YTVOS, Results, Truth, load_pair, mean_area

_mask_kernels = import_native("ytvis._mask_kernels", "match")

logger = logging.getLogger(__name__)

IOU_TYPES = ("segm", "boundary")
POOLED = -1  # the single pseudo-category of an evaluation with useCats = 0
CERTAIN_IOU = 1 - 1e-10  # greatest threshold of a match, so that identical tracks match at 1.0
EPS = np.spacing(1)  # part of the protocol: the precision of a single true positive is 1 / (1 + EPS)


class Statistic(NamedTuple):
    """One of the twelve numbers: of precision or recall, at one IoU or all (None), for one area range and one limit on
    predictions, given by its place among the three, or None for the limit of exactly 100."""

    name: str
    of: str
    iou: float | None
    area: str
    limit: int | None


STATISTICS = (
    Statistic("AP", "precision", None, "all", None),
    Statistic("AP50", "precision", 0.5, "all", 2),
    Statistic("AP75", "precision", 0.75, "all", 2),
    Statistic("APs", "precision", None, "small", 2),
    Statistic("APm", "precision", None, "medium", 2),
    Statistic("APl", "precision", None, "large", 2),
    Statistic("AR1", "recall", None, "all", 0),
    Statistic("AR10", "recall", None, "all", 1),
    Statistic("AR100", "recall", None, "all", 2),
    Statistic("ARs", "recall", None, "small", 2),
    Statistic("ARm", "recall", None, "medium", 2),
    Statistic("ARl", "recall", None, "large", 2),
)
STAT_NAMES = tuple(statistic.name for statistic in STATISTICS)


@dataclass
class Params:
    """The settings of an evaluation, under the official names; change them before `evaluate()`.

    `iouType` is one of `IOU_TYPES`: "segm" compares masks; "boundary" uses the smaller of the IoU of the masks and
    that of their boundary regions (`boundary.py`), for crowds that of the masks. `areaRng` are ranges of a
    track's mean mask area in pixels, both ends included, named by `areaRngLbl`. `maxDets` limit the predictions per
    video and category. `useCats` 0 pools all categories into one.
    """

    iouType: str = "segm"
    vidIds: list[int] = field(default_factory=list)
    catIds: list[int] = field(default_factory=list)
    iouThrs: np.ndarray = field(default_factory=lambda: np.linspace(0.5, 0.95, 10))
    recThrs: np.ndarray = field(default_factory=lambda: np.linspace(0.0, 1.0, 101))
    maxDets: list[int] = field(default_factory=lambda: [1, 10, 100])
    areaRng: list[list[float]] = field(
        default_factory=lambda: [[0, 1e10], [0, 128**2], [128**2, 256**2], [256**2, 1e10]]
    )
    areaRngLbl: list[str] = field(default_factory=lambda: ["all", "small", "medium", "large"])
    useCats: int = 1


# --------------------------------------------------------------------------------------------------------- matching


@dataclass(frozen=True)
class CategoryMatches:
    """All tracks of a category, compared and matched.

    `predictions` [N] are ordered by video and then by falling score, `truths` by video and then as in the file.
    `prediction_videos` [N] and `truth_videos` are the places of their videos in `Params.vidIds`; `places` [N] are the
    ranks of the predictions in their video, and `scores` [N] their scores. `ious` holds [D,G] for each place of a video
    with tracks. `matched` [A,T,N] is the index of the truth matched to a prediction, -1 if none; `prediction_ignored`
    [A,T,N] and `truth_ignored` [A,truths] bool mark tracks that do not affect the score. `mixed_videos` are the places
    of the videos whose masks differ in size.
    """

    predictions: list[dict]
    truths: list[dict]
    prediction_videos: np.ndarray
    truth_videos: np.ndarray
    places: np.ndarray
    scores: np.ndarray
    ious: dict[int, np.ndarray]
    matched: np.ndarray
    prediction_ignored: np.ndarray
    truth_ignored: np.ndarray
    mixed_videos: list[int]


def tube_ious(predictions: Tubes, truths: Tubes) -> np.ndarray:
    """IoU of whole tracks, [D,G] float64: the intersections of all frames divided by their unions; 0 without pixels."""
    intersection, union = (pixels.sum(axis=-1) for pixels in frame_overlaps(predictions, truths))
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def boundary_ious(predictions: list[dict], truths: list[dict]) -> np.ndarray:
    """IoU of the boundary regions of whole tracks, [D,G] float64, summed over the frames as `tube_ious` does."""
    parts = (predictions, truths)
    return tube_ious(*(Tubes.of([[boundary_mask(m) for m in track["segmentations"]] for track in p]) for p in parts))


def match_tracks(ious: np.ndarray, is_crowd: np.ndarray, truth_ignored: np.ndarray, thresholds: np.ndarray):
    """Index of the truth matched to each prediction, -1 if none: [A,T,D] int64.

    Predictions, the rows of `ious` [D,G], are matched in order, for each area range and threshold separately. A
    prediction matches the free truth with the highest IoU, if that reaches the threshold; truths that are not ignored
    (`truth_ignored` [A,G]) come before ignored ones, and the later of equals is chosen. A crowd (`is_crowd` [G]) stays
    free.
    """
    ranges, (predictions, truths) = len(truth_ignored), ious.shape
    matched = np.full((ranges, len(thresholds), predictions), -1)
    least_ious = np.minimum(thresholds, CERTAIN_IOU)
    if _mask_kernels is not None:
        flags = (np.ascontiguousarray(values).view(np.uint8) for values in (is_crowd, truth_ignored))
        _mask_kernels.match(ious, *flags, least_ious, matched)
        return matched
    reaches = ious >= least_ious[:, None, None]  # [T,D,G]
    is_free = np.ones((ranges, len(thresholds), truths), bool)
    # A stable sort ranks the later of equal IoUs higher, so that all ranks of a prediction differ.
    ranks = ious.argsort(axis=1, kind="stable").argsort(axis=1)
    preference = ranks + truths * ~truth_ignored[:, None]  # [A,D,G]
    for d in np.flatnonzero(reaches.any(axis=(0, 2))):
        can_take = is_free & reaches[:, d]  # [A,T,G]
        choice = np.where(can_take, preference[:, None, d], -1).argmax(axis=-1)  # [A,T]
        has_taken = can_take.any(axis=-1)
        matched[..., d] = np.where(has_taken, choice, -1)
        used = np.nonzero(has_taken & ~is_crowd[choice])
        is_free[(*used, choice[used])] = False
    return matched


def _is_outside(tracks: list[dict], area_ranges: np.ndarray) -> np.ndarray:
    """[A, tracks] bool: the track's mean area is outside the range."""
    areas = np.array([track["avg_area"] for track in tracks], np.float64)
    return (areas < area_ranges[:, :1]) | (areas > area_ranges[:, 1:])


def compare_tracks(
    predictions: dict[int, list[dict]],
    truths: dict[int, list[dict]],
    params: Params,
    known_ious: Mapping[int, np.ndarray],
) -> CategoryMatches:
    """Compares and matches the tracks of one category, given by the place of their video; so are the `known_ious`."""
    videos = sorted(predictions.keys() | truths.keys())
    all_predictions, all_truths = ([t for v in videos for t in tracks.get(v, ())] for tracks in (predictions, truths))
    area_ranges, thresholds = np.asarray(params.areaRng, np.float64), np.asarray(params.iouThrs)
    is_crowd = np.array([bool(truth.get("iscrowd", 0)) for truth in all_truths], bool)
    truth_ignored = is_crowd | _is_outside(all_truths, area_ranges)
    matched = np.full((len(area_ranges), len(thresholds), len(all_predictions)), -1)
    ious, mixed_videos = {}, []
    d = g = 0
    for video in videos:
        rows, columns = (tracks.get(video, []) for tracks in (predictions, truths))
        ious[video] = np.zeros((len(rows), len(columns)))
        own = slice(g, g + len(columns))
        if video in known_ious:
            ious[video] = known_ious[video]
        elif ious[video].size:
            tubes = [Tubes.of([track["segmentations"] for track in tracks]) for tracks in (rows, columns)]
            ious[video] = tube_ious(*tubes)
            sizes = np.concatenate([part.sizes for part in tubes])
            if (sizes[sizes > 0] != sizes.max(initial=0)).any():
                mixed_videos.append(video)
            if params.iouType == "boundary":
                both = np.minimum(ious[video], boundary_ious(rows, columns))
                ious[video] = np.where(is_crowd[own], ious[video], both)
        if ious[video].size:
            choices = match_tracks(ious[video], is_crowd[own], truth_ignored[:, own], thresholds)
            matched[..., d : d + len(rows)] = np.where(choices >= 0, choices + g, -1)
        d, g = d + len(rows), g + len(columns)
    # An unmatched prediction (-1) is ignored if its own area is outside the range.
    is_outside = np.broadcast_to(_is_outside(all_predictions, area_ranges)[:, None], matched.shape)
    took_ignored = np.pad(truth_ignored, ((0, 0), (0, 1)))[np.arange(len(area_ranges))[:, None, None], matched]
    return CategoryMatches(
        predictions=all_predictions,
        truths=all_truths,
        prediction_videos=np.array([video for video in videos for _ in predictions.get(video, ())], np.int64),
        truth_videos=np.array([video for video in videos for _ in truths.get(video, ())], np.int64),
        places=np.array([place for video in videos for place in range(len(predictions.get(video, ())))], np.int64),
        scores=np.array([prediction["score"] for prediction in all_predictions], np.float64),
        ious=ious,
        matched=matched,
        prediction_ignored=np.where(matched >= 0, took_ignored, is_outside),
        truth_ignored=truth_ignored,
        mixed_videos=mixed_videos,
    )


# ------------------------------------------------------------------------------------------------ precision, recall


def precision_recall(category: CategoryMatches, params: Params) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision [T,R,A,M], recall [T,A,M] and score [T,R,A,M] at the recall thresholds, of one category.

    -1 for an area range without true tracks, 0 at a recall that is not reached.
    """
    shape = (len(params.iouThrs), len(params.recThrs), len(params.areaRng), len(params.maxDets))
    precision, scores, recall = -np.ones(shape), -np.ones(shape), -np.ones((shape[0], *shape[2:]))
    truths = (~category.truth_ignored).sum(axis=-1)
    areas = np.flatnonzero(truths)
    if not areas.size:
        return precision, recall, scores
    order = np.argsort(-category.scores, kind="stable")
    is_hit, counts = ((values[areas][..., order]) for values in (category.matched >= 0, ~category.prediction_ignored))
    shown = -1
    for limit, most in enumerate(params.maxDets):
        kept = category.places[order] < most
        if kept.sum() == shown:  # this limit keeps the same predictions as the one before
            for array in (precision, recall, scores):
                array[..., limit] = array[..., limit - 1]
            continue
        shown = kept.sum()
        hits, misses = (counts[..., kept] & sign[..., kept] for sign in (is_hit, ~is_hit))
        curves = _curves(hits, misses, truths[areas], category.scores[order][kept], np.asarray(params.recThrs))
        for array, curve in zip((precision, recall, scores), curves, strict=True):
            array[..., areas, limit] = np.moveaxis(curve, 0, -1)
    return precision, recall, scores


def _curves(hits: np.ndarray, misses: np.ndarray, truths: np.ndarray, scores: np.ndarray, recalls: np.ndarray):
    """Precision [A,T,R], last recall [A,T] and score [A,T,R] of a list of predictions by falling score.

    `hits` and `misses` [A,T,n] bool (neither: ignored), `truths` [A] the number of tracks to find, `scores` [n].
    """
    true_positives, false_positives = np.cumsum(hits, axis=-1, dtype=float), np.cumsum(misses, axis=-1, dtype=float)
    precision = true_positives / (false_positives + true_positives + EPS)
    precision = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    # `places[..., n]` is where hit number n is in the list, its length if there are fewer hits.
    places = np.full((*hits.shape[:2], truths.max() + 2), len(scores))
    places[..., 0] = 0
    found = np.nonzero(hits)
    places[(*found[:2], true_positives[found].astype(int))] = found[2]
    needed = np.stack([np.searchsorted(np.arange(total + 1) / total, recalls, side="left") for total in truths])
    places = np.take_along_axis(places, np.broadcast_to(needed[:, None], (*hits.shape[:2], len(recalls))), axis=-1)
    # After the end both are 0: the recall is not reached.
    precision, scores = np.pad(precision, ((0, 0), (0, 0), (0, 1))), np.append(scores, 0)
    last_recall = hits.sum(axis=-1) / truths[:, None]
    return np.take_along_axis(precision, places, axis=-1), last_recall, scores[places]


@dataclass(frozen=True)
class Curves:
    """Precision and scores [T,R,K,A,M] and recall [T,K,A,M] of the categories `category_ids` [K], by rising id.

    These are the categories with true tracks that count; all others have -1 everywhere.
    """

    category_ids: list[int]
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, categories: dict[int, CategoryMatches], params: Params) -> Self:
        """The curves of the `categories` that have true tracks."""
        used = [category for category in params.catIds if has_truths(categories.get(category))]
        counts = [len(values) for values in (params.iouThrs, params.recThrs, used, params.areaRng, params.maxDets)]
        arrays = [np.empty(shape) for shape in (counts, [counts[0], *counts[2:]], counts)]
        for k, category in enumerate(used):
            for array, values in zip(arrays, precision_recall(categories[category], params), strict=True):
                array[..., k, :, :] = values
        return cls(used, *arrays)

    def spread(self, values: np.ndarray, category_ids: Sequence[int]) -> np.ndarray:
        """`values` [...,K,A,M], one of the arrays, for all of `category_ids`: -1 for those outside K."""
        spread = np.full((*values.shape[:-3], len(category_ids), *values.shape[-2:]), -1.0)
        places = {category: place for place, category in enumerate(category_ids)}
        spread[..., [places[category] for category in self.category_ids], :, :] = values
        return spread


def has_truths(matches: CategoryMatches | None) -> bool:
    """Whether any area range has a true track that is not ignored."""
    return matches is not None and not matches.truth_ignored.all()


def _mean_of_valid(values: np.ndarray) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0


def summary_stats(precision: np.ndarray, recall: np.ndarray, params: Params) -> np.ndarray:
    """The twelve numbers of `STAT_NAMES`, float64 [12], from precision [T,R,K,A,M] and recall [T,K,A,M].

    Each is the mean of all values that are not -1, and -1 if there are none. Raises InputError unless there are three
    limits on predictions.
    """
    if len(params.maxDets) < 3:
        raise InputError(f"a summary needs three maxDets, not {list(params.maxDets)}")
    stats = []
    for statistic in STATISTICS:
        values = precision if statistic.of == "precision" else recall
        if statistic.iou is not None:
            values = values[np.asarray(params.iouThrs) == statistic.iou]
        is_limit = np.asarray(params.maxDets) == 100
        limits = is_limit if statistic.limit is None else [statistic.limit]
        area = params.areaRngLbl.index(statistic.area)
        stats.append(_mean_of_valid(values[..., area, :][..., limits]))
    return np.array(stats)


def summary_lines(stats: np.ndarray, params: Params) -> list[str]:
    """The twelve lines printed by the official evaluator."""
    titles = {"precision": "Average Precision  (AP)", "recall": "Average Recall     (AR)"}
    lines = []
    for statistic, value in zip(STATISTICS, stats, strict=True):
        ious = [params.iouThrs[0], params.iouThrs[-1]] if statistic.iou is None else [statistic.iou]
        iou = ":".join(f"{threshold:.2f}" for threshold in ious)
        limit = 100 if statistic.limit is None else params.maxDets[statistic.limit]
        where = f"IoU={iou:<9} | area={statistic.area:>6} | maxDets={limit:>3}"
        lines.append(f" {titles[statistic.of]} @[ {where} ] = {value:.3f}")
    return lines


# -------------------------------------------------------------------------------------------------------- evaluation


class YTVOSeval:
    """Evaluates predictions against annotations, with the official steps and names.

    Change `params` if needed, then call `evaluate()`, `accumulate()`, `summarize()`. `ious` maps (video, category) to
    [D,G]; `categories` holds the comparisons of the categories with tracks. `stats` are the twelve numbers of
    `STAT_NAMES`. The official dictionary `eval` is computed on access, as it holds every category. Raises InputError
    for a kind of IoU that is not one of `IOU_TYPES`.
    """

    def __init__(self, cocoGt: YTVOS, cocoDt: YTVOS, iouType: str = "segm"):
        self.cocoGt, self.cocoDt = cocoGt, cocoDt
        self.params = Params(iouType, sorted(cocoGt.getVidIds()), sorted(cocoGt.getCatIds()))
        self.stats = np.zeros(0)
        self.categories: dict[int, CategoryMatches] = {}
        self.curves: Curves | None = None
        self._eval: dict[str, Any] = {}
        self._pooled_categories: list[int] = []

    def evaluate(self, ious: Mapping[tuple[int, int], np.ndarray] | None = None) -> None:
        """Compares and matches the tracks of every video and category.

        `ious` are those of another evaluation of the same tracks, of which only the flags differ; no masks are compared
        then.
        """
        p = self.params
        if p.iouType not in IOU_TYPES:
            raise InputError(
                f"YouTube-VIS evaluation compares masks ('segm') or also their boundaries ('boundary'); "
                f"{p.iouType!r} is not supported"
            )
        if list(p.catIds) == [POOLED] and self._pooled_categories:
            p.catIds = self._pooled_categories  # `accumulate` has replaced them by the pseudo-category
        p.vidIds, p.maxDets = sorted(set(p.vidIds)), sorted(p.maxDets)
        p.catIds = sorted(set(p.catIds)) if p.useCats else list(dict.fromkeys(p.catIds))
        truths, predictions = self._truths(), self._predictions()
        used = sorted(truths.keys() | predictions.keys()) if p.useCats else [POOLED]
        places = {video: place for place, video in enumerate(p.vidIds)}
        known: dict[int, dict[int, np.ndarray]] = defaultdict(dict)
        for (video, category), values in (ious or {}).items():
            known[category][places[video]] = values
        self.categories = {
            category: compare_tracks(predictions[category], truths[category], p, known[category]) for category in used
        }
        self._warn_of_sizes()

    def accumulate(self) -> None:
        """Computes the precision and recall of every category with true tracks: `curves`."""
        p = self.params
        if not p.useCats and list(p.catIds) != [POOLED]:
            self._pooled_categories, p.catIds = p.catIds, [POOLED]
        self.curves, self._eval = Curves.of(self.categories, p), {}

    @property
    def eval(self) -> dict[str, Any]:
        """`precision` and `scores` [T,R,K,A,M] and `recall` [T,K,A,M] of all of `params.catIds`, `counts` [T,R,K,A,M]
        as numbers, and `params`; {} before `accumulate()`."""
        if self.curves is not None and not self._eval:
            p = self.params
            counts = [len(values) for values in (p.iouThrs, p.recThrs, p.catIds, p.areaRng, p.maxDets)]
            arrays = {
                name: self.curves.spread(getattr(self.curves, name), p.catIds)
                for name in ("precision", "recall", "scores")
            }
            self._eval = arrays | {"counts": counts, "params": p}
        return self._eval

    def summarize(self) -> None:
        """Fills `stats` and prints the twelve lines of the official evaluator."""
        if self.curves is None:
            raise RuntimeError("call accumulate() before summarize()")
        self.stats = summary_stats(self.curves.precision, self.curves.recall, self.params)
        print("\n".join(summary_lines(self.stats, self.params)))

    @property
    def ious(self) -> dict[tuple[int, int], np.ndarray]:
        """IoU of the tracks per (video, category), [D,G], predictions by falling score, truths in file order."""
        return {
            (self.params.vidIds[video], category): ious
            for category, matches in self.categories.items()
            for video, ious in matches.ious.items()
        }

    @property
    def evalImgs(self) -> list[dict | None]:
        """Matches per category, area range and video, in this order; None for a video without tracks.

        `gtIds` are the truths that are not ignored, then the ignored ones; matches are ids, 0 for none.
        """
        p = self.params
        categories, videos = p.catIds if p.useCats else [POOLED], range(len(p.vidIds))
        return [
            _describe_matches(self.categories[category], video, area, p) | {"category_id": category}
            if category in self.categories and video in self.categories[category].ious
            else None
            for category, area, video in product(categories, range(len(p.areaRng)), videos)
        ]

    def _group_annotations(self, annotations: list[dict]) -> dict[int, dict[int, list[dict]]]:
        """The tracks of the chosen videos and categories by category and place of the video, in file order.

        Without categories: by video, in the order of the categories, then of the file.
        """
        p = self.params
        places = {video: place for place, video in enumerate(p.vidIds)}
        ranks = {category: rank for rank, category in enumerate(p.catIds)}
        chosen = [a for a in annotations if a["video_id"] in places and a["category_id"] in ranks]
        if not p.useCats:
            chosen.sort(key=lambda annotation: ranks[annotation["category_id"]])
        groups = defaultdict(lambda: defaultdict(list))
        for annotation in chosen:
            category = annotation["category_id"] if p.useCats else POOLED
            groups[category][places[annotation["video_id"]]].append(annotation)
        return groups

    def _truths(self) -> dict[int, dict[int, list[dict]]]:
        """The true tracks; sets `avg_area` of each chosen annotation, from its `areas` and not its masks."""
        groups = self._group_annotations(self.cocoGt.dataset.get("annotations", []))
        for videos in groups.values():
            for annotation in (annotation for group in videos.values() for annotation in group):
                annotation["avg_area"] = mean_area(annotation["areas"])
            if self.params.iouType == "boundary":
                for video, group in videos.items():
                    videos[video] = [self._refined(annotation) for annotation in group]
        return groups

    def _refined(self, annotation: dict) -> dict:
        """The annotation with its `segmentations_refined` as the truth, if it has them, as in HQ-YTVIS' files."""
        masks = annotation.get("segmentations_refined")
        if masks is None:
            return annotation
        video = self.cocoGt.vids[annotation["video_id"]]
        where = f"{self.cocoGt.source}: annotation {annotation['id']}: segmentations_refined"
        masks, _ = read_track(masks, video.get("height"), video.get("width"), where)
        return {**annotation, "segmentations": masks}

    def _predictions(self) -> dict[int, dict[int, list[dict]]]:
        """The best predictions by falling score, file order on ties, as many as the largest limit."""
        groups = self._group_annotations(self.cocoDt.dataset.get("annotations", []))
        limit = self.params.maxDets[-1]
        for videos in groups.values():
            for video, group in videos.items():
                videos[video] = sorted(group, key=lambda prediction: -prediction["score"])[:limit]
        return groups

    def _warn_of_sizes(self) -> None:
        """Warns if masks differ in size, which is the usual reason for an AP of 0."""
        for category, matches in self.categories.items():
            for video in matches.mixed_videos:
                text = "video %s, category %s: masks differ in size; frames where tracks differ are ignored"
                logger.warning(text, self.params.vidIds[video], category)
                return


def _describe_matches(category: CategoryMatches, video: int, area: int, params: Params) -> dict[str, Any]:
    """One entry of `YTVOSeval.evalImgs`, for the video at place `video`."""
    truths, predictions = (np.flatnonzero(v == video) for v in (category.truth_videos, category.prediction_videos))
    prediction_ids = np.array([category.predictions[d]["id"] for d in predictions], np.int64)
    truth_ids = np.array([category.truths[g]["id"] for g in truths], np.int64)
    order = np.argsort(category.truth_ignored[area, truths], kind="stable")
    taken = category.matched[area][:, predictions]  # [T,D]
    taken = np.where(taken >= 0, np.searchsorted(truths, taken), -1)
    taken_by = np.zeros((len(taken), len(truths)), np.int64)
    for d, prediction_id in enumerate(prediction_ids):  # in order: of several matched to a crowd, the last is kept
        thresholds = np.flatnonzero(taken[:, d] >= 0)
        taken_by[thresholds, taken[thresholds, d]] = prediction_id
    return {
        "video_id": params.vidIds[video],
        "aRng": params.areaRng[area],
        "maxDet": params.maxDets[-1],
        "dtIds": prediction_ids.tolist(),
        "gtIds": truth_ids[order].tolist(),
        "dtMatches": np.where(taken >= 0, np.append(truth_ids, 0)[taken], 0),
        "gtMatches": taken_by[:, order],
        "dtScores": category.scores[predictions].tolist(),
        "gtIgnore": category.truth_ignored[area, truths][order],
        "dtIgnore": category.prediction_ignored[area][:, predictions],
    }


# ----------------------------------------------------------------------------------------------------------- results


@dataclass(frozen=True)
class Metrics:
    """The results of an evaluation, all in 0…1, -1 if there is nothing to measure.

    `stats` [12] are in the order of `STAT_NAMES`, `per_category` the same twelve by name for each category's name; the
    categories without true tracks share one dictionary. `curves` are those of the categories with true tracks, and
    `category_ids` the ids of all.
    """

    stats: np.ndarray
    per_category: dict[str, dict[str, float]]
    curves: Curves
    category_ids: list[int]

    @classmethod
    def of(cls, evaluation: YTVOSeval) -> Self:
        """Accumulates an evaluation after `evaluate()` and returns its metrics."""
        evaluation.accumulate()
        curves, params = evaluation.curves, evaluation.params
        names = evaluation.cocoGt.category_names()
        per_category = dict.fromkeys(names.values(), dict.fromkeys(STAT_NAMES, -1.0))
        for k, category in enumerate(curves.category_ids):
            stats = summary_stats(curves.precision[:, :, k : k + 1], curves.recall[:, k : k + 1], params)
            per_category[names[category]] = dict(zip(STAT_NAMES, stats.tolist(), strict=True))
        return cls(summary_stats(curves.precision, curves.recall, params), per_category, curves, list(names))

    @property
    def precision(self) -> np.ndarray:
        """[T,R,K,A,M] for all categories by ascending id, computed on access."""
        return self.curves.spread(self.curves.precision, self.category_ids)

    @property
    def recall(self) -> np.ndarray:
        """[T,K,A,M] for all categories by ascending id, computed on access."""
        return self.curves.spread(self.curves.recall, self.category_ids)


def evaluate_results(annotations: Truth, results: Results, iou_type: str = "segm") -> Metrics:
    """Returns the YouTube-VIS metrics of predictions, equal to those of the official evaluator.

    Takes an annotation file and a results file, their contents, or the objects returned by `load_pair`. `iou_type` is
    one of `IOU_TYPES`: "boundary" gives tube-boundary AP. No predictions give 0. Raises InputError for files that are
    missing or malformed, and for annotations without tracks.
    """
    evaluation = YTVOSeval(*load_pair(annotations, results), iou_type)
    evaluation.evaluate()
    return Metrics.of(evaluation)


def format_table(metrics: Metrics) -> str:
    """The twelve numbers, then those of each category with true tracks, in percent, as lines of text."""
    with_truth = {name: stats.values() for name, stats in metrics.per_category.items() if stats["AP"] > -1}
    return format_rows("category", [("all", metrics.stats), *with_truth.items()])


def format_rows(title: str, rows: Sequence[tuple[str, Iterable[float]]]) -> str:
    """Rows of the twelve numbers, each (name, numbers), in percent under a header; `title` is that of the names."""
    rows = [(short_name(name), values) for name, values in rows]
    width = max(len(name) for name in (title, *(name for name, _ in rows)))
    head = f"{title:<{width}}" + "".join(f"{name:>6}" for name in STAT_NAMES)
    cells = ("".join("     -" if value < 0 else f"{100 * value:6.1f}" for value in values) for _, values in rows)
    return "\n".join([head, *(f"{name:<{width}}{cell}" for (name, _), cell in zip(rows, cells, strict=True))])
