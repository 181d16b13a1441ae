"""COCO with tracks: `images` of one or several videos, and `annotations` with a track id.

An image's video is its `video_id` (CocoVID, and what `write` gives) or else the folder in its file_name; its place is
its `frame_id` or `frame_index` or else its name, numbers by value. The track id is the annotation's `track_id` or
`instance_id`, its own or among its `attributes`, where several tools put it; it is the same in all frames of an object
and, within a video, no other's.
"""

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from ytvis.annotations import AnnotationFile, is_crowd_flag, is_id, write_content
from ytvis.convert.tracks import (
    TrackCollector,
    category_entries,
    collect,
    field,
    progress,
    track_id,
    videos_to_write,
)
from ytvis.files import InputError, natural_key, read_json
from ytvis.frames import name_of_folder, warn_if_unrelated
from ytvis.masks import mask_area, mask_boxes, to_rle
from ytvis.messages import shown

FRAME_KEYS = ("frame_id", "frame_index")


def read(source: str | os.PathLike) -> AnnotationFile:
    """The tracks of a COCO file; all its categories and images are kept, with or without annotations.

    Raises:
        InputError: the file is not COCO's, or an annotation has no track id.
    """
    content = read_json(source)
    images = _by_id(content, "images", {"file_name": str, "width": int, "height": int}, source)
    categories = {key: entry["name"] for key, entry in _by_id(content, "categories", {"name": str}, source).items()}
    if len(set(categories.values())) < len(categories):
        raise InputError(f"{source}: two categories have the same name; give each its own")
    for image in images.values():
        image["file_name"] = image["file_name"].replace("\\", "/")  # written on Windows
    places: dict[int, tuple[TrackCollector, int]] = {}
    collectors: list[TrackCollector] = []
    for name, frames in _videos(content, list(images.values()), source):
        where = f"{source}: image {frames[0]['id']}"
        collector = TrackCollector(name, frames[0]["height"], frames[0]["width"], where)
        for frame_index, image in enumerate(frames):
            if (image["height"], image["width"]) != (collector.height, collector.width):
                raise InputError(f"{source}: image {image['id']} is not of the size of {frames[0]['file_name']}")
            places[image["id"]] = collector, frame_index
        collector.name_frames(image["file_name"] for image in frames)
        collectors.append(collector)
    for entry in progress(_entries(content, "annotations", source), "annotations"):
        _add(entry, places, categories, f"{source}: annotation {entry.get('id')}")
    return collect(source, collectors, dict(sorted(categories.items())))


def _videos(content: dict, images: Sequence[dict], source: str | os.PathLike) -> list[tuple[str, list[dict]]]:
    """(name, its images in order) of every video: by `video_id`, ascending, or by folder, in natural order."""
    with_id = [image for image in images if image.get("video_id") is not None]
    if with_id and len(with_id) < len(images):
        first = next(image for image in images if image.get("video_id") is None)
        raise InputError(f"{source}: image {first['id']} has no 'video_id', but others have; give it to all or to none")
    groups: dict[Hashable, list[dict]] = {}
    for image in images:
        folder = str(PurePosixPath(image["file_name"]).parent)
        key = field(image, "video_id", int, f"{source}: image {image['id']}") if with_id else folder
        groups.setdefault(key, []).append(image)
    if not with_id:
        in_order = sorted(groups.items(), key=lambda item: natural_key(item[0]))
        for _, frames in in_order:
            frames[:] = _in_order(frames, f"{source}: folder {folder}")
            warn_if_unrelated([image["file_name"] for image in frames], str(source))
        return [
            (name_of_folder(folder, f"video_{place}"), frames) for place, (folder, frames) in enumerate(in_order, 1)
        ]
    listed = content.get("videos")
    names = {
        video.get("id"): video["name"].replace("\\", "/")
        for video in (listed if isinstance(listed, list) else ())
        if isinstance(video, dict) and isinstance(video.get("name"), str) and isinstance(video.get("id"), int)
    }
    videos = []
    for video_id, frames in sorted(groups.items()):
        folders = {str(PurePosixPath(image["file_name"]).parent) for image in frames}
        folder = folders.pop() if len(folders) == 1 else ""
        name = name_of_folder(names.get(video_id, folder), f"video_{video_id}")
        videos.append((name, _in_order(frames, f"{source}: video {video_id}")))
    if len({name for name, _ in videos}) < len(videos):
        return [(f"video_{video_id}", frames) for video_id, (_, frames) in zip(sorted(groups), videos, strict=True)]
    return videos


def _in_order(frames: list[dict], where: str) -> list[dict]:
    """The images of a video by the number of their frames, or, where none has one, by their names."""
    key = next((key for key in FRAME_KEYS if any(image.get(key) is not None for image in frames)), None)
    if key is None:
        return sorted(frames, key=lambda image: natural_key(image["file_name"]))
    numbers = {field(image, key, int, f"{where}, image {image['id']}"): image for image in frames}
    if len(numbers) < len(frames):
        raise InputError(f"{where}: two of its images have the same {key!r}")
    return [numbers[number] for number in sorted(numbers)]


def _add(entry: dict, places: dict[int, tuple[TrackCollector, int]], categories: dict[int, str], where: str) -> None:
    """Adds an annotation to the video of its image."""
    image_id, category_id = (field(entry, key, int, where) for key in ("image_id", "category_id"))
    if image_id not in places:
        raise InputError(f"{where}: there is no image {image_id}")
    if category_id not in categories:
        raise InputError(f"{where}: there is no category {category_id}")
    if not entry.get("segmentation"):
        raise InputError(f"{where}: 'segmentation' is missing; boxes alone cannot be used")
    collector, frame_index = places[image_id]
    is_crowd = entry.get("iscrowd")
    if not is_crowd_flag(is_crowd):
        raise InputError(f"{where}: 'iscrowd' must be 0 or 1, not {shown(is_crowd)}")
    key, category = _track_id(entry, where), categories[category_id]
    collector.add(key, category, frame_index, entry["segmentation"], where, bool(is_crowd))


def _track_id(entry: dict, where: str) -> int | str:
    attributes = entry.get("attributes")
    for holder in (entry, attributes if isinstance(attributes, dict) else {}):
        found = track_id(holder, where)
        if found is not None:
            return found
    raise InputError(f"{where}: 'track_id' is missing: give all annotations of an object, frame by frame, the same one")


def _entries(content: Any, key: str, source: str | os.PathLike) -> list[dict]:
    entries = field(content, key, list, str(source))
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(f"{source}: {key}, entry {position + 1} must be an object")
    return entries


def _by_id(content: Any, key: str, fields: dict[str, type], source: str | os.PathLike) -> dict[int, dict]:
    """{id: entry} of a list whose entries have an id and `fields`."""
    result = {}
    for position, entry in enumerate(_entries(content, key, source)):
        where = f"{source}: {key}, entry {position + 1}"
        entry_id = field(entry, "id", int, where)
        if not is_id(entry_id):
            raise InputError(f"{where}: the id {shown(entry_id)} is not a 64-bit integer")
        if entry_id in result:
            raise InputError(f"{where}: the id {entry_id} is there twice")
        for name, kind in fields.items():
            field(entry, name, kind, where)
        result[entry_id] = entry
    if not result:
        raise InputError(f"{source}: {key!r} is empty")
    return result


def annotation_entry(
    ids: Mapping[str, int],
    segmentation: list | dict,
    box_xywh: Sequence[float],
    area: float,
    is_crowd: bool = False,
) -> dict[str, Any]:
    """An annotation of a COCO file; `ids` are its `id`, `image_id`, `track_id` and `category_id`."""
    place = {"segmentation": segmentation, "bbox": box_xywh, "area": area}
    return {**ids, "iscrowd": int(is_crowd), **place}


def write(annotations: AnnotationFile, target: str | os.PathLike) -> None:
    """Writes a COCO file with `video_id` and `frame_index` for images and `track_id` for annotations, all from 1."""
    images, entries, num_tracks = [], [], 0
    videos = progress(videos_to_write(annotations), "videos")
    for video_id, (_, video, tracks) in enumerate(videos, start=1):
        first_image = len(images) + 1
        for frame_index, file_name in enumerate(video.file_names):
            entry = {"id": len(images) + 1, "file_name": file_name, "width": video.width, "height": video.height}
            images.append({**entry, "video_id": video_id, "frame_index": frame_index})
        for track in tracks:
            num_tracks += 1
            for frame_index, segmentation in enumerate(track.segmentations):
                rle = to_rle(segmentation, video.height, video.width)
                if rle is None or not mask_area(rle):
                    continue
                ids = {"id": len(entries) + 1, "image_id": first_image + frame_index, "track_id": num_tracks}
                ids["category_id"] = track.category_id
                box = mask_boxes([rle])[0].tolist()
                entries.append(annotation_entry(ids, segmentation, box, mask_area(rle), track.iscrowd))
    categories = category_entries(annotations.categories)
    write_content({"images": images, "categories": categories, "annotations": entries}, target)
