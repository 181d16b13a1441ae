"""CVAT's exports: frames of the source video, several tasks, shapes of every kind, hostile files."""

import json

import cv2
import numpy as np
import pytest

from tests.ytvis.convert.test_convert import HW, areas, assert_refused, converted, cvat_shape, cvat_track, write_image
from ytvis.masks import decode_mask, to_rle

SIZE = "<original_size><width>8</width><height>6</height></original_size>"


def task(size=4, start=None, stop=None, step=None, head="", original_size=SIZE):
    told = "" if start is None else f"<start_frame>{start}</start_frame><stop_frame>{stop}</stop_frame>"
    told += "" if step is None else f"<frame_filter>step={step}</frame_filter>"
    return f"<task>{head}<size>{size}</size>{told}{original_size}</task>"


def write_xml(path, meta, *content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotations><version>1.1</version><meta>{meta}</meta>{''.join(content)}</annotations>")
    return path


def moving_box(frames, task_id=None):
    """A track whose box, 2 pixels wide, begins at the frame's place modulo 6; and that place of each frame."""
    boxes = "".join(
        cvat_shape(frame, "box", xtl=place % 6, ytl=1, xbr=place % 6 + 2, ybr=3) for place, frame in enumerate(frames)
    )
    return cvat_track(boxes).replace("<track", f'<track task_id="{task_id}"' if task_id else "<track")


def draw(folder, names):
    """Pictures that show the box of `moving_box` in the frames of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        picture = np.zeros((*HW, 3), np.uint8)
        picture[1:3, place % 6 : place % 6 + 2] = 255
        cv2.imwrite(str(folder / name), picture)


def assert_on_their_pictures(result, images):
    """Every mask covers what its picture shows."""
    for entry in result["annotations"]:
        video = result["videos"][entry["video_id"] - 1]
        assert None not in entry["segmentations"]
        for name, segmentation in zip(video["file_names"], entry["segmentations"], strict=True):
            mask = decode_mask(to_rle(segmentation, *HW))
            np.testing.assert_array_equal(mask, cv2.imread(str(images / name))[..., 0] > 0, name)


@pytest.mark.parametrize("numbers", [range(2, 10), range(0, 35, 5), range(100, 108)])
@pytest.mark.parametrize("names", ["frame_{:06d}.png", "renumbered_{place}.png", "{letter}.png"])
def test_masks_are_on_the_pictures_of_their_frames(tmp_path, numbers, names):
    frames = list(numbers)
    path = write_xml(tmp_path / "clip.xml", task(len(frames), frames[0], frames[-1], numbers.step), moving_box(frames))
    names = [names.format(frame, place=place + 1, letter="abcdefgh"[place]) for place, frame in enumerate(frames)]
    draw(tmp_path / "images" / "clip", names)
    result = converted(tmp_path, "cvat", path, images=tmp_path / "images")
    assert result["videos"][0]["file_names"] == [f"clip/{name}" for name in names]
    assert_on_their_pictures(result, tmp_path / "images")


def test_without_pictures_the_names_are_those_of_cvat(tmp_path):
    path = write_xml(tmp_path / "clip.xml", task(3, 10, 20, 5), moving_box([10, 15]))
    result = converted(tmp_path, "cvat", path)
    assert result["videos"][0]["file_names"] == [f"clip/frame_0000{frame}.jpg" for frame in (10, 15, 20)]
    assert areas(result) == [("dog", [4, 4, None])]


def test_steps_of_the_source_are_no_gaps(tmp_path, caplog):
    path = write_xml(tmp_path / "clip.xml", task(3, 0, 10, 5), moving_box([0, 5, 10]))
    converted(tmp_path, "cvat", path)
    assert "not listed" not in caplog.text


def test_frames_counted_from_0_within_a_part_of_the_source_are_reported(tmp_path, caplog):
    path = write_xml(tmp_path / "clip.xml", task(3, 10, 12), moving_box([0, 1, 2]))
    draw(tmp_path / "images", [f"frame_{frame:06d}.png" for frame in (10, 11, 12)])
    assert_on_their_pictures(converted(tmp_path, "cvat", path, images=tmp_path / "images"), tmp_path / "images")
    assert "count the frames from 0" in caplog.text


def test_pictures_sorted_as_text_are_asked_for(tmp_path, capsys):
    path = write_xml(tmp_path / "clip.xml", task(12), moving_box(range(12)))
    names = sorted(f"{number}.png" for number in range(1, 13))
    draw(tmp_path / "images", names)
    line = ["cvat", path, "--images", tmp_path / "images"]
    assert_refused(tmp_path, capsys, line, path, "pass --order text or --order number")
    result = converted(tmp_path, "cvat", path, images=tmp_path / "images", order="text")
    assert result["videos"][0]["file_names"] == names
    assert_on_their_pictures(result, tmp_path / "images")


@pytest.mark.parametrize("pictures", [3, 5])
def test_counts_and_sizes_that_do_not_fit_are_refused(tmp_path, capsys, pictures):
    path = write_xml(tmp_path / "clip.xml", task(4), moving_box(range(4)))
    draw(tmp_path / "images", [f"{number}.png" for number in range(1, pictures + 1)])
    line = ["cvat", path, "--images", tmp_path / "images"]
    assert_refused(tmp_path, capsys, line, path, f"has 4 frames, 0…3, but there are {pictures} pictures")
    draw(tmp_path / "other" / "clip", ["0.png", "1.png", "2.png"])
    write_image(tmp_path / "other" / "clip" / "3.png", (7, 8))
    line = ["cvat", path, "--images", tmp_path / "other"]
    assert_refused(tmp_path, capsys, line, path, "its masks are of 8×6")


# ---------------------------------------------------------------------------------------------------- projects


def project(*tasks):
    return f"<project><id>1</id><name>p</name><tasks>{''.join(tasks)}</tasks></project>"


@pytest.mark.parametrize("second", [[0, 1], [2, 3]])  # counted in each task, or through all tasks
def test_tasks_of_a_project_are_videos(tmp_path, second):
    square = "<original_size><width>7</width><height>7</height></original_size>"
    meta = project(
        task(2, 0, 1, head="<id>10</id><name>a</name>"),
        task(2, 0, 1, head="<id>11</id><name>day 1/b.mp4</name>", original_size=square),
    )
    path = write_xml(tmp_path / "p.xml", meta, moving_box([0, 1], "10"), moving_box(second, "11"))
    result = converted(tmp_path, "cvat", path)
    assert [(video["file_names"][0], video["width"], video["height"]) for video in result["videos"]] == [
        ("a/frame_000000.jpg", 8, 6),
        ("day 1_b.mp4/frame_000000.jpg", 7, 7),
    ]
    assert [(entry["video_id"], entry["areas"]) for entry in result["annotations"]] == [(1, [4, 4]), (2, [4, 4])]


def test_the_size_may_be_told_beside_the_task_but_only_of_one(tmp_path, capsys):
    path = write_xml(tmp_path / "clip.xml", f"<job><size>2</size></job>{SIZE}", moving_box([0, 1]))
    assert areas(converted(tmp_path, "cvat", path)) == [("dog", [4, 4])]
    (tmp_path / "converted.json").unlink()
    meta = project(task(2, head="<id>1</id><name>a</name>"), task(2, head="<id>2</id>", original_size=""))
    write_xml(path, meta, moving_box([0, 1], "1"), moving_box([0, 1], "2"))
    assert_refused(tmp_path, capsys, ["cvat", path], path, "lacks the original_size of a video")


def test_a_project_whose_tracks_cannot_be_told_apart_is_to_be_exported_task_by_task(tmp_path, capsys):
    heads = [f"<id>{number}</id><name>a</name>" for number in (10, 11)]
    meta = project(*(task(2, 0, 1, head=head) for head in heads))
    path = write_xml(tmp_path / "p.xml", meta, moving_box([0, 1], "10"))
    assert_refused(tmp_path, capsys, ["cvat", path], path, "two tasks are named 'a'; export them task by task")
    meta = meta.replace("<name>a</name>", "<name>b</name>", 1)
    for number in (None, "12"):
        write_xml(path, meta, moving_box([0, 1], number))
        assert_refused(tmp_path, capsys, ["cvat", path], path, "of none of the 2 tasks; export the project task by")
    write_xml(path, meta, moving_box([7], "10"))
    assert_refused(tmp_path, capsys, ["cvat", path], path, "none of the frames of its video, 0…1, 0…1; export the")


# ---------------------------------------------------------------------------------------------------- shapes


def test_rotated_boxes_and_ellipses_are_polygons(tmp_path):
    tracks = [
        cvat_track(cvat_shape(0, "box", xtl=1, ytl=2, xbr=5, ybr=4, rotation="0.00"), label="upright"),
        cvat_track(cvat_shape(0, "box", xtl=1, ytl=1, xbr=5, ybr=3, rotation="90.0"), number=1, label="turned"),
        cvat_track(cvat_shape(0, "ellipse", cx=4, cy=3, rx=3, ry=2), number=2, label="wide"),
        cvat_track(cvat_shape(0, "ellipse", cx=4, cy=3, rx=3, ry=2, rotation=90), number=3, label="high"),
    ]
    result = converted(tmp_path, "cvat", write_xml(tmp_path / "clip.xml", task(1), *tracks))
    boxes = {
        result["categories"][entry["category_id"] - 1]["name"]: entry["bboxes"][0] for entry in result["annotations"]
    }
    assert boxes == {"upright": [1, 2, 4, 2], "turned": [2, 0, 2, 4], "wide": [1, 1, 6, 4], "high": [2, 0, 4, 6]}
    assert 14 <= dict(areas(result))["wide"][0] <= 22  # of π · 3 · 2


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("polyline", "a polyline is not an area; delete it, or draw a polygon or a mask"),
        ("points", "points is not an area"),
        ("cuboid", "a cuboid is a solid"),
        ("skeleton", "a skeleton consists of points"),
        ("hexagon", "a hexagon is not supported"),
    ],
)
def test_shapes_that_are_no_areas_are_refused_by_name(tmp_path, capsys, kind, message):
    path = write_xml(tmp_path / "clip.xml", task(), cvat_track(cvat_shape(0), cvat_shape(1, kind)))
    assert_refused(tmp_path, capsys, ["cvat", path], path, message)


def test_tags_and_nested_tracks_are_refused_by_name(tmp_path, capsys):
    path = write_xml(tmp_path / "clip.xml", task(), '<tag frame="0" label="rain"/>')
    assert_refused(tmp_path, capsys, ["cvat", path], path, "a tag marks a frame and no object; delete it")
    write_xml(path, task(), cvat_track(cvat_track(cvat_shape(0, "points"))))
    assert_refused(tmp_path, capsys, ["cvat", path], path, "a skeleton consists of points")


# ---------------------------------------------------------------------------------------------------- hostile files


@pytest.mark.parametrize("frame", [10**9, 10**11, 10**17, 10**400, -1])
@pytest.mark.parametrize("meta", [task(), task(4, 0, 10**16), f"<task>{SIZE}</task>"])
def test_far_frames_are_refused_at_once(tmp_path, capsys, frame, meta):
    path = write_xml(tmp_path / "clip.xml", meta, cvat_track(cvat_shape(0), cvat_shape(frame)))
    assert_refused(tmp_path, capsys, ["cvat", path], path, "")
    draw(tmp_path / "images", ["0.png"])
    assert_refused(tmp_path, capsys, ["cvat", path, "--images", tmp_path / "images"], path, "")


@pytest.mark.parametrize(
    "shape",
    [
        cvat_shape(0, "mask", rle=f"0, {10**12}", left=0, top=0, width=10**6, height=10**6),
        cvat_shape(0, "mask", rle=f"{10**30}, {-(10**30) + 4}", left=0, top=0, width=2, height=2),
        cvat_shape(0, "mask", rle="9" * 5000, left=0, top=0, width=2, height=2),
        cvat_shape(0, "box", xtl="nan", ytl=0, xbr="inf", ybr=1),
        cvat_shape(0, "box", xtl=0, ytl=0, xbr=1, ybr=1, rotation="inf"),
        cvat_shape(0, "ellipse", cx=1e300, cy=1e300, rx=1e300, ry=1e300, rotation=1),
    ],
)
def test_shapes_beyond_all_bounds_are_refused(tmp_path, capsys, shape):
    path = write_xml(tmp_path / "clip.xml", task(), cvat_track(shape))
    assert_refused(tmp_path, capsys, ["cvat", path], path, "track 0, frame 0")


def test_entities_are_not_expanded(tmp_path, capsys):
    path = tmp_path / "clip.xml"
    entities = "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, 12))
    path.write_text(f'<!DOCTYPE annotations [<!ENTITY e0 "ha">{entities}]><annotations>&e11;</annotations>')
    assert_refused(tmp_path, capsys, ["cvat", path], path, "has a document type")
    path.write_text('<!DOCTYPE annotations SYSTEM "file:///etc/passwd"><annotations/>')
    assert_refused(tmp_path, capsys, ["cvat", path], path, "has a document type")


def test_another_encoding_is_read_and_an_unknown_one_refused(tmp_path, capsys):
    path = write_xml(tmp_path / "clip.xml", task(), cvat_track(cvat_shape(0), label="Füchse"))
    text = path.read_text()
    path.write_bytes(f'<?xml version="1.0" encoding="utf-16"?>{text}'.encode("utf-16"))
    assert json.dumps(converted(tmp_path, "cvat", path)["categories"], ensure_ascii=False).count("Füchse") == 1
    (tmp_path / "converted.json").unlink()
    path.write_text(f'<?xml version="1.0" encoding="klingon"?>{text}')
    assert_refused(tmp_path, capsys, ["cvat", path], path, "not an XML file")


@pytest.mark.parametrize(("outside", "is_seen"), [("0", True), ("False", True), ("1", False), ("True", False)])
def test_outside_may_be_told_in_words(tmp_path, outside, is_seen):
    track = moving_box([0, 1]).replace('outside="0"', f'outside="{outside}"', 1)
    (entry,) = converted(tmp_path, "cvat", write_xml(tmp_path / "clip.xml", task(2), track))["annotations"]
    assert [box is not None for box in entry["bboxes"]] == [is_seen, True]


def test_outside_that_is_no_truth_is_refused(tmp_path, capsys):
    track = moving_box([0]).replace('outside="0"', 'outside="2"')
    path = write_xml(tmp_path / "clip.xml", task(1), track)
    assert_refused(tmp_path, capsys, ["cvat", path], path, "outside must be true or false")


def test_all_files_of_a_folder_are_read_but_what_systems_leave(tmp_path):
    for name in ("a.xml", "B.XML"):
        write_xml(tmp_path / "s" / name, task(1), moving_box([0]))
    (tmp_path / "s" / "._a.xml").write_bytes(b"\0\5\x16\7")
    assert len(converted(tmp_path, "cvat", tmp_path / "s")["videos"]) == 2
