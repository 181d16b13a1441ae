from pathlib import Path

import pytest
import torch


def pytest_configure():
    # The recorded numbers were made with two threads, and more would not make small tensors faster.
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of recorded numbers; its README says what every array is."""
    return Path(__file__).parent / "fixtures" / "reference"
