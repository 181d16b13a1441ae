"""MOTS in the layouts of others, with their labels; far frames; several sequences at once."""

import cv2
import numpy as np
import pytest

from tests.ytvis.convert.test_convert import (
    areas,
    assert_refused,
    content,
    converted,
    line,
    mask_of,
    write_image,
    write_json,
)
from ytvis.convert.command import convert


def write_text(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(rows))
    return path


def write_numbers(path, *numbers):
    """A 16-bit PNG with an object of 2×2 pixels for each number."""
    pixels = sum(number * mask_of(0, 2 * place, 2, 2).astype(np.uint16) for place, number in enumerate(numbers))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def challenge(root, *names):
    """Sequences in the layout of MOTSChallenge; in the frame of number n the object is n pixels from the left."""
    for name in names:
        rows = [line(number, 2001, mask_of(1, number, 2, 2)) for number in (1, 2, 4)]
        write_text(root / name / "gt" / "gt.txt", *rows)
        write_text(root / name / "det" / "det.txt", "1,-1,2,3,4,5,0.9\n")
        write_text(root / name / "seqinfo.ini", "[Sequence]\n")
        for number in range(1, 6):
            write_image(root / name / "img1" / f"{number:06d}.jpg")


@pytest.mark.parametrize("has_images", [True, False])
def test_sequences_of_motschallenge_are_found_with_their_pictures(tmp_path, has_images):
    challenge(tmp_path / "train", "MOTS20-02", "MOTS20-05")
    options = {"images": tmp_path / "train"} if has_images else {}
    result = converted(tmp_path, "mots", tmp_path / "train", **options)
    assert [video["file_names"] for video in result["videos"]] == [
        [f"{name}/img1/{number:06d}.jpg" for number in range(1, 6)] for name in ("MOTS20-02", "MOTS20-05")
    ]
    assert [[box and box[0] for box in entry["bboxes"]] for entry in result["annotations"]] == [
        [1, 2, None, 4, None]
    ] * 2


@pytest.mark.parametrize("source", [".", "gt"])
def test_one_sequence_of_motschallenge(tmp_path, source):
    challenge(tmp_path, "MOTS20-02")
    folder = tmp_path / "MOTS20-02"
    result = converted(tmp_path, "mots", folder / source, images=folder / "img1")
    assert result["videos"][0]["file_names"][0] == "000001.jpg" and areas(result) == [
        ("pedestrian", [4, 4, None, 4, None])
    ]


def test_labels_beside_the_pictures_name_the_classes(tmp_path):
    for subset in ("train", "val"):
        write_numbers(tmp_path / subset / "instances" / "frame_000000.png", 1001, 2001)
        write_image(tmp_path / subset / "images" / "frame_000000.jpg")
        write_text(tmp_path / subset / "instances" / "labels.txt", "cat\ndog\n")
    result = converted(tmp_path, "mots", tmp_path, images=tmp_path)
    names = [f"{subset}/images/frame_000000.jpg" for subset in ("train", "val")]
    assert [video["file_names"] for video in result["videos"]] == [names[:1], names[1:]]
    assert areas(result) == [("cat", [4]), ("cat", [4]), ("dog", [4]), ("dog", [4])]
    for source in (tmp_path / "val", tmp_path / "val" / "instances"):
        (only,) = converted(tmp_path, "mots", source, images=tmp_path / "val" / "images")["videos"]
        assert only["file_names"] == ["frame_000000.jpg"]


def test_categories_win_over_labels_and_labels_must_agree(tmp_path, capsys):
    source = tmp_path / "s"
    for name, labels in (("a", "cat\ndog\n"), ("b", "dog\ncat\n")):
        write_numbers(source / name / "0.png", 1001)
        write_text(source / name / "labels.txt", labels)
    assert_refused(tmp_path, capsys, ["mots", source], source / "b" / "labels.txt", "holds other classes than")
    names = write_text(tmp_path / "names.txt", "bird\n")
    assert {name for name, _ in areas(converted(tmp_path, "mots", source, categories=names))} == {"bird"}


@pytest.mark.parametrize("frame", [10**8, 10**17, 10**30])
def test_far_frames_are_refused_at_once(tmp_path, capsys, frame):
    path = write_text(tmp_path / "s" / "v.txt", line(frame, 1001, mask_of(0, 0, 1, 1)))
    assert_refused(tmp_path, capsys, ["mots", tmp_path / "s"], path, "")
    write_image(tmp_path / "images" / "0.jpg")
    assert_refused(tmp_path, capsys, ["mots", tmp_path / "s", "--images", tmp_path / "images"], path, "")


@pytest.mark.parametrize("size", [f"{10**9} {10**9}", f"{10**18} 1", "0 8"])
def test_sizes_without_bounds_are_refused(tmp_path, capsys, size):
    write_text(tmp_path / "s" / "v.txt", f"0 1001 1 {size} 00\n")
    assert_refused(tmp_path, capsys, ["mots", tmp_path / "s"], "", "")


def test_a_picture_of_another_size_than_the_masks_is_refused(tmp_path, capsys):
    path = write_text(tmp_path / "s" / "v.txt", line(0, 1001, mask_of(0, 0, 1, 1)))
    write_image(tmp_path / "images" / "0.jpg", (7, 8))
    line_ = ["mots", tmp_path / "s", "--images", tmp_path / "images"]
    assert_refused(tmp_path, capsys, line_, path, "its masks are of 8×6, but")


def test_half_a_picture_of_numbers_is_named(tmp_path, capsys):
    path = tmp_path / "s" / "v" / "0.png"
    path.parent.mkdir(parents=True)
    cv2.imwrite(str(path), 1001 * np.random.default_rng(0).integers(0, 2, (60, 80), np.uint16))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert_refused(tmp_path, capsys, ["mots", tmp_path / "s"], path, "cannot be decoded")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("\ufeffcat\r\ndog\r\n\r\n\r\n", ["cat", "dog"]),
        ("# classes\n cat \n\tdog", ["cat", "dog"]),
        ("2 dog\n1 black cat\n", ["black cat", "dog"]),
        ("1: cat\n2: dog\n", ["cat", "dog"]),
        ("1,cat\n2,dog\n", ["cat", "dog"]),
        ("cat\n2 dogs\n", ["cat", "2 dogs"]),
    ],
)
def test_files_of_labels_as_people_write_them(tmp_path, text, names):
    write_numbers(tmp_path / "s" / "0.png", 1001, 2001)
    write_text(tmp_path / "s" / "labels.txt", text)
    result = converted(tmp_path, "mots", tmp_path / "s")
    assert [(entry["id"], entry["name"]) for entry in result["categories"]] == list(enumerate(names, start=1))


@pytest.mark.parametrize("text", ["", "# none\n", "cat\n\ndog\n", "cat\ncat\n", "1 cat\n1 dog\n"])
def test_labels_that_do_not_name_the_classes_are_refused(tmp_path, capsys, text):
    write_numbers(tmp_path / "s" / "0.png", 1001)
    path = write_text(tmp_path / "s" / "labels.txt", text)
    assert_refused(tmp_path, capsys, ["mots", tmp_path / "s"], path, "one class name per line")


def test_pictures_without_masks_are_reported(tmp_path, caplog):
    write_numbers(tmp_path / "s" / "v" / "1.png", 1001)
    for name in "012":
        write_image(tmp_path / "images" / "v" / f"{name}.jpg")
    result = converted(tmp_path, "mots", tmp_path / "s", images=tmp_path / "images")
    assert result["videos"][0]["file_names"] == ["v/1.jpg"]
    assert f"{tmp_path / 'images' / 'v'}: 2 pictures without a mask are left out" in caplog.text


@pytest.mark.parametrize("names", [["2 wheeler", "4 wheeler"], ["#1", "cat"], ["1 cat", "2 dog"], ["cat", "2 dogs"]])
def test_names_that_look_like_numbered_ones_come_back(tmp_path, names):
    value = {**content(), "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=3)]}
    value["annotations"] = [{**entry, "category_id": 3} for entry in value["annotations"]]
    convert("ytvis", write_json(tmp_path / "ann.json", value), tmp_path / "mots", to="mots")
    result = converted(tmp_path, "mots", tmp_path / "mots")
    assert [entry["name"] for entry in result["categories"]] == names
