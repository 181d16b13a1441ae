"""The memory of a long video on the command line, measured."""

import pytest

from tests.stream_memory import measure


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(tmp_path):
    memory = measure(tmp_path, num_frames=5000, every=1000)
    assert list(memory.by_frames) == [1000, 2000, 3000, 4000, 5000]
    assert memory.by_frames[5000] - memory.by_frames[1000] < 4
    assert memory.peak - memory.by_frames[1000] < 8  # what writes the results has one track at a time
