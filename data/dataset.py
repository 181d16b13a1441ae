"""Data sets in the YouTube-VIS format: videos, annotations, and their frames ready for the network.

The format is that of YouTube-VIS 2019 and 2021 and of OVIS: one JSON file with `videos` (each with its `file_names`),
`categories`, and, where the truth is public, `annotations`: one entry a track, with lists of one entry a frame. A file
in the COCO format is read as well: each of its images is a video of one frame.
"""

import bisect
import copy
import logging
import os
import signal
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data.config import Config
from data.transforms import FrameTransform
from utils.structures import FrameAnnotations, FrameInput, FrameMeta
from ytvis.annotations import (
    BOX_NOT_MASK,
    BOX_OUTSIDE,
    SMALL_BOX,
    Track,
    Video,
    box_fault,
    frame_path,
    match_categories,
    read_annotations,
    read_masks,
)
from ytvis.diagnostics import Diagnostics
from ytvis.files import InputError, image_folder
from ytvis.masks import decode_mask, mask_boxes
from ytvis.pictures import read_picture
from ytvis.score.selection import restrict
from ytvis.score.ytvos import YTVOS
from ytvis.splits import base_split, read_video_ids, videos_of_split

logger = logging.getLogger(__name__)


class YTVISDataset:
    """The videos, classes and annotations of a YouTube-VIS-format file, or of a COCO-format file of images.

    `is_static` is True if the videos are images, of one frame each; `has_truth` if the file has annotations.
    `category_ids[label - 1]` is the file's id of a label 1…C of `class_names`, None where the file lacks the class;
    `labels` is the inverse, and `categories` gives the file's name of each id.
    """

    def __init__(self, ann_file: str | os.PathLike, image_root: str | os.PathLike, class_names: Sequence[str]):
        """Reads and checks `ann_file`; file names in it are relative to `image_root`.

        Categories are matched by name (case, spaces, hyphens and underscores do not matter) if `class_names` has all of
        them, otherwise by the order of their ids if there are as many as `class_names`.

        Raises:
            InputError: the file or the folder is missing, or the file has another format.
        """
        self.ann_file = Path(ann_file)
        self.image_root = image_folder(image_root)
        content = read_annotations(self.ann_file)
        self.is_static = content.is_static
        self.has_truth = bool(content.tracks)
        self.categories = dict(content.categories)
        self.labels = match_categories(content.categories, class_names, self.ann_file)
        by_label = {label: category_id for category_id, label in self.labels.items()}
        self.category_ids = tuple(by_label.get(label) for label in range(1, len(class_names) + 1))
        self._videos = dict(content.videos)
        self._annotations = {video_id: tuple(tracks) for video_id, tracks in content.of_video().items()}

    @property
    def videos(self) -> tuple[Video, ...]:
        """The videos, in the file's order."""
        return tuple(self._videos.values())

    @classmethod
    def from_config(
        cls,
        cfg: Config,
        split: str = "valid",
        ann_file: str | os.PathLike | None = None,
        image_root: str | os.PathLike | None = None,
        video_ids_file: str | os.PathLike | None = None,
        elsewhere: str = "use --ann_file FILE --image_root FOLDER or --set dataset.root=FOLDER",
    ) -> Self:
        """The `split` (of `ytvis.splits.SPLITS`) of `cfg.dataset`; `ann_file` and `image_root` override the config's.

        train_sub and valid_sub are parts of the train split's file, or of `ann_file`. If `video_ids_file` is given,
        only the videos of the split that it lists are used (see `ytvis.splits.read_video_ids`).

        Raises:
            InputError: the data set is not found (the message lists the places searched, and says how to give another
                by `elsewhere`) or cannot be used.
        """
        candidates = getattr(cfg.dataset, base_split(split))
        root = Path(cfg.dataset.root).expanduser()
        ann_files = [Path(ann_file)] if ann_file else [root / name for name in candidates.ann_file]
        folders = [Path(image_root)] if image_root else [root / name for name in candidates.image_root]
        found_file = next((path for path in ann_files if os.path.isfile(path)), None)
        found_folder = next((path for path in folders if os.path.isdir(path)), None)
        if found_file is None or found_folder is None:
            missing = [
                f"{what} not found at {', '.join(map(str, paths)) or '(no place is configured)'}"
                for what, paths, found in (
                    ("annotation file", ann_files, found_file),
                    ("folder of frames", folders, found_folder),
                )
                if found is None
            ]
            raise InputError(_where_to_put(cfg, split, " and ".join(missing), elsewhere))
        dataset = cls(found_file, found_folder, cfg.dataset.class_names)
        video_ids = videos_of_split(split, [video.video_id for video in dataset.videos])
        if not video_ids:
            raise InputError(f"{found_file}: has a single video, which goes to valid_sub; {split} is empty")
        if video_ids_file is not None:
            video_ids = read_video_ids(video_ids_file, frozenset(video_ids))
        return dataset.subset(video_ids)

    def subset(self, video_ids: Iterable[int]) -> Self:
        """Returns a data set with only the videos of `video_ids`, in this one's order; this one is unchanged.

        Raises:
            InputError: an id is unknown.
        """
        wanted = set(video_ids)
        unknown = wanted - self._videos.keys()
        if unknown:
            raise InputError(f"{self.ann_file}: video {min(unknown)} not found")
        subset = copy.copy(self)
        subset._videos = {video.video_id: video for video in self.videos if video.video_id in wanted}
        subset._annotations = {video_id: self._annotations[video_id] for video_id in subset._videos}
        return subset

    def relabelled(self, labels: Sequence[int], num_classes: int) -> Self:
        """Returns a data set in which label i + 1 is `labels[i]` of the `num_classes` of a model instead; objects of
        label 0 are left out. This one is unchanged.

        Of categories with one label, `category_ids` has the first.
        """
        changed = copy.copy(self)
        changed.labels = {
            category_id: labels[label - 1] for category_id, label in self.labels.items() if labels[label - 1]
        }
        by_label = {label: category_id for category_id, label in reversed(changed.labels.items())}
        changed.category_ids = tuple(by_label.get(label) for label in range(1, num_classes + 1))
        changed._annotations = {
            video_id: tuple(track for track in tracks if track.category_id in changed.labels)
            for video_id, tracks in self._annotations.items()
        }
        return changed

    def truth(self) -> YTVOS:
        """Reads the file again and returns the annotations of these videos alone, for scoring.

        Raises:
            InputError: the file can no longer be read.
        """
        return restrict(YTVOS(self.ann_file), self._videos)

    def key_frames(self) -> list[tuple[Video, tuple[int, ...]]]:
        """(video, its `annotated_frames`) for each video that has any, for training.

        Raises:
            InputError: no video has any; the message gives the reason.
        """
        frames = [(video, self.annotated_frames(video.video_id)) for video in self.videos]
        frames = [(video, own) for video, own in frames if own]
        if not frames:
            tracks = [track for own in self._annotations.values() for track in own]
            why = "no frame has a valid annotation"
            if not self.has_truth:
                why = "it has no annotations"
            elif tracks and all(track.iscrowd for track in tracks):
                why = f"all {len(tracks)} annotations are crowds (iscrowd 1), which training leaves out"
            raise InputError(f"{self.ann_file}: {why}; training needs a set with truth")
        return frames

    def annotations(self, video_id: int) -> tuple[Track, ...]:
        """The annotated objects of a video, crowds included; () if it has none. KeyError for an unknown video."""
        return self._annotations[video_id]

    def annotated_frames(self, video_id: int) -> tuple[int, ...]:
        """The indices of the frames that show something by `frame_annotations`, ascending.

        A segmentation is only decoded if the file lacks its box or its area, so an unusable one may still count here;
        one that is decoded and cannot be used is logged and left out. KeyError for an unknown video.
        """
        return tuple(
            frame_index
            for frame_index in range(len(self._videos[video_id]))
            if any(self._is_visible(track, frame_index) for track in self.annotations(video_id))
        )

    def _is_visible(self, track: Track, frame_index: int) -> bool:
        if track.iscrowd or not track.segmentations[frame_index]:
            return False
        box, area = (values and values[frame_index] for values in (track.bboxes, track.areas))
        if not box or area is None:
            try:
                return self._box_and_mask(track, frame_index) is not None
            except InputError as error:
                logger.warning("left out: %s", error)
                return False
        return area > 0 and min(box[2:]) >= 1

    def frame_annotations(self, video_id: int, frame_index: int, *, skip_unusable: bool = False) -> FrameAnnotations:
        """Returns the annotations of one frame, in the file's order; of length 0 if it shows nothing.

        Crowds, objects without a segmentation in this frame, and objects with no area or with a box less than a pixel
        wide or high are left out. A missing box or area is taken from the mask, and so is a box that does not match
        the mask.

        Raises:
            KeyError: the video is unknown.
            InputError: a segmentation cannot be used; `skip_unusable` logs that and leaves the object out instead.
        """
        video = self._videos[video_id]
        boxes, labels, masks, instance_ids = [], [], [], []
        for track in self.annotations(video_id):
            if track.iscrowd and skip_unusable:
                continue
            try:
                box_and_mask = self._box_and_mask(track, frame_index)
            except InputError as error:
                if not skip_unusable:
                    raise
                logger.warning("left out: %s", error)
                continue
            if box_and_mask is None or track.iscrowd:
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

    def _box_and_mask(self, track: Track, frame_index: int) -> tuple[list[float], np.ndarray] | None:
        """The object's x y width height and mask, or None if it is left out here; InputError if unusable."""
        video = self._videos[track.video_id]
        (rle,), (pixels,) = read_masks(track, video, Diagnostics(refuse=self.ann_file), frames=[frame_index])
        box, area = (values and values[frame_index] for values in (track.bboxes, track.areas))
        if not pixels or area == 0:
            return None
        mask_box = mask_boxes([rle])[0].tolist()
        fault = box_fault(box or mask_box, mask_box, video)
        if fault == SMALL_BOX:
            return None
        return mask_box if not box or fault in (BOX_OUTSIDE, BOX_NOT_MASK) else box, decode_mask(rle)


# ---------------------------------------------------------------------------------------------------- frames


def read_frames(
    dataset: YTVISDataset,
    transform: FrameTransform,
    *,
    videos: Sequence[Video] | None = None,
    num_workers: int = 2,
    keep_frames: bool = False,
) -> DataLoader:
    """Returns an iterable of the `FrameInput` of every frame of `videos` (default: all), in order; its length is the
    number of frames.

    Frames are read ahead by `num_workers` processes, or by the calling one for 0. A frame that is missing, cannot be
    decoded, or differs from the video's size comes as a `FrameInput` with `error` set: nothing is raised. With
    `keep_frames` the items also hold the frame's own pixels.
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
    """The frames of videos one after another. The index stores one number for each video, not for each frame."""

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
            path = frame_path(self.image_root, video.file_names[frame_index])
            frame = read_picture(path, (video.height, video.width))
        except InputError as error:
            return FrameInput(meta, image=None, is_last=is_last, error=str(error))
        image = self.transform.for_network(frame)
        return FrameInput(meta, image=image, is_last=is_last, frame=frame if self.keep_frames else None)


def _as_is(frame: FrameInput) -> FrameInput:
    return frame


def init_worker(worker_id: int) -> None:
    """Prepares a worker of `DataLoader`: OpenCV uses one thread (torch's loader limits its own), SIGTERM is ignored.

    Torchrun and clusters send SIGTERM to all processes at once, and a worker that ends by it would stop the parent
    before it has saved. Workers end with their parent in any case.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


# ---------------------------------------------------------------------------------------------------- the file


def _where_to_put(cfg: Config, split: str, missing: str, elsewhere: str) -> str:
    """The message for a data set that is not found."""
    candidates = getattr(cfg.dataset, base_split(split))
    place = ""
    if candidates.ann_file and candidates.image_root:
        root, folder = cfg.dataset.root or ".", candidates.image_root[0]
        place = f"put them at {root}/{candidates.ann_file[0]} and {root}/{folder}/<video>/<frame>.jpg, or "
    return f"data set {cfg.dataset.name or cfg.name}, split {split!r}: {missing}; {place}{elsewhere}"
