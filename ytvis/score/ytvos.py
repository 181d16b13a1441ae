"""YouTube-VIS annotation files and results files, read and looked up under the official names."""

import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any

import numpy as np

from ytvis.files import InputError, NotAList, read_json_list
from ytvis.masks import check_rle, decode_mask, mask_boxes, read_track


def read_json(path: str | os.PathLike) -> Any:
    """The content of a file, lists of runs compressed as they are met: as numbers they take twenty times the file."""
    with _reading(path), open(path, encoding="utf-8-sig") as file:
        return json.loads(file.read(), object_hook=compact_masks())


def _read_entries(path: str | os.PathLike) -> Iterator[Any]:
    """The entries of a file of predictions, one after the other, as `read_json` gives them."""
    with _reading(path):
        yield from read_json_list(path, compact_masks(), encoding="utf-8-sig")


@contextmanager
def _reading(path: str | os.PathLike) -> Iterator[None]:
    """Makes InputError, in one line with the path, of what goes wrong while a JSON file is read."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except NotAList as error:
        raise InputError(f"{path}: predictions must be a list ({error})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not a JSON file ({error})") from error


def compact_masks() -> Callable[[dict], dict]:
    """An `object_hook` for a JSON file that makes of its objects, as they are read, what takes little memory."""
    sizes: dict[tuple, list] = {}

    def compact(item: dict) -> dict:
        """A mask as compressed RLE, whose size is one object for all masks of this size; anything else as it is."""
        if item.keys() == {"size", "counts"}:
            try:
                item["size"] = sizes.setdefault(tuple(item["size"]), item["size"])
                if isinstance(item["counts"], list):
                    item["counts"] = check_rle(item)["counts"].encode("ascii")
            except (InputError, TypeError):
                pass  # the fault is reported when it is known where the mask is
        return item

    return compact


ID_KEYS = ("id", "video_id", "category_id")


def _require_keys(item: Any, keys: tuple[str, ...], where: str) -> None:
    """Raises InputError, starting with `where`, unless `item` is a dict that has `keys`, those of ids with numbers."""
    missing = [key for key in keys if key not in item] if isinstance(item, dict) else keys
    if missing:
        raise InputError(f"{where} has no {' and no '.join(map(repr, missing))}")
    for key in keys:
        if key in ID_KEYS and not isinstance(item[key], Real):
            raise InputError(f"{where}: {key!r} must be a number, not {item[key]!r}")


def _require_list(items: Any, keys: tuple[str, ...], source: str, what: str) -> None:
    """Raises InputError unless `items` is a list of dicts that all have `keys`."""
    if not isinstance(items, list):
        raise InputError(f"{source}: {what}s must be a list, not {type(items).__name__}")
    for number, item in enumerate(items):
        _require_keys(item, keys, f"{source}: {what} number {number}")


def mean_area(areas: Iterable[float | None]) -> float:
    """Mean over the frames where a track is visible, in pixels; 0 if it never is."""
    visible = [area for area in areas if area]
    if not visible:
        return 0.0
    total = sum(visible)
    # numpy adds fractions in another order, which the official evaluator has from it; whole numbers it adds slowly.
    return total / len(visible) if isinstance(total, int) else float(np.mean(visible))


def _compressed(track: dict, video: dict, where: str) -> tuple[list[dict | None], np.ndarray]:
    """The masks of a track on `video`, compressed, and their pixels; what raises InputError says `where`."""
    return read_track(track["segmentations"], video.get("height"), video.get("width"), where)


def _as_list(value: Any) -> list:
    """`value` itself if it holds several, else a list of it alone: filters take both."""
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]


class YTVOS:
    """A YouTube-VIS annotation file, or predictions on its videos, with the official query interface.

    Filters of the `get...Ids` take one value or several, and an empty list filters nothing; unknown ids find nothing
    there and raise KeyError in `load...`. `dataset` is the content of the file with all masks compressed, `anns`,
    `cats`, `vids` find its parts by id, `vidToAnns` and `catToVids` connect them. Raises InputError for a file that is
    not of that format.
    """

    def __init__(self, annotation_file: str | os.PathLike | dict | None = None, source: str | os.PathLike = ""):
        """`source` is what messages call the annotations; by default the path, if they come from a file."""
        self.source = str(source or ("annotations" if isinstance(annotation_file, dict) else annotation_file))
        self.dataset: dict = {}
        if annotation_file is not None:
            dataset = annotation_file if isinstance(annotation_file, dict) else read_json(annotation_file)
            if not isinstance(dataset, dict):
                raise InputError(f"{self.source}: must hold an object with videos, categories and annotations")
            _require_list(dataset.get("videos"), ("id",), self.source, "video")
            _require_list(dataset.get("categories"), ("id", "name"), self.source, "category")
            for category in dataset["categories"]:
                if not isinstance(category["name"], str):
                    raise InputError(f"{self.source}: category {category['id']}: 'name' must be text")
            self.dataset = dict(dataset)
            if "annotations" in dataset:  # the sets that are scored by a server have none
                keys = ("id", "video_id", "category_id", "segmentations", "areas")
                _require_list(dataset["annotations"], keys, self.source, "annotation")
                videos = {video["id"]: video for video in dataset["videos"]}
                self.dataset["annotations"] = [self._annotation(a, videos) for a in dataset["annotations"]]
        self.createIndex()

    def _annotation(self, annotation: dict, videos: dict[int, dict]) -> dict:
        """A copy of an annotation with compressed masks, which take a tenth of the memory of lists of runs."""
        video = videos.get(annotation["video_id"])
        if video is None:  # then it takes part in nothing, and its polygons have no size
            return dict(annotation)
        where = f"{self.source}: annotation {annotation['id']}"
        areas = annotation["areas"]
        if not isinstance(areas, list) or not all(area is None or isinstance(area, Real) for area in areas):
            raise InputError(f"{where}: areas must be a list with one number or null a frame")
        return {**annotation, "segmentations": _compressed(annotation, video, where)[0]}

    def createIndex(self) -> None:
        """Rebuilds the lookups from `dataset`."""
        self.anns = {annotation["id"]: annotation for annotation in self.dataset.get("annotations", [])}
        self.cats = {category["id"]: category for category in self.dataset.get("categories", [])}
        self.vids = {video["id"]: video for video in self.dataset.get("videos", [])}
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
        """Ids of the videos among `vidIds` that hold tracks of all of `catIds`."""
        wanted = _as_list(vidIds)
        videos = [video for video in self.vids if not wanted or video in wanted]
        sought = [set(self.catToVids.get(category, ())) for category in _as_list(catIds)]
        return [video for video in videos if all(video in holders for holders in sought)]

    def category_names(self) -> dict[int, str]:
        """The name of each category by its id, by rising id; a name that is there already gets the id behind it."""
        names: dict[int, str] = {}
        taken: set[str] = set()
        for category in sorted(self.cats):
            name = self.cats[category]["name"]
            names[category] = f"{name} ({category})" if name in taken else name
            taken.add(names[category])
        return names

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
        frame = {"segmentations": [ann["segmentations"][frameId]]}
        return _compressed(frame, video, f"{self.source}: track {ann['id']}")[0][0]

    def annToMask(self, ann: dict, frameId: int) -> np.ndarray:
        """A track's mask on a frame, [height, width] uint8 0 or 1."""
        rle = self.annToRLE(ann, frameId)
        if rle is None:
            video = self.vids[ann["video_id"]]
            return np.zeros((video["height"], video["width"]), np.uint8)
        return decode_mask(rle).view(np.uint8)

    def loadRes(self, resFile: str | os.PathLike | list[dict], boxes: bool = True) -> "YTVOS":
        """The predictions of a results file, or of a list as it would hold, on the videos of this object.

        Each gets `id` 1, 2, ... in order, `areas` (pixels per frame, None without a mask), `avg_area`, `iscrowd` 0
        and, unless `boxes` is False, which saves a third of the memory, `bboxes` (x y width height per frame; given
        ones are kept). Masks may be compressed or uncompressed RLE or polygons, and may end before the video does. An
        empty list gives no predictions. Raises InputError for anything else than predictions on known videos.
        """
        is_list = isinstance(resFile, list | tuple)
        entries, source = (resFile, "results") if is_list else (_read_entries(resFile), str(resFile))
        return self.with_tracks((self._prediction(entry, n, source, boxes) for n, entry in enumerate(entries)), source)

    def with_tracks(self, tracks: Iterable[dict], source: str = "") -> "YTVOS":
        """The same videos and categories with other `tracks`, which are taken as they are; this object stays as it is.

        `source` is what messages call them, by default as they call this object."""
        other = YTVOS()
        other.source = source or self.source
        other.dataset = {
            "videos": list(self.dataset.get("videos", [])),
            "categories": [dict(category) for category in self.dataset.get("categories", [])],
            "annotations": list(tracks),
        }
        other.createIndex()
        return other

    def _prediction(self, prediction: dict, number: int, source: str, boxes: bool) -> dict:
        """A prediction with the fields that `loadRes` adds."""
        where = f"{source}: prediction number {number}"
        _require_keys(prediction, ("video_id", "category_id", "score", "segmentations"), where)
        if prediction["video_id"] not in self.vids:
            raise InputError(f"{where} is on video {prediction['video_id']}, which {self.source} does not have")
        if not isinstance(prediction["score"], int | float | np.number) or not math.isfinite(prediction["score"]):
            raise InputError(f"{where} has the score {prediction['score']!r}, which is not a finite number")
        masks, areas = _compressed(prediction, self.vids[prediction["video_id"]], where)
        return {
            **prediction,
            **({"bboxes": _fill_boxes(list(prediction.get("bboxes") or []), masks)} if boxes else {}),
            "id": number + 1,
            "segmentations": masks,
            "areas": [None if mask is None else area for mask, area in zip(masks, areas.tolist(), strict=True)],
            "avg_area": float(areas.sum() / max(1, np.count_nonzero(areas))),
            "iscrowd": 0,
        }


def _fill_boxes(boxes: list, masks: list[dict | None]) -> list:
    """`boxes`, and for the frames behind its end those around the masks, None where there is none."""
    missing = masks[len(boxes) :]
    found = mask_boxes(missing).tolist()
    return boxes + [None if mask is None else box for mask, box in zip(missing, found, strict=True)]


# What every score takes: a file, its content, or either loaded already, which saves reading it for each score anew.
Truth = str | os.PathLike | dict | YTVOS
Results = str | os.PathLike | list[dict] | YTVOS


def load_pair(annotations: Truth, results: Results) -> tuple[YTVOS, YTVOS]:
    """What is true and what is predicted.

    Raises InputError for files that are missing or malformed, and for annotations that hold no tracks to compare with.
    """
    truth = annotations if isinstance(annotations, YTVOS) else YTVOS(annotations)
    if "annotations" not in truth.dataset:
        raise InputError(f"{truth.source}: has no annotations to compare with; such a set is scored by its server only")
    return truth, results if isinstance(results, YTVOS) else truth.loadRes(results, boxes=False)
