"""DAVIS: masks of 0 and 255, of one bit and of 16; masks whose names are not those of the pictures."""

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.ytvis.convert.test_convert import (
    areas,
    assert_refused,
    converted,
    mask_of,
    write_image,
    write_indexed,
    write_json,
)


def test_a_binary_set_has_one_object_a_video_and_that_is_said(tmp_path, caplog):
    for video in ("v", "w"):
        write_indexed(tmp_path / "s" / video / "0.png", 255 * mask_of(0, 0, 2, 2), mode="L")
        write_indexed(tmp_path / "s" / video / "1.png", 0 * mask_of(0, 0, 2, 2), mode="L")
    assert areas(converted(tmp_path, "davis", tmp_path / "s")) == [("object", [4, None]), ("object", [4, None])]
    assert "0 and 255 alone: 255 is taken to be one object" in caplog.text


@pytest.mark.parametrize("number", ["255", "1"])
def test_the_object_of_a_binary_set_has_a_category(tmp_path, number):
    write_indexed(tmp_path / "s" / "v" / "0.png", 255 * mask_of(0, 0, 2, 2), mode="L")
    names = write_json(tmp_path / "names.json", {"v": {number: "dog"}})
    assert areas(converted(tmp_path, "davis", tmp_path / "s", categories=names)) == [("dog", [4])]


def test_255_is_void_in_a_set_with_other_numbers(tmp_path, caplog):
    write_indexed(tmp_path / "s" / "v" / "0.png", 1 * mask_of(0, 0, 2, 2))
    write_indexed(tmp_path / "s" / "w" / "0.png", 255 * mask_of(0, 0, 2, 2))
    assert areas(converted(tmp_path, "davis", tmp_path / "s")) == [("object", [4])]
    assert "video w has no object, but 255, which is void" in caplog.text


def test_masks_of_one_bit_have_one_object(tmp_path):
    path = tmp_path / "s" / "v" / "0.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(mask_of(0, 0, 2, 2).astype(bool)).save(path)
    with Image.open(path) as picture:
        assert picture.mode == "1"
    assert areas(converted(tmp_path, "davis", tmp_path / "s")) == [("object", [4])]


def test_masks_of_16_bits_know_no_void(tmp_path):
    path = tmp_path / "s" / "v" / "0.png"
    path.parent.mkdir(parents=True)
    numbers = 255 * mask_of(0, 0, 2, 2).astype(np.uint16) + 300 * mask_of(4, 4, 1, 1).astype(np.uint16)
    cv2.imwrite(str(path), numbers)
    assert areas(converted(tmp_path, "davis", tmp_path / "s")) == [("object", [1]), ("object", [4])]


def test_a_set_without_objects_is_not_written(tmp_path, capsys):
    write_indexed(tmp_path / "s" / "v" / "0.png", 0 * mask_of(0, 0, 2, 2))
    assert_refused(tmp_path, capsys, ["davis", tmp_path / "s"], tmp_path / "s", "holds no labelled object")


def test_masks_are_bound_to_pictures_by_number_where_the_names_differ(tmp_path, capsys):
    for number in (5, 10):
        write_indexed(tmp_path / "s" / "v" / f"mask_{number}.png", mask_of(0, 0, 2, 2))
    for number in (0, 5, 10):
        write_image(tmp_path / "images" / "v" / f"frame_{number:06d}.jpg")
    result = converted(tmp_path, "davis", tmp_path / "s", images=tmp_path / "images")
    assert result["videos"][0]["file_names"] == ["v/frame_000005.jpg", "v/frame_000010.jpg"]
    (tmp_path / "images" / "v" / "frame_000005.jpg").unlink()
    (tmp_path / "converted.json").unlink()
    line = ["davis", tmp_path / "s", "--images", tmp_path / "images"]
    assert_refused(tmp_path, capsys, line, tmp_path / "images" / "v", "has no picture mask_5.jpg")
    write_image(tmp_path / "images" / "v" / "frame_000005.jpg", (7, 8))
    assert_refused(tmp_path, capsys, line, tmp_path / "s" / "v", "its masks are of 8×6")
