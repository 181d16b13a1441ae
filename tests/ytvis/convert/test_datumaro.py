"""Reading with Datumaro gives the same tracks as our own readers, for formats that both know."""

import json
import sys

import cv2
import numpy as np
import pytest

from tests.ytvis.convert.test_convert import (
    FRAMES,
    HW,
    ann_file,
    comparable,
    content,
    converted,
    cvat_shape,
    cvat_track,
    mask_of,
    write_image,
    write_json,
)
from ytvis.__main__ import main as ytvis_main
from ytvis.convert.command import convert
from ytvis.masks import decode_mask, to_rle

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><size>4</size><mode>interpolation</mode><labels>
<label><name>cat</name><attributes></attributes></label><label><name>dog</name><attributes></attributes></label>
</labels><original_size><width>8</width><height>6</height></original_size></task></meta>
{}
</annotations>"""


def main(arguments):
    """The exit code of `ytvis convert` with these arguments."""
    return ytvis_main(["convert", *arguments])


@pytest.fixture
def images(tmp_path):
    for name in FRAMES:
        write_image(tmp_path / "frames" / name)
    return tmp_path / "frames"


@pytest.fixture
def datumaro():
    return pytest.importorskip("datumaro")


def refusal(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_without_datumaro_it_says_what_to_install(tmp_path, capsys, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "datumaro", None)
    error = refusal(capsys, "datumaro", tmp_path, tmp_path / "out.json", "--images", images)
    assert "pip install datumaro" in error
    assert "--images" in refusal(capsys, "datumaro", tmp_path, tmp_path / "out.json")


def test_the_kind_is_datumaros_alone(tmp_path, capsys):
    source = ann_file(tmp_path, content())
    assert "--kind means nothing" in refusal(capsys, "coco", source, tmp_path / "out.json", "--kind=coco")


def as_datumaro(datumaro, value, folder):
    """Writes a YouTube-VIS file's content in Datumaro's own format."""
    place = {category["id"]: index for index, category in enumerate(value["categories"])}
    items = []
    for video in value["videos"]:
        for index, name in enumerate(video["file_names"]):
            shapes = []
            for entry in value["annotations"]:
                segmentation = entry["segmentations"][index] if entry["video_id"] == video["id"] else None
                if segmentation is None:
                    continue
                told = {
                    "label": place[entry["category_id"]],
                    "attributes": {"track_id": entry["id"], "is_crowd": bool(entry["iscrowd"])},
                }
                if isinstance(segmentation, list):
                    shapes += [datumaro.Polygon(polygon, **told) for polygon in segmentation]
                else:
                    shapes.append(datumaro.Mask(decode_mask(segmentation), **told))
                x, y, w, h = entry["bboxes"][index]
                shapes.append(datumaro.Bbox(x, y, w, h, **told))  # of an object with a mask: is not another part
            items.append(datumaro.DatasetItem(name.rpartition(".")[0], subset="train", annotations=shapes))
    names = [category["name"] for category in value["categories"]]
    datumaro.Dataset.from_iterable(items, categories=names).export(str(folder), "datumaro")


@pytest.mark.parametrize("kind", [None, "datumaro"])
@pytest.mark.parametrize("crowd", [False, True])
def test_its_own_format_keeps_all(tmp_path, datumaro, images, kind, crowd):
    value = content(crowd)
    as_datumaro(datumaro, value, tmp_path / "set")
    result = converted(tmp_path, "datumaro", tmp_path / "set", images=images, kind=kind)
    assert comparable(result) == comparable(value)
    assert [category["name"] for category in result["categories"]] == ["dog", "cat"]


def test_cvat_as_our_own_reader(tmp_path, datumaro):
    tracks = [
        cvat_track(cvat_shape(0), cvat_shape(1, outside=1), cvat_shape(3)),
        cvat_track(cvat_shape(1, "box", xtl=1.0, ytl=1.0, xbr=4.0, ybr=3.0), number=2, label="cat"),
    ]
    source = tmp_path / "set" / "clip.xml"
    source.parent.mkdir()
    source.write_text(CVAT.format("\n".join(tracks)))
    for frame in range(4):
        write_image(tmp_path / "frames" / "clip" / f"{frame}.png")
    options = {"images": tmp_path / "frames"}
    expected = comparable(converted(tmp_path, "cvat", source, **options))
    assert len(expected[1]) == 2
    assert comparable(converted(tmp_path, "datumaro", source.parent, kind="cvat", **options)) == expected


def test_a_rotated_box_of_cvat(tmp_path, datumaro):
    shape = cvat_shape(0, "box", xtl=1.0, ytl=1.0, xbr=5.0, ybr=3.0, rotation=90)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "clip.xml").write_text(CVAT.format(cvat_track(shape)))
    write_image(tmp_path / "frames" / "clip" / "0.png")
    options = {"images": tmp_path / "frames", "kind": "cvat"}
    (entry,) = converted(tmp_path, "datumaro", tmp_path / "set", **options)["annotations"]
    (polygon,) = entry["segmentations"][0]
    corners = {(round(x), round(y)) for x, y in zip(polygon[::2], polygon[1::2], strict=True)}
    assert corners == {(2, 0), (4, 0), (4, 4), (2, 4)} and entry["areas"][0] == 8


def test_mots_pictures_as_our_own_reader(tmp_path, datumaro):
    folder = tmp_path / "set" / "train" / "instances"
    for frame, objects in enumerate(({1001: (0, 0), 2001: (3, 4)}, {2001: (2, 4), 2007: (0, 5)})):
        pixels = np.zeros(HW, np.uint16)
        for number, (top, left) in objects.items():
            pixels[mask_of(top, left, 2, 3) > 0] = number
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{frame:06d}.png"), pixels)
        write_image(tmp_path / "frames" / f"{frame:06d}.jpg")
    (folder / "labels.txt").write_text("car\npedestrian\n")
    options = {"images": tmp_path / "frames"}
    ours = converted(tmp_path, "mots", folder, categories=folder / "labels.txt", **options)
    theirs = converted(tmp_path, "datumaro", tmp_path / "set", kind="mots", **options)
    # The same pictures without a folder of their own: `comparable` tells videos by their folders.
    assert comparable(theirs) == comparable(ours)
    assert len(theirs["annotations"]) == 3


def test_coco_with_track_ids_among_the_attributes(tmp_path, datumaro, images):
    source = ann_file(tmp_path, content(polygons=False))
    path = tmp_path / "set" / "annotations" / "instances_train.json"
    path.parent.mkdir(parents=True)
    convert("ytvis", source, path, "coco")
    written = json.loads(path.read_text())
    for entry in written["annotations"]:
        entry["attributes"] = {"track_id": entry.pop("track_id")}
    write_json(path, written)
    for name in FRAMES:
        write_image(tmp_path / "set" / "images" / name)
    result = converted(tmp_path, "datumaro", tmp_path / "set", images=images, kind="coco")
    assert comparable(result) == comparable(content(polygons=False))


def test_attributes_in_words(tmp_path, datumaro, images):
    told = {"track_id": 1.0, "outside": "0", "is_crowd": "False"}
    shapes = [
        datumaro.Bbox(1, 1, 3, 2, label=0, attributes=told),
        datumaro.Bbox(4, 1, 3, 3, label=0, attributes={"track_id": "1", "outside": "no", "is_crowd": "TRUE"}),
        datumaro.Bbox(0, 0, 1, 1, label=0, attributes={"track_id": 2, "outside": "true"}),
    ]
    item = datumaro.DatasetItem("b/10", annotations=shapes)
    datumaro.Dataset.from_iterable([item], categories=["dog"]).export(str(tmp_path / "set"), "datumaro")
    entries = converted(tmp_path, "datumaro", tmp_path / "set", images=images)["annotations"]
    assert [(entry["areas"][1], entry["iscrowd"]) for entry in entries] == [(6, 0), (9, 1)]


def test_boxes_count_where_nothing_better_is_there_and_lines_never(tmp_path, datumaro, images, caplog):
    told = {"label": 0, "attributes": {"instance_id": "a"}}
    shapes = [
        datumaro.Bbox(1, 1, 3, 2, **told),
        datumaro.PolyLine([0, 0, 4, 4], **told),
        datumaro.Bbox(0, 0, 1, 1, label=0, attributes={"instance_id": "b", "outside": True}),
    ]
    item = datumaro.DatasetItem("b/10", annotations=shapes)
    datumaro.Dataset.from_iterable([item], categories=["dog"]).export(str(tmp_path / "set"), "datumaro")
    (entry,) = converted(tmp_path, "datumaro", tmp_path / "set", images=images)["annotations"]
    assert entry["areas"] == [None, 6, None]
    assert to_rle(entry["segmentations"][1], *HW) == to_rle([[1, 1, 4, 1, 4, 3, 1, 3]], *HW)
    assert "1 annotations that are not areas are left out: polyline" in caplog.text


@pytest.mark.parametrize(
    ("item", "told", "message"),
    [
        ("b/10", {"label": 0}, "has no track_id"),
        ("b/10", {"attributes": {"track_id": 1}}, "has no label"),
        ("b/10", {"label": 1, "attributes": {"track_id": 1}}, "a bbox has the label 1, of 1 counted from 0"),
        ("b/10", {"label": -1, "attributes": {"track_id": 1}}, "a bbox has the label -1"),
        ("b/10", {"label": 0, "attributes": {"track_id": 1.7}}, "track_id must be a whole number or text, not 1.7"),
        ("b/10", {"label": 0, "attributes": {"track_id": [1]}}, "track_id must be a whole number or text"),
        ("b/10", {"label": 0, "attributes": {"instance_id": True}}, "instance_id must be a whole number or text"),
        ("b/10", {"label": 0, "attributes": {"track_id": 1, "is_crowd": "perhaps"}}, "is_crowd must be true or false"),
        ("b/10", {"label": 0, "attributes": {"track_id": 1, "outside": 2}}, "outside must be true or false, not 2"),
        ("b/12", {"label": 0, "attributes": {"track_id": 1}}, "no picture of 'b/12'"),
        ("gone/10", {"label": 0, "attributes": {"track_id": 1}}, "no pictures found in"),
    ],
)
def test_faults(tmp_path, capsys, datumaro, images, item, told, message):
    items = [
        datumaro.DatasetItem("deep/c/0"),
        datumaro.DatasetItem(item, annotations=[datumaro.Bbox(1, 1, 3, 2, **told)]),
    ]
    datumaro.Dataset.from_iterable(items, categories=["dog"]).export(str(tmp_path / "set"), "datumaro")
    error = refusal(capsys, "datumaro", tmp_path / "set", tmp_path / "out.json", "--images", images)
    assert message in error
    assert not (tmp_path / "out.json").exists()


def test_without_categories_there_are_no_labels(tmp_path, capsys, datumaro, images):
    shape = datumaro.Bbox(1, 1, 3, 2, label=0, attributes={"track_id": 1})
    item = datumaro.DatasetItem("b/10", annotations=[shape])
    datumaro.Dataset.from_iterable([item]).export(str(tmp_path / "set"), "datumaro")
    error = refusal(capsys, "datumaro", tmp_path / "set", tmp_path / "out.json", "--images", images)
    assert "a bbox has the label 0, of 0 counted from 0" in error


def test_what_it_cannot_read(tmp_path, capsys, datumaro, images):
    arguments = ["datumaro", tmp_path / "set", tmp_path / "out.json", "--images", images]
    assert "no such file or folder" in refusal(capsys, *arguments)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "notes.md").write_text("nothing")
    assert "no format that Datumaro recognises" in refusal(capsys, *arguments)
    (tmp_path / "set" / "clip.xml").write_text("<annotations><track")
    assert "Datumaro cannot read it" in refusal(capsys, *arguments, "--kind=cvat")
    assert "Datumaro cannot read it" in refusal(capsys, *arguments, "--kind=nonsense")
