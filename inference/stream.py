"""The objects in a video, folder, camera or any frames, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from torch import Tensor

from data.config import Config
from data.transforms import FrameTransform
from data.video import FrameIterable, FrameSource, SceneCuts, read_ahead
from inference.object_rows import ObjectRow, frame_file_name, object_rows, to_coco, to_labelme, to_supervision
from inference.tracker import VideoTracker
from inference.videos import track_videos
from utils.structures import FrameInput, FrameMeta, FrameObjects
from utils.timer import StageTimer
from ytvis.drawing import draw_objects
from ytvis.files import InputError

STREAM_MAX_TRACK_AGE = 60  # frames: two seconds of most videos, and far longer than an unseen object stays visible


@dataclass(frozen=True)
class StreamFrame:
    """One frame of a stream and the N objects found in it.

    `frame` [h,w,3] uint8 RGB, `index` from 0, `time_s` in seconds since the stream's start, `is_cut` whether a new
    scene begins, `name` that of the frame's own file, if any. `objects` are in pixels of the frame, on the CPU.
    `class_names` and `category_ids` (by default 1…C) are in the order of the labels.
    """

    frame: np.ndarray
    index: int
    time_s: float
    objects: FrameObjects
    class_names: tuple[str, ...]
    is_cut: bool = False
    name: str = ""
    category_ids: tuple[int, ...] = ()

    @property
    def boxes_px(self) -> Tensor:
        """[N,4] int64, x1 y1 x2 y2."""
        return self.objects.boxes_px

    @property
    def scores(self) -> Tensor:
        """[N] in 0…1."""
        return self.objects.scores

    @property
    def track_ids(self) -> Tensor:
        """[N] int64, the same for an object in all frames."""
        return self.objects.track_ids

    @property
    def masks(self) -> Tensor:
        """[N,h,w] bool."""
        return self.objects.masks

    @property
    def names(self) -> list[str]:
        """The class name of each object."""
        return [self.class_names[label - 1] for label in self.objects.labels.tolist()]

    @cached_property
    def rows(self) -> list[ObjectRow]:
        """One row an object, with its mask as RLE; the content of tables, results.json and MOTS files."""
        return object_rows(self.objects, self.index, self.time_s, self.class_names, self.name)

    @property
    def rles(self) -> list[dict]:
        """The masks as COCO compressed RLEs."""
        return [row.rle for row in self.rows]

    def draw(self, **style: Any) -> np.ndarray:
        """A copy of the frame with all its objects on it; `style` is `ytvis.drawing.draw_objects`'s. `eval.py --video`
        draws with `ytvis.drawing.Overlay`, which leaves tracks of a low score out."""
        return draw_objects(self.frame, self.objects, self.class_names, **style)

    def to_supervision(self) -> Any:
        """A `supervision.Detections`; InputError if supervision is not installed."""
        return to_supervision(self.objects, self.class_names)

    def to_coco(self, first_id: int = 1) -> list[dict]:
        """COCO annotations with ids from `first_id`; the image id is the frame's index."""
        return to_coco(self.rows, first_id, self.category_ids)

    def to_labelme(self, image_path: str | None = None) -> dict:
        """The content of a LabelMe file for the picture `image_path`, by default the frame's own name, or for a video
        that of the picture which `eval.py --images` writes of the frame, such as 000012.png."""
        return to_labelme(self.objects, self.class_names, image_path or self.name or frame_file_name(self.index))


class Stream(Iterator[StreamFrame]):
    """Iterates over the frames of a source, each with its objects; created by `STMask.stream`.

    `close`, the end of a `with` block, or dropping the stream releases the file or camera and closes a generator of
    frames. `source` has the expected number of frames and their rate, `class_names[0]` is the name of label 1,
    `tracker` holds the state.
    """

    def __init__(
        self,
        tracker: VideoTracker,
        source: FrameSource,
        scene_cuts: SceneCuts | None,
        labels: Collection[int] | None,
        timer: StageTimer | None = None,
        overlap: bool = False,
    ):
        self.tracker = tracker
        self.source = source
        config = tracker.model.config
        self.class_names, self.category_ids = config.dataset.class_names, config.category_ids
        self._frames = read_source(source, FrameTransform.from_config(config), scene_cuts)
        self._results = track_videos(tracker.model, self._frames, timer, tracker, labels, overlap)

    def __next__(self) -> StreamFrame:
        result = next(self._results)
        meta = result.meta
        return StreamFrame(
            *(result.frame, meta.frame_index, meta.time_s, result.objects, self.class_names),
            *(meta.is_cut, meta.name, self.category_ids),
        )

    def reset(self) -> None:
        """Forgets all objects before the next frame, for a jump in the source; track ids are not reused."""
        self.tracker.reset(keep_ids=True)

    def close(self) -> None:
        """Ends the stream and releases its source."""
        self._results.close()
        self._frames.close()
        if isinstance(self.source, FrameIterable):  # also if the iteration never began
            self.source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def read_source(
    source: FrameSource, transform: FrameTransform, scene_cuts: Callable[[np.ndarray], bool] | None = None
) -> Iterator[FrameInput]:
    """Yields the frames of `source` ready for the network, with their own pixels; reads ahead if the source allows it.

    `scene_cuts` returns for each frame whether it begins a new shot. No frame has `is_last` set, as the end of a source
    is not known in advance.
    """
    frames = _prepared(source, transform, scene_cuts)
    return read_ahead(frames) if source.reads_ahead else frames


def _prepared(
    source: FrameSource, transform: FrameTransform, scene_cuts: Callable[[np.ndarray], bool] | None
) -> Iterator[FrameInput]:
    with closing(iter(source)) as items:
        for item in items:
            image = transform.for_network(item.frame)
            meta = FrameMeta(
                video_id=0,
                frame_index=item.index,
                original_hw=item.frame.shape[:2],
                resized_hw=transform.size_hw,
                padded_hw=transform.padded_hw,
                time_s=item.time_s,
                name=item.name,
                is_cut=scene_cuts is not None and scene_cuts(item.frame),
            )
            yield FrameInput(meta, image, is_last=False, frame=item.frame)


def stream_track_age(config: Config) -> int:
    """The number of frames after which a stream forgets an unseen object: the config's, or 60 if that is never."""
    return config.tracking.max_track_age or STREAM_MAX_TRACK_AGE


def labels_of(classes: Iterable[str], class_names: Sequence[str]) -> frozenset[int]:
    """The labels 1…C of `classes`.

    Raises:
        InputError: one is not among `class_names`, or `classes` is empty.
    """
    classes = list(classes)
    unknown = [name for name in classes if name not in class_names]
    if unknown or not classes:
        raise InputError(f"unknown class {', '.join(unknown)!r}; the model knows {', '.join(class_names)}")
    return frozenset(class_names.index(name) + 1 for name in classes)
