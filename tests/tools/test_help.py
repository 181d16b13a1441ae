"""Every command in tools/ prints its help, and docs/develop.md lists it."""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
COMMANDS = [path.stem for path in sorted((ROOT / "tools").glob("*.py")) if "__main__" in path.read_text("utf-8")]
FOLDERS = ("data", "inference", "layers", "tools", "utils", "ytvis")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules after import of package:RuntimeWarning")
def test_a_command_prints_its_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(f"tools.{name}", run_name="__main__")
    assert not stopped.value.code
    text = capsys.readouterr().out
    assert text.startswith("usage: ") and f"python -m tools.{name}" in text


@pytest.mark.parametrize(
    "line",
    [
        "kernel_speed --output=",
        "larger_frames frames ",
        "long_stream --output=",
        "plot log.jsonl --output=",
        "recipe demo.toml --results=",
        "report_picture report.html ",
        "viewer_pictures results.json ",
    ],
)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules after import of package:RuntimeWarning")
def test_an_empty_path_is_refused(line, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", line.split(" "))
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module(f"tools.{sys.argv[0]}", run_name="__main__")
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "is empty" in error


def test_all_command_lines_are_of_the_parser_that_refuses_empty_paths():
    files = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
    assert len(files) > 100
    assert [path for path in files if "argparse.ArgumentParser(" in path.read_text("utf-8")] == []


def test_the_page_lists_every_command():
    page = (ROOT / "docs" / "develop.md").read_text("utf-8")
    assert re.findall(r"^\| `(\w+)` \| \w", page, re.MULTILINE) == COMMANDS
