"""Conversion from and to other tools' formats: round trips, small files made by hand, and faults."""

import base64
import errno
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from ytvis.__main__ import main as ytvis_main
from ytvis.check import examine_annotations
from ytvis.convert.command import FORMATS, convert
from ytvis.convert.davis import palette
from ytvis.files import InputError
from ytvis.frames import frame_numbers
from ytvis.masks import to_rle

HW = (6, 8)
FRAMES = ("b/9.jpg", "b/10.jpg", "b/11.png", "deep/c/0.jpg")
TRIANGLE = [[0.0, 0.0, 4.0, 0.0, 4.0, 4.0]]


def main(arguments):
    """The exit code of `ytvis convert` with these arguments."""
    return ytvis_main(["convert", *arguments])


def mask_of(top, left, height, width, hw=HW):
    mask = np.zeros(hw, np.uint8)
    mask[top : top + height, left : left + width] = 1
    return mask


def rle_of(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def ring():
    """The RLE of a mask with a hole, which no polygon holds."""
    mask = mask_of(1, 4, 3, 3)
    mask[2, 5] = 0
    return rle_of(mask)


def track(number, video_id, category_id, segmentations, iscrowd=0):
    length = len(segmentations)
    rles = [to_rle(segmentation, *HW) for segmentation in segmentations]
    return {
        "id": number,
        "video_id": video_id,
        "category_id": category_id,
        "iscrowd": iscrowd,
        "length": length,
        "width": HW[1],
        "height": HW[0],
        "segmentations": segmentations,
        "bboxes": [rle and coco_mask.toBbox(rle).tolist() for rle in rles],
        "areas": [rle and int(coco_mask.area(rle)) for rle in rles],
    }


def content(crowd=False, polygons=True):
    """Two videos of 3 and 1 frames; nothing overlaps. Of the frames, 9.jpg comes before 10.jpg."""
    triangle = TRIANGLE if polygons else to_rle(TRIANGLE, *HW)
    return {
        "videos": [
            {"id": 1, "length": 3, "width": 8, "height": 6, "file_names": ["b/9.jpg", "b/10.jpg", "b/11.png"]},
            {"id": 2, "length": 1, "width": 8, "height": 6, "file_names": ["deep/c/0.jpg"]},
        ],
        "categories": [{"id": 5, "name": "dog"}, {"id": 9, "name": "cat"}],
        "annotations": [
            track(1, 1, 5, [triangle, None, ring()]),
            track(2, 1, 5, [None, rle_of(mask_of(4, 0, 2, 2)), rle_of(mask_of(4, 1, 2, 2))]),
            track(3, 2, 9, [ring()], iscrowd=int(crowd)),
        ],
    }


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "frames"
    for name in FRAMES:
        write_image(root / name)
    return root


def write_image(path, hw=HW):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((*hw, 3), np.uint8))


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def ann_file(tmp_path, value):
    return write_json(tmp_path / "given.json", value)


def converted(tmp_path, format, source, **options):
    target = tmp_path / "converted.json"
    convert(format, source, target, **options)
    diagnostics, _ = examine_annotations(target)
    assert [fault for fault in diagnostics if fault.severity == "fault"] == []
    return json.loads(target.read_text())


def comparable(value, keep_polygons=True):
    """A file's content without its numbering: {video: frames}, {(video, category, crowd, masks)}."""
    names = {category["id"]: category["name"] for category in value["categories"]}
    folders = {video["id"]: str(Path(video["file_names"][0]).parent) for video in value["videos"]}
    frames = {folders[video["id"]]: (video["width"], video["height"], video["file_names"]) for video in value["videos"]}
    tracks = []
    for annotation in value["annotations"]:
        masks = annotation["segmentations"]
        if not keep_polygons:
            masks = [to_rle(mask, *HW) for mask in masks]
        key = [folders[annotation["video_id"]], names[annotation["category_id"]], annotation["iscrowd"]]
        tracks.append(json.dumps([*key, masks, annotation["bboxes"], annotation["areas"]]))
    return frames, sorted(tracks)


# ---------------------------------------------------------------------------------------------------- round trips


def test_reading_and_writing_our_own_format_changes_nothing(tmp_path):
    value = content(crowd=True)
    assert converted(tmp_path, "ytvis", ann_file(tmp_path, value)) == value


def test_labelme_holds_everything_but_the_numbering(tmp_path, images):
    value = content(crowd=True)
    convert("ytvis", ann_file(tmp_path, value), tmp_path / "labelled", "labelme", images=images)
    result = converted(tmp_path, "labelme", tmp_path / "labelled", images=images)
    assert comparable(result) == comparable(value)
    written = json.loads((tmp_path / "labelled" / "b" / "11.json").read_text())
    assert (tmp_path / "labelled" / "b" / written["imagePath"]).samefile(images / "b" / "11.png")
    assert {shape["group_id"] for shape in written["shapes"]} == {1, 2}


def test_labelme_beside_the_pictures_needs_no_images(tmp_path):
    value = content()
    convert("ytvis", ann_file(tmp_path, value), tmp_path / "labelled", "labelme")
    assert comparable(converted(tmp_path, "labelme", tmp_path / "labelled")) == comparable(value)


def test_coco_holds_everything(tmp_path):
    value = content(crowd=True)
    convert("ytvis", ann_file(tmp_path, value), tmp_path / "coco.json", "coco")
    result = converted(tmp_path, "coco", tmp_path / "coco.json")
    assert result == value
    diagnostics, summary = examine_annotations(tmp_path / "coco.json")  # and it is a COCO file as others are
    assert [fault for fault in diagnostics if fault.severity == "fault"] == []
    assert (summary.videos, summary.tracks) == (4, 5)


def test_davis_holds_masks_and_with_its_file_the_categories(tmp_path, images):
    value = content()
    convert("ytvis", ann_file(tmp_path, value), tmp_path / "davis", "davis")
    result = converted(tmp_path, "davis", tmp_path / "davis", images=images)
    assert comparable(result) == comparable(content(polygons=False))
    with Image.open(tmp_path / "davis" / "b" / "10.png") as picture:
        assert picture.mode == "P"
        assert picture.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        np.testing.assert_array_equal(np.asarray(picture), 2 * mask_of(4, 0, 2, 2))
    (tmp_path / "davis" / "categories.json").unlink()
    result = converted(tmp_path, "davis", tmp_path / "davis", images=images)
    assert result["categories"] == [{"id": 1, "name": "object"}]


def test_mots_holds_masks_and_categories(tmp_path, images):
    value = content()
    convert("ytvis", ann_file(tmp_path, value), tmp_path / "mots", "mots")
    result = converted(tmp_path, "mots", tmp_path / "mots", images=images)
    assert comparable(result) == comparable(content(polygons=False))
    lines = (tmp_path / "mots" / "b.txt").read_text().splitlines()
    assert [line.split()[:5] for line in lines] == [
        ["9", "1001", "1", "6", "8"],
        ["10", "1002", "1", "6", "8"],
        ["11", "1001", "1", "6", "8"],
        ["11", "1002", "1", "6", "8"],
    ]
    assert (tmp_path / "mots" / "labels.txt").read_text() == "dog\ncat\n"


@pytest.mark.parametrize("format", ["davis", "mots"])
def test_where_objects_overlap_the_later_one_is_kept_and_it_is_said(tmp_path, images, caplog, format):
    value = content()
    value["annotations"] = [
        track(1, 1, 5, [rle_of(mask_of(0, 0, 4, 4)), None, None]),
        track(2, 1, 5, [rle_of(mask_of(0, 2, 4, 4)), None, None]),
        track(3, 1, 5, [rle_of(mask_of(0, 0, 6, 8)), None, None], iscrowd=1),
    ]
    convert("ytvis", ann_file(tmp_path, value), tmp_path / "out", format)
    assert "overlap in 1 frames" in caplog.text
    result = converted(tmp_path, format, tmp_path / "out", images=images)
    boxes = sorted(annotation["bboxes"][0] for annotation in result["annotations"])
    assert boxes == [[0, 0, 2, 4], [2, 0, 4, 4]]


@pytest.mark.parametrize("format", ["labelme", "davis", "mots", "coco"])
def test_a_set_without_tracks_converts(tmp_path, images, format):
    value = {**content(), "annotations": []}
    target = tmp_path / "out"
    convert("ytvis", ann_file(tmp_path, value), target, format)
    if format == "mots":
        assert [path.name for path in target.iterdir()] == ["labels.txt"]  # it cannot name a video without objects
        return
    if format != "coco":  # the classes are those of the objects
        with pytest.raises(InputError, match="no classes; nothing is written"):
            convert(format, target, tmp_path / "back.json", images=images)
        assert not (tmp_path / "back.json").exists()
        return
    convert(format, target, tmp_path / "back.json")
    result = json.loads((tmp_path / "back.json").read_text())
    assert result["annotations"] == [] and comparable(result)[0] == comparable(value)[0]


def test_videos_without_a_folder_of_their_own_are_named_by_their_ids(tmp_path):
    value = content()
    value["videos"][0]["file_names"] = ["b/9.jpg", "c/10.jpg", "11.png"]
    value["videos"][1]["file_names"] = ["../../c/0.jpg"]  # nothing is written outside the given folder
    convert("ytvis", ann_file(tmp_path, value), tmp_path / "out", "davis")
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert found == {"video_1/9.png", "video_1/10.png", "video_1/11.png", "video_2/0.png"}


def test_the_palette_is_that_of_pascal_voc():
    colours = np.reshape(palette(), (256, 3)).tolist()
    assert colours[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert colours[8] == [64, 0, 0] and colours[255] == [224, 224, 192]


# ---------------------------------------------------------------------------------------------------- LabelMe


def shape(label="dog", points=((0, 0), (4, 0), (4, 4)), group_id=None, shape_type="polygon", **more):
    points = [list(point) for point in points]
    return {"label": label, "points": points, "group_id": group_id, "shape_type": shape_type, "flags": {}, **more}


def labelme_frame(path, shapes=(), **changes):
    size = {"imageHeight": HW[0], "imageWidth": HW[1]}
    frame = {"shapes": list(shapes), "imagePath": f"{path.stem}.jpg", "imageData": None, **size}
    return write_json(path, frame | changes)


def areas(result):
    """The (category, areas, one or None a frame) of the tracks of a file."""
    names = {category["id"]: category["name"] for category in result["categories"]}
    return sorted(((names[entry["category_id"]], entry["areas"]) for entry in result["annotations"]), key=str)


def test_labelme_tells_objects_by_label_and_group(tmp_path, caplog):
    small, large = ((0, 0), (2, 0), (2, 2), (0, 2)), ((4, 0), (8, 0), (8, 4), (4, 4))
    labelme_frame(tmp_path / "s" / "v" / "f10.json", [shape(group_id=1, points=large), shape(group_id=2, points=small)])
    labelme_frame(tmp_path / "s" / "v" / "f9.json", [shape(group_id=2, points=small), shape("cat", group_id=2)])
    result = converted(tmp_path, "labelme", tmp_path / "s")
    assert result["videos"][0]["file_names"] == ["v/f9.jpg", "v/f10.jpg"]
    assert [(name, [bool(area) for area in seen]) for name, seen in areas(result)] == [
        ("cat", [True, False]),
        ("dog", [True, True]),
        ("dog", [False, True]),
    ]
    assert "group_id" not in caplog.text


def test_labelme_without_groups_is_one_object_a_label_and_says_so(tmp_path, caplog):
    small, large = ((0, 0), (2, 0), (2, 2), (0, 2)), ((4, 0), (8, 0), (8, 4), (4, 4))
    labelme_frame(tmp_path / "v" / "0.json", [shape(points=small), shape(points=large)])
    result = converted(tmp_path, "labelme", tmp_path / "v")  # the only video is the folder itself
    assert result["videos"][0]["file_names"] == ["0.jpg"]
    assert areas(result) == [("dog", [4 + 16])]
    assert len(result["annotations"][0]["segmentations"][0]) == 2
    assert "group_id" in caplog.text


def test_labelme_shapes_of_every_kind(tmp_path):
    part = np.array([[1, 0], [1, 1]], np.uint8)
    text = base64.b64encode(cv2.imencode(".png", part)[1]).decode()
    shapes = [
        shape("rectangle", [(6, 5), (2, 1)], shape_type="rectangle"),
        shape("circle", [(4, 3), (4, 1)], shape_type="circle"),
        shape("mask", [(5, 2), (6, 3)], shape_type="mask", mask=text),
    ]
    labelme_frame(tmp_path / "v" / "0.json", shapes)
    result = converted(tmp_path, "labelme", tmp_path / "v")
    found = dict(areas(result))
    assert found["rectangle"] == [16] and found["mask"] == [3] and 10 <= found["circle"][0] <= 14
    mask = next(entry for entry in result["annotations"] if entry["areas"] == [3])["segmentations"][0]
    expected = np.zeros(HW, np.uint8)
    expected[2:4, 5:7] = part
    assert mask == rle_of(expected)


def test_labelme_leaves_frames_out_that_nobody_labelled_and_says_so(tmp_path, caplog):
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        write_image(tmp_path / "v" / name)
    labelme_frame(tmp_path / "v" / "0.json", [shape()])
    labelme_frame(tmp_path / "v" / "2.json", [])
    result = converted(tmp_path, "labelme", tmp_path / "v")
    assert result["videos"][0]["file_names"] == ["0.jpg", "2.jpg"]
    assert "1 pictures without a JSON file" in caplog.text


def test_labelme_files_beside_folders_of_videos_are_refused(tmp_path, capsys):
    labelme_frame(tmp_path / "s" / "v" / "0.json")
    path = labelme_frame(tmp_path / "s" / "0.json")
    assert_refused(tmp_path, capsys, ["labelme", tmp_path / "s"], path, "give it a folder of its own")


def test_labelme_pictures_elsewhere(tmp_path, images):
    labelme_frame(tmp_path / "s" / "b" / "9.json", [shape()], imagePath="..\\..\\frames\\b\\9.jpg")
    labelme_frame(tmp_path / "s" / "b" / "10.json", [shape()], imagePath="/nowhere/10.jpg")
    result = converted(tmp_path, "labelme", tmp_path / "s", images=images)
    assert result["videos"][0]["file_names"] == ["b/9.jpg", "b/10.jpg"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shapes": None}, "'shapes' must be a list, but is missing"),
        ({"imageHeight": "6"}, "'imageHeight' must be an integer"),
        ({"imageHeight": 7}, "8×7, frames before it 8×6"),
        ({"imagePath": "/nowhere/1.jpg"}, "--images"),
        ({"shapes": [3]}, "shape 1: 'label' must be text"),
        ({"shapes": [shape(label=" ")]}, "empty label"),
        ({"shapes": [shape(group_id="a")]}, "'group_id' must be an integer"),
        ({"shapes": [shape(points=[(0, 0), (1, 1)])]}, "a polygon of 2 points is not an area"),
        ({"shapes": [shape(shape_type="line", points=[(0, 0), (1, 1)])]}, "a line of 2 points"),
        ({"shapes": [shape(points=[(0, 0, 0)] * 3)]}, "a point must be x, y"),
        ({"shapes": [shape(points=[(0, 0), (float("nan"), 0), (1, 1)])]}, "a point must be x, y"),
        ({"shapes": [shape(points=[(0, 0), (10**400, 0), (1, 1)])]}, "a point must be x, y"),
        ({"shapes": [shape(points=[(0, 0), (10**12, 0), (1, 1)])]}, "far outside the frame"),
        ({"shapes": [shape(shape_type="mask", points=[(0, 0), (1, 1)], mask="AAAA")]}, "cannot be decoded"),
        ({"shapes": [shape(shape_type="mask", points=[(0, 0), (1, 1)], mask="")]}, "cannot be decoded"),
        ({"shapes": [shape(shape_type="mask", points=[(0, 0), (1, 1)], mask="é")]}, "not a PNG"),
    ],
)
def test_labelme_faults(tmp_path, capsys, changes, message):
    labelme_frame(tmp_path / "s" / "v" / "0.json", [])
    path = labelme_frame(tmp_path / "s" / "v" / "1.json")
    write_json(path, json.loads(path.read_text()) | changes)
    assert_refused(tmp_path, capsys, ["labelme", tmp_path / "s"], path, message)


def assert_refused(tmp_path, capsys, line, path, message):
    """The command ends with code 2 and one line that names the file, and writes nothing."""
    line = [*map(str, line)]
    assert main([*line[:2], str(tmp_path / "out.json"), *line[2:]]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ytvis convert: error: {path}") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out.json").exists()


# ---------------------------------------------------------------------------------------------------- COCO


def coco_content():
    images = [
        {"id": 4, "file_name": "v/10.jpg", "width": 8, "height": 6},
        {"id": 3, "file_name": "v/9.jpg", "width": 8, "height": 6},
        {"id": 9, "file_name": "w/0.jpg", "width": 8, "height": 6},
    ]
    common = {"category_id": 3, "iscrowd": 0}
    annotations = [
        {"id": 1, "image_id": 4, "segmentation": TRIANGLE, "track_id": 1, **common},
        {"id": 2, "image_id": 3, "segmentation": TRIANGLE, "attributes": {"track_id": 1}, **common},
        {"id": 3, "image_id": 9, "segmentation": ring(), "instance_id": "1", **common},
    ]
    return {"images": images, "categories": [{"id": 3, "name": "dog"}], "annotations": annotations}


def test_coco_is_put_together_by_folder_and_track(tmp_path):
    result = converted(tmp_path, "coco", write_json(tmp_path / "coco.json", coco_content()))
    assert [video["file_names"] for video in result["videos"]] == [["v/9.jpg", "v/10.jpg"], ["w/0.jpg"]]
    assert [annotation["segmentations"] for annotation in result["annotations"]] == [[TRIANGLE, TRIANGLE], [ring()]]
    assert result["categories"] == [{"id": 3, "name": "dog"}]


def test_coco_images_without_a_folder_are_a_video(tmp_path):
    value = coco_content()
    for image in value["images"]:
        image["file_name"] = image["file_name"][2:]
    value["annotations"][2]["track_id"] = 2
    convert("coco", write_json(tmp_path / "coco.json", value), tmp_path / "out", "mots")
    assert [line.split()[:2] for line in (tmp_path / "out" / "video_1.txt").read_text().splitlines()] == [
        ["0", "1002"],
        ["9", "1001"],
        ["10", "1001"],
    ]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("annotations", 0, "track_id"), None, "annotation 1: 'track_id' is missing"),
        (("annotations", 0, "image_id"), 5, "there is no image 5"),
        (("annotations", 0, "category_id"), 5, "there is no category 5"),
        (("annotations", 0, "segmentation"), [], "boxes alone"),
        (("annotations", 0, "segmentation"), [[1, 2, 3]], "list of x y x y"),
        (("annotations", 0, "segmentation"), {"size": [1, 1], "counts": "1"}, "its video [6, 8]"),
        (("annotations", 0), 5, "annotations, entry 1 must be an object"),
        (("annotations",), None, "'annotations' must be a list"),
        (("images", 0, "width"), 9, "image 4 is not of the size of v/9.jpg"),
        (("images", 0, "file_name"), None, "images, entry 1: 'file_name' must be text"),
        (("images", 0, "id"), 3, "the id 3 is there twice"),
        (("images",), [], "'images' is empty"),
        (("categories", 0, "name"), 3, "'name' must be text"),
    ],
)
def test_coco_faults(tmp_path, capsys, path, value, message):
    broken = coco_content()
    holder = broken
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    source = write_json(tmp_path / "coco.json", broken)
    assert_refused(tmp_path, capsys, ["coco", source], source, message)


def test_coco_tracks_keep_their_category(tmp_path, capsys):
    broken = coco_content()
    broken["categories"].append({"id": 4, "name": "cat"})
    broken["annotations"][1]["category_id"] = 4
    source = write_json(tmp_path / "coco.json", broken)
    assert_refused(tmp_path, capsys, ["coco", source], source, "annotation 2: the object is 'cat' here and 'dog'")


# ---------------------------------------------------------------------------------------------------- DAVIS


def write_indexed(path, numbers, mode="P"):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(numbers.astype(np.uint8))
    if mode == "P":
        picture.putpalette(palette())
    picture.convert(mode).save(path)
    return path


def test_davis_objects_are_the_numbers_but_0_and_255(tmp_path, caplog):
    numbers = 3 * mask_of(0, 0, 2, 2) + 255 * mask_of(4, 4, 2, 2)
    write_indexed(tmp_path / "s" / "v" / "00000.png", numbers)
    write_indexed(tmp_path / "s" / "v" / "00005.png", 3 * mask_of(0, 0, 1, 2), mode="L")
    result = converted(tmp_path, "davis", tmp_path / "s")
    assert areas(result) == [("object", [4, 2])]
    assert result["videos"][0]["file_names"] == ["v/00000.jpg", "v/00005.jpg"]
    assert "guessed" in caplog.text


@pytest.mark.parametrize(
    "names", [{"v": {"3": "dog"}}, {"videos": {"v": {"objects": {"3": {"category": "dog", "frames": []}}}}}]
)
def test_davis_categories_are_read_from_a_file(tmp_path, names):
    write_indexed(tmp_path / "s" / "v" / "0.png", 3 * mask_of(0, 0, 2, 2))
    file = write_json(tmp_path / "names.json", names)
    assert areas(converted(tmp_path, "davis", tmp_path / "s", categories=file)) == [("dog", [4])]


def test_davis_faults(tmp_path, capsys, images):
    source = tmp_path / "s"
    path = write_indexed(source / "v" / "0.png", 3 * mask_of(0, 0, 2, 2))
    names = write_json(tmp_path / "names.json", {"v": {"2": "dog"}})
    assert_refused(tmp_path, capsys, ["davis", source, "--categories", names], names, "object 3 of video v")
    names = write_json(tmp_path / "names.json", ["dog"])
    assert_refused(tmp_path, capsys, ["davis", source, "--categories", names], names, "one entry per video")
    assert_refused(tmp_path, capsys, ["davis", source, "--images", images], source / "v", "no pictures found in")
    write_image(images / "v" / "a.jpg")
    assert_refused(tmp_path, capsys, ["davis", source, "--images", images], images, "has no picture 0.jpg")
    other = write_indexed(source / "v" / "1.png", np.ones((8, 8)))
    assert_refused(tmp_path, capsys, ["davis", source], other, "not of the size of 0.png")
    write_indexed(path, np.ones(HW), mode="RGB")
    assert_refused(tmp_path, capsys, ["davis", source], path, "a picture of colours (RGB)")
    path.write_bytes(b"no picture")
    assert_refused(tmp_path, capsys, ["davis", source], path, "cannot be decoded as a picture")


@pytest.mark.parametrize("chunk", [b"IHDR", b"IDAT"])
def test_a_chunk_whose_length_is_damaged_is_a_davis_fault(tmp_path, capsys, chunk):
    path = write_indexed(tmp_path / "s" / "v" / "0.png", 3 * mask_of(0, 0, 2, 2))
    content = bytearray(path.read_bytes())
    content[content.index(chunk) - 1] = 1
    path.write_bytes(content)
    assert_refused(tmp_path, capsys, ["davis", tmp_path / "s"], path, "cannot be decoded as a picture")


# ---------------------------------------------------------------------------------------------------- MOTS


def line(frame, number, mask, class_number=None):
    return f"{frame} {number} {number // 1000} {mask.shape[0]} {mask.shape[1]} {rle_of(mask)['counts']}\n"


def test_mots_text_has_the_classes_and_frames_of_its_publishers(tmp_path):
    rows = [line(2, 2001, mask_of(0, 0, 2, 2)), line(3, 2001, mask_of(0, 0, 1, 2)), line(3, 10000, mask_of(4, 4, 2, 2))]
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "0002.txt").write_text("".join(rows))
    result = converted(tmp_path, "mots", tmp_path / "s")
    assert areas(result) == [("pedestrian", [None, 4, 2])]
    assert result["videos"][0]["file_names"] == ["0002/000001.jpg", "0002/000002.jpg", "0002/000003.jpg"]
    assert [category["name"] for category in result["categories"]] == ["car", "pedestrian"]


def test_mots_frames_are_all_the_pictures_found_by_number(tmp_path):
    for number in (1, 2, 10):
        write_image(tmp_path / "frames" / f"{number}.png")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "0002.txt").write_text(line(10, 1001, mask_of(0, 0, 2, 2)))
    result = converted(tmp_path, "mots", tmp_path / "s", images=tmp_path / "frames")
    assert result["videos"][0]["file_names"] == ["1.png", "2.png", "10.png"]
    assert areas(result) == [("car", [None, None, 4])]


def test_mots_pictures_hold_the_same(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("".join(f"class{number}\n" for number in range(1, 11)))
    numbers = 1001 * mask_of(0, 0, 2, 2).astype(np.uint16) + 10000 * mask_of(4, 4, 2, 2).astype(np.uint16)
    for frame in ("9", "10"):
        path = tmp_path / "s" / "instances" / "v" / f"{frame}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), numbers)
    result = converted(tmp_path, "mots", tmp_path / "s")
    assert areas(result) == [("car", [4, 4])]
    assert result["videos"][0]["file_names"] == ["v/9.jpg", "v/10.jpg"]
    result = converted(tmp_path, "mots", tmp_path / "s", categories=names)  # with ten classes the tenth is not void
    assert areas(result) == [("class1", [4, 4]), ("class10", [4, 4])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("0 1001 1 6 8\n", "line 1: is not 'frame object"),
        ("0 -1001 1 6 8 xx\n", "line 1: is not 'frame object"),
        ("0 1001 2 6 8 04\n", "object 1001 is not of class 2"),
        ("0 3001 3 6 8 `1\n", "class 3, which has no name"),
        ("0 1001 1 6 8 99\n", "line 1: the counts of a mask"),
        (line(0, 1001, mask_of(0, 0, 1, 1)) + line(1, 1001, mask_of(0, 0, 1, 1, (8, 8))), "line 2: a segmentation is"),
    ],
)
def test_mots_faults(tmp_path, capsys, text, message):
    (tmp_path / "s").mkdir()
    path = tmp_path / "s" / "v.txt"
    path.write_text(text)
    assert_refused(tmp_path, capsys, ["mots", tmp_path / "s"], path, message)


def test_mots_faults_of_pictures_and_names(tmp_path, capsys):
    source = tmp_path / "s"
    path = source / "v" / "0.png"
    write_indexed(path, 3 * mask_of(0, 0, 2, 2))
    assert_refused(tmp_path, capsys, ["mots", source], path, "16-bit")
    (source / "v.txt").write_text(line(7, 1001, mask_of(0, 0, 1, 1)))
    assert_refused(tmp_path, capsys, ["mots", source, "--images", source], source, "no picture of frame 7")
    (source / "labels.txt").write_text("dog\n\ncat\n")
    assert_refused(tmp_path, capsys, ["mots", source], source / "labels.txt", "one class name per line")


def test_frames_are_numbered_by_name_or_by_place():
    assert frame_numbers(["v/000007.jpg", "v/10.jpg"]) == [7, 10]
    assert frame_numbers(["a7.jpg", "8.jpg"]) == frame_numbers(["7.jpg", "07.jpg"]) == [0, 1]
    assert frame_numbers([]) == []


# ---------------------------------------------------------------------------------------------------- CVAT

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><size>{size}</size><original_size><width>8</width><height>6</height></original_size></task></meta>
{}
</annotations>"""
SQUARE = "0,0;2,0;2,2;0,2"


def cvat_shape(frame, kind="polygon", outside=0, **attributes):
    text = " ".join(f'{key}="{value}"' for key, value in attributes.items() or [("points", SQUARE)])
    return f'<{kind} frame="{frame}" keyframe="1" outside="{outside}" occluded="0" {text} z_order="0"/>'


def cvat_track(*shapes, number=0, label="dog"):
    return f'<track id="{number}" label="{label}" source="manual">{"".join(shapes)}</track>'


def cvat_file(path, *tracks, size=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CVAT.format("\n".join(tracks), size=size))
    return path


def test_cvat_tracks_of_polygons_masks_and_boxes(tmp_path, caplog):
    tracks = [
        cvat_track(cvat_shape(0), cvat_shape(1, outside=1), cvat_shape(3)),
        cvat_track(cvat_shape(2, "mask", rle="1, 2, 1", left=3, top=1, width=2, height=2), number=1, label="cat"),
        cvat_track(cvat_shape(1, "box", xtl=1.0, ytl=1.0, xbr=4.0, ybr=3.0), number=2, label="cat"),
    ]
    result = converted(tmp_path, "cvat", cvat_file(tmp_path / "clip.xml", *tracks))
    assert areas(result) == [
        ("cat", [None, 6, None, None]),
        ("cat", [None, None, 2, None]),
        ("dog", [4, None, None, 4]),
    ]
    (mask,) = (entry["segmentations"][2] for entry in result["annotations"] if entry["areas"][2])
    expected = np.zeros(HW, np.uint8)
    expected[1, 4] = expected[2, 3] = 1  # the runs of the mask go along its rows
    assert mask == rle_of(expected)
    assert result["videos"][0]["file_names"] == [f"clip/frame_00000{frame}.jpg" for frame in range(4)]
    assert "not listed" not in caplog.text


def test_cvat_frames_that_are_not_listed_hold_nothing_and_that_is_said(tmp_path, caplog):
    path = cvat_file(tmp_path / "clip.xml", cvat_track(cvat_shape(0), cvat_shape(3)))
    assert areas(converted(tmp_path, "cvat", path)) == [("dog", [4, None, None, 4])]
    assert "track 0: the frames after frame 0 are not listed" in caplog.text


def test_cvat_folders_of_files_and_pictures(tmp_path, images):
    cvat_file(tmp_path / "s" / "b.xml", cvat_track(cvat_shape(1)), size=3)
    cvat_file(tmp_path / "s" / "a.xml", cvat_track(cvat_shape(0)), size=1)
    write_image(images / "a" / "x.jpg")
    with pytest.raises(InputError, match="by number; pass --order text or --order number"):
        convert("cvat", tmp_path / "s", tmp_path / "out.json", images=images)
    result = converted(tmp_path, "cvat", tmp_path / "s", images=images, order="number")
    assert [video["file_names"] for video in result["videos"]] == [["a/x.jpg"], ["b/9.jpg", "b/10.jpg", "b/11.png"]]


@pytest.mark.parametrize(
    ("track", "message"),
    [
        (cvat_track(cvat_shape(0, points="1,2;3")), "the polygon cannot be read"),
        (cvat_track(cvat_shape(0, points="1,2;3,x")), "the polygon cannot be read"),
        (cvat_track(cvat_shape(0, "polyline")), "a polyline is not an area"),
        (cvat_track(cvat_shape(0, "box", xtl=1)), "the box cannot be read"),
        (cvat_track(cvat_shape(0, "box", rotation="x", xtl=1, ytl=1, xbr=2, ybr=2)), "the box cannot be read"),
        (
            cvat_track(cvat_shape(0, "mask", rle="1, 2", left=0, top=0, width=2, height=2)),
            "cover 3 pixels, its box 2×2",
        ),
        (cvat_track(cvat_shape(0, "mask", rle="0, 4", left=7, top=0, width=2, height=2)), "2×2 at 7, 0, is not within"),
        (cvat_track(cvat_shape("x")), "the frame of a shape must be a whole number"),
        (cvat_track(cvat_shape(0), label=""), "lacks its id or its label"),
        ('<image id="0" name="a.jpg" width="8" height="6"/>', "CVAT for video 1.1"),
        ("<track", "not an XML file"),
    ],
)
def test_cvat_faults(tmp_path, capsys, track, message):
    path = cvat_file(tmp_path / "clip.xml", track)
    assert_refused(tmp_path, capsys, ["cvat", path], path, message)


def test_cvat_faults_of_whole_files(tmp_path, capsys, images):
    path = tmp_path / "clip.xml"
    assert_refused(tmp_path, capsys, ["cvat", path], path, "cannot be read")
    path.write_text("<annotations/>")
    assert_refused(tmp_path, capsys, ["cvat", path], path, "original_size")
    (tmp_path / "none").mkdir()
    assert_refused(tmp_path, capsys, ["cvat", tmp_path / "none"], tmp_path / "none", "holds no *.xml")
    cvat_file(path, cvat_track(cvat_shape(0)))
    assert_refused(tmp_path, capsys, ["cvat", path, "--images", images], path, "--images")
    write_image(images / "clip" / "0.jpg")
    cvat_file(path, cvat_track(cvat_shape(1)))
    assert_refused(
        tmp_path, capsys, ["cvat", path, "--images", images], path, "neither their numbers nor their count fit"
    )


# ---------------------------------------------------------------------------------------------------- the command


def test_the_command_says_what_it_converted(tmp_path, capsys):
    source = ann_file(tmp_path, content())
    assert main(["ytvis", str(source), str(tmp_path / "out.json"), "--to", "coco"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/out.json: 2 videos, 4 frames, 3 tracks; classes: dog, cat\n"


@pytest.mark.parametrize("target", ["taken", "file.txt/out.json"])
def test_a_target_that_cannot_be_written_is_bad_input(tmp_path, capsys, target):
    (tmp_path / "taken").mkdir()
    (tmp_path / "file.txt").touch()
    assert main(["ytvis", str(ann_file(tmp_path, content())), str(tmp_path / target)]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"ytvis convert: error: {tmp_path / target.split('/')[0]}: cannot be")


@pytest.mark.parametrize("format", ["labelme", "davis", "mots", "yolo"])
def test_sources_that_are_not_there_and_targets_that_are(tmp_path, capsys, format):
    gone, empty = tmp_path / "gone", tmp_path / "empty"
    empty.mkdir()
    assert_refused(tmp_path, capsys, [format, gone], gone, "no such folder")
    assert_refused(tmp_path, capsys, [format, empty], empty, "has no")
    source = ann_file(tmp_path, content())
    assert main(["ytvis", str(source), str(tmp_path), "--to", format]) == 2
    assert "name a new or empty folder" in capsys.readouterr().err


def test_options_that_mean_nothing_are_refused(tmp_path, capsys):
    source = ann_file(tmp_path, content())
    assert main(["ytvis", str(source), str(tmp_path / "out.json"), "--categories=x"]) == 2
    assert "--categories means nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("annotations", 0, "segmentations", 0), [[1, 2, 3]], "annotation 1, frame 0"),
        (("annotations", 0, "video_id"), 9, "video that is not in the file: 9"),
        (("categories", 0, "name"), " ", "a category has an empty name"),
    ],
)
def test_faults_of_our_own_format(tmp_path, capsys, path, value, message):
    broken = content()
    holder = broken
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    source = ann_file(tmp_path, broken)
    assert main(["ytvis", str(source), str(tmp_path / "out"), "--to", "davis"]) == 2
    error = capsys.readouterr().err
    assert str(source) in error and message in error and error.count("\n") == 1


@pytest.mark.parametrize("name", ["a\0.jpg", "a\n.jpg", "\ud800.jpg", "", " "])
@pytest.mark.parametrize("to", ["ytvis", "labelme", "davis", "mots", "coco", "yolo"])
def test_names_that_no_file_can_have_are_refused(tmp_path, capsys, name, to):
    value = coco_content()
    value["images"][0]["file_name"] = name
    source = write_json(tmp_path / "coco.json", value)
    line = ["coco", source, "--to", to]
    assert_refused(tmp_path, capsys, line, source, "cannot be the name of a class or a file")
    value = coco_content()
    value["categories"][0]["name"] = name
    write_json(source, value)
    assert_refused(tmp_path, capsys, line, source, "cannot be the name of a class or a file")


@pytest.mark.parametrize(
    ("format", "suffix"), [("cvat", ".jpg"), ("mots", ".png"), ("davis", ".jpg"), ("labelme", ".png")]
)
def test_half_a_picture_is_named(tmp_path, capsys, format, suffix):
    picture = tmp_path / "images" / "v" / f"1{suffix}"
    picture.parent.mkdir(parents=True)
    for number in (0, 1):
        noise = np.random.default_rng(number).integers(0, 255, (*HW, 3), np.uint8)
        cv2.imwrite(str(picture.with_stem(str(number))), noise)
    picture.write_bytes(picture.read_bytes()[:-20])
    source = tmp_path / "s"
    if format == "cvat":
        cvat_file(source / "v.xml", cvat_track(cvat_shape(0)), size=2)
    elif format == "mots":
        source.mkdir()
        (source / "v.txt").write_text(line(0, 1001, mask_of(0, 0, 1, 1)))
    else:
        for number in (0, 1):
            write_indexed(source / "v" / f"{number}.png", mask_of(0, 0, 2, 2))
            if format == "labelme":
                labelme_frame(source / "v" / f"{number}.json", [shape()], imagePath=f"{number}.png")
    arguments = [format, source, "--images", tmp_path / "images"]
    if format == "labelme":
        arguments = [format, source, "--images", tmp_path / "images" / "v"]
        for number in (0, 1):
            (source / "v" / f"{number}.png").unlink()
    assert_refused(tmp_path, capsys, arguments, picture, "its end is missing")


@pytest.mark.parametrize("height", [0, -1, 10**9, 10**400])
def test_sizes_of_no_frame_are_refused(tmp_path, capsys, height):
    path = labelme_frame(tmp_path / "v" / "0.json", [shape()], imageHeight=height)
    assert_refused(tmp_path, capsys, ["labelme", tmp_path / "v"], path, "")
    value = coco_content()
    for image in value["images"]:
        image["height"] = height
    source = write_json(tmp_path / "coco.json", value)
    assert_refused(tmp_path, capsys, ["coco", source], source, "image 3")
    (tmp_path / "clip.xml").write_text(CVAT.format("", size=1).replace("<height>6", f"<height>{height}"))
    assert_refused(tmp_path, capsys, ["cvat", tmp_path / "clip.xml"], tmp_path / "clip.xml", "")


def test_text_in_other_encodings_is_read(tmp_path):
    source = tmp_path / "s"
    source.mkdir()
    (source / "v.txt").write_bytes(line(0, 1001, mask_of(0, 0, 1, 1)).encode("utf-16"))
    (source / "labels.txt").write_bytes("Füchse\r\n".encode("utf-8-sig"))
    assert areas(converted(tmp_path, "mots", source)) == [("Füchse", [1])]


def test_two_frames_of_one_name_cannot_be_two_files(tmp_path, capsys):
    value = content()
    value["videos"][0]["file_names"] = ["b/9.jpg", "b/9.png", "b/11.png"]
    assert main(["ytvis", str(ann_file(tmp_path, value)), str(tmp_path / "out"), "--to", "davis"]) == 2
    assert "two of its frames are named 9" in capsys.readouterr().err


def test_every_format_can_be_asked_for():
    assert set(FORMATS) == {"ytvis", "labelme", "coco", "davis", "mots", "cvat", "datumaro", "yolo"}


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize(
    ("to", "last"),
    [("labelme", "10.json"), ("davis", "categories.json"), ("mots", "labels.txt"), ("yolo", "data.yaml")],
)
def test_a_folder_that_cannot_be_finished_is_new_or_empty_again(tmp_path, monkeypatch, is_new, to, last):
    replace = os.replace

    def full(source, target):
        if Path(target).name == last:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    target = tmp_path / "target"
    if not is_new:
        target.mkdir()
    with pytest.raises(InputError, match="No space left"):
        convert("ytvis", ann_file(tmp_path, content()), target, to=to)
    assert not target.exists() if is_new else not list(target.iterdir())
