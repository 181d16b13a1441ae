"""The Makefile's recipes, as `make -n` prints them, and what git ignores."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from data.config import DATASETS

ROOT = Path(__file__).parent.parent


def recipe(target):
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    run = ["make", "-n", target]
    return subprocess.run(run, cwd=ROOT, env=outside, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_a_kernel_that_has_changed_is_built_again():
    kernels = [
        str(path.relative_to(ROOT)) for folder in ("layers/cpu", "ytvis") for path in (ROOT / folder).glob("*.pyx")
    ]
    assert len(kernels) == 3
    assert all(f"-newer {name} " in recipe("venv") for name in kernels)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_cleaning_forgets_that_the_active_environment_has_the_kernels():
    assert 'rm -f "${VIRTUAL_ENV:-${CONDA_PREFIX:-.venv}}/.stmask-installed"' in recipe("clean")


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_the_demo_is_trained_by_its_recipe():
    assert recipe("train-demo").endswith('/bin/python" -m tools.recipe recipes/demo.toml\n')


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="this is no git repository")
@pytest.mark.parametrize(
    "path",
    [
        *(f"{keys['dataset.root']}/annotations/train.json" for keys in DATASETS.values()),
        *("build/ytvis/lib/ytvis/masks.py", "ytvis/ytvis.egg-info/PKG-INFO", "ytvis/_mask_kernels.c"),
        "layers/cpu/_winograd.c",
    ],
)
def test_git_ignores_data_sets_and_what_an_installation_builds(path):
    assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0
