import numpy as np
import pytest
from pycocotools import mask as rle_tools

from ytvis.files import InputError
from ytvis.score.breakdown import evaluate_occluded, evaluate_some, occlusion, occlusions
from ytvis.score.ytvos import YTVOS


def rle(x, y, width, height):
    """A filled box in a picture of 20×40 pixels; None for an empty one."""
    mask = np.zeros((20, 40), np.uint8)
    mask[y : y + height, x : x + width] = 1
    encoded = rle_tools.encode(np.asfortranarray(mask))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()} if mask.any() else None


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
    assert occlusion([box], []) == 0
    assert occlusion([box], [[(5.0, 0.0, 10.0, 10.0)]]) == 0.5
    assert occlusion([box], [[(5.0, 5.0, 10.0, 10.0)], [(0.0, 0.0, 10.0, 4.0)]]) == pytest.approx(0.4)
    assert occlusion([box], [[(20.0, 0.0, 10.0, 10.0)], [None]]) == 0
    assert occlusion([], []) == 0 and occlusion([None], [[box]]) == 0


def test_hidden_frames_count_and_absent_ones_do_not():
    box = (0.0, 0.0, 10.0, 10.0)
    assert occlusion([None, box, None, box, None], [[None] * 5]) == pytest.approx(1 / 3)


def test_occlusions_are_read_off_the_masks():
    tracks = (annotation(7, FREE), annotation(8, LEFT), annotation(9, RIGHT))
    assert occlusions(YTVOS(annotations(*tracks))) == {7: 0.0, 8: 0.5, 9: 0.5}


def test_only_the_wanted_objects_count():
    truth = annotations(annotation(7, FREE), annotation(8, LEFT))
    found_free, missed = [prediction(FREE, 0.9)], {7: 1.0, 8: 0.0}
    for track_id, expected in missed.items():
        assert evaluate_some(truth, found_free, [track_id]).stats[0] == pytest.approx(expected)
    assert evaluate_some(truth, found_free, [7, 8]).stats[0] == pytest.approx(0.5, abs=0.01)
    assert truth["annotations"][0]["iscrowd"] == 0  # what was given stays as it was


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
