import pytest

from tools.long_stream import draw, measure


@pytest.mark.slow
def test_the_memory_of_a_stream_does_not_grow_with_its_length():
    measured = measure(num_frames=1200, every=200, size_hw=(96, 160))
    rows = measured["rows"]
    assert [row["frames"] for row in rows] == [200, 400, 600, 800, 1000, 1200]
    assert rows[-1]["track_ids"] > rows[0]["track_ids"] > 0  # new objects come all the time
    assert rows[-1]["memory_mib"] < rows[1]["memory_mib"] + 5  # masks of a thousand frames would be tens
    assert len(draw(measured).axes) == 2
