"""Log lines and the progress of an evaluation, both on stderr."""

import logging
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Self

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0


def setup_logging(verbose: bool = False) -> None:
    """Sends log records of INFO and above, or DEBUG if `verbose`, to stderr, one line each. For command lines only."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
        force=True,
    )


class EvalProgress:
    """A context manager that shows the progress of an evaluation: frames, frames per second, time left, videos.

    On a terminal this is a bar below the log lines; elsewhere it is an INFO line at most every ten seconds and one at
    the end. Without `total_frames`, as for a camera, the time left is not shown; without `total_videos` videos are not
    counted. `clock` returns seconds.
    """

    def __init__(
        self, total_frames: int | None, total_videos: int | None = None, clock: Callable[[], float] = time.monotonic
    ):
        self._total_frames = total_frames
        self._total_videos = total_videos
        self._clock = clock
        self._frames = self._videos = 0

    def __enter__(self) -> Self:
        self._begin = self._last_line = self._clock()
        self._stack = ExitStack()
        self._bar = None
        if sys.stderr.isatty():
            self._stack.enter_context(logging_redirect_tqdm())
            bar = tqdm(total=self._total_frames, unit=" frame", file=sys.stderr, dynamic_ncols=True)
            self._bar = self._stack.enter_context(bar)
            self._show_videos()
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()
        if self._bar is None:
            self._write_line()

    def update(self, frames: int = 1) -> None:
        """Counts `frames` more frames as done."""
        self._frames += frames
        if self._bar is not None:
            self._bar.update(frames)
        elif self._clock() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._write_line()

    def video_done(self) -> None:
        """Counts one more video as done."""
        self._videos += 1
        if self._bar is not None:
            self._show_videos()

    def _show_videos(self) -> None:
        self._bar.set_postfix_str(self._videos_text(), refresh=False)

    def _videos_text(self) -> str:
        return "" if self._total_videos is None else f"videos {self._videos}/{self._total_videos}"

    def _write_line(self) -> None:
        self._last_line = self._clock()
        meter = tqdm.format_meter(
            self._frames,
            self._total_frames,
            self._last_line - self._begin,
            unit=" frame",
            postfix=self._videos_text(),
            bar_format="{n_fmt}/{total_fmt} frames [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
        )
        logger.info(meter)
