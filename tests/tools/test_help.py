"""Every command in tools/ prints its help, and docs/develop.md lists it."""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
COMMANDS = [path.stem for path in sorted((ROOT / "tools").glob("*.py")) if "__main__" in path.read_text("utf-8")]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.filterwarnings("ignore:.*found in sys.modules after import of package:RuntimeWarning")
def test_a_command_prints_its_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module(f"tools.{name}", run_name="__main__")
    assert not stopped.value.code
    text = capsys.readouterr().out
    assert text.startswith("usage: ") and f"python -m tools.{name}" in text


def test_the_page_lists_every_command():
    page = (ROOT / "docs" / "develop.md").read_text("utf-8")
    assert re.findall(r"^\| `(\w+)` \| \w", page, re.MULTILINE) == COMMANDS
