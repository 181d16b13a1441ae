"""CVAT for video 1.1: an XML file of a task or a project, whose tracks hold a shape for each frame.

Shapes have the numbers of the source video's frames: a task has those from `start_frame` to `stop_frame`, in the steps
of `frame_filter`, and CVAT names their pictures frame_<number>. It lists every frame of a track when it exports, those
between key frames too; a frame that a file does not list is taken as one where the object is not seen, as is one that
is marked `outside`. Boxes and ellipses count as filled.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from ytvis.annotations import AnnotationFile
from ytvis.convert.shapes import ellipse, refusal, turned
from ytvis.convert.tracks import TrackCollector, collect, is_set, part_to_rle, progress
from ytvis.files import InputError, list_folder, natural_key, read_bytes
from ytvis.frames import is_hidden
from ytvis.messages import shown

logger = logging.getLogger(__name__)

LONGEST_NUMBER = 18  # digits


@dataclass(frozen=True)
class Shape:
    """A shape that is seen, with the number of its frame in the file; `where` names it in messages."""

    element: Element
    track_id: str
    label: str
    frame: int
    where: str


@dataclass(frozen=True)
class Task:
    """A video of a file. `frames` are the numbers of its frames in the source video, None if the file has none."""

    task_id: str | None
    name: str
    height: int
    width: int
    frames: range | None
    shapes: list[Shape] = field(default_factory=list)


def read(
    source: str | os.PathLike,
    images: str | os.PathLike | None = None,
    order: Literal["number", "text"] | None = None,
) -> AnnotationFile:
    """The tracks of an XML file, or of all XML files in a folder.

    A video has the name of its file, or of its task if the file has several. Its pictures are those of
    <images>/<video>/, bound to frames by the numbers in their names, or, if they are as many as the frames, by their
    order (see `bind_frames` for `order`). Without `images` they are guessed to be <video>/frame_000000.jpg and on.

    Raises:
        InputError: a file is not in the format, a shape is not an area, or frames and pictures do not fit.
    """
    source = Path(source)
    paths = [source]
    if source.is_dir():
        names = [name for name in list_folder(source) if name.lower().endswith(".xml") and not is_hidden(name)]
        paths = [source / name for name in sorted(names, key=natural_key)]
    if not paths:
        raise InputError(f"{source}: holds no *.xml")
    tasks = [(path, task) for path in progress(paths, "files") for task in _read_tasks(path)]
    counts = Counter(task.name for _, task in tasks)
    for path, task in tasks:
        if counts[task.name] > 1:
            raise InputError(f"{path}: two tasks are named {task.name!r}; export them task by task, each to its file")
    images = None if images is None else Path(images)
    videos = (_read_video(path, task, images, order, len(tasks) == 1) for path, task in progress(tasks, "videos"))
    return collect(source, videos)


def _read_video(path: Path, task: Task, images: Path | None, order: str | None, is_only: bool) -> TrackCollector:
    where = str(path) if task.name == path.stem else f"{path}: {task.name}"
    collector = TrackCollector(task.name, task.height, task.width, where)
    annotated = {shape.frame for shape in task.shapes}
    frame_indices = collector.bind_numbers(images, is_only, annotated, task.frames, order, "frame_")
    for shape in progress(task.shapes, task.name):
        segmentation = _segmentation(shape.element, (task.height, task.width), shape.where)
        collector.add(shape.track_id, shape.label, frame_indices[shape.frame], segmentation, shape.where)
    return collector


# ---------------------------------------------------------------------------------------------------- the file


class _NoDocumentType(ElementTree.TreeBuilder):
    """Refuses a document type, which can declare entities of any length, and which CVAT never writes."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise InputError("has a document type (<!DOCTYPE), which CVAT writes in no file")


def _read_tasks(path: Path) -> list[Task]:
    """The tasks of a file with their shapes, whose frames are numbered as those of the source video."""
    content = read_bytes(path)
    try:
        root = ElementTree.XML(content, ElementTree.XMLParser(target=_NoDocumentType()))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter of unknown encodings
        raise InputError(f"{path}: not an XML file: {error}") from None
    if root.find("image") is not None:
        raise InputError(f"{path}: holds images without tracks; export it as 'CVAT for video 1.1'")
    if root.find("tag") is not None:
        raise InputError(f"{path}: {refusal('tag')}")
    heads = list(root.iter("task")) or list(root.iter("job")) or root.findall("meta")
    if root.tag != "annotations" or not heads:
        raise InputError(f"{path}: is not a file of 'CVAT for video 1.1', with the original_size of the video")
    tasks = [_task(head, root, path, is_only=len(heads) == 1) for head in heads]
    by_id = {task.task_id: task for task in tasks}
    for track in root.findall("track"):
        task = tasks[0] if len(tasks) == 1 else by_id.get(track.get("task_id"))
        if task is None:
            raise InputError(
                f"{path}: track {track.get('id')} is of none of the {len(tasks)} tasks; export the project task by task"
            )
        task.shapes.extend(_shapes(track, task, f"{path}: track {track.get('id')}"))
    return _renumbered(tasks, path)


def _task(head: Element, root: Element, path: Path, is_only: bool) -> Task:
    """The task, without its shapes, of an element of the file's head."""
    name = path.stem if is_only else " ".join((head.findtext("name") or "").replace("/", "_").split())
    task_id = head.findtext("id")
    if name in ("", ".", ".."):
        name = f"task_{task_id}"
    size = next((root if is_only else head).iter("original_size"), None)
    if size is None:
        raise InputError(f"{path}: lacks the original_size of a video; export it as 'CVAT for video 1.1'")
    height, width = (_integer(size.findtext(key), f"{path}: the video's {key}") for key in ("height", "width"))
    if min(height, width) < 1:
        raise InputError(f"{path}: the video's size is {width}×{height}")
    return Task(task_id, name, height, width, _frames(head, path))


def _frames(head: Element, path: Path) -> range | None:
    """The frames of a task in the source video; None if the file has no size and no last frame."""
    known = {
        key: _integer(text, f"{path}: {key}")
        for key in ("size", "start_frame", "stop_frame")
        if (text := (head.findtext(key) or "").strip())
    }
    step = re.search(r"step\s*=\s*([0-9]{1,9})", head.findtext("frame_filter") or "")
    step = max(1, int(step[1])) if step else 1
    start = known.get("start_frame", 0)
    end = known.get("stop_frame", start + known.get("size", 0) * step - 1) + 1
    return range(start, end, step) or None


def _shapes(track: Element, task: Task, where: str) -> Iterator[Shape]:
    """Every shape of a track that is seen."""
    track_id, label = track.get("id"), track.get("label")
    if not track_id or not label:
        raise InputError(f"{where} lacks its id or its label")
    for element in track:
        if element.tag in ("skeleton", "track"):
            raise InputError(f"{where}: {refusal('skeleton')}")
    frames = [_integer(element.get("frame"), f"{where}: the frame of a shape") for element in track]
    step = 1 if task.frames is None else task.frames.step
    gaps = []
    for element, frame, next_frame in zip(track, frames, [*frames[1:], None], strict=True):
        if not is_set(element.get("outside"), "outside", f"{where}, frame {frame}"):
            yield Shape(element, track_id, label, frame, f"{where}, frame {frame}")
            if next_frame is not None and next_frame > frame + step:
                gaps.append(frame)
    if gaps:
        logger.warning(
            "%s: the frames after frame %d are not listed, nor after %d others: the object is taken as not seen there; "
            "if the file holds only key frames, import it into CVAT and export it again",
            where,
            gaps[0],
            len(gaps) - 1,
        )


def _renumbered(tasks: list[Task], path: Path) -> list[Task]:
    """`tasks` with frames as in the source videos, whichever way the shapes of a file are numbered.

    Where not all shapes are within the frames of their tasks, their numbers are taken to count these from 0, task after
    task.
    """
    stray = next((shape for task in tasks for shape in task.shapes if not _is_in(shape.frame, task.frames)), None)
    if stray is None:
        return tasks
    renumbered, first = [], 0
    for task in tasks:
        shapes = []
        for shape in task.shapes:
            if task.frames is None or not 0 <= shape.frame - first < len(task.frames):
                raise InputError(
                    f"{stray.where}: is none of the frames of its video, "
                    + ", ".join(f"{t.frames[0]}…{t.frames[-1]}" for t in tasks if t.frames)
                    + ("; export the project task by task" if len(tasks) > 1 else "")
                )
            shapes.append(replace(shape, frame=task.frames[shape.frame - first]))
        renumbered.append(replace(task, shapes=shapes))
        first += len(task.frames or ())
    logger.warning("%s: the shapes' numbers are taken to count the frames from 0, not as in the source video", path)
    return renumbered


def _is_in(frame: int, frames: range | None) -> bool:
    return frames is None or frame in frames


def _integer(text: str | None, what: str) -> int:
    text = (text or "").strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= LONGEST_NUMBER):
        raise InputError(f"{what} must be a whole number from 0, not {shown(text)}")
    return int(text)


# ---------------------------------------------------------------------------------------------------- shapes


def _segmentation(shape: Element, size_hw: tuple[int, int], where: str) -> list | dict:
    """The polygon or the RLE of a shape."""
    try:
        degrees = float(shape.get("rotation") or 0)
        if shape.tag == "polygon":
            pairs = [point.split(",") for point in shape.get("points", "").split(";")]
            return [[float(number) for x, y in pairs for number in (x, y)]]
        if shape.tag == "box":
            left, top, right, bottom = (float(shape.get(key, "")) for key in ("xtl", "ytl", "xbr", "ybr"))
            if not degrees:
                return [[left, top, right, top, right, bottom, left, bottom]]
            x, y = (right - left) / 2, (bottom - top) / 2
            return [turned([(-x, -y), (x, -y), (x, y), (-x, y)], (left + x, top + y), degrees)]
        if shape.tag == "ellipse":
            return [ellipse(*(float(shape.get(key, "")) for key in ("cx", "cy", "rx", "ry")), degrees)]
        if shape.tag == "mask":
            return _mask(shape, size_hw, where)
    except (ValueError, OverflowError):
        raise InputError(f"{where}: the {shape.tag} cannot be read") from None
    raise InputError(f"{where}: {refusal(shape.tag)}")


def _mask(shape: Element, size_hw: tuple[int, int], where: str) -> dict:
    """The RLE of a mask that CVAT writes as runs of its rows, ground first, within a box; else ValueError."""
    left, top, width, height = (int(shape.get(key, "")) for key in ("left", "top", "width", "height"))
    runs = [int(run) for run in shape.get("rle", "").split(",")]
    if min(left, top, width, height, *runs) < 0:
        raise ValueError
    if top + height > size_hw[0] or left + width > size_hw[1]:
        raise InputError(f"{where}: the box of the mask, {width}×{height} at {left}, {top}, is not within the frame")
    if sum(runs) != width * height:
        raise InputError(f"{where}: the runs of the mask cover {sum(runs)} pixels, its box {width}×{height} has others")
    part = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
    return part_to_rle(part, top, left, size_hw)
