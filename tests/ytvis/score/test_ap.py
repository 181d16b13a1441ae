"""The evaluator against recorded results of the official one, against COCO's, and against cases counted by hand."""

import copy
import hashlib
import importlib.util
import json
import logging
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_ops
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ytvis import masks as rle
from ytvis.files import InputError
from ytvis.score import ap as ytvis_eval
from ytvis.score.ap import STAT_NAMES, YTVOS, YTVOSeval, evaluate_results, format_table, match_tracks
from ytvis.score.tracking import evaluate_tracking

FIXTURES = Path(__file__).parents[2] / "fixtures" / "evaluator"
CASES = FIXTURES / "open"
HEIGHT, WIDTH = 20, 30


needs_kernels = pytest.mark.skipif(ytvis_eval._mask_kernels is None, reason="the native kernels are not built")


@pytest.fixture(params=["python", pytest.param("native", marks=needs_kernels)])
def backend(request, monkeypatch):
    if request.param == "python":
        for module in (rle, ytvis_eval):
            monkeypatch.setattr(module, "_mask_kernels", None)


def load_golden_module():
    spec = importlib.util.spec_from_file_location("evaluator_golden", FIXTURES / "golden.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = load_golden_module()


def read(case: str, stem: str):
    return json.loads((CASES / case / f"{stem}.json").read_text("utf-8"))


def case_runs():
    for case in sorted(path.parent.name for path in CASES.glob("*/case.json")):
        for number, run in enumerate(read(case, "case")["runs"]):
            if (case, run["name"]) not in golden.QUIRK_RUNS:
                yield pytest.param(case, number, run, id=f"{case}-{run['name']}")


def evaluated(gt, dt, **params) -> YTVOSeval:
    evaluator = YTVOSeval(gt, dt)
    for name, value in params.items():
        setattr(evaluator.params, name, value)
    evaluator.evaluate()
    evaluator.accumulate()
    return evaluator


# ---------------------------------------------------------------------------------------- what the official one says


@pytest.mark.parametrize(("case", "number", "run"), list(case_runs()))
def test_golden(backend, case, number, run):
    expected = read(case, "golden")["runs"][number]
    paths = (str(CASES / case / f"{stem}.json") for stem in ("gt", "pred"))
    is_first = number == 0
    got, arrays = golden.evaluate((YTVOS, YTVOSeval), *paths, run, want_tracks=is_first, want_matches=is_first)
    if "raises" in expected:
        assert got["raises"]["type"] == "InputError"
        return
    assert got.get("raises") is None
    keys = ["stats", "counts", "cat_ids", "vid_ids", "ap_per_iou", "per_category", "ious", "summary"]
    keys += ["loaded_preds", "gt_avg_area", "eval_imgs"] if is_first else []
    assert list(golden.differ({key: expected[key] for key in keys}, {key: got[key] for key in keys}, 1e-12)) == []
    recorded = np.load(CASES / case / "arrays.npz")
    assert set(arrays) == {"precision", "recall", "scores"}
    for name, array in arrays.items():
        np.testing.assert_allclose(array, recorded[f"{run['name']}.{name}"], rtol=0, atol=1e-12)


def test_the_official_notice_of_other_mask_sizes_is_a_warning(backend, caplog):
    with caplog.at_level(logging.WARNING):
        evaluate_results(CASES / "edge_none_frames" / "gt.json", CASES / "edge_none_frames" / "pred.json")
        assert caplog.records == []
        folder = CASES / "edge_mask_size_mismatch"
        evaluate_results(folder / "gt.json", folder / "pred.json")
    assert len(caplog.records) == 1 and "differ in size" in caplog.text


def api_queries():
    for number, query in enumerate(json.loads((CASES / "api_queries.json").read_text("utf-8"))["queries"]):
        yield pytest.param(query, id=f"{number}-{query['case']}-{query['method']}")


@pytest.mark.parametrize("query", list(api_queries()))
def test_query(query):
    method = getattr(YTVOS(CASES / query["case"] / "gt.json"), query["method"])
    if "raises" in query:
        with pytest.raises(KeyError):
            method(**query["args"])
    elif query["method"].startswith("get"):
        assert sorted(method(**query["args"])) == query["result"]
    else:
        assert [item["id"] for item in method(**query["args"])] == query["result"]


def test_area_queries_after_an_evaluation():
    gt = YTVOS(CASES / "edge_none_frames" / "gt.json")
    evaluated(gt, gt.loadRes([]))
    assert gt.getAnnIds(areaRng=[99, 101]) == [1, 2, 3]
    assert gt.getAnnIds(areaRng=[100, 200]) == []  # both ends excluded


def test_masks_of_all_formats():
    gt = YTVOS(CASES / "edge_gt_formats" / "gt.json")
    masks = json.loads((CASES / "api_queries.json").read_text("utf-8"))["masks"]
    assert masks
    for expected in masks:
        annotation = gt.loadAnns(expected["ann"])[0]
        mask = gt.annToMask(annotation, expected["frame"])
        assert (list(mask.shape), mask.dtype, mask.sum()) == (expected["shape"], np.uint8, expected["sum"])
        digest = hashlib.sha256(np.ascontiguousarray(mask).tobytes()).hexdigest()
        assert digest == expected["sha256_rowmajor_uint8"]
        rle = gt.annToRLE(annotation, expected["frame"])
        counts = rle["counts"].decode() if isinstance(rle["counts"], bytes) else rle["counts"]
        assert {"size": list(rle["size"]), "counts": counts} == expected["rle"]
    invisible = gt.loadAnns(1)[0]
    assert gt.annToRLE(invisible, 4) is None
    assert gt.annToMask(invisible, 4).shape == (60, 80) and not gt.annToMask(invisible, 4).any()


def joined_frames(masks, size) -> dict:
    """The frames of a track side by side, as one mask."""
    frames = [np.zeros(size, np.uint8) if mask is None else mask_ops.decode(mask) for mask in masks]
    return mask_ops.encode(np.asfortranarray(np.hstack(frames)))


@pytest.mark.parametrize("case", ["small", "edge_tied_scores_a", "edge_duplicates_and_switches"])
def test_equals_coco_evaluation_of_the_frames_side_by_side(case):
    gt = YTVOS(CASES / case / "gt.json")
    dt = gt.loadRes(CASES / case / "pred.json")
    tracks = evaluated(gt, dt)
    tracks.summarize()

    sizes = {video["id"]: (video["height"], video["width"]) for video in gt.dataset["videos"]}
    coco_gt, coco_dt = COCO(), COCO()
    for coco, source in ((coco_gt, gt), (coco_dt, dt)):
        coco.dataset = {
            "images": [{"id": video, "height": 1, "width": 1} for video in sizes],
            "categories": gt.dataset["categories"],
            "annotations": [
                {
                    "id": track["id"],
                    "image_id": track["video_id"],
                    "category_id": track["category_id"],
                    "score": track.get("score"),
                    "iscrowd": 0,
                    "area": track["avg_area"],
                    "segmentation": joined_frames(track["segmentations"], sizes[track["video_id"]]),
                }
                for track in source.dataset["annotations"]
            ],
        }
        coco.createIndex()
    images = COCOeval(coco_gt, coco_dt, "segm")
    images.params.areaRng, images.params.maxDets = tracks.params.areaRng, tracks.params.maxDets
    images.evaluate()
    images.accumulate()
    images.summarize()
    np.testing.assert_array_equal(tracks.stats, images.stats)
    assert tracks.stats[0] > 0


@needs_kernels
@pytest.mark.parametrize("seed", range(20))
def test_matches_are_the_same_with_and_without_the_kernels(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    predictions, truths = rng.integers(0, 12, 2)
    ious = rng.integers(0, 21, (predictions, truths)) / 20  # many are equal
    is_crowd = rng.random(truths) < 0.2
    truth_ignored = is_crowd | (rng.random((4, truths)) < 0.3)
    arguments = ious, is_crowd, truth_ignored, np.linspace(0.5, 1, 11)
    native = match_tracks(*arguments)
    monkeypatch.setattr(ytvis_eval, "_mask_kernels", None)
    np.testing.assert_array_equal(match_tracks(*arguments), native)
    assert native.shape == (4, 11, predictions)


# --------------------------------------------------------------------- accidents of the official one, not followed


def test_an_empty_list_is_no_predictions():
    metrics = evaluate_results(CASES / "edge_no_predictions" / "gt.json", CASES / "edge_no_predictions" / "pred.json")
    expected = read("edge_no_predictions", "golden")["runs"][1]  # the official one given a hand-made empty object
    assert metrics.stats.tolist() == list(expected["stats"].values())
    assert metrics.stats[0] == 0


def test_annotation_id_zero_counts():
    gt, predictions = read("edge_gt_id_zero", "gt"), read("edge_gt_id_zero", "pred")
    renumbered = copy.deepcopy(gt)
    for annotation in renumbered["annotations"]:
        annotation["id"] += 1
    assert gt["annotations"][0]["id"] == 0
    got, expected = (evaluate_results(truth, predictions).stats for truth in (gt, renumbered))
    np.testing.assert_array_equal(got, expected)


def test_annotations_without_iscrowd_are_not_crowds():
    gt, predictions = read("edge_gt_without_iscrowd", "gt"), read("edge_gt_without_iscrowd", "pred")
    explicit = copy.deepcopy(gt)
    assert not all("iscrowd" in annotation for annotation in gt["annotations"])
    for annotation in explicit["annotations"]:
        annotation.setdefault("iscrowd", 0)
    got, expected = (evaluate_results(truth, predictions).stats for truth in (gt, explicit))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("case", ["edge_pred_uncompressed_rle", "edge_pred_polygons"])
def test_predictions_may_be_uncompressed_or_polygons(case):
    gt, predictions = read(case, "gt"), read(case, "pred")
    loaded = YTVOS(gt).loadRes(predictions).dataset["annotations"]
    assert all(isinstance(mask["counts"], bytes) for track in loaded for mask in track["segmentations"] if mask)
    compressed = [
        {key: track[key] for key in ("video_id", "category_id", "score", "segmentations")} for track in loaded
    ]
    got, expected = (evaluate_results(gt, tracks).stats for tracks in (predictions, compressed))
    np.testing.assert_array_equal(got, expected)
    assert got[0] > 0


def test_pooled_categories_can_be_evaluated_again():
    gt = YTVOS(CASES / "small" / "gt.json")
    evaluator = evaluated(gt, gt.loadRes(CASES / "small" / "pred.json"), useCats=0)
    first = evaluator.eval["precision"]
    evaluator.evaluate()
    evaluator.accumulate()
    np.testing.assert_array_equal(evaluator.eval["precision"], first)
    assert first.shape[2] == 1 and first.max() > 0


def test_a_subset_of_categories_keeps_its_own_rows():
    gt = YTVOS(CASES / "small" / "gt.json")
    evaluator = evaluated(gt, gt.loadRes(CASES / "small" / "pred.json"))
    both = evaluator.eval["precision"]
    evaluator.params.catIds = [2]
    evaluator.accumulate()
    np.testing.assert_array_equal(evaluator.eval["precision"][:, :, 0], both[:, :, 1])


def test_limits_may_change_between_evaluation_and_accumulation():
    gt = YTVOS(CASES / "small" / "gt.json")
    evaluator = evaluated(gt, gt.loadRes(CASES / "small" / "pred.json"))
    evaluator.params.maxDets = [2, 5, 100]
    evaluator.accumulate()
    expected = evaluated(gt, gt.loadRes(CASES / "small" / "pred.json"), maxDets=[2, 5, 100])
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(evaluator.eval[name], expected.eval[name])


def test_an_evaluator_can_be_printed():
    gt = YTVOS(CASES / "small" / "gt.json")
    assert "YTVOSeval" in str(YTVOSeval(gt, gt.loadRes([])))


# ----------------------------------------------------------------------------------------- five frames, to be counted


def rectangle(width, height=10, x=0, y=0, size=(HEIGHT, WIDTH)) -> dict:
    mask = np.zeros(size, np.uint8)
    mask[y : y + height, x : x + width] = 1
    rle = mask_ops.encode(np.asfortranarray(mask))
    return {"size": list(size), "counts": rle["counts"].decode()}


def five(width=10, **where) -> list:
    return [rectangle(width, **where)] * 5


def dataset(*tracks, categories=("cat", "dog"), videos=2) -> dict:
    """Annotations: each track is (video, category, masks) and perhaps more fields."""
    annotations = []
    for number, (video, category, masks, *more) in enumerate(tracks, 1):
        areas = [None if mask is None else int(mask_ops.area(mask)) for mask in masks]
        fields = {"id": number, "video_id": video, "category_id": category, "iscrowd": 0}
        annotations.append({**fields, "segmentations": masks, "areas": areas, **(more[0] if more else {})})
    return {
        "videos": [{"id": number, "height": HEIGHT, "width": WIDTH} for number in range(1, videos + 1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories, 1)],
        "annotations": annotations,
    }


def prediction(video, category, score, masks) -> dict:
    return {"video_id": video, "category_id": category, "score": score, "segmentations": masks}


def named(metrics) -> dict[str, float]:
    return dict(zip(STAT_NAMES, metrics.stats, strict=True))


def test_found_exactly():
    metrics = evaluate_results(dataset((1, 1, five())), [prediction(1, 1, 0.3, five())])
    stats = named(metrics)
    assert stats["AP"] == pytest.approx(1, abs=1e-15) and stats["AR1"] == 1
    assert stats["APs"] == stats["AP"] and stats["APm"] == stats["APl"] == -1  # 100 pixels are small
    assert metrics.per_category["cat"] == stats
    assert set(metrics.per_category["dog"].values()) == {-1.0}
    assert metrics.precision.shape == (10, 101, 2, 4, 3) and metrics.recall.shape == (10, 2, 4, 3)


def test_one_frame_missed_of_five():
    # 400 of 500 pixels: IoU 0.8 reaches 0.5, 0.55, ..., 0.8, which is 7 of the 10 thresholds.
    stats = named(evaluate_results(dataset((1, 1, five())), [prediction(1, 1, 0.9, [*five()[:4], None])]))
    assert stats["AP"] == pytest.approx(0.7) and stats["AR100"] == pytest.approx(0.7)
    assert stats["AP50"] == stats["AP75"] == pytest.approx(1)


def test_iou_is_of_the_whole_tube_and_not_a_mean_of_frames():
    # Frames of 100 and 4 times 10 pixels, of which only the first is found: 100 / 140, where the mean would be 0.2.
    small = rectangle(1)
    gt = YTVOS(dataset((1, 1, [rectangle(10), small, small, small, small])))
    evaluator = evaluated(gt, gt.loadRes([prediction(1, 1, 0.9, [rectangle(10), None, None, None, None])]))
    assert evaluator.ious[1, 1].tolist() == [[100 / 140]]


def test_a_shorter_prediction_is_compared_on_its_own_frames():
    gt = YTVOS(dataset((1, 1, five())))
    tracks = [prediction(1, 1, 0.9, five()[:1]), prediction(1, 1, 0.8, five(5)[:4]), prediction(1, 1, 0.7, five() * 2)]
    assert evaluated(gt, gt.loadRes(tracks)).ious[1, 1].tolist() == [[1.0], [0.5], [1.0]]


def test_a_false_positive_above_the_true_one():
    tracks = [prediction(1, 1, 0.9, five(x=15)), prediction(1, 1, 0.8, five())]
    stats = named(evaluate_results(dataset((1, 1, five())), tracks))
    assert stats["AP"] == pytest.approx(0.5) and stats["AR1"] == 0 and stats["AR10"] == 1


def test_a_false_positive_below_the_true_one_costs_nothing():
    tracks = [prediction(1, 1, 0.8, five()), prediction(1, 1, 0.7, five(x=15)), prediction(2, 1, 0.1, five())]
    assert named(evaluate_results(dataset((1, 1, five())), tracks))["AP"] == pytest.approx(1)


def test_one_of_two_tracks_found():
    # Recall reaches 0.5: 51 of the 101 recall thresholds (0, 0.01, ..., 0.5) have precision 1.
    stats = named(evaluate_results(dataset((1, 1, five()), (2, 1, five())), [prediction(1, 1, 0.9, five())]))
    assert stats["AP"] == pytest.approx(51 / 101) and stats["AR1"] == 0.5


def test_a_duplicate_is_a_false_positive_and_a_wrong_category_too():
    tracks = [prediction(1, 1, 0.9, five()), prediction(1, 1, 0.8, five()), prediction(2, 1, 0.7, five())]
    metrics = evaluate_results(dataset((1, 1, five()), (2, 1, five()), (2, 2, five(x=15))), tracks)
    # Found at ranks 1 and 3: precision 1 up to recall 0.5, then 2/3 for the other 50 recall thresholds.
    assert metrics.per_category["cat"]["AP"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert metrics.per_category["dog"]["AP"] == 0  # true tracks, nothing predicted
    assert named(metrics)["AP"] == pytest.approx(metrics.per_category["cat"]["AP"] / 2)


def test_a_crowd_is_neither_for_nor_against():
    gt = dataset((1, 1, five()), (1, 1, five(x=15), {"iscrowd": 1}))
    tracks = [prediction(1, 1, 0.9, five(x=15)), prediction(1, 1, 0.8, five(x=15)), prediction(1, 1, 0.7, five())]
    assert named(evaluate_results(gt, tracks))["AP"] == pytest.approx(1)


def test_more_frames_than_the_mask_library_takes_at_once():
    # pycocotools 2.0.11 with numpy 2 cannot count the pixels of more than 255 masks in one call.
    stats = named(evaluate_results(dataset((1, 1, five() * 60)), [prediction(1, 1, 0.9, five() * 60)]))
    assert stats["AP"] == pytest.approx(1)


# ---------------------------------------------------------------------------------------- results of other projects


def polygon(width=10, height=10) -> list:
    return [[0, 0, width, 0, width, height, 0, height]]


def runs(width=10, height=10) -> dict:
    """`rectangle` as a list of runs."""
    counts = [0, height] + [HEIGHT - height, height] * (width - 1) + [HEIGHT * (WIDTH - width) + HEIGHT - height]
    return {"size": [HEIGHT, WIDTH], "counts": counts}


@pytest.mark.parametrize(
    "track",
    [
        prediction(1, 1, 0.9, [polygon()] * 5),
        prediction(1, 1, 0.9, [runs()] * 5),
        prediction(1, 1, 0.9, [rectangle(10), runs(), polygon(), *five()[:2]]),
        prediction(1, 1, 0.9, tuple(five())),
        prediction(1, 1, np.float32(0.9), [{**mask, "counts": mask["counts"].encode()} for mask in five()]),
        prediction(np.int64(1), np.int64(1), 1, [{**mask, "size": np.array(mask["size"])} for mask in five()]),
        prediction(1, 1, 0.9, [{**mask, "size": (HEIGHT, WIDTH), "score": 0.5} for mask in five()]),
        {**prediction(1, 1, 0.9, five()), "id": 77, "bboxes": [None], "areas": "?", "model": {"name": "other"}},
    ],
)
def test_every_form_of_a_prediction_is_read(backend, track):
    truth = dataset((1, 1, five()), (2, 2, five()))
    expected = evaluate_results(truth, [prediction(1, 1, 0.9, five())]).stats
    np.testing.assert_array_equal(evaluate_results(truth, [track]).stats, expected)
    assert expected[0] == pytest.approx(0.5)


def test_files_hold_every_form_too(tmp_path):
    track = {**prediction(1, 1, 0.9, [rectangle(10), runs(), polygon(), [], None]), "note": {"size": 3, "counts": "?"}}
    path = tmp_path / "results.json"
    path.write_text("\ufeff" + json.dumps([track]), "utf-8")  # with a byte order mark
    loaded = YTVOS(TRUTH).loadRes(path).dataset["annotations"][0]
    assert loaded["areas"] == [100, 100, 100, None, None] and loaded["note"] == track["note"]


def test_a_prediction_may_end_before_its_video():
    stats = named(evaluate_results(dataset((1, 1, five())), [prediction(1, 1, 0.9, five()[:3])]))
    assert stats["AP"] == pytest.approx(1)  # the official one ignores frames after the end


def test_boxes_are_optional():
    gt = YTVOS(TRUTH)
    with_boxes, without = (gt.loadRes([GOOD], boxes).dataset["annotations"][0] for boxes in (True, False))
    assert with_boxes["bboxes"] == [[0, 0, 10, 10]] * 5
    assert {key: value for key, value in with_boxes.items() if key != "bboxes"} == without


# ------------------------------------------------------------------------------------------------------ empty cases


def test_nothing_predicted_is_zero():
    metrics = evaluate_results(dataset((1, 1, five())), [])
    assert {named(metrics)[name] for name in ("AP", "AP50", "APs", "AR1", "AR100")} == {0.0}


def test_nothing_to_find_is_minus_one():
    for truth in (dataset(), dataset(videos=0), dataset(categories=())):
        assert evaluate_results(truth, []).stats.tolist() == [-1.0] * 12
    assert evaluate_results(dataset(), [prediction(1, 1, 0.9, five())]).stats.tolist() == [-1.0] * 12


def test_tracks_without_masks_or_frames():
    gt = dataset((1, 1, [None] * 5), (2, 1, []), (2, 2, five()))
    tracks = [prediction(1, 1, 0.9, [None] * 5), prediction(2, 1, 0.8, []), prediction(2, 2, 0.5, five())]
    metrics = evaluate_results(gt, tracks)
    assert metrics.per_category["cat"]["AP"] == 0  # invisible tracks count as truth, but cannot be found
    assert metrics.per_category["dog"]["AP"] == pytest.approx(1)


# ---------------------------------------------------------------------------------------------------------- results


def test_evaluate_results_prints_nothing_and_leaves_its_input_alone(capsys):
    gt, tracks = dataset((1, 1, five())), [prediction(1, 1, 0.9, five())]
    before = copy.deepcopy((gt, tracks))
    evaluate_results(gt, tracks)
    assert (gt, tracks) == before
    assert capsys.readouterr().out == ""


def test_paths_give_what_their_contents_give():
    paths = [CASES / "small" / f"{stem}.json" for stem in ("gt", "pred")]
    contents = [json.loads(path.read_text("utf-8")) for path in paths]
    for arguments in (paths, [str(path) for path in paths], contents):
        expected = read("small", "golden")["runs"][0]["stats"]
        assert named(evaluate_results(*arguments)) == pytest.approx(expected, abs=1e-12)


def test_categories_of_one_name_are_told_apart():
    metrics = evaluate_results(dataset((1, 2, five()), categories=("cat", "cat")), [prediction(1, 2, 0.9, five())])
    assert metrics.per_category["cat"]["AP"] == -1
    assert metrics.per_category["cat (2)"]["AP"] == pytest.approx(1)


def test_categories_without_tracks_cost_next_to_nothing():
    names = [f"category {number}" for number in range(51_000)]
    used = [5, 700, 8_000, 15_000, 30_000, 45_000, 51_000]
    gt = YTVOS(dataset(*((1, category, five()) for category in used), categories=names))
    predictions = gt.loadRes([prediction(1, category, 0.9, five()) for category in used[1:] + [6]])
    tracemalloc.start()
    try:
        metrics = evaluate_results(gt, predictions)
        tracking = evaluate_tracking(gt, predictions)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * 2**20  # one array of all categories has 400 times the curves of one: 1600 MB
    assert metrics.curves.category_ids == used and metrics.stats[0] == pytest.approx(6 / 7)
    assert len(metrics.per_category) == 51_000 and metrics.per_category["category 6"]["AP"] == -1
    assert len(tracking.per_category()) == 8


def test_categories_without_true_tracks_are_minus_one_in_the_official_arrays():
    gt = YTVOS(dataset((1, 2, five()), categories=("cat", "dog", "cow")))
    predictions = gt.loadRes([prediction(1, 2, 0.9, five()), prediction(1, 3, 0.9, five())])
    evaluation, metrics = evaluated(gt, predictions), evaluate_results(gt, predictions)
    assert evaluation.eval["counts"] == [10, 101, 3, 4, 3]
    for name, shape in (("precision", (10, 101, 3, 4, 3)), ("recall", (10, 3, 4, 3)), ("scores", (10, 101, 3, 4, 3))):
        array = evaluation.eval[name]
        assert array.shape == shape and (array[..., [0, 2], :, :] == -1).all() and array[..., 1, 0, :].min() > 0
        if name != "scores":
            np.testing.assert_array_equal(array, getattr(metrics, name))
    assert {category for _, category in evaluation.ious} == {2, 3}


def test_nothing_is_known_before_accumulation():
    gt = YTVOS(dataset((1, 1, five())))
    evaluation = YTVOSeval(gt, gt.loadRes([]))
    evaluation.evaluate()
    assert evaluation.eval == {}
    with pytest.raises(RuntimeError, match="accumulate"):
        evaluation.summarize()


def test_table():
    gt = dataset((1, 1, five()), (2, 2, five()), categories=("cat", "flying_squirrel", "dog"))
    table = format_table(evaluate_results(gt, [prediction(1, 1, 0.9, five())]))
    assert table.splitlines() == [
        "category           AP  AP50  AP75   APs   APm   APl   AR1  AR10 AR100   ARs   ARm   ARl",
        "all              50.0  50.0  50.0  50.0     -     -  50.0  50.0  50.0  50.0     -     -",
        "cat             100.0 100.0 100.0 100.0     -     - 100.0 100.0 100.0 100.0     -     -",
        "flying_squirrel   0.0   0.0   0.0   0.0     -     -   0.0   0.0   0.0   0.0     -     -",
    ]


# -------------------------------------------------------------------------------------------------------- bad input


def without(item: dict, key: str) -> dict:
    return {name: value for name, value in item.items() if name != key}


GOOD = prediction(1, 1, 0.9, five())
TRUTH = dataset((1, 1, five()))
NAMES = {"file_names": [f"{frame}.jpg" for frame in range(5)]}
FILE = {**TRUTH, "videos": [video | NAMES for video in TRUTH["videos"]]}  # files must name their frames


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"results": []}, "results must be a list"),
        ([GOOD, "track"], "entry 1: an entry is not an object"),
        ([without(GOOD, "score")], "entry 0: 'score' is missing"),
        ([{**GOOD, "video_id": 7}], "unknown video: 7"),
        ([{**GOOD, "score": float("nan")}], "finite"),
        ([{**GOOD, "score": "high"}], "finite"),
        ([{**GOOD, "segmentations": five()[0]}], "one entry per frame"),
        ([{**GOOD, "segmentations": [None, "mask"]}], "frame 1"),
        ([{**GOOD, "segmentations": [{"size": [5], "counts": "0"}]}], "size"),
        ([{**GOOD, "segmentations": [{"size": [5, 5], "counts": "0P"}]}], "whole run-length string"),
        ([{**GOOD, "segmentations": [{"size": [5, 5], "counts": [10, -5, 20]}]}], "frame 0"),
        # With such masks the mask library never returns.
        ([{**GOOD, "segmentations": [None, {"size": [5, 5], "counts": "52"}]}], "frame 1: .* fills its size"),
        ([{**GOOD, "segmentations": [None, {"size": [5, 5], "counts": [5, 5]}]}], "frame 1: .* fills its size"),
        ([{**GOOD, "segmentations": [{"size": [5, "5"], "counts": "i0"}]}], "frame 0: .*the size of a mask"),
        ([{**GOOD, "segmentations": [[[0, 0, 5, 5]]]}], "three points"),
    ],
)
def test_bad_results(tmp_path, results, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results), "utf-8")
    with pytest.raises(InputError, match=message) as caught:
        evaluate_results(TRUTH, path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([FILE], "object"),
        (without(FILE, "videos"), "'videos' must be a list"),
        (without(FILE, "categories"), "must be a list"),
        (without(FILE, "annotations"), "no annotations"),
        (TRUTH, "video without 'file_names'"),
        ({**FILE, "annotations": [{**FILE["annotations"][0], "areas": ["100"] * 5}]}, "annotation 1, frame 0: an area"),
        ({**FILE, "annotations": [{**FILE["annotations"][0], "segmentations": [3]}]}, "annotation 1, frame 0"),
    ],
)
def test_bad_annotations(tmp_path, annotations, message):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(annotations), "utf-8")
    with pytest.raises(InputError, match=message) as caught:
        evaluate_results(path, [])
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("areas", ["missing", None, [], [None] * 5])
def test_without_areas_they_are_those_of_the_masks(areas):
    masks = [rectangle(200, 200, size=(240, 240))] * 5  # 40000 pixels: medium
    truth = dataset((1, 1, masks, {"areas": areas}))
    truth["videos"][0] |= {"height": 240, "width": 240}
    if areas == "missing":
        del truth["annotations"][0]["areas"]
    stats = named(evaluate_results(truth, [prediction(1, 1, 0.9, masks)]))
    assert stats["APm"] == pytest.approx(1) and stats["APs"] == stats["APl"] == -1


def test_predictions_of_a_category_that_the_truth_lacks_are_logged(caplog):
    labels_for_ids = [prediction(1, 0, 0.9, five()), prediction(2, 0, 0.9, five())]
    with caplog.at_level(logging.WARNING):
        assert named(evaluate_results(TRUTH, labels_for_ids))["AP"] == 0
    (record,) = caplog.records
    assert "entry 0 (video 1): unknown category: 0 (2 times, first here)" in record.getMessage()


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="nowhere.json"):
        evaluate_results(tmp_path / "nowhere.json", [])
    (tmp_path / "cut.json").write_text('[{"video_id": 1', "utf-8")
    with pytest.raises(InputError, match="cut.json: is not a JSON file"):
        evaluate_results(TRUTH, tmp_path / "cut.json")


def test_only_masks_are_compared():
    with pytest.raises(InputError, match="bbox"):
        evaluate_results(TRUTH, [GOOD], iou_type="bbox")


def test_a_summary_needs_three_limits():
    gt = YTVOS(TRUTH)
    with pytest.raises(InputError, match="three maxDets"):
        evaluated(gt, gt.loadRes([GOOD]), maxDets=[1, 100]).summarize()


def test_steps_out_of_order():
    gt = YTVOS(TRUTH)
    with pytest.raises(RuntimeError, match="accumulate"):
        YTVOSeval(gt, gt.loadRes([GOOD])).summarize()
