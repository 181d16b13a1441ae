"""LabelMe: shapes with four corners, round shapes, shapes without an area, unrelated pictures, links."""

import numpy as np
import pytest

from tests.ytvis.convert.test_convert import (
    areas,
    assert_refused,
    converted,
    labelme_frame,
    shape,
    write_image,
)

CORNERS = ((2, 0), (4, 2), (2, 4), (0, 2))


@pytest.mark.parametrize("kind", ["oriented_rectangle", "rotation", "quadrilateral", "polygon", "rectangle", None])
def test_shapes_of_four_corners_are_their_polygon(tmp_path, kind):
    labelme_frame(tmp_path / "v" / "0.json", [shape(points=CORNERS, shape_type=kind)])
    (entry,) = converted(tmp_path, "labelme", tmp_path / "v")["annotations"]
    assert entry["segmentations"][0] == [[*map(float, np.ravel(CORNERS))]]


def test_a_shape_without_a_type_is_a_polygon(tmp_path):
    without = shape(points=CORNERS)
    del without["shape_type"]
    labelme_frame(tmp_path / "v" / "0.json", [without])
    (entry,) = converted(tmp_path, "labelme", tmp_path / "v")["annotations"]
    assert entry["segmentations"][0] == [[*np.ravel(CORNERS)]]


def test_an_ellipse_fills_the_box_of_its_corners(tmp_path):
    labelme_frame(tmp_path / "v" / "0.json", [shape(points=((7, 5), (1, 1)), shape_type="ellipse")])
    (entry,) = converted(tmp_path, "labelme", tmp_path / "v")["annotations"]
    assert entry["bboxes"][0] == [1, 1, 6, 4] and 14 <= entry["areas"][0] <= 22  # of π · 3 · 2


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("point", "a point of 3 points is not an area; delete it, or draw a polygon or a mask"),
        ("points", "a shape of points of 3 points is not an area"),
        ("linestrip", "a linestrip of 3 points is not an area"),
        ("cuboid", "a cuboid of 3 points is a solid"),
        ("circle", "a circle of 3 points is not an area"),
        ("ellipse", "an ellipse of 3 points is not an area"),
        ("star", "a star of 3 points is not supported"),
        (7, "a 7 of 3 points is not supported"),
    ],
)
def test_shapes_that_are_no_areas_are_refused_by_name(tmp_path, capsys, kind, message):
    path = labelme_frame(tmp_path / "v" / "0.json", [shape(shape_type=kind)])
    assert_refused(tmp_path, capsys, ["labelme", tmp_path / "v"], path, message)


def test_unrelated_pictures_of_other_sizes_are_refused(tmp_path, capsys):
    labelme_frame(tmp_path / "v" / "cat.json", [shape()])
    path = labelme_frame(tmp_path / "v" / "dog.json", [shape()], imageWidth=9)
    assert_refused(tmp_path, capsys, ["labelme", tmp_path / "v"], path, "put unrelated ones into folders of their own")


def test_unrelated_pictures_of_one_size_are_reported(tmp_path, caplog):
    labelme_frame(tmp_path / "v" / "cat.json", [shape()])
    labelme_frame(tmp_path / "v" / "dog.json", [shape()])
    converted(tmp_path, "labelme", tmp_path / "v")
    assert "its 2 pictures, cat.jpg … dog.jpg, do not number the frames of one video" in caplog.text


def test_two_files_of_one_picture_are_refused(tmp_path, capsys):
    labelme_frame(tmp_path / "v" / "0.json", [shape()])
    labelme_frame(tmp_path / "v" / "0_copy.json", [shape()], imagePath="0.jpg")
    assert_refused(tmp_path, capsys, ["labelme", tmp_path / "v"], tmp_path / "v", "are of the picture 0.jpg; keep one")


def test_a_picture_of_another_size_is_refused_and_a_missing_one_with_images(tmp_path, capsys):
    labelme_frame(tmp_path / "s" / "v" / "0.json", [shape()])
    converted(tmp_path, "labelme", tmp_path / "s")  # the pictures need not be there
    (tmp_path / "converted.json").unlink()
    (tmp_path / "images").mkdir()
    line = ["labelme", tmp_path / "s", "--images", tmp_path / "images"]
    assert_refused(tmp_path, capsys, line, tmp_path / "images" / "0.jpg", "No such file")
    write_image(tmp_path / "s" / "v" / "0.jpg", (6, 9))
    assert_refused(tmp_path, capsys, ["labelme", tmp_path / "s"], tmp_path / "s" / "v", "but")


def test_linked_folders_are_videos_and_what_systems_leave_is_none(tmp_path):
    labelme_frame(tmp_path / "data" / "a" / "0.json", [shape()])
    labelme_frame(tmp_path / "elsewhere" / "b" / "0.json", [shape()])
    (tmp_path / "data" / "b").symlink_to("../elsewhere/b")
    for name in ("._0.json", ".labelmerc.json"):
        (tmp_path / "data" / "a" / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "data" / ".trash").mkdir()
    (tmp_path / "data" / ".trash" / "0.json").write_text("{}")
    result = converted(tmp_path, "labelme", tmp_path / "data")
    assert [video["file_names"] for video in result["videos"]] == [["a/0.jpg"], ["b/0.jpg"]]
    assert len(areas(result)) == 2


def test_a_picture_with_a_drive_is_not_in_the_folder(tmp_path, capsys):
    path = tmp_path / "s" / "v" / "0.json"
    labelme_frame(path, [shape()], imagePath="C:\\clips\\0.jpg")
    assert_refused(tmp_path, capsys, ["labelme", tmp_path / "s"], path, "name the folder of pictures with --images")
