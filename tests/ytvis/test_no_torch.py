"""No module of ytvis and no command of `python -m ytvis` imports torch, and commands start fast with little memory."""

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import ytvis
from ytvis.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "torchvision", "matplotlib", "scipy", "cv2", "jinja2", "av", "pandas"}
RLE = {"size": [40, 60], "counts": [0, 1200, 1200]}


def loaded(code: str) -> tuple[set[str], str]:
    """(The top-level modules that a fresh process has imported after `code`, what it printed)."""
    end = "\nimport sys\nprint('modules', *{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code + end], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *printed, modules = done.stdout.splitlines()
    return set(modules.split()[1:]), "\n".join(printed)


def test_no_module_imports_torch_or_what_is_ours_above():
    names = [
        module.name for module in pkgutil.walk_packages(ytvis.__path__, "ytvis.") if "_mask_kernels" not in module.name
    ]
    assert {"ytvis.browse", "ytvis.report.pictures", "ytvis.viewer.server", "ytvis.convert.datumaro"} <= set(names)
    modules, _ = loaded("import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in names))
    assert modules & {"torch", "torchvision", "data", "utils", "layers", "inference", "stmask", "backbone"} == set()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with truth.json, results.json and their frames, in which commands run."""
    folder = tmp_path_factory.mktemp("data")
    names = [f"clip/{frame}.png" for frame in range(2)]
    (folder / "clip").mkdir()
    for name in names:
        cv2.imwrite(str(folder / name), np.zeros((40, 60, 3), np.uint8))
    track = {"video_id": 1, "category_id": 1, "segmentations": [RLE, None]}
    truth = {
        "videos": [{"id": i, "width": 60, "height": 40, "file_names": names} for i in (1, 2)],
        "categories": [{"id": 1, "name": "box"}],
        "annotations": [{"id": 1, "iscrowd": 0, **track}],
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "other.json").write_text(
        json.dumps({**truth, "videos": [{**truth["videos"][0], "file_names": ["a", "b"]}]})
    )
    (folder / "results.json").write_text(json.dumps([{**track, "score": 0.5}]))
    return folder


ARGUMENTS = {
    "score": "truth.json results.json --report scored --images .",
    "compare": "truth.json results.json results.json",
    "check": "truth.json --images .",
    "convert": "ytvis truth.json converted --to labelme --images .",
    "merge": "truth.json other.json merged.json",
    "split": "truth.json --train train.json --valid valid.json",
    "browse": "truth.json --images . --output sheet.png",
    "report": "truth.json results.json reported --images .",
    "view": "results.json --images . --ann_file truth.json --export page --no_browser",
}


def test_every_command_is_run():
    assert ARGUMENTS.keys() == COMMANDS.keys()


@pytest.mark.parametrize("command", ARGUMENTS)
def test_no_command_imports_torch(data, command):
    words = [command, *ARGUMENTS[command].split()]
    modules, _ = loaded(f"import os, ytvis.__main__ as main\nos.chdir({str(data)!r})\nassert main.main({words!r}) == 0")
    assert modules & {"torch", "torchvision"} == set()


@pytest.mark.parametrize(
    "words", [["score", "truth.json", "results.json"], ["check", "truth.json"], ["split", "--help"]]
)
def test_the_start_of_a_command_is_light(data, words):
    run = f"try:\n    main.main({words!r})\nexcept SystemExit:\n    pass"
    modules, printed = loaded(f"import os, ytvis.__main__ as main\nos.chdir({str(data)!r})\n{run}")
    assert modules & HEAVY == set() and printed
