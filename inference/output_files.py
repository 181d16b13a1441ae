"""Writes the files of a tracked stream: the drawn video or pictures, and the tracks beside them.

source, target = split_paths("in.mp4:out.mp4")
with OutputFiles(open_source(source), "video", target, class_names) as files:
    for frame in model.stream(files.source):
        files.add(frame.rows, frame.draw(), frame.index, frame.time_s, frame.name)
files.written                                       # out.mp4, out.json
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import cv2
import numpy as np

from data.video import FrameSource, ImageFiles, VideoWriter
from inference.frame_journal import ENDING, FrameJournal
from inference.object_rows import ObjectRow, frame_file_name, write_csv, write_mots
from ytvis.annotations import Track
from ytvis.files import InputError, atomic_write
from ytvis.pictures import PICTURE_SUFFIXES
from ytvis.results import write_results

logger = logging.getLogger(__name__)

Kind = Literal["video", "images", "image"]
DEFAULT_FOLDER = Path("results")


def default_target(source: FrameSource, kind: Kind) -> Path:
    """The default path of the drawing: results/<name>.mp4, results/<name>/ or results/<name>.png."""
    stem = re.sub(r"[^\w.-]+", "_", Path(source.name.rstrip("/\\")).stem).strip("_") or "frames"
    return DEFAULT_FOLDER / {"video": f"{stem}.mp4", "images": stem, "image": f"{stem}.png"}[kind]


def write_picture(picture: np.ndarray, path: str | os.PathLike) -> None:
    """Writes a picture [h,w,3] uint8 RGB in the format of the suffix of `path`, whole or not at all.

    Raises:
        InputError: the format is unknown, or the file cannot be written.
    """
    path = Path(path)
    try:
        is_encoded, content = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error:
        is_encoded = False
    if not is_encoded:
        raise InputError(f"{path}: pictures cannot be written as {path.suffix or 'a file without suffix'}; use .png")
    with atomic_write(path, "wb") as file:
        file.write(content)


def describe_tracks(tracks: Counter) -> str:
    """The number of tracks, and of those of each of the most frequent classes."""
    names = ", ".join(f"{count} {name}" for name, count in tracks.most_common(8))
    return f"{tracks.total()} tracks{': ' if tracks else ''}{names}{', …' if len(tracks) > 8 else ''}"


class OutputFiles:
    """A context manager that writes the drawings and objects of the frames of `source`, given to `add` one by one.

    `kind` is the type of `target`: an mp4 file for "video", with the source's time stamps and sound; a folder for
    "images", each under its own name; a picture file for "image". Beside it come `<target>.json` in the format of
    results.json (video 1, with the `category_ids` of `class_names`, by default 1…C; with `details` also each frame's
    score and whether it is shifted), `<target>_video.json`, which names classes and frames for the viewer, with `csv`
    `<target>.csv`, and with `mots` the folder `<target>_mots/`. After the block `tracks` counts the tracks of each
    class, and `written` lists the files.

    The rows go to a journal, `<target>.json.partial`, and no more than one track is in memory.
    A journal of that name, of a run that was killed, is renamed.
    If the block ends with an exception, the journal and whole pictures of "images" are kept; to write the files of the
    frames so far, catch it inside.

    Raises:
        InputError: `target` would replace the source, its suffix does not fit the kind, or an "image" is not one
            picture.
    """

    def __init__(
        self,
        source: FrameSource,
        kind: Kind,
        target: str | os.PathLike | None,
        class_names: Sequence[str],
        csv: bool = False,
        mots: bool = False,
        details: bool = False,
        category_ids: Sequence[int] = (),
    ):
        self.source = source
        self.kind = kind
        self.target = Path(target) if target is not None else default_target(source, kind)
        self.class_names = class_names
        self.category_ids = category_ids or range(1, len(class_names) + 1)
        self.num_frames = 0
        self.tracks: Counter[str] = Counter()
        self.written: list[Path] = []
        self._csv, self._mots, self._details = csv, mots, details
        self._labels: list[int] = []  # of the tracks
        self._size_hw: tuple[int, int] | None = None
        self._journal: FrameJournal | None = None
        self._stack = ExitStack()
        self._check()

    def _check(self) -> None:
        suffixes = {"video": (".mp4",), "image": sorted(PICTURE_SUFFIXES), "images": ("",)}[self.kind]
        if self.kind != "images" and self.target.suffix.lower() not in suffixes:
            raise InputError(f"{self.target}: the output of a {self.kind} must end in {' or '.join(suffixes)}")
        if (self.kind == "images") != self.target.is_dir() and self.target.exists():
            raise InputError(f"{self.target}: is {'no' if self.kind == 'images' else 'a'} folder")
        if self.kind == "image" and not (isinstance(self.source, ImageFiles) and len(self.source.paths) == 1):
            raise InputError(f"{self.source.name}: is not one picture; for more pass --images or --video")
        sources = {_real_path(self.source.name)}
        if isinstance(self.source, ImageFiles):
            sources |= {
                _real_path(path).parent if self.kind == "images" else _real_path(path) for path in self.source.paths
            }
            names = [path.name for path in self.source.paths]
            if self.kind == "images" and len(set(names)) < len(names):
                raise InputError(f"{self.source.name}: pictures of several folders have the same name")
        if _real_path(self.target) in sources:
            raise InputError(f"{self.target}: the output would replace the input; name another")

    def beside(self, ending: str) -> Path:
        """The path of a file or folder beside the target, with its name and `ending` for its suffix."""
        stem = self.target.name if self.kind == "images" else self.target.stem
        return self.target.with_name(stem + ending)

    def __enter__(self) -> Self:
        self._stack.__enter__()
        return self

    def add(self, rows: Sequence[ObjectRow], picture: np.ndarray, index: int, time_s: float, name: str = "") -> None:
        """Adds one frame: its objects and its drawing, [h,w,3] uint8 RGB.

        Raises:
            InputError: the frames of a video, or with `mots` of any kind, differ in size, or a picture cannot be
                written.
        """
        self._check_size(picture, name or f"frame {index}")
        if self.kind == "video":
            self._write_frame(picture, time_s)
        else:
            path = self.target / (name or frame_file_name(index)) if self.kind == "images" else self.target
            write_picture(picture, path)
        if self._journal is None:
            self._size_hw = picture.shape[:2]
            header = {"rows_of": self.source.name, "details": self._details} | self._description(picture)
            self._journal = FrameJournal.create(self.beside(f".json{ENDING}"), header)
        self.num_frames = index + 1
        self._journal.append(rows, self.num_frames)

    def _description(self, picture: np.ndarray) -> dict[str, Any]:
        """The header of the `FrameJournal` of the video; `picture` is its first frame."""
        height, width = picture.shape[:2]
        names = [path.name for path in self.source.paths] if isinstance(self.source, ImageFiles) else None
        size = {"width": width, "height": height}
        return {
            "video": {"id": 1, **size, "frame_rate": self.source.frame_rate, "file_names": names},
            "categories": [
                {"id": number, "name": name} for number, name in zip(self.category_ids, self.class_names, strict=True)
            ],
        }

    def _check_size(self, picture: np.ndarray, name: str) -> None:
        needs_one = "a video" if self.kind == "video" else "MOTS text" if self._mots else None
        if needs_one and self._size_hw not in (None, picture.shape[:2]):
            (height, width), (first_height, first_width) = picture.shape[:2], self._size_hw
            raise InputError(
                f"{name}: is {width}×{height}, the frames before it {first_width}×{first_height}: "
                f"{needs_one} has one size"
            )

    def _write_frame(self, picture: np.ndarray, time_s: float) -> None:
        if self._size_hw is None:
            sound = self.source.name if Path(self.source.name).is_file() else None
            aspect = getattr(self.source, "pixel_aspect", Fraction(1))
            writer = VideoWriter(self.target, self.source.frame_rate, picture.shape[:2], sound, aspect)
            try:
                self._writer = self._stack.enter_context(writer)
            except OSError as error:
                raise InputError(f"{self.target}: cannot be written ({error.strerror or error})") from None
        self._writer.write(picture, time_s)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._stack.__exit__(kind, error, traceback)
            if kind is None and self._journal is not None:
                self._write_tables(self._journal)
        finally:
            if self._journal is not None and not self.written:
                path = self._journal.path
                logger.warning("the tracks are kept; python -m inference.frame_journal %s writes their results", path)

    def _write_tables(self, journal: FrameJournal) -> None:
        num_frames = self.num_frames
        if isinstance(self.source, ImageFiles):  # the last of them may be unreadable
            num_frames = self.source.num_frames
        write_results(self._counted(journal.results(num_frames)), self.beside(".json"))
        written = [self.target, self.beside(".json"), journal.write_description(self.beside(".json"), num_frames)]
        if self._csv:
            write_csv(journal.rows(), self.beside(".csv"))
            written.append(self.beside(".csv"))
        if self._mots:
            folder = self.beside("_mots")
            labels = dict(zip(journal.track_ids, self._labels, strict=True))
            path = folder / f"{self.beside('').name}.txt"
            write_mots(journal.rows(), labels, self.class_names, self._size_hw, path)
            written.append(folder)
        journal.remove()
        self.written = written

    def _counted(self, results: Iterable[Track]) -> Iterator[Track]:
        for result in results:
            label = self.category_ids.index(result.category_id) + 1
            self._labels.append(label)
            self.tracks[self.class_names[label - 1]] += 1
            yield result


def _real_path(path: str | os.PathLike) -> Path:
    """`path` without links; links in a circle, at which `Path.resolve` fails, stay."""
    return Path(os.path.realpath(path))
