"""Tracking metrics on masks: HOTA and its parts, IDF1, and CLEAR's MOTA and ID switches.

AP measures whether whole tracks are right; these measure how well the objects of every frame are found and identified.
HOTA (Luiten et al., IJCV 2020) is the geometric mean of detection (DetA) and association (AssA), averaged over 19 IoU
thresholds; LocA is the mean IoU of the matches. IDF1 (Ristani et al., 2016) and CLEAR (Bernardin and Stiefelhagen,
2008) match at an IoU of 0.5. All numbers equal those of TrackEval, given the same tracks.

Tracks are compared within their category, video by video: a pair of video and category is a sequence. Predictions may
overlap, and each counts, so only those with a certain score are used. A crowd counts as any other object, as in
TrackEval; a mask without pixels is ignored.

Letters used in shapes: S sequences, G true tracks of a sequence, D its predicted ones, F frames, B resamples.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from typing import Self

import numpy as np

from ytvis.masks import Tubes, frame_overlaps
from ytvis.score.ytvos import YTVOS, Results, Truth, load_pair

ALPHAS = np.arange(0.05, 0.99, 0.05)  # as in TrackEval: a linspace differs in the last bit
MATCH_IOU = 0.5  # of IDF1 and CLEAR
EPS = np.finfo(float).eps  # tolerance of an IoU below a threshold
MOST_TRIED = 4  # most objects of a frame whose pairs are found by trying all ways
CLEARLY = 1e-9  # least difference between the best way and the next
KEEPING = 1000  # CLEAR: the worth, in IoU, of keeping the pair of the frame before
METRICS = (
    *("HOTA", "DetA", "AssA", "LocA", "DetRe", "DetPr", "AssRe", "AssPr"),
    *("IDF1", "IDR", "IDP", "MOTA", "IDSW", "Frag"),
)
RATES = tuple(name for name in METRICS if name not in ("IDSW", "Frag"))
# A track's score is a mean over frames of a probability times a centerness; both are seldom near 1.
SCORE_THRESHOLD = 0.3


# --------------------------------------------------------------------------------------------------------- sequences


@dataclass(frozen=True)
class Sequence:
    """The objects of one video and category, frame by frame.

    `ious` has [g,d] for each of F frames, float64, of the true and predicted objects that have a mask there; `truths`
    [g] in 0…G-1 and `tracks` [d] in 0…D-1 are their tracks. `num_truths` and `num_tracks` are G and D.
    """

    ious: list[np.ndarray]
    truths: list[np.ndarray]
    tracks: list[np.ndarray]
    num_truths: int
    num_tracks: int

    @classmethod
    def of(cls, truths: list[list[dict | None]], tracks: list[list[dict | None]]) -> Self:
        """The sequence of these tracks of compressed masks; it has as many frames as the longest track."""
        g_tubes, d_tubes = Tubes.of(truths), Tubes.of(tracks)
        frames = max(map(len, truths + tracks), default=0)
        intersection, union = frame_overlaps(g_tubes, d_tubes)
        ious = np.zeros((len(truths), len(tracks), frames))
        np.divide(intersection, union, out=ious[..., : union.shape[-1]], where=union > 0)
        ious = np.ascontiguousarray(ious.transpose(2, 0, 1))
        g_seen, d_seen = (
            [np.flatnonzero(seen) for seen in (tubes.by_frame(tubes.areas, frames, 0) > 0).T]
            for tubes in (g_tubes, d_tubes)
        )
        rows = [frame[np.ix_(g, d)] for frame, g, d in zip(ious, g_seen, d_seen, strict=True)]
        return cls(rows, g_seen, d_seen, len(truths), len(tracks))

    def frame_counts(self) -> tuple[np.ndarray, np.ndarray]:
        """The number of frames in which each true and each predicted track is visible, [G] and [D] float64."""
        return tuple(
            np.bincount(np.concatenate([[], *seen]).astype(np.int64), minlength=number).astype(float)
            for seen, number in ((self.truths, self.num_truths), (self.tracks, self.num_tracks))
        )


# ---------------------------------------------------------------------------------------------------------- counting


def best_pairs(worth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of `worth` [g,d] ≥ 0 that, paired one to one, have the greatest sum; by row, [n] and [n] int64.

    Pairs with a worth of 0 may be left out. Of several best solutions it is the one of scipy, as in TrackEval.
    """
    rows, columns = np.nonzero((worth == worth.max(axis=1, initial=0)[:, None]) & (worth > 0))
    if len(set(rows.tolist())) == len(set(columns.tolist())) == len(rows):
        return rows, columns  # the usual case: every row has one best column, and no two have the same
    if max(worth.shape) <= MOST_TRIED and (pairs := _best_of_all(worth)):
        return tuple(np.array(sorted(pairs)).T)
    from scipy.optimize import linear_sum_assignment  # imported here because the import takes longer than most scoring

    return linear_sum_assignment(worth, maximize=True)


def _best_of_all(worth: np.ndarray) -> set[tuple[int, int]]:
    """The pairs of `best_pairs` with a worth over 0, found by trying all ways; empty if the best one is not clear."""
    if len(worth) > worth.shape[1]:
        return {(row, column) for column, row in _best_of_all(worth.T)}
    ways = np.array(list(permutations(range(worth.shape[1]), len(worth))))
    sums = worth[np.arange(len(worth)), ways].sum(axis=1)
    found = {
        frozenset((row, column) for row, column in enumerate(way) if worth[row, column] > 0)
        for way in ways[sums > sums.max() - CLEARLY].tolist()
    }
    return set(found.pop()) if len(found) == 1 else set()


def count_hota(sequence: Sequence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`detection` [3,19] and `association` [4,19] of `TrackingCounts`, of one sequence, and of each of its true tracks
    [G,3,19]: true positives, false negatives, and the sum over the true positives of AssA."""
    g_frames, d_frames = sequence.frame_counts()
    # Objects of a frame are paired by how well their tracks agree in the whole video.
    shared = np.zeros((len(g_frames), len(d_frames)))
    for ious, g, d in zip(sequence.ious, sequence.truths, sequence.tracks, strict=True):
        rivals = ious.sum(0)[None] + ious.sum(1)[:, None] - ious
        shared[np.ix_(g, d)] += np.divide(ious, rivals, out=np.zeros_like(ious), where=rivals > EPS)
    either = g_frames[:, None] + d_frames - shared
    alignment = np.divide(shared, either, out=np.zeros_like(shared), where=either > 0)

    matches = np.zeros((len(ALPHAS), *shared.shape))
    localization = np.zeros(len(ALPHAS))
    for ious, g, d in zip(sequence.ious, sequence.truths, sequence.tracks, strict=True):
        rows, columns = best_pairs(alignment[np.ix_(g, d)] * ious)
        found = ious[rows, columns]
        is_match = found >= ALPHAS[:, None] - EPS
        matches[:, g[rows], d[columns]] += is_match
        localization += (found * is_match).sum(axis=1)
    true_positives = matches.sum(axis=(1, 2))
    detection = np.stack([true_positives, g_frames.sum() - true_positives, d_frames.sum() - true_positives])
    # Each match counts the matched frames of its pair of tracks by the frames of either, of the true, of the predicted.
    lengths = g_frames[:, None] + d_frames - matches, g_frames[:, None], d_frames
    association = [(matches * matches / np.maximum(1, length)).sum(axis=(1, 2)) for length in lengths]
    found = matches.sum(axis=2)
    shares = (matches * matches / np.maximum(1, lengths[0])).sum(axis=2)
    of_tracks = np.stack([found, g_frames - found, shares]).transpose(2, 0, 1)
    return detection, np.stack([*association, localization]), of_tracks


def count_identity(sequence: Sequence) -> np.ndarray:
    """`identity` [3] of `TrackingCounts`, of one sequence."""
    g_frames, d_frames = sequence.frame_counts()
    matches = np.zeros((len(g_frames), len(d_frames)))
    for ious, g, d in zip(sequence.ious, sequence.truths, sequence.tracks, strict=True):
        matches[np.ix_(g, d)] += ious >= MATCH_IOU
    # Every true track belongs to at most one predicted track; as many frames as possible agree.
    true_positives = matches[best_pairs(matches)].sum()
    return np.array([true_positives, g_frames.sum() - true_positives, d_frames.sum() - true_positives])


def count_clear(sequence: Sequence) -> np.ndarray:
    """`clear` [5] of `TrackingCounts`, of one sequence."""
    last, before, parts = (np.full(sequence.num_truths, fill) for fill in (-1, -1, 0))
    true_positives = switches = 0
    for ious, g, d in zip(sequence.ious, sequence.truths, sequence.tracks, strict=True):
        if not ious.size:
            continue  # as in TrackEval, frames without true or without predicted objects do not interrupt tracks
        worth = np.where(ious < MATCH_IOU - EPS, 0, ious + KEEPING * (before[g][:, None] == d))
        rows, columns = best_pairs(worth)
        is_match = worth[rows, columns] > EPS
        found, tracks = g[rows[is_match]], d[columns[is_match]]
        switches += np.count_nonzero((last[found] >= 0) & (last[found] != tracks))
        parts[found[before[found] < 0]] += 1
        before[:] = -1
        last[found] = before[found] = tracks
        true_positives += len(found)
    g_total, d_total = (frames.sum() for frames in sequence.frame_counts())
    fragmentations = np.maximum(parts - 1, 0).sum()
    return np.array(
        [true_positives, g_total - true_positives, d_total - true_positives, switches, fragmentations], float
    )


def hota_curves(detection: np.ndarray, association: np.ndarray) -> dict[str, np.ndarray]:
    """HOTA, DetA and AssA [...,19] at each IoU threshold, from `detection` [...,3,19] of `TrackingCounts` and the sums
    of AssA [...,19]."""
    found, missed, false = np.moveaxis(detection, -2, 0)
    det_a, ass_a = found / np.maximum(1, found + missed + false), association / np.maximum(1, found)
    return {"HOTA": np.sqrt(det_a * ass_a), "DetA": det_a, "AssA": ass_a}


@dataclass(frozen=True)
class TrackingCounts:
    """The sums that the metrics are computed from; those of several sequences are added.

    Leading axes are free, all float64; 19 are the IoU thresholds `ALPHAS`. `detection` [...,3,19]: true positives,
    false negatives, false positives. `association` [...,4,19]: the sums over the true positives of AssA, AssRe, AssPr
    and of the IoU. `identity` [...,3]: as `detection`, of IDF1. `clear` [...,5]: the same of CLEAR, then ID switches
    and fragmentations.
    """

    detection: np.ndarray
    association: np.ndarray
    identity: np.ndarray
    clear: np.ndarray

    def weighted(self, weights: np.ndarray) -> Self:
        """The sums [B,...] of counts [S,...] with `weights` [B,S]."""
        arrays = (self.detection, self.association, self.identity, self.clear)
        return type(self)(*(np.tensordot(weights.astype(float), array, axes=1) for array in arrays))

    def metrics(self) -> dict[str, np.ndarray]:
        """Each of `METRICS` by name, [...]; rates in 0…1 (MOTA below 0 too). nan without any object."""
        found, missed, false = np.moveaxis(self.detection, -2, 0)
        curves = {
            **hota_curves(self.detection, self.association[..., 0, :]),
            "DetRe": found / np.maximum(1, found + missed),
            "DetPr": found / np.maximum(1, found + false),
        }
        _, *association, localization = np.moveaxis(self.association, -2, 0)
        for name, values in zip(("AssRe", "AssPr"), association, strict=True):
            curves[name] = values / np.maximum(1, found)
        # TrackEval's convention: without matches the localisation is perfect.
        curves["LocA"] = np.maximum(1e-10, localization) / np.maximum(1e-10, found)
        values = {name: curve.mean(axis=-1) for name, curve in curves.items()}

        found, missed, false = np.moveaxis(self.identity, -1, 0)
        values["IDR"] = found / np.maximum(1, found + missed)
        values["IDP"] = found / np.maximum(1, found + false)
        values["IDF1"] = found / np.maximum(1, found + (missed + false) / 2)
        found, missed, false, switches, fragmentations = np.moveaxis(self.clear, -1, 0)
        values["MOTA"] = (found - false - switches) / np.maximum(1, found + missed)
        values["IDSW"], values["Frag"] = switches, fragmentations
        is_empty = found + missed + false == 0
        return {name: np.where(is_empty, np.nan, values[name]) for name in METRICS}


# ---------------------------------------------------------------------------------------------------------- evaluation


@dataclass(frozen=True)
class ObjectCounts:
    """The sums of HOTA for true tracks with the `ids` [O], each in one of `sequences` [O] int64; `counts` [O,3,19] as
    in `count_hota`."""

    ids: list[int]
    sequences: np.ndarray
    counts: np.ndarray

    @classmethod
    def cat(cls, parts: "list[ObjectCounts]") -> Self:
        """All tracks of `parts`."""
        sequences = np.concatenate([np.zeros(0, np.int64), *(part.sequences for part in parts)])
        counts = np.concatenate([np.zeros((0, 3, len(ALPHAS))), *(part.counts for part in parts)])
        return cls([track_id for part in parts for track_id in part.ids], sequences, counts)

    def of(self, ids: Iterable[int]) -> Self:
        """The tracks with these ids."""
        wanted = set(ids)
        rows = [row for row, track_id in enumerate(self.ids) if track_id in wanted]
        return type(self)([self.ids[row] for row in rows], self.sequences[rows], self.counts[rows])


@dataclass(frozen=True)
class GroupTracking:
    """HOTA, DetA and AssA of some true tracks; `Resampled`.

    Objects are matched as if all counted. A predicted object that matches a track of another group is ignored; one that
    matches nothing counts against every group: `false_positives` [S,19] of the sequences in the videos
    `video_ids[sequence_videos[s]]`.
    """

    video_ids: list[int]
    sequence_videos: np.ndarray
    false_positives: np.ndarray
    objects: ObjectCounts

    def overall(self) -> dict[str, float]:
        """The three rates by name, nan without any object."""
        values = self.statistics(np.ones((1, len(self.video_ids)), np.int64))
        return {name: float(value[0]) for name, value in values.items()}

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The three rates, [B] each, with video v counted `weights[b, v]` times; nan without any object."""
        sums = np.zeros((len(self.sequence_videos), 3, len(ALPHAS)))
        np.add.at(sums, self.objects.sequences, self.objects.counts)
        found, missed, association = np.moveaxis(sums, 1, 0)
        counts = np.stack([found, missed, self.false_positives, association], axis=1)
        totals = np.tensordot(weights[:, self.sequence_videos].astype(float), counts, axes=1)  # [B,4,19]
        curves = hota_curves(totals[:, :3], totals[:, 3])
        is_empty = (totals[:, 0] + totals[:, 1]).max(axis=1) == 0
        return {name: np.where(is_empty, np.nan, curve.mean(axis=-1)) for name, curve in curves.items()}


@dataclass(frozen=True)
class TrackingScores:
    """Tracking metrics of a set of videos, with the counts needed to weigh the videos differently.

    `counts` [S,...] are those of the sequences, which belong to the videos `video_ids[sequence_videos[s]]` and the
    categories of `category_names` with the ids `sequence_categories` [S]; both are int64. A video or a category without
    objects has no sequence. `objects` has the counts of the true tracks.
    """

    score_threshold: float
    video_ids: list[int]
    category_names: dict[int, str]
    counts: TrackingCounts
    sequence_videos: np.ndarray
    sequence_categories: np.ndarray
    objects: "ObjectCounts"

    def of_objects(self, object_ids: Iterable[int]) -> "GroupTracking":
        """HOTA of the true tracks with these ids alone; `GroupTracking` says what counts."""
        false_positives = self.counts.detection[:, 2]
        return GroupTracking(self.video_ids, self.sequence_videos, false_positives, self.objects.of(object_ids))

    def overall(self) -> dict[str, float]:
        """`METRICS` by name over the objects of all categories, -1 without any: TrackEval's "detection averaged"."""
        everything = np.ones((1, len(self.sequence_videos)))
        metrics = self.counts.weighted(everything).metrics()
        return {name: -1.0 if np.isnan(value[0]) else float(value[0]) for name, value in metrics.items()}

    def per_category(self) -> dict[str, dict[str, float]]:
        """`METRICS` by name for each category with true or predicted objects, by its name, in the file's order."""
        used = set(self.sequence_categories.tolist())
        ids = [category for category in self.category_names if category in used]
        own = np.array(ids, np.int64)[:, None] == self.sequence_categories
        metrics = self.counts.weighted(own).metrics()
        names = [self.category_names[category] for category in ids]
        return {name: {key: float(value[k]) for key, value in metrics.items()} for k, name in enumerate(names)}

    def statistics(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The rates of `overall`, [B] each, with video v counted `weights[b, v]` times; nan without any object."""
        metrics = self.counts.weighted(weights[:, self.sequence_videos]).metrics()
        return {name: metrics[name] for name in RATES}


def evaluate_tracking(annotations: Truth, results: Results, score_threshold: float = SCORE_THRESHOLD) -> TrackingScores:
    """Returns the tracking metrics of the predictions with at least this score.

    Takes an annotation file and a results file, their contents, or the objects returned by `load_pair`. The threshold
    matters: a track with a low score is a false positive here, while it hardly changes AP. Raises InputError like
    `evaluate_results`.
    """
    truth, predictions = load_pair(annotations, results)
    kept = [track for track in predictions.dataset["annotations"] if track["score"] >= score_threshold]
    truths, tracks = (_group(annotations, truth) for annotations in (truth.dataset["annotations"], kept))
    video_ids = sorted(truth.vids)
    places = {video: place for place, video in enumerate(video_ids)}
    keys, rows, objects = [], [], []
    for video, category in sorted(truths.keys() | tracks.keys()):
        both = (truths[video, category], tracks[video, category])
        sequence = Sequence.of(*([track["segmentations"] for track in group] for group in both))
        detection, association, of_tracks = count_hota(sequence)
        if detection.any():
            ids = [track["id"] for track in both[0]]
            objects.append(ObjectCounts(ids, np.full(len(ids), len(keys)), of_tracks))
            keys.append((places[video], category))
            rows.append((detection, association, count_identity(sequence), count_clear(sequence)))
    shapes = ((3, len(ALPHAS)), (4, len(ALPHAS)), (3,), (5,))
    sequence_videos, sequence_categories = np.array(keys, np.int64).reshape(-1, 2).T
    return TrackingScores(
        score_threshold=score_threshold,
        video_ids=video_ids,
        category_names=truth.category_names(),
        counts=TrackingCounts(*(np.array([row[i] for row in rows]).reshape(-1, *s) for i, s in enumerate(shapes))),
        sequence_videos=sequence_videos,
        sequence_categories=sequence_categories,
        objects=ObjectCounts.cat(objects),
    )


def _group(tracks: list[dict], truth: YTVOS) -> dict[tuple[int, int], list[dict]]:
    """The tracks by video and category, in file order; those of unknown ones are left out."""
    groups = defaultdict(list)
    for track in tracks:
        if track["video_id"] in truth.vids and track["category_id"] in truth.cats:
            groups[track["video_id"], track["category_id"]].append(track)
    return groups
