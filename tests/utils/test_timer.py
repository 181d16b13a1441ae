import pytest
import torch

from utils.timer import StageTimer


class Clock:
    """A clock that advances only by `wait`."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def wait(self, milliseconds):
        self.now += milliseconds / 1000


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def timer(clock):
    return StageTimer(torch.device("cpu"), clock)


def spend(timer, clock, stage, milliseconds):
    with timer(stage):
        clock.wait(milliseconds)


def test_no_frame_gives_an_empty_summary(timer):
    timer.frame_done()
    assert timer.summary() == {}


def test_statistics_of_five_frames(timer, clock):
    for milliseconds in (10, 20, 30, 40, 100):
        spend(timer, clock, "network", milliseconds)
        clock.wait(1000)  # outside every stage
        spend(timer, clock, "track", 5)
        timer.frame_done()
    summary = timer.summary()
    assert list(summary) == ["network", "track", "total"]
    network, total = summary["network"], summary["total"]
    assert network.median_ms == pytest.approx(30, abs=1e-3)
    assert network.p95_ms == pytest.approx(88, abs=1e-3)  # 0.8 of the way from 40 to 100
    assert network.total_s == pytest.approx(0.2, abs=1e-6)
    assert network.count == 5
    assert total.median_ms == pytest.approx(35, abs=1e-3)
    assert total.total_s == pytest.approx(0.225, abs=1e-6)


def test_blocks_of_one_stage_add_up_within_a_frame_only(timer, clock):
    spend(timer, clock, "read", 4)
    spend(timer, clock, "read", 6)
    timer.frame_done()
    spend(timer, clock, "read", 30)
    timer.frame_done()
    read = timer.summary()["read"]
    assert read.count == 2
    assert read.median_ms == pytest.approx(20, abs=1e-3)


def test_stage_of_some_frames_counts_those(timer, clock):
    spend(timer, clock, "read", 10)
    timer.frame_done()
    spend(timer, clock, "read", 10)
    spend(timer, clock, "write", 50)
    timer.frame_done()
    summary = timer.summary()
    assert (summary["read"].count, summary["write"].count, summary["total"].count) == (2, 1, 2)
    assert list(summary) == ["read", "write", "total"]
    assert summary["write"].median_ms == pytest.approx(50, abs=1e-3)


def test_open_frame_and_a_block_that_raises_are_not_counted(timer, clock):
    spend(timer, clock, "read", 10)
    timer.frame_done()
    spend(timer, clock, "read", 10)
    assert timer.summary()["read"].count == 1
    with pytest.raises(RuntimeError), timer("network"):
        raise RuntimeError
    timer.frame_done()
    assert "network" not in timer.summary()


def test_a_part_of_a_frame_can_be_given_to_another(timer, clock):
    spend(timer, clock, "read", 4)
    spend(timer, clock, "network", 60)
    thirds = timer.take(parts=3)
    for milliseconds in (1, 2, 3):
        timer.give(thirds)
        spend(timer, clock, "network", milliseconds)
        timer.frame_done()
    summary = timer.summary()
    assert summary["network"].median_ms == pytest.approx(22, abs=1e-3)
    assert summary["read"].total_s == pytest.approx(0.004, abs=1e-6)


def test_a_gpu_is_timed_by_events_of_its_queue_and_waited_for_only_when_a_frame_ends(monkeypatch, clock):
    calls = []

    class Event:
        """The GPU is 7 ms behind the host at the first event, and a millisecond more at each."""

        def __init__(self, enable_timing):
            assert enable_timing

        def record(self, stream):
            calls.append(f"record on {stream}")
            self.time_ms = 1000 * clock.now + 6 + len(calls)

        def synchronize(self):
            calls.append("wait")

        def elapsed_time(self, end):
            return end.time_ms - self.time_ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    timer = StageTimer(torch.device("cuda", 1), clock)
    spend(timer, clock, "network", 10)
    with timer("write", on_host=True):
        clock.wait(5)
    stages = timer.take(parts=2)
    assert calls == ["record on the stream of cuda:1"] * 2
    timer.give(stages)
    timer.frame_done()
    assert calls[2:] == ["wait"]
    summary = timer.summary()
    assert summary["network"].median_ms == pytest.approx(5.5, abs=1e-3)
    assert summary["write"].median_ms == pytest.approx(2.5, abs=1e-3)
