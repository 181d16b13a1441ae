"""The commands `python -m ytvis score`, `compare`, `report` and `check` of results."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ytvis.rectangles import rectangle
from ytvis.__main__ import main
from ytvis.score.command import COMPARED
from ytvis.score.tracking import evaluate_tracking

ROOT = Path(__file__).parents[3]
SMALL = ROOT / "tests" / "fixtures" / "evaluator" / "open" / "small"


def arguments(mode: str, truth: Path, found: Path, *more: str) -> list[str]:
    """The command line that scores (or, with `mode` "check", checks) results."""
    files = [found, f"--ann_file={truth}"] if mode == "check" else [truth, found]
    return [mode, *map(str, files), *map(str, more)]


def table_of(text: str) -> dict[str, list[str]]:
    """The first numbers of the lines of a table of scores, by the line's name."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if re.match(r"\w+ +[\d-]", line)}


def one_error(capsys) -> str:
    """The printed error, which must be one line and nothing else."""
    printed = capsys.readouterr()
    assert printed.out == "" and re.match("ytvis (score|check): error: ", printed.err) and printed.err.count("\n") == 1
    return printed.err


# ---------------------------------------------------------------------------------------------------------- scores


def test_the_command_alone_prints_the_recorded_numbers():
    line = arguments("score", SMALL / "gt.json", SMALL / "pred.json")
    done = subprocess.run([sys.executable, "-m", "ytvis", *line], cwd=ROOT, capture_output=True, text=True, check=True)
    stats = json.loads((SMALL / "golden.json").read_text("utf-8"))["runs"][0]["stats"]
    assert table_of(done.stdout)["all"] == ["-" if value < 0 else f"{100 * value:.1f}" for value in stats.values()]
    assert "\ntracks with a score of at least 0.3 (--track_score_threshold): HOTA " in done.stdout


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory as Linux reports it")
def test_the_command_alone_needs_little(files):
    program = f"""
import re, sys
from pathlib import Path
from ytvis.__main__ import main
main({arguments("score", *files)})
print(sorted({{"torch", "cv2", "matplotlib", "jinja2", "scipy"}} & set(sys.modules)), file=sys.stderr)
print(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    heavy, kilobytes = done.stderr.splitlines()
    assert heavy == "[]" and int(kilobytes) < 150_000


@pytest.mark.parametrize(("option", "threshold"), [([], 0.3), (["--track_score_threshold=0"], 0)])
def test_which_tracks_count_can_be_chosen_and_is_said(files, tmp_path, capsys, option, threshold):
    line = arguments("score", *files, f"--report={tmp_path / 'out'}", *option)
    assert main(line) == 0
    expected = evaluate_tracking(*map(str, files), threshold).overall()
    hota = f"HOTA {100 * expected['HOTA']:.1f}, "
    assert f"at least {threshold:g} (--track_score_threshold): {hota}" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))
    assert metrics["tracking_threshold"] == threshold
    assert metrics["scores"]["HOTA"]["value"] == pytest.approx(expected["HOTA"], abs=1e-12)
    assert f"tracks with a score of at least {threshold:.3g}," in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert f"score of at least {threshold:.3g}" in (tmp_path / "out" / "metrics.md").read_text("utf-8")


def test_the_threshold_decides(files):
    assert evaluate_tracking(*map(str, files), 0).overall() != evaluate_tracking(*map(str, files), 0.3).overall()


def test_the_report_is_written_with_the_frames(files, tmp_path, capsys):
    out = tmp_path / "out"
    line = arguments("score", *files, f"--report={out}", f"--images={tmp_path / 'frames'}")
    assert main(line) == 0
    assert capsys.readouterr().out.endswith(f"report: {out / 'report.html'}\n")
    assert sorted(path.name for path in out.iterdir()) == ["metrics.json", "metrics.md", "report.html"]
    assert main([*line[:-1], f"--images={tmp_path / 'nowhere'}"]) == 2
    assert "nowhere: no such folder of frames" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ comparison


def test_a_file_is_no_better_than_itself(many, capsys):
    assert main(arguments("score", *many, f"--compare={many[1]}")) == 0
    lines = capsys.readouterr().out.split(f"{many[1]} against {many[1]}:\n")[1].splitlines()
    names = [line.split()[0] for line in lines]
    assert names == list(COMPARED)
    assert all("+0.0 (95 % interval +0.0 to +0.0): noise, on these 20 videos" in line for line in lines)


def test_objects_that_return_are_scored_and_compared_apart(tmp_path, capsys):
    """An object of two videos is seen in frames 0 and 12; one results file gives it another id then."""
    mask = rectangle(1, 1, 4, 4, (12, 12))
    shown = [mask if frame in (0, 12) else None for frame in range(13)]
    video = {"height": 12, "width": 12, "length": 13, "file_names": [str(frame) for frame in range(13)]}
    truths = [
        {"id": number, "video_id": number, "category_id": 1, "iscrowd": 0, "segmentations": shown}
        | {"areas": [mask and 16.0 for mask in shown], "bboxes": [mask and [1, 1, 4, 4] for mask in shown]}
        for number in (1, 2)
    ]
    categories = [{"id": 1, "name": "thing"}]
    content = {"videos": [{"id": id_, **video} for id_ in (1, 2)], "categories": categories, "annotations": truths}
    whole, parts = (
        [
            {"video_id": number, "category_id": 1, "score": 0.9, "segmentations": masks}
            for number in (1, 2)
            for masks in tracks
        ]
        for tracks in ([shown], [[mask], [None, *shown[1:]]])
    )
    for name, written in (("gt", content), ("whole", whole), ("parts", parts)):
        (tmp_path / f"{name}.json").write_text(json.dumps(written), "utf-8")
    line = arguments("score", tmp_path / "gt.json", tmp_path / "parts.json", f"--compare={tmp_path / 'whole.json'}")
    assert main(line) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "2 objects that return after more than 10 frames: HOTA 70.7, AssA 50.0" in printed
    assert [text.split(" (")[0] for text in printed[-2:]] == [
        "HOTA of objects that return after more than 10 frames -29.3",
        "AssA of objects that return after more than 10 frames -50.0",
    ]


def test_a_better_file_is_better(many, tmp_path, capsys):
    worse = tmp_path / "worse.json"
    tracks = json.loads(many[1].read_text("utf-8"))
    worse.write_text(json.dumps([track for track in tracks if track["video_id"] % 2]), "utf-8")  # half of the videos
    assert main(arguments("score", *many, f"--compare={worse}")) == 0
    better = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("AR10 +"))
    assert "more than the choice of videos explains" in better


# ----------------------------------------------------------------------------------------------------- which videos


def test_the_last_tenth_is_scored_alone(many, tmp_path, capsys):
    truth, found = many
    written = tmp_path / "ids.txt"
    line = arguments("score", truth, found)
    assert main([*line, "--split=valid_sub", f"--write_video_ids={written}"]) == 0
    tenth = capsys.readouterr().out
    assert written.read_text().split() == ["119", "120"]
    assert main([*line, f"--video_ids={written}"]) == 0
    assert capsys.readouterr().out == tenth
    # The results of the other videos may be left out as well.
    tracks = [track for track in json.loads(found.read_text("utf-8")) if track["video_id"] > 118]
    found.write_text(json.dumps(tracks), "utf-8")
    assert main([*line, "--split=valid_sub"]) == 0
    assert capsys.readouterr().out == tenth
    assert main([*line, "--split=train_sub", "--track_score_threshold=0"]) == 0
    assert table_of(capsys.readouterr().out)["all"][0] == "0.0"


def test_the_first_videos_are_scored_alone(many, capsys):
    assert main(arguments("score", *many)) == 0
    whole = capsys.readouterr().out
    assert main(arguments("score", *many, "--max_videos=1")) == 0
    assert capsys.readouterr().out != whole


def test_ids_that_are_not_there_are_refused(files, tmp_path, capsys):
    (tmp_path / "ids.txt").write_text("1\n77\n")
    assert main(arguments("score", *files, f"--video_ids={tmp_path / 'ids.txt'}")) == 2
    assert f"{tmp_path / 'ids.txt'}, line 2: video 77 is not in" in one_error(capsys)


# ------------------------------------------------------------------------------------------------------ examination


def test_the_scores_and_shifts_of_frames_are_passed_over(files, capsys):
    def printed():
        for mode in ("score", "check"):
            assert main(arguments(mode, *files)) == 0
        return capsys.readouterr().out

    before = printed()
    tracks = json.loads(files[1].read_text("utf-8"))
    for track in tracks:
        length = len(track["segmentations"])
        track |= {"scores": [None, *[0.01] * (length - 1)], "shifted": [True] * length}
    files[1].write_text(json.dumps(tracks), "utf-8")
    assert printed() == before


def test_good_results_are_accepted(files, capsys):
    assert main(arguments("check", *files)) == 0
    assert capsys.readouterr().out == "nothing is wrong\n"


def test_bad_results_are_refused_a_line_each(files, capsys):
    truth, found = files
    tracks = json.loads(found.read_text("utf-8"))
    tracks[0]["video_id"], tracks[1]["segmentations"] = 9, tracks[1]["segmentations"][:-1]
    found.write_text(json.dumps(tracks), "utf-8")
    assert main(arguments("check", truth, found)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("refused: entry 0: unknown video: 9; ")
    assert lines[1].startswith("warning: entry 1 (video 1): 'segmentations' is not as long as the video: ")
    assert lines[2:] == ["1 refused, 1 warning"]


# -------------------------------------------------------------------------------------------------------- bad input

GOOD_MASK = {"size": [40, 60], "counts": [2400]}
ENTRY = {"video_id": 1, "category_id": 1, "score": 0.5, "segmentations": [GOOD_MASK]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{broken", "must be a list"),
        ('[{"video_id": 1, "score', "not a JSON file"),
        ('{"results": []}', "must be a list"),
        ("[[]]", "entry 0: an entry is not an object: []"),
        ("[3]", "entry 0: an entry is not an object: 3"),
        (json.dumps([{**ENTRY, "video_id": 5}]), "entry 0: unknown video: 5"),
        (json.dumps([ENTRY, {**ENTRY, "video_id": [1]}]), "entry 1: unknown video: [1]"),
        (json.dumps([{**ENTRY, "category_id": None}]), "entry 0 (video 1): the category is not an integer: None"),
        (json.dumps([{**ENTRY, "score": "high"}]), "not a finite number: 'high'"),
        (json.dumps([{**ENTRY, "segmentations": "mask"}]), "one entry per frame"),
        (json.dumps([{**ENTRY, "segmentations": [{"size": [40, 60], "counts": "1"}]}]), "fills its size"),
        (json.dumps([{**ENTRY, "segmentations": [5]}]), "entry 0 (video 1), frame 0"),
        ("[" * 100_000, "nested too deeply"),
        ("\ufffe", "must be a list"),
        (None, "cannot be read"),
    ],
)
def test_results_that_cannot_be_used_are_one_line(files, capsys, text, words):
    truth, found = files
    other = found.with_name("other.json")
    if text is not None:
        other.write_text(text, "utf-8")
    assert main(arguments("score", truth, other)) == 2
    error = one_error(capsys)
    assert str(other) in error and words in error
    assert main(arguments("score", truth, found, f"--compare={other}")) == 2
    assert str(other) in capsys.readouterr().err
    if text is None:
        assert main(arguments("check", truth, other)) == 2
        assert str(other) in one_error(capsys)
    else:
        assert main(arguments("check", truth, other)) == 1
        assert capsys.readouterr().out.startswith("refused: ")


def changed(content: dict, part: str, **values) -> dict:
    """`content` with other values in the first entry of one of its lists."""
    return {**content, part: [{**content[part][0], **values}, *content[part][1:]]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: None, "cannot be read"),
        (lambda content: "{broken", "not a JSON file"),
        (lambda content: [content], "must hold an object"),
        (lambda content: {**content, "videos": 3}, "videos"),
        (lambda content: {**content, "categories": [3]}, "categor"),
        (lambda content: changed(content, "videos", id=[1]), "video"),
        (lambda content: "[" * 100_000, "not a JSON file"),
        (lambda content: changed(content, "categories", name=None), "name"),
    ],
)
@pytest.mark.parametrize("mode", ["score", "check"])
def test_annotations_that_cannot_be_used_are_one_line(files, capsys, mode, change, words):
    truth, found = files
    content = change(json.loads(truth.read_text("utf-8")))
    truth.unlink()
    if content is not None:
        truth.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    assert main(arguments(mode, truth, found)) == 2
    error = one_error(capsys)
    assert str(truth) in error and words in error


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: {k: v for k, v in content.items() if k != "annotations"}, "no annotations to compare with"),
        (lambda content: changed(content, "annotations", areas=3), "annotation 1: a value is not a list: 'areas' 3"),
        (
            lambda content: changed(content, "annotations", areas=["x"] * 6),
            "annotation 1, frame 0: an area is not a number of pixels: 'x'",
        ),
        (lambda content: changed(content, "annotations", segmentations=[5]), "annotation 1, frame 0"),
        (lambda content: changed(content, "annotations", category_id={}), "'category_id' that is not an integer"),
    ],
)
def test_truth_that_cannot_be_used_is_one_line(files, capsys, change, words):
    truth, found = files
    truth.write_text(json.dumps(change(json.loads(truth.read_text("utf-8")))), "utf-8")
    assert main(arguments("score", truth, found)) == 2
    error = one_error(capsys)
    assert str(truth) in error and words in error


# ------------------------------------------------------------------------------------------ other ways to score


def test_pictures_without_a_report_are_refused(files, capsys):
    assert main(["score", *map(str, files), "--images=frames"]) == 2
    assert capsys.readouterr().err.startswith("ytvis score: error: --images is for the pictures of a report")


def test_a_comparison_alone_is_the_one_after_the_scores(files, tmp_path, capsys):
    truth, found = map(str, files)
    other = tmp_path / "other.json"
    other.write_text(json.dumps(json.loads(Path(found).read_text("utf-8"))[1:]), "utf-8")
    assert main(["score", truth, found, f"--compare={other}"]) == 0
    scores = capsys.readouterr().out
    assert main(["compare", truth, found, str(other)]) == 0
    differences = capsys.readouterr().out
    assert scores.endswith("\n\n" + differences)
    head, *lines = differences.splitlines()
    assert head == f"{found} against {other}:" and [line.split()[0] for line in lines] == list(COMPARED)
    assert lines[0].startswith("AP +")  # the other file lacks a track that is right


def test_the_first_video_is_scored_alone(files, tmp_path, capsys):
    def printed(*more: str) -> str:
        assert main(["score", *map(str, files), *more]) == 0
        return capsys.readouterr().out

    ids = tmp_path / "ids.txt"
    first = printed("--max_videos=1", f"--write_video_ids={ids}")
    assert ids.read_text() == "1\n"
    assert first == printed(f"--video_ids={ids}") != printed()


@pytest.mark.parametrize("command", ["score", "compare"])
def test_a_file_that_is_missing_is_one_line(files, capsys, command):
    assert (
        main([command, *map(str, files), *(["nowhere.json"] if command == "compare" else ["--compare=nowhere.json"])])
        == 2
    )
    printed = capsys.readouterr()
    assert printed.err == f"ytvis {command}: error: nowhere.json: cannot be read: No such file or directory\n"
    assert printed.out == ""


def test_all_categories_can_be_taken_as_one(files, tmp_path, capsys):
    truth, found = map(Path, files)
    renamed = tmp_path / "renamed.json"  # every track gets the category that no true object has
    tracks = json.loads(found.read_text("utf-8"))
    renamed.write_text(json.dumps([{**track, "category_id": 3} for track in tracks]), "utf-8")

    def printed(results: Path, *more: str) -> str:
        assert main(["score", str(truth), str(results), *more]) == 0
        return capsys.readouterr().out

    assert printed(renamed, "--class_agnostic") == printed(found, "--class_agnostic") != printed(found)
    compared = printed(renamed, "--class_agnostic", f"--compare={found}").splitlines()[-len(COMPARED) :]
    assert all(" +0.0 (" in line for line in compared)
    assert printed(renamed).splitlines()[1].split()[:3] == ["all", "0.0", "0.0"]
    assert main(["score", str(truth), str(renamed), "--class_agnostic", f"--report={tmp_path / 'out'}"]) == 0
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))
    assert [row["name"] for row in numbers["categories"]] == ["any category"]


def test_boundaries_are_scored_when_asked_for(files, capsys):
    assert main(["score", *map(str, files), "--boundary"]) == 0
    masks, boundaries = capsys.readouterr().out.split("\ntube-boundary AP: ")
    # All that is found is found exactly, and of track B and C the frames: both IoUs are the same.
    assert masks.splitlines()[1] == boundaries.splitlines()[2]


def test_the_report_alone_is_the_one_of_the_scores(files, tmp_path, capsys):
    images = f"--images={tmp_path / 'frames'}"
    assert main(["score", *map(str, files), f"--report={tmp_path / 'a'}", images]) == 0
    capsys.readouterr()
    assert main(["report", *map(str, files), str(tmp_path / "b"), images]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'b' / 'report.html'}\n"
    for name in ("report.html", "metrics.json", "metrics.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
