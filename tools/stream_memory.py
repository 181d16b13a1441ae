"""Measures the memory of `eval.py --video` by the length of the video.

    python -m tools.stream_memory [--frames 5000] [--every 500] [OPTION OF eval.py …]

The video is H.264 of 160×96 pixels: frames of the drawn demo set, repeated, so that tracks start and end. The weights
are the demo's, at a small input size to save time. "end" is the memory after all files are written, "peak" that of the
whole run.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from unittest import mock

import cv2
import numpy as np

import eval as command
import inference.own_video as own_video
from data.synthetic import draw_video
from data.video import VideoWriter
from inference.output_files import OutputFiles
from utils.device import peak_memory_mib, pick_device
from ytvis.command_line import Parser

ROOT = Path(__file__).parent.parent
SIZE_HW = (96, 160)


@dataclass(frozen=True)
class Memory:
    """MiB of the process: by number of frames done, after the files are written, and the peak."""

    by_frames: dict[int, float]
    end: float
    peak: float


def shapes_frames(size_hw: tuple[int, int], num_videos: int = 8) -> Iterator[np.ndarray]:
    """Endless frames [h,w,3] uint8 RGB of some videos of the demo set."""
    videos = [draw_video(0, "valid", number).frames for number in range(num_videos)]
    yield from cycle([cv2.resize(frame, size_hw[::-1]) for frames in videos for frame in frames])


def write_long_video(path: Path, num_frames: int) -> None:
    """An mp4 file of `shapes_frames`."""
    with VideoWriter(path, 25, SIZE_HW) as writer:
        for frame in islice(shapes_frames(SIZE_HW), num_frames):
            writer.write(frame)


def resident_mib() -> float:
    """The resident memory of the process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(folder: Path, num_frames: int, every: int, options: Sequence[str] = ()) -> Memory:
    """The memory of `eval.py --video` with `options`, over a video of `num_frames` that is written into `folder`."""
    by_frames: dict[int, float] = {}

    class Watched(OutputFiles):
        def add(self, *arguments) -> None:
            super().add(*arguments)
            if self.num_frames % every == 0:
                by_frames[self.num_frames] = resident_mib()

    write_long_video(folder / "in.mp4", num_frames)
    line = (f"--trained_model={ROOT / 'weights' / 'STMask_demo.pth'}", "--set=input.size_hw=64,96")
    with mock.patch.object(own_video, "OutputFiles", Watched):
        code = command.main([*line, "--device=cpu", f"--video={folder / 'in.mp4'}:{folder / 'out.mp4'}", *options])
    assert code == 0, f"eval.py ended with exit code {code}"
    return Memory(by_frames, resident_mib(), peak_memory_mib(pick_device("cpu")))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--frames", type=int, default=5000, help="frames of the video (default: %(default)s)")
    parser.add_argument("--every", type=int, default=500, help="frames between two lines (default: %(default)s)")
    options, others = parser.parse_known_args(arguments)  # the others are eval.py's
    with tempfile.TemporaryDirectory() as folder:
        memory = measure(Path(folder), options.frames, options.every, others)
    for frames, mib in {**memory.by_frames, "end": memory.end, "peak": memory.peak}.items():
        print(f"{frames!s:>8}  {mib:7.1f} MiB")


if __name__ == "__main__":
    main()
