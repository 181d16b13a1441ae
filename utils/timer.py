"""Timing of the stages of a frame."""

import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from utils.device import synchronize

TOTAL = "total"


@dataclass(frozen=True)
class StageStats:
    """One stage over the frames that had it: median, 95th percentile and maximum a frame, sum, number of frames."""

    median_ms: float
    p95_ms: float
    max_ms: float
    total_s: float
    count: int


class StageTimer:
    """Measures named stages, frame by frame; on a GPU it waits for the device before and after each.

        timer = StageTimer(device)
        for frame in frames:
            with timer("network"):
                ...
            timer.frame_done()
        timer.summary()["network"].median_ms

    Several blocks of one stage within a frame are added. A block that raises is not counted. Stages do not nest. Each
    thread has its own frame: pass its stages to another thread together with the frame (`take`, `give`). Four bytes a
    frame and stage are kept. `clock` returns seconds.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.perf_counter):
        self._device = device
        self._clock = clock
        self._local = threading.local()
        self._samples: dict[str, array] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """A block whose duration is added to `stage`; the name "total" is reserved for the sum of a frame's stages."""
        begin = self._now()
        yield
        self.give({stage: self._now() - begin})

    def take(self) -> dict[str, float]:
        """{stage: seconds} of this thread's frame so far; a new frame begins."""
        stages, self._local.stages = getattr(self._local, "stages", {}), {}
        return stages

    def give(self, stages: Mapping[str, float]) -> None:
        """Adds {stage: seconds} to this thread's frame."""
        frame = self._local.__dict__.setdefault("stages", {})
        for stage, seconds in stages.items():
            frame[stage] = frame.get(stage, 0.0) + seconds

    def frame_done(self) -> None:
        """Ends this thread's frame: its stages, and their sum "total", become one sample each. Nothing happens without
        stages."""
        stages = self.take()
        if stages:
            stages[TOTAL] = sum(stages.values())
        for stage, seconds in stages.items():
            self._samples.setdefault(stage, array("f")).append(seconds)

    def summary(self) -> dict[str, StageStats]:
        """{stage: StageStats} over the ended frames, in the order of first use, "total" last; {} at first.

        Time outside all stages is not counted.
        """
        stages = sorted(self._samples, key=lambda stage: stage == TOTAL)
        return {stage: _stats(np.array(self._samples[stage], np.float64)) for stage in stages}

    def _now(self) -> float:
        synchronize(self._device)
        return self._clock()


class NoTimer:
    """Replaces a `StageTimer` and measures nothing."""

    def __call__(self, stage: str) -> AbstractContextManager:
        return nullcontext()

    def take(self) -> dict[str, float]:
        return {}

    def give(self, stages: Mapping[str, float]) -> None:
        pass


def _stats(seconds: np.ndarray) -> StageStats:
    median, p95 = np.percentile(seconds, (50, 95))
    return StageStats(
        1000 * float(median), 1000 * float(p95), 1000 * float(seconds.max()), float(seconds.sum()), len(seconds)
    )
