"""YouTube-VIS average precision and recall of tracks, without the evaluation server.

Gives the numbers of the official evaluator (youtubevos/cocoapi). The way of the data: `YTVOS` reads a file → tracks
are grouped by video and category → `tube_overlaps` → `match_tracks` → `precision_recall` → `summary_stats`. Use
`evaluate_results` for all of it, or `YTVOS` and `YTVOSeval`, which keep the official names, to look inside.

Letters used in shapes: D predictions of a group (a video and a category) by falling score, G true tracks of it,
T IoU thresholds, R recall thresholds, K categories, A area ranges, M limits on predictions.
"""

import json
import logging
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as mask_ops

from utils.structures import InputError

logger = logging.getLogger(__name__)

POOLED = -1  # the one pseudo-category of an evaluation with useCats = 0
NO_MASK = {"size": [0, 0], "counts": b""}
CERTAIN_IOU = 1 - 1e-10  # the highest IoU that may be asked of a match, so that identical tracks match at 1.0
EPS = np.spacing(1)  # part of the protocol: the precision of a single true positive is 1 / (1 + EPS)


class Statistic(NamedTuple):
    """One of the twelve numbers: of precision or recall, at one IoU or all (None), for one area range, and the limit
    on predictions: its place among the three, or None for the limit of exactly 100."""

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
    """What is evaluated and how, under the official names; to be changed before `evaluate()`.

    `areaRng` are ranges of a track's mean mask area in pixels, both ends included, named by `areaRngLbl`. `maxDets`
    limit the predictions per video and category. `useCats` 0 pools all categories into one.
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


# --------------------------------------------------------------------------------------------------------- reading


def _read_json(path: str | os.PathLike) -> Any:
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: is not a JSON file ({error})") from error


def _require_keys(items: Any, keys: tuple[str, ...], source: str, what: str) -> None:
    """Raises InputError unless `items` is a list of dicts that all have `keys`."""
    if not isinstance(items, list):
        raise InputError(f"{source}: {what}s must be a list, not {type(items).__name__}")
    for number, item in enumerate(items):
        missing = [key for key in keys if key not in item] if isinstance(item, dict) else keys
        if missing:
            raise InputError(f"{source}: {what} number {number} has no {' and no '.join(map(repr, missing))}")


def _is_cut_off(counts: str | bytes) -> bool:
    """Whether a run-length string ends inside a number; the mask library would read on behind its end."""
    last = counts[-1:].encode() if isinstance(counts, str) else counts[-1:]
    return bool(last) and bool((last[-1] - 48) & 0x20)


def compress_mask(segmentation: Any, height: int, width: int) -> dict | None:
    """One mask as compressed RLE `{"size": [h, w], "counts": ...}`; None if there is no mask (None or []).

    Takes compressed and uncompressed RLE and a list of polygons [x1, y1, x2, y2, ...] in pixels, whose union is
    drawn at `height`×`width`. Raises ValueError, TypeError or OverflowError for anything else.
    """
    if segmentation is None or segmentation == []:
        return None
    if isinstance(segmentation, list):
        if not isinstance(segmentation[0], list) or len(segmentation[0]) < 6:
            # The library takes a list that starts with four numbers for boxes.
            raise ValueError("a polygon has fewer than three points")
        return mask_ops.merge(mask_ops.frPyObjects(segmentation, height, width))
    if not isinstance(segmentation, dict) or "size" not in segmentation or "counts" not in segmentation:
        raise ValueError("a mask must be RLE (size and counts) or a list of polygons")
    if len(segmentation["size"]) != 2:
        raise ValueError("the size of a mask must be its height and width")
    if isinstance(segmentation["counts"], list):
        return mask_ops.frPyObjects(segmentation, height, width)
    if not isinstance(segmentation["counts"], str | bytes) or _is_cut_off(segmentation["counts"]):
        raise ValueError("the counts of a mask are not a whole run-length string")
    return segmentation


def compress_masks(segmentations: Any, video: dict, where: str) -> list[dict | None]:
    """The frames of a track as `compress_mask` gives them; raises InputError that starts with `where`."""
    if not isinstance(segmentations, list | tuple):
        raise InputError(f"{where}: segmentations must be a list with one entry a frame")
    masks = []
    for frame, segmentation in enumerate(segmentations):
        try:
            masks.append(compress_mask(segmentation, video.get("height"), video.get("width")))
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"{where}, frame {frame}: {error}") from error
    return masks


def mask_areas(masks: list[dict]) -> np.ndarray:
    """Pixels in each compressed mask, [len(masks)]."""
    # In batches, because pycocotools 2.0.11 with numpy 2 fails on more than 255 at a time.
    parts = [mask_ops.area(masks[start : start + 255]) for start in range(0, len(masks), 255)]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint32)


def mean_area(areas: Iterable[float | None]) -> float:
    """Mean over the frames where a track is visible, in pixels; 0 if it never is."""
    visible = [area for area in areas if area]
    return float(np.mean(visible)) if visible else 0.0


def _as_list(value: Any) -> list:
    """`value` itself if it holds several, else a list of it alone: filters take both."""
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]


class YTVOS:
    """A YouTube-VIS annotation file, or predictions on its videos, with the official query interface.

    Filters of the `get...Ids` take one value or several, and an empty list filters nothing; unknown ids find nothing
    there and raise KeyError in `load...`. `dataset` is the content of the file with all masks compressed, `anns`,
    `cats`, `vids` find its parts by id, `vidToAnns` and `catToVids` connect them. Raises InputError for a file that is
    not of that format.
    """

    def __init__(self, annotation_file: str | os.PathLike | dict | None = None):
        self.source = "annotations" if isinstance(annotation_file, dict) else str(annotation_file)
        self.dataset: dict = {}
        if annotation_file is not None:
            dataset = annotation_file if isinstance(annotation_file, dict) else _read_json(annotation_file)
            if not isinstance(dataset, dict):
                raise InputError(f"{self.source}: must hold an object with videos, categories and annotations")
            _require_keys(dataset.get("videos"), ("id",), self.source, "video")
            _require_keys(dataset.get("categories"), ("id", "name"), self.source, "category")
            self.dataset = dict(dataset)
            if "annotations" in dataset:  # the sets that are scored by a server have none
                keys = ("id", "video_id", "category_id", "segmentations", "areas")
                _require_keys(dataset["annotations"], keys, self.source, "annotation")
                videos = {video["id"]: video for video in dataset["videos"]}
                self.dataset["annotations"] = [self._annotation(a, videos) for a in dataset["annotations"]]
        self.createIndex()

    def _annotation(self, annotation: dict, videos: dict[int, dict]) -> dict:
        """A copy of an annotation with compressed masks, which take a tenth of the memory of lists of runs."""
        video = videos.get(annotation["video_id"])
        if video is None:  # then it takes part in nothing, and its polygons have no size
            return dict(annotation)
        where = f"{self.source}: annotation {annotation['id']}"
        return {**annotation, "segmentations": compress_masks(annotation["segmentations"], video, where)}

    def createIndex(self) -> None:
        """Rebuilds the lookups from `dataset`."""
        self.anns = {annotation["id"]: annotation for annotation in self.dataset.get("annotations", [])}
        self.cats = {category["id"]: category for category in self.dataset.get("categories", [])}
        self.vids = {video["id"]: video for video in self.dataset.get("videos", [])}
        self.vidToAnns, self.catToVids = defaultdict(list), defaultdict(list)
        for annotation in self.dataset.get("annotations", []):
            self.vidToAnns[annotation["video_id"]].append(annotation)
            self.catToVids[annotation["category_id"]].append(annotation["video_id"])

    def getAnnIds(self, vidIds=(), catIds=(), areaRng=(), iscrowd: bool | int | None = None) -> list[int]:
        """Ids of the tracks in these videos, of these categories, with lo < mean area < hi, crowd or not.

        The mean area of annotations is known after an evaluation only; before, `areaRng` raises KeyError.
        """
        videos, categories = _as_list(vidIds), _as_list(catIds)
        if videos:
            tracks = [track for video in dict.fromkeys(videos) for track in self.vidToAnns.get(video, [])]
        else:
            tracks = self.dataset.get("annotations", [])
        if categories:
            tracks = [track for track in tracks if track["category_id"] in categories]
        if len(areaRng):
            tracks = [track for track in tracks if areaRng[0] < track["avg_area"] < areaRng[1]]
        if iscrowd is not None:
            tracks = [track for track in tracks if track.get("iscrowd", 0) == iscrowd]
        return [track["id"] for track in tracks]

    def getCatIds(self, catNms=(), supNms=(), catIds=()) -> list[int]:
        """Ids of the categories with these names, super-categories and ids, in the file's order."""
        wanted = {"name": _as_list(catNms), "supercategory": _as_list(supNms), "id": _as_list(catIds)}
        return [
            category["id"]
            for category in self.dataset.get("categories", [])
            if all(not values or category.get(key) in values for key, values in wanted.items())
        ]

    def getVidIds(self, vidIds=(), catIds=()) -> list[int]:
        """Ids of the videos among `vidIds` that hold tracks of all of `catIds`."""
        wanted = _as_list(vidIds)
        videos = [video for video in self.vids if not wanted or video in wanted]
        sought = [set(self.catToVids.get(category, ())) for category in _as_list(catIds)]
        return [video for video in videos if all(video in holders for holders in sought)]

    def loadAnns(self, ids=()) -> list[dict]:
        """The tracks with these ids, in their order."""
        return [self.anns[i] for i in _as_list(ids)]

    def loadCats(self, ids=()) -> list[dict]:
        """The categories with these ids, in their order."""
        return [self.cats[i] for i in _as_list(ids)]

    def loadVids(self, ids=()) -> list[dict]:
        """The videos with these ids, in their order."""
        return [self.vids[i] for i in _as_list(ids)]

    def annToRLE(self, ann: dict, frameId: int) -> dict | None:
        """A track's mask on a frame as compressed RLE; None where it is not visible."""
        video = self.vids.get(ann["video_id"], {})
        return compress_masks([ann["segmentations"][frameId]], video, f"{self.source}: track {ann['id']}")[0]

    def annToMask(self, ann: dict, frameId: int) -> np.ndarray:
        """A track's mask on a frame, [height, width] uint8 0 or 1."""
        rle = self.annToRLE(ann, frameId)
        if rle is None:
            video = self.vids[ann["video_id"]]
            return np.zeros((video["height"], video["width"]), np.uint8)
        return mask_ops.decode(rle)

    def loadRes(self, resFile: str | os.PathLike | list[dict]) -> "YTVOS":
        """The predictions of a results file, or of a list as it would hold, on the videos of this object.

        Each gets `id` 1, 2, ... in order, `areas` (pixels per frame, None without a mask), `avg_area`, `iscrowd` 0
        and `bboxes` (x y width height per frame; given ones are kept). An empty list gives no predictions. Raises
        InputError for anything else than predictions on known videos.
        """
        is_list = isinstance(resFile, list | tuple)
        source = "results" if is_list else str(resFile)
        predictions = list(resFile) if is_list else _read_json(resFile)
        _require_keys(predictions, ("video_id", "category_id", "score", "segmentations"), source, "prediction")
        results = YTVOS()
        results.source = source
        results.dataset = {
            "videos": list(self.dataset.get("videos", [])),
            "categories": [dict(category) for category in self.dataset.get("categories", [])],
            "annotations": [self._prediction(p, number, source) for number, p in enumerate(predictions)],
        }
        results.createIndex()
        return results

    def _prediction(self, prediction: dict, number: int, source: str) -> dict:
        """A prediction with the fields that `loadRes` adds."""
        where = f"{source}: prediction number {number}"
        if prediction["video_id"] not in self.vids:
            raise InputError(f"{where} is on video {prediction['video_id']}, which {self.source} does not have")
        if not isinstance(prediction["score"], int | float | np.number) or not math.isfinite(prediction["score"]):
            raise InputError(f"{where} has the score {prediction['score']!r}, which is not a finite number")
        masks = compress_masks(prediction["segmentations"], self.vids[prediction["video_id"]], where)
        present = [mask for mask in masks if mask is not None]
        present_areas = iter(mask_areas(present).tolist())
        present_boxes = iter(mask_ops.toBbox(present).tolist() if present else ())
        areas = [None if mask is None else next(present_areas) for mask in masks]
        boxes = [None if mask is None else next(present_boxes) for mask in masks]
        given = list(prediction.get("bboxes") or [])
        return {
            **prediction,
            "id": number + 1,
            "segmentations": masks,
            "areas": areas,
            "avg_area": mean_area(areas),
            "bboxes": given + boxes[len(given) :],
            "iscrowd": 0,
        }


# ---------------------------------------------------------------------------------------------------- IoU of tracks


@dataclass(frozen=True)
class Track:
    """A predicted or true track ready for comparison.

    `area` is its mean area and decides its area range. Per frame: `masks` compressed RLE (`NO_MASK` where not
    visible), `frame_areas` float64 pixels, `frame_sizes` int64, one number for height and width, 0 without a mask.
    """

    id: int
    score: float
    area: float
    is_crowd: bool
    masks: list[dict]
    frame_areas: np.ndarray
    frame_sizes: np.ndarray


def make_track(annotation: dict, masks: list[dict | None], frame_areas: Iterable[float | None]) -> Track:
    """The annotation, or the loaded prediction, as a `Track`; its `avg_area` must be set."""
    sizes = [0 if mask is None else (int(mask["size"][0]) << 32) + int(mask["size"][1]) for mask in masks]
    return Track(
        id=annotation["id"],
        score=annotation.get("score", 0.0),
        area=annotation["avg_area"],
        is_crowd=bool(annotation.get("iscrowd", 0)),
        masks=[NO_MASK if mask is None else mask for mask in masks],
        frame_areas=np.array([area or 0 for area in frame_areas], np.float64),
        frame_sizes=np.array(sizes, np.int64),
    )


def _stack_frames(rows: list[np.ndarray], frames: int, fill: float) -> np.ndarray:
    """Arrays of different lengths as one [len(rows), frames], cut or filled up at the end."""
    stacked = np.full((len(rows), frames), fill, rows[0].dtype)
    for place, row in zip(stacked, rows, strict=True):
        place[: len(row)] = row[:frames]
    return stacked


def tube_overlaps(predictions: list[Track], truths: list[Track]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels in the intersection and in the union of every pair, summed over frames, both [D,G] float64.

    Frames behind the end of the shorter track of a pair count nowhere, nor do those where the two masks are of
    different size. Either list may be empty.
    """
    frames = min(max((len(track.masks) for track in tracks), default=0) for tracks in (predictions, truths))
    if not frames:
        return np.zeros((2, len(predictions), len(truths)))
    d_areas, g_areas = (_stack_frames([t.frame_areas for t in tracks], frames, 0) for tracks in (predictions, truths))
    d_sizes, g_sizes = (_stack_frames([t.frame_sizes for t in tracks], frames, -1) for tracks in (predictions, truths))
    d_sizes, g_sizes = d_sizes[:, None], g_sizes[None]
    # Behind its end a track has the size -1, which is that of no mask, and the area 0.
    is_compared = (d_sizes == g_sizes) | (d_sizes == 0) | (g_sizes == 0)
    total = np.where(is_compared, d_areas[:, None] + g_areas[None], 0)
    # Both are integers, so rounding undoes the one division that the library makes.
    frame_ious = _frame_ious(predictions, truths, frames)
    intersection = np.rint(frame_ious * total / (1 + frame_ious))
    return intersection.sum(-1), (total - intersection).sum(-1)


def _frame_ious(predictions: list[Track], truths: list[Track], frames: int) -> np.ndarray:
    """IoU on each frame alone, [D,G,frames]; 0 where one of a pair has no mask or the masks differ in size."""
    ious = np.zeros((frames, len(predictions), len(truths)))
    d_frames, g_frames = (
        zip_longest(*(track.masks for track in tracks), fillvalue=NO_MASK) for tracks in (predictions, truths)
    )
    not_crowd = [0] * len(truths)
    for place, d_masks, g_masks in zip(ious, d_frames, g_frames, strict=False):
        place[:] = mask_ops.iou(list(d_masks), list(g_masks), not_crowd)
    return np.maximum(ious, 0).transpose(1, 2, 0)  # the library says -1 of masks of different size


# --------------------------------------------------------------------------------------------------------- matching


@dataclass(frozen=True)
class Group:
    """The tracks of one video and category, compared and matched.

    `predictions` [D] by falling score, `truths` [G] in file order, `ious` [D,G]. `matched` [A,T,D] is the index of
    the truth that a prediction took, -1 if none; `prediction_ignored` [A,T,D] and `truth_ignored` [A,G] bool say what
    counts neither for nor against.
    """

    predictions: list[Track]
    truths: list[Track]
    ious: np.ndarray
    matched: np.ndarray
    prediction_ignored: np.ndarray
    truth_ignored: np.ndarray


def _is_outside(tracks: list[Track], area_ranges: np.ndarray) -> np.ndarray:
    """[A, tracks] bool: the track's mean area does not lie in the range."""
    areas = np.array([track.area for track in tracks], np.float64)
    return (areas < area_ranges[:, :1]) | (areas > area_ranges[:, 1:])


def match_tracks(ious: np.ndarray, is_crowd: np.ndarray, truth_ignored: np.ndarray, thresholds: np.ndarray):
    """Index of the truth that each prediction takes, -1 if none: [A,T,D] int64.

    For every area range and threshold alone, predictions choose in order (rows of `ious` [D,G]). A prediction takes
    the truth of highest IoU that reaches the threshold and is free; any that is not ignored before one that is
    (`truth_ignored` [A,G]), and the later of equals. A crowd (`is_crowd` [G]) is never used up.
    """
    ranges, (predictions, truths) = len(truth_ignored), ious.shape
    matched = np.full((ranges, len(thresholds), predictions), -1)
    reaches = ious >= np.minimum(thresholds, CERTAIN_IOU)[:, None, None]  # [T,D,G]
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


def compare_tracks(predictions: list[Track], truths: list[Track], params: Params) -> Group:
    """The tracks of one video and category, compared and matched."""
    intersection, union = tube_overlaps(predictions, truths)
    ious = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    area_ranges = np.asarray(params.areaRng, np.float64)
    is_crowd = np.array([track.is_crowd for track in truths], bool)
    truth_ignored = is_crowd | _is_outside(truths, area_ranges)
    matched = match_tracks(ious, is_crowd, truth_ignored, np.asarray(params.iouThrs))
    ranges = np.arange(len(area_ranges))[:, None, None]
    # Unmatched predictions look at a last column, which says whether they are outside the range themselves.
    is_outside = np.broadcast_to(_is_outside(predictions, area_ranges)[:, None], matched.shape)
    took_ignored = np.pad(truth_ignored, ((0, 0), (0, 1)))[ranges, matched]
    prediction_ignored = np.where(matched >= 0, took_ignored, is_outside)
    return Group(predictions, truths, ious, matched, prediction_ignored, truth_ignored)


# ------------------------------------------------------------------------------------------------ precision, recall


def precision_recall(groups: list[Group], params: Params) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision [T,R,A,M], recall [T,A,M] and score [T,R,A,M] at the recall thresholds, of one category.

    `groups` are its videos, in the order that breaks ties of scores. -1 for an area range without true tracks, 0 at a
    recall that is not reached.
    """
    shape = (len(params.iouThrs), len(params.recThrs), len(params.areaRng), len(params.maxDets))
    precision, scores, recall = -np.ones(shape), -np.ones(shape), -np.ones((shape[0], *shape[2:]))
    if not groups:
        return precision, recall, scores
    all_scores = np.array([track.score for group in groups for track in group.predictions], np.float64)
    order = np.argsort(-all_scores, kind="stable")
    place_in_video = np.concatenate([np.arange(len(group.predictions)) for group in groups])[order]
    is_hit = np.concatenate([group.matched for group in groups], axis=-1)[..., order] >= 0
    counts = ~np.concatenate([group.prediction_ignored for group in groups], axis=-1)[..., order]
    truths = np.concatenate([~group.truth_ignored for group in groups], axis=-1).sum(axis=-1)
    for area, limit in product(np.flatnonzero(truths), range(len(params.maxDets))):
        is_kept = place_in_video < params.maxDets[limit]
        hits, misses = (counts[area] & sign[area] for sign in (is_hit, ~is_hit))
        curve = _curve(hits[:, is_kept], misses[:, is_kept], truths[area], all_scores[order][is_kept], params.recThrs)
        precision[..., area, limit], recall[..., area, limit], scores[..., area, limit] = curve
    return precision, recall, scores


def _curve(hits: np.ndarray, misses: np.ndarray, truths: int, scores: np.ndarray, recall_thresholds: np.ndarray):
    """Precision [T,R], last recall [T] and score [T,R] of a list of predictions by falling score.

    `hits` and `misses` [T,N] bool (neither: ignored), `scores` [N], `truths` the number of tracks to find.
    """
    true_positives, false_positives = np.cumsum(hits, axis=1, dtype=float), np.cumsum(misses, axis=1, dtype=float)
    recall = true_positives / truths
    precision = true_positives / (false_positives + true_positives + EPS)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # Behind the end both are 0: a recall that is not reached.
    precision, scores = np.pad(precision, ((0, 0), (0, 1))), np.append(scores, 0)
    places = np.array([np.searchsorted(row, recall_thresholds, side="left") for row in recall])
    last_recall = recall[:, -1] if recall.shape[1] else np.zeros(len(recall))
    return np.take_along_axis(precision, places, axis=1), last_recall, scores[places]


def _mean_of_valid(values: np.ndarray) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0


def summary_stats(precision: np.ndarray, recall: np.ndarray, params: Params) -> np.ndarray:
    """The twelve numbers of `STAT_NAMES`, float64 [12], of precision [T,R,K,A,M] and recall [T,K,A,M].

    Each is the mean over all that is not -1, and -1 if there is nothing. Raises InputError unless there are three
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
    """The twelve lines that the official evaluator prints."""
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

    Change `params` if need be, then call `evaluate()`, `accumulate()`, `summarize()`. `ious` maps (video, category) to
    [D,G]. `eval` holds `precision` and `scores` [T,R,K,A,M], `recall` [T,K,A,M] and `counts`, [T,R,K,A,M] as numbers;
    `stats` the twelve numbers of `STAT_NAMES`. Raises InputError for a kind of IoU other than "segm".
    """

    def __init__(self, cocoGt: YTVOS, cocoDt: YTVOS, iouType: str = "segm"):
        self.cocoGt, self.cocoDt = cocoGt, cocoDt
        self.params = Params(iouType, sorted(cocoGt.getVidIds()), sorted(cocoGt.getCatIds()))
        self.eval: dict[str, Any] = {}
        self.stats = np.zeros(0)
        self._groups: dict[tuple[int, int], Group] = {}
        self._pooled_categories: list[int] = []

    def evaluate(self) -> None:
        """Compares and matches the tracks of every video and category."""
        p = self.params
        if p.iouType != "segm":
            raise InputError(f"YouTube-VIS evaluation compares masks ('segm'); {p.iouType!r} is not supported")
        if list(p.catIds) == [POOLED] and self._pooled_categories:
            p.catIds = self._pooled_categories  # `accumulate` has put the pseudo-category in their place
        p.vidIds, p.maxDets = sorted(set(p.vidIds)), sorted(p.maxDets)
        p.catIds = sorted(set(p.catIds)) if p.useCats else list(dict.fromkeys(p.catIds))
        truths, predictions = self._truths(), self._predictions()
        self._groups = {
            key: compare_tracks(predictions.get(key, []), truths.get(key, []), p)
            for key in product(p.vidIds, p.catIds if p.useCats else [POOLED])
            if key in truths or key in predictions
        }
        self._warn_of_sizes()

    def accumulate(self) -> None:
        """Fills `eval` with the precision and recall of every category."""
        p = self.params
        if not p.useCats and list(p.catIds) != [POOLED]:
            self._pooled_categories, p.catIds = p.catIds, [POOLED]
        curves = []
        for category in p.catIds:
            keys = ((video, category) for video in p.vidIds)
            curves.append(precision_recall([self._groups[key] for key in keys if key in self._groups], p))
        counts = [len(values) for values in (p.iouThrs, p.recThrs, p.catIds, p.areaRng, p.maxDets)]
        shapes = (counts, [counts[0], *counts[2:]], counts)
        arrays = [np.empty(shape) for shape in shapes]
        for k, curve in enumerate(curves):
            for array, values in zip(arrays, curve, strict=True):
                array[..., k, :, :] = values
        self.eval = dict(zip(("precision", "recall", "scores"), arrays, strict=True)) | {"counts": counts, "params": p}

    def summarize(self) -> None:
        """Fills `stats` and prints the twelve lines of the official evaluator."""
        if not self.eval:
            raise RuntimeError("call accumulate() before summarize()")
        self.stats = summary_stats(self.eval["precision"], self.eval["recall"], self.params)
        print("\n".join(summary_lines(self.stats, self.params)))

    @property
    def ious(self) -> dict[tuple[int, int], np.ndarray]:
        """IoU of the tracks per (video, category), [D,G], predictions by falling score, truths in file order."""
        return {key: group.ious for key, group in self._groups.items()}

    @property
    def evalImgs(self) -> list[dict | None]:
        """Matches per category, area range and video, in this order; None where there is no track.

        Truths (`gtIds`) are those that count, then the ignored ones; matches are ids, 0 for none.
        """
        p = self.params
        categories = p.catIds if p.useCats else [POOLED]
        return [
            _describe_matches(self._groups[video, category], video, category, area, p)
            if (video, category) in self._groups
            else None
            for category, area, video in product(categories, range(len(p.areaRng)), p.vidIds)
        ]

    def _group_annotations(self, annotations: list[dict]) -> dict[tuple[int, int], list[dict]]:
        """The tracks of the chosen videos and categories per (video, category), in file order.

        Without categories: per video, in the order of the categories, then of the file.
        """
        p = self.params
        videos, ranks = set(p.vidIds), {category: rank for rank, category in enumerate(p.catIds)}
        chosen = [a for a in annotations if a["video_id"] in videos and a["category_id"] in ranks]
        if not p.useCats:
            chosen.sort(key=lambda annotation: ranks[annotation["category_id"]])
        groups = defaultdict(list)
        for annotation in chosen:
            groups[annotation["video_id"], annotation["category_id"] if p.useCats else POOLED].append(annotation)
        return groups

    def _truths(self) -> dict[tuple[int, int], list[Track]]:
        """The true tracks; gives each chosen annotation its `avg_area`, from its `areas` field and not its masks."""
        groups = self._group_annotations(self.cocoGt.dataset.get("annotations", []))
        return {key: [self._truth(annotation) for annotation in group] for key, group in groups.items()}

    def _truth(self, annotation: dict) -> Track:
        annotation["avg_area"] = mean_area(annotation["areas"])
        masks = annotation["segmentations"]
        return make_track(annotation, masks, mask_areas([mask or NO_MASK for mask in masks]))

    def _predictions(self) -> dict[tuple[int, int], list[Track]]:
        """The best predictions by falling score, file order on ties, as many as the largest limit."""
        groups = self._group_annotations(self.cocoDt.dataset.get("annotations", []))
        limit = self.params.maxDets[-1]
        return {
            key: [
                make_track(prediction, prediction["segmentations"], prediction["areas"])
                for prediction in sorted(group, key=lambda prediction: -prediction["score"])[:limit]
            ]
            for key, group in groups.items()
        }

    def _warn_of_sizes(self) -> None:
        """Says so if masks differ in size, which is the usual reason for an AP of 0."""
        for (video, category), group in self._groups.items():
            tracks = group.predictions + group.truths
            if len({size for track in tracks for size in track.frame_sizes.tolist()} - {0}) > 1:
                text = "video %s, category %s: masks differ in size; frames where a pair of tracks does count nowhere"
                logger.warning(text, video, category)
                return


def _describe_matches(group: Group, video: int, category: int, area: int, params: Params) -> dict[str, Any]:
    """One entry of `YTVOSeval.evalImgs`."""
    order = np.argsort(group.truth_ignored[area], kind="stable")
    prediction_ids = np.array([track.id for track in group.predictions], np.int64)
    truth_ids = np.array([track.id for track in group.truths], np.int64)
    matched = group.matched[area]  # [T,D]
    taken_by = np.zeros((len(matched), len(truth_ids)), np.int64)
    for d, prediction_id in enumerate(prediction_ids):  # in order: the last that took a crowd stays
        thresholds = np.flatnonzero(matched[:, d] >= 0)
        taken_by[thresholds, matched[thresholds, d]] = prediction_id
    return {
        "video_id": video,
        "category_id": category,
        "aRng": params.areaRng[area],
        "maxDet": params.maxDets[-1],
        "dtIds": prediction_ids.tolist(),
        "gtIds": truth_ids[order].tolist(),
        "dtMatches": np.where(matched >= 0, np.append(truth_ids, 0)[matched], 0),
        "gtMatches": taken_by[:, order],
        "dtScores": [track.score for track in group.predictions],
        "gtIgnore": group.truth_ignored[area][order],
        "dtIgnore": group.prediction_ignored[area],
    }


# ----------------------------------------------------------------------------------------------------------- results


@dataclass(frozen=True)
class Metrics:
    """What an evaluation says, all in 0...1, -1 where there is nothing to measure.

    `stats` [12] in the order of `STAT_NAMES`; `per_category` the same twelve by name for each category's name;
    `precision` [T,R,K,A,M] and `recall` [T,K,A,M] with the categories by ascending id.
    """

    stats: np.ndarray
    per_category: dict[str, dict[str, float]]
    precision: np.ndarray
    recall: np.ndarray


def evaluate_results(
    annotations: str | os.PathLike | dict, results: str | os.PathLike | list[dict], iou_type: str = "segm"
) -> Metrics:
    """The YouTube-VIS metrics of predictions, as the official evaluator would give them.

    Takes an annotation file and a results file, or their contents. No predictions give 0. Raises InputError for files
    that are missing or malformed, and for annotations that hold no tracks to compare with.
    """
    truth = YTVOS(annotations)
    if "annotations" not in truth.dataset:
        raise InputError(f"{truth.source}: has no annotations to compare with; such a set is scored by its server only")
    evaluation = YTVOSeval(truth, truth.loadRes(results), iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall, params = evaluation.eval["precision"], evaluation.eval["recall"], evaluation.params
    per_category = {}
    for k, category in enumerate(truth.loadCats(params.catIds)):
        is_known = category["name"] in per_category
        name = f"{category['name']} ({category['id']})" if is_known else category["name"]
        stats = summary_stats(precision[:, :, k : k + 1], recall[:, k : k + 1], params)
        per_category[name] = dict(zip(STAT_NAMES, stats.tolist(), strict=True))
    return Metrics(summary_stats(precision, recall, params), per_category, precision, recall)


def format_table(metrics: Metrics) -> str:
    """The twelve numbers, then those of each category with true tracks, in percent, as lines of text."""
    with_truth = {name: stats for name, stats in metrics.per_category.items() if stats["AP"] > -1}
    width = max(map(len, ("category", *with_truth)))

    def row(name: str, values: Iterable[float]) -> str:
        return f"{name:<{width}}" + "".join("     -" if value < 0 else f"{100 * value:6.1f}" for value in values)

    def rows() -> Iterator[str]:
        yield f"{'category':<{width}}" + "".join(f"{name:>6}" for name in STAT_NAMES)
        yield row("all", metrics.stats)
        for name, stats in with_truth.items():
            yield row(name, stats.values())

    return "\n".join(rows())
