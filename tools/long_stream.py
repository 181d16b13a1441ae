"""Measures memory and CPU time of `model.stream` over a long video, every thousand frames.

    OMP_NUM_THREADS=1 python -m tools.long_stream --output=results/long_stream.json --picture=results/long_stream.png

The frames are those of some videos of the drawn demo set, repeated, so that objects enter and leave and track ids grow.
The weights are the demo's. CPU time is reported, because other work on the machine changes it little.
"""

import json
import time
from itertools import islice
from pathlib import Path

from matplotlib import style
from matplotlib.figure import Figure

from data.config import get_config
from stmask import STMask
from tools.plot import STYLE, save_figure
from tools.stream_memory import resident_mib, shapes_frames
from utils.device import describe_machine
from ytvis.command_line import Parser
from ytvis.files import atomic_write

WEIGHTS = Path(__file__).parent.parent / "weights" / "STMask_demo.pth"


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--every", type=int, default=1000, help="frames between two measurements (default: 1000)")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 160), metavar=("H", "W"), help="default: 96 160")
    parser.add_argument("--output", type=Path, default=Path("long_stream.json"), help="default: %(default)s")
    parser.add_argument("--picture", type=Path, help="PNG or SVG file of the curves")
    options = parser.parse_args()
    measured = measure(options.frames, options.every, tuple(options.size))
    with atomic_write(options.output, "w") as file:
        json.dump(measured, file, indent=1)
    if options.picture:
        with style.context(STYLE):
            save_figure(draw(measured), options.picture)
    for row in measured["rows"]:
        print("{frames:>7} frames {memory_mib:8.1f} MiB {cpu_ms:7.2f} ms/frame, {track_ids} track ids".format(**row))


def measure(num_frames: int, every: int, size_hw: tuple[int, int]) -> dict:
    """{"machine", "size_hw", "rows"}, a row every `every` frames of a stream of `num_frames`.

    A row has the memory of the process in MiB, the CPU milliseconds per frame since the row before, and the number of
    track ids so far.
    """
    model = STMask.from_pretrained(WEIGHTS, get_config("STMask_demo_config", {"input.size_hw": size_hw}), "cpu")
    rows, largest = [], -1
    begin = time.process_time()
    with model.stream(islice(shapes_frames(size_hw, num_videos=12), num_frames)) as stream:
        for number, frame in enumerate(stream, start=1):
            largest = max(largest, frame.track_ids.max().item() if len(frame.track_ids) else -1)
            if number % every == 0:
                spent = time.process_time() - begin
                rows.append(
                    {
                        "frames": number,
                        "memory_mib": resident_mib(),
                        "cpu_ms": 1000 * spent / every,
                        "track_ids": largest + 1,
                    }
                )
                begin = time.process_time()
    return {"machine": describe_machine(model.device), "size_hw": list(size_hw), "rows": rows}


def draw(measured: dict) -> Figure:
    """The curves of memory and time."""
    rows = measured["rows"]
    frames = [row["frames"] for row in rows]
    figure = Figure((10, 3.2), dpi=100, layout="constrained")
    for place, (key, title) in enumerate((("memory_mib", "memory, MiB"), ("cpu_ms", "CPU ms per frame")), start=1):
        axes = figure.add_subplot(1, 2, place, title=title, xlabel="frames")
        values = [row[key] for row in rows]
        axes.plot(frames, values, marker=".")
        axes.set_ylim(0, 1.3 * max(values))
        axes.grid(alpha=0.3)
    return figure


if __name__ == "__main__":
    main()
