"""The YouTube-VIS format, from and to which all others are converted."""

import logging
import os
from dataclasses import replace

from ytvis.annotations import AnnotationFile, Track, Video, read_annotations, read_masks, write_content
from ytvis.convert.tracks import category_entries, progress, videos_to_write
from ytvis.diagnostics import Diagnostics
from ytvis.masks import mask_area, mask_boxes, to_rle

logger = logging.getLogger(__name__)


def read(source: str | os.PathLike) -> AnnotationFile:
    """What an annotation file holds, masks checked; polygons are as they are, RLEs compressed.

    Raises:
        InputError: the file cannot be used.
    """
    annotations = read_annotations(source)
    found = Diagnostics(refuse=source)
    tracks = tuple(_checked(track, annotations.videos[track.video_id], found) for track in annotations.tracks or ())
    return replace(annotations, tracks=tracks)


def _checked(track: Track, video: Video, found: Diagnostics) -> Track:
    masks, _ = read_masks(track, video, found)
    segmentations = (
        [list(polygon) for polygon in segmentation]
        if isinstance(segmentation, list)
        else mask and to_rle(mask, video.height, video.width)
        for segmentation, mask in zip(track.segmentations, masks, strict=True)
    )
    return replace(track, segmentations=tuple(segmentations))


def write(annotations: AnnotationFile, target: str | os.PathLike) -> None:
    """Writes an annotation file; videos and annotations are numbered from 1, boxes and areas taken from the masks.

    A track that is never seen is left out, and said.
    """
    videos, entries = [], []
    of_each = progress(videos_to_write(annotations), "videos")
    for video_id, (folder, video, tracks) in enumerate(of_each, start=1):
        size = {"length": len(video), "width": video.width, "height": video.height}
        videos.append({"id": video_id, **size, "file_names": list(video.file_names)})
        for track in progress(tracks, folder):
            seen = _per_frame(track, video)
            if not any(seen["segmentations"]):
                category = annotations.categories[track.category_id]
                logger.warning("%s: a track %r is never seen and left out", folder, category)
                continue
            entry = {"id": len(entries) + 1, "video_id": video_id, "category_id": track.category_id}
            entries.append({**entry, "iscrowd": int(track.iscrowd), **size, **seen})
    categories = category_entries(annotations.categories)
    write_content({"videos": videos, "categories": categories, "annotations": entries}, target)


def _per_frame(track: Track, video: Video) -> dict[str, list]:
    """`segmentations`, `bboxes` (x y width height) and `areas`, each with None where nothing is seen."""
    result = {"segmentations": [], "bboxes": [], "areas": []}
    for segmentation in track.segmentations:
        rle = to_rle(segmentation, video.height, video.width)
        area = mask_area(rle) if rle else 0
        result["segmentations"].append(segmentation if area else None)
        result["bboxes"].append(mask_boxes([rle])[0].tolist() if area else None)
        result["areas"].append(area or None)
    return result
