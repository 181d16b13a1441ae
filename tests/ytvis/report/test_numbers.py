import base64
import json
import os
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.ytvis.small_set import EVIL, LENGTH, box
from ytvis.files import InputError
from ytvis.report import write_report
from ytvis.report.inputs import ReportInput
from ytvis.report.mistakes import PooledMatches, best_cut, confusion, shown_categories, video_qualities
from ytvis.report.pictures import draw_pictures
from ytvis.report.videos import Span, describe_video
from ytvis.score.ap import STAT_NAMES, evaluate_results
from ytvis.score.bootstrap import ResultStatistics, bootstrap
from ytvis.score.groups import evaluate_some, split, thirds
from ytvis.score.tracking import evaluate_tracking
from ytvis.score.ytvos import YTVOS


@pytest.fixture
def inputs(files) -> ReportInput:
    return ReportInput.read(*files, None)


def numbers_of(files, folder) -> dict:
    return json.loads((write_report(*files, folder).parent / "metrics.json").read_text("utf-8"))


# ------------------------------------------------------------------------------------------------------- the numbers


def test_scores_and_categories_are_those_of_the_evaluator(files, tmp_path):
    numbers, metrics = numbers_of(files, tmp_path / "out"), evaluate_results(*files)
    for name, value in zip(STAT_NAMES, metrics.stats.tolist(), strict=True):
        if name in numbers["scores"]:
            assert numbers["scores"][name]["value"] == (None if value < 0 else value)
    assert {"AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10"} <= numbers["scores"].keys()
    assert [row["name"] for row in numbers["categories"]] == ["cat", EVIL]  # no dog is there
    for row in numbers["categories"]:
        for name, value in metrics.per_category[row["name"]].items():
            assert row[name] == (None if value < 0 else value)
    assert [row["objects"] for row in numbers["categories"]] == [3, 2]


def test_the_mean_of_a_curve_is_the_ap(files, tmp_path):
    numbers = numbers_of(files, tmp_path / "out")
    everything, cats, _ = numbers["curves"]
    assert everything["category"] is None and cats["category"] == 1
    for curve, scores in (
        (everything, {name: score["value"] for name, score in numbers["scores"].items()}),
        (cats, numbers["categories"][0]),
    ):
        for name, key in (("mean", "AP"), ("low", "AP50"), ("high", "AP75")):
            assert np.mean(curve[name]) == pytest.approx(scores[key], abs=1e-6)


def test_groups_are_scored_as_their_objects_alone(files, tmp_path):
    numbers, truth = numbers_of(files, tmp_path / "out"), YTVOS(files[0])
    kinds = {kind["title"]: kind["groups"] for kind in numbers["groups"]}
    assert {title: [group["objects"] for group in groups] for title, groups in kinds.items()} == {
        "Size": [5],
        "Track length": [5],
        "Occlusion": [5],
        "Objects in the video": [1, 4],
    }
    ours = evaluate_some(truth.dataset, files[1], [1, 2, 3, 4, 6]).stats[0]
    assert kinds["Size"][0]["AP"] == ours == numbers["scores"]["AP"]["value"]
    assert kinds["Objects in the video"][0]["AP"] == pytest.approx(1)  # the mistakes of the other video are not its own


def test_the_same_input_gives_the_same_files(files, tmp_path):
    first, second = (write_report(*files, tmp_path / name).parent for name in ("a", "b"))
    for name in ("report.html", "metrics.json", "metrics.md"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_tracking_scores_are_those_of_the_tracking_evaluation(files, tmp_path):
    scores, ours = numbers_of(files, tmp_path / "out")["scores"], evaluate_tracking(*files).overall()
    assert {name: scores[name]["value"] for name in ("HOTA", "DetA", "AssA", "IDF1", "IDSW")} == {
        name: ours[name] for name in ("HOTA", "DetA", "AssA", "IDF1", "IDSW")
    }
    assert scores["IDSW"]["value"] == 1  # from B to C


def test_intervals_are_those_of_the_bootstrap(files, tmp_path):
    scores, intervals = numbers_of(files, tmp_path / "out")["scores"], bootstrap(ResultStatistics.of(*files), seed=0)
    for name in ("AP", "AP50", "AR10", "HOTA", "IDF1"):
        assert (scores[name]["low"], scores[name]["high"]) == (intervals[name].low, intervals[name].high)
        assert 0 <= scores[name]["low"] <= scores[name]["high"] <= 1
    assert scores["APl"]["low"] is None and scores["IDSW"]["high"] is None
    text = (tmp_path / "out" / "metrics.md").read_text("utf-8")
    low, high = (f"{100 * getattr(intervals['AP'], end):.1f}" for end in ("low", "high"))
    assert f"| {low} to {high} |" in text


# ------------------------------------------------------------------------------------------------------------ groups


def test_thirds_hold_as_many_values_each():
    assert thirds(dict(enumerate([1, 2, 3, 4, 5, 6]))) == [3, 5]
    assert thirds(dict(enumerate([7, 7, 7]))) == [] and thirds({}) == []
    assert thirds(dict(enumerate([1, 1, 1, 9, 9]))) == [9]


def test_an_edge_belongs_to_the_upper_group_and_empty_groups_are_left_out():
    assert split({1: 1, 2: 2, 3: 2, 4: 6}, [2, 3, 5], "frames") == [
        ("1 frames", [1]),
        ("2 frames", [2, 3]),
        ("6 frames", [4]),
    ]
    assert split({1: 0.1, 2: 0.25, 3: 0.5}, [0.25, 0.5], "px") == [
        ("under 0.25 px", [1]),
        ("0.25 to 0.5 px", [2]),
        ("0.5 px or more", [3]),
    ]
    assert split({1: 0.5}, [], "") == [("all", [1])] and split({}, [2], "") == []


# ---------------------------------------------------------------------------------------------------------- mistakes


def test_confusion_counts_what_a_person_counts(inputs):
    matches = PooledMatches.of(inputs)
    # A, B and the track of video 2 are right (3 of 5 objects), C, D and F are not, E has found a crowd.
    assert confusion(matches, 0.5) == {(1, 1): 3, (2, 1): 1, (None, 1): 1, (None, 2): 1, (2, None): 1}
    # With all tracks, G is false too; with the best ones alone, more is missed.
    assert confusion(matches, 0)[None, 1] == 2
    assert confusion(matches, 0.85) == {(1, 1): 1, (1, None): 2, (2, None): 2}
    assert confusion(matches, 2) == {(1, None): 3, (2, None): 2}


def test_the_cut_is_where_f1_is_the_greatest(inputs):
    # F1 of the tracks from each score on: 2·1/(1+5) at 0.9, 2·2/(2+5) at 0.8, less until 0.5 (both): 2·3/(6+5).
    matches = PooledMatches.of(inputs)
    assert best_cut(matches) == 0.8
    assert confusion(matches, 0.8) == {(1, 1): 2, (1, None): 1, (2, None): 2}


def test_video_quality_is_the_mean_f1(inputs):
    qualities = video_qualities(PooledMatches.of(inputs), 0.5)
    # Video 1: A is right at ten thresholds, B (4 of 6 frames) at four, of 4 objects and 5 tracks without the crowd's.
    assert qualities == {1: pytest.approx((2 * 2 * 4 + 2 * 1 * 6) / 9 / 10), 2: pytest.approx(1)}
    assert list(qualities) == [1, 2]  # the worst first


# ------------------------------------------------------------------------------------------------------ worst videos


def test_time_lines_show_who_covers_whom(inputs):
    video = describe_video(inputs, 1, quality=0.3, cut=0.5)
    # In the order of the file the tracks are 0 A, 1 B, 2 C, 3 D, 4 E, 5 F; the missed object comes after them.
    assert not video.has_ids and video.track_numbers == [4, 0, 1, 2, 3, 5]  # by falling score
    assert [(row.number, row.category_id) for row in video.rows] == [(0, 1), (1, 1), (3, 2), (6, 2)]
    assert [row.spans for row in video.rows] == [
        [Span(0, LENGTH, 0)],
        [Span(0, 4, 1), Span(4, LENGTH, 2)],
        [Span(0, LENGTH, 3)],
        [Span(0, LENGTH, None)],
    ]
    assert [row.switches for row in video.rows] == [[], [4], [], []] and video.switches == 1
    assert len(video.frames) == 3 and video.frames[-1] == 4  # one a third; the switch is the mistake of the last


@pytest.mark.parametrize("repeated", [False, True])
def test_tracks_have_the_ids_of_the_results_unless_two_have_the_same(files, tmp_path, repeated):
    results = json.loads(files[1].read_text("utf-8"))
    for place, entry in enumerate(results):
        entry["track_id"] = 12 if repeated else 30 - place
    files[1].write_text(json.dumps(results), "utf-8")
    video = describe_video(ReportInput.read(*files, None), 1, quality=0.3, cut=0.5)
    assert video.has_ids != repeated
    assert video.rows[-1].spans == [Span(0, LENGTH, None)] and video.rows[-1].number == (6 if repeated else 31)
    assert video.track_numbers == ([4, 0, 1, 2, 3, 5] if repeated else [26, 30, 29, 28, 27, 25])
    page = write_report(*files, tmp_path / "report").read_text("utf-8")
    assert ("no track ids: numbered in the order of the file" in page) == repeated


def test_tracks_under_the_cut_take_no_part(inputs):
    video = describe_video(inputs, 1, quality=0.3, cut=0.75)
    assert len(video.tracks) == 3
    assert [row.spans for row in video.rows][1] == [Span(0, 4, 1), Span(4, LENGTH, None)]


def test_a_frame_without_an_object_is_a_gap(files, inputs):
    annotations = inputs.truth.dataset
    hidden = [{**annotations["annotations"][0], "segmentations": box(0, 0, (1, 2)), "areas": [None, 100, 100]}]
    files[0].write_text(json.dumps({**annotations, "annotations": hidden}), "utf-8")
    video = describe_video(ReportInput.read(*files, None), 1, quality=0.3, cut=0.85)
    assert [row.spans for row in video.rows] == [[Span(1, 3, 0)]]


def test_pictures_show_the_frame_or_grey(files, tmp_path):
    inputs = ReportInput.read(*files, tmp_path / "frames")
    video = replace(describe_video(inputs, 2, quality=0.3, cut=0.2), frames=[0, 1])
    red, grey = (
        cv2.imdecode(np.frombuffer(base64.b64decode(address.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
        for address in draw_pictures(inputs, video)
    )
    assert red.shape == grey.shape == (213, 2 * 320 + 8, 3)  # of 40×60
    assert np.abs(red[150, 250].astype(int) - (0, 0, 255)).max() < 10  # BGR, away from the object
    assert np.abs(grey[150, 250].astype(int) - 128).max() < 10
    assert np.abs(red[40, 30].astype(int) - (0, 0, 255)).max() > 30  # on the object


@pytest.mark.parametrize("name", ["second/0.png", "second\\0.png", "inner/0.png", "./second/../second/0.png"])
def test_links_and_back_slashes_within_the_folder_are_followed(files, tmp_path, name):
    content = json.loads(files[0].read_text("utf-8"))
    content["videos"][1]["file_names"][1] = name
    files[0].write_text(json.dumps(content), "utf-8")
    (tmp_path / "frames" / "inner").symlink_to("second")
    (tmp_path / "linked").symlink_to("frames")
    inputs = ReportInput.read(*files, tmp_path / "linked")
    video = replace(describe_video(inputs, 2, quality=0.3, cut=0.2), frames=[1])
    encoded = base64.b64decode(draw_pictures(inputs, video)[0].partition(",")[2])
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(picture[150, 250].astype(int) - (0, 0, 255)).max() < 10


@pytest.mark.parametrize("name", ["../secret.png", "..\\secret.png", "link.png", "folder/secret.png", "loop/0.png"])
def test_a_name_that_leads_out_of_the_folder_is_not_followed(files, tmp_path, name):
    content = json.loads(files[0].read_text("utf-8"))
    content["videos"][1]["file_names"][1] = name
    files[0].write_text(json.dumps(content), "utf-8")
    cv2.imwrite(str(tmp_path / "secret.png"), np.zeros((40, 60, 3), np.uint8))
    for link, target in (("link.png", "../secret.png"), ("folder", ".."), ("loop", "loop")):
        (tmp_path / "frames" / link).symlink_to(target)
    inputs = ReportInput.read(*files, tmp_path / "frames")
    video = replace(describe_video(inputs, 2, quality=0.3, cut=0.2), frames=[1])
    encoded = base64.b64decode(draw_pictures(inputs, video)[0].partition(",")[2])
    assert cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[150, 250].min() > 100


# ------------------------------------------------------------------------------------------------------------ limits


def test_a_large_matrix_keeps_the_categories_with_the_most_mistakes():
    cells = {(key, key): 9 for key in range(100)} | {(7, 99): 3, (None, 50): 2, (60, None): 1}
    keys, left_out = shown_categories(cells)
    assert len(keys) == 40 and left_out == 60 and keys == sorted(keys)
    assert {7, 50, 60, 99} <= set(keys)
    assert shown_categories({(1, 2): 1}) == ([1, 2], 0)


def test_perfect_predictions_leave_no_worst_video(files, tmp_path):
    annotations = json.loads(files[0].read_text("utf-8"))["annotations"]
    found = [{**entry, "score": 0.9} for entry in annotations if not entry["iscrowd"]]
    files[1].write_text(json.dumps(found), "utf-8")
    page = write_report(*files, tmp_path / "out")
    assert "No video has a mistake." in page.read_text("utf-8")
    numbers = json.loads(page.with_name("metrics.json").read_text("utf-8"))
    assert [video["quality"] for video in numbers["video_qualities"]] == [1, 1]


# ---------------------------------------------------------------------------------------------------------- bad input


def test_of_many_categories_only_those_in_use_are_in_the_report(files, tmp_path):
    content = json.loads(files[0].read_text("utf-8"))
    content["categories"] += [{"id": number, "name": f"category {number}"} for number in range(4, 51_000)]
    files[0].write_text(json.dumps(content), "utf-8")
    page = write_report(*files, tmp_path / "out", tmp_path / "frames")
    assert "category 9" not in page.read_text("utf-8")
    assert sum(path.stat().st_size for path in page.parent.iterdir()) < 500_000


def test_names_of_files_that_are_no_text_are_replaced(files, tmp_path):
    results = tmp_path / os.fsdecode(b"caf\xe9 <b>.json")
    files[1].rename(results)
    page = write_report(files[0], results, tmp_path / "out")
    assert "<title>Report of caf? &lt;b&gt;.json</title>" in page.read_text("utf-8")
    assert page.with_name("metrics.md").read_text("utf-8").startswith("caf? \\<b\\>.json against truth.json: ")


def test_no_predictions_give_zeros_and_a_page(files, tmp_path):
    files[1].write_text("[]", "utf-8")
    numbers = numbers_of(files, tmp_path / "out")
    assert numbers["scores"]["AP"]["value"] == 0 and numbers["cut"] == 0
    assert Counter({(cell["true"], cell["predicted"]): cell["tracks"] for cell in numbers["confusion"]}) == {
        (1, None): 3,
        (2, None): 2,
    }
    assert [video["quality"] for video in numbers["video_qualities"]] == [0, 0]


def test_only_wrong_predictions_give_a_page(files, tmp_path):
    wrong = [{"video_id": 2, "category_id": 3, "score": 0.4, "segmentations": box(40, 20)}]
    wrong.append({**wrong[0], "category_id": 77})  # a category that the truth does not have
    files[1].write_text(json.dumps(wrong), "utf-8")
    numbers = numbers_of(files, tmp_path / "out")
    assert numbers["tracks"] == 1 and numbers["cut"] == 0.4
    assert {"true": None, "predicted": 3, "tracks": 1} in numbers["confusion"]


def test_what_cannot_be_used_is_said_in_one_line(files, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder of frames"):
        write_report(*files, tmp_path / "out", tmp_path / "nowhere")
    with pytest.raises(InputError, match="gone.json: cannot be read"):
        write_report(files[0], tmp_path / "gone.json", tmp_path / "out")
    content = json.loads(files[0].read_text("utf-8"))
    for withheld in ({**content, "annotations": []}, {key: content[key] for key in ("videos", "categories")}):
        files[0].write_text(json.dumps(withheld), "utf-8")
        with pytest.raises(InputError, match="has no annotations to compare with"):
            write_report(*files, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_markdown_shows_names_as_they_are(files, tmp_path):
    text = (write_report(*files, tmp_path / "out").parent / "metrics.md").read_text("utf-8")
    assert "| AP50 |" in text and "| Objects in the video | 4 | 4 |" in text
    assert "\\<script\\>document.title='broken'\\</script\\>\\|\\* | 2 |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)
