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

    `is_static` says that the videos are images, of one frame each; `has_truth` that the file has annotations.
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
        self.image_root = image_folder(image_root)
        content = read_annotations(self.ann_file)
        self.is_static = content.is_static
        self.has_truth = bool(content.tracks)
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
    ) -> Self:
        """The `split` (of `ytvis.splits.SPLITS`) of `cfg.dataset`; `ann_file` and `image_root` override the config's.

        train_sub and valid_sub are parts of the train split's file, or of `ann_file`. If `video_ids_file` is given,
        only those videos of the split that it lists are taken (see `ytvis.splits.read_video_ids`).

        Raises:
            InputError: the data set is not there (the message says where it was looked for) or cannot be used.
        """
        candidates = getattr(cfg.dataset, base_split(split))
        root = Path(cfg.dataset.root).expanduser()
        ann_files = [Path(ann_file)] if ann_file else [root / name for name in candidates.ann_file]
        folders = [Path(image_root)] if image_root else [root / name for name in candidates.image_root]
        found_file = next((path for path in ann_files if os.path.isfile(path)), None)
        found_folder = next((path for path in folders if os.path.isdir(path)), None)
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
        subset._videos = {video.video_id: video for video in self.videos if video.video_id in wanted}
        subset._annotations = {video_id: self._annotations[video_id] for video_id in subset._videos}
        return subset

    def truth(self) -> YTVOS:
        """The annotations of these videos alone, read anew, as they are to be scored against.

        Raises:
            InputError: the file cannot be read any more.
        """
        return restrict(YTVOS(self.ann_file), self._videos)

    def key_frames(self) -> list[tuple[Video, tuple[int, ...]]]:
        """(video, its `annotated_frames`) for each video that has any, to train on.

        Raises:
            InputError: there are none; the message says why.
        """
        frames = [(video, self.annotated_frames(video.video_id)) for video in self.videos]
        frames = [(video, own) for video, own in frames if own]
        if not frames:
            tracks = [track for own in self._annotations.values() for track in own]
            why = "no frame has a valid annotation"
            if not self.has_truth:
                why = "there are no annotations"
            elif tracks and all(track.iscrowd for track in tracks):
                why = f"all {len(tracks)} annotations are crowds (iscrowd 1), which training leaves out"
            raise InputError(f"{self.ann_file}: {why}; training needs a set with truth")
        return frames

    def annotations(self, video_id: int) -> tuple[Track, ...]:
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
        """What one frame shows, in the file's order; of length 0 if that is nothing.

        Left out are crowds, objects without a segmentation in this frame, and those with no area or with a box less
        than a pixel wide or high. A box or an area that the file lacks is taken from the mask, and so is a box that
        does not match it.

        Raises:
            KeyError: no such video.
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
        """The object's x y width height and mask, or None if it is no truth of this frame; InputError if unusable."""
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
            path = frame_path(self.image_root, video.file_names[frame_index])
            frame = read_picture(path, (video.height, video.width))
        except InputError as error:
            return FrameInput(meta, image=None, is_last=is_last, error=str(error))
        image, _, _ = self.transform(frame)
        return FrameInput(meta, image=image, is_last=is_last, frame=frame if self.keep_frames else None)


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
    """The whole message about a data set that is missing."""
    candidates = getattr(cfg.dataset, base_split(split))
    place = ""
    if candidates.ann_file and candidates.image_root:
        root, folder = cfg.dataset.root or ".", candidates.image_root[0]
        place = f"put them at {root}/{candidates.ann_file[0]} and {root}/{folder}/<video>/<frame>.jpg, or "
    return (
        f"data set {cfg.dataset.name or cfg.name}, split {split!r}: {missing}; {place}"
        "use --ann_file FILE --image_root FOLDER or --set dataset.root=FOLDER"
    )
