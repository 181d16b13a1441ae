import json
import logging
import re
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data.config import get_config
from data.dataset import YTVISDataset, read_frames
from data.transforms import FrameTransform, PictureInput
from utils.structures import FrameInput
from ytvis.annotations import Video
from ytvis.command_line import run_command
from ytvis.files import InputError
from ytvis.masks import decode_mask, encode_mask, to_rle

RECORDED = Path(__file__).parents[1] / "fixtures" / "reference" / "dataset_eval"
CFG = get_config("STMask_plus_resnet50_config", {"input.size_hw": (90, 160)})
NAMES = ("circle", "ring", "square")


@pytest.fixture(scope="module")
def recorded():
    return YTVISDataset(RECORDED / "instances.json", RECORDED / "JPEGImages", CFG.dataset.class_names)


def content():
    """A file with one video of two frames of 6×4 pixels, one track, and category ids that are not 1…C."""
    return {
        "videos": [{"id": 7, "width": 6, "height": 4, "file_names": ["a/0.png", "a/1.png"]}],
        "categories": [
            {"id": 5, "name": "Square"},
            {"id": 17, "name": "circle"},
            {"id": 90, "name": "RING"},
        ],
        "annotations": [
            {
                "id": 31,
                "video_id": 7,
                "category_id": 90,
                "segmentations": [None, [[1, 1, 4, 1, 4, 3, 1, 3]]],
                "bboxes": [None, [1, 1, 3, 2]],
                "areas": [None, 6],
            }
        ],
    }


def load(tmp_path, changed, names=NAMES):
    path = tmp_path / "instances.json"
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    return YTVISDataset(path, tmp_path, names)


# ---------------------------------------------------------------------------------------------------- annotations


def test_recorded_videos_and_categories(recorded):
    assert [(video.video_id, len(video)) for video in recorded.videos] == [(3, 5), (8, 3)]
    assert (recorded.videos[0].width, recorded.videos[0].height) == (320, 180)
    assert recorded.category_ids == tuple(range(1, 41))
    assert recorded.labels == {label: label for label in range(1, 41)}


def test_frame_annotations_equal_the_recorded_ones(recorded):
    expected = np.load(RECORDED / "train_items.npz")
    for frame_index in (0, 1):
        truth = recorded.frame_annotations(3, frame_index)
        np.testing.assert_array_equal(truth.boxes_px.numpy(), expected[f"ann_3_{frame_index}_bboxes"])
        np.testing.assert_array_equal(truth.labels.numpy(), expected[f"ann_3_{frame_index}_labels"])
        np.testing.assert_array_equal(truth.instance_ids.numpy(), expected[f"ann_3_{frame_index}_ids"])


def test_masks_equal_the_recorded_ones(recorded):
    expected = np.load(RECORDED / "train_items.npz")
    for place, frame_index in enumerate((1, 2)):
        masks = recorded.frame_annotations(3, frame_index).masks
        assert masks.dtype == torch.bool and masks.shape[1:] == (180, 320)
        padded = np.zeros((len(masks), 96, 160), np.uint8)
        for mask, target in zip(masks.numpy().astype(np.uint8), padded, strict=True):
            target[:90] = cv2.resize(mask, (160, 90), interpolation=cv2.INTER_NEAREST)
        np.testing.assert_array_equal(padded, expected[f"item_flip0_masks{place}"])


def test_category_ids_that_are_not_labels_are_told_by_name(tmp_path):
    dataset = load(tmp_path, content())
    assert dataset.labels == {17: 1, 90: 2, 5: 3}
    assert dataset.category_ids == (17, 90, 5)
    truth = dataset.frame_annotations(7, 1)
    assert truth.labels.tolist() == [2]
    assert truth.instance_ids.tolist() == [31]
    assert truth.boxes_px.tolist() == [[1, 1, 3, 2]]
    assert truth.masks[0].int().tolist() == [[0] * 6, [0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0], [0] * 6]


def test_names_are_compared_without_case_spaces_and_hyphens(tmp_path):
    changed = content()
    changed["categories"] = [{"id": 90, "name": "Tennis Racket"}, {"id": 2, "name": "earless-seal"}]
    dataset = load(tmp_path, changed, CFG.dataset.class_names)
    assert dataset.labels == {90: 40, 2: 39}
    assert dataset.category_ids == (*[None] * 38, 2, 90)  # the model's other classes are not in the file


def test_other_names_but_as_many_are_taken_in_the_order_of_their_ids(tmp_path, caplog):
    changed = content()
    changed["categories"][0]["name"] = "quadrat"
    changed["categories"].reverse()
    with caplog.at_level(logging.WARNING):
        dataset = load(tmp_path, changed)
    assert dataset.category_ids == (5, 17, 90)
    assert "quadrat" in caplog.text


def test_other_names_in_another_number_are_refused(tmp_path):
    changed = content()
    changed["categories"][0]["name"] = "quadrat"
    with pytest.raises(InputError, match=r"3 categories, the model 4 classes.*dataset\.class_names"):
        load(tmp_path, changed, (*NAMES, "bar"))


@pytest.mark.parametrize("annotations", ["absent", None, [], [None]])
def test_without_annotations_there_is_nothing_to_see(tmp_path, annotations):
    changed = {**content(), "annotations": annotations}
    if annotations == "absent":
        del changed["annotations"]
    dataset = load(tmp_path, changed)
    assert dataset.annotations(7) == () and not dataset.has_truth
    with pytest.raises(InputError, match=r"instances\.json: it has no annotations; training needs a set with truth"):
        dataset.key_frames()
    truth = dataset.frame_annotations(7, 0)
    assert len(truth) == 0
    assert truth.boxes_px.shape == (0, 4) and truth.masks.shape == (0, 4, 6)
    assert truth.labels.dtype == truth.instance_ids.dtype == torch.int64


@pytest.mark.parametrize(
    "changes",
    [
        {"iscrowd": 1},
        {"segmentations": None},
        {"segmentations": []},
        {"segmentations": [None, []]},
        {"segmentations": [None, [[]]]},
        {"areas": [None, 0]},
        {"bboxes": [None, [1, 1, 0.5, 2]]},
    ],
)
def test_what_is_no_target_is_left_out(tmp_path, changes):
    changed = content()
    changed["annotations"][0] |= changes
    dataset = load(tmp_path, changed)
    assert len(dataset.frame_annotations(7, 1)) == 0
    (track,) = dataset.annotations(7)
    assert track.iscrowd == ("iscrowd" in changes)
    assert len(track.segmentations) == len(track.bboxes) == len(track.areas) == 2


def test_a_list_that_ends_before_its_video_is_filled_up_with_null_and_said(tmp_path, caplog):
    """As in the official evaluator."""
    changed = content()
    changed["annotations"][0] |= {
        key: changed["annotations"][0][key][1:] for key in ("segmentations", "bboxes", "areas")
    }
    with caplog.at_level(logging.WARNING):
        dataset = load(tmp_path, changed)
    assert [len(dataset.frame_annotations(7, frame)) for frame in (0, 1)] == [1, 0]
    assert "a list ends before its video: 'segmentations' 1, frames 2 (3 times" in caplog.text


@pytest.mark.parametrize("box", [[1, 1, 5, 4], [3, 3, 4, 4], [0, 0, 60, 40]])
def test_a_box_that_does_not_match_its_mask_is_taken_from_the_mask(tmp_path, box):
    changed = content()
    changed["videos"][0] |= {"width": 60, "height": 40}
    changed["annotations"][0]["segmentations"][1] = [[1, 1, 40, 1, 40, 30, 1, 30]]
    changed["annotations"][0]["bboxes"][1] = box
    assert load(tmp_path, changed).frame_annotations(7, 1).boxes_px.tolist() == [[1, 1, 39, 29]]


@pytest.mark.parametrize("missing", ["bboxes", "areas"])
def test_a_missing_box_or_area_comes_from_the_mask(tmp_path, missing):
    changed = content()
    del changed["annotations"][0][missing]
    assert load(tmp_path, changed).frame_annotations(7, 1).boxes_px.tolist() == [[1, 1, 3, 2]]


def test_an_unknown_video_has_no_annotations(recorded):
    with pytest.raises(KeyError):
        recorded.annotations(99)


# ---------------------------------------------------------------------------------------------------- segmentations


def test_every_kind_of_segmentation_gives_the_same_rle():
    mask = np.zeros((4, 6), bool)
    mask[1:3, 1:4] = True
    expected = encode_mask(mask)
    polygons = [[1, 1, 4, 1, 4, 3, 1, 3]]
    runs = {"size": [4, 6], "counts": [5, 2, 2, 2, 2, 2, 9]}
    as_bytes = {"size": [4, 6], "counts": expected["counts"].encode()}
    for segmentation in (polygons, runs, expected, as_bytes):
        assert to_rle(segmentation, 4, 6) == expected


def test_polygons_are_united_and_degenerate_ones_cover_nothing():
    polygons = [[0, 0, 2, 0, 2, 2, 0, 2], [4, 2, 6, 2, 6, 4, 4, 4], [3, 0, 3, 4]]
    mask = decode_mask(to_rle(polygons, 4, 6))
    expected = np.zeros((4, 6), bool)
    expected[:2, :2] = expected[2:, 4:] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("segmentation", [None, [], [[]], [[], []]])
def test_nothing_visible_is_none(segmentation):
    assert to_rle(segmentation, 4, 6) is None


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [6, 4], "counts": [24]},
        {"size": [4, 6], "counts": [23]},
        {"counts": [24]},
        [1, 1, 4, 1, 4, 3],
        [[1, 1, 4, 1, 4, 3, 1]],
        [[1, 1, 4, 1, 4, "3"]],
        [[1, 1, 2, 2]],
    ],
)
def test_a_segmentation_that_cannot_be_used_is_refused(segmentation):
    with pytest.raises(InputError):
        to_rle(segmentation, 4, 6)


def test_the_message_names_file_annotation_and_frame(tmp_path):
    changed = content()
    changed["annotations"][0]["segmentations"][1] = {"size": [6, 4], "counts": [24]}
    with pytest.raises(InputError, match=r"instances\.json: annotation 31, frame 1: .*\[6, 4\].*\[4, 6\]"):
        load(tmp_path, changed).frame_annotations(7, 1)


# ---------------------------------------------------------------------------------------------------- bad files


def broken(path, value):
    """`content()` with the entry at `path` replaced, or removed for `...`."""
    changed = content()
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "must hold an object"),
        ({}, "'videos'"),
        (broken(["videos"], []), "'videos'"),
        (broken(["videos"], {"id": 7}), "'videos'"),
        (broken(["videos", 0], "a"), "video number 1: an entry is not a JSON object: 'a'"),
        (broken(["videos", 0, "id"], ...), "video number 1: video without 'id'"),
        (broken(["videos", 0, "id"], "7"), "video number 1: video with 'id' that is not an integer: '7'"),
        (broken(["videos", 0, "width"], ...), "video 7: video without 'width'"),
        (broken(["videos", 0, "height"], 0), "video 7: width and height cannot be used"),
        (broken(["videos", 0, "file_names"], "a/0.png"), "video 7: video with 'file_names' that is not a list"),
        (broken(["videos", 0, "file_names"], []), "video 7: 'file_names'"),
        (broken(["videos", 0, "file_names"], ["a", 1]), "video 7: 'file_names'"),
        (broken(["videos"], content()["videos"] * 2), "video 7: a video id is used twice"),
        (broken(["categories"], ...), "'categories'"),
        (broken(["categories"], []), "'categories'"),
        (broken(["categories", 1, "name"], ...), "category 17: category without 'name'"),
        (broken(["categories", 1, "id"], 5), "category 5: a category id is used twice"),
        (broken(["annotations"], {"id": 1}), "'annotations': a value is not a list"),
        (broken(["annotations", 0], 5), "annotation number 1: an entry is not a JSON object"),
        (broken(["annotations", 0, "id"], ...), "annotation number 1: annotation without 'id'"),
        (broken(["annotations"], content()["annotations"] * 2), "annotation 31: an annotation id is used twice"),
        (broken(["annotations", 0, "video_id"], 8), "annotation 31: .* video that is not in the file: 8"),
        (broken(["annotations", 0, "category_id"], 2), "annotation 31: .* category that is not in the file: 2"),
        (broken(["annotations", 0, "segmentations"], [None] * 3), "longer than its video: 'segmentations' 3, frames 2"),
        (
            broken(["annotations", 0, "bboxes"], [None] * 3),
            "annotation 31: a list is longer than its video: 'bboxes' 3",
        ),
        (broken(["annotations", 0, "areas"], 6), "annotation 31: a value is not a list: 'areas' 6"),
        (
            broken(["annotations", 0, "segmentations", 1], "abc"),
            "annotation 31, frame 1: a segmentation cannot be used",
        ),
        (broken(["annotations", 0, "bboxes", 1], [1, 2, 3]), "annotation 31, frame 1: a box is not"),
        (broken(["annotations", 0, "areas", 1], "6"), "annotation 31, frame 1: an area is not a number of pixels"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path, changed, message):
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path, changed)
    assert str(tmp_path / "instances.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_or_folder(tmp_path):
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        YTVISDataset(tmp_path / "none.json", tmp_path, NAMES)
    with pytest.raises(InputError, match="no such folder"):
        YTVISDataset(tmp_path / "none.json", tmp_path / "none", NAMES)


# ---------------------------------------------------------------------------------------------------- where it lies


def shapes_tree(root):
    (root / "valid" / "JPEGImages").mkdir(parents=True)
    (root / "valid" / "instances.json").write_text(json.dumps(content()))
    return get_config("STMask_demo_config", {"dataset.root": root})


def test_from_config_takes_the_first_candidate_that_exists(tmp_path):
    cfg = shapes_tree(tmp_path)
    dataset = YTVISDataset.from_config(cfg)
    assert dataset.ann_file == tmp_path / "valid" / "instances.json"
    assert dataset.image_root == tmp_path / "valid" / "JPEGImages"
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "valid.json").write_text(json.dumps(content()))
    assert YTVISDataset.from_config(cfg).ann_file == tmp_path / "annotations" / "valid.json"


def test_arguments_and_absolute_candidates_come_before_the_root(tmp_path, monkeypatch):
    shapes_tree(tmp_path / "there")
    monkeypatch.chdir(tmp_path)
    cfg = get_config("STMask_demo_config", {"dataset.root": "elsewhere"})
    dataset = YTVISDataset.from_config(cfg, ann_file="there/valid/instances.json", image_root="there")
    assert [video.video_id for video in dataset.videos] == [7]
    keys = {
        "dataset.train.ann_file": (tmp_path / "there" / "valid" / "instances.json",),
        "dataset.train.image_root": (tmp_path / "there",),
    }
    cfg = get_config("STMask_demo_config", {"dataset.root": "elsewhere", **keys})
    assert [video.video_id for video in YTVISDataset.from_config(cfg, "train").videos] == [7]


def test_a_missing_data_set_tells_where_it_was_looked_for(tmp_path):
    cfg = get_config("STMask_plus_base_config", {"dataset.root": tmp_path / "YTVIS"})
    with pytest.raises(InputError) as caught:
        YTVISDataset.from_config(cfg)
    message = str(caught.value)
    places = [*cfg.dataset.valid.ann_file, *cfg.dataset.valid.image_root]
    assert all(str(tmp_path / "YTVIS" / place) in message for place in places)
    assert "YTVIS2019" in message and "<video>/<frame>.jpg" in message
    assert "--ann_file" in message and "--image_root" in message and "dataset.root" in message


def test_a_missing_explicit_file_is_the_only_place_named(tmp_path):
    cfg = shapes_tree(tmp_path)
    with pytest.raises(InputError) as caught:
        YTVISDataset.from_config(cfg, ann_file=tmp_path / "mine.json")
    message = str(caught.value)
    assert message.partition(";")[0].endswith(f"annotation file not found at {tmp_path / 'mine.json'}")
    assert "\n" not in message


# ---------------------------------------------------------------------------------------------------- frames


def test_the_recorded_test_item_comes_third(recorded):
    frames = list(read_frames(recorded, FrameTransform.from_config(CFG), num_workers=0))
    meta = frames[2].meta
    assert (meta.video_id, meta.frame_index) == (3, 2)
    assert (meta.original_hw, meta.resized_hw, meta.padded_hw) == ((180, 320), (90, 160), (96, 160))
    image = PictureInput(CFG.input, torch.device("cpu"))(frames[2].image[None])[0]
    np.testing.assert_array_equal(image.numpy(), np.load(RECORDED / "test_item2.npz")["img"])
    assert all(frame.frame is None and frame.error is None for frame in frames)


def test_workers_change_neither_order_nor_content_nor_random_numbers(recorded):
    transform = FrameTransform.from_config(CFG)
    seed = torch.get_rng_state()
    with_workers = read_frames(recorded, transform, num_workers=2, keep_frames=True)
    without = read_frames(recorded, transform, num_workers=0, keep_frames=True)
    assert len(with_workers) == len(without) == 8
    order = []
    for one, other in zip(with_workers, without, strict=True):
        assert isinstance(one, FrameInput)
        assert one.meta == other.meta and one.is_last == other.is_last
        assert torch.equal(one.image, other.image)
        assert isinstance(one.frame, np.ndarray) and one.frame.shape == (180, 320, 3)
        np.testing.assert_array_equal(one.frame, other.frame)
        order.append((one.meta.video_id, one.meta.frame_index, one.is_last))
    assert order == [(3, index, index == 4) for index in range(5)] + [(8, index, index == 2) for index in range(3)]
    assert torch.equal(torch.get_rng_state(), seed)


def test_a_killed_worker_ends_a_command_with_one_line(recorded, capsys, monkeypatch):
    transform = FrameTransform.from_config(CFG)
    monkeypatch.setattr(transform, "for_network", lambda frame: signal.raise_signal(signal.SIGKILL))
    frames = read_frames(recorded, transform, num_workers=1)
    assert run_command("name", lambda: list(frames)) == 1
    assert capsys.readouterr().err.startswith("name: error: a worker process was killed, probably ")


def test_only_the_videos_asked_for_are_read(recorded):
    transform = FrameTransform.from_config(CFG)
    frames = list(read_frames(recorded, transform, videos=recorded.videos[1:], num_workers=0))
    assert [(frame.meta.video_id, frame.meta.frame_index) for frame in frames] == [(8, 0), (8, 1), (8, 2)]
    for num_workers in (0, 2):
        nothing = read_frames(recorded, transform, videos=(), num_workers=num_workers)
        assert len(nothing) == 0 and list(nothing) == []


def test_kept_frames_are_rgb(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("0.png", "1.png"):
        cv2.imwrite(str(tmp_path / "a" / name), np.full((4, 6, 3), (10, 20, 30), np.uint8))  # blue, green, red
    frames = read_frames(load(tmp_path, content()), FrameTransform.from_config(CFG), num_workers=0, keep_frames=True)
    assert next(iter(frames)).frame[0, 0].tolist() == [30, 20, 10]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_frames_that_cannot_be_read_come_as_errors_in_their_place(tmp_path, num_workers):
    changed = content()
    changed["videos"][0]["file_names"] = ["a/good.png", "a/gone.png", "a/broken.png", "a/empty.png", "a/large.png"]
    changed["annotations"] = []
    (tmp_path / "a").mkdir()
    cv2.imwrite(str(tmp_path / "a" / "good.png"), np.zeros((4, 6, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "a" / "large.png"), np.zeros((8, 12, 3), np.uint8))
    (tmp_path / "a" / "broken.png").write_bytes(b"no picture at all")
    (tmp_path / "a" / "empty.png").write_bytes(b"")
    dataset = load(tmp_path, changed)
    frames = list(read_frames(dataset, FrameTransform.from_config(CFG), num_workers=num_workers, keep_frames=True))
    assert frames[0].error is None and frames[0].image is not None
    for index, (name, why) in enumerate(
        [("gone", "No such"), ("broken", "decoded"), ("empty", "decoded"), ("large", "12×8 pixels.*6×4")], start=1
    ):
        frame = frames[index]
        assert frame.image is None and frame.frame is None
        assert frame.meta.frame_index == index and frame.meta.original_hw == (4, 6)
        assert str(tmp_path / "a" / f"{name}.png") in frame.error and "\n" not in frame.error
        assert re.search(why, frame.error)
    assert [frame.is_last for frame in frames] == [False] * 4 + [True]


def test_the_index_costs_one_number_a_video(tmp_path):
    changed = content()
    changed["videos"] = [{"id": 7, "width": 6, "height": 4, "file_names": ["a/0.png"] * 1000}]
    changed["annotations"] = []
    frames = read_frames(load(tmp_path, changed), FrameTransform.from_config(CFG))
    assert len(frames) == 1000
    assert frames.dataset.ends == (1000,)


def test_length_of_a_video_is_that_of_its_frames():
    assert len(Video(1, 6, 4, ("a", "b", "c"))) == 3


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e12, -1e6])
def test_polygon_that_reaches_far_out_is_refused_before_it_is_walked_along(number):
    with pytest.raises(InputError, match="far outside the frame"):
        to_rle([[0, 0, 5, 0, number, 5]], 10, 20)
    assert to_rle([[-50, 0, 150, 0, 150, 5]], 10, 20)["size"] == [10, 20]
