import math

import pytest
from pycocotools import mask as rle_tools

from tests.ytvis.rectangles import rectangle
from ytvis.files import InputError
from ytvis.score import ap
from ytvis.score.ap import YTVOSeval
from ytvis.score.groups import (
    box_occlusion,
    box_occlusions,
    evaluate_occluded,
    evaluate_some,
    labelled_occlusion,
    longest_absence,
    score_groups,
)
from ytvis.score.tracking import evaluate_tracking
from ytvis.score.ytvos import YTVOS, load_pair


def rle(x, y, width, height):
    """A filled box in a picture of 20×40 pixels; None for an empty one."""
    return rectangle(x, y, width, height, (20, 40)) if width and height else None


def annotation(track_id, masks, category_id=1):
    areas = [None if mask is None else float(rle_tools.area(mask)) for mask in masks]
    return {
        **{"id": track_id, "video_id": 1, "category_id": category_id, "iscrowd": 0},
        **{"segmentations": masks, "areas": areas, "bboxes": [None] * len(masks)},
    }


def annotations(*tracks):
    video = {"id": 1, "height": 20, "width": 40, "length": 3, "file_names": ["a", "b", "c"]}
    return {"videos": [video], "categories": [{"id": 1, "name": "thing"}], "annotations": list(tracks)}


def prediction(masks, score):
    return {"video_id": 1, "category_id": 1, "score": score, "segmentations": masks}


FREE = [rle(0, 0, 4, 4)] * 3
LEFT = [rle(10, 0, 10, 10)] * 3
RIGHT = [rle(15, 0, 10, 10)] * 3  # covers half of LEFT's box, and the other way round


def test_occlusion_is_the_part_of_the_box_that_another_covers():
    box = (0.0, 0.0, 10.0, 10.0)
    assert box_occlusion([box], []) == 0
    assert box_occlusion([box], [[(5.0, 0.0, 10.0, 10.0)]]) == 0.5
    assert box_occlusion([box], [[(5.0, 5.0, 10.0, 10.0)], [(0.0, 0.0, 10.0, 4.0)]]) == pytest.approx(0.4)
    assert box_occlusion([box], [[(20.0, 0.0, 10.0, 10.0)], [None]]) == 0
    assert box_occlusion([], []) == 0 and box_occlusion([None], [[box]]) == 0


def test_hidden_frames_count_and_absent_ones_do_not():
    box = (0.0, 0.0, 10.0, 10.0)
    assert box_occlusion([None, box, None, box, None], [[None] * 5]) == pytest.approx(1 / 3)


def test_occlusions_are_read_off_the_masks():
    tracks = (annotation(7, FREE), annotation(8, LEFT), annotation(9, RIGHT))
    assert box_occlusions(YTVOS(annotations(*tracks))) == {7: 0.0, 8: 0.5, 9: 0.5}


def test_only_the_wanted_objects_count():
    truth = annotations(annotation(7, FREE), annotation(8, LEFT))
    found_free, missed = [prediction(FREE, 0.9)], {7: 1.0, 8: 0.0}
    for track_id, expected in missed.items():
        assert evaluate_some(truth, found_free, [track_id]).stats[0] == pytest.approx(expected)
    assert evaluate_some(truth, found_free, [7, 8]).stats[0] == pytest.approx(0.5, abs=0.01)
    assert truth["annotations"][0]["iscrowd"] == 0  # the input does not change


def test_who_finds_an_unwanted_object_loses_nothing_but_a_false_track_does():
    truth = annotations(annotation(7, FREE), annotation(8, LEFT))
    free = prediction(FREE, 0.5)
    assert evaluate_some(truth, [prediction(LEFT, 0.9), free], [7]).stats[0] == pytest.approx(1)
    nowhere = prediction([rle(30, 10, 5, 5)] * 3, 0.9)
    assert evaluate_some(truth, [nowhere, free], [7]).stats[0] == pytest.approx(0.5)


def test_occluded_objects_are_scored_alone():
    truth = annotations(annotation(7, FREE), annotation(8, LEFT), annotation(9, RIGHT))
    assert evaluate_occluded(truth, [prediction(FREE, 0.9)]).stats[0] == 0
    assert evaluate_occluded(truth, [prediction(LEFT, 0.9), prediction(RIGHT, 0.8)]).stats[0] == pytest.approx(1)
    with pytest.raises(InputError, match="no object is occluded"):
        evaluate_occluded(annotations(annotation(7, FREE)), [prediction(FREE, 0.9)])


# ----------------------------------------------------------------------------------------------- occlusion as labelled


def frames(none=0, slight=0, severe=0, unlabelled=0) -> list[str | None]:
    """Labels of an object that has so many frames of each."""
    names = ("no_occlusion", "slight_occlusion", "severe_occlusion", None)
    return [name for name, times in zip(names, (none, slight, severe, unlabelled), strict=True) for _ in range(times)]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (frames(none=5), "no_occlusion"),
        (frames(none=4, slight=1), "no_occlusion"),
        (frames(none=2, slight=1), "slight_occlusion"),  # a third is enough
        (frames(none=2, slight=1, unlabelled=2), "slight_occlusion"),  # of the labelled frames
        (frames(slight=3, severe=2), "severe_occlusion"),
        (frames(none=1, slight=1, severe=1), "severe_occlusion"),
        (frames(none=2, slight=2, severe=1), "slight_occlusion"),
        (frames(unlabelled=5), None),
        ([], None),
        (None, None),
        (0.5, None),
        (["occluded", 1, [], None], None),
        (["occluded", 1, [], "no_occlusion"], "no_occlusion"),
    ],
)
def test_an_object_has_the_highest_level_of_a_third_of_its_frames(labels, expected):
    assert labelled_occlusion(labels) == expected


def evaluated(truth, predictions):
    evaluation = YTVOSeval(*load_pair(truth, predictions))
    evaluation.evaluate()
    return evaluation


def test_masks_are_compared_once_for_all_groups(monkeypatch):
    truth = annotations(annotation(7, LEFT), annotation(8, RIGHT), annotation(9, FREE))
    truth["annotations"].append({**annotation(10, FREE), "video_id": 2})
    truth["videos"].append({**truth["videos"][0], "id": 2})
    predictions = [prediction(LEFT, 0.9), prediction(FREE, 0.8), {**prediction(FREE, 0.7), "video_id": 2}]
    evaluation = evaluated(truth, predictions)
    expected = evaluate_some(truth, predictions, [7]).stats[0]
    monkeypatch.setattr(ap, "frame_overlaps", None)
    assert evaluate_some(evaluation.cocoGt, evaluation.cocoDt, [7], evaluation.ious).stats[0] == expected > 0
    videos = next(kind for kind in score_groups(evaluation) if kind["title"] == "Objects in the video")
    assert [(group["label"], group["objects"]) for group in videos["groups"]] == [("1", 1), ("3", 3)]
    # The prediction of the second video alone is of the first group; two of three objects are found in the other.
    assert [group["AP"] for group in videos["groups"]] == pytest.approx([1, 67 / 101])


# ------------------------------------------------------------------------------------------------------------ absence


def test_the_longest_absence_is_between_two_appearances():
    assert longest_absence([None, 4.0, 0, None, 4.0, None, 4.0, None, None]) == 2
    assert longest_absence([4.0, 4.0]) == longest_absence([None, 4.0, None]) == longest_absence([]) == 0


def at(mask, *frames):
    """The mask in these of 14 frames."""
    return [mask if frame in frames else None for frame in range(14)]


HERE, THERE, NOWHERE = rle(0, 0, 4, 4), rle(10, 0, 10, 10), rle(30, 10, 5, 5)
STAYS = at(HERE, *range(4))
RETURNS = at(THERE, 0, 12)  # after eleven frames


def two_objects():
    truth = annotations(annotation(7, STAYS), annotation(8, RETURNS), annotation(9, at(rle(24, 0, 4, 4), 0, 11)))
    truth["videos"][0] |= {"length": 14, "file_names": list("abcdefghijklmn")}
    return truth


def scores_by_absence(truth, predictions):
    """{label: (objects, AP, HOTA, AssA)} of the groups by absence."""
    evaluation = evaluated(truth, predictions)
    kinds = score_groups(evaluation, evaluate_tracking(evaluation.cocoGt, evaluation.cocoDt))
    (kind,) = (kind for kind in kinds if kind["title"] == "Longest absence")
    names = ("objects", "AP", "HOTA", "AssA")
    return {group["label"]: tuple(group[name] for name in names) for group in kind["groups"]}


def test_objects_that_return_after_more_than_ten_frames_are_a_group():
    # One object is found as it is, one that returns has another id then, one is never found.
    predictions = [prediction(STAYS, 0.9), prediction(at(THERE, 0), 0.8), prediction(at(THERE, 12), 0.7)]
    found = scores_by_absence(two_objects(), predictions)
    assert list(found) == ["0 frames", "10 frames", "11 frames"]
    assert found["0 frames"] == pytest.approx((1, 1, 1, 1))
    assert found["10 frames"] == pytest.approx((1, 0, 0, 0))
    # Each half of the object has one of its two frames: A = 1 / (1 + 1).
    assert found["11 frames"][2:] == pytest.approx((math.sqrt(1 / 2), 1 / 2))
    # A false track of six frames counts against every group, a track of another group's object against none.
    with_false = [*predictions, prediction(at(NOWHERE, *range(6)), 0.9)]
    found = scores_by_absence(two_objects(), with_false)
    assert found["0 frames"][2:] == pytest.approx((math.sqrt(4 / (4 + 6)), 1))
    assert found["11 frames"][2:] == pytest.approx((math.sqrt(2 / (2 + 6) / 2), 1 / 2))


def test_groups_of_whole_videos_count_their_false_tracks_alone():
    truth = annotations(annotation(7, FREE), annotation(8, LEFT), {**annotation(9, FREE), "video_id": 2})
    truth["videos"].append({**truth["videos"][0], "id": 2})
    false = {**prediction([rle(30, 10, 5, 5)] * 3, 0.9), "video_id": 2}
    predictions = [prediction(FREE, 0.9), prediction(LEFT, 0.9), {**prediction(FREE, 0.9), "video_id": 2}, false]
    evaluation = evaluated(truth, predictions)
    kinds = score_groups(evaluation, evaluate_tracking(evaluation.cocoGt, evaluation.cocoDt))
    (kind,) = (kind for kind in kinds if kind["title"] == "Objects in the video")
    assert [group["HOTA"] for group in kind["groups"]] == pytest.approx([math.sqrt(1 / 2), 1])


def test_without_absences_and_without_tracking_there_are_no_such_numbers():
    kinds = score_groups(evaluated(annotations(annotation(7, FREE)), []))
    assert all(group["HOTA"] is group["AssA"] is None for kind in kinds for group in kind["groups"])


def test_labelled_objects_are_grouped():
    free, hidden, unlabelled = annotation(7, FREE), annotation(8, LEFT), annotation(9, RIGHT)
    free["occlusion"], hidden["occlusion"] = frames(none=3), frames(slight=1, severe=1, unlabelled=1)
    evaluation = evaluated(annotations(free, hidden, unlabelled), [prediction(FREE, 0.9)])
    kind = next(kind for kind in score_groups(evaluation) if kind["title"] == "Labelled occlusion")
    assert [(group["label"], group["objects"]) for group in kind["groups"]] == [
        ("no occlusion", 1),
        ("severe occlusion", 1),
    ]
    assert [group["AP"] for group in kind["groups"]] == pytest.approx([1, 0])


def test_without_labels_there_are_no_groups_of_them():
    titles = [kind["title"] for kind in score_groups(evaluated(annotations(annotation(7, FREE)), []))]
    assert titles == ["Size", "Track length", "Occlusion", "Objects in the video"]
