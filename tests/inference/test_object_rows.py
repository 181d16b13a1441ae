import csv
import gc
import importlib
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from inference.object_rows import (
    TABLE_COLUMNS,
    ObjectRow,
    object_rows,
    to_coco,
    to_dataframe,
    to_labelme,
    to_supervision,
    write_csv,
    write_mots,
)
from tests.inference.test_frame_journal import results_of
from tests.reading import read_results
from utils.structures import FrameObjects
from ytvis.convert import mots
from ytvis.files import InputError
from ytvis.masks import decode_mask
from ytvis.results import VideoResultBuilder, write_results

CLASS_NAMES = ("circle", "giant_panda", "bar")
SIZE = (12, 16)


def objects_of(*entries):
    """FrameObjects of (track id, label, score, x1, y1, x2, y2), whose masks fill their boxes."""
    masks = torch.zeros(len(entries), *SIZE, dtype=torch.bool)
    for mask, (*_, x1, y1, x2, y2) in zip(masks, entries, strict=True):
        mask[y1:y2, x1:x2] = True
    return FrameObjects(
        boxes_px=torch.tensor([entry[3:] for entry in entries], dtype=torch.int64).reshape(-1, 4),
        scores=torch.tensor([entry[2] for entry in entries], dtype=torch.float32),
        labels=torch.tensor([entry[1] for entry in entries], dtype=torch.int64),
        track_ids=torch.tensor([entry[0] for entry in entries], dtype=torch.int64),
        masks=masks,
        shifted=torch.tensor([entry[2] < 0.5 for entry in entries], dtype=torch.bool),
    )


TWO = objects_of((4, 2, 0.75, 1, 2, 5, 6), (0, 1, 0.5, 8, 3, 11, 12))
EMPTY = objects_of()
# Three frames: track 4 in the first two, track 0 in all, its label 1, 3, 3; track 7 in the last, over track 0.
FRAMES = (
    TWO,
    objects_of((0, 3, 0.25, 8, 3, 11, 12), (4, 2, 0.25, 2, 2, 6, 6)),
    objects_of((0, 3, 0.75, 8, 3, 11, 12), (7, 3, 1.0, 9, 4, 10, 5)),
)


def rows_of(frames):
    return [row for index, objects in enumerate(frames) for row in object_rows(objects, index, index / 10, CLASS_NAMES)]


def test_rows_say_what_is_where():
    first, second = object_rows(TWO, 7, 0.28, CLASS_NAMES)
    values = {name: getattr(first, name) for name in TABLE_COLUMNS}
    assert values == {
        "frame": 7, "time_s": 0.28, "track_id": 4, "label": 2, "class_name": "giant_panda", "score": 0.75,
        "x1": 1, "y1": 2, "x2": 5, "y2": 6, "area": 16,
    }  # fmt: skip
    assert np.array_equal(decode_mask(second.rle), TWO.masks[1].numpy())
    assert second.area == 27
    assert object_rows(EMPTY, 0, 0.0, CLASS_NAMES) == []


def test_coco_annotations():
    annotations = to_coco(object_rows(TWO, 3, 0.12, CLASS_NAMES), first_id=11)
    assert [entry["id"] for entry in annotations] == [11, 12]
    assert annotations[0] | {"segmentation": None} == {
        "id": 11, "image_id": 3, "category_id": 2, "bbox": [1, 2, 4, 4], "area": 16, "segmentation": None,
        "iscrowd": 0, "score": 0.75, "track_id": 4,
    }  # fmt: skip
    assert np.array_equal(decode_mask(json.loads(json.dumps(annotations))[1]["segmentation"]), TWO.masks[1].numpy())
    assert to_coco([]) == []


def test_labelme_polygons_cover_the_masks():
    objects = objects_of((4, 2, 0.75, 1, 2, 5, 6), (0, 1, 0.5, 8, 3, 11, 12))
    objects.masks[0, 9:12, 0:4] = True  # a second piece
    objects.masks[0, 0, 15] = True  # a single pixel is no polygon
    content = json.loads(json.dumps(to_labelme(objects, CLASS_NAMES, "frames/3.png")))
    assert (content["imagePath"], content["imageHeight"], content["imageWidth"]) == ("frames/3.png", 12, 16)
    assert [(shape["label"], shape["group_id"]) for shape in content["shapes"]] == [
        ("giant_panda", 4), ("giant_panda", 4), ("circle", 0),
    ]  # fmt: skip
    for track_id, mask in ((4, objects.masks[0].numpy().copy()), (0, objects.masks[1].numpy())):
        drawn = np.zeros(SIZE, np.uint8)
        for shape in content["shapes"]:
            if shape["group_id"] == track_id:
                cv2.fillPoly(drawn, [np.array(shape["points"], np.int32)], 1)
        if track_id == 4:
            mask[0, 15] = False
        assert np.array_equal(drawn.astype(bool), mask)
    assert to_labelme(EMPTY, CLASS_NAMES, "")["shapes"] == []


def test_supervision_detections():
    supervision = pytest.importorskip("supervision")
    detections = to_supervision(TWO, CLASS_NAMES)
    assert isinstance(detections, supervision.Detections)
    assert detections.xyxy.tolist() == [[1, 2, 5, 6], [8, 3, 11, 12]]
    assert detections.tracker_id.tolist() == [4, 0]
    assert detections.class_id.tolist() == [1, 0]
    assert detections.confidence.tolist() == [0.75, 0.5]
    assert detections["class_name"].tolist() == ["giant_panda", "circle"]
    assert np.array_equal(detections.mask, TWO.masks.numpy())
    assert len(detections[detections.class_id == 0]) == 1
    assert len(to_supervision(EMPTY, CLASS_NAMES)) == 0


def test_dataframe():
    pytest.importorskip("pandas")
    table = to_dataframe(rows_of(FRAMES))
    assert tuple(table.columns) == TABLE_COLUMNS
    assert table.groupby("track_id").frame.apply(list).to_dict() == {0: [0, 1, 2], 4: [0, 1], 7: [2]}
    assert table[table.track_id == 4].area.tolist() == [16, 16]
    assert tuple(to_dataframe([]).columns) == TABLE_COLUMNS


@pytest.mark.parametrize(("name", "call"), [
    ("supervision", lambda: to_supervision(TWO, CLASS_NAMES)), ("pandas", lambda: to_dataframe([])),
])  # fmt: skip
def test_a_missing_package_is_told_with_the_command_that_installs_it(monkeypatch, name, call):
    original = importlib.import_module

    def without(module, *rest):
        if module == name:
            raise ImportError(module)
        return original(module, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(InputError, match=f"{name} is not installed: pip install {name}"):
        call()


def test_nothing_optional_is_imported_unasked():
    import subprocess
    import sys

    code = "import inference.object_rows, sys; print({'pandas', 'supervision'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


def test_csv(tmp_path):
    write_csv(rows_of(FRAMES), tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 6
    assert lines[0] == {
        "frame": "0", "time_s": "0.0", "track_id": "4", "label": "2", "class_name": "giant_panda", "score": "0.75",
        "x1": "1", "y1": "2", "x2": "5", "y2": "6", "area": "16",
    }  # fmt: skip
    write_csv(object_rows(TWO, 0, 0.0, CLASS_NAMES, "a,1.png"), tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="") as file:
        assert [line["file_name"] for line in csv.DictReader(file)] == ["a,1.png"] * 2
    write_csv([], tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == ",".join(TABLE_COLUMNS) + "\n"


@pytest.mark.parametrize("details", [True, False])
def test_results_are_those_of_the_builder(tmp_path, details):
    ours = results_of(rows_of(FRAMES), 4, details)
    builder = VideoResultBuilder(1, 4, SIZE, category_ids=(1, 2, 3), details=details)
    for index, objects in enumerate(FRAMES):
        builder.add(index, objects)
    assert ours == builder.finish()
    assert ours[0].scores == ((0.75, 0.25, None, None) if details else None)
    assert ours[0].shifted == ((False, True, False, False) if details else None)
    assert [(result.category_id, result.score) for result in ours] == [(2, 0.5), (3, 0.5), (3, 1.0)]
    write_results(ours, tmp_path / "out.json")
    assert [len(entry["segmentations"]) for entry in read_results(tmp_path / "out.json")] == [4, 4, 4]


def test_mots_text_can_be_read_back(tmp_path):
    rows, labels = rows_of(FRAMES), {4: 2, 0: 3, 7: 3}
    folder = tmp_path / "out_mots"
    write_mots(rows, labels, CLASS_NAMES, SIZE, folder / "out.txt")
    lines = [line.split() for line in (folder / "out.txt").read_text().splitlines()]
    assert [(line[0], line[1], line[2]) for line in lines] == [
        ("0", "2004", "2"), ("0", "3000", "3"), ("1", "2004", "2"), ("1", "3000", "3"), ("2", "3000", "3"),
        ("2", "3007", "3"),
    ]  # fmt: skip
    assert (folder / "labels.txt").read_text().split() == list(CLASS_NAMES)
    found = mots.read(folder)
    assert [found.categories[track.category_id] for track in found.tracks] == ["giant_panda", "bar", "bar"]
    assert np.array_equal(decode_mask(found.tracks[0].segmentations[1]), FRAMES[1].masks[1].numpy())
    assert sorted(path.name for path in folder.iterdir()) == ["labels.txt", "out.txt"]
    write_mots([row for row in rows if row.track_id == 4], {4: 2}, CLASS_NAMES, SIZE, folder / "out.txt")  # replaced
    assert len((folder / "out.txt").read_text().splitlines()) == 2
    write_mots([], {}, CLASS_NAMES, SIZE, folder / "out.txt")
    assert [path.name for path in folder.iterdir()] == ["labels.txt"]


def test_mots_numbers_objects_itself_where_a_track_id_has_no_room(tmp_path, caplog):
    rows = [replace(row, track_id=row.track_id + 1000) for row in rows_of(FRAMES)]
    write_mots(rows, {1004: 2, 1000: 3, 1007: 3}, CLASS_NAMES, SIZE, tmp_path / "out.txt")
    assert {line.split()[1] for line in (tmp_path / "out.txt").read_text().splitlines()} == {"2001", "3001", "3002"}
    assert "MOTS has no numbers over 999" in caplog.text


def test_mots_text_cannot_be_put_into_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot be made a folder"):
        write_mots([], {}, CLASS_NAMES, SIZE, tmp_path / "file" / "out.txt")


def test_mots_text_is_written_frame_by_frame(tmp_path):
    held = []

    def rows():
        for index in range(40):
            yield from object_rows(TWO, index, index / 10, CLASS_NAMES)
            held.append(sum(type(item) is ObjectRow for item in gc.get_objects()))

    write_mots(rows(), {4: 2, 0: 1}, CLASS_NAMES, SIZE, tmp_path / "out.txt")
    assert len((tmp_path / "out.txt").read_text().splitlines()) == 80
    assert max(held) - held[0] <= 2 * len(TWO)  # a frame, and the first row of the next
