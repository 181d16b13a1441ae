"""The logs of a training: the console's line, a file of JSON lines, and TensorBoard's event files.

A line of the file is an object with `iteration` and either the means over the iterations since the last line (`total`,
each loss by its name, and `MEASURES`) or the scores of a `validation`. `python -m tools.plot` draws such files, and
those of `python -m tools.recipe --log`, whose lines have a `stage`, too.
"""

import json
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from utils.device import peak_memory_mib
from ytvis.files import InputError, atomic_write, make_folder, put_aside, read_text, writing

logger = logging.getLogger(__name__)

LOG_INTERVAL = 10
MEASURES = ("lr", "seconds", "cpu_seconds", "clips_per_second", "memory_mib")  # seconds are those of one iteration


class TrainingLog:
    """Logs a training every ten iterations and after the last, to the console and as a line of JSON in `path`.

    The console also gets a line after the first iteration, which shows that the training works.
    With a folder `tensorboard` it writes there too, as `loss/…`, `train/…` and `validation/…`, with pictures. Use it as
    a context manager, or `close` it.
    """

    def __init__(
        self,
        path: Path,
        num_iterations: int,
        *,
        clips_per_step: int,
        start_iteration: int = 0,
        tensorboard: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ):
        """Continues the files of a training that is resumed after `start_iteration` iterations.

        Their lines of later iterations are dropped: they will be written again. A training that starts at 0 begins a
        new file and keeps an earlier one under another name. `clips_per_step` counts the clips of all devices; `clock`
        returns seconds, and `cpu_clock` those that the cores spent on this process.

        Raises:
            InputError: `path` is not such a log, TensorBoard is not installed, or a folder cannot be used.
        """
        self.path = path
        make_folder(path.parent)  # opened here, so that a training that cannot write does not start
        self.num_iterations = num_iterations
        self._first = start_iteration + 1
        self.clips_per_step = clips_per_step
        # First, because it may fail; it drops the steps after the last one kept.
        self._board = None if tensorboard is None else _open_board(tensorboard, purge_step=start_iteration + 1)
        if start_iteration:
            _drop_later(path, start_iteration)
        else:
            _keep_other_training(path)
        self._clock, self._cpu_clock = clock, cpu_clock
        self._window: list[Mapping[str, float]] = []
        self._window_seconds = self._window_cpu_seconds = 0.0
        self._recent_seconds: deque[float] = deque(maxlen=10)
        self._restart_clocks()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Writes everything that is pending."""
        if self._board is not None:
            self._board.close()

    @property
    def takes_pictures(self) -> bool:
        """Whether `show` has an effect."""
        return self._board is not None

    def add(self, iteration: int, losses: Mapping[str, float], learning_rate: float, device: torch.device) -> None:
        """Records that `iteration` iterations are done, the last with these losses."""
        self._window.append(losses)
        self._window_seconds += self._clock() - self._last
        self._window_cpu_seconds += self._cpu_clock() - self._last_cpu
        self._restart_clocks()
        is_due = iteration % LOG_INTERVAL == 0 or iteration == self.num_iterations
        if not is_due and iteration != self._first:
            return
        seconds = self._window_seconds / len(self._window)
        means = {name: sum(row[name] for row in self._window) / len(self._window) for name in self._window[0]}
        if is_due:
            self._recent_seconds.append(seconds)
            self._record(iteration, means, learning_rate, seconds, device)
            self._window.clear()
            self._window_seconds = self._window_cpu_seconds = 0.0
        self._print(iteration, means, learning_rate, seconds)

    def _record(
        self, iteration: int, means: Mapping[str, float], learning_rate: float, seconds: float, device: torch.device
    ) -> None:
        """Writes the means over the last iterations to the files."""
        total = sum(means.values())
        measures = (
            learning_rate,
            seconds,
            self._window_cpu_seconds / len(self._window),
            self.clips_per_step / seconds if seconds else math.nan,
            peak_memory_mib(device),
        )
        measured = dict(zip(MEASURES, measures, strict=True))
        self._write({"iteration": iteration, "total": total, **means, **measured})
        self._chart(iteration, "loss", {"total": total, **means})
        self._chart(iteration, "train", measured)

    def _print(self, iteration: int, means: Mapping[str, float], learning_rate: float, seconds: float) -> None:
        """Prints the means over the last iterations, and the time left at the pace of the last hundred."""
        pace = self._recent_seconds or [seconds]
        left = (self.num_iterations - iteration) * sum(pace) / len(pace)
        logger.info(
            "%d/%d | %s | total %.2f | lr %.1e | %.2f s/it | ETA %d:%02d:%02d",
            *(iteration, self.num_iterations, " ".join(f"{name} {value:.2f}" for name, value in means.items())),
            *(sum(means.values()), learning_rate, seconds, left // 3600, left // 60 % 60, left % 60),
        )

    def note(self, iteration: int, scores: Mapping[str, float]) -> None:
        """Records the scores (0…1) of a validation. The time since the last `add` is not counted as training.

        A score of -1, for a set without truth, is only written to the file.
        """
        self._write({"iteration": iteration, "validation": dict(scores)})
        known = {name: score for name, score in scores.items() if score >= 0}
        self._chart(iteration, "validation", known)
        logger.info("%d | validation | %s", iteration, " ".join(f"{k} {100 * v:.1f}" for k, v in known.items()))
        self._restart_clocks()

    def show(self, iteration: int, title: str, picture: np.ndarray) -> None:
        """Shows `picture` [h,w,3] uint8 RGB in TensorBoard, if enabled; pictures of an iteration need different titles.

        The time since the last `add` is not counted as training.
        """
        if self._board is not None:
            self._board.add_image(title, picture, iteration, dataformats="HWC")
            self._board.flush()
        self._restart_clocks()

    def _restart_clocks(self) -> None:
        """Counts the next iteration's time from now on."""
        self._last, self._last_cpu = self._clock(), self._cpu_clock()

    def _write(self, record: Mapping[str, Any]) -> None:
        make_folder(self.path.parent)
        with writing(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def _chart(self, iteration: int, group: str, values: Mapping[str, float]) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{group}/{name}", value, iteration)
            self._board.flush()  # as durable as the JSON lines


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a training's log, in the file's order; [] of an empty file.

    A last line that is not whole is left out: a training is writing it, or was killed while it did.

    Raises:
        InputError: the file cannot be read or is not such a log; the message names the file and the line.
    """
    return [record for _, record in _read_lines(path)]


def _read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (line, its content) for each line of the file that is not blank."""
    lines = read_text(path).split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number < len(lines):
                raise InputError(f"{where}: not JSON ({error})") from None
            logger.warning("%s is not whole and left out", where)
            return
        yield line, _checked(record, where)


def _checked(record: Any, where: str) -> dict[str, Any]:
    """Returns `record`, or raises InputError if it is not a line of train.py."""
    if not isinstance(record, dict) or type(record.get("iteration")) is not int:
        raise InputError(f"{where}: must be an object with an integer 'iteration', as train.py writes it")
    scores = record.get("validation", {})
    if not isinstance(scores, dict):
        raise InputError(f"{where}: 'validation' must be an object of scores")
    for name, value in [*record.items(), *scores.items()]:
        if name != "validation" and type(value) not in (int, float):
            raise InputError(f"{where}: {name!r} must be a number, not {value!r}")
    return record


def _drop_later(path: Path, iteration: int) -> None:
    """Removes the lines after `iteration` from the log, and a last line that is not whole."""
    if not os.path.exists(path):
        return
    kept = "".join(f"{line}\n" for line, record in _read_lines(path) if record["iteration"] <= iteration)
    if kept != read_text(path):
        with atomic_write(path) as file:
            file.write(kept)


def _keep_other_training(path: Path) -> None:
    """Renames the log of another training, unless it is empty."""
    if os.path.isfile(path) and os.path.getsize(path):
        logger.warning("%s is of another training; renamed to %s", path, put_aside(path).name)


def _open_board(folder: Path, purge_step: int) -> Any:
    """A writer of event files in `folder` that makes TensorBoard forget the steps from `purge_step` on."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # imported here, because it is optional
    except ImportError:
        raise InputError("TensorBoard is not installed: pip install tensorboard") from None
    try:
        return SummaryWriter(str(folder), purge_step=purge_step)
    except OSError as error:
        raise InputError(f"{folder}: cannot be a folder of TensorBoard's files: {error.strerror}") from None
