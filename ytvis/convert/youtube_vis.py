"""The YouTube-VIS format, from and to which all others are converted."""

import logging
import os
from collections.abc import Sequence
from pathlib import PurePosixPath

from ytvis.annotations import Track, Video, read_annotations, read_masks, write_content
from ytvis.convert.tracks import Annotations, ObjectTrack, TrackedVideo, progress
from ytvis.diagnostics import Diagnostics
from ytvis.frames import name_of_folder
from ytvis.masks import mask_area, mask_boxes, to_rle

logger = logging.getLogger(__name__)


def read(source: str | os.PathLike) -> Annotations:
    """What an annotation file holds. A video's name is the folder of its frames, or video_<id> where that is no name.

    Raises:
        InputError: the file cannot be used.
    """
    content = read_annotations(source)
    videos, tracks = tuple(content.videos.values()), content.of_video()
    found = Diagnostics(refuse=source)
    return Annotations(
        dict(content.categories),
        tuple(
            TrackedVideo(
                name,
                video.height,
                video.width,
                video.file_names,
                tuple(_track(track, video, content.categories[track.category_id], found) for track in own),
            )
            for name, video, own in zip(_video_names(videos), videos, tracks.values(), strict=True)
        ),
    )


def _video_names(videos: Sequence[Video]) -> list[str]:
    """A name for each video, all different."""
    folders = [{str(PurePosixPath(name).parent) for name in video.file_names} for video in videos]
    ids = [f"video_{video.video_id}" for video in videos]
    names = [
        name_of_folder(next(iter(found)), otherwise) if len(found) == 1 else otherwise
        for found, otherwise in zip(folders, ids, strict=True)
    ]
    if len(set(names)) < len(names):
        return ids
    return names


def _track(track: Track, video: Video, category: str, found: Diagnostics) -> ObjectTrack:
    """The track with its polygons as they are, and RLEs compressed."""
    masks, _ = read_masks(track, video, found)
    segmentations = [
        [list(polygon) for polygon in segmentation]
        if isinstance(segmentation, list)
        else mask and to_rle(mask, video.height, video.width)
        for segmentation, mask in zip(track.segmentations, masks, strict=True)
    ]
    return ObjectTrack(category, tuple(segmentations), track.iscrowd)


def write(annotations: Annotations, target: str | os.PathLike) -> None:
    """Writes an annotation file; videos and annotations are numbered from 1, boxes and areas taken from the masks.

    A track that is never seen is left out, and said.
    """
    category_ids = {name: category_id for category_id, name in annotations.categories.items()}
    videos, tracks = [], []
    for video_id, video in enumerate(progress(annotations.videos, "videos"), start=1):
        size = {"length": len(video.file_names), "width": video.width, "height": video.height}
        videos.append({"id": video_id, **size, "file_names": list(video.file_names)})
        for track in progress(video.tracks, video.name):
            seen = _per_frame(track, video)
            if not any(seen["segmentations"]):
                logger.warning("%s: a track %r is never seen and left out", video.name, track.category)
                continue
            category_id = category_ids[track.category]
            entry = {"id": len(tracks) + 1, "video_id": video_id, "category_id": category_id}
            tracks.append({**entry, "iscrowd": int(track.is_crowd), **size, **seen})
    categories = annotations.category_entries()
    write_content({"videos": videos, "categories": categories, "annotations": tracks}, target)


def _per_frame(track: ObjectTrack, video: TrackedVideo) -> dict[str, list]:
    """`segmentations`, `bboxes` (x y width height) and `areas`, each with None where nothing is seen."""
    result = {"segmentations": [], "bboxes": [], "areas": []}
    for segmentation in track.segmentations:
        rle = to_rle(segmentation, video.height, video.width)
        area = mask_area(rle) if rle else 0
        result["segmentations"].append(segmentation if area else None)
        result["bboxes"].append(mask_boxes([rle])[0].tolist() if area else None)
        result["areas"].append(area or None)
    return result
