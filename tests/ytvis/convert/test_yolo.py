"""YOLO: polygons, boxes, confidences and track ids of lines; layouts of folders; what Ultralytics writes; faults."""

import sys

import numpy as np
import pytest

from tests.ytvis.convert.test_convert import (
    FRAMES,
    HW,
    ann_file,
    areas,
    assert_refused,
    comparable,
    content,
    converted,
    mask_of,
    rle_of,
    track,
    write_image,
)
from ytvis.convert.command import convert
from ytvis.convert.shapes import join_outlines, outlines
from ytvis.files import InputError
from ytvis.masks import encode_mask, to_rle

pytest.importorskip("yaml")

NAMES = "names: [dog, cat]\n"
# In a picture of 8×6: the left upper 4×3, and its triangle under the diagonal.
SQUARE = "0 0 0 .5 0 .5 .5 0 .5"
TRIANGLE = "0 0 0 .5 .5 0 .5"
BOX = "0 .25 .25 .5 .5"


@pytest.fixture
def images(tmp_path):
    for name in FRAMES:
        write_image(tmp_path / "frames" / name)
    return tmp_path / "frames"


def dataset(root, labels, yaml=f"path: .\ntrain: images\nval: images\n{NAMES}", pictures=()):
    """A folder with data.yaml, labels/NAME.txt for each of `labels`, and a picture for each of them and of
    `pictures`."""
    root.mkdir(parents=True, exist_ok=True)
    if yaml is not None:
        (root / "data.yaml").write_text(yaml)
    for name, text in labels.items():
        path = root / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in (*labels, *pictures):
        write_image(root / "images" / f"{name}.jpg")
    return root


def seen(result):
    """(Category, whether it is seen, frame by frame) of the tracks of a file."""
    return [(name, [bool(area) for area in of_frames]) for name, of_frames in areas(result)]


# ---------------------------------------------------------------------------------------------------- round trips


def test_yolo_holds_masks_and_categories(tmp_path, images):
    value = content(crowd=False)
    convert("ytvis", ann_file(tmp_path, value), tmp_path / "yolo", "yolo")
    result = converted(tmp_path, "yolo", tmp_path / "yolo", images=images)
    assert comparable(result, keep_polygons=False) == comparable(value, keep_polygons=False)
    assert [category["name"] for category in result["categories"]] == ["dog", "cat"]
    assert (tmp_path / "yolo" / "data.yaml").read_text().splitlines()[-2:] == ['  0: "dog"', '  1: "cat"']
    lines = (tmp_path / "yolo" / "labels" / "b" / "9.txt").read_text().splitlines()
    assert lines == ["0 0 0 0.5 0 0.5 0.66666667 1"]  # the polygon as it is, and the track id
    # And as others find it, with the pictures in images/.
    images.rename(tmp_path / "yolo" / "images")
    again = converted(tmp_path, "yolo", tmp_path / "yolo", images=tmp_path / "yolo" / "images")
    assert comparable(again, keep_polygons=False) == comparable(value, keep_polygons=False)
    assert converted(tmp_path, "yolo", tmp_path / "yolo")["videos"][0]["file_names"][0] == "images/b/9.jpg"


@pytest.mark.parametrize("seed", range(20))
def test_the_outline_of_any_mask_covers_its_pixels(seed):
    generator = np.random.default_rng(seed)
    mask = generator.random(generator.integers(1, 14, 2)) < generator.choice([0.2, 0.5, 0.8, 1.1])
    mask[0, 0] = True
    borders = outlines(mask)
    assert sum(len(border) for border in borders) % 2 == 0
    assert to_rle([join_outlines(borders).ravel()], *mask.shape) == encode_mask(mask)


def test_outlines_run_along_the_edges_of_pixels():
    (border,) = outlines(np.array([[0, 1], [1, 1]], bool))
    assert sorted(map(tuple, border.tolist())) == [(0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 2)]
    assert [len(part) for part in outlines(np.eye(2, dtype=bool))] in ([8], [4, 4])  # they touch at a corner
    hole = np.ones((3, 3), bool)
    hole[1, 1] = False
    assert [len(part) for part in outlines(hole)] == [4, 4]
    assert outlines(np.zeros((2, 2), bool)) == []


@pytest.mark.parametrize(
    "segmentation",
    [
        [[-3.0, -2.0, 5.0, 1.0, 2.0, 9.0]],  # reaches out of the frame
        [[0.0, 0.0, 3.0, 0.0, 3.0, 3.0], [5.0, 1.0, 7.0, 1.0, 7.0, 4.0]],
        [[0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 0.0, 4.0], [2.0, 2.0, 6.0, 2.0, 6.0, 5.0, 2.0, 5.0]],  # overlap
        [[0.1, 0.3, 7.7, 1.1, 3.3, 5.9]],
        rle_of(mask_of(0, 0, *HW)),
    ],
)
@pytest.mark.parametrize("columns", ["id", "none"])
def test_any_segmentation_is_one_line_that_covers_the_same_pixels(tmp_path, images, segmentation, columns):
    value = content()
    value["annotations"] = [track(1, 1, 5, [None, segmentation, None])]
    convert("ytvis", ann_file(tmp_path, value), tmp_path / "yolo", "yolo", columns=columns)
    lines = (tmp_path / "yolo" / "labels" / "b" / "10.txt").read_text().splitlines()
    assert len(lines) == 1 and len(lines[0].split()) % 2 == (columns == "none")
    assert all(0 <= float(word) <= 1 for word in lines[0].split())
    result = converted(tmp_path, "yolo", tmp_path / "yolo", images=images)
    (entry,) = result["annotations"]
    (mask,) = filter(None, entry["segmentations"])
    assert to_rle(mask, *HW) == to_rle(segmentation, *HW)


def test_crowds_are_left_out(tmp_path, images):
    convert("ytvis", ann_file(tmp_path, content(crowd=True)), tmp_path / "yolo", "yolo")
    assert len(converted(tmp_path, "yolo", tmp_path / "yolo", images=images)["annotations"]) == 2


def test_annotations_have_no_confidences(tmp_path):
    with pytest.raises(InputError, match="have no confidences"):
        convert("ytvis", ann_file(tmp_path, content()), tmp_path / "yolo", "yolo", columns="both")


# ---------------------------------------------------------------------------------------------------- lines


def test_lines_of_polygons_and_boxes_with_ids_are_tracks(tmp_path, caplog):
    labels = {"v/9": f"{SQUARE} 7\n1 {TRIANGLE[2:]} 7", "v/10": f"{BOX} 7\n", "v/11": ""}
    result = converted(tmp_path, "yolo", dataset(tmp_path / "s", labels, pictures=["v/12"]))
    assert result["videos"][0]["file_names"] == [f"images/v/{number}.jpg" for number in (9, 10, 11, 12)]
    assert seen(result) == [("cat", [True, False, False, False]), ("dog", [True, True, False, False])]
    dog = next(entry for entry in result["annotations"] if entry["category_id"] == 1)
    assert dog["areas"][:2] == [12, 12] and dog["bboxes"][0] == dog["bboxes"][1] == [0, 0, 4, 3]
    assert "1 of 3 lines are boxes" in caplog.text and "1 of 4 pictures have no label file" in caplog.text


@pytest.mark.parametrize(
    ("lines", "columns", "message"),
    [
        ([f"{SQUARE} 0.9 3", f"{BOX} 0.5 3"], None, "confidences in its lines are left out"),
        ([f"{SQUARE} 0.9", f"{TRIANGLE} 1"], None, "confidences in its lines are left out"),
        ([f"{SQUARE} 0.9 3", f"{TRIANGLE} 0.8"], None, "1 of 2 lines have no track id"),
        ([f"{SQUARE} 3", TRIANGLE], None, "1 of 2 lines have no track id"),
        ([f"{SQUARE} 1", f"{TRIANGLE} 1"], None, "if they hold confidences"),
        ([f"{SQUARE} 1", f"{TRIANGLE} 1"], "confidence", "confidences in its lines are left out"),
        ([f"{SQUARE} .5 1", f"{BOX} .5 1"], "both", "confidences in its lines are left out"),
        ([SQUARE, TRIANGLE], None, "no line has a track id"),
        ([SQUARE, TRIANGLE], "none", "no line has a track id"),
    ],
)
def test_what_follows_the_coordinates_is_found_out_or_given(tmp_path, caplog, lines, columns, message):
    source = dataset(tmp_path / "s", dict(enumerate(lines)))
    result = converted(tmp_path, "yolo", source, columns=columns)
    assert message in caplog.text
    # A line that is read wrongly has a corner more.
    sizes = [len(mask[0]) for entry in result["annotations"] for mask in entry["segmentations"] if mask]
    assert sizes == [8, 8 if lines[1].startswith(BOX) else 6]


def test_without_ids_every_picture_is_a_video(tmp_path, caplog):
    source = dataset(tmp_path / "s", {"v/0": f"{SQUARE}\n{TRIANGLE}", "v/1": SQUARE})
    write_image(source / "images" / "v" / "1.jpg", (12, 16))
    result = converted(tmp_path, "yolo", source)
    assert [video["file_names"] for video in result["videos"]] == [["images/v/0.jpg"], ["images/v/1.jpg"]]
    assert [entry["areas"] for entry in result["annotations"]] == [[12], [6], [48]]
    assert "no line has a track id" in caplog.text


def test_a_line_without_an_id_among_others_is_an_object_of_one_frame(tmp_path):
    result = converted(tmp_path, "yolo", dataset(tmp_path / "s", {"0": f"{SQUARE} 4", "1": SQUARE, "2": f"{SQUARE} 4"}))
    assert seen(result) == [("dog", [True, False, True]), ("dog", [False, True, False])]


def test_text_of_windows_is_read(tmp_path):
    source = dataset(tmp_path / "s", {"0": ""})
    (source / "labels" / "0.txt").write_bytes(f"{SQUARE} 1\r\n\r\n1 {TRIANGLE[2:]}  2 \r\n".encode("utf-8-sig"))
    (source / "data.yaml").write_bytes("train: .\\images\r\nnames:\r\n  0: Hündin\r\n  1: 7\r\n".encode("utf-8-sig"))
    assert seen(converted(tmp_path, "yolo", source)) == [("7", [True]), ("Hündin", [True])]


def test_numbers_are_rounded_a_little_out_of_the_picture(tmp_path):
    source = dataset(tmp_path / "s", {"0": "0 -0.005 0 1.005 0 1 1 0 1 1"})
    assert areas(converted(tmp_path, "yolo", source)) == [("dog", [48])]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0 nan 1 0 1 1", "holds a number that is not finite"),
        ("0 0 1e999 1 0 1 1", "holds a number that is not finite"),
        ("nan 0 0 1 0 1 1", "holds a number that is not finite"),
        ("0 320 0 640 0 640 480", "the coordinate 320 is not a share"),
        ("0 0 0 -0.5 0 1 1", "the coordinate -0.5 is not a share"),
        ("2 0 0 1 0 1 1", "there is no class 2; the classes are 0 to 1"),
        ("-1 0 0 1 0 1 1", "there is no class -1"),
        ("0.5 0 0 1 0 1 1", "there is no class 0.5"),
        ("0", "is neither"),
        ("0 0.5 0.5", "is neither"),
        ("dog 0 0 1 0 1 1", "is not numbers"),
        ("0,0,0,1,0,1,1", "is not numbers"),
        (f"{SQUARE} 1.5", "the track id 1.5 is not a whole number"),
        (f"{SQUARE} -1", "the track id -1 is not a whole number"),
        (f"{SQUARE} 1.5 7", "the coordinate 1.5 is not a share"),
        ("0 \x00 0 0 1 0 1 1", "is not numbers"),
    ],
)
def test_faults_of_lines(tmp_path, capsys, line, message):
    source = dataset(tmp_path / "s", {"0": f"{SQUARE}\n{line}\n"})
    assert_refused(tmp_path, capsys, ["yolo", source], f"{source / 'labels' / '0.txt'}, line 2: ", message)


def test_gaps_between_the_classes_are_said(tmp_path, capsys):
    source = dataset(tmp_path / "s", {"0": f"1 {SQUARE[2:]}"})
    (source / "data.yaml").write_text("train: images\nnames: {0: dog, 7: cat}\n")
    where = f"{source / 'labels' / '0.txt'}, line 1: "
    assert_refused(tmp_path, capsys, ["yolo", source], where, "there is no class 1; the classes are 0, 7")


def test_a_line_must_hold_what_is_said(tmp_path, capsys):
    source = dataset(tmp_path / "s", {"0": f"{SQUARE} 1"})
    assert_refused(tmp_path, capsys, ["yolo", source, "--columns", "none"], source / "labels" / "0.txt", "--columns")
    source = dataset(tmp_path / "s", {"0": f"{SQUARE} .5 1"})
    line = ["yolo", source, "--columns", "confidence"]
    assert_refused(tmp_path, capsys, line, source / "labels" / "0.txt", "--columns")


# ---------------------------------------------------------------------------------------------------- layouts


@pytest.fixture
def split(tmp_path):
    """A data set whose video v is in train, and w in val."""
    yaml = f"train: images/train\nval: images/val\ntest:\n{NAMES}"
    labels = {"train/v/0": f"{SQUARE} 1", "val/w/0": f"{SQUARE} 1", "val/w/1": f"{SQUARE} 1"}
    return dataset(tmp_path / "s", labels, yaml)


def test_splits_are_read_alone_or_together(tmp_path, split):
    frames = {
        key: [video["file_names"][0] for video in converted(tmp_path, "yolo", split, split=key)["videos"]]
        for key in ("train", "val", None)
    }
    train, val = "images/train/v/0.jpg", "images/val/w/0.jpg"
    assert frames == {"train": [train], "val": [val], None: [train, val]}
    result = converted(tmp_path, "yolo", split / "data.yaml", split="val", images=split / "images" / "val")
    assert result["videos"][0]["file_names"] == ["w/0.jpg", "w/1.jpg"]


def test_a_split_that_is_not_there_is_refused(tmp_path, capsys, split):
    path = split / "data.yaml"
    assert_refused(tmp_path, capsys, ["yolo", split, "--split", "test"], path, "no pictures of the split test")
    path.unlink()
    (split / "classes.txt").write_text("dog\ncat\n")
    assert_refused(tmp_path, capsys, ["yolo", split, "--split", "train"], split, "it has no splits")


def test_folders_of_each_split_and_paths_of_another_place_are_found(tmp_path):
    for part in ("train", "valid"):
        dataset(tmp_path / "s" / part, {"a": f"{SQUARE} 1", "b": f"{SQUARE} 1"}, yaml=None)
    # As Roboflow writes it, where ../train is ./train.
    (tmp_path / "s" / "data.yaml").write_text(f"train: ../train/images\nval: ../valid/images\n{NAMES}")
    result = converted(tmp_path, "yolo", tmp_path / "s")
    assert [video["file_names"][0] for video in result["videos"]] == ["train/images/a.jpg", "valid/images/a.jpg"]
    (tmp_path / "s" / "data.yaml").write_text(f"path: /gone/dataset\ntrain: [train/images, valid/images]\n{NAMES}")
    assert converted(tmp_path, "yolo", tmp_path / "s") == result


def test_lists_of_pictures_are_read(tmp_path):
    labels = {f"v/{number}": f"{SQUARE} 1" for number in range(4)}
    source = dataset(tmp_path / "s", labels, f"train: train.txt\nval: lists/val.txt\n{NAMES}")
    (source / "lists").mkdir()
    (source / "train.txt").write_text("./images/v/2.jpg\n\n./images/v/0.jpg\n")
    (source / "lists" / "val.txt").write_text("images/v/1.jpg\n")
    result = converted(tmp_path, "yolo", source)
    assert result["videos"][0]["file_names"] == ["images/v/0.jpg", "images/v/1.jpg", "images/v/2.jpg"]
    assert len(result["annotations"]) == 1


def test_labels_that_a_tracker_wrote_are_bound_to_frames_by_number(tmp_path, caplog):
    # As model.track("clip.mp4", save_txt=True) names them: from 1, none where nothing is found.
    source = dataset(tmp_path / "run", {"clip_1": f"{SQUARE} 1", "clip_3": f"{SQUARE} 1"}, yaml=None)
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    for number in (1, 2, 3):
        write_image(tmp_path / "frames" / f"{number:05d}.jpg")
    result = converted(tmp_path, "yolo", source, images=tmp_path / "frames", categories=tmp_path / "names.txt")
    assert result["videos"][0]["file_names"] == ["00001.jpg", "00002.jpg", "00003.jpg"]
    assert seen(result) == [("dog", [True, False, True])]


def test_labels_beside_the_pictures_and_classes_in_a_text(tmp_path):
    source = tmp_path / "s"
    write_image(source / "a.jpg")
    (source / "a.txt").write_text(SQUARE)
    (source / "classes.txt").write_text("dog\n")
    assert areas(converted(tmp_path, "yolo", source)) == [("dog", [12])]


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [dog", "is not a YAML file"),
        ("\t", "is not a YAML file"),
        ("3", "must hold 'names'"),
        ("[" * 5000, "is not a YAML file"),
        ("train: images\n", "'names' must be a list"),
        ("train: images\nnames: []", "'names' must be a list"),
        ("train: images\nnames: [yes]", "the name of class 0 must be text; write it in quotes"),
        ("train: images\nnames: [dog, dog]", "two classes have the same name"),
        ("train: images\nnames: {a: dog}", "the number of a class must be a whole number"),
        ("train: 3\nnames: [dog]", "'train' must be a folder"),
        ("names: [dog]", "has no pictures of the split"),
        ("train: !!python/object/apply:os.system ['true']\nnames: [dog]", "is not a YAML file"),
        ("a: &a [x,x]\nb: &b [*a,*a]\ntrain: [*b,*b]\nnames: [dog]", "'train' must be a folder"),
    ],
)
def test_faults_of_the_data_file(tmp_path, capsys, yaml, message):
    source = dataset(tmp_path / "s", {"0": SQUARE}, yaml)
    assert_refused(tmp_path, capsys, ["yolo", source], source / "data.yaml", message)


def test_faults_of_folders(tmp_path, capsys):
    source = dataset(tmp_path / "s", {"v/0": SQUARE, "w/0": SQUARE})
    label = source / "labels" / "v" / "0.txt"
    (source / "images" / "v" / "0.jpg").rename(source / "images" / "v" / "x.jpg")
    assert_refused(tmp_path, capsys, ["yolo", source], label, "there is no picture 0.jpg or the like")
    (source / "images" / "v" / "x.jpg").unlink()
    assert_refused(tmp_path, capsys, ["yolo", source], label, "there is no picture of it")
    for suffix in (".jpg", ".png"):
        write_image(source / "images" / "v" / f"0{suffix}")
    assert_refused(tmp_path, capsys, ["yolo", source], source / "images" / "v", "0.jpg and 0.png for the same labels")
    (source / "images").rename(source / "elsewhere")
    assert_refused(tmp_path, capsys, ["yolo", source], source / "images", "no such folder of pictures")
    (source / "other.yml").write_text("")
    (source / "data.yaml").rename(source / "mine.yaml")
    assert_refused(tmp_path, capsys, ["yolo", source], source, "has mine.yaml and other.yml")


def test_frames_of_a_video_have_one_size_and_are_pictures(tmp_path, capsys):
    source = dataset(tmp_path / "s", {"v/0": f"{SQUARE} 1", "v/1": f"{SQUARE} 1"})
    write_image(source / "images" / "v" / "1.jpg", (7, 8))
    assert_refused(tmp_path, capsys, ["yolo", source], source / "images" / "v", "its masks are of 8×6")
    (source / "images" / "v" / "1.jpg").write_text("no picture")
    assert_refused(tmp_path, capsys, ["yolo", source], source / "images" / "v" / "1.jpg", "")


def test_pictures_outside_the_data_set_need_a_name(tmp_path, capsys):
    dataset(tmp_path / "other", {"0": f"{SQUARE} 1"})
    source = dataset(tmp_path / "s", {}, f"train: {tmp_path / 'other' / 'images'}\n{NAMES}")
    assert_refused(tmp_path, capsys, ["yolo", source], source / "data.yaml", "--images")
    result = converted(tmp_path, "yolo", source, images=tmp_path / "other")
    assert result["videos"][0]["file_names"] == ["images/0.jpg"]


def test_a_missing_library_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    source = dataset(tmp_path / "s", {"0": SQUARE})
    assert_refused(tmp_path, capsys, ["yolo", source], "pyyaml is not installed", "pip install pyyaml")


def test_nothing_but_pictures_is_refused(tmp_path, capsys):
    source = dataset(tmp_path / "s", {}, pictures=["0"])
    assert_refused(tmp_path, capsys, ["yolo", source], source / "labels", "no such folder of labels")
    (source / "labels").mkdir()
    assert_refused(tmp_path, capsys, ["yolo", source], source, "has no label file")
