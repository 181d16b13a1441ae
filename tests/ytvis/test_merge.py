import json

import pytest

from ytvis.__main__ import main
from ytvis.annotations import read_annotations
from ytvis.check import examine_annotations
from ytvis.score import evaluate_results

LEFT = {"size": [4, 6], "counts": [0, 12, 12]}


def content(folder, classes, video_ids=(1, 2)):
    """Videos of one frame in `folder`, each with a track of the left half, of the first class."""
    return {
        "info": {"description": folder},
        "videos": [{"id": i, "width": 6, "height": 4, "file_names": [f"{folder}/{i}.png"]} for i in video_ids],
        "categories": [{"id": 10 * place, "name": name} for place, name in enumerate(classes, 1)],
        "annotations": [
            {"id": i, "video_id": i, "category_id": 10, "iscrowd": 0, "segmentations": [LEFT], "areas": [12]}
            for i in video_ids
        ],
    }


@pytest.fixture
def merged(tmp_path, capsys):
    """A function that merges contents and returns (exit code, stdout and stderr, the file)."""

    def run(*contents, options=()):
        paths = []
        for number, value in enumerate(contents):
            paths.append(tmp_path / f"{number}.json")
            paths[-1].write_text(json.dumps(value))
        code = main(["merge", *map(str, paths), str(tmp_path / "out.json"), *options])
        printed = capsys.readouterr()
        return code, printed.out + printed.err, tmp_path / "out.json"

    return run


def test_classes_are_joined_by_name_and_ids_numbered_on(merged):
    code, printed, path = merged(
        content("a", ["polar bear", "dog"]), content("b", ["Dog", "cat", "Polar_Bear"], (2, 9))
    )
    assert code == 0 and printed == f"{path}: 4 videos, 4 annotations, classes: polar bear, dog, cat\n"
    joined = read_annotations(path)
    assert joined.categories == {10: "polar bear", 20: "dog", 21: "cat"}
    assert [(video.video_id, video.file_names) for video in joined.videos.values()] == [
        (1, ("a/1.png",)),
        (2, ("a/2.png",)),
        (3, ("b/2.png",)),
        (4, ("b/9.png",)),
    ]
    assert [(track.annotation_id, track.video_id, track.category_id) for track in joined.tracks] == [
        (1, 1, 10),
        (2, 2, 10),
        (3, 3, 20),
        (4, 4, 20),
    ]
    assert json.loads(path.read_text())["info"] == {"description": "a"}
    assert all(diagnostic.severity == "warning" for diagnostic in examine_annotations(path)[0])
    found = [{"video_id": 3, "category_id": 20, "score": 0.5, "segmentations": [LEFT]}]
    assert evaluate_results(path, found).per_category["dog"]["AR1"] == 0.5


def test_several_files_with_the_same_frames_are_kept_apart_by_folders(merged):
    same = content("a", ["dog"])
    code, printed, _ = merged(same, same, same)
    assert code == 2 and "names the frame a/1.png, and so does" in printed and "--prefixes" in printed
    code, _, path = merged(same, same, same, options=["--prefixes", "x", "y/", "z/w"])
    assert code == 0
    names = [video.file_names[0] for video in read_annotations(path).videos.values()]
    assert names == ["x/a/1.png", "x/a/2.png", "y/a/1.png", "y/a/2.png", "z/w/a/1.png", "z/w/a/2.png"]


def coco(names):
    return {
        "images": [{"id": i, "width": 6, "height": 4, "file_name": name} for i, name in enumerate(names, 5)],
        "categories": [{"id": 1, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 1, "segmentation": [[0, 0, 3, 0, 3, 4, 0, 4]]}],
    }


def test_coco_files_give_a_coco_file_and_with_videos_a_file_of_videos(merged):
    code, _, path = merged(coco(["a.png"]), coco(["b.png", "c.png"]))
    joined = json.loads(path.read_text())
    assert code == 0 and [image["file_name"] for image in joined["images"]] == ["a.png", "b.png", "c.png"]
    assert joined["annotations"][1] == {**coco([])["annotations"][0], "id": 2, "image_id": 6}
    code, _, path = merged(coco(["a.png"]), content("b", ["dog"]))
    joined = read_annotations(path)
    assert code == 0 and not joined.is_static and len(joined.videos) == len(joined.tracks) == 3
    assert joined.videos[5].file_names == ("a.png",) and joined.categories == {1: "dog"}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({**content("b", ["dog"]), "annotations": None}, "1.json: has no annotations, and"),
        (content("b", ["dog", "Dog"]), "1.json: two categories have the name 'Dog'"),
        ({**content("b", ["dog"]), "videos": []}, "1.json: 'videos' must be a list"),
        ({**content("b", ["dog"]), "categories": [{"id": 3, "name": "dog"}]}, "category that is not in the file: 10"),
        ([], "1.json: must hold an object"),
    ],
)
def test_what_contradicts_is_refused_and_nothing_written(merged, other, message):
    code, printed, path = merged(content("a", ["dog"]), other)
    assert code == 2 and message in printed and printed.count("\n") == 1 and not path.exists()


def test_without_annotations_in_any_file_there_are_none(merged):
    one, two = ({**content(name, ["dog"]), "annotations": None} for name in "ab")
    code, _, path = merged(one, two)
    assert code == 0 and read_annotations(path).tracks is None


def test_the_command_line_is_checked(merged, tmp_path, capsys):
    assert merged(content("a", ["dog"]))[0] == 2
    assert (
        "a folder for each of the 2 files, not 1"
        in merged(*[content("a", ["dog"])] * 2, options=["--prefixes", "x"])[1]
    )
    path = str(tmp_path / "0.json")
    assert main(["merge", path, path, str(tmp_path / "out.json")]) == 2
    assert "must be different" in capsys.readouterr().err


def test_ids_that_leave_no_room_are_refused(merged):
    code, printed, path = merged(content("a", ["dog"], (2**63 - 2,)), content("b", ["dog"]))
    assert code == 2 and "leaves no numbers after it" in printed and not path.exists()


def test_files_that_list_images_beside_videos_are_files_of_videos(merged):
    values = [{**content(folder, ["dog"]), "images": [{"id": 1, "file_name": "x.png"}]} for folder in "ab"]
    code, printed, path = merged(*values)
    assert code == 0 and "4 videos, 4 annotations" in printed and len(read_annotations(path).videos) == 4
