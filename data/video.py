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
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from data.transforms import FrameTransform
from utils.structures import FrameInput, FrameMeta
from ytvis.files import InputError, make_folder, natural_key, writing
from ytvis.pictures import PICTURE_SUFFIXES, list_pictures, read_picture

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_FRAME_RATE = 25.0  # of what has no time stamps

# Visually close to the source at a size people send around; libx264's own scale, 0 is lossless, 51 the worst.
_CONSTANT_RATE_FACTOR = 20
_LONGER_SOUND = 1.0  # seconds that a file's sound often continues after its last picture
_CAMERA_DIGITS = 4  # of a camera's number at most
# The clock of videos whose frames have time stamps: 90 kHz, as in MPEG, holds all usual frame rates exactly.
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

    `reads_ahead`: a thread may fetch frames before they are requested. What cannot be read is skipped and reported at
    the end: the iteration raises InputError after the last frame that could be read. Closing the iterator releases
    whatever the source holds open.
    """

    name: str
    num_frames: int | None
    frame_rate: float
    reads_ahead: bool

    def __iter__(self) -> Iterator[SourceFrame]: ...


def open_source(
    source: str | os.PathLike | int | Iterable[Any] | FrameSource, frame_rate: float = DEFAULT_FRAME_RATE
) -> FrameSource:
    """The frames of `source`: a video file or stream address, a picture, a folder or a glob of pictures (in natural
    order), a camera's number (int or digits), or any iterable of frames (see `FrameIterable`). A source stays as it is.

    `frame_rate` makes the time stamps of pictures and iterables, which have none.

    Raises:
        InputError: there is nothing of the kind, or it cannot be opened. A camera is opened when iteration begins.
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
    raise InputError(f"{text}: no such file or folder, no camera's number, and no pattern such as frames/*.jpg")


class VideoFile:
    """The frames of a video file, with the time stamps they are shown at, and upright as players show them.

    All have the size of the first. Time stamps rise strictly: one that is missing or does not is set to a frame's
    duration after the one before. `pixel_aspect` is the width of a pixel over its height, as it is to be shown; where
    the file turns its pictures, from the first frame on.
    """

    reads_ahead = True
    pixel_aspect = Fraction(1)

    def __init__(self, path: str | os.PathLike):
        """Reads the file's head.

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
            early = f"it ends {seconds - end:.1f} seconds early, as a file does that was cut off"
            if is_exact:
                faults.append(early)
            elif seconds - end > _LONGER_SOUND:
                logger.warning("%s: %s, or whose sound is longer than its pictures", self.name, early)
        if faults:
            raise InputError(f"{self.name}: broken: {faults[0]}; {index} frames could be read")

    def _open(self) -> av.container.InputContainer:
        try:
            container = av.open(self.name)
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(f"{self.name}: cannot be opened as a video ({_reason(error)})") from None
        if container.streams.best("video") is None:
            container.close()
            raise InputError(f"{self.name}: holds no pictures")
        return container


def _decoded(container: av.container.InputContainer, faults: list[str]) -> Iterator[av.VideoFrame]:
    """The frames that can be decoded; a line for each fault goes to `faults`."""
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
    """(where the pictures end, in seconds since the file's start, as its head has it; whether that is of the pictures
    alone, not of the whole file). 0 if it is not known."""
    stream = container.streams.best("video")
    offset = (container.start_time or 0) / av.time_base
    if stream.duration and ("mp4" in container.format.name or container.format.name == "avi"):
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - offset, True
    return (container.duration or 0) / av.time_base, len(container.streams) == 1


def _upright(frame: np.ndarray, picture: av.VideoFrame) -> np.ndarray:
    """`frame` turned and mirrored by the quarters that the display matrix of a phone's video asks for."""
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
    """a, b, c, d: a pixel (x, y) is shown at (a·x + c·y, b·x + d·y), but for a common factor."""
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
            raise InputError(f"{name}: holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
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
    """The pictures of a camera by its number, from 0, until the iteration is closed; time runs from the first."""

    reads_ahead = True
    num_frames = None

    def __init__(self, number: int):
        self.number = number
        self.name = f"camera {number}"
        self.frame_rate = DEFAULT_FRAME_RATE

    def __iter__(self) -> Iterator[SourceFrame]:
        capture = cv2.VideoCapture(self.number)
        try:
            if not capture.isOpened():
                raise InputError(f"{self.name} cannot be opened: is it connected, and used by no other program?")
            begin = None
            index = 0
            while True:
                is_read, picture = capture.read()
                now = time.monotonic()
                if not is_read:
                    raise InputError(f"{self.name} gives no more pictures, after {index}")
                begin = now if begin is None else begin
                yield SourceFrame(index, now - begin, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
                index += 1
        finally:
            capture.release()


class FrameIterable:
    """The frames of an iterable; each is fetched only when it is requested.

    They are arrays [h,w,3] uint8 RGB or PIL images, which are turned upright as their EXIF tag says. Where the
    iteration ends, a generator is closed.

    Raises:
        TypeError: `frames` cannot be iterated over; or, by the iteration, a frame is of another type.
        ValueError: by the iteration, a frame is of another shape, empty, or a PIL image of more than 8 bits a channel.
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


def read_source(
    source: FrameSource, transform: FrameTransform, scene_cuts: Callable[[np.ndarray], bool] | None = None
) -> Iterator[FrameInput]:
    """The frames of `source` ready for the network, with their own pixels; read ahead where the source allows it.

    `scene_cuts` returns for each whether it begins a new shot. Which frame is the last is not known in time, so none is
    marked as such.
    """
    frames = _prepared(source, transform, scene_cuts)
    return read_ahead(frames) if source.reads_ahead else frames


def _prepared(
    source: FrameSource, transform: FrameTransform, scene_cuts: Callable[[np.ndarray], bool] | None
) -> Iterator[FrameInput]:
    with closing(iter(source)) as items:
        for item in items:
            image, resized_hw, padded_hw = transform(item.frame)
            meta = FrameMeta(
                video_id=0,
                frame_index=item.index,
                original_hw=item.frame.shape[:2],
                resized_hw=resized_hw,
                padded_hw=padded_hw,
                time_s=item.time_s,
                name=item.name,
                is_cut=scene_cuts is not None and scene_cuts(item.frame),
            )
            yield FrameInput(meta, image, is_last=False, frame=item.frame)


def read_ahead(items: Iterable[T], size: int = 4) -> Iterator[T]:
    """`items` in their order, fetched by a thread that is at most `size` of them ahead.

    What `items` raises is raised here, after the item before it. When this generator is closed, the thread is ended and
    the iterator of `items`, if it is a generator, closed. The thread runs in the caller's context (`contextvars`).
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
        while thread.is_alive():  # it may be waiting for a place in the queue
            with suppress(queue.Empty):
                fetched.get_nowait()
            thread.join(timeout=0.01)


class SceneCuts:
    """Decides frame by frame whether it begins a new shot.

    Frames are compared at 64×36 pixels. It is a cut where more than the part `threshold` (0…1) of the pixels would have
    to change to another of 4×4×4 colours to make one frame's histogram the other's, and the pixels differ by more than
    20 levels of 255 on average. A pan keeps the histogram, a change of light or slow motion the pixels. A flash counts
    as a cut, a dissolve does not.

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
    """A context manager that makes the mp4 file `path` of the frames given to `write`, whole or not at all.

        with VideoWriter("out.mp4", frame_rate=25, size_hw=(720, 1280)) as writer:
            writer.write(frame)  # uint8 RGB [720,1280,3]

    The frames go to a temporary file in the same folder (created if missing), which is renamed over `path` when the
    block ends and removed when it ends with an exception; `path` then holds what it held before. Without a single
    frame no file is made. `frame_rate` is in frames per second, `size_hw` the frames' (height, width) in pixels.

    `audio_from` is a file whose sound is taken along, from its start to the end of the last frame: copied as it is, or
    as AAC if mp4 players would not know it. A file without sound, or whose sound cannot be read, gives none.

    `pixel_aspect` is the width of a pixel over its height, as players are to show it.

    H.264 with halved chroma, which is what players show everywhere, needs even sides: an odd side grows by one pixel
    that repeats the edge.

    Raises:
        ValueError: a frame rate or a side that is not positive.
        InputError: the file or its folder cannot be written: the disk is full, say.
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
                # x264's usual one takes 2.6 times as long for a file of the same size that is 0.8 dB closer.
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

        Either all frames have a time, or none has, and they follow each other at the frame rate. A time that is not
        after that of the frame before is set 1/90000 second after it.

        Raises:
            InputError: the disk is full, say.
            ValueError: another shape or dtype, or a time where the first frame had none, or the other way round.
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
