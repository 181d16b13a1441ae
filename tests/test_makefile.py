"""The Makefile's recipes, as `make -n` prints them, and what git passes over."""

import shutil
import subprocess
from pathlib import Path

import pytest

from data.config import DATASETS

ROOT = Path(__file__).parent.parent


def recipe(target):
    run = ["make", "-n", target]
    return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout


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


@pytest.mark.skipif(shutil.which("git") is None or not (ROOT / ".git").exists(), reason="this is no git repository")
@pytest.mark.parametrize("name", DATASETS)
def test_git_passes_over_the_data_sets(name):
    path = f"{DATASETS[name]['dataset.root']}/annotations/train.json"
    assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT).returncode == 0
