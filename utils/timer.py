"""Timing of the stages of a frame."""

import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch

TOTAL = "total"


@dataclass(frozen=True)
class Span:
    """A block of a stage, or one of `parts` equal parts of it, from `begin` to `end`: both in seconds of the host, or
    both in the queue of a GPU."""

    begin: float | torch.cuda.Event
    end: float | torch.cuda.Event
    parts: int = 1

    def seconds(self) -> float:
        """Its duration; waits until a GPU has come to its end."""
        if isinstance(self.begin, int | float):
            return (self.end - self.begin) / self.parts
        self.end.synchronize()
        return self.begin.elapsed_time(self.end) / 1000 / self.parts


Stages = Mapping[str, Sequence[Span]]  # the blocks of each stage of a frame


@dataclass(frozen=True)
class StageStats:
    """One stage over the frames that had it: median, 95th percentile and maximum a frame, sum, number of frames."""

    median_ms: float
    p95_ms: float
    max_ms: float
    total_s: float
    count: int


class StageTimer:
    """Measures named stages, frame by frame, without waiting for a GPU: its own time between the beginning and the end
    of a stage's work counts, except of stages `on_host`, which give it none.

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
    def __call__(self, stage: str, on_host: bool = False) -> Iterator[None]:
        """A block whose duration is added to `stage`; the name "total" is reserved for the sum of a frame's stages."""
        now = self._clock if on_host or self._device.type != "cuda" else self._record
        begin = now()
        yield
        self.give({stage: [Span(begin, now())]})

    def take(self, parts: int = 1) -> Stages:
        """The stages of this thread's frame so far, or one of `parts` equal parts of them; a new frame begins."""
        stages, self._local.stages = getattr(self._local, "stages", {}), {}
        return {name: [replace(span, parts=span.parts * parts) for span in spans] for name, spans in stages.items()}

    def give(self, stages: Stages) -> None:
        """Adds `stages` to this thread's frame."""
        frame = self._local.__dict__.setdefault("stages", {})
        for stage, spans in stages.items():
            frame.setdefault(stage, []).extend(spans)

    def frame_done(self) -> None:
        """Ends this thread's frame: its stages, and their sum "total", become one sample each. Nothing happens without
        stages."""
        stages = {stage: sum(span.seconds() for span in spans) for stage, spans in self.take().items()}
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

    def _record(self) -> torch.cuda.Event:
        """Where the GPU's queue is now."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


class NoTimer:
    """Replaces a `StageTimer` and measures nothing."""

    def __call__(self, stage: str, on_host: bool = False) -> AbstractContextManager:
        return nullcontext()

    def take(self, parts: int = 1) -> Stages:
        return {}

    def give(self, stages: Stages) -> None:
        pass


def _stats(seconds: np.ndarray) -> StageStats:
    median, p95 = np.percentile(seconds, (50, 95))
    return StageStats(
        1000 * float(median), 1000 * float(p95), 1000 * float(seconds.max()), float(seconds.sum()), len(seconds)
    )
