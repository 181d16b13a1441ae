"""COCO files: the video of an image, round trips of awkward names and orders, objects marked as crowds."""

import json

import pytest

from tests.ytvis.convert.test_convert import (
    HW,
    TRIANGLE,
    ann_file,
    areas,
    assert_refused,
    coco_content,
    converted,
    main,
    mask_of,
    rle_of,
    track,
    write_image,
    write_json,
)
from ytvis.convert import coco
from ytvis.convert.command import convert


def square(left):
    return [[left, 1, left + 2, 1, left + 2, 3, left, 3]]


def coco_of(*frames, videos=None):
    """A COCO file: a frame is the image's keys, and the place of an object of track 1 that is 2×2, or None."""
    images, annotations = [], []
    for number, (image, left) in enumerate(frames, start=1):
        images.append({"id": number, "width": HW[1], "height": HW[0], **image})
        if left is not None:
            entry = {"id": number, "image_id": number, "category_id": 1, "instance_id": 1, "segmentation": square(left)}
            annotations.append(entry)
    content = {"images": images, "categories": [{"id": 1, "name": "dog"}], "annotations": annotations}
    return content if videos is None else {**content, "videos": videos}


def seen(result):
    """{file name: left edge of its object} of each video."""
    return [
        {
            name: box and box[0]
            for entry in result["annotations"]
            if entry["video_id"] == video["id"]
            for name, box in zip(video["file_names"], entry["bboxes"], strict=True)
        }
        for video in result["videos"]
    ]


def image(video, frame, frame_key, name=None):
    return {"file_name": name or f"clip{video}_{frame:04d}.jpg", "video_id": video, frame_key: frame}


@pytest.mark.parametrize("frame_key", ["frame_id", "frame_index"])
@pytest.mark.parametrize("first", [0, 1])
def test_video_ids_make_the_videos_and_frame_ids_their_order(tmp_path, frame_key, first):
    content = coco_of(
        (image(2, first + 1, frame_key, "a.jpg"), 0),
        (image(2, first, frame_key, "b.jpg"), 1),
        (image(1, first + 10, frame_key), 2),
        (image(1, first + 9, frame_key), 3),
        videos=[{"id": 1, "name": "clip1"}, {"id": 2, "name": "day\\two"}],
    )
    path = write_json(tmp_path / "coco.json", content)
    assert [video.name for video in coco.read(path).videos.values()] == ["clip1", "day/two"]
    result = converted(tmp_path, "coco", path)
    nine, ten = (f"clip1_{first + number:04d}.jpg" for number in (9, 10))
    assert seen(result) == [{nine: 3, ten: 2}, {"b.jpg": 1, "a.jpg": 0}]
    assert [list(video) for video in seen(result)] == [[nine, ten], ["b.jpg", "a.jpg"]]


def test_video_ids_without_frame_ids_are_in_the_order_of_names(tmp_path):
    frames = [({"file_name": f"{number}.jpg", "video_id": 7}, number % 5) for number in (10, 9, 2)]
    result = converted(tmp_path, "coco", write_json(tmp_path / "coco.json", coco_of(*frames)))
    assert list(seen(result)[0]) == ["2.jpg", "9.jpg", "10.jpg"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_id": None}, "image 1 has no 'video_id', but others have"),
        ({"video_id": "1"}, "image 1: 'video_id' must be an integer"),
        ({"frame_id": None}, "video 1, image 1: 'frame_id' must be an integer, but is missing"),
        ({"frame_id": 1}, "video 1: two of its images have the same 'frame_id'"),
    ],
)
def test_ids_that_do_not_tell_are_refused(tmp_path, capsys, change, message):
    content = coco_of((image(1, 0, "frame_id") | change, 0), (image(1, 1, "frame_id"), 1))
    path = write_json(tmp_path / "coco.json", content)
    assert_refused(tmp_path, capsys, ["coco", path], path, message)


def test_names_written_on_windows_are_as_all_others(tmp_path):
    frames = [({"file_name": f"images\\{video}\\{number}.jpg"}, number) for video in "ab" for number in (0, 1)]
    content = coco_of(*frames)
    windows = converted(tmp_path, "coco", write_json(tmp_path / "win.json", content))
    assert seen(windows) == [{f"images/{video}/{number}.jpg": number for number in (0, 1)} for video in "ab"]
    posix = json.loads(json.dumps(content).replace("\\\\", "/"))
    assert converted(tmp_path, "coco", write_json(tmp_path / "posix.json", posix)) == windows


def test_names_of_several_videos_in_one_folder_are_reported(tmp_path, caplog):
    frames = [({"file_name": f"clip{video}_{number}.jpg"}, number) for video in (1, 2) for number in (0, 1)]
    converted(tmp_path, "coco", write_json(tmp_path / "coco.json", coco_of(*frames)))
    assert "its 4 pictures, clip1_0.jpg … clip2_1.jpg, do not number the frames of one video" in caplog.text


# ---------------------------------------------------------------------------------------------------- round trips

AWKWARD = {
    "all videos in one folder": [["a0.jpg", "a1.jpg"], ["b0.jpg", "b1.jpg"]],
    "a video in two folders": [["cam/left/a0.jpg", "cam/right/a1.jpg"]],
    "frames not in the order of names": [["v/b.jpg", "v/a.jpg"], ["w/10.jpg", "w/9.jpg"]],
    "one name in several videos": [["v/0.jpg", "v/1.jpg"], ["w/0.jpg", "w/1.jpg"]],
    "prefixes": [["v/cam2_0007.jpg", "v/cam2_0012.jpg"]],
    "one frame": [["v/0.jpg"], ["w/cat.jpg"]],
    "numbers from 1": [["v/000001.jpg", "v/000002.jpg", "v/000003.jpg"]],
    "several numbers": [["v/s1_t5.jpg", "v/s2_t7.jpg"]],
    "no numbers": [["v/a.jpg", "v/b.jpg", "v/c.jpg"]],
}


def annotations_of(videos):
    """A YouTube-VIS file with two tracks per video; of several frames, the first does not show the first track."""
    content = {"videos": [], "categories": [{"id": 1, "name": "dog"}], "annotations": []}
    for video_id, names in enumerate(videos, start=1):
        size = {"length": len(names), "width": HW[1], "height": HW[0]}
        content["videos"].append({"id": video_id, **size, "file_names": names})
        places = range(len(names))
        late = [rle_of(mask_of(3, place, 2, 2)) if place or len(names) == 1 else None for place in places]
        for masks in (late, [rle_of(mask_of(0, place, 2, 2)) for place in places]):
            content["annotations"].append(track(len(content["annotations"]) + 1, video_id, 1, masks))
    return content


@pytest.mark.parametrize("videos", AWKWARD.values(), ids=AWKWARD)
def test_a_round_trip_through_coco_is_equal(tmp_path, videos):
    content = annotations_of(videos)
    convert("ytvis", ann_file(tmp_path, content), tmp_path / "coco.json", "coco")
    assert converted(tmp_path, "coco", tmp_path / "coco.json") == content


@pytest.mark.parametrize("videos", AWKWARD.values(), ids=AWKWARD)
@pytest.mark.parametrize("format", ["labelme", "davis", "mots"])
def test_a_round_trip_through_files_is_equal_or_refused(tmp_path, capsys, videos, format):
    """Masks are never on other pictures."""
    content = annotations_of(videos)
    images = tmp_path / "frames"
    for name in sum(videos, []):
        write_image(images / name)
    line = ["ytvis", str(ann_file(tmp_path, content)), str(tmp_path / "out"), "--to", format]
    code = main([*line, *(["--images", str(images)] if format == "labelme" else [])])
    if code == 0:
        code = main([format, str(tmp_path / "out"), str(tmp_path / "back.json"), "--images", str(images)])
    error = capsys.readouterr().err
    if videos == AWKWARD["frames not in the order of names"]:
        assert code == 2 and "not in the order of their names" in error
    elif videos in (AWKWARD["a video in two folders"], AWKWARD["all videos in one folder"]) and code == 2:
        assert "no pictures found in" in error
    else:
        assert code == 0, error
        result = json.loads((tmp_path / "back.json").read_text())
        assert result["videos"] == content["videos"]
        ours, theirs = (
            sorted(json.dumps([entry["video_id"], entry["segmentations"]]) for entry in value["annotations"])
            for value in (content, result)
        )
        assert ours == theirs


# ---------------------------------------------------------------------------------------------------- crowds


def with_crowds(*crowds):
    """`coco_content` whose annotations have these `iscrowd`."""
    content = coco_content()
    for entry, crowd in zip(content["annotations"], crowds, strict=True):
        entry["iscrowd"] = crowd
    return content


def test_crowds_are_counted_aloud(tmp_path, caplog):
    path = write_json(tmp_path / "coco.json", with_crowds(1, 1, 0))
    result = converted(tmp_path, "coco", path)
    assert [entry["iscrowd"] for entry in result["annotations"]] == [1, 0]
    assert "1 of 2 tracks are crowds" in caplog.text and "--crowds_are_objects" in caplog.text


def test_crowds_are_objects_if_that_is_said(tmp_path, caplog):
    path = write_json(tmp_path / "coco.json", with_crowds(1, 1, 1))
    assert main(["coco", str(path), str(tmp_path / "out.json"), "--crowds_are_objects"]) == 0
    result = json.loads((tmp_path / "out.json").read_text())
    assert [entry["iscrowd"] for entry in result["annotations"]] == [0, 0]
    assert "2 of 2 tracks were crowds" in caplog.text
    # Formats without crowds leave them out, but not objects.
    convert("coco", path, tmp_path / "mots", "mots", crowds_are_objects=True)
    assert {file.name for file in (tmp_path / "mots").iterdir()} == {"v.txt", "w.txt", "labels.txt"}


def test_a_track_that_is_a_crowd_in_one_frame_is_an_object(tmp_path, caplog):
    result = converted(tmp_path, "coco", write_json(tmp_path / "coco.json", with_crowds(0, 1, 0)))
    assert [entry["iscrowd"] for entry in result["annotations"]] == [0, 0]
    assert "1 tracks are crowds (iscrowd 1) in some frames" in caplog.text


def test_without_crowds_nothing_is_said(tmp_path, caplog):
    result = converted(tmp_path, "coco", write_json(tmp_path / "coco.json", with_crowds(0, None, False)))
    assert areas(result) and "crowd" not in caplog.text


def test_a_crowd_that_is_neither_0_nor_1_is_refused(tmp_path, capsys):
    path = write_json(tmp_path / "coco.json", with_crowds(0, "0", 0))
    assert_refused(tmp_path, capsys, ["coco", path], path, "annotation 2: 'iscrowd' must be 0 or 1, not '0'")


def test_a_segmentation_may_be_a_triangle(tmp_path):
    result = converted(tmp_path, "coco", write_json(tmp_path / "coco.json", coco_content()))
    assert result["annotations"][0]["segmentations"][0] == TRIANGLE


@pytest.mark.parametrize("key", [7.0, "car 7", 0])
def test_a_track_may_have_any_name_that_tells_it_apart(tmp_path, key):
    content = coco_of(({"file_name": "a/0.jpg"}, 1), ({"file_name": "a/1.jpg"}, 2))
    for entry in content["annotations"]:
        del entry["instance_id"]
        entry["attributes"] = {"track_id": key}
    assert seen(converted(tmp_path, "coco", write_json(tmp_path / "coco.json", content))) == [
        {"a/0.jpg": 1, "a/1.jpg": 2}
    ]


@pytest.mark.parametrize(
    ("name", "value"), [("track_id", True), ("track_id", 1.5), ("track_id", [1]), ("iscrowd", []), ("iscrowd", "1")]
)
def test_values_of_the_wrong_kind_are_refused_by_name(tmp_path, capsys, name, value):
    content = coco_of(({"file_name": "a/0.jpg"}, 1))
    content["annotations"][0][name] = value
    path = write_json(tmp_path / "coco.json", content)
    assert_refused(tmp_path, capsys, ["coco", path], path, name)


def test_numbers_of_frames_order_a_folder_without_video_ids(tmp_path):
    content = coco_of(
        *(({"file_name": f"a/{name}.jpg", "frame_id": 2 - place}, place) for place, name in enumerate("xyz"))
    )
    assert [
        list(video) for video in seen(converted(tmp_path, "coco", write_json(tmp_path / "coco.json", content)))
    ] == [["a/z.jpg", "a/y.jpg", "a/x.jpg"]]


@pytest.mark.parametrize("name", ["/data/a/0.jpg", "C:\\data\\a\\0.jpg", "\\\\server\\a\\0.jpg", "../a/0.jpg"])
def test_pictures_that_nothing_will_read_are_reported(tmp_path, caplog, name):
    content = coco_of(({"file_name": name}, 1))
    converted(tmp_path, "coco", write_json(tmp_path / "coco.json", content))
    assert "1 pictures" in caplog.text and "are outside every folder of frames" in caplog.text


def test_a_picture_that_is_two_frames_is_reported(tmp_path, caplog):
    content = coco_of(({"file_name": "a/0.jpg"}, 1), ({"file_name": "a/0.jpg"}, 2))
    converted(tmp_path, "coco", write_json(tmp_path / "coco.json", content))
    assert "a: the picture a/0.jpg is 2 of its frames" in caplog.text
