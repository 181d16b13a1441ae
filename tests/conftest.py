import importlib.util
import logging
import os
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Packages that ytvis does not need. A test file that imports one of them compares ytvis with the rest of STMask.
_NOT_YTVIS = r"^(import|from) (torch|torchvision|backbone|data|eval|inference|layers|stmask|tools|train|utils)\b"
_HAS_TORCH = importlib.util.find_spec("torch") is not None


def _needs_torch(path: Path) -> bool:
    return re.search(_NOT_YTVIS, path.read_text("utf-8"), re.MULTILINE) is not None


collect_ignore = [] if _HAS_TORCH else [str(path) for path in TESTS.rglob("test_*.py") if _needs_torch(path)]


def pytest_configure():
    if _HAS_TORCH:
        import torch

        # Workers of pytest-xdist share the cores. The recorded numbers are reproduced with one thread and with two.
        torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


def pytest_report_header():
    return None if _HAS_TORCH else f"no torch here: {len(collect_ignore)} test files that need it are left out"


@pytest.fixture(autouse=True)
def restored_root_logger():
    """Commands that run within a test install a handler of the stderr of that moment, which pytest closes later."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of recorded numbers; its README describes every array."""
    return TESTS / "fixtures" / "reference"


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    """Annotations of two videos, and results with six tracks that are right or wrong."""
    from tests.ytvis.small_set import write_set

    return write_set(tmp_path)


@pytest.fixture
def many(files) -> tuple[Path, Path]:
    """The same ten times, as the videos 101, 102, … 120."""
    from tests.ytvis.small_set import repeat

    return repeat(*files, 10)
