"""Measures the speed of a run, compared with the peak of the machine, for `eval.py --benchmark`."""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from data.transforms import FrameTransform
from inference.network import Model, computes_at_anchors
from inference.run_options import RunSettings
from layers.cpu.fused_convolution import FusedConv2d
from utils.device import describe_machine, peak_memory_mib, synchronize
from utils.precision import PRECISIONS
from utils.timer import StageTimer
from ytvis.files import atomic_write

BASELINE = RunSettings(deform_backend="torchvision", overlap=False, fused=False)
PEAK_SHAPES = (
    (256, 48, 80, 3),
    (256, 96, 160, 3),
    (512, 24, 40, 3),
    (512, 48, 80, 1),
)  # channels, height, width, kernel
PEAK_REPEATS = 5


@dataclass
class Measurement:
    """The times of one run over many frames: the stages of `timer`, and the end of each frame.

    Frames go through the network `batch_size` at a time.
    """

    name: str
    timer: StageTimer
    batch_size: int = 1
    ends: array = field(default_factory=lambda: array("d"))

    def frame_done(self) -> None:
        """Ends a frame, also in `timer`."""
        self.timer.frame_done()
        self.ends.append(time.perf_counter())

    def summary(self, gflop: float | None = None, peak: float | None = None) -> dict[str, Any]:
        """Milliseconds by stage, "stages", over all frames; and from the second batch on "wall_ms", median and 95th
        percentile from the end of a frame to the end of the next (a batch in equal parts), and frames per second.

        `overhead` is the difference of that median to the network's. `gflop` is the network's work for a frame, in 10⁹
        floating-point operations, `peak` the machine's limit a second, and `gflops` the network's rate. Values that
        need more frames are left out.
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


def report_benchmark(
    model: Model,
    settings: RunSettings,
    measured: Measurement,
    path: Path,
    repeat: Callable[[RunSettings, Measurement], None] | None = None,
) -> None:
    """Prints the speed of `model` in the run `measured`, made with `settings`, and writes it to the JSON file `path`.

    `repeat`, if given, does the same work with other settings for comparison: `BASELINE`, and, if the network was
    compiled, `settings` without that.
    """
    memory = peak_memory_mib(model.device)
    runs = [(settings, measured)]
    if repeat is not None:
        others = {"not compiled": replace(settings, compiled=False)} if settings.compiled else {}
        for name, other in (others | {"baseline": BASELINE}).items():
            runs.append((other, Measurement(name, StageTimer(model.device), other.batch_size)))
            repeat(*runs[-1])
    peaks = {precision: peak_gflops(precision, model.device) for precision in {run.precision for run, _ in runs}}
    gflops = {used: gflop_per_frame(model, used) for used, _ in runs}
    columns = {
        run.name: asdict(used) | {"gflop": gflops[used]} | run.summary(gflops[used], peaks[used.precision])
        for used, run in runs
    }
    machine = describe_machine(model.device)
    content = {"config": model.config.name, "machine": machine, "peaks_gflops": peaks, "peak_memory_mib": memory}
    with atomic_write(path, "w") as file:
        json.dump(content | {"runs": columns}, file, indent=1)
    print(f"\n{model.config.name}: " + ", ".join(f"{name} {value}" for name, value in machine.items()))
    print(format_columns(columns))
    print(
        f"network {gflops[settings]:.1f} GFLOP a frame, counted as direct convolutions (Winograd's take a quarter); "
        "peak of direct ones in GFLOP/s: " + ", ".join(f"{p} {v:.0f}" for p, v in peaks.items())
    )
    if settings.compiled:
        warm_up = columns[measured.name]["stages"]["network"]["max_ms"] / 1000
        print(f"slowest frame, which includes the compilation: {warm_up:.1f} s")
    print(f"peak memory {memory:.0f} MiB; benchmark: {path}")


def gflop_per_frame(model: Model, settings: RunSettings) -> float:
    """The 10⁹ floating-point operations of `model` for a frame with `settings`; see `count_gflop`."""
    head = model.prediction_layers[0]
    head.at_anchors = settings.fused and computes_at_anchors(model.device, pack=not settings.compiled)
    try:
        return count_gflop(model, FrameTransform.from_config(model.config).padded_hw)
    finally:
        head.at_anchors = False


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


def peak_gflops(precision: str, device: torch.device) -> float:
    """The machine's convolution peak in 10⁹ operations a second, reached by fused, direct convolutions."""
    dtype = PRECISIONS[precision]
    return convolution_peak(device, dtype, lambda conv: FusedConv2d(conv, dtype=dtype, direct=True))


def convolution_peak(device: torch.device, dtype: torch.dtype, convolve: Callable[[nn.Conv2d], nn.Module]) -> float:
    """The most 10⁹ floating-point operations a second of convolutions of some usual shapes here, in `dtype`.

    `convolve` turns a convolution into the module to run: a direct one, so that it does all these operations. Takes
    about a second, and far longer where `dtype` is slow.
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
    """Seconds of the fastest of a few calls, after a warm-up call."""
    seconds = []
    with torch.inference_mode():
        for _ in range(PEAK_REPEATS + 1):
            synchronize(device)
            begin = time.perf_counter()
            function()
            synchronize(device)
            seconds.append(time.perf_counter() - begin)
    return min(seconds[1:])


def format_columns(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of `Measurement.summary`s, one a column; the last row is the time as a multiple of the first one's."""
    rows = {}
    for stage in dict.fromkeys(stage for column in columns.values() for stage in column["stages"]):
        times = (column["stages"].get(stage) for column in columns.values())
        rows[f"{stage}, ms"] = [_milliseconds(values, "median_ms", "p95_ms") for values in times]
    rows["wall, ms"] = [_milliseconds(column.get("wall_ms"), "median", "p95") for column in columns.values()]
    for key, title, form in (
        ("fps", "FPS", "{:.2f}"),
        ("overhead", "over the network alone", "{:.1%}"),
        ("gflops", "network, GFLOP/s", "{:.0f}"),
        ("part_of_peak", "of the convolution peak", "{:.0%}"),
    ):
        rows[title] = [form.format(column[key]) if key in column else "-" for column in columns.values()]
    walls = [column.get("wall_ms", {}).get("median") for column in columns.values()]
    rows["times the first"] = [f"{wall / walls[0]:.2f}" if wall and walls[0] else "-" for wall in walls]
    width = max(map(len, rows))
    cells = [max(map(len, column)) for column in zip(columns, *rows.values(), strict=True)]
    lines = [
        "  ".join([title.ljust(width), *(text.rjust(size) for text, size in zip(row, cells, strict=True))])
        for title, row in {"": list(columns), **rows}.items()
    ]
    return "\n".join(lines)


def _milliseconds(values: Mapping[str, float] | None, median: str, p95: str) -> str:
    return f"{values[median]:.1f} (p95 {values[p95]:.1f})" if values else "-"
