"""How fast a run was, beside what the machine could do: what `eval.py --benchmark` prints and writes."""

import json
import os
import platform
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from utils.device import describe_device, synchronize
from utils.timer import StageTimer
from ytvis.files import atomic_write

PEAK_SHAPES = (
    (256, 48, 80, 3),
    (256, 96, 160, 3),
    (512, 24, 40, 3),
    (512, 48, 80, 1),
)  # channels, height, width, kernel
PEAK_REPEATS = 5


@dataclass
class Measurement:
    """The times of one run over many frames: `timer`'s stages, and when each frame was done.

    Frames come `batch_size` at a time.
    """

    name: str
    timer: StageTimer
    batch_size: int = 1
    ends: array = field(default_factory=lambda: array("d"))

    def frame_done(self) -> None:
        """Closes a frame, in `timer` too."""
        self.timer.frame_done()
        self.ends.append(time.perf_counter())

    def summary(self, gflop: float | None = None, peak: float | None = None) -> dict[str, Any]:
        """Milliseconds by stage (median and 95th percentile over all frames), and, from the second batch on, of a whole
        frame from the end of one to the end of the next ("wall", a batch's time in equal parts), and frames per second.

        `overhead` is how much longer that median is than the network's. `gflop` is what the network takes, in 10⁹
        floating-point operations, `peak` the machine's 10⁹ a second: the network reaches `gflops` of it. What
        cannot be told, with fewer than two frames, is left out.
        """
        stages = {name: asdict(stats) for name, stats in self.timer.summary().items()}
        result: dict[str, Any] = {"frames": len(self.ends), "stages": stages}
        steps = 1000 * np.diff(np.array(self.ends)[:: self.batch_size]) / self.batch_size
        if len(steps):
            median, p95 = np.percentile(steps, (50, 95))
            result |= {"wall_ms": {"median": float(median), "p95": float(p95)}, "fps": float(1000 / steps.mean())}
        network = stages.get("network", {}).get("median_ms")
        if network and len(steps):
            result["overhead"] = float(median) / network - 1
        if network and gflop:
            result["gflops"] = gflop / network * 1000
            if peak:
                result["part_of_peak"] = result["gflops"] / peak
        return result


def convolution_peak(device: torch.device, dtype: torch.dtype, convolve: Callable[[nn.Conv2d], nn.Module]) -> float:
    """The most 10⁹ floating-point operations a second that convolutions of some usual shapes reach here, in `dtype`.

    `convolve` makes of a convolution what is to run: a direct one, so that it does all these operations. Takes about a
    second, and far longer where `dtype` is slow.
    """
    best = 0.0
    for channels, height, width, kernel in PEAK_SHAPES:
        conv = convolve(nn.Conv2d(channels, channels, kernel, padding=kernel // 2, device=device))
        x = torch.randn(1, channels, height, width, device=device, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        operations = 2 * channels * channels * kernel * kernel * height * width
        best = max(best, operations / _fastest(lambda conv=conv, x=x: conv(x), device) / 1e9)
    return best


def _fastest(function: Callable[[], Tensor], device: torch.device) -> float:
    """Seconds of the fastest of a few calls, after one that does not count."""
    seconds = []
    with torch.inference_mode():
        for _ in range(PEAK_REPEATS + 1):
            synchronize(device)
            begin = time.perf_counter()
            function()
            synchronize(device)
            seconds.append(time.perf_counter() - begin)
    return min(seconds[1:])


def count_gflop(network: nn.Module, size_hw: tuple[int, int]) -> float:
    """The 10⁹ floating-point operations (a multiplication and an addition are two) of the convolutions and products in
    `network`'s forward pass for one image of `size_hw`; runs it once, on an image of zeros."""
    image = torch.zeros(1, 3, *size_hw, device=next(network.parameters()).device)
    deformable = {
        torch.ops.torchvision.deform_conv2d: lambda _, weight, *args, out_shape, **kwargs: _flop(weight, out_shape),
        torch.ops.stmask.deform_conv2d: lambda _, offsets, modulation, weight, *args, out_shape, **kwargs: _flop(
            weight, out_shape
        ),
    }
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=deformable) as counter:
        network(image)
    return counter.get_total_flops() / 1e9


def _flop(weight_shape: Sequence[int], out_shape: Sequence[int]) -> int:
    batch, _, height, width = out_shape
    return 2 * batch * height * width * int(np.prod(weight_shape))


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Versions, device and threads, as timings need beside them to mean something."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "numpy")},
        "device": describe_device(device),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def format_columns(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of `Measurement.summary`s, one a column; every further column with how many times the first one's time it
    took."""
    first = next(iter(columns.values()))
    stages = list(dict.fromkeys(stage for column in columns.values() for stage in column["stages"]))
    rows = [
        (
            f"{stage}, ms",
            [_milliseconds(column["stages"].get(stage, {}), "median_ms", "p95_ms") for column in columns.values()],
        )
        for stage in stages
    ]
    rows.append(
        ("wall, ms", [_milliseconds(column.get("wall_ms", {}), "median", "p95") for column in columns.values()])
    )
    for key, title, form in (
        ("fps", "FPS", "{:.2f}"),
        ("overhead", "over the network alone", "{:.1%}"),
        ("gflops", "network, GFLOP/s", "{:.0f}"),
        ("part_of_peak", "of the convolution peak", "{:.0%}"),
    ):
        rows.append((title, [form.format(column[key]) if key in column else "-" for column in columns.values()]))
    ratios = [
        f"{column['wall_ms']['median'] / first['wall_ms']['median']:.2f}"
        if {"wall_ms"} <= column.keys() & first.keys()
        else "-"
        for column in columns.values()
    ]
    rows.append(("times the first", ratios))
    width = max(len(title) for title, _ in rows)
    cells = [max(len(name), *(len(row[index]) for _, row in rows)) for index, name in enumerate(columns)]
    lines = ["  ".join([" " * width, *(name.rjust(size) for name, size in zip(columns, cells, strict=True))])]
    for title, row in rows:
        lines.append(
            "  ".join([title.ljust(width), *(text.rjust(size) for text, size in zip(row, cells, strict=True))])
        )
    return "\n".join(lines)


def _milliseconds(values: Mapping[str, float], median: str, p95: str) -> str:
    return f"{values[median]:.1f} (p95 {values[p95]:.1f})" if values else "-"


def write_benchmark(path: Path, content: Mapping[str, Any]) -> None:
    """Writes `content` as JSON, whole or not at all."""
    with atomic_write(path, "w") as file:
        json.dump(content, file, indent=1)
