"""Writing videos as H.264 in mp4."""

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.video.reformatter import Colorspace

# Visually close to the source at a size people send around; libx264's own scale, 0 is lossless, 51 the worst.
_CONSTANT_RATE_FACTOR = 20


class VideoWriter:
    """A context manager that makes the mp4 file `path` of the frames given to `write`, whole or not at all.

        with VideoWriter("out.mp4", frame_rate=25, size_hw=(720, 1280)) as writer:
            writer.write(frame)  # uint8 RGB [720,1280,3]

    The frames go to a temporary file in the same folder (created if missing), which is renamed over `path` when the
    block ends and removed when it ends with an exception; `path` then holds what it held before. Without a single
    frame no file is made. `frame_rate` is in frames per second, `size_hw` the frames' (height, width) in pixels.

    H.264 with halved chroma, which is what players show everywhere, wants even sides: an odd side grows by one pixel
    that repeats the edge.

    Raises:
        ValueError: a frame rate or a side that is not positive.
    """

    def __init__(self, path: str | os.PathLike, frame_rate: float | Fraction, size_hw: tuple[int, int]):
        if not 0 < frame_rate < float("inf") or min(size_hw) < 1:
            raise ValueError(f"a video of {frame_rate} frames per second and {size_hw} pixels cannot be written")
        self._path = Path(path)
        self._partial = self._path.with_name(f".{self._path.name}.{os.getpid()}.partial")
        # 1001 is the denominator of the broadcast rates, 29.97 being 30000/1001.
        self._frame_rate = Fraction(frame_rate).limit_denominator(1001)
        self._size_hw = tuple(size_hw)
        self._padding = tuple((0, side % 2) for side in size_hw)

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # The index goes to the front of the file, so that a browser can play it while it loads.
        self._container = av.open(str(self._partial), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream(
            "libx264",
            rate=self._frame_rate,
            options={
                "crf": str(_CONSTANT_RATE_FACTOR),
                # Untagged, players guess the colour matrix from the size, and shift the colours of small videos.
                "x264-params": "colorprim=bt709:transfer=bt709:colormatrix=bt709",
            },
        )
        self._stream.height, self._stream.width = (side + side % 2 for side in self._size_hw)
        self._stream.pix_fmt = "yuv420p"
        return self

    def write(self, frame: np.ndarray) -> None:
        """Appends one frame: uint8 RGB [h,w,3] of the writer's `size_hw`.

        Raises:
            ValueError: another shape or dtype.
        """
        if frame.shape != (*self._size_hw, 3) or frame.dtype != np.uint8:
            raise ValueError(
                f"{self._path} takes uint8 frames of shape {(*self._size_hw, 3)}, not {frame.dtype} {frame.shape}"
            )
        even = np.pad(frame, (*self._padding, (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(even, format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        self._container.mux(self._stream.encode(picture))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with self._container:
                if kind is None:
                    self._container.mux(self._stream.encode())
            if kind is None and self._partial.exists():
                os.replace(self._partial, self._path)
        finally:
            self._partial.unlink(missing_ok=True)
