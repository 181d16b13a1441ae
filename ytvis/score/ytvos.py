"""YouTube-VIS annotation files and results files, looked up under the official names."""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ytvis.annotations import (
    AnnotationParser,
    Video,
    as_content,
    as_video_entry,
    distinct_names,
    read_content,
    read_masks,
)
from ytvis.diagnostics import Diagnostics
from ytvis.files import InputError
from ytvis.masks import decode_mask, mask_boxes, read_track
from ytvis.results import NOT_NUMBERS, UNKNOWN_CATEGORY, ResultsParser, read_entries

logger = logging.getLogger(__name__)


def mean_area(areas: Iterable[float | None]) -> float:
    """Mean area over the frames where a track is visible, in pixels; 0 if it never is."""
    visible = [area for area in areas if area]
    if not visible:
        return 0.0
    total = sum(visible)
    # numpy adds fractions in another order, as the official evaluator does; for whole numbers it is slow.
    return total / len(visible) if isinstance(total, int) else float(np.mean(visible))


def _as_list(value: Any) -> list:
    """`value` itself if it is a collection, else a list of it alone: filters accept both."""
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]


class YTVOS:
    """A YouTube-VIS annotation file, or predictions on its videos, with the official query interface.

    Filters of the `get...Ids` take one value or several, and an empty list filters nothing; unknown ids match nothing
    there and raise KeyError in `load...`. `dataset` is the content of the file with all masks compressed, `anns`,
    `cats`, `vids` map ids to its parts, `vidToAnns` and `catToVids` connect them. Raises InputError for a file of
    another format.
    """

    def __init__(self, annotation_file: str | os.PathLike | dict | None = None, source: str | os.PathLike = ""):
        """`source` names the annotations in messages; by default it is the path, if they come from a file.

        Content given as a dict needs only the keys that the official evaluator reads: videos may lack their size and
        `file_names`, and may be missing.
        """
        is_content = isinstance(annotation_file, dict)
        self.source = str(source or ("annotations" if is_content else annotation_file))
        self.dataset: dict = {}
        if annotation_file is not None:
            content = as_content(annotation_file, self.source) if is_content else read_content(annotation_file)
            parser = AnnotationParser(content, self.source, Diagnostics(refuse=self.source), complete=not is_content)
            self.dataset = dict(content)
            if content.get("annotations") is not None:  # sets that are scored by a server have none
                self.dataset["annotations"] = self._annotations(parser)
            else:
                self.dataset.pop("annotations", None)
        self.createIndex()

    def _annotations(self, parser: AnnotationParser) -> list[dict]:
        """Copies of the annotations with compressed masks, and with areas from the masks where the file has none."""
        found = Diagnostics(refuse=self.source)
        annotations = []
        for entry, track in parser.tracks():
            masks, pixels = read_masks(track, parser.videos[track.video_id], found)
            # A list that ends before its video is compared up to its end.
            masks = masks[: len(entry.get("segmentations") or ())]
            areas = entry["areas"] if track.areas else pixels[: len(masks)].tolist()
            annotations.append({**entry, "segmentations": masks, "areas": areas})
        return annotations

    def createIndex(self) -> None:
        """Rebuilds the lookups from `dataset`."""
        self.anns = {annotation["id"]: annotation for annotation in self.dataset.get("annotations", [])}
        self.cats = {category["id"]: category for category in self.dataset.get("categories", [])}
        self.vids = {video["id"]: video for video in self.dataset.get("videos", [])}
        self._videos = {video_id: _as_video(video) for video_id, video in self.vids.items()}
        self.vidToAnns, self.catToVids = defaultdict(list), defaultdict(list)
        for annotation in self.dataset.get("annotations", []):
            self.vidToAnns[annotation["video_id"]].append(annotation)
            self.catToVids[annotation["category_id"]].append(annotation["video_id"])

    def getAnnIds(self, vidIds=(), catIds=(), areaRng=(), iscrowd: bool | int | None = None) -> list[int]:
        """Ids of the tracks in these videos, of these categories, with lo < mean area < hi, crowd or not.

        The mean area of annotations is known after an evaluation only; before, `areaRng` raises KeyError.
        """
        videos, categories = _as_list(vidIds), _as_list(catIds)
        if videos:
            tracks = [track for video in dict.fromkeys(videos) for track in self.vidToAnns.get(video, [])]
        else:
            tracks = self.dataset.get("annotations", [])
        if categories:
            tracks = [track for track in tracks if track["category_id"] in categories]
        if len(areaRng):
            tracks = [track for track in tracks if areaRng[0] < track["avg_area"] < areaRng[1]]
        if iscrowd is not None:
            tracks = [track for track in tracks if track.get("iscrowd", 0) == iscrowd]
        return [track["id"] for track in tracks]

    def getCatIds(self, catNms=(), supNms=(), catIds=()) -> list[int]:
        """Ids of the categories with these names, super-categories and ids, in the file's order."""
        wanted = {"name": _as_list(catNms), "supercategory": _as_list(supNms), "id": _as_list(catIds)}
        return [
            category["id"]
            for category in self.dataset.get("categories", [])
            if all(not values or category.get(key) in values for key, values in wanted.items())
        ]

    def getVidIds(self, vidIds=(), catIds=()) -> list[int]:
        """Ids of the videos among `vidIds` that have tracks of all of `catIds`."""
        wanted = _as_list(vidIds)
        videos = [video for video in self.vids if not wanted or video in wanted]
        sought = [set(self.catToVids.get(category, ())) for category in _as_list(catIds)]
        return [video for video in videos if all(video in holders for holders in sought)]

    def category_names(self) -> dict[int, str]:
        """The name of each category by its id, by rising id; the id is appended to a repeated name."""
        return distinct_names({category_id: category["name"] for category_id, category in self.cats.items()})

    def loadAnns(self, ids=()) -> list[dict]:
        """The tracks with these ids, in their order."""
        return [self.anns[i] for i in _as_list(ids)]

    def loadCats(self, ids=()) -> list[dict]:
        """The categories with these ids, in their order."""
        return [self.cats[i] for i in _as_list(ids)]

    def loadVids(self, ids=()) -> list[dict]:
        """The videos with these ids, in their order."""
        return [self.vids[i] for i in _as_list(ids)]

    def annToRLE(self, ann: dict, frameId: int) -> dict | None:
        """A track's mask on a frame as compressed RLE; None where it is not visible."""
        video = self.vids.get(ann["video_id"], {})
        where = f"{self.source}: track {ann['id']}"
        (rle,), _ = read_track([ann["segmentations"][frameId]], video.get("height"), video.get("width"), where)
        return rle

    def annToMask(self, ann: dict, frameId: int) -> np.ndarray:
        """A track's mask on a frame, [height, width] uint8 0 or 1."""
        rle = self.annToRLE(ann, frameId)
        if rle is None:
            video = self.vids[ann["video_id"]]
            return np.zeros((video["height"], video["width"]), np.uint8)
        return decode_mask(rle).view(np.uint8)

    def loadRes(self, resFile: str | os.PathLike | list[dict], boxes: bool = True) -> "YTVOS":
        """The predictions of a results file, or of a list in its format, on the videos of this object.

        Each has `id` 1, 2, ... in order, `areas` (pixels per frame, None without a mask), `avg_area`, `iscrowd` 0 and,
        unless `boxes` is False, which saves a third of the memory, `bboxes` (x y width height per frame; given ones are
        kept). Masks may be compressed or uncompressed RLE or polygons, and may end before the video does. An empty list
        gives no predictions. Raises InputError for anything but predictions on known videos.
        """
        is_list = isinstance(resFile, list | tuple)
        entries, source = (resFile, "results") if is_list else (read_entries(resFile), str(resFile))
        found = Diagnostics(refuse=source)
        parser = ResultsParser(found, self._videos, self.cats)
        predictions = self.with_tracks(
            (_prediction(parser, entry, n, boxes) for n, entry in enumerate(entries)), source
        )
        for diagnostic in found.of(UNKNOWN_CATEGORY, *NOT_NUMBERS):
            logger.warning("%s: %s", source, diagnostic)
        return predictions

    def with_tracks(self, tracks: Iterable[dict], source: str = "") -> "YTVOS":
        """Returns the same videos and categories with other `tracks`, which are not checked; this object is unchanged.

        `source` names them in messages, by default as this object."""
        other = YTVOS()
        other.source = source or self.source
        other.dataset = {
            "videos": list(self.dataset.get("videos", [])),
            "categories": [dict(category) for category in self.dataset.get("categories", [])],
            "annotations": list(tracks),
        }
        other.createIndex()
        return other


def _as_video(entry: Mapping[str, Any]) -> Video:
    """A video for the reader of predictions; of size 0×0 and length 0 if these are unknown."""
    return Video(entry["id"], entry.get("width") or 0, entry.get("height") or 0, tuple(entry.get("file_names") or ()))


def _prediction(parser: ResultsParser, entry: Any, number: int, boxes: bool) -> dict:
    """A prediction with the fields that `loadRes` adds."""
    track = parser.parse(entry, f"entry {number}")
    areas = np.array([area or 0 for area in track.areas])
    masks = list(track.segmentations)
    entry = as_video_entry(entry)
    return {
        **entry,
        **({"bboxes": _fill_boxes(entry.get("bboxes"), masks)} if boxes else {}),
        "id": number + 1,
        **({"track_id": track.track_id} if "track_id" in entry else {}),
        "segmentations": masks,
        "areas": list(track.areas),
        "avg_area": float(areas.sum() / max(1, np.count_nonzero(areas))),
        "iscrowd": 0,
    }


def _fill_boxes(boxes: Any, masks: list[dict | None]) -> list:
    """`boxes`, if they are a list, and for the frames after its end those around the masks, None without one."""
    boxes = list(boxes) if isinstance(boxes, list | tuple) else []
    missing = masks[len(boxes) :]
    return boxes + [
        None if mask is None else box for mask, box in zip(missing, mask_boxes(missing).tolist(), strict=True)
    ]


# The input of every score: a file, its content, or either already loaded, so that it is read only once.
Truth = str | os.PathLike | dict | YTVOS
Results = str | os.PathLike | list[dict] | YTVOS


def load_pair(annotations: Truth, results: Results) -> tuple[YTVOS, YTVOS]:
    """Loads (truth, predictions).

    Raises InputError for files that are missing or malformed, and for annotations without tracks.
    """
    truth = annotations if isinstance(annotations, YTVOS) else YTVOS(annotations)
    if "annotations" not in truth.dataset:
        raise InputError(f"{truth.source}: has no annotations to compare with; only its server can score such a set")
    return truth, results if isinstance(results, YTVOS) else truth.loadRes(results, boxes=False)
