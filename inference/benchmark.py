"""How fast the network is, run in one way or another: what `eval.py --benchmark` prints and writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from data.transforms import FrameTransform
from inference.measurement import (
    Measurement,
    convolution_peak,
    count_gflop,
    describe_machine,
    format_columns,
    write_benchmark,
)
from inference.network import Network, finds_at_anchors
from layers.cpu.fused_convolution import FusedConv2d
from layers.deform_conv import deform_backend
from utils.device import peak_memory_mib
from utils.precision import PRECISIONS, check_precision
from utils.timer import StageTimer
from ytvis.files import InputError

if TYPE_CHECKING:
    from stmask import STMask


@dataclass(frozen=True)
class Way:
    """How a network is run: what changes its speed and, but for half precision, hardly its results."""

    precision: str = "fp32"
    deform_backend: str = "auto"
    overlap: bool = True
    fused: bool = True
    compiled: bool = False
    batch_size: int = 1

    def check(self, device: torch.device) -> None:
        """Raises InputError if that cannot be had on `device`."""
        check_precision(self.precision, device)
        with deform_backend(self.deform_backend):
            pass
        if self.deform_backend == "native" and device.type != "cpu":
            raise InputError(f"--deform_backend=native runs on a CPU, this is {device}")

    def for_journal(self) -> dict[str, str]:
        """What results may depend on beyond the config; nothing for what is usual."""
        return {} if self.precision == "fp32" else {"precision": self.precision}

    def network(self, model: STMask) -> Network:
        """`model`, run so."""
        return Network(model, self.precision, self.fused, self.compiled)

    def measurement(self, name: str, device: torch.device) -> Measurement:
        """What takes the times of a run on `device`, run so."""
        return Measurement(name, StageTimer(device), self.batch_size)

    def gflop(self, model: STMask) -> float:
        """The 10⁹ floating-point operations that `model` takes for a frame, run so; see `count_gflop`."""
        head = model.prediction_layers[0]
        head.at_anchors = self.fused and finds_at_anchors(model.device, pack=not self.compiled)
        try:
            return count_gflop(model, FrameTransform.from_config(model.config).padded_hw)
        finally:
            head.at_anchors = False


BASELINE = Way(deform_backend="torchvision", overlap=False, fused=False)


def benchmark(
    model: STMask,
    way: Way,
    measured: Measurement,
    path: Path,
    again: Callable[[Way, Measurement], None] | None = None,
) -> None:
    """Prints how fast `model` was in the run `measured`, run in this `way`, and writes it to the JSON file `path`.

    `again`, if given, does the same work in another way: in the plain one, and, if the network was compiled, without;
    these stand beside it.
    """
    memory = peak_memory_mib(model.device)
    runs = [(way, measured)]
    if again is not None:
        others = {"not compiled": replace(way, compiled=False)} if way.compiled else {}
        for name, other in (others | {"baseline": BASELINE}).items():
            runs.append((other, other.measurement(name, model.device)))
            again(*runs[-1])
    precisions = {way.precision for way, _ in runs}
    peaks = {precision: peak_of(precision, model.device) for precision in precisions}
    gflops = {how: how.gflop(model) for how, _ in runs}
    columns = {
        run.name: asdict(how) | {"gflop": gflops[how]} | run.summary(gflops[how], peaks[how.precision])
        for how, run in runs
    }
    machine = describe_machine(model.device)
    write_benchmark(
        path,
        {
            "config": model.config.name,
            "machine": machine,
            "peaks_gflops": peaks,
            "peak_memory_mib": memory,
        }
        | {"runs": columns},
    )
    print(f"\n{model.config.name}: " + ", ".join(f"{name} {value}" for name, value in machine.items()))
    print(format_columns(columns))
    print(
        f"network {gflops[way]:.1f} GFLOP a frame, as direct convolutions count (Winograd's do a quarter of theirs); "
        "peak of direct ones in GFLOP/s: " + ", ".join(f"{p} {v:.0f}" for p, v in peaks.items())
    )
    if way.compiled:
        warm_up = columns[measured.name]["stages"]["network"]["max_ms"] / 1000
        print(f"slowest frame, with the compilation in it: {warm_up:.1f} s")
    print(f"peak memory {memory:.0f} MiB; benchmark: {path}")


def peak_of(precision: str, device: torch.device) -> float:
    """The machine's convolution peak in 10⁹ operations a second, as fused and direct convolutions reach it."""
    dtype = PRECISIONS[precision]
    return convolution_peak(device, dtype, lambda conv: FusedConv2d(conv, dtype=dtype, direct=True))
