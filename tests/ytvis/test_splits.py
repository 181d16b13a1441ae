import json
import re

import pytest

from data.config import get_config
from data.dataset import YTVISDataset
from ytvis.__main__ import main
from ytvis.annotations import read_annotations, read_content
from ytvis.files import InputError
from ytvis.score.ap import evaluate_results
from ytvis.splits import (
    SPLITS,
    base_split,
    draw_videos,
    read_video_ids,
    subset_annotations,
    videos_of_split,
    write_video_ids,
)

LEFT = {"size": [4, 6], "counts": [0, 12, 12]}


def content(video_ids):
    """A file of videos of one frame whose left half is track 100 + id."""
    return {
        "videos": [{"id": i, "width": 6, "height": 4, "file_names": [f"{i}.png"]} for i in video_ids],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {
                "id": 100 + i,
                "video_id": i,
                "category_id": 1,
                "iscrowd": 0,
                "segmentations": [LEFT],
                "bboxes": [[0, 0, 3, 4]],
                "areas": [12],
            }
            for i in video_ids
        ],
    }


def place(root, video_ids, name="train.json"):
    """A data set whose train split has these videos, and its config."""
    (root / "train" / "JPEGImages").mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(content(video_ids)))
    return get_config("STMask_demo_config", {"dataset.root": root, "dataset.class_names": "thing"})


def ids(dataset):
    return [video.video_id for video in dataset.videos]


# ---------------------------------------------------------------------------------------------------- parts of train


@pytest.mark.parametrize(("number", "valid"), [(1, 1), (2, 1), (9, 1), (10, 1), (19, 1), (20, 2), (2238, 223)])
def test_the_last_tenth_is_for_validation_and_at_least_one(number, valid):
    video_ids = list(range(number, 0, -1))  # the order of the file, not of the ids
    train, held_out = videos_of_split("train_sub", video_ids), videos_of_split("valid_sub", video_ids)
    assert [*train, *held_out] == video_ids
    assert len(held_out) == valid
    assert all(videos_of_split(split, video_ids) == video_ids for split in ("train", "valid", "test"))


def test_parts_of_nothing_are_nothing():
    assert [list(videos_of_split(split, [])) for split in SPLITS] == [[]] * 5


def test_splits_that_are_parts_lie_in_the_train_file():
    assert [base_split(split) for split in SPLITS] == ["train", "valid", "test", "train", "train"]
    with pytest.raises(InputError, match="unknown split 'val'; choose from train, valid"):
        base_split("val")


def test_the_parts_of_a_data_set_share_its_videos_with_their_annotations(tmp_path):
    video_ids = [7, 3, *range(20, 38)]  # 20 videos
    config = place(tmp_path, video_ids)
    train, valid = (YTVISDataset.from_config(config, split) for split in ("train_sub", "valid_sub"))
    assert ids(train) == video_ids[:18] and ids(valid) == [36, 37]
    assert [track.annotation_id for track in valid.annotations(37)] == [137]
    with pytest.raises(KeyError):
        valid.annotations(7)
    assert valid.ann_file == train.ann_file == tmp_path / "train.json"
    assert ids(YTVISDataset.from_config(config, "train")) == video_ids


def test_a_file_that_is_given_is_the_one_that_is_split(tmp_path):
    config = place(tmp_path, [1])
    place(tmp_path, range(30), "mine.json")
    assert ids(YTVISDataset.from_config(config, "valid_sub", tmp_path / "mine.json")) == [27, 28, 29]


def test_a_single_video_is_for_validation_and_cannot_be_trained_on(tmp_path):
    config = place(tmp_path, [4])
    assert ids(YTVISDataset.from_config(config, "valid_sub")) == [4]
    with pytest.raises(InputError, match=r"train\.json: has a single video.*train_sub is empty"):
        YTVISDataset.from_config(config, "train_sub")


def test_a_missing_train_split_is_said_to_be_looked_for(tmp_path):
    config = get_config("STMask_demo_config", {"dataset.root": tmp_path})
    with pytest.raises(InputError, match="split 'valid_sub'.*train.json"):
        YTVISDataset.from_config(config, "valid_sub")


# ---------------------------------------------------------------------------------------------------- lists of ids


def test_ids_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "lists" / "ids.txt"
    write_video_ids(path, [30, 4, 900100])
    assert path.read_text() == "30\n4\n900100\n"
    assert read_video_ids(path) == read_video_ids(path, {4, 30, 31, 900100}) == (30, 4, 900100)


def test_comments_and_blank_lines_are_skipped(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("\ufeff# held out\r\n\n 12 # a bear\n#13\n-1\n", "utf-8")
    assert read_video_ids(path) == (12, -1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "ids.txt: has no video ids"),
        ("# 3\n\n", "ids.txt: has no video ids"),
        ("3\nbear\n", "ids.txt, line 2: 'bear' is not a video id"),
        ("3 4\n", "ids.txt, line 1: '3 4' is not a video id"),
        ("3.0\n", "ids.txt, line 1: '3.0'"),
        ("1_0\n", "ids.txt, line 1: '1_0'"),
        ("3\n# 3\n4\n3\n", "ids.txt, line 4: video 3 is repeated, first in line 1"),
        ("3\n\n9\n", "ids.txt, line 3: video 9 is not in the data set"),
    ],
)
def test_a_bad_list_is_refused_with_file_and_line(tmp_path, text, message):
    path = tmp_path / "ids.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_video_ids(path, {3, 4})
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_list_that_is_missing_or_no_text_is_refused(tmp_path):
    with pytest.raises(InputError, match="none.txt: cannot be read"):
        read_video_ids(tmp_path / "none.txt")
    (tmp_path / "ids.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="ids.txt: is not text"):
        read_video_ids(tmp_path / "ids.txt")


def test_a_list_chooses_from_its_split(tmp_path):
    config = place(tmp_path, range(20))
    write_video_ids(tmp_path / "ids.txt", [18, 3])
    assert ids(YTVISDataset.from_config(config, "train", video_ids_file=tmp_path / "ids.txt")) == [3, 18]
    with pytest.raises(InputError, match=r"ids\.txt, line 2: video 3 is not in the data set"):
        YTVISDataset.from_config(config, "valid_sub", video_ids_file=tmp_path / "ids.txt")


# ---------------------------------------------------------------------------------------------------- subsets


def test_a_subset_leaves_the_data_set_as_it_was(tmp_path):
    place(tmp_path, [5, 1, 8])
    dataset = YTVISDataset(tmp_path / "train.json", tmp_path, ("thing",))
    subset = dataset.subset([8, 5, 8])
    assert ids(subset) == [5, 8] and ids(dataset) == [5, 1, 8]
    assert ids(subset.subset([8])) == [8] and ids(dataset.subset([])) == []
    assert len(subset.frame_annotations(5, 0)) == 1 and subset.labels == dataset.labels
    with pytest.raises(InputError, match=r"train\.json: video 1 not found$"):
        subset.subset([5, 1])


def test_annotations_of_a_subset_are_those_of_its_videos():
    whole = content([5, 1, 8])
    whole["annotations"].append(None)
    subset = subset_annotations(whole, [8, 5])
    assert [video["id"] for video in subset["videos"]] == [5, 8]
    assert [track["id"] for track in subset["annotations"]] == [105, 108]
    assert subset["categories"] == whole["categories"] and len(whole["videos"]) == 3 and len(whole["annotations"]) == 4
    assert subset_annotations(whole, []) == {**whole, "videos": [], "annotations": []}


def test_without_annotations_a_subset_has_none_either():
    whole = {key: value for key, value in content([5, 1]).items() if key != "annotations"}
    assert "annotations" not in subset_annotations(whole, [1])
    assert subset_annotations({**whole, "annotations": None}, [1])["annotations"] is None


@pytest.mark.parametrize("broken", [{}, {"videos": [1]}, {"videos": [{}]}, {"annotations": [{"id": 4}]}])
def test_a_subset_of_something_else_is_refused(broken):
    changed = {} if broken == {} else {**content([5]), **broken}
    with pytest.raises(InputError):
        subset_annotations(changed, [5])


def test_an_unknown_video_is_refused():
    with pytest.raises(InputError, match="no video 6"):
        subset_annotations(content([5]), [5, 6])


def test_a_subset_is_scored_by_its_own_truth_alone(tmp_path):
    """Video 1 is found exactly, video 2 not at all: half of the truth, or all of video 1's."""
    place(tmp_path, [1, 2])
    whole = read_content(tmp_path / "train.json")
    found = [{"video_id": 1, "category_id": 1, "score": 0.9, "segmentations": [LEFT]}]
    average_recall = [
        evaluate_results(subset_annotations(whole, video_ids), results).stats[8]
        for video_ids, results in (([1, 2], found), ([1], found), ([2], []))
    ]
    assert average_recall == [0.5, 1, 0]


# ---------------------------------------------------------------------------------------------------- the command


def split(*arguments):
    return main(["split", *map(str, arguments)])


def test_videos_are_divided_by_lot_and_stay_in_order(tmp_path, capsys):
    place(tmp_path, range(20))
    train, valid = tmp_path / "a" / "t.json", tmp_path / "a" / "v.json"
    arguments = (
        tmp_path / "train.json",
        f"--train={train}",
        f"--valid={valid}",
        "--valid_fraction=0.25",
        "--write_ids",
    )
    assert split(*arguments) == 0
    assert capsys.readouterr().out == f"{train}: 15 of 20 videos\n{valid}: 5 of 20 videos\n"
    first = [list(read_annotations(path).videos) for path in (train, valid)]
    assert sorted(first[0] + first[1]) == list(range(20)) and all(ids == sorted(ids) for ids in first)
    assert [list(read_video_ids(path.with_suffix(".txt"))) for path in (train, valid)] == first
    assert [track.video_id for track in read_annotations(valid).tracks] == first[1]
    assert split(*arguments) == 0 and list(read_annotations(valid).videos) == first[1]
    assert split(*arguments, "--seed=1") == 0 and list(read_annotations(valid).videos) != first[1]


@pytest.mark.parametrize(("number", "fraction", "counts"), [(2, 0.01, (1, 1)), (2, 0.99, (1, 1)), (10, 0.16, (8, 2))])
def test_each_part_has_a_video(number, fraction, counts):
    assert tuple(map(len, draw_videos(range(number), fraction, seed=0))) == counts
    with pytest.raises(InputError, match="1 video cannot be divided"):
        draw_videos([3], fraction, seed=0)


def test_the_videos_of_a_list_are_taken_from_any_file(tmp_path, capsys):
    write_video_ids(tmp_path / "ids.txt", [25, 9])
    images = {
        "images": [{"id": i, "width": 6, "height": 4, "file_name": f"{i}.png"} for i in (9, 13, 25)],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "segmentation": [[0, 0, 3, 0, 3, 4.5]], "area": 6}
            for i in (13, 25)
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(images))
    assert split(tmp_path / "coco.json", f"--video_ids={tmp_path}/ids.txt", f"--output={tmp_path}/out.json") == 0
    assert capsys.readouterr().out == f"{tmp_path}/out.json: 2 of 3 images\n"
    written = json.loads((tmp_path / "out.json").read_text())
    assert written == {
        **images,
        "images": [images["images"][0], images["images"][2]],
        "annotations": images["annotations"][1:],
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "pass --train=OUT.json and --valid=OUT.json, or --video_ids"),
        (["--train=a.json"], "--train and --valid go together"),
        (["--video_ids=ids.txt"], "so do --video_ids and --output"),
        (["--train=a.json", "--valid=a.json"], "must be different"),
        (["--video_ids=a.txt", "--output=a.json", "--write_ids"], "must be different"),
        (["--video_ids=none.txt", "--output=a.json"], "none.txt: cannot be read"),
    ],
)
def test_a_command_line_that_says_too_little_is_one_line(tmp_path, capsys, options, message):
    place(tmp_path, range(3))
    assert split(tmp_path / "train.json", *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_file_with_faults_is_not_divided(tmp_path, capsys):
    broken = content([1, 2])
    broken["annotations"][0]["segmentations"] = [{"size": [6, 4], "counts": [24]}]
    (tmp_path / "train.json").write_text(json.dumps(broken))
    assert split(tmp_path / "train.json", f"--train={tmp_path}/a.json", f"--valid={tmp_path}/b.json") == 2
    assert "annotation 101, frame 0: a segmentation cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()
