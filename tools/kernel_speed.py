"""Times our deformable convolutions against torchvision's: the layer on P3, alternating in one process.

    python -m tools.kernel_speed --output=results/kernel.json --picture=docs/images/kernel_speed.png

Input 1×256×48×80, 3×3, 256→256, modulated. "bf16" are our kernels with columns and weights in bfloat16; the native one
is many times slower on a processor without bfloat16 instructions. They and the kernels for a GPU only go forward. Times
are the fastest of several rounds, wall time and CPU time (all threads together). The ratio is of CPU times, which other
work on the machine changes little, and on a GPU of wall times.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib import style
from matplotlib.figure import Figure

from layers.cuda.deform_kernels import KERNELS
from layers.deform_conv import available_backends, deform_backend, deformable_conv2d, runs_on
from tools.plot import STYLE, save_figure
from utils.device import describe_machine, pick_device, synchronize
from ytvis.command_line import Parser
from ytvis.files import atomic_write

P3 = (256, 48, 80)  # channels, height, width
BASELINE = "torchvision"
CPU = torch.device("cpu")


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="calls of each backend (default: %(default)s)")
    parser.add_argument("--bf16", action="store_true", help="also time bfloat16 columns")
    parser.add_argument("--device", help="cpu, cuda, … (default: cpu)", default="cpu")
    parser.add_argument("--output", type=Path, default=Path("kernel.json"), help="default: %(default)s")
    parser.add_argument("--picture", type=Path, help="PNG or SVG file of the bars")
    options = parser.parse_args()
    device = pick_device(options.device)
    measured = measure(options.rounds, options.bf16, device=device)
    with atomic_write(options.output, "w") as file:
        json.dump(measured, file, indent=1)
    if options.picture:
        with style.context(STYLE):
            save_figure(draw(measured), options.picture)
    for task, times in measured["cpu_ms" if device.type == "cpu" else "wall_ms"].items():
        for name, compared in times.items():
            wall, cpu = (measured[clock][task][name] for clock in ("wall_ms", "cpu_ms"))
            ratio = times[BASELINE] / compared
            print(f"{task:>18} {name:>13} {wall:9.2f} ms, of the CPU {cpu:9.2f} ms {ratio:6.2f} times")


def measure(rounds: int, bf16: bool = False, layer: tuple[int, int, int] = P3, device: torch.device = CPU) -> dict:
    """{"machine", "layer", "wall_ms", "cpu_ms"}, the last two {task: {backend: milliseconds}}.

    `layer` is (channels, height, width) of the features.
    """
    tasks = {"forward": forward, "forward+backward": forward_and_backward}
    names = [name for name in available_backends() if name != "mmcv" and runs_on(name, device)]
    clocks = {"wall_ms": time.perf_counter, "cpu_ms": time.process_time}
    fastest: dict[str, dict] = {clock: {} for clock in clocks}
    for task, work in tasks.items():
        used = names if task == "forward" else [name for name in names if name not in KERNELS]
        calls = {name: call_of(work, name, layer, device) for name in used}
        if bf16 and task == "forward":
            ours = [name for name in names if name != BASELINE]
            calls |= {f"{name} bf16": call_of(work, name, layer, device, autocast=True) for name in ours}
        seconds = {name: {clock: [] for clock in clocks} for name in calls}
        for _ in range(rounds + 1):
            for name, call in calls.items():
                begins = {clock: now() for clock, now in clocks.items()}
                call()
                for clock, now in clocks.items():
                    seconds[name][clock].append(now() - begins[clock])
        for clock in clocks:  # the first one warms up
            fastest[clock][task] = {name: 1000 * min(rows[clock][1:]) for name, rows in seconds.items()}
    return {"machine": describe_machine(device), "layer": list(layer), **fastest}


def call_of(
    work: Callable, backend: str, layer: tuple[int, int, int], device: torch.device, autocast: bool = False
) -> Callable[[], None]:
    """Runs `work` of that layer on that backend."""
    channels, height, width = layer
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, channels, height, width, generator=generator)
    features = features.contiguous(memory_format=torch.channels_last)
    offsets = torch.randn(1, 18, height, width, generator=generator)
    modulation = torch.rand(1, 9, height, width, generator=generator)
    weight = torch.randn(channels, channels, 3, 3, generator=generator) / channels
    inputs = [
        x.to(device).requires_grad_(work is forward_and_backward) for x in (features, offsets, modulation, weight)
    ]

    def call() -> None:
        with deform_backend(backend), torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            work(*inputs)
        synchronize(device)

    return call


@torch.inference_mode()
def forward(features, offsets, modulation, weight) -> None:
    deformable_conv2d(features, offsets, weight, None, modulation, padding=(1, 1))


def forward_and_backward(features, offsets, modulation, weight) -> None:
    out = deformable_conv2d(features, offsets, weight, None, modulation, padding=(1, 1))
    torch.autograd.grad(out.sum(), (features, offsets, modulation, weight))


def draw(measured: dict) -> Figure:
    """The CPU times of each backend, a panel a task."""
    figure = Figure((10, 2.4), dpi=100, layout="constrained")
    for place, (task, times) in enumerate(measured["cpu_ms"].items(), start=1):
        axes = figure.add_subplot(1, len(measured["cpu_ms"]), place, title=task, xlabel="CPU time, ms")
        bars = axes.barh(list(times), list(times.values()), color="C0")
        axes.bar_label(bars, [f"{ms:.1f} ({times[BASELINE] / ms:.1f}×)" for ms in times.values()], padding=3)
        axes.set_xlim(0, 1.45 * max(times.values()))
        axes.invert_yaxis()
    return figure


if __name__ == "__main__":
    main()
