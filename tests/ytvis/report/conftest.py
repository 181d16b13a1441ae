from pathlib import Path

import pytest

from tests.ytvis.small_set import write_set
from ytvis.report import write_report


@pytest.fixture(scope="session")
def page(tmp_path_factory) -> Path:
    """The page of the small set."""
    folder = tmp_path_factory.mktemp("report")
    return write_report(*write_set(folder), folder / "report", folder / "frames")
