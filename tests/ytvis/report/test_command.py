"""The command `python -m ytvis report`."""

import pytest

from ytvis.__main__ import main
from ytvis.report import write_report


def test_the_command_writes_what_the_function_writes(files, tmp_path, capsys):
    out, frames = tmp_path / "new" / "out", tmp_path / "frames"
    line = ["report", *map(str, files), str(out), f"--images={frames}", "--seed=3", "--track_score_threshold=0.5"]
    assert main(line) == 0
    assert capsys.readouterr().out == f"{out / 'report.html'}\n"
    ours = write_report(*files, tmp_path / "ours", frames, seed=3, score_threshold=0.5).parent
    assert {path.name for path in out.iterdir()} == {"report.html", "metrics.json", "metrics.md"}
    for path in out.iterdir():
        assert path.read_bytes() == (ours / path.name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({0: "gone.json"}, "gone.json: cannot be read"),
        ({1: "gone.json"}, "gone.json: cannot be read"),
        ({2: "truth.json"}, "truth.json: cannot be made a folder"),
        ({2: "truth.json/x"}, "truth.json/x: cannot be made a folder"),
        ({2: "n" * 300}, "cannot be made a folder"),
        ({3: "--images=nowhere"}, "nowhere: no such folder of frames"),
        ({3: "--images=" + "n" * 5000}, "no such folder of frames"),
        ({3: "--images=loop"}, "loop: no such folder of frames"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(files, tmp_path, capsys, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    line = {0: "truth.json", 1: "found.json", 2: "out"} | changes
    assert main(["report", *(line[place] for place in sorted(line))]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ytvis report: error: ") and message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
