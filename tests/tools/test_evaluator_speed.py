"""tools/evaluator_speed.py: its calibration compares tracks correctly, and its large files are valid."""

import json
from pathlib import Path

import pytest

from tools.evaluator_speed import FIXTURES, tube_iou_by_merging, write_large_results
from ytvis.score.ap import YTVOS, YTVOSeval

SMALL = FIXTURES / "open" / "small"


def test_the_calibration_compares_tracks_as_the_evaluator_does():
    gt = YTVOS(SMALL / "gt.json")
    evaluator = YTVOSeval(gt, gt.loadRes(SMALL / "pred.json"))
    evaluator.evaluate()
    compared = 0
    for category in evaluator.categories.values():
        for video, ious in category.ious.items():
            predictions, truths = (
                [track["segmentations"] for track, place in zip(tracks, places, strict=True) if place == video]
                for tracks, places in (
                    (category.predictions, category.prediction_videos),
                    (category.truths, category.truth_videos),
                )
            )
            for row, first in zip(ious, predictions, strict=True):
                for iou, second in zip(row, truths, strict=True):
                    assert tube_iou_by_merging(first, second) == pytest.approx(iou, abs=1e-15)
                    compared += iou > 0
    assert compared > 20


@pytest.mark.parametrize("copies", [1, 3])
def test_a_large_file_holds_every_track_as_several_classes(tmp_path, copies):
    source, path = SMALL / "pred.json", tmp_path / "large.json"
    write_large_results(source, path, copies * source.stat().st_size)
    few, many = (json.loads(Path(name).read_text("utf-8")) for name in (source, path))
    assert len(many) == copies * len(few)
    assert many[: len(few)] == few
    assert {track["category_id"] - few[0]["category_id"] for track in many[:: len(few)]} == set(range(copies))
    gt = YTVOS(SMALL / "gt.json")
    assert len(gt.loadRes(path).anns) == len(many)
