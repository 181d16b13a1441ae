"""Static images: files in the COCO format, as videos of one frame each.

COCO lists `images` where YouTube-VIS lists `videos`, and gives each annotation one `segmentation`, `bbox` and `area`
where a track has a list of them. Everything else is the same, so the one becomes the other before it is looked into.
"""

from array import array
from pathlib import Path
from typing import Any

from ytvis.files import InputError


def is_static(content: dict[str, Any]) -> bool:
    """Whether `content` is that of a COCO file: it has images, and no videos."""
    return "images" in content and "videos" not in content


def as_videos(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """`content` in the YouTube-VIS format, under the same ids; as it is if it is no COCO file's.

    The lists in `content` are used up: a set of 860,000 annotations is large enough once. What is wrong in their
    values is left for the reader of the other format to find.

    Raises:
        InputError: an image or an annotation lacks what it must have; `path` is the file that is named.
    """
    if not is_static(content):
        return content
    content = dict(content)
    videos, annotations = content.pop("images"), content.get("annotations")
    if isinstance(videos, list):
        for position, image in enumerate(videos):
            _require(image, ("id", "width", "height", "file_name"), f"{path}: image number {position + 1}")
            size = {"width": image["width"], "height": image["height"]}
            videos[position] = {"id": image["id"], **size, "file_names": [image["file_name"]]}
    if isinstance(annotations, list):
        for position, annotation in enumerate(annotations):
            if annotation is not None:
                where = f"{path}: annotation number {position + 1}"
                _require(annotation, ("id", "image_id", "category_id"), where)
                annotations[position] = _as_track(annotation)
    return {**content, "videos": videos}


def compact_polygons(entry: dict[str, Any]) -> dict[str, Any]:
    """`entry`, an object of a COCO file, with the polygons of its `segmentation` as arrays of floats.

    As the hook of the JSON reader it saves half of the memory that a file takes: its millions of coordinates are never
    all objects at a time. What is no list of lists of numbers stays as it is.
    """
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, list) and all(isinstance(polygon, list) for polygon in segmentation):
        try:
            entry["segmentation"] = [array("d", polygon) for polygon in segmentation]
        except (TypeError, OverflowError):  # the reader of the annotation says so when it is used
            return entry
    return entry


def _as_track(annotation: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": annotation["id"],
        "video_id": annotation["image_id"],
        "category_id": annotation["category_id"],
        "iscrowd": annotation.get("iscrowd", 0),
        "segmentations": [annotation.get("segmentation")],
        "bboxes": [annotation.get("bbox")],
        "areas": [annotation.get("area")],
    }


def _require(entry: Any, keys: tuple[str, ...], where: str) -> None:
    if not isinstance(entry, dict):
        raise InputError(f"{where} must be an object, not {type(entry).__name__}")
    missing = [key for key in keys if key not in entry]
    if missing:
        raise InputError(f"{where} lacks {missing[0]!r}")
