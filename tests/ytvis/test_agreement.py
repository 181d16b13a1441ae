"""The checker, training and scoring accept the same files, shown on files changed at random."""

import copy
import json
import random
from collections import Counter

import pytest

from data.dataset import YTVISDataset
from ytvis.annotations import read_class_names
from ytvis.check import examine_annotations
from ytvis.check_results import examine_results
from ytvis.diagnostics import exit_code
from ytvis.files import InputError
from ytvis.score import evaluate_results

RLE = {"size": [4, 6], "counts": "0h0"}
RUNS = {"size": [4, 6], "counts": [5, 2, 2, 2, 2, 2, 9]}
POLYGONS = [[1, 1, 4, 1, 4, 3, 1, 3], [0, 0, 2, 0, 2, 2]]

VIDEOS = {
    "videos": [
        {"id": 7, "width": 6, "height": 4, "length": 2, "file_names": ["a/0.png", "a/1.png"]},
        {"id": 2, "width": 6, "height": 4, "file_names": ["b/0.png"]},
    ],
    "categories": [{"id": 5, "name": "square"}, {"id": 17, "name": "circle"}],
    "annotations": [
        {
            "id": 31,
            "video_id": 7,
            "category_id": 17,
            "iscrowd": 0,
            "segmentations": [RUNS, POLYGONS],
            "bboxes": [[1, 1, 3, 2], [0, 0, 4, 3]],
            "areas": [6, 8],
        },
        {"id": 32, "video_id": 7, "category_id": 5, "segmentations": [None, RLE], "areas": [None, 24.5]},
        {"id": 4, "video_id": 2, "category_id": 5, "iscrowd": 1, "segmentations": [RLE]},
    ],
}
IMAGES = {
    "images": [{"id": i, "width": 6, "height": 4, "file_name": f"{i}.jpg"} for i in (9, 25)],
    "categories": VIDEOS["categories"],
    "annotations": [
        {"id": 1, "image_id": 9, "category_id": 5, "segmentation": POLYGONS, "bbox": [0, 0, 4, 3], "area": 8},
        {"id": 2, "image_id": 9, "category_id": 17, "segmentation": RUNS, "iscrowd": 1},
    ],
}
RESULTS = [
    {"video_id": 7, "category_id": 5, "score": 0.5, "segmentations": [RLE, None]},
    {"video_id": 7, "category_id": 17, "score": 0.25, "segmentations": [RUNS, POLYGONS], "scores": [0.5, None]},
    {"video_id": 2, "category_id": 5, "score": 1, "segmentations": [RLE]},
]

# Replacements for any value.
VALUES = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    5,
    7,
    0.5,
    "",
    "7",
    "a\nb",
    "\ud800",
    "a\0",
    [],
    {},
    [[]],
    [None],
    {"size": [4, 6]},
)
NUMBERS = (float("nan"), float("inf"), -1e400, 1e30, 10**400, 2**63, 2**31, 10**9, -5, 1.0)
RLES = (
    {"size": [6, 4], "counts": "0h0"},
    {"size": [4, 6], "counts": "b'0h0'"},
    {"size": [4, 6], "counts": "P"},
    {"size": [4, 6], "counts": [24, -1, 1]},
    {"size": [10**9, 10**9], "counts": [10**18]},
    {"size": ["4", 6], "counts": "0h0"},
    [[1, 1, 2, 2]],
    [[1, 1, 4, 1, 4, "3"]],
    [[1, 1, 4, 1, 1e9, 3]],
    [1, 1, 4, 1, 4, 3],
)


def places(value, path=()):
    """The paths of everything in `value`."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def nudges(value):
    """Values like `value`."""
    if isinstance(value, str):
        return [value + "x", value.upper(), value.replace("/", "\\"), value + value]
    if isinstance(value, list):
        return [value[:-1], [*value, None], value[::-1], [None] * len(value)]
    return [value + 1, value - 1, value + 0.5, value * 2, float(value)]


def mutated(content, rng):
    """A copy of `content` with one or two changes."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 1, 2))):
        path = rng.choice([path for path in places(content) if path])
        holder = content
        for key in path[:-1]:
            holder = holder[key]
        old = holder[path[-1]]
        change = rng.choice(("drop", "nudge", "nudge", "nudge", "replace", "replace", "retype", "repeat", "rename"))
        if change == "drop":
            del holder[path[-1]]
        elif change == "nudge" and isinstance(old, int | float | str | list):
            holder[path[-1]] = rng.choice(nudges(old))
        elif change == "retype":
            holder[path[-1]] = rng.choice((str(old), [old], {"a": old}, repr(old)))
        elif change == "repeat" and isinstance(holder, list):
            holder.insert(path[-1], copy.deepcopy(old))
        elif change == "rename" and isinstance(holder, dict):
            holder[rng.choice(list(holder))] = holder.pop(path[-1])
        else:
            holder[path[-1]] = copy.deepcopy(rng.choice(rng.choice((VALUES, NUMBERS, RLES))))
    return content


def accepts(function) -> bool:
    """Whether `function()` raises no InputError; any other exception fails the test."""
    try:
        return function() is not False
    except InputError as error:
        assert "\n" not in str(error)
        str(error).encode("utf-8")
        return False


def train_on(path, folder):
    dataset = YTVISDataset(path, folder, read_class_names(path))
    for video in dataset.videos:
        for frame in range(len(video)):
            dataset.frame_annotations(video.video_id, frame)


def check(path):
    found, summary = examine_annotations(path)
    "\n".join([*map(str, found), str(summary)]).encode("utf-8")
    return exit_code(found) == 0


def check_results(truth, path):
    found = examine_results(truth, path)
    "\n".join(map(str, found)).encode("utf-8")
    return exit_code(found) == 0


@pytest.mark.parametrize("base", [VIDEOS, IMAGES], ids=["videos", "images"])
def test_annotation_files_are_accepted_by_all_or_by_none(tmp_path, base):
    rng = random.Random(len(base["annotations"]))
    path = tmp_path / "annotations.json"
    verdicts = Counter()
    for _ in range(300):
        content = mutated(base, rng)
        path.write_text(json.dumps(content))
        checked, trained = accepts(lambda: check(path)), accepts(lambda: train_on(path, tmp_path))
        assert checked == trained, content
        if content.get("annotations") is not None:  # without any there is nothing to score
            assert accepts(lambda: evaluate_results(path, [])) == checked, content
        verdicts[checked] += 1
    assert min(verdicts.values()) > 40


def test_results_files_are_accepted_by_the_checker_and_the_scorer_or_by_neither(tmp_path):
    rng = random.Random(1)
    truth, path = tmp_path / "annotations.json", tmp_path / "results.json"
    truth.write_text(json.dumps(VIDEOS))
    verdicts = Counter()
    for _ in range(300):
        results = mutated(RESULTS, rng)
        path.write_text(json.dumps(results))
        checked = accepts(lambda: check_results(truth, path))
        assert accepts(lambda: evaluate_results(truth, path)) == checked, results
        verdicts[checked] += 1
    assert min(verdicts.values()) > 40
