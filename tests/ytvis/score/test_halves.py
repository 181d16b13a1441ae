"""YouTube-VIS 2022: short and long videos, scored apart and as their mean."""

import json
from pathlib import Path

import pytest

from tests.ytvis.score.test_tracking import HEIGHT, WIDTH, A, B
from ytvis.__main__ import main
from ytvis.score import evaluate_results
from ytvis.score.halves import read_halves

SHORT, LONG = [A] * 5, [B] * 10


def annotations(*videos: tuple[int, str, list], with_truth: bool = True) -> dict:
    """One object a video; each is (id, name, masks)."""
    content = {
        "videos": [
            {
                **{"id": key, "height": HEIGHT, "width": WIDTH, "length": len(masks)},
                "file_names": [f"{name}/{frame}.jpg" for frame in range(len(masks))],
            }
            for key, name, masks in videos
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    if with_truth:
        content["annotations"] = [
            {**{"id": key, "video_id": key, "category_id": 1, "segmentations": masks}, "areas": [100] * len(masks)}
            for key, _, masks in videos
        ]
    return content


def found(video: int, masks: list) -> dict:
    return {"video_id": video, "category_id": 1, "score": 0.9, "segmentations": masks}


@pytest.fixture
def write(tmp_path):
    """Writes a file and returns its path."""

    def written(name: str, content) -> str:
        (tmp_path / name).write_text(json.dumps(content), "utf-8")
        return str(tmp_path / name)

    return written


def last_line(capsys) -> str:
    return capsys.readouterr().out.splitlines()[-1]


# Of the two short videos one is found (AP 50.5: 51 of 101 recalls), of the long video 8 of 10 frames (AP 70).
RIGHT = "AP_S 50.5, AP_L 70.0, mean 60.2"
SHORT_RESULTS, LONG_RESULTS = [found(1, SHORT)], [found(3, LONG[:8] + [None] * 2)]


def test_the_tracks_of_the_halves_keep_their_ids(write):
    short, long = write("short.json", annotations((1, "a", SHORT))), write("long.json", annotations((3, "c", LONG)))
    results = [found(1, SHORT) | {"track_id": 9}, found(3, LONG) | {"track_id": 9}, found(3, LONG) | {"track_id": "x"}]
    halves = read_halves(short, write("results.json", results), long)
    assert [[track["track_id"] for track in half.anns.values()] for _, half in halves] == [[9], [9, None]]


def test_two_files_and_one_results_file(write, capsys):
    short = write("short.json", annotations((1, "a", SHORT), (2, "b", SHORT)))
    long = write("long.json", annotations((3, "c", LONG)))
    results = write("results.json", SHORT_RESULTS + LONG_RESULTS)
    assert main(["score", short, results, "--long", long]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"short videos: {results} against {short}, 2 videos"
    assert f"long videos: {results} against {long}, 1 videos" in printed
    assert [line.split()[:2] for line in printed[-4:-1]] == [["short", "50.5"], ["long", "70.0"], ["mean", "60.2"]]
    assert printed[-1] == RIGHT
    alone = evaluate_results(json.loads(Path(short).read_text("utf-8")), SHORT_RESULTS).stats[0]
    assert alone == pytest.approx(51 / 101)


def test_a_file_with_all_videos_and_one_with_the_long_ones(write, capsys):
    both = write("both.json", annotations((1, "a", SHORT), (2, "b", SHORT), (3, "c", LONG)))
    long = write("long.json", annotations((3, "c", LONG)))
    results = write("results.json", SHORT_RESULTS + LONG_RESULTS)
    assert main(["score", both, results, "--long", long]) == 0
    assert last_line(capsys) == RIGHT
    assert main(["score", both, results, "--long", long, write("results_long.json", LONG_RESULTS)]) == 0
    assert last_line(capsys) == RIGHT


def test_files_that_number_their_videos_alike_need_a_results_file_each(write, capsys):
    short = write("short.json", annotations((1, "a", SHORT), (2, "b", SHORT)))
    long = write("long.json", annotations((1, "c", LONG)))
    results = write("results.json", SHORT_RESULTS)
    long_results = write("results_long.json", [{**LONG_RESULTS[0], "video_id": 1}])
    assert main(["score", short, results, "--long", long, long_results]) == 0
    assert last_line(capsys) == RIGHT
    assert main(["score", short, results, "--long", long]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"ytvis score: error: video 1 of {short} is not that of {long}") and error.count("\n") == 1


def test_other_scores_of_both_halves(write, capsys):
    short = write("short.json", annotations((1, "a", SHORT), (2, "b", SHORT)))
    long = write("long.json", annotations((3, "c", LONG)))
    results = write("results.json", SHORT_RESULTS + LONG_RESULTS)
    assert main(["score", short, results, "--long", long, "--boundary", "--class_agnostic"]) == 0
    printed = capsys.readouterr().out
    assert printed.count(RIGHT) == 2 and printed.count("any category") == 4


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--long", "{long}", "{results}", "{results}"], "not a third file"),
        (["--long", "{long}", "--max_videos=1"], "leave out --report, --compare and choices of videos"),
        (["--long", "{long}", "--report=out"], "leave out --report, --compare and choices of videos"),
        (["--long", "{short}"], "no short ones are left"),
        (["--long", "{empty}"], "has no annotations to compare with"),
        (["--long", "{short}"], "no short ones are left"),
        (["--long", "{long}", "{strange}"], "77"),
        (["--long", "{long}", "nowhere.json"], "nowhere.json: cannot be read"),
    ],
)
def test_what_cannot_be_scored_is_one_line(write, capsys, more, words):
    files = {
        "short": write("short.json", annotations((1, "a", SHORT))),
        "long": write("long.json", annotations((3, "c", LONG))),
        "empty": write("empty.json", annotations((3, "c", LONG), with_truth=False)),
        "results": write("results.json", SHORT_RESULTS),
        "strange": write("strange.json", [found(77, LONG)]),
    }
    assert main(["score", files["short"], files["results"], *(word.format(**files) for word in more)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ytvis score: error: ") and words in error and error.count("\n") == 1


def test_a_file_of_all_videos_without_truth_is_refused(write, capsys):
    both = write("both.json", annotations((1, "a", SHORT), (3, "c", LONG), with_truth=False))
    long, results = write("long.json", annotations((3, "c", LONG))), write("results.json", SHORT_RESULTS)
    assert main(["score", both, results, "--long", long]) == 2
    assert f"{both}: has no annotations to compare with" in capsys.readouterr().err
