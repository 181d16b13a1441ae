"""eval.py's modes that run no model: --only_calc_metrics and --check, which `ytvis score` and `ytvis check` do too."""

import json
from pathlib import Path

import pytest

import eval as command
from tests.ytvis.score.test_command import SMALL, table_of
from ytvis.__main__ import main


def arguments(truth: Path, found: Path, *more: str, mode: str = "--check") -> list[str]:
    return [mode, f"--ann_file={truth}", f"--mask_det_file={found}", *more]


def one_error(capsys) -> str:
    """The printed error, which must be one line and nothing else."""
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("eval.py: error: ") and printed.err.count("\n") == 1
    return printed.err


def test_the_recorded_numbers_are_printed(capsys):
    assert command.main(arguments(SMALL / "gt.json", SMALL / "pred.json", mode="--only_calc_metrics")) == 0
    stats = json.loads((SMALL / "golden.json").read_text("utf-8"))["runs"][0]["stats"]
    expected = ["-" if value < 0 else f"{100 * value:.1f}" for value in stats.values()]
    assert table_of(capsys.readouterr().out)["all"] == expected


@pytest.mark.parametrize("more", [[], ["--split=valid_sub"], ["--max_videos=3", "--track_score_threshold=0"]])
def test_scores_are_those_of_the_command_without_torch(many, tmp_path, capsys, more):
    truth, found = map(str, many)
    old = tmp_path / "old.json"
    old.write_text(json.dumps(json.loads(Path(found).read_text("utf-8"))[1:]), "utf-8")
    more = [*more, f"--compare={old}", f"--report={tmp_path / 'report'}"]
    assert command.main(arguments(truth, found, *more, mode="--only_calc_metrics")) == 0
    by_eval = capsys.readouterr().out
    assert main(["score", truth, found, *more]) == 0
    assert capsys.readouterr().out == by_eval and "report.html" in by_eval and "against" in by_eval


def test_frames_of_the_report_are_those_of_image_root(files, tmp_path, capsys):
    line = arguments(*files, f"--report={tmp_path / 'out'}", mode="--only_calc_metrics")
    assert command.main([*line, f"--image_root={tmp_path / 'frames'}"]) == 0
    assert command.main([*line, f"--image_root={tmp_path / 'nowhere'}"]) == 2
    assert "nowhere: no such folder of frames" in capsys.readouterr().err


def test_only_the_chosen_videos_are_examined(many, tmp_path, capsys):
    truth, found = many
    tracks = [track for track in json.loads(found.read_text("utf-8")) if track["video_id"] > 118]
    found.write_text(json.dumps(tracks), "utf-8")
    assert command.main(arguments(truth, found)) == 0
    assert "video 101: a video has no track (18 times, first here)" in capsys.readouterr().out
    assert command.main(arguments(truth, found, "--split=valid_sub")) == 0
    assert "a video has no track" not in capsys.readouterr().out
    assert command.main(arguments(truth, found, "--split=train_sub")) == 1  # of videos it should not be of
    assert "unknown video" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--only_calc_metrics"], "--ann_file"),
        (["--check"], "--ann_file"),
        (["--compare=other.json"], "--only_calc_metrics"),
        (["--check", "--ann_file=x.json", "--report=out"], "--report and --compare need --only_calc_metrics"),
    ],
)
def test_options_that_need_others_say_so(capsys, line, words):
    assert command.main(line) == 2
    assert words in one_error(capsys)


def test_modes_exclude_each_other(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--check", "--only_calc_metrics"])
    assert stopped.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
