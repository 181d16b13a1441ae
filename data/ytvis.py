"""Data sets in the YouTube-VIS format: videos, annotations, and their frames ready for the network.

The format is that of YouTube-VIS 2019 and 2021 and of OVIS: one JSON file with `videos` (each with its `file_names`),
`categories`, and, where the truth is public, `annotations`: one entry a track, with lists of one entry a frame. A file
in the COCO format is read as well: each of its images is a video of one frame (`data.coco`).
"""

import bisect
import copy
import logging
import os
import re
import signal
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data.coco import as_videos, compact_polygons, is_static
from data.config import Config
from data.results import compress_rle, decode_mask, read_json
from data.splits import base_split, read_video_ids, subset_annotations, videos_of_split
from data.transforms import FrameTransform
from utils.structures import FrameInput, FrameMeta, InputError, PerObject, Video

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrackAnnotation:
    """One annotated object of a video, as the file has it: every tuple has one entry a frame, None where it is absent.

    `segmentations` are polygons or RLEs (see `segmentation_to_rle`), `bboxes` x y width height in pixels. A set may
    have a million of these, hence the slots.
    """

    annotation_id: int
    video_id: int
    category_id: int
    iscrowd: bool
    segmentations: tuple[list | dict | None, ...]
    bboxes: tuple[list[float] | None, ...]
    areas: tuple[float | None, ...]


@dataclass(frozen=True)
class FrameAnnotations(PerObject):
    """Truth of one frame in the video's own pixels: `boxes_px` [N,4] float32 x1 y1 x2 y2, the last pixel included;
    `labels` [N] int64 1…C, `masks` [N,height,width] bool, `instance_ids` [N] int64, the annotations' ids."""

    boxes_px: Tensor
    labels: Tensor
    masks: Tensor
    instance_ids: Tensor


class YTVISDataset:
    """The videos, classes and annotations of a YouTube-VIS-format file, or of a COCO-format file of images.

    `videos` are in the file's order; `is_static` says that they are images, of one frame each.
    `category_ids[label - 1]` is the file's id of a label 1…C of `class_names`, None where the file lacks the class;
    `labels` is the way back.
    """

    def __init__(self, ann_file: str | os.PathLike, image_root: str | os.PathLike, class_names: Sequence[str]):
        """Reads and checks `ann_file`; file names in it are relative to `image_root`.

        Categories are told by name (case, spaces, hyphens and underscores do not matter) if `class_names` has all of
        them, otherwise in the order of their ids if they are as many as `class_names`.

        Raises:
            InputError: the file or the folder is missing, or the file is not in the format.
        """
        self.ann_file = Path(ann_file)
        self.image_root = Path(image_root)
        if not self.image_root.is_dir():
            raise InputError(f"{self.image_root}: no such folder of frames")
        content = _read_content(self.ann_file, compact_polygons)
        self.is_static = is_static(content)
        content = as_videos(content, self.ann_file)
        self.videos = tuple(_parse_videos(content, self.ann_file))
        self.labels = _match_categories(_parse_categories(content, self.ann_file), class_names, self.ann_file)
        by_label = {label: category_id for category_id, label in self.labels.items()}
        self.category_ids = tuple(by_label.get(label) for label in range(1, len(class_names) + 1))
        self._videos = {video.video_id: video for video in self.videos}
        tracks: dict[int, list[TrackAnnotation]] = {video_id: [] for video_id in self._videos}
        for track in _parse_annotations(content, self._videos, self.labels, self.ann_file):
            tracks[track.video_id].append(track)
        self._annotations = {video_id: tuple(own) for video_id, own in tracks.items()}

    @classmethod
    def from_config(
        cls,
        cfg: Config,
        split: str = "valid",
        ann_file: str | os.PathLike | None = None,
        image_root: str | os.PathLike | None = None,
        video_ids_file: str | os.PathLike | None = None,
    ) -> Self:
        """The `split` of `cfg.dataset`, one of `data.splits.SPLITS`; `ann_file` and `image_root` override the config's.

        train_sub and valid_sub are parts of the train split's file, or of `ann_file`. If `video_ids_file` is given,
        only those videos of the split that it lists are taken (see `data.splits.read_video_ids`).

        Raises:
            InputError: the data set is not there (the message says where it was looked for) or cannot be used.
        """
        candidates = getattr(cfg.dataset, base_split(split))
        root = Path(cfg.dataset.root).expanduser()
        ann_files = [Path(ann_file)] if ann_file else [root / name for name in candidates.ann_file]
        folders = [Path(image_root)] if image_root else [root / name for name in candidates.image_root]
        found_file = next((path for path in ann_files if path.is_file()), None)
        found_folder = next((path for path in folders if path.is_dir()), None)
        if found_file is None or found_folder is None:
            missing = [
                f"no {what} at {', '.join(map(str, paths)) or '(no place is configured)'}"
                for what, paths, found in (
                    ("annotation file", ann_files, found_file),
                    ("folder of frames", folders, found_folder),
                )
                if found is None
            ]
            raise InputError(_where_to_put(cfg, split, " and ".join(missing)))
        dataset = cls(found_file, found_folder, cfg.dataset.class_names)
        video_ids = videos_of_split(split, [video.video_id for video in dataset.videos])
        if not video_ids:
            raise InputError(f"{found_file}: has a single video, which is valid_sub; nothing is left for {split}")
        if video_ids_file is not None:
            video_ids = read_video_ids(video_ids_file, frozenset(video_ids))
        return dataset.subset(video_ids)

    def subset(self, video_ids: Iterable[int]) -> Self:
        """The data set with no videos but those of `video_ids`, whatever their order; this one stays as it is.

        Raises:
            InputError: there is no video of such an id.
        """
        wanted = set(video_ids)
        unknown = wanted - self._videos.keys()
        if unknown:
            raise InputError(f"{self.ann_file}: there is no video {min(unknown)}")
        subset = copy.copy(self)
        subset.videos = tuple(video for video in self.videos if video.video_id in wanted)
        subset._videos = {video.video_id: video for video in subset.videos}
        subset._annotations = {video_id: self._annotations[video_id] for video_id in subset._videos}
        return subset

    def truth(self) -> dict[str, Any]:
        """The file's content with these videos alone, read anew, as it is to be scored against.

        Raises:
            InputError: the file cannot be read any more.
        """
        return subset_annotations(read_annotations(self.ann_file), self._videos)

    def annotations(self, video_id: int) -> tuple[TrackAnnotation, ...]:
        """The annotated objects of a video, crowds included; () without any. KeyError for an unknown video."""
        return self._annotations[video_id]

    def annotated_frames(self, video_id: int) -> tuple[int, ...]:
        """The indices of the frames that show something by `frame_annotations`, ascending.

        A segmentation is only looked into where the file lacks its box or its area, so one that cannot be used may
        still count here; one that is looked into and cannot be used is logged and left out. KeyError for an unknown
        video.
        """
        return tuple(
            frame_index
            for frame_index in range(len(self._videos[video_id]))
            if any(self._is_visible(track, frame_index) for track in self.annotations(video_id))
        )

    def _is_visible(self, track: TrackAnnotation, frame_index: int) -> bool:
        if track.iscrowd or not track.segmentations[frame_index]:
            return False
        rle = None
        if track.bboxes[frame_index] is None or track.areas[frame_index] is None:
            try:
                rle = self._rle(track, frame_index)
            except InputError as error:
                logger.warning("left out: %s", error)
            if rle is None:
                return False
        return _valid_box(track, frame_index, rle) is not None

    def frame_annotations(self, video_id: int, frame_index: int, *, skip_unusable: bool = False) -> FrameAnnotations:
        """What one frame shows, in the file's order; of length 0 if that is nothing.

        Left out are crowds, objects without a segmentation in this frame, and those with no area or with a box less
        than a pixel wide or high. A box or an area that the file lacks is taken from the mask.

        Raises:
            KeyError: no such video.
            InputError: a segmentation cannot be used; `skip_unusable` logs that and leaves the object out instead.
        """
        video = self._videos[video_id]
        boxes, labels, masks, instance_ids = [], [], [], []
        for track in self.annotations(video_id):
            try:
                box_and_mask = self._box_and_mask(track, frame_index)
            except InputError as error:
                if not skip_unusable:
                    raise
                logger.warning("left out: %s", error)
                continue
            if box_and_mask is None:
                continue
            (x, y, width, height), mask = box_and_mask
            boxes.append([x, y, x + width - 1, y + height - 1])
            labels.append(self.labels[track.category_id])
            masks.append(mask)
            instance_ids.append(track.annotation_id)
        pixels = np.stack(masks) if masks else np.zeros((0, video.height, video.width), dtype=bool)
        return FrameAnnotations(
            boxes_px=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(labels, dtype=torch.int64),
            masks=torch.from_numpy(pixels),
            instance_ids=torch.tensor(instance_ids, dtype=torch.int64),
        )

    def _box_and_mask(self, track: TrackAnnotation, frame_index: int) -> tuple[list[float], np.ndarray] | None:
        """The object's x y width height and mask, or None if it is no truth of this frame; InputError if unusable."""
        if track.iscrowd:
            return None
        rle = self._rle(track, frame_index)
        box = None if rle is None else _valid_box(track, frame_index, rle)
        if box is None:
            return None
        return box, _located(decode_mask, self._where(track, frame_index), rle)

    def _rle(self, track: TrackAnnotation, frame_index: int) -> dict | None:
        video = self._videos[track.video_id]
        segmentation = track.segmentations[frame_index]
        where = self._where(track, frame_index)
        return _located(segmentation_to_rle, where, segmentation, video.height, video.width)

    def _where(self, track: TrackAnnotation, frame_index: int) -> str:
        return f"{self.ann_file}: annotation {track.annotation_id}, frame {frame_index}"


def _valid_box(track: TrackAnnotation, frame_index: int, rle: dict | None) -> list[float] | None:
    """x y width height, or None if the object is too small. `rle` stands in for a box or an area the file lacks."""
    box, area = track.bboxes[frame_index], track.areas[frame_index]
    box = coco_mask.toBbox(rle).tolist() if box is None else box
    area = coco_mask.area(rle) if area is None else area
    return box if box[2] >= 1 and box[3] >= 1 and area > 0 else None


def segmentation_to_rle(segmentation: list | dict | None, height: int, width: int) -> dict | None:
    """The COCO compressed RLE (`counts` as text) of a segmentation; None for null and for [] (not visible).

    `segmentation` is a list of polygons (each a list or an array of x y x y … in pixels; fewer than three points cover
    nothing), or an RLE with its runs as a list or compressed.

    Raises:
        InputError: it is none of these, an RLE of another size than `height` × `width`, or a polygon that reaches far
            out of such a frame.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        if not all(isinstance(polygon, list | array) and len(polygon) % 2 == 0 for polygon in segmentation):
            raise InputError("a polygon must be a list of x y x y …")
        if not all(isinstance(polygon, array) or all(map(_is_number, polygon)) for polygon in segmentation):
            raise InputError("a polygon must hold nothing but numbers")
        # pycocotools walks along the edges of a polygon pixel by pixel, however far they go.
        reach = 10 * max(height, width)
        if not all(abs(side) <= reach for polygon in segmentation for side in polygon):
            raise InputError("a polygon reaches far out of the frame, or holds a number that is not finite")
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
        if not polygons:
            return None
        rle = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    else:
        rle = segmentation
    rle = compress_rle(rle)
    if rle["size"] != [height, width]:
        raise InputError(f"a segmentation is {rle['size']} (height, width), its video [{height}, {width}]")
    return rle


# ---------------------------------------------------------------------------------------------------- frames


def read_frames(
    dataset: YTVISDataset,
    transform: FrameTransform,
    *,
    videos: Sequence[Video] | None = None,
    num_workers: int = 2,
    keep_frames: bool = False,
) -> DataLoader:
    """An iterable of the `FrameInput` of every frame of `videos` (default: all), in order; its length is their number.

    Frames are read ahead by `num_workers` processes, by the caller's own for 0. A frame that is missing, cannot be
    decoded, or is not of the video's size comes as a `FrameInput` with `error` set: nothing is raised. `keep_frames`
    also hands on the frame's own pixels.
    """
    files = _FrameFiles(dataset.image_root, dataset.videos if videos is None else videos, transform, keep_frames)
    return DataLoader(
        files,
        batch_size=None,
        num_workers=min(num_workers, len(files)),
        collate_fn=_as_is,
        worker_init_fn=init_worker,
        generator=torch.Generator(),  # otherwise every pass takes a number from torch's global generator
    )


class _FrameFiles(Dataset):
    """The frames of videos one after another. The index is one number a video, so that many frames cost nothing."""

    def __init__(self, image_root: Path, videos: Sequence[Video], transform: FrameTransform, keep_frames: bool):
        self.image_root = image_root
        self.videos = tuple(videos)
        self.transform = transform
        self.keep_frames = keep_frames
        self.ends = tuple(accumulate(len(video) for video in self.videos))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: int) -> FrameInput:
        position = bisect.bisect_right(self.ends, index)
        video = self.videos[position]
        frame_index = index - self.ends[position] + len(video)
        meta = FrameMeta(
            video_id=video.video_id,
            frame_index=frame_index,
            original_hw=(video.height, video.width),
            resized_hw=self.transform.size_hw,
            padded_hw=self.transform.padded_hw,
        )
        is_last = frame_index == len(video) - 1
        try:
            frame = read_frame(self.image_root / video.file_names[frame_index], video)
        except InputError as error:
            return FrameInput(meta, image=None, is_last=is_last, error=str(error))
        image, _, _ = self.transform(frame)
        return FrameInput(meta, image=image, is_last=is_last, frame=frame if self.keep_frames else None)


def read_frame(path: Path, video: Video) -> np.ndarray:
    """The picture [h,w,3] uint8 RGB under `path`, a frame of `video`.

    Raises:
        InputError: it is missing, cannot be decoded, or is not of the video's size.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such frame")
    try:
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except cv2.error:
        picture = None
    if picture is None:
        raise InputError(f"{path}: cannot be decoded as a picture")
    height, width = picture.shape[:2]
    if (height, width) != (video.height, video.width):
        raise InputError(
            f"{path}: the picture is {width}×{height} pixels, the annotation file says {video.width}×{video.height}"
        )
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _as_is(frame: FrameInput) -> FrameInput:
    return frame


def init_worker(worker_id: int) -> None:
    """For `DataLoader`: the workers are the parallelism, each keeps to one thread (torch's loader sees to its own).

    When to stop is their parent's to say: torchrun and clusters send SIGTERM to all processes at once, and a worker
    that died of it would break the parent off before it has saved. Workers end with their parent in any case.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


# ---------------------------------------------------------------------------------------------------- the file


def _where_to_put(cfg: Config, split: str, missing: str) -> str:
    """The whole message about a data set that is not where it was looked for."""
    candidates = getattr(cfg.dataset, base_split(split))
    lines = [f"data set {cfg.dataset.name or cfg.name}, split {split!r}: {missing}"]
    if candidates.ann_file and candidates.image_root:
        lines += [
            "it must look like this:",
            f"  {cfg.dataset.root or '.'}/",
            f"  ├── {candidates.ann_file[0]}",
            f"  └── {candidates.image_root[0]}/",
            "      └── <video>/<frame>.jpg (a set of images: <image>.jpg)",
        ]
    lines.append("to point elsewhere: --ann_file FILE --image_root FOLDER, or --set dataset.root=FOLDER")
    return "\n".join(lines)


def read_annotations(path: str | os.PathLike, object_hook: Callable[[dict], dict] | None = None) -> dict:
    """The content of an annotation file, in the YouTube-VIS format even if the file is in COCO's; values unchecked.

    `object_hook` makes what stands for each of its JSON objects.

    Raises:
        InputError: there is no such file, or it holds no JSON object.
    """
    path = Path(path)
    return as_videos(_read_content(path, object_hook), path)


def _read_content(path: Path, object_hook: Callable[[dict], dict] | None = None) -> dict:
    content = read_json(path, object_hook)
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold an object with 'videos' and 'categories', not a {type(content).__name__}")
    return content


def _parse_videos(content: dict, path: Path) -> Iterator[Video]:
    seen = set()
    for position, entry in enumerate(_entries(content, "videos", path)):
        video_id = _field(entry, "id", int, f"{path}: video number {position + 1}")
        where = f"{path}: video {video_id}"
        if video_id in seen:
            raise InputError(f"{where} is there twice")
        seen.add(video_id)
        sizes = [_field(entry, key, int, where) for key in ("width", "height")]
        if min(sizes) <= 0:
            raise InputError(f"{where}: 'width' and 'height' must be over 0, not {sizes}")
        file_names = _field(entry, "file_names", list, where)
        if not file_names or not all(isinstance(name, str) for name in file_names):
            raise InputError(f"{where}: 'file_names' must be a list of at least one file name")
        yield Video(video_id, *sizes, tuple(file_names))


def _parse_categories(content: dict, path: Path) -> dict[int, str]:
    """{category id: name}, ids ascending."""
    categories = {}
    for position, entry in enumerate(_entries(content, "categories", path)):
        category_id = _field(entry, "id", int, f"{path}: category number {position + 1}")
        if category_id in categories:
            raise InputError(f"{path}: category {category_id} is there twice")
        categories[category_id] = _field(entry, "name", str, f"{path}: category {category_id}")
    return dict(sorted(categories.items()))


def _match_categories(categories: dict[int, str], class_names: Sequence[str], path: Path) -> dict[int, int]:
    """{category id: label 1…C}, by name or else by order."""
    labels = {normalised_name(name): label for label, name in enumerate(class_names, start=1)}
    names = [normalised_name(name) for name in categories.values()]
    if len(set(names)) == len(names) and labels.keys() >= set(names):
        return {category_id: labels[name] for category_id, name in zip(categories, names, strict=True)}
    if len(categories) != len(class_names):
        raise InputError(
            f"{path}: has {len(categories)} categories, the model {len(class_names)} classes, and not all of their "
            "names agree; name the model's classes in label order with --set dataset.class_names=NAME,NAME,…"
        )
    unknown = [name for name, key in zip(categories.values(), names, strict=True) if key not in labels]
    logger.warning(
        "%s: the model's classes have other names (%s); categories are taken in the order of their ids",
        path,
        ", ".join(unknown) or "a name is there twice",
    )
    return {category_id: label for label, category_id in enumerate(categories, start=1)}


def normalised_name(name: str) -> str:
    """A class name as it is compared: without regard to case, and with _ for spaces and hyphens."""
    return re.sub(r"[\s-]", "_", name.strip().lower())


def _parse_annotations(
    content: dict, videos: Mapping[int, Video], labels: Mapping[int, int], path: Path
) -> Iterator[TrackAnnotation]:
    entries = content.get("annotations") or []  # absent or null where the truth is withheld
    if not isinstance(entries, list):
        raise InputError(f"{path}: 'annotations' must be a list, not {type(entries).__name__}")
    seen = set()
    for position, entry in enumerate(entries):
        if entry is None:
            continue
        annotation_id = _field(entry, "id", int, f"{path}: annotation number {position + 1}")
        where = f"{path}: annotation {annotation_id}"
        if annotation_id in seen:
            raise InputError(f"{where} is there twice")
        seen.add(annotation_id)
        video_id = _field(entry, "video_id", int, where)
        if video_id not in videos:
            raise InputError(f"{where}: there is no video {video_id}")
        category_id = _field(entry, "category_id", int, where)
        if category_id not in labels:
            raise InputError(f"{where}: there is no category {category_id}")
        length = len(videos[video_id])
        yield TrackAnnotation(
            annotation_id,
            video_id,
            category_id,
            bool(entry.get("iscrowd")),
            _per_frame(entry, "segmentations", length, lambda value: isinstance(value, list | dict), where),
            _per_frame(entry, "bboxes", length, _is_box, where),
            _per_frame(entry, "areas", length, _is_number, where),
        )


def _per_frame(
    entry: dict, key: str, length: int, is_valid: Callable[[Any], bool], where: str
) -> tuple[Any | None, ...]:
    """A list of one entry a frame, None for null and []; all None if the list is absent, null or empty."""
    values = entry.get(key)
    if values is None or values == []:
        return (None,) * length
    if not isinstance(values, list):
        raise InputError(f"{where}: {key!r} must be a list, not {type(values).__name__}")
    if len(values) != length:
        raise InputError(f"{where}: {key!r} has {len(values)} entries, its video {length} frames")
    values = [None if value == [] else value for value in values]
    for frame_index, value in enumerate(values):
        if value is not None and not is_valid(value):
            raise InputError(f"{where}: {key!r} of frame {frame_index} cannot be used: {str(value)[:80]}")
    return tuple(values)


def _entries(content: dict, key: str, path: Path) -> list:
    entries = content.get(key)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: {key!r} must be a list of at least one entry")
    return entries


def _field(entry: Any, key: str, kind: type, where: str) -> Any:
    """`entry[key]` of the given type, or InputError."""
    if not isinstance(entry, dict):
        raise InputError(f"{where} must be an object, not {type(entry).__name__}")
    if key not in entry:
        raise InputError(f"{where} lacks {key!r}")
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        names = {int: "an integer", str: "text", list: "a list"}
        raise InputError(f"{where}: {key!r} must be {names[kind]}, not {str(value)[:80]!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(_is_number(side) for side in value)


def _located(function: Callable, where: str, *arguments: Any) -> Any:
    """`function(*arguments)`, its InputError preceded by the place it is about."""
    try:
        return function(*arguments)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
