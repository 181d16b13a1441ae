"""Videos in and out: frame sources (a file, a folder of pictures, a camera, any iterable) and the H.264 writer.

source = open_source("in.mp4")
for item in read_ahead(source):
    item.frame, item.time_s       # uint8 RGB [h,w,3], seconds since the source's start
"""

import contextvars
import glob
import inspect
import logging
import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import Colorspace
from PIL import Image, ImageOps

from data.audio import AudioCopy
from ytvis.files import InputError, make_folder, natural_key, writing
from ytvis.pictures import PICTURE_SUFFIXES, list_pictures, quiet_opencv, read_picture

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_FRAME_RATE = 25.0  # of sources without time stamps

# libx264's scale: 0 is lossless, 51 the worst. This looks close to the source at a moderate file size.
_CONSTANT_RATE_FACTOR = 20
_LONGER_SOUND = 1.0  # seconds that a file's sound often continues after its last picture
_CAMERA_DIGITS = 4  # most digits of a camera's number
# The clock of videos whose frames have time stamps: 90 kHz, as in MPEG, represents all usual frame rates exactly.
_TICK = Fraction(1, 90_000)


# ---------------------------------------------------------------------------------------------------- sources


@dataclass(frozen=True)
class SourceFrame:
    """One frame of a source: its `index` from 0, `time_s` in seconds since the source's start, its pixels `frame`
    [h,w,3] uint8 RGB, and the `name` of its file where each frame has its own."""

    index: int
    time_s: float
    frame: np.ndarray
    name: str = ""


@runtime_checkable
class FrameSource(Protocol):
    """Frames in order. `num_frames` is their expected number, None if unknown; `frame_rate` in frames per second.

    `reads_ahead`: a thread may fetch frames before they are requested. Frames that cannot be read are skipped and
    reported at the end: the iteration raises InputError after the last readable frame. Closing the iterator releases
    all that the source holds open.
    """

    name: str
    num_frames: int | None
    frame_rate: float
    reads_ahead: bool

    def __iter__(self) -> Iterator[SourceFrame]: ...


def open_source(
    source: str | os.PathLike | int | Iterable[Any] | FrameSource, frame_rate: float = DEFAULT_FRAME_RATE
) -> FrameSource:
    """Returns the frames of `source`: a video file or stream address, a picture, a folder or a glob of pictures (in
    natural order), a camera's number (int or digits), or any iterable of frames (see `FrameIterable`). A `FrameSource`
    is returned unchanged.

    `frame_rate` gives the time stamps of pictures and iterables, which have none of their own.

    Raises:
        InputError: the source is not found or cannot be opened. A camera is opened when iteration begins.
        TypeError: `source` is of another type.
    """
    if not 0 < frame_rate < float("inf"):
        raise InputError(f"a frame rate must be over 0, not {frame_rate}")
    if isinstance(source, FrameSource):
        return source
    if isinstance(source, int) and not isinstance(source, bool):
        return Camera(source)
    if not isinstance(source, str | os.PathLike):
        return FrameIterable(source, frame_rate)
    text, path = str(source), Path(source)
    if "://" in text:
        return VideoFile(text)
    if os.path.isdir(path):  # the methods of Path raise where the name is too long
        return ImageFiles(text, [path / name for name in list_pictures(path)], frame_rate)
    if os.path.isfile(path):
        is_picture = path.suffix.lower() in PICTURE_SUFFIXES
        return ImageFiles(text, [path], frame_rate) if is_picture else VideoFile(text)
    if text.isdecimal() and len(text) <= _CAMERA_DIGITS:
        return Camera(int(text))
    if glob.has_magic(text):
        found = sorted(filter(os.path.isfile, glob.glob(text, recursive=True)), key=natural_key)
        return ImageFiles(text, [Path(name) for name in found], frame_rate)
    raise InputError(f"{text}: not a file, a folder, a camera's number or a pattern such as frames/*.jpg")


class VideoFile:
    """The frames of a video file, with their presentation times, and upright as players show them.

    All have the size of the first. Time stamps rise strictly: one that is missing or does not rise is set to a frame's
    duration after the one before. `pixel_aspect` is the width over the height of a pixel as shown; for a file that
    turns its pictures, from the first frame on.
    """

    reads_ahead = True
    pixel_aspect = Fraction(1)

    def __init__(self, path: str | os.PathLike):
        """Reads the file's header.

        Raises:
            InputError: the file cannot be opened as a video, or has no pictures.
        """
        self.name = str(path)
        with self._open() as container:
            stream = container.streams.best("video")
            rate = stream.average_rate or stream.guessed_rate
            seconds, _ = _declared_seconds(container)
            self._stored_aspect = stream.sample_aspect_ratio or Fraction(1)
        self.pixel_aspect = self._stored_aspect
        self.frame_rate = float(rate) if rate else DEFAULT_FRAME_RATE
        self.num_frames = stream.frames or round(seconds * self.frame_rate) or None

    def __iter__(self) -> Iterator[SourceFrame]:
        step = 1 / self.frame_rate
        faults: list[str] = []
        index, time_s, end, longest, size_hw = 0, -step, 0.0, step, None
        with self._open() as container:
            start = (container.start_time or 0) / av.time_base
            has_stamps = container.format.name != "avi"  # which numbers frames as they are decoded, not as shown
            for picture in _decoded(container, faults):
                size_hw = size_hw or (picture.height, picture.width)
                stamp = picture.time - start if has_stamps and picture.time is not None else time_s + step
                stamp = stamp if stamp > time_s else time_s + step
                longest, time_s = max(longest, stamp - time_s), stamp
                end = time_s + (float(picture.duration * picture.time_base) if picture.duration else step)
                frame = picture.to_ndarray(format="rgb24", height=size_hw[0], width=size_hw[1])
                upright = _upright(frame, picture)
                self.pixel_aspect = 1 / self._stored_aspect if _is_sideways(picture) else self._stored_aspect
                yield SourceFrame(index, max(0.0, time_s), upright)
                index += 1
            seconds, is_exact = _declared_seconds(container)
        if seconds - end > max(1.5 * longest, 0.1):  # the last frame's duration is often a guess
            early = f"it ends {seconds - end:.1f} seconds early, as if it was cut off"
            if is_exact:
                faults.append(early)
            elif seconds - end > _LONGER_SOUND:
                logger.warning("%s: %s, or its sound is longer than its pictures", self.name, early)
        if faults:
            raise InputError(f"{self.name}: broken: {faults[0]}; {index} frames could be read")

    def _open(self) -> av.container.InputContainer:
        try:
            container = av.open(self.name)
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{self.name}: cannot be opened as a video ({_reason(error)})") from None
        if container.streams.best("video") is None:
            container.close()
            raise InputError(f"{self.name}: has no pictures")
        return container


def _decoded(container: av.container.InputContainer, faults: list[str]) -> Iterator[av.VideoFrame]:
    """Yields the frames that can be decoded; appends a line to `faults` for each fault."""
    stream = container.streams.best("video")
    stream.thread_type = "AUTO"
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            faults.append(_reason(error))
            return
        if packet is None:
            return
        try:
            pictures = packet.decode()
        except av.error.FFmpegError as error:  # the packets after it may be whole
            faults.append(_reason(error))
            continue
        yield from pictures


def _declared_seconds(container: av.container.InputContainer) -> tuple[float, bool]:
    """(the end of the pictures in seconds since the file's start, as in its header; whether that is the end of the
    pictures alone, not of the whole file). 0 if unknown."""
    stream = container.streams.best("video")
    offset = (container.start_time or 0) / av.time_base
    if stream.duration and ("mp4" in container.format.name or container.format.name == "avi"):
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - offset, True
    return (container.duration or 0) / av.time_base, len(container.streams) == 1


def _upright(frame: np.ndarray, picture: av.VideoFrame) -> np.ndarray:
    """Returns `frame` turned by quarters and mirrored, as in the display matrix of a phone's video."""
    a, b, c, d = _display_matrix(picture)
    if _is_sideways(picture):
        frame = frame.transpose(1, 0, 2)
        a, d = c, b
    return np.ascontiguousarray(frame[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _is_sideways(picture: av.VideoFrame) -> bool:
    """Whether a picture is shown turned by a quarter."""
    a, b, _, _ = _display_matrix(picture)
    return abs(b) > abs(a)


def _display_matrix(picture: av.VideoFrame) -> tuple[int, int, int, int]:
    """a, b, c, d: a pixel (x, y) is shown at (a·x + c·y, b·x + d·y), up to a common factor."""
    side_data = picture.side_data.get(SideDataType.DISPLAYMATRIX)
    if side_data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(side_data, np.int32)[:5].tolist()
    return a, b, c, d


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class ImageFiles:
    """The pictures at `paths` in their order, upright as their EXIF tag says; `name` stands for them in messages."""

    reads_ahead = True

    def __init__(self, name: str, paths: Sequence[Path], frame_rate: float = DEFAULT_FRAME_RATE):
        if not paths:
            raise InputError(f"{name}: has no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
        self.name = name
        self.paths = paths
        self.num_frames = len(paths)
        self.frame_rate = frame_rate

    def __iter__(self) -> Iterator[SourceFrame]:
        faults = []
        for index, path in enumerate(self.paths):
            try:
                frame = read_picture(path)
            except InputError as error:
                logger.warning("%s", error)
                faults.append(str(error))
            else:
                yield SourceFrame(index, index / self.frame_rate, frame, path.name)
        if faults:
            others = f" (and {len(faults) - 1} more of {len(self.paths)} pictures)" if len(faults) > 1 else ""
            raise InputError(faults[0] + others)


class Camera:
    """The pictures of the camera of a number, from 0, until the iteration is closed; times count from the first."""

    reads_ahead = True
    num_frames = None

    def __init__(self, number: int):
        self.number = number
        self.name = f"camera {number}"
        self.frame_rate = DEFAULT_FRAME_RATE

    def __iter__(self) -> Iterator[SourceFrame]:
        with quiet_opencv():
            capture = cv2.VideoCapture(self.number)
        try:
            if not capture.isOpened():
                raise InputError(
                    f"{self.name} cannot be opened: check that it is connected and not used by another program"
                )
            begin = None
            index = 0
            while True:
                is_read, picture = capture.read()
                now = time.monotonic()
                if not is_read:
                    raise InputError(f"{self.name} stopped after {index} pictures")
                begin = now if begin is None else begin
                yield SourceFrame(index, now - begin, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
                index += 1
        finally:
            capture.release()


class FrameIterable:
    """The frames of an iterable; each is fetched only when it is requested.

    They are arrays [h,w,3] uint8 RGB or PIL images, which are turned upright by their EXIF tag. A generator is closed
    when the iteration ends.

    Raises:
        TypeError: `frames` cannot be iterated over; or, during iteration, a frame is of another type.
        ValueError: during iteration, a frame is of another shape, empty, or a PIL image of more than 8 bits a channel.
    """

    reads_ahead = False
    name = "frames"

    def __init__(self, frames: Iterable[Any], frame_rate: float = DEFAULT_FRAME_RATE):
        if not hasattr(frames, "__iter__") and not hasattr(frames, "__getitem__"):
            raise TypeError(
                f"a source of frames is a path, a camera's number or an iterable of frames, not {type(frames).__name__}"
            )
        self.frames = frames
        self.frame_rate = frame_rate
        self.num_frames = len(frames) if hasattr(frames, "__len__") else None

    def __iter__(self) -> Iterator[SourceFrame]:
        try:
            for index, frame in enumerate(self.frames):
                yield SourceFrame(index, index / self.frame_rate, _as_array(frame, f"frame {index}"))
        finally:
            self.close()

    def close(self) -> None:
        """Closes `frames` if it is a generator."""
        if inspect.isgenerator(self.frames):
            self.frames.close()


def _as_array(frame: Any, where: str) -> np.ndarray:
    """A frame of a `FrameIterable` as [h,w,3] uint8 RGB, contiguous; errors begin with `where`."""
    if isinstance(frame, Image.Image):
        if frame.mode in ("I", "F") or frame.mode.startswith("I;"):
            raise ValueError(f"{where}: is a PIL image of mode {frame.mode}, more than 8 bits a channel; scale it to 8")
        frame = np.asarray(ImageOps.exif_transpose(frame).convert("RGB"))
    if not isinstance(frame, np.ndarray):
        raise TypeError(f"{where}: must be an array [h,w,3] uint8 RGB or a PIL image, not {type(frame).__name__}")
    if frame.dtype != np.uint8:
        raise TypeError(f"{where}: must be an array [h,w,3] uint8 RGB, not {frame.dtype}")
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise ValueError(f"{where}: must be an array [h,w,3] uint8 RGB, not of shape {list(frame.shape)}")
    return np.ascontiguousarray(frame)


def read_ahead(items: Iterable[T], size: int = 4) -> Iterator[T]:
    """Yields `items` in order, fetched by a thread that is at most `size` of them ahead.

    An exception of `items` is raised here, after the item before it. Closing this generator ends the thread and closes
    the iterator of `items` if it is a generator. The thread runs in the caller's context (`contextvars`).
    """
    fetched: queue.Queue = queue.Queue(size)
    stopped = threading.Event()

    def fetch() -> None:
        error = None
        iterator = iter(items)
        try:
            for item in iterator:
                fetched.put((item, None))
                if stopped.is_set():
                    break
        except BaseException as raised:
            error = raised
        finally:
            getattr(iterator, "close", lambda: None)()
        if not stopped.is_set():
            fetched.put((None, error or StopIteration()))

    thread = threading.Thread(target=contextvars.copy_context().run, args=(fetch,), name="read_ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = fetched.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for a place in the queue
            with suppress(queue.Empty):
                fetched.get_nowait()
            thread.join(timeout=0.01)


class SceneCuts:
    """Decides frame by frame whether it begins a new shot.

    Frames are compared at 64×36 pixels. A frame is a cut if its histogram of 4×4×4 colours differs from the last one's
    in more than the fraction `threshold` (0…1) of the pixels, and the pixels differ by more than 20 levels of 255 on
    average. A pan changes only the pixels, and a change of light or slow motion only the histogram, so neither is a
    cut. A flash is a cut, a dissolve is not.

    Raises:
        InputError: `threshold` is outside 0…1.
    """

    DEFAULT_THRESHOLD = 0.3
    MIN_DIFFERENCE = 20.0

    def __init__(self, threshold: float = DEFAULT_THRESHOLD):
        if not 0 <= threshold <= 1:
            raise InputError(f"the threshold of a scene cut must be in 0…1, not {threshold}")
        self.threshold = threshold
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def __call__(self, frame: np.ndarray) -> bool:
        """Whether `frame` [h,w,3] uint8 begins a new shot; the first does not."""
        small = cv2.resize(frame, (64, 36), interpolation=cv2.INTER_AREA)
        histogram = cv2.calcHist([small], [0, 1, 2], None, [4, 4, 4], [0, 256] * 3) / (64 * 36)
        last, self._last = self._last, (small, histogram)
        if last is None:
            return False
        changed = float(np.abs(histogram - last[1]).sum()) / 2
        difference = float(np.abs(small.astype(np.int16) - last[0]).mean())
        return changed > self.threshold and difference > self.MIN_DIFFERENCE


# ---------------------------------------------------------------------------------------------------- writing


class VideoWriter:
    """A context manager that writes the frames given to `write` to the mp4 file `path`, whole or not at all.

        with VideoWriter("out.mp4", frame_rate=25, size_hw=(720, 1280)) as writer:
            writer.write(frame)  # uint8 RGB [720,1280,3]

    The frames go to a temporary file in the same folder (created if missing), which is renamed over `path` when the
    block ends and removed when it ends with an exception; `path` is then unchanged. Without frames no file is written.
    `frame_rate` is in frames per second, `size_hw` the frames' (height, width) in pixels.

    The sound of the file `audio_from` is added, from its start to the end of the last frame: unchanged, or as AAC if
    mp4 players do not support its codec. A file without readable sound adds none.

    `pixel_aspect` is the width of a pixel over its height, as shown by players.

    H.264 with halved chroma, which all players support, needs even sides: an odd side grows by one pixel that repeats
    the edge.

    Raises:
        ValueError: a frame rate or a side is not positive.
        InputError: the file or its folder cannot be written, for example because the disk is full.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        frame_rate: float | Fraction,
        size_hw: tuple[int, int],
        audio_from: str | os.PathLike | None = None,
        pixel_aspect: Fraction = Fraction(1),
    ):
        if not 0 < frame_rate < float("inf") or min(size_hw) < 1:
            raise ValueError(f"a video of {frame_rate} frames per second and {size_hw} pixels cannot be written")
        self._path = Path(path)
        self._partial = self._path.with_name(f".{self._path.name[:40]}.{os.getpid()}.partial")
        # 1001 is the denominator of the broadcast rates, 29.97 being 30000/1001.
        self._frame_rate = Fraction(frame_rate).limit_denominator(1001)
        self._size_hw = tuple(size_hw)
        self._padding = tuple((0, side % 2) for side in size_hw)
        self._audio_from = audio_from
        self._pixel_aspect = pixel_aspect

    def __enter__(self) -> Self:
        make_folder(self._path.parent)
        # The index goes to the front of the file, so that a browser can play it while it loads.
        with writing(self._path):
            self._container = av.open(str(self._partial), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream(
            "libx264",
            rate=self._frame_rate,
            options={
                "crf": str(_CONSTANT_RATE_FACTOR),
                # x264's default takes 2.6 times as long for a file of the same size that is 0.8 dB closer.
                "preset": "veryfast",
                # Untagged, players guess the colour matrix from the size, and shift the colours of small videos.
                "x264-params": "colorprim=bt709:transfer=bt709:colormatrix=bt709",
            },
        )
        self._stream.height, self._stream.width = (side + side % 2 for side in self._size_hw)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.sample_aspect_ratio = self._pixel_aspect
        self._audio = AudioCopy(self._audio_from, self._container)
        self._tick: Fraction | None = None  # of the frames' clock, in seconds; None until the first frame
        self._next_pts = 0
        self._end = 0.0
        return self

    def write(self, frame: np.ndarray, time_s: float | None = None) -> None:
        """Appends one frame: uint8 RGB [h,w,3] of the writer's `size_hw`, shown from `time_s` seconds on.

        Either all frames have a time, or none has; without times they follow at the frame rate. A time that is not
        after that of the frame before is set to 1/90000 second after it.

        Raises:
            InputError: the file cannot be written, for example because the disk is full.
            ValueError: another shape or dtype, or only some frames have a time.
        """
        if frame.shape != (*self._size_hw, 3) or frame.dtype != np.uint8:
            raise ValueError(
                f"{self._path} takes uint8 frames of shape {(*self._size_hw, 3)}, not {frame.dtype} {frame.shape}"
            )
        tick = 1 / self._frame_rate if time_s is None else _TICK
        if self._tick is None:
            self._tick = self._stream.codec_context.time_base = self._stream.time_base = tick
        if tick != self._tick:
            raise ValueError(f"{self._path}: either all frames have a time or none")
        even = np.pad(frame, (*self._padding, (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(even, format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        picture.pts = self._next_pts if time_s is None else max(self._next_pts, round(time_s / tick))
        picture.time_base = tick
        picture.duration = round(1 / self._frame_rate / tick)
        self._next_pts = picture.pts + 1
        self._end = float((picture.pts + picture.duration) * tick)
        with writing(self._path):
            self._container.mux(self._stream.encode(picture))
            self._audio.copy_until(float(picture.pts * tick))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with writing(self._path):
                with self._container, closing(self._audio):
                    if kind is None and self._tick is not None:
                        self._container.mux(self._stream.encode())
                        self._audio.copy_until(self._end)
                if kind is None and self._partial.exists():
                    os.replace(self._partial, self._path)
        finally:
            self._partial.unlink(missing_ok=True)
