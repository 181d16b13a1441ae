from collections.abc import Iterator

import pytest

from tests.ytvis.viewer.browser import launch, why_missing


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """Chromium, one for all tests: playwright runs once in a process."""
    reason = why_missing()
    if reason:
        pytest.skip(reason)
    with launch() as chromium:
        yield chromium
