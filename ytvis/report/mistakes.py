"""The confusion of categories and the worst videos; tracks are matched regardless of their category.

Letters used in shapes: N predictions and G true tracks of all videos, T IoU thresholds.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ytvis.report.inputs import ReportInput
from ytvis.score.ap import POOLED, YTVOSeval

MOST_CATEGORIES = 40  # a larger matrix is reduced to the categories with the most mistakes
SHADES = 8  # of a cell in the matrix


@dataclass(frozen=True)
class PooledMatches:
    """The matches of all tracks: by falling score, each is matched to the free true object that it overlaps most.

    Categories do not matter, and crowds are treated as in AP. `scores`, `categories`, `videos` [N] are those of the
    predictions, `true_categories` and `true_videos` [G] those of the true objects, without crowds. `taken` [T,N] is the
    place of the object matched to a prediction, -1 if none; `counts` [T,N] is False for predictions matched to a crowd.
    """

    scores: np.ndarray
    categories: np.ndarray
    videos: np.ndarray
    true_categories: np.ndarray
    true_videos: np.ndarray
    taken: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, inputs: ReportInput) -> Self:
        evaluation = YTVOSeval(inputs.truth, inputs.results)
        evaluation.params.useCats = 0
        evaluation.evaluate()
        matches = evaluation.categories[POOLED]
        video_ids = np.array(evaluation.params.vidIds)
        is_object = ~matches.truth_ignored[0]
        # The place after the last one means no object: a crowd and -1 both lead there.
        places = np.append(np.where(is_object, np.cumsum(is_object) - 1, -1), -1)
        return cls(
            scores=matches.scores,
            categories=np.array([track["category_id"] for track in matches.predictions], np.int64),
            videos=video_ids[matches.prediction_videos],
            true_categories=np.array([track["category_id"] for track in matches.truths], np.int64)[is_object],
            true_videos=video_ids[matches.truth_videos][is_object],
            taken=places[matches.matched[0]],
            counts=~matches.prediction_ignored[0],
        )

    @property
    def is_right(self) -> np.ndarray:
        """[T,N] bool: whether the prediction matches an object of its category."""
        return (self.taken >= 0) & (np.append(self.true_categories, -1)[self.taken] == self.categories)


def best_cut(matches: PooledMatches) -> float:
    """The score at which the F1 of the tracks with at least this score, at an IoU of 0.5, is greatest.

    It is the lowest score if no track is right, and 0 without tracks.
    """
    if not matches.scores.size:
        return 0.0
    order = np.argsort(-matches.scores, kind="stable")
    scores, right, counts = (a[order] for a in (matches.scores, matches.is_right[0], matches.counts[0]))
    if not right.any():
        return float(scores[-1])
    f1 = 2 * np.cumsum(right) / (np.cumsum(counts) + len(matches.true_categories))
    is_last_of_equals = np.append(np.diff(scores) != 0, True)
    return float(scores[np.where(is_last_of_equals, f1, -1).argmax()])


def confusion(matches: PooledMatches, cut: float) -> Counter:
    """{(true category id, predicted category id): number of tracks}, at a tube IoU of 0.5 or more.

    Only tracks with a score of at least `cut` count. None as a category means no true object (a false track) or no
    track (a missed object).
    """
    cells: Counter = Counter()
    missed = set(range(len(matches.true_categories)))
    for prediction in np.flatnonzero((matches.scores >= cut) & matches.counts[0]):
        truth = int(matches.taken[0, prediction])
        missed.discard(truth)
        true_category = int(matches.true_categories[truth]) if truth >= 0 else None
        cells[true_category, int(matches.categories[prediction])] += 1
    for truth in missed:
        cells[int(matches.true_categories[truth]), None] += 1
    return cells


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix: the number of tracks, whether they are right, and its shade 0…`SHADES`."""

    count: int
    is_right: bool
    shade: int


@dataclass(frozen=True)
class Matrix:
    """The confusion of categories as a table.

    `columns` are the ids of the predicted categories, None at the end for missed objects; `rows` are (true category
    id, its cells), None at the end for tracks of no object, where the last cell is None. `left_out` is the number of
    categories that are not shown.
    """

    columns: list[int | None]
    rows: list[tuple[int | None, list[Cell | None]]]
    left_out: int


def confusion_matrix(confusion: Sequence[Mapping[str, Any]]) -> Matrix:
    """The table of the "confusion" in metrics.json; the shade of a cell is its share of the row."""
    counts = {(cell["true"], cell["predicted"]): cell["tracks"] for cell in confusion}
    chosen, left_out = shown_categories(counts)
    keys = [*chosen, None]
    rows = []
    for true in keys:
        total = sum(count for cell, count in counts.items() if cell[0] == true)
        row = [counts.get((true, key), 0) for key in keys]
        shades = [max(min(count, 1), round(SHADES * count / max(total, 1))) for count in row]
        cells = [Cell(n, true == key, shade) for n, key, shade in zip(row, keys, shades, strict=True)]
        rows.append((true, cells if true is not None else [*cells[:-1], None]))
    return Matrix(keys, rows, left_out)


def shown_categories(counts: Mapping[tuple[int | None, int | None], int]) -> tuple[list[int], int]:
    """(the ids of the categories in the matrix, the number of others): the matrix has those with the most mistakes."""
    mistakes = dict.fromkeys(sorted({key for cell in counts for key in cell} - {None}), 0)
    for cell, count in counts.items():
        for key in {*cell} - {None} if cell[0] != cell[1] else ():
            mistakes[key] += count
    chosen = sorted(mistakes, key=lambda key: -mistakes[key])[:MOST_CATEGORIES]
    return sorted(chosen), len(mistakes) - len(chosen)


def video_qualities(matches: PooledMatches, cut: float) -> dict[int, float]:
    """{video id: quality 0…1} of each video that has objects or tracks, worst first, equal ones by id.

    The quality is the F1 of the tracks with a score of at least `cut`, 2 · right / (tracks + true objects), as the mean
    over the protocol's IoU thresholds 0.5…0.95; a track is right if it matches an object of its category.
    """
    videos, places = np.unique(np.concatenate([matches.videos, matches.true_videos]), return_inverse=True)
    of_tracks, of_objects = np.split(places, [len(matches.videos)])
    counted = matches.counts & (matches.scores >= cut)

    def per_video(chosen: np.ndarray) -> np.ndarray:
        """The number of `chosen` [T,N] tracks of each video, [T,videos]."""
        return np.array([np.bincount(of_tracks[row], minlength=len(videos)) for row in chosen])

    total = per_video(counted) + np.bincount(of_objects, minlength=len(videos))
    right = per_video(counted & matches.is_right)
    is_measured = total.all(axis=0)
    means = (2 * right[:, is_measured] / total[:, is_measured]).mean(axis=0)
    qualities = zip(videos[is_measured].tolist(), means.tolist(), strict=True)
    return dict(sorted(qualities, key=lambda item: (item[1], item[0])))
