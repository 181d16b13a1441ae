"""`python -m ytvis score` and `compare` as their user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ytvis.report.conftest import write_set
from ytvis.__main__ import main
from ytvis.score.command import COMPARED

ROOT = Path(__file__).parents[3]


@pytest.fixture
def files(tmp_path) -> tuple[str, str]:
    """Annotations of two videos, and results with right and wrong tracks."""
    return tuple(map(str, write_set(tmp_path)))


def test_the_command_prints_what_eval_prints(files):
    pytest.importorskip("torch")  # which eval.py needs
    truth, found = files
    lines = (["-m", "ytvis", "score", truth, found], ["eval.py", "--only_calc_metrics", f"--ann_file={truth}"])
    lines[1].append(f"--mask_det_file={found}")
    printed = {
        subprocess.run([sys.executable, *line], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for line in lines
    }
    assert len(printed) == 1 and "HOTA" in printed.pop()


def test_the_report_is_written_where_it_is_asked_for(files, tmp_path, capsys):
    line = ["score", *files, f"--report={tmp_path / 'out'}", f"--images={tmp_path / 'frames'}"]
    assert main(line) == 0
    assert capsys.readouterr().out.endswith(f"report: {tmp_path / 'out' / 'report.html'}\n")
    assert main([*line[:-1], f"--images={tmp_path / 'nowhere'}"]) == 2
    assert "nowhere: no such folder of frames" in capsys.readouterr().err


def test_pictures_without_a_report_are_refused(files, capsys):
    assert main(["score", *files, "--images=frames"]) == 2
    assert capsys.readouterr().err.startswith("ytvis score: error: --images is for the pictures of a report")


def test_a_comparison_alone_is_the_one_after_the_scores(files, tmp_path, capsys):
    truth, found = files
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


def test_the_first_videos_are_scored_alone(files, tmp_path, capsys):
    def printed(*more: str) -> str:
        assert main(["score", *files, *more]) == 0
        return capsys.readouterr().out

    ids = tmp_path / "ids.txt"
    first = printed("--max_videos=1", f"--write_video_ids={ids}")
    assert ids.read_text() == "1\n"
    assert first == printed(f"--video_ids={ids}") != printed()


@pytest.mark.parametrize("command", ["score", "compare"])
def test_a_file_that_is_missing_is_one_line(files, capsys, command):
    assert main([command, *files, *(["nowhere.json"] if command == "compare" else ["--compare=nowhere.json"])]) == 2
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
    assert main(["score", *files, "--boundary"]) == 0
    masks, boundaries = capsys.readouterr().out.split("\ntube-boundary AP: ")
    # All that is found is found exactly, and of track B and C the frames: both IoUs are the same.
    assert masks.splitlines()[1] == boundaries.splitlines()[2]


def test_the_report_alone_is_the_one_of_the_scores(files, tmp_path, capsys):
    images = f"--images={tmp_path / 'frames'}"
    assert main(["score", *files, f"--report={tmp_path / 'a'}", images]) == 0
    capsys.readouterr()
    assert main(["report", *files, str(tmp_path / "b"), images]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'b' / 'report.html'}\n"
    for name in ("report.html", "metrics.json", "metrics.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
