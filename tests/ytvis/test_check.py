"""The annotation checker, on a file of two videos of 6×4 pixels with one kind of fault at a time."""

import copy
import json

import cv2
import numpy as np
import pytest

from tests.docs.pages import blocks
from tests.ytvis.rectangles import rectangle
from ytvis import annotations, check
from ytvis.__main__ import main as ytvis_main
from ytvis.annotations import read_class_names
from ytvis.check import Summary, examine_annotations
from ytvis.diagnostics import Rule
from ytvis.files import InputError, natural_key

RULES = {
    name: value for module in (annotations, check) for name, value in vars(module).items() if isinstance(value, Rule)
}
IMAGE_RULES = {"NO_IMAGE", "UNREADABLE_IMAGE", "IMAGE_SIZE"}


def main(arguments):
    """The exit code of `ytvis check` with these arguments."""
    return ytvis_main(["check", *arguments])


def rle(top, left, height, width, hw=(4, 6)):
    return rectangle(left, top, width, height, hw)


def content():
    """Two objects in a video of three frames; the second is a triangle and not seen at first. One in another video."""
    return {
        "videos": [
            {"id": 7, "width": 6, "height": 4, "length": 3, "file_names": ["a/9.png", "a/10.png", "a/11.png"]},
            {"id": 2, "width": 6, "height": 4, "file_names": ["b/0.png"]},
        ],
        "categories": [{"id": 20, "name": "dog"}, {"id": 10, "name": "cat"}, {"id": 30, "name": "owl"}],
        "annotations": [
            {
                "id": 1,
                "video_id": 7,
                "category_id": 20,
                "segmentations": [rle(0, 0, 2, 3), rle(1, 1, 2, 3), None],
                "bboxes": [[0, 0, 3, 2], [1, 1, 3, 2], None],
                "areas": [6, 6, None],
            },
            {
                "id": 2,
                "video_id": 7,
                "category_id": 10,
                "segmentations": [None, None, [[0, 0, 4, 0, 4, 4]]],
                "bboxes": [None, None, [0, 0, 4, 4]],
                "areas": [None, None, 8],
            },
            {
                "id": 3,
                "video_id": 2,
                "category_id": 10,
                "segmentations": [rle(0, 0, 1, 1)],
                "bboxes": [[0, 0, 1, 1]],
                "areas": [1],
            },
        ],
    }


def write(tmp_path, value):
    path = tmp_path / "ann.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def write_images(tmp_path):
    root = tmp_path / "frames"
    for name in ("a/9.png", "a/10.png", "a/11.png", "b/0.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), np.zeros((4, 6, 3), np.uint8))
    return root


def examine(tmp_path, value):
    return examine_annotations(write(tmp_path, value))[0]


def test_a_good_file_has_no_faults_and_is_summed_up(tmp_path):
    found, summary = examine_annotations(write(tmp_path, content()), write_images(tmp_path))
    assert found == []
    assert (summary.videos, summary.frames, summary.tracks, summary.masks) == (2, 4, 3, 4)
    assert summary.per_class == {"cat": 2, "dog": 1, "owl": 0}
    assert str(summary) == (
        "2 videos, 4 frames, 3 tracks, 4 masks\ntracks of 2 classes: cat 2, dog 1 and 1 without a track"
    )


# (the broken rule, the place that must be reported, the path of the changed value, its new value)
CASES = [
    ("NOT_AN_OBJECT", "video number 3", ("videos", 2), 5),
    ("NOT_AN_OBJECT", "annotation number 1", ("annotations", 0), "dog"),
    ("NULL_ANNOTATION", "annotation number 1", ("annotations", 0), None),
    ("BAD_ID", "video number 2", ("videos", 1, "id"), 2**63),
    ("BAD_NAME", "video 2", ("videos", 1, "file_names"), ["b/0\n.png"]),
    ("BAD_NAME", "category 20", ("categories", 0, "name"), "dog\ud800"),
    ("BAD_NAME", "category 20", ("categories", 0, "name"), "dog\0"),
    ("SAME_VIDEO", "video 7", ("videos", 1, "id"), 7),
    ("NO_SIZE", "video 2", ("videos", 1, "width"), 0),
    ("NO_SIZE", "video 2", ("videos", 1, "width"), 10**9),
    ("NO_FRAMES", "video 2", ("videos", 1, "file_names"), []),
    ("NO_FRAMES", "video 2", ("videos", 1, "file_names"), [3]),
    ("OTHER_LENGTH", "video 7", ("videos", 0, "length"), 4),
    ("FRAME_ORDER", "video 7", ("videos", 0, "file_names"), ["a/10.png", "a/11.png", "a/9.png"]),
    ("SAME_FRAME", "video 7", ("videos", 0, "file_names"), ["a/9.png", "a/9.png", "a/11.png"]),
    ("SAME_CATEGORY", "category 20", ("categories", 1, "id"), 20),
    ("NO_NAME", "category 30", ("categories", 2, "name"), " "),
    ("SAME_NAME", "category 30", ("categories", 2, "name"), "dog"),
    ("SAME_NAME", "category 30", ("categories", 2, "name"), "Dog "),
    ("NO_ANNOTATIONS", "the file", ("annotations",), None),
    ("NOT_A_LIST", "'annotations'", ("annotations",), {}),
    ("BAD_CROWD", "annotation 1", ("annotations", 0, "iscrowd"), "0"),
    ("BAD_CROWD", "annotation 1", ("annotations", 0, "iscrowd"), [0, 0, 0]),
    ("BAD_CROWD", "annotation 1", ("annotations", 0, "iscrowd"), 2),
    ("CROWD", "annotation 1", ("annotations", 0, "iscrowd"), 1),
    ("SAME_ANNOTATION", "annotation 1", ("annotations", 1, "id"), 1),
    ("UNKNOWN_VIDEO", "annotation 3", ("annotations", 2, "video_id"), 3),
    ("UNKNOWN_CATEGORY", "annotation 3", ("annotations", 2, "category_id"), 1),
    ("SHORT_LIST", "annotation 1", ("annotations", 0, "segmentations"), [rle(0, 0, 2, 3)]),
    ("LONG_LIST", "annotation 1", ("annotations", 0, "bboxes"), [None] * 4),
    ("NOT_A_LIST", "annotation 1", ("annotations", 0, "areas"), 6),
    ("NO_SEGMENTATIONS", "annotation 2", ("annotations", 1, "segmentations"), None),
    ("NO_AREAS", "annotation 2", ("annotations", 1, "areas"), None),
    ("NO_AREAS", "annotation 2", ("annotations", 1, "areas"), [None] * 3),
    ("BAD_AREA", "annotation 2, frame 2", ("annotations", 1, "areas", 2), "8"),
    ("BAD_AREA", "annotation 2, frame 2", ("annotations", 1, "areas", 2), -8),
    ("BAD_AREA", "annotation 2, frame 2", ("annotations", 1, "areas", 2), float("nan")),
    ("BAD_AREA", "annotation 2, frame 2", ("annotations", 1, "areas", 2), 10**400),
    ("BAD_AREA", "annotation 2, frame 2", ("annotations", 1, "areas", 2), True),
    ("NO_BOXES", "annotation 2", ("annotations", 1, "bboxes"), None),
    ("EMPTY_TRACK", "annotation 3", ("annotations", 2, "segmentations"), [None]),
    ("EMPTY_MASK", "annotation 1, frame 1", ("annotations", 0, "segmentations", 1), rle(0, 0, 0, 0)),
    ("UNREADABLE_MASK", "annotation 1, frame 1", ("annotations", 0, "segmentations", 1), [[1, 1, 2, 2]]),
    ("UNREADABLE_MASK", "annotation 1, frame 1", ("annotations", 0, "segmentations", 1), rle(0, 0, 2, 3, (6, 4))),
    ("UNREADABLE_MASK", "annotation 1, frame 1", ("annotations", 0, "segmentations", 1, "counts"), "b'00'"),
    ("UNREADABLE_MASK", "annotation 1, frame 1", ("annotations", 0, "segmentations", 1, "counts"), "23"),
    ("UNREADABLE_MASK", "annotation 2, frame 2", ("annotations", 1, "segmentations", 2), [[1, 2, "3", 4, 5, 6]]),
    (
        "UNREADABLE_MASK",
        "annotation 2, frame 2",
        ("annotations", 1, "segmentations", 2),
        [[1, 2, float("inf"), 4, 5, 6]],
    ),
    ("BAD_BOX", "annotation 1, frame 0", ("annotations", 0, "bboxes", 0), [1, 2, 3]),
    ("BAD_BOX", "annotation 1, frame 0", ("annotations", 0, "bboxes", 0), [1, 2, 3, float("nan")]),
    ("BOX_ALONE", "annotation 1, frame 2", ("annotations", 0, "bboxes", 2), [0, 0, 2, 2]),
    ("SMALL_BOX", "annotation 3, frame 0", ("annotations", 2, "bboxes", 0), [0, 0, 0.5, 1]),
    ("BOX_OUTSIDE", "annotation 1, frame 1", ("annotations", 0, "bboxes", 1), [1, 1, 3, 5]),
    ("BOX_NOT_MASK", "annotation 1, frame 0", ("annotations", 0, "bboxes", 0), [3, 0, 3, 2]),
    ("AREA_NOT_MASK", "annotation 1, frame 0", ("annotations", 0, "areas", 0), 60),
]


def changed(path, value):
    result = content()
    holder = result
    for key in path[:-1]:
        holder = holder[key]
    if isinstance(holder, list) and path[-1] == len(holder):
        holder.append(value)
    else:
        holder[path[-1]] = value
    return result


@pytest.mark.parametrize(("name", "where", "path", "value"), CASES)
def test_every_fault_is_named_with_its_place(tmp_path, name, where, path, value):
    rule = RULES[name]
    found = [f for f in examine(tmp_path, changed(path, value)) if f.what.startswith(rule.what)]
    assert [(f.severity, f.where, f.mend) for f in found] == [(rule.severity, where, rule.mend)]


def test_every_rule_has_a_case():
    assert {case[0] for case in CASES} | IMAGE_RULES | {"NOT_SEEN"} == set(RULES)


@pytest.mark.parametrize(
    ("noun", "path", "text"),
    [
        ("video", ("videos", 1, "id"), "video number 2: video without 'id', an integer"),
        ("video", ("videos", 1, "height"), "video 2: video without 'height', an integer"),
        ("video", ("videos", 1, "file_names"), "video 2: video without 'file_names', a list"),
        ("category", ("categories", 1, "id"), "category number 2: category without 'id', an integer"),
        ("category", ("categories", 1, "name"), "category 10: category without 'name', text"),
        ("annotation", ("annotations", 0, "id"), "annotation number 1: annotation without 'id', an integer"),
        ("annotation", ("annotations", 0, "video_id"), "annotation 1: annotation without 'video_id', an integer"),
        ("annotation", ("annotations", 0, "category_id"), "annotation 1: annotation without 'category_id', an integer"),
    ],
)
def test_missing_keys_and_wrong_types_are_named(tmp_path, noun, path, text):
    value = content()
    holder = value[path[0]][path[1]]
    del holder[path[2]]
    assert any(str(diagnostic).startswith(f"fault: {text}") for diagnostic in examine(tmp_path, value))
    holder[path[2]] = True
    (diagnostic,) = [f for f in examine(tmp_path, value) if f"{path[2]!r} that is not" in f.what]
    assert diagnostic.what.startswith(f"{noun} with") and diagnostic.what.endswith(": True")


def test_a_small_fault_stands_alone(tmp_path):
    """An entry is not reported because of a fault in another one."""
    assert len(examine(tmp_path, changed(("videos", 1, "width"), -1))) == 1  # its annotation has a known video
    assert len(examine(tmp_path, changed(("annotations", 0, "bboxes", 0), [1.5, 1, 3, 2.2]))) == 0  # within two pixels


def test_videos_without_annotations_are_one_warning(tmp_path):
    value = content()
    value["annotations"] = []
    (diagnostic,) = examine(tmp_path, value)
    assert (diagnostic.severity, diagnostic.where, diagnostic.count) == ("warning", "video 7", 2)
    assert diagnostic.what == check.NOT_SEEN.what


def test_images_are_looked_for_and_decoded(tmp_path):
    root = write_images(tmp_path)
    (root / "a/9.png").unlink()
    (root / "a/10.png").write_bytes(b"no picture")
    cv2.imwrite(str(root / "b/0.png"), np.zeros((6, 4, 3), np.uint8))
    found, _ = examine_annotations(write(tmp_path, content()), root)
    assert [(f.where, f.what.split(":")[0]) for f in found] == [
        ("video 7, a/9.png", check.NO_IMAGE.what),
        ("video 7, a/10.png", check.UNREADABLE_IMAGE.what),
        ("video 2, b/0.png", check.IMAGE_SIZE.what),
    ]
    assert "4×6 pixels, the annotation file says 6×4" in found[2].what
    (diagnostic,) = examine_annotations(write(tmp_path, content()), root, decode=False)[0]
    assert diagnostic.what.startswith(check.NO_IMAGE.what)


def test_a_coco_file_is_checked_as_videos_of_one_frame(tmp_path):
    value = {
        "images": [{"id": 1, "width": 6, "height": 4, "file_name": "x.png"}],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": rle(0, 0, 2, 3), "bbox": [0, 0, 3, 2], "area": 6}
        ],
    }
    found, summary = examine_annotations(write(tmp_path, value))
    assert found == [] and summary.per_class == {"dog": 1}
    broken = copy.deepcopy(value)
    broken["annotations"][0]["bbox"] = [0, 0, 9, 9]
    (diagnostic,) = examine(tmp_path, broken)
    assert diagnostic.what.startswith(annotations.BOX_OUTSIDE.what)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[1]", "must hold an object"),
        ('[{"video_id": 1, "score": 0.5}]', "not a list: it is a results file; --help says which file goes where"),
        ("{", "not a JSON file"),
        ({"videos": [], "categories": [{"id": 1, "name": "a"}]}, "'videos' must be a list"),
        ({"videos": content()["videos"]}, "'categories' must be a list"),
    ],
)
def test_what_cannot_be_checked_at_all_is_exit_code_2(tmp_path, capsys, value, message):
    path = write(tmp_path, value)
    assert main([str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ytvis check: error: {path}: ") and message in error and error.count("\n") == 1


def test_the_command_prints_faults_and_sums_and_exits_with_1(tmp_path, capsys):
    root = write_images(tmp_path)
    assert main([str(write(tmp_path, content())), "--images", str(root)]) == 0
    assert capsys.readouterr().out.startswith("nothing is wrong\n2 videos, 4 frames")
    (root / "b/0.png").write_bytes(b"")
    path = write(tmp_path, content())
    assert main([str(path), "--images", str(root), "--no_images"]) == 0
    assert main([str(path), "--images", str(root)]) == 1
    assert "fault: video 2, b/0.png: an image cannot be decoded" in capsys.readouterr().out
    assert main([str(path), "--images", str(tmp_path / "gone")]) == 2


def test_the_format_as_its_page_shows_it_is_faultless(tmp_path):
    (example,) = blocks("docs/data.md", "json")
    found, summary = examine_annotations(write(tmp_path, json.loads(example)))
    assert found == [] and (summary.videos, summary.frames, summary.masks) == (1, 2, 1)


def test_class_names_are_in_the_order_of_the_ids(tmp_path):
    assert read_class_names(write(tmp_path, content())) == ("cat", "dog", "owl")
    assert read_class_names(write(tmp_path, changed(("categories", 2, "name"), "dog"))) == ("cat", "dog", "dog (30)")
    with pytest.raises(InputError, match=r"ann\.json: category 30: a category has an empty name"):
        read_class_names(write(tmp_path, changed(("categories", 2, "name"), "")))


def test_of_many_classes_only_those_in_use_are_listed(tmp_path):
    value = content()
    value["categories"] += [{"id": 100 + number, "name": f"class {number}"} for number in range(51_000)]
    found, summary = examine_annotations(write(tmp_path, value))
    assert found == [] and str(summary).endswith("\ntracks of 2 classes: cat 2, dog 1 and 51001 without a track")


def test_crowds_are_counted(tmp_path):
    value = changed(("annotations", 1, "iscrowd"), 1)
    found, summary = examine_annotations(write(tmp_path, value))
    assert [(diagnostic.severity, diagnostic.where, diagnostic.count) for diagnostic in found] == [
        ("warning", "annotation 2", 1)
    ]
    assert "3 tracks (1 of them crowds), 4 masks" in str(summary)


@pytest.mark.parametrize("folder", [".", "elsewhere"])
def test_back_slashes_and_linked_folders_lead_to_the_frames(tmp_path, folder):
    root = write_images(tmp_path)
    if folder != ".":
        (root / "a").rename(tmp_path / folder)
        (root / "a").symlink_to(tmp_path / folder)
    value = content()
    for video in value["videos"]:
        video["file_names"] = [name.replace("/", "\\") for name in video["file_names"]]
    assert examine_annotations(write(tmp_path, value), root)[0] == []
    (root / "a\\9.png").write_bytes((root / "b/0.png").read_bytes())  # as some programs unpack archives made on Windows
    (root / "a").rename(tmp_path / "gone") if folder == "." else (root / "a").unlink()
    (diagnostic,) = examine_annotations(write(tmp_path, value), root)[0]
    assert (diagnostic.where, diagnostic.count) == ("video 7, a/10.png", 2)


@pytest.mark.parametrize("name", ["../frames/b/0.png", "/b/0.png", "b/../../frames/b/0.png", "..\\frames\\b\\0.png"])
def test_a_frame_out_of_the_folder_is_not_looked_at(tmp_path, name):
    root = write_images(tmp_path)
    name = str(root / "b/0.png") if name == "/b/0.png" else name
    (diagnostic,) = examine_annotations(write(tmp_path, changed(("videos", 1, "file_names"), [name])), root)[0]
    assert "is not within the folder of frames" in diagnostic.what or diagnostic.what.startswith(check.NO_IMAGE.what)
    assert diagnostic.severity == "fault"


def test_names_are_sorted_as_people_do():
    names = ["b1", "a10", "a9", "a", "10", "9x2", "9x10"]
    assert sorted(names, key=natural_key) == ["9x2", "9x10", "10", "a", "a9", "a10", "b1"]


def test_long_names_of_classes_are_shortened():
    summary = Summary(per_class={"x" * 100_000: 1, "dog": 2})
    assert len(str(summary)) < 300 and "dog 2" in str(summary)
