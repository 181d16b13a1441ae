"""Intervals of scores: weights of videos against copies of videos, and intervals of known size."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.ytvis.rectangles import rectangle
from ytvis.files import InputError
from ytvis.score.ap import STAT_NAMES, YTVOSeval, evaluate_results
from ytvis.score.bootstrap import (
    Interval,
    MeanStatistics,
    PrecisionStatistics,
    ResultStatistics,
    bootstrap,
    compare,
    compare_results,
    describe_difference,
)
from ytvis.score.tracking import RATES
from ytvis.score.ytvos import load_pair

CASES = Path(__file__).parents[2] / "fixtures" / "evaluator" / "open"
HEIGHT, WIDTH = 10, 200


def read(case: str) -> tuple[dict, list]:
    return tuple(json.loads((CASES / case / f"{stem}.json").read_text("utf-8")) for stem in ("gt", "pred"))


def box(x: int, width: int = 10) -> dict:
    return rectangle(x, 0, width, HEIGHT, (HEIGHT, WIDTH))


def dataset(*tracks, videos: int, categories: int = 1) -> dict:
    """Annotations: each track is (video, category, mask), and lasts one frame."""
    return {
        "videos": [{"id": number, "height": HEIGHT, "width": WIDTH} for number in range(videos)],
        "categories": [{"id": number, "name": f"class {number}"} for number in range(categories)],
        "annotations": [
            {"id": number, "video_id": video, "category_id": category, "segmentations": [mask], "areas": [100]}
            for number, (video, category, mask) in enumerate(tracks, 1)
        ],
    }


def prediction(video, score, mask, category=0) -> dict:
    return {"video_id": video, "category_id": category, "score": score, "segmentations": [mask]}


def statistics_of(truth: dict, tracks: list) -> PrecisionStatistics:
    evaluation = YTVOSeval(*load_pair(truth, tracks))
    evaluation.evaluate()
    return PrecisionStatistics(evaluation)


def copied(truth: dict, tracks: list, weights: np.ndarray) -> tuple[dict, list]:
    """A set with as many copies of each video, by rising id, as its weight, each copy with an id of its own."""
    videos = sorted(truth["videos"], key=lambda video: video["id"])
    copies = [video for video, weight in zip(videos, weights, strict=True) for _ in range(weight)]

    def move(parts):
        return [{**t, "video_id": new} for new, old in enumerate(copies) for t in parts if t["video_id"] == old["id"]]

    annotations = [{**track, "id": number} for number, track in enumerate(move(truth["annotations"]), 1)]
    videos = [{**video, "id": new} for new, video in enumerate(copies)]
    return {**truth, "videos": videos, "annotations": annotations}, move(tracks)


def random_case(seed: int) -> tuple[dict, list]:
    """Few scores, so that there are many ties, and some crowds; of areas on both sides of the limits."""
    rng = np.random.default_rng(seed)
    videos, categories = 6, 3
    truths, tracks = [], []
    for video in range(videos):
        for place in range(rng.integers(0, 5)):
            category = int(rng.integers(categories))
            truths.append((video, category, box(40 * place)))
            for _ in range(rng.integers(0, 4)):
                mask = box(40 * place + int(rng.integers(0, 6)))
                tracks.append(prediction(video, float(rng.integers(1, 5)) / 4, mask, category))
    rng.shuffle(tracks)
    truth = dataset(*truths, videos=videos, categories=categories)
    for annotation in truth["annotations"]:
        annotation |= {"iscrowd": int(rng.random() < 0.1), "areas": [float(10 ** rng.uniform(3, 5.5))]}
    return truth, tracks


# ------------------------------------------------------------------------------------------------ videos weighed anew


def check_weights(truth: dict, tracks: list, seed: int) -> None:
    statistics = statistics_of(truth, tracks)
    weights = np.random.default_rng(seed).multinomial(
        len(truth["videos"]), [1 / len(truth["videos"])] * len(truth["videos"]), 6
    )
    weights = np.concatenate([weights, np.ones_like(weights[:1]), np.zeros_like(weights[:1])])
    found = statistics.statistics(weights)
    assert list(found) == list(STAT_NAMES)
    for b, row in enumerate(weights):
        expected = evaluate_results(*copied(truth, tracks, row)).stats
        got = np.array([found[name][b] for name in STAT_NAMES])
        np.testing.assert_allclose(np.nan_to_num(got, nan=-1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_weights_are_copies_of_videos(seed):
    check_weights(*random_case(seed), seed)


@pytest.mark.parametrize(
    "case", ["small", "small_crowd_ties", "edge_tied_scores_a", "edge_150_preds_one_category", "edge_area_ranges"]
)
def test_weights_are_copies_of_recorded_videos(case):
    check_weights(*read(case), 0)


def test_ties_within_a_video_that_is_there_twice():
    # By falling score: found, false, found, false, and not found, found, false, false: AP is the mean of 1 and 2/3.
    truth = dataset((0, 0, box(0)), (1, 0, box(0)), videos=2)
    tracks = [prediction(0, 0.5, box(0)), prediction(0, 0.5, box(100))]
    found = statistics_of(truth, tracks).statistics(np.array([[2, 0], [1, 0], [0, 2], [0, 0]]))
    assert found["AP"][:3] == pytest.approx([(51 + 50 * 2 / 3) / 101, 1, 0]) and math.isnan(found["AP"][3])
    assert found["AR100"][:3].tolist() == [1, 1, 0]


def test_a_category_that_is_not_drawn_takes_no_part():
    truth = dataset((0, 0, box(0)), (1, 1, box(0)), videos=2, categories=2)
    found = statistics_of(truth, [prediction(0, 0.5, box(0))]).statistics(np.array([[1, 1], [3, 0], [0, 1]]))
    assert found["AP"] == pytest.approx([0.5, 1, 0])


# ---------------------------------------------------------------------------------------------------------- intervals


class Mean:
    """A score that is the mean of one number per video; nan is ignored."""

    def __init__(self, values, video_ids=None):
        self.values, self.video_ids = np.array(values, float), video_ids or list(range(len(values)))

    def statistics(self, weights):
        known = ~np.isnan(self.values)
        total = weights[:, known].sum(axis=1)
        sums = weights[:, known] @ self.values[known]
        return {"mean": np.divide(sums, total, out=np.full(len(weights), np.nan), where=total > 0)}


def test_the_interval_of_a_mean_is_what_its_deviation_says():
    values = np.random.default_rng(0).normal(5, 2, 400)
    interval = bootstrap(Mean(values), resamples=4000)["mean"]
    assert interval.value == pytest.approx(values.mean())
    expected = 1.96 * values.std() / 20
    assert interval.high - interval.value == pytest.approx(expected, rel=0.06)
    assert interval.value - interval.low == pytest.approx(expected, rel=0.06)


def test_what_is_common_to_both_drops_out_of_a_comparison():
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 10, 100)
    first, second = (Mean(hardness + rng.normal(shift, 0.5, 100)) for shift in (0, 1))
    interval = compare(first, second)["mean"]
    assert 0.8 < interval.low < interval.value < interval.high < 1.2 and interval.excludes_zero
    apart = [bootstrap(scores)["mean"] for scores in (first, second)]
    assert all(each.high - each.low > 3 for each in apart)
    assert compare(second, first)["mean"].excludes_zero  # and is below 0
    assert compare(first, first)["mean"] == Interval(0, 0, 0) and not compare(first, first)["mean"].excludes_zero


def test_draws_that_are_too_high_are_moved_onto_the_value():
    draws = np.random.default_rng(0).normal(0.5, 0.1, 10000)
    for is_moved, middle in ((True, 0.4), (False, 0.5)):
        interval = Interval.of(0.4, draws, is_moved)
        assert interval.value == 0.4
        assert (interval.low, interval.high) == pytest.approx((middle - 0.196, middle + 0.196), abs=0.01)
    assert Interval.of(0.1, np.clip(draws, 0, 1), True).low == 0  # a score is not below 0


def test_the_same_seed_gives_the_same_interval():
    scores = Mean(np.arange(20))
    assert bootstrap(scores, seed=1) == bootstrap(scores, seed=1) != bootstrap(scores, seed=2)
    assert bootstrap(scores, resamples=250) == bootstrap(scores, resamples=250)  # of which the last batch is half full


def test_too_few_videos_or_nothing_to_measure():
    for values, expected in (([], math.nan), ([3], 3), ([math.nan] * 5, math.nan)):
        interval = bootstrap(Mean(values))["mean"]
        assert interval.value == pytest.approx(expected, nan_ok=True)
        assert math.isnan(interval.low) and math.isnan(interval.high) and not interval.excludes_zero
    some = bootstrap(Mean([1, 2, 3, math.nan, math.nan]))["mean"]  # sometimes none of the first three is drawn
    assert (some.low, some.value, some.high) == pytest.approx((1, 2, 3), abs=0.1)


def test_only_the_same_videos_are_compared():
    with pytest.raises(InputError, match="same videos"):
        compare(Mean([1, 2]), Mean([1, 2], [0, 2]))


def test_the_mean_of_several_scores_is_drawn_as_one():
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 10, 100)
    first, second = ([Mean(hardness + rng.normal(shift, 1, 100)) for _ in range(2)] for shift in (0, 1))
    weights = rng.multinomial(100, [0.01] * 100, 3)
    each = [scores.statistics(weights)["mean"] for scores in first]
    assert MeanStatistics(first).statistics(weights)["mean"] == pytest.approx(np.mean(each, axis=0))
    apart = [compare(*pair)["mean"] for pair in zip(first, second, strict=True)]
    together = compare(MeanStatistics(first), MeanStatistics(second))["mean"]
    assert together.value == pytest.approx(np.mean([interval.value for interval in apart]))
    # What differs by chance partly cancels: of two, the interval is narrower by the square root of 2.
    widths = [interval.high - interval.low for interval in (*apart, together)]
    assert widths[2] == pytest.approx(np.mean(widths[:2]) / math.sqrt(2), rel=0.15)
    assert compare(MeanStatistics(first[:1]), MeanStatistics(second[:1]))["mean"] == apart[0]
    nothing = Mean([math.nan] * 100)
    assert math.isnan(MeanStatistics([first[0], nothing]).statistics(weights[:1])["mean"][0])
    with pytest.raises(InputError, match="same videos can be averaged"):
        MeanStatistics([Mean([1, 2]), Mean([1, 2], [0, 2])])


# ------------------------------------------------------------------------------------------------------------ results


def better_and_worse() -> tuple[dict, list, list]:
    """Thirty videos: the worse result misses the object in each third, the better one in none."""
    truth = dataset(*((video, 0, box(0)) for video in range(30)), videos=30)
    better = [prediction(video, 0.9, box(0)) for video in range(30)]
    return truth, better, [track for track in better if track["video_id"] % 3]


def test_intervals_of_results():
    truth, _, worse = better_and_worse()
    intervals = bootstrap(ResultStatistics.of(truth, worse), resamples=300)
    assert set(intervals) == {*STAT_NAMES, *RATES}
    assert intervals["AR10"].value == pytest.approx(20 / 30)
    assert intervals["DetRe"].value == pytest.approx(20 / 30)
    # Of 30 draws with probability 2/3: a deviation of 0.086.
    for name in ("AR10", "DetRe", "IDR"):
        assert intervals[name].low == pytest.approx(20 / 30 - 0.17, abs=0.05)
        assert intervals[name].high == pytest.approx(20 / 30 + 0.17, abs=0.05)
    assert math.isnan(intervals["APl"].value) and intervals["DetPr"] == Interval(1, 1, 1)


def test_comparison_of_results():
    truth, better, worse = better_and_worse()
    gained = compare_results(truth, worse, better, resamples=300)
    assert gained["AR10"].value == pytest.approx(1 / 3) and gained["AR10"].excludes_zero
    assert gained["HOTA"].excludes_zero and not gained["DetPr"].excludes_zero
    one_more = compare_results(truth, worse, worse + better[:1], resamples=300)["AR10"]
    assert one_more.value == pytest.approx(1 / 30) and one_more.low == 0 and not one_more.excludes_zero


def test_thresholds_of_tracking_metrics():
    truth, better, _ = better_and_worse()
    assert bootstrap(ResultStatistics.of(truth, better, 0.95), resamples=10)["HOTA"].value == 0


def test_no_videos():
    intervals = bootstrap(ResultStatistics.of(dataset(videos=0), []))
    assert all(math.isnan(interval.value) and math.isnan(interval.low) for interval in intervals.values())


# ---------------------------------------------------------------------------------------------------------- sentences


def test_sentences():
    nan = math.nan
    noise = describe_difference("AP", Interval(0.01, -0.008, 0.029), 40)
    assert noise == "AP +1.0 (95 % interval -0.8 to +2.9): noise, on these 40 videos"
    real = describe_difference("AP", Interval(-0.052, -0.081, -0.02), 40)
    assert real == "AP -5.2 (95 % interval -8.1 to -2.0): more than the choice of videos explains, on these 40 videos"
    assert describe_difference("AP", Interval(nan, nan, nan), 40) == "AP: nothing to compare"
    assert describe_difference("AP", Interval(0.01, nan, nan), 1).startswith("AP +1.0: too few videos")
