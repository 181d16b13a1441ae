"""Tracking metrics against TrackEval's own classes, if installed, and against cases counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_ops

from tests.ytvis.rectangles import rectangle
from ytvis.files import InputError
from ytvis.score.tracking import ALPHAS, METRICS, RATES, TrackingCounts, best_pairs, evaluate_tracking
from ytvis.score.ytvos import YTVOS

CASES = Path(__file__).parents[2] / "fixtures" / "evaluator" / "open"
HEIGHT, WIDTH = 12, 60


def box(x: int, width: int = 10) -> dict:
    return rectangle(x, 1, width, 10, (HEIGHT, WIDTH))


def dataset(*tracks, categories=("cat", "dog"), videos=2) -> dict:
    """Annotations with ids from 1: each track is (video, category, masks)."""
    return {
        "videos": [{"id": number, "height": HEIGHT, "width": WIDTH} for number in range(1, videos + 1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories, 1)],
        "annotations": [
            {"id": number, "video_id": video, "category_id": category, "segmentations": masks, "areas": []}
            for number, (video, category, masks) in enumerate(tracks, 1)
        ],
    }


def prediction(masks, video=1, category=1, score=0.9) -> dict:
    return {"video_id": video, "category_id": category, "score": score, "segmentations": masks}


def one_video(truths: list, tracks: list) -> tuple[dict, list]:
    """One video and category of these lists of masks."""
    return dataset(*((1, 1, masks) for masks in truths)), [prediction(masks) for masks in tracks]


A, B, C = box(0), box(20), box(40)
HALF, MOST = box(0, 5), box(0, 8)  # with A: IoU of 0.5 and of 0.8

# Five frames each, true tracks and predicted ones.
SEQUENCES = {
    "found": ([[A] * 5], [[A] * 5]),
    "handed_over": ([[A] * 5], [[A, A, None, None, None], [None, None, A, A, A]]),
    "half": ([[A] * 5], [[HALF] * 5]),
    "lost_and_found": ([[A] * 5], [[A, A, None, A, A], [None, None, C, None, None]]),
    "swapped": ([[A] * 5, [B] * 5], [[A, A, A, B, B], [B, B, B, A, A]]),
    "mixed": (
        [[A] * 5, [B, B, B, None, None], [None, C, C, C, C]],
        [[A, MOST, HALF, None, None], [B, None, A, A, MOST], [C, C, B, C, C], [None, C, C, None, None]],
    ),
}
# The numbers of TrackEval 1.3.0 (means over the IoU thresholds).
GOLDEN = {
    "found": {
        "HOTA": 1.0,
        "DetA": 1.0,
        "AssA": 1.0,
        "LocA": 1.0,
        "DetRe": 1.0,
        "DetPr": 1.0,
        "AssRe": 1.0,
        "AssPr": 1.0,
        "IDF1": 1.0,
        "IDR": 1.0,
        "IDP": 1.0,
        "MOTA": 1.0,
        "IDSW": 0.0,
        "Frag": 0.0,
    },
    "handed_over": {
        "HOTA": 0.7211102550927978,
        "DetA": 1.0,
        "AssA": 0.5199999999999999,
        "LocA": 1.0,
        "DetRe": 1.0,
        "DetPr": 1.0,
        "AssRe": 0.5199999999999999,
        "AssPr": 1.0,
        "IDF1": 0.6,
        "IDR": 0.6,
        "IDP": 0.6,
        "MOTA": 0.8,
        "IDSW": 1.0,
        "Frag": 0.0,
    },
    "half": {
        "HOTA": 0.5263157894736842,
        "DetA": 0.5263157894736842,
        "AssA": 0.5263157894736842,
        "LocA": 0.7368421052631579,
        "DetRe": 0.5263157894736842,
        "DetPr": 0.5263157894736842,
        "AssRe": 0.5263157894736842,
        "AssPr": 0.5263157894736842,
        "IDF1": 1.0,
        "IDR": 1.0,
        "IDP": 1.0,
        "MOTA": 1.0,
        "IDSW": 0.0,
        "Frag": 0.0,
    },
    "lost_and_found": {
        "HOTA": 0.7302967433402215,
        "DetA": 0.6666666666666665,
        "AssA": 0.8000000000000002,
        "LocA": 1.0,
        "DetRe": 0.8000000000000002,
        "DetPr": 0.8000000000000002,
        "AssRe": 0.8000000000000002,
        "AssPr": 1.0,
        "IDF1": 0.8,
        "IDR": 0.8,
        "IDP": 0.8,
        "MOTA": 0.6,
        "IDSW": 0.0,
        "Frag": 1.0,
    },
    "swapped": {
        "HOTA": 0.5976143046671968,
        "DetA": 1.0,
        "AssA": 0.35714285714285704,
        "LocA": 1.0,
        "DetRe": 1.0,
        "DetPr": 1.0,
        "AssRe": 0.5199999999999999,
        "AssPr": 0.5199999999999999,
        "IDF1": 0.6,
        "IDR": 0.6,
        "IDP": 0.6,
        "MOTA": 0.8,
        "IDSW": 2.0,
        "Frag": 0.0,
    },
    "mixed": {
        "HOTA": 0.5075374940021424,
        "DetA": 0.7011351909184725,
        "AssA": 0.3674944938102834,
        "LocA": 0.9693779904306222,
        "DetRe": 0.8903508771929823,
        "DetPr": 0.763157894736842,
        "AssRe": 0.5145667198298778,
        "AssPr": 0.5564859117490697,
        "IDF1": 0.5384615384615384,
        "IDR": 0.5833333333333334,
        "IDP": 0.5,
        "MOTA": 0.4166666666666667,
        "IDSW": 3.0,
        "Frag": 1.0,
    },
}


def scores(name: str) -> dict[str, float]:
    return evaluate_tracking(*one_video(*SEQUENCES[name])).overall()


# ----------------------------------------------------------------------------------------- five frames, to be counted


@pytest.mark.parametrize("name", SEQUENCES)
def test_what_trackeval_said(name):
    assert scores(name) == pytest.approx(GOLDEN[name], abs=1e-12)


def test_handed_over_from_one_track_to_another():
    found = scores("handed_over")
    assert found["DetA"] == pytest.approx(1)
    # Two matches in which 2 of 5 frames go together, three in which 3 of 5 do.
    assert found["AssA"] == pytest.approx((2 * 2 / 5 + 3 * 3 / 5) / 5)
    assert found["HOTA"] == pytest.approx(found["AssA"] ** 0.5)
    assert found["IDF1"] == pytest.approx(3 / 5)
    assert found["MOTA"] == pytest.approx((5 - 1) / 5) and found["IDSW"] == 1


def test_half_of_every_mask():
    found = scores("half")
    assert found["HOTA"] == pytest.approx(10 / 19)  # 0.05, 0.1, ..., 0.5 of the thresholds up to 0.95
    assert found["LocA"] == pytest.approx((10 * 0.5 + 9) / 19)
    assert found["IDF1"] == found["MOTA"] == 1


def test_lost_for_a_frame_in_which_another_thing_is_seen():
    found = scores("lost_and_found")
    assert found["DetA"] == pytest.approx(4 / 6) and found["AssA"] == pytest.approx(4 / 5)
    assert found["MOTA"] == pytest.approx((4 - 1) / 5)
    assert (found["IDSW"], found["Frag"]) == (0, 1)


def test_quirk_lost_for_a_frame_in_which_nothing_is_seen_is_no_fragmentation():
    found = evaluate_tracking(*one_video([[A] * 5], [[A, A, None, A, A]])).overall()
    assert found["Frag"] == 0 and found["MOTA"] == pytest.approx(4 / 5)


def test_two_objects_swapped():
    found = scores("swapped")
    assert found["AssA"] == pytest.approx((6 * 3 / 7 + 4 * 2 / 8) / 10)
    assert found["IDSW"] == 2


def test_switches_of_each_video():
    # The first object is predicted by 0 and then by 1; in the other video, 2 loses it, 4 finds it, 2 has it again.
    truths = [(1, 1, [A] * 4), (2, 1, [B] * 5), (2, 2, [A] * 5)]
    tracks = [
        prediction([A, A, None, None]),
        prediction([None, None, A, A]),
        prediction([B, None, None, None, B], video=2),
        prediction([A] * 5, video=2, category=2),
        prediction([None, None, B, None, None], video=2),
    ]
    found = evaluate_tracking(dataset(*truths, videos=3), tracks)
    switches = found.counts.clear[:, 3]  # of the sequences: video 1, video 2 with category 1 and with category 2
    assert list(zip(found.sequence_videos, found.sequence_categories, switches, strict=True)) == [
        (0, 1, 1),
        (1, 1, 2),
        (1, 2, 0),
    ]
    assert found.overall()["IDSW"] == 3


def test_only_tracks_of_enough_score_are_taken():
    truth = dataset((1, 1, [A] * 5))
    tracks = [prediction([A] * 5, score=0.3), prediction([B] * 5, score=0.29)]
    assert evaluate_tracking(truth, tracks).overall()["HOTA"] == pytest.approx(1)
    assert evaluate_tracking(truth, tracks, score_threshold=0).overall()["DetPr"] == pytest.approx(1 / 2)
    assert evaluate_tracking(truth, tracks, score_threshold=0.31).overall()["HOTA"] == 0


def test_categories_apart_and_together():
    truths = [(1, 1, [A] * 4), (1, 2, [B])]
    tracks = [prediction([A] * 4), prediction([C], category=2), prediction([A], video=2, category=3)]
    found = evaluate_tracking(dataset(*truths, categories=("cat", "dog", "cat", "cow")), tracks)
    assert list(found.per_category()) == ["cat", "dog", "cat (3)"]
    assert [row["DetA"] for row in found.per_category().values()] == pytest.approx([1, 0, 0])
    assert found.overall()["DetA"] == pytest.approx(4 / 7)  # 4 of 5 true and 6 predicted objects


def test_masks_that_end_early_and_masks_without_a_pixel():
    nothing = mask_ops.encode(np.zeros((HEIGHT, WIDTH), np.uint8, order="F"))
    expected = evaluate_tracking(*one_video([[A] * 5], [[A, A, A, None, None]])).overall()
    found = evaluate_tracking(*one_video([[A] * 5], [[A] * 3, [nothing] * 5])).overall()
    assert found == expected and found["DetA"] == pytest.approx(3 / 5)


def test_masks_of_another_size_match_nothing():
    small = mask_ops.encode(np.ones((5, 5), np.uint8, order="F"))
    assert evaluate_tracking(*one_video([[A]], [[small]])).overall()["DetA"] == 0


# ------------------------------------------------------------------------------------------------------------ pairing


@pytest.mark.parametrize("seed", range(300))
def test_pairs_are_those_of_scipy(seed):
    from scipy.optimize import linear_sum_assignment

    generator = np.random.default_rng(seed)
    worth = generator.random(generator.integers(0, 6, 2))
    worth[generator.random(worth.shape) < 0.4] = 0
    if seed % 3 == 0:
        worth = np.round(2 * worth)  # many ways are equally good
    expected, found = ({*zip(*pairs, strict=True)} for pairs in (linear_sum_assignment(-worth), best_pairs(worth)))
    worth_anything = {*zip(*np.nonzero(worth), strict=True)}
    assert found & worth_anything == expected & worth_anything


def test_pairs_that_have_to_be_traded():
    # The first column is the best of both rows; 5 + 1 is less than 4 + 4.
    assert [values.tolist() for values in best_pairs(np.array([[5.0, 4], [4, 1]]))] == [[0, 1], [1, 0]]
    assert [values.tolist() for values in best_pairs(np.array([[3.0], [0], [4]]))] == [[2], [0]]
    assert [len(values) for values in best_pairs(np.zeros((0, 3)))] == [0, 0]


# ------------------------------------------------------------------------------------------------------ empty cases


def test_nothing_at_all():
    for truth in (dataset(), dataset(videos=0), dataset((1, 1, [None] * 5)), dataset((1, 1, []))):
        found = evaluate_tracking(truth, [])
        assert set(found.overall().values()) == {-1.0}
        assert found.per_category() == {}
        weights = np.ones((3, len(truth["videos"])), int)
        assert all(np.isnan(values).all() and values.shape == (3,) for values in found.statistics(weights).values())


def test_nothing_predicted_and_nothing_true():
    missed = evaluate_tracking(dataset((1, 1, [A] * 5)), []).overall()
    assert (missed["HOTA"], missed["IDF1"], missed["MOTA"]) == (0, 0, 0)
    false = evaluate_tracking(dataset(), [prediction([A] * 5)]).overall()
    assert (false["HOTA"], false["IDF1"], false["MOTA"]) == (0, 0, -5)  # five errors, where there is nothing to find


def test_bad_input():
    truth = dataset((1, 1, [A]))
    with pytest.raises(InputError, match="no annotations"):
        evaluate_tracking({key: value for key, value in truth.items() if key != "annotations"}, [])
    with pytest.raises(InputError, match="unknown video: 7"):
        evaluate_tracking(truth, [prediction([A], video=7)])


# -------------------------------------------------------------------------------------------------- beside TrackEval


def trackeval_data(truths: list, tracks: list) -> dict:
    """A video and category as TrackEval's metrics take them; masks without a pixel are no objects."""
    frames = max(map(len, truths + tracks), default=0)
    parts = [
        [track + [None] * (frames - len(track)) for track in part if any(map(is_seen, track))]
        for part in (truths, tracks)
    ]
    seen = [[[i for i, track in enumerate(part) if is_seen(track[t])] for t in range(frames)] for part in parts]
    ious = []
    for t, (g, d) in enumerate(zip(*seen, strict=True)):
        masks = [part[i][t] for part, ids in zip(parts, (g, d), strict=True) for i in ids]
        found = mask_ops.iou(masks[: len(g)], masks[len(g) :], [0] * len(d))
        ious.append(np.maximum(np.array(found, float).reshape(len(g), len(d)), 0))
    data = {"num_timesteps": frames, "similarity_scores": ious}
    for name, part, ids in zip(("gt", "tracker"), parts, seen, strict=True):
        data |= {f"{name}_ids": [np.array(frame, int) for frame in ids], f"num_{name}_ids": len(part)}
        data[f"num_{name}_dets"] = sum(map(len, ids))
    return data


def is_seen(mask) -> bool:
    return mask is not None and mask != [] and mask_ops.area(mask) > 0


def trackeval_scores(truth: dict, tracks: list) -> tuple[dict, dict]:
    """Detection averaged, and per class: what TrackEval gives of all videos."""
    trackeval = pytest.importorskip("trackeval")
    quiet = {"PRINT_CONFIG": False}
    metrics = trackeval.metrics.HOTA(), trackeval.metrics.Identity(quiet), trackeval.metrics.CLEAR(quiet)
    categories = [category["id"] for category in truth["categories"]]
    overall, apart = {}, {category: {} for category in categories}
    for metric in metrics:
        of_category = {}
        for category in categories:
            sequences = {}
            for video in sorted(video["id"] for video in truth["videos"]):
                parts = [
                    [t["segmentations"] for t in part if (t["video_id"], t["category_id"]) == (video, category)]
                    for part in (truth["annotations"], tracks)
                ]
                sequences[video] = metric.eval_sequence(trackeval_data(*parts))
            of_category[category] = metric.combine_sequences(sequences)
            apart[category] |= of_category[category]
        overall |= metric.combine_classes_det_averaged(of_category)
    return overall, {category: values for category, values in apart.items() if has_objects(values)}


def has_objects(values: dict) -> bool:
    return values["CLR_TP"] + values["CLR_FN"] + values["CLR_FP"] > 0


def check_against_trackeval(truth: dict, tracks: list) -> None:
    overall, apart = trackeval_scores(truth, tracks)
    found = evaluate_tracking(truth, tracks, score_threshold=-np.inf)
    names = {category["id"]: category["name"] for category in truth["categories"]}
    assert found.overall() == pytest.approx({name: np.mean(overall[name]) for name in METRICS}, abs=1e-9, rel=0)
    assert set(found.per_category()) == {names[category] for category in apart}
    for category, values in apart.items():
        expected = {name: np.mean(values[name]) for name in METRICS}
        assert found.per_category()[names[category]] == pytest.approx(expected, abs=1e-9, rel=0)
    alphas = np.concatenate([np.atleast_1d(overall[name]) for name in ("HOTA_TP", "HOTA_FN", "HOTA_FP")])
    np.testing.assert_array_equal(found.counts.detection.sum(axis=0).ravel(), alphas)


def random_case(seed: int) -> tuple[dict, list]:
    """Boxes that wander, vanish and are confused; of some, several are equal."""
    rng = np.random.default_rng(seed)
    videos, categories = rng.integers(1, 5), rng.integers(1, 4)
    truths, tracks = [], []
    for video in range(1, videos + 1):
        frames = rng.integers(1, 12)
        objects = []
        for _ in range(rng.integers(0, 6)):
            start, step, width = rng.integers(0, 40), rng.integers(-2, 3), rng.integers(3, 12)
            places = [int(np.clip(start + step * t, 0, WIDTH - width)) for t in range(frames)]
            seen = rng.random(frames) < 0.85
            category = int(rng.integers(1, categories + 1))
            objects.append((category, places, int(width)))
            truths.append(
                (video, category, [box(x, int(width)) if s else None for x, s in zip(places, seen, strict=True)])
            )
        for _ in range(rng.integers(0, 9) if objects else rng.integers(0, 2)):
            shown = [objects[i] if objects else (1, [0] * frames, 9) for i in rng.integers(0, max(1, len(objects)), 2)]
            change, jitter = rng.integers(0, frames + 1), rng.integers(0, 3)
            masks = []
            for t in range(frames - rng.integers(0, 2)):
                _, places, width = shown[int(t >= change)]
                x = int(np.clip(places[t] + rng.integers(-jitter, jitter + 1), 0, WIDTH - width))
                masks.append(box(x, width) if rng.random() < 0.8 else None)
            tracks += [prediction(masks, video, shown[0][0])] * int(rng.integers(1, 3))
    return dataset(*truths, categories=[f"class {c}" for c in range(1, categories + 1)], videos=videos), tracks


@pytest.mark.parametrize("seed", range(40))
def test_random_tracks_as_trackeval_scores_them(seed):
    truth, tracks = random_case(seed)
    if truth["annotations"] or tracks:
        check_against_trackeval(truth, tracks)


CASES_OF_PLAIN_MASKS = (
    *("small", "small_crowd_ties", "edge_duplicates_and_switches", "edge_150_preds_five_categories", "edge_tied_ious"),
    *("edge_crowd", "edge_none_frames", "edge_length_mismatch", "edge_mask_size_mismatch", "edge_video_without_gt"),
    *("edge_unsorted_ids", "edge_category_without_gt", "edge_exact_thresholds", "edge_all_none_tracks"),
)


@pytest.mark.parametrize("case", CASES_OF_PLAIN_MASKS)
def test_recorded_tracks_as_trackeval_scores_them(case):
    truth, tracks = (json.loads((CASES / case / f"{stem}.json").read_text("utf-8")) for stem in ("gt", "pred"))
    truth = YTVOS(truth).dataset  # with compressed masks
    known = {category["id"] for category in truth["categories"]}
    check_against_trackeval(truth, [track for track in tracks if track["category_id"] in known])


# ------------------------------------------------------------------------------------------------ videos weighed anew


def test_weights_are_copies_of_videos():
    truth, tracks = random_case(3)
    videos = len(truth["videos"])
    weights = np.random.default_rng(0).integers(0, 3, (5, videos))
    found = evaluate_tracking(truth, tracks).statistics(weights)
    for b, row in enumerate(weights):
        copies = [(video, copy) for video in range(1, videos + 1) for copy in range(row[video - 1])]
        parts = [
            [
                {**t, "id": 0, "video_id": new}
                for new, (old, _) in enumerate(copies)
                for t in part
                if t["video_id"] == old
            ]
            for part in (truth["annotations"], tracks)
        ]
        copied = {**truth, "videos": [{"id": new, "height": HEIGHT, "width": WIDTH} for new in range(len(copies))]}
        expected = evaluate_tracking({**copied, "annotations": parts[0]}, parts[1]).overall()
        assert {name: np.nan_to_num(values[b], nan=-1) for name, values in found.items()} == pytest.approx(
            {name: expected[name] for name in RATES}, abs=1e-12
        )


def test_counts_of_no_sequence():
    shapes = ((0, 3, len(ALPHAS)), (0, 4, len(ALPHAS)), (0, 3), (0, 5))
    empty = TrackingCounts(*map(np.zeros, shapes)).weighted(np.zeros((2, 0)))
    assert all(np.isnan(values).all() and values.shape == (2,) for values in empty.metrics().values())
