"""Which picture is which frame (by number, by position, or refused), and which folders are read."""

import os

import cv2
import numpy as np
import pytest

from ytvis.convert.tracks import check_sizes
from ytvis.files import InputError
from ytvis.frames import (
    bind_frames,
    bind_stems,
    check_order,
    find_pictures,
    guess_numbers,
    number_columns,
    video_folders,
    walk_folders,
    warn_if_unrelated,
)


def names(pattern, numbers):
    return [pattern.format(number) for number in numbers]


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_the_number_that_varies_is_that_of_the_frame():
    assert number_columns(["cam2_0009.jpg", "cam2_0010.png"]) == [[9, 10]]
    assert number_columns(["s1_t5.jpg", "s2_t7.jpg"]) == [[5, 7], [1, 2]]  # the last is the most likely
    assert number_columns(["IMG_1.JPG", "img_2.jpg"]) == [[1, 2]]
    assert number_columns(["clip1_0.jpg", "clip1_1.jpg", "clip2_0.jpg"]) == []  # neither differs in all
    assert number_columns(["cat.jpg", "dog.jpg"]) == number_columns(["a7.jpg", "8.jpg"]) == []
    assert len(number_columns([f"{'9' * 5000}.jpg", f"{'9' * 4999}8.jpg"])) == 1  # int() takes 4300 digits


@pytest.mark.parametrize("pattern", ["{:06d}.jpg", "{}.png", "frame_{:06d}.PNG", "cam2_{:03d}_rgb1.jpg"])
@pytest.mark.parametrize("expected", [range(8), range(2, 10), range(0, 35, 5)])
def test_numbers_in_names_bind_pictures_to_frames(pattern, expected):
    bound = bind_frames(names(pattern, expected), {expected[1]}, expected, "here")
    assert bound == {number: pattern.format(number) for number in expected}
    assert bind_frames(names(pattern, expected), {expected[1]}, None, "here") == bound


def test_pictures_without_numbers_of_the_frames_are_taken_in_order_if_as_many(caplog):
    pictures = names("{:04d}.jpg", range(1, 8))
    assert bind_frames(pictures, {5}, range(0, 35, 5), "here")[5] == "0002.jpg"
    assert "frame 0 is 0001.jpg" in caplog.text
    assert bind_frames(["a.jpg", "b.jpg"], {4}, range(3, 5), "here") == {3: "a.jpg", 4: "b.jpg"}


@pytest.mark.parametrize("count", [6, 8])
def test_pictures_that_fit_neither_by_number_nor_by_count_are_refused(count):
    with pytest.raises(InputError, match=rf"here: has 7 frames, 0…30 in steps of 5, but there are {count} pictures"):
        bind_frames(names("{:04d}.jpg", range(1, count + 1)), {5}, range(0, 35, 5), "here")


def test_only_the_frames_of_the_task_are_frames_and_that_is_said(caplog):
    bound = bind_frames(names("{:02d}.jpg", range(20)), {3}, range(2, 10), "here")
    assert list(bound) == list(range(2, 10)) and bound[2] == "02.jpg"
    assert "12 others are left out" in caplog.text


def test_frames_whose_pictures_are_gone_are_left_out_and_that_is_said(caplog):
    assert list(bind_frames(names("{:02d}.jpg", (2, 3, 5)), {3}, range(2, 10), "here")) == [2, 3, 5]
    assert "5 frames have no picture" in caplog.text
    with pytest.raises(InputError, match="neither their numbers nor their count"):
        bind_frames(names("{:02d}.jpg", (2, 3, 5)), {4}, range(2, 10), "here")


def test_an_order_that_is_not_certain_is_asked_for():
    pictures = names("{}.jpg", range(1, 13))
    with pytest.raises(InputError, match="pass --order text or --order number"):
        bind_frames(pictures, {1}, range(12), "here")
    assert bind_frames(pictures, {1}, range(12), "here", "number")[1] == "2.jpg"
    assert bind_frames(pictures, {1}, range(12), "here", "text")[1] == "10.jpg"
    with pytest.raises(InputError, match="their count fit"):
        bind_frames(pictures, {1}, range(11), "here", "text")


def test_numbers_in_names_bind_but_another_order_can_be_said(caplog):
    pictures = names("{}.jpg", range(12))
    assert bind_frames(pictures, {2}, range(12), "here")[2] == "2.jpg"
    assert "pass --order" in caplog.text
    assert bind_frames(pictures, {2}, range(12), "here", "text")[2] == "10.jpg"


@pytest.mark.parametrize(
    ("pictures", "annotated", "first"),
    [
        (["a.jpg", "b.jpg"], {0}, 0),
        (["a.jpg", "b.jpg"], {2}, 1),
        (["0.jpg", "1.jpg"], {1, 2}, 1),  # an exporter that counts from 1
        (["1.jpg", "2.jpg"], {0, 1}, 0),
    ],
)
def test_without_a_known_length_frames_count_from_0_or_1_and_that_is_said(caplog, pictures, annotated, first):
    assert bind_frames(pictures, annotated, None, "here") == dict(enumerate(pictures, start=first))
    assert f"frame {first} is taken to be the first picture" in caplog.text


@pytest.mark.parametrize("annotated", [{0, 3}, {10**9}])
def test_a_frame_without_a_picture_is_refused(annotated):
    for pictures in (["0.jpg", "1.jpg", "2.jpg"], ["0.jpg", "1.jpg", "9.jpg"], ["a.jpg", "b.jpg", "c.jpg"]):
        if annotated == {0, 3} and pictures[0] == "a.jpg":
            annotated = {0, 4}
        with pytest.raises(InputError, match="no picture of frame"):
            bind_frames(pictures, annotated, None, "here")


def test_guessed_frames_have_a_bound():
    assert guess_numbers({3, 5}, None, "here") == range(1, 6)
    assert guess_numbers({0, 5}, None, "here") == range(6)
    assert guess_numbers(set(), range(2, 9, 3), "here") == range(2, 9, 3)
    for expected in (None, range(10**12)):
        with pytest.raises(InputError, match="is far from the first; pass --images"):
            guess_numbers({10**9}, expected, "here")


# ---------------------------------------------------------------------------------------------------- by name


def test_frames_are_found_by_name_whatever_the_suffix_and_else_by_number(tmp_path, caplog):
    touch(*(tmp_path / "v" / f"f_{number}.png" for number in range(3)))
    assert bind_stems(tmp_path, "v", ["f_0", "f_2"], False, "here") == ["v/f_0.png", "v/f_2.png"]
    assert "1 pictures without a mask are left out" in caplog.text and "is taken to be of" not in caplog.text
    assert bind_stems(tmp_path, "v", ["mask0001", "mask0002"], False, "here") == ["v/f_1.png", "v/f_2.png"]
    assert "mask0001 is taken to be of f_1.png" in caplog.text
    for stems, missing in ((["f_0", "f_7"], "f_7"), (["f_7"], "f_7"), (["a"], "a")):
        with pytest.raises(InputError, match=f"has no picture {missing}.jpg"):
            bind_stems(tmp_path, "v", stems, False, "here")


def test_a_frame_with_two_pictures_is_refused(tmp_path):
    touch(tmp_path / "v" / "0.png", tmp_path / "v" / "0.jpg", tmp_path / "v" / "1.jpg")
    with pytest.raises(InputError, match=r"has 0\.\w+ and 0\.\w+ for the same frame"):
        bind_stems(tmp_path, "v", ["0"], False, "here")
    assert bind_stems(tmp_path, "v", ["1"], False, "here") == ["v/1.jpg"]


def test_frames_of_all_videos_may_be_in_one_folder_if_their_names_tell_them_apart(tmp_path):
    touch(*(tmp_path / name for name in ("a0.jpg", "a1.jpg", "b0.jpg")))
    assert bind_stems(tmp_path, "b", ["b0"], False, "here") == ["b0.jpg"]
    with pytest.raises(InputError, match="here: no pictures found in .*/c;"):
        bind_stems(tmp_path, "c", ["c0"], False, "here")


@pytest.mark.parametrize("inner", ["", "img1/", "images/"])
def test_pictures_are_found_in_the_layouts_of_others(tmp_path, inner):
    touch(tmp_path / "v" / inner / "1.jpg")
    assert find_pictures(tmp_path, "v", False, "here") == (f"v/{inner}", ["1.jpg"])
    assert find_pictures(tmp_path / "v", "other", True, "here") == (inner, ["1.jpg"])
    with pytest.raises(InputError, match=f"no pictures found in {tmp_path}/w"):
        find_pictures(tmp_path, "w", False, "here")


def test_names_that_are_of_no_video_are_reported(caplog):
    warn_if_unrelated(["0.jpg", "1.jpg"], "here")
    warn_if_unrelated(["cat.jpg"], "here")
    assert caplog.text == ""
    warn_if_unrelated(["cat.jpg", "dog_park.jpg"], "here")
    assert "here: the names of its 2 pictures, cat.jpg … dog_park.jpg, do not number" in caplog.text


def test_a_format_of_files_needs_names_in_order():
    assert check_order("v", ["a/9.jpg", "b/10.png"], "DAVIS") == ["9", "10"]
    for file_names, message in (
        (["2.jpg", "1.jpg"], "not in the order of their names"),
        (["1.jpg", "1.png"], "two of"),
    ):
        with pytest.raises(InputError, match=message):
            check_order("v", file_names, "DAVIS")


# ---------------------------------------------------------------------------------------------------- folders


def test_what_systems_leave_behind_is_passed_over(tmp_path):
    touch(*(tmp_path / "v" / name for name in ("0.png", "._0.png", ".DS_Store", "Thumbs.db", ".hidden/1.png")))
    touch(tmp_path / "__MACOSX" / "v" / "0.png", tmp_path / "@eaDir" / "0.png")
    assert video_folders(tmp_path, ".png") == [("v", [tmp_path / "v" / "0.png"])]
    assert find_pictures(tmp_path, "v", True, "here") == ("v/", ["0.png"])


def test_links_to_folders_are_followed_once_and_never_upwards(tmp_path, caplog):
    touch(tmp_path / "elsewhere" / "b" / "0.png", tmp_path / "data" / "a" / "0.png")
    (tmp_path / "data" / "b").symlink_to("../elsewhere/b")
    assert [name for name, _ in video_folders(tmp_path / "data", ".png")] == ["a", "b"]
    assert caplog.text == ""
    (tmp_path / "data" / "a" / "again").symlink_to("../../elsewhere/b")
    (tmp_path / "data" / "up").symlink_to("..")
    (tmp_path / "data" / "loop").symlink_to("loop")
    (tmp_path / "elsewhere" / "b" / "round").symlink_to("../../data")
    os.mkfifo(tmp_path / "data" / "a" / "1.png")
    found = [(folder.name, len(files)) for folder, files in walk_folders(tmp_path / "data")]
    assert found == [("data", 0), ("a", 1), ("b", 1)]
    assert "skipped" in caplog.text


def test_folders_of_a_layout_are_not_the_names_of_videos(tmp_path):
    touch(tmp_path / "train" / "instances" / "0.png", tmp_path / "val" / "instances" / "0.png")
    assert [name for name, _ in video_folders(tmp_path, ".png", ("instances",))] == ["train", "val"]
    assert [name for name, _ in video_folders(tmp_path / "val" / "instances", ".png", ("instances",))] == ["val"]
    touch(tmp_path / "val" / "images" / "0.png", tmp_path / "val" / "0.png")  # something else
    assert [name for name, _ in video_folders(tmp_path, ".png", ("instances",))] == ["train", "val"]
    touch(tmp_path / "instances" / "val" / "0.png")
    with pytest.raises(InputError, match="give each video one folder"):
        video_folders(tmp_path, ".png", ("instances",))


def test_a_folder_that_cannot_be_read_is_bad_input(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(InputError, match=f"{tmp_path}: cannot be listed: Permission denied"):
        list(walk_folders(tmp_path))


def test_pictures_of_another_size_than_the_masks_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((6, 8, 3), np.uint8))
    check_sizes(tmp_path, ["0.png"], (6, 8), "here")
    with pytest.raises(InputError, match="here: its masks are of 8×7, but .*0.png is 8×6"):
        check_sizes(tmp_path, ["0.png"], (7, 8), "here")
