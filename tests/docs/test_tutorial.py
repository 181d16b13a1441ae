"""docs/tutorial.ipynb: its commands exist, it is small, and it runs from the first cell to the last."""

import json
import os
import re
import shlex
import sys

import pytest

from tests.docs.pages import ROOT
from tests.docs.test_commands import parse
from tests.docs.test_links import LINK, anchors

PATH = ROOT / "docs" / "tutorial.ipynb"
LARGEST = 2**20  # bytes


def sources(kind):
    """The text of each cell of this kind."""
    cells = json.loads(PATH.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def commands():
    """The lines that a shell runs, without `!`."""
    return [line[1:] for source in sources("code") for line in source.splitlines() if line.startswith("!")]


@pytest.mark.parametrize("line", commands())
def test_its_options_are_options(line):
    parse([word for word in shlex.split(line) if not re.fullmatch(r"\$[A-Z]+", word)])


def test_its_links_lead_somewhere():
    targets = ["".join(groups) for text in sources("markdown") for groups in LINK.findall(text)]
    inside = [target.partition("#") for target in targets if not target.startswith("https:")]
    assert len(inside) > 5
    for name, _, anchor in inside:
        path = PATH.parent / name
        assert path.is_file() and (not anchor or anchor in anchors(path)), (name, anchor)


def test_it_is_stored_with_pictures_without_faults_and_small():
    content = json.loads(PATH.read_text("utf-8"))
    outputs = [output for cell in content["cells"] for output in cell.get("outputs", ())]
    assert sum("image/jpeg" in output.get("data", ()) for output in outputs) == 3
    assert not [output for output in outputs if output["output_type"] == "error"]
    text = PATH.read_text("utf-8")
    assert "Traceback" not in text and "error:" not in text and str(ROOT) not in text
    assert PATH.stat().st_size < LARGEST


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for file in ("train.py", "eval.py", "weights"):
        (tmp_path / file).symlink_to(ROOT / file)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}")
    book = nbformat.read(PATH, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":  # a command that fails does not stop a notebook
            cell.source = re.sub(r"^!.*$", r"\g<0>\nassert _exit_code == 0", cell.source, flags=re.MULTILINE)
    kernel = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=3600, kernel_name="python3", resources=kernel).execute()
    work = tmp_path / "results" / "tutorial"
    assert (work / "annotated.mp4").stat().st_size and (work / "report" / "report.html").stat().st_size
    # Hand-countable: six of the 24 videos are set aside, and training helps.
    assert len(json.loads((work / "valid.json").read_text())["videos"]) == 6
    cells = [cell for cell in book.cells if "!python eval.py" in cell.source]
    printed = ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]
    scores = [float(found[1]) for text in printed if (found := re.search(r"^all +([0-9.]+)", text, re.MULTILINE))]
    assert len(scores) == 2 and scores[1] > scores[0] + 5
