"""Scores of some videos, and of all categories as one, against the official evaluator's options for these."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.ytvis.score.test_tracking import A, B, dataset, prediction
from ytvis.score import YTVOS, YTVOSeval, evaluate_results
from ytvis.score.selection import pool_categories, restrict
from ytvis.score.tracking import evaluate_tracking

SMALL = Path(__file__).parents[2] / "fixtures" / "evaluator" / "open" / "small"


@pytest.fixture
def pair() -> tuple[YTVOS, YTVOS]:
    truth = YTVOS(SMALL / "gt.json")
    return truth, truth.loadRes(SMALL / "pred.json")


def official(pair, **params) -> np.ndarray:
    """The twelve numbers with these of the evaluator's `params`."""
    evaluation = YTVOSeval(*pair)
    for name, value in params.items():
        setattr(evaluation.params, name, value)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


def test_all_categories_as_one_is_the_official_evaluators(pair):
    pooled = evaluate_results(*map(pool_categories, pair))
    np.testing.assert_array_equal(pooled.stats, official(pair, useCats=0))
    assert list(pooled.per_category) == ["any category"]
    runs = json.loads((SMALL / "golden.json").read_text("utf-8"))["runs"]
    recorded = next(run["stats"] for run in runs if run["name"] == "agnostic")
    assert pooled.stats == pytest.approx(list(recorded.values()), abs=1e-12)


def test_some_videos_are_the_official_evaluators(pair):
    ids = sorted(pair[0].vids)[::2]
    chosen = evaluate_results(*(restrict(part, ids) for part in pair))
    np.testing.assert_array_equal(chosen.stats, official(pair, vidIds=ids))


def test_all_videos_are_the_same_object(pair):
    assert restrict(pair[0], list(pair[0].vids)) is pair[0]


def test_a_wrong_category_does_not_matter_where_all_are_one():
    # Five frames: the cat is found as a dog, the dog as a dog; a track of a category that is not there is left out.
    truth = YTVOS(dataset((1, 1, [A] * 5), (1, 2, [B] * 5)))
    results = truth.loadRes([prediction([A] * 5, category=2), prediction([B] * 5, category=2), prediction([A], 1, 9)])
    assert evaluate_results(truth, results).per_category["cat"]["AP"] == 0
    assert evaluate_tracking(truth, results).overall()["HOTA"] == pytest.approx(np.sqrt(1 / 3))
    truth, results = map(pool_categories, (truth, results))
    assert evaluate_results(truth, results).stats[0] == pytest.approx(1)
    assert evaluate_tracking(truth, results).overall()["HOTA"] == 1
    assert len(results.anns) == 2


def test_what_is_given_stays_as_it_is():
    truth = YTVOS(dataset((1, 2, [A] * 5)))
    pool_categories(truth), restrict(truth, [2])
    assert truth.anns[1]["category_id"] == 2 and len(truth.cats) == 2 and len(truth.vids) == 2
