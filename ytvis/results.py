"""results.json: its tracks, their one reader and writer, and the journal of an unfinished run.

The file is a list with one entry per track: `video_id`, `score`, `category_id`, and `segmentations` with one entry per
frame of the video: a COCO compressed RLE `{"size": [height, width], "counts": text}`, or null where the track is not
seen. Keys beyond the official format, which official evaluators pass over: `track_id`, the number of the object in all
outputs of the run, from 0 in each video; and on request two lists with one entry per frame, `scores`, a number or null,
and `shifted`, true where temporal fusion alone shows the track.

Results of images are in COCO's format: one entry per object, with `image_id`, `category_id`, `bbox`, `score` and
`segmentation`. They are read as tracks of videos of one frame.
"""

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ytvis.annotations import MAX_NUMBER, Track, Video, as_video_entry, compact_masks, is_id, is_number
from ytvis.diagnostics import Diagnostics, Rule
from ytvis.files import InputError, NotAList, atomic_write, read_json_list
from ytvis.journal import Journal, json_line, plain_number
from ytvis.masks import encode_masks, mask_boxes, plain_rle, read_track
from ytvis.messages import shown
from ytvis.pixels import PixelObjects

logger = logging.getLogger(__name__)

SCORE_DIGITS = 4  # of the score of a track in one frame

_KEYS = ("video_id", "category_id", "score", "segmentations")
_ONE_A_FRAME = "write one entry per frame of the video, null where the object is not visible"
_PLAIN_RLE = 'write null or a compressed RLE {"size": [height, width], "counts": text}'

NOT_AN_OBJECT = Rule("refused", "an entry is not an object", f"an entry must have {', '.join(_KEYS)}")
LACKS = {key: Rule("refused", f"{key!r} is missing", f"an entry must have {', '.join(_KEYS)}") for key in _KEYS}
UNKNOWN_VIDEO = Rule("refused", "unknown video", "video_id must be one of the annotation file's, an integer")
BAD_CATEGORY = Rule("refused", "the category is not an integer", "category_id must be one of the annotation file's")
UNKNOWN_CATEGORY = Rule(
    "warning", "unknown category", "it is not scored: category_id must be the annotation file's, not a label"
)
NOT_A_SCORE = Rule("refused", "the score is not a finite number", "write a number in 0…1")
SCORE_RANGE = Rule("warning", "the score is not in 0…1", "only the order of scores matters, but some tools expect 0…1")
BAD_TRACK_ID = Rule(
    "warning", "the track id is not a whole number", "it is ignored: write integers of at least 0, or leave the key out"
)
SAME_TRACK_ID = Rule(
    "warning", "two tracks of a video have the same id", "they are ignored: give each its own, or leave the key out"
)
SOME_TRACK_IDS = Rule(
    "warning", "some tracks of a video have an id, others none", "they are ignored: give each its own, or all none"
)
NOT_NUMBERS = (BAD_TRACK_ID, SAME_TRACK_ID, SOME_TRACK_IDS)  # for which `track_numbers` may pass over a video's ids
NO_LIST = Rule("refused", "'segmentations' is not a list", _ONE_A_FRAME)
WRONG_LENGTH = Rule("warning", "'segmentations' is not as long as the video", f"the rest is ignored: {_ONE_A_FRAME}")
RUNS = Rule("warning", "counts are a list of runs", "the official evaluator refuses it: compress with pycocotools.mask")
POLYGONS = Rule("warning", "a segmentation is polygons", f"the official evaluator refuses it: {_PLAIN_RLE}")
BAD_RLE = Rule("refused", "a segmentation cannot be read", _PLAIN_RLE)
BYTES_AS_TEXT = Rule("refused", "counts are the printed form of bytes", "write counts.decode('ascii'), not str(counts)")
SWAPPED_SIZE = Rule("warning", "a mask has height and width swapped", "it is not scored: size is [height, width]")
WRONG_SIZE = Rule("warning", "a mask is not of the video's size", "it is not scored: resize it to the video's size")


# ---------------------------------------------------------------------------------------------------- one video


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenObject:
    """An object of results in one frame: `track_id` is the number of its track, `rle` its mask as COCO's RLE, `shifted`
    whether it was not detected but predicted by temporal fusion."""

    frame: int
    track_id: int
    label: int
    score: float
    rle: dict
    shifted: bool = False


def track_result(
    seen: Sequence[SeenObject],
    num_frames: int,
    video_id: int,
    details: bool = False,
    category_id: int | None = None,
    length_power: float = 0.0,
) -> Track:
    """Returns the entry of results.json for a track from the frames that show it.

    `seen` has at least one, all of one track, in the order of the frames. The category is the `majority_label`, unless
    it is given; the score is the mean over the frames, times (their number / `num_frames`) to the power `length_power`;
    with `details` each frame's own score and whether it is shifted are kept.
    """
    segmentations: list[dict | None] = [None] * num_frames
    scores: list[float | None] = [None] * num_frames
    shifted = [False] * num_frames
    for item in seen:
        segmentations[item.frame] = item.rle
        scores[item.frame] = round(item.score, SCORE_DIGITS)
        shifted[item.frame] = item.shifted
    # The published results hold the mean in single precision.
    mean_score = float(np.mean(np.array([item.score for item in seen], dtype=np.float32)))
    return Track(
        video_id,
        category_id=majority_label(seen) if category_id is None else category_id,
        score=mean_score * (len(seen) / num_frames) ** length_power,
        segmentations=tuple(segmentations),
        scores=tuple(scores) if details else None,
        shifted=tuple(shifted) if details else None,
        track_id=seen[0].track_id,
    )


def majority_label(seen: Sequence[SeenObject]) -> int:
    """The most frequent label of `seen`, the smallest on a tie."""
    return min(Counter(item.label for item in seen).items(), key=lambda item: (-item[1], item[0]))[0]


class VideoResultBuilder:
    """Collects the objects of a video frame by frame and returns its entries of results.json.

    `num_frames` may be None until `finish`, for a source whose length is not known in advance.
    `category_ids[label - 1]` is the annotation file's id of a label, or None if the file lacks the class: such tracks
    are left out, which is logged. `details` and `length_power` are as in `track_result`.
    """

    def __init__(
        self,
        video_id: int,
        num_frames: int | None,
        original_hw: tuple[int, int],
        category_ids: Sequence[int | None],
        details: bool = False,
        length_power: float = 0.0,
    ):
        self.video_id = video_id
        self.num_frames = num_frames
        self.original_hw = original_hw
        self.category_ids = category_ids
        self.details = details
        self.length_power = length_power
        self._seen: dict[int, list[SeenObject]] = {}

    def add(self, frame_index: int, objects: PixelObjects) -> None:
        """Adds the objects of one frame, 0 ≤ frame_index < num_frames, in arrays or in tensors on the CPU; a frame
        never added has none.

        Raises:
            IndexError: the index is out of range.
            ValueError: the masks differ in size from the video.
        """
        if frame_index < 0 or (self.num_frames is not None and frame_index >= self.num_frames):
            raise IndexError(f"video {self.video_id} has {self.num_frames} frames, none with index {frame_index}")
        if len(objects.masks) and tuple(objects.masks.shape[1:]) != tuple(self.original_hw):
            raise ValueError(f"masks of {tuple(objects.masks.shape[1:])} in a video of {tuple(self.original_hw)}")
        rows = zip(
            objects.track_ids.tolist(),
            objects.labels.tolist(),
            objects.scores.tolist(),
            objects.shifted.tolist(),
            encode_masks(np.asarray(objects.masks)),
            strict=True,
        )
        for track_id, label, score, shifted, rle in rows:
            seen = SeenObject(frame=frame_index, track_id=track_id, label=label, score=score, rle=rle, shifted=shifted)
            self._seen.setdefault(track_id, []).append(seen)

    def finish(self) -> list[Track]:
        """One entry a track, see `track_result`, in the order of first appearance; [] without objects."""
        results = []
        for seen in self._seen.values():
            category_id = self.category_ids[majority_label(seen) - 1]
            if category_id is not None:
                results.append(
                    track_result(seen, self.num_frames, self.video_id, self.details, category_id, self.length_power)
                )
        left_out = len(self._seen) - len(results)
        if left_out:
            logger.info("video %s: %d tracks left out, the annotation file lacks their class", self.video_id, left_out)
        return results


def track_numbers(track_ids: Sequence[int | None]) -> tuple[list[int], bool]:
    """(the number under which each track of a video is shown, whether that is its `track_id`).

    Unless each has an id of its own, they are numbered from 0 in the order of the file.
    """
    if track_ids and None not in track_ids and len(set(track_ids)) == len(track_ids):
        return list(track_ids), True
    return list(range(len(track_ids))), False


# ---------------------------------------------------------------------------------------------------- whole files


class ResultsParser:
    """Reads the entries of a results file; reports faults to a `Diagnostics`."""

    def __init__(
        self, found: Diagnostics, videos: Mapping[int, Video] | None = None, categories: Container[int] | None = None
    ):
        """`videos` and `categories` are those of the annotation file; None skips the comparison."""
        self._found = found
        self._videos = videos
        self._categories = categories
        self._track_ids: set[tuple[int, int]] = set()  # and the ids of their videos
        self._has_ids: dict[int, bool | None] = {}  # whether the tracks of a video have ids; None: some have

    def parse(self, entry: Any, where: str) -> Track | None:
        """Returns the track of an entry, None if it is unusable; `where` names it in messages.

        `segmentations` are RLEs, which may be of another size than the video, and as many as in the file; `areas` are
        their pixels. `scores` and `shifted` are set if they are lists of one entry per frame, as written here.

        Raises:
            InputError: the diagnostics refuse a fault.
        """
        if not isinstance(entry, Mapping):
            self._found.add(NOT_AN_OBJECT, where, shown(entry))
            return None
        entry = as_video_entry(entry)
        for key in _KEYS:
            if key not in entry:
                self._found.add(LACKS[key], where)
        video_id, category_id = self._video_id(entry, where), entry.get("category_id")
        video = self._videos.get(video_id) if self._videos is not None else None
        where = where if video is None else f"{where} (video {video_id})"
        if "category_id" in entry and not is_id(category_id):
            self._found.add(BAD_CATEGORY, where, shown(category_id))
            category_id = None
        elif self._categories is not None and category_id is not None and category_id not in self._categories:
            self._found.add(UNKNOWN_CATEGORY, where, category_id)
        score = self._score(entry, where)
        masks, areas = self._masks(entry, video, where)
        if video_id is None or category_id is None or score is None or masks is None:
            return None
        scores, shifted = (entry.get(key) for key in ("scores", "shifted"))
        track_id = self._track_id(entry, int(video_id), where)
        return Track(
            int(video_id),
            int(category_id),
            tuple(masks),
            areas=tuple(None if mask is None else area for mask, area in zip(masks, areas.tolist(), strict=True)),
            score=score,
            scores=tuple(scores) if _are_scores(scores, len(masks)) else None,
            shifted=tuple(map(bool, shifted)) if isinstance(shifted, list) and len(shifted) == len(masks) else None,
            track_id=track_id,
        )

    def _video_id(self, entry: Mapping, where: str) -> int | None:
        video_id = entry.get("video_id")
        if is_id(video_id) and (self._videos is None or video_id in self._videos):
            return video_id
        if "video_id" in entry:
            self._found.add(UNKNOWN_VIDEO, where, shown(video_id))
        return None

    def _track_id(self, entry: Mapping, video_id: int, where: str) -> int | None:
        track_id = entry.get("track_id")
        is_given = track_id is not None
        if is_given and not (is_id(track_id) and 0 <= track_id <= MAX_NUMBER):
            self._found.add(BAD_TRACK_ID, where, shown(track_id))
            is_given = False
        if self._has_ids.setdefault(video_id, is_given) is not is_given:
            if self._has_ids[video_id] is not None:
                self._found.add(SOME_TRACK_IDS, where)
            self._has_ids[video_id] = None
        if not is_given:
            return None
        if (video_id, track_id) in self._track_ids:
            self._found.add(SAME_TRACK_ID, where, track_id)
        self._track_ids.add((video_id, int(track_id)))
        return int(track_id)

    def _score(self, entry: Mapping, where: str) -> float | None:
        score = entry.get("score")
        if _is_finite(score):
            if not 0 <= score <= 1:
                self._found.add(SCORE_RANGE, where, score)
            return score
        if "score" in entry:
            self._found.add(NOT_A_SCORE, where, shown(score))
        return None

    def _masks(
        self, entry: Mapping, video: Video | None, where: str
    ) -> tuple[list[dict | None] | None, np.ndarray | None]:
        """(The RLEs, their pixels) of an entry, or None and None."""
        segmentations = entry.get("segmentations")
        if not isinstance(segmentations, list | tuple):
            if "segmentations" in entry:
                self._found.add(NO_LIST, where, shown(segmentations))
            return None, None
        if video is not None and len(video) and len(segmentations) != len(video):
            self._found.add(WRONG_LENGTH, where, f"{len(segmentations)} entries, the video has {len(video)} frames")
        size = [None, None] if video is None else [video.height, video.width]
        for frame, segmentation in enumerate(segmentations):
            if isinstance(segmentation, list) and segmentation:
                self._found.add(POLYGONS, f"{where}, frame {frame}")
            elif isinstance(segmentation, dict) and not isinstance(segmentation.get("counts"), str):
                # Runs are compressed to bytes as a file is read.
                self._found.add(RUNS, f"{where}, frame {frame}")

        def report(frame: int, fault: str) -> None:
            counts = segmentations[frame].get("counts") if isinstance(segmentations[frame], Mapping) else None
            is_bytes = isinstance(counts, str) and counts.startswith(("b'", 'b"'))
            rule, detail = (BYTES_AS_TEXT, counts[:20]) if is_bytes else (BAD_RLE, fault)
            self._found.add(rule, f"{where}, frame {frame}", detail)

        masks, areas = read_track(segmentations, *size, where, report)
        if areas.min(initial=0) < 0:
            return None, None
        if video is not None and all(size):
            for frame, mask in enumerate(masks):
                if mask is not None and list(mask["size"]) != size:
                    rule = SWAPPED_SIZE if list(mask["size"]) == size[::-1] else WRONG_SIZE
                    text = f"{list(mask['size'])} (height, width), the video is {size}"
                    self._found.add(rule, f"{where}, frame {frame}", text)
        return masks, areas


def _is_finite(score: Any) -> bool:
    """Whether `score` is a number, Python's or numpy's, that a float can hold."""
    if not isinstance(score, int | float | np.integer | np.floating) or isinstance(score, bool):
        return False
    try:
        return math.isfinite(score)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _are_scores(scores: Any, length: int) -> bool:
    """Whether these are the scores of frames; other tools may use the key for something else."""
    is_list = isinstance(scores, list) and len(scores) == length
    return is_list and all(score is None or is_number(score) for score in scores)


def read_entries(path: str | os.PathLike) -> Iterator[Any]:
    """Yields the entries of a results file for a `ResultsParser`; lists of runs are compressed.

    Raises:
        InputError: the file cannot be read or does not hold a list.
    """
    try:
        yield from read_json_list(path, compact_masks())
    except NotAList as error:
        raise InputError(f"{path}: results must be a list ({error.problem})") from None


def write_results(results: Iterable[Track | Mapping], path: str | os.PathLike) -> None:
    """Writes a results.json, entry by entry, so that `results` may be a generator over any number of videos.

    Counts given as bytes become text, and lists of runs are compressed; numpy numbers are accepted. The file is written
    whole or not at all: if `results` or the check of an entry raises, `path` is unchanged.

    Raises:
        InputError: an entry lacks a key, holds a value of another type, or a score that is not finite.
    """
    parser = ResultsParser(Diagnostics(refuse=path))
    with atomic_write(path) as file:
        file.write("[")
        for index, result in enumerate(results):
            where = f"entry {index}"
            entry = _checked_entry(result, parser, where)
            try:
                text = json.dumps(entry, default=plain_number, allow_nan=False)
            except ValueError:
                raise InputError(f"{path}: {where} holds a number that is not finite") from None
            file.write((",\n" if index else "\n") + text)
        file.write("\n]\n")


def _checked_entry(result: Track | Mapping, parser: ResultsParser, where: str) -> dict[str, Any]:
    """An entry of results.json, ready for JSON except for numpy numbers; keys of other tools are kept."""
    entry = as_entry(result) if isinstance(result, Track) else result
    masks = [mask and plain_rle(mask) for mask in parser.parse(entry, where).segmentations]
    return {**entry, "segmentations": masks} if "video_id" in entry else {**entry, "segmentation": masks[0]}


def as_entry(track: Track) -> dict[str, Any]:
    """The entry of results.json that holds a track."""
    keys = {"video_id": track.video_id, "score": track.score, "category_id": track.category_id}
    keys |= {} if track.track_id is None else {"track_id": track.track_id}
    details = {"scores": track.scores, "shifted": track.shifted}
    lists = {"segmentations": track.segmentations} | details
    return keys | {key: list(values) for key, values in lists.items() if values is not None}


def as_image_entry(track: Track) -> dict[str, Any]:
    """The entry of COCO's results that holds a track of one frame, in which it is visible; the box is the mask's."""
    (mask,) = track.segmentations
    keys = {"image_id": track.video_id, "category_id": track.category_id, "bbox": mask_boxes([mask])[0].tolist()}
    return {**keys, "score": track.score, "segmentation": mask}


# ---------------------------------------------------------------------------------------------------- unfinished runs


class ResultsJournal(Journal):
    """The finished videos of an unfinished run, a line each, so that the run can be resumed after a crash.

    Each is on disk before `append` returns. Only the place in the file of each video is kept in memory.
    """

    def __init__(self, path: str | os.PathLike, header: Mapping[str, Any]):
        super().__init__(path, header)
        self._places: dict[int, int] = {}

    @property
    def done(self) -> set[int]:
        """The ids of the videos that are finished."""
        return set(self._places)

    def append(self, video_id: int, results: Sequence[Track | Mapping], summary: Mapping[str, Any]) -> None:
        """Writes a finished video to disk; `summary` is any small JSON value about it.

        Raises:
            ValueError: the video is already in the journal.
            InputError: `write_results` would refuse one of the results.
        """
        if video_id in self._places:
            raise ValueError(f"video {video_id} is already in {self.path}")
        parser = ResultsParser(Diagnostics(refuse=self.path))
        entries = [
            _checked_entry(result, parser, f"video {video_id}: track {index}") for index, result in enumerate(results)
        ]
        place = self._end
        self._append(json_line({"video_id": video_id, "results": entries, "summary": dict(summary)}))
        self._places[video_id] = place

    def absorb(self, path: str | os.PathLike) -> None:
        """Adds the finished videos of the journal at `path` of another process of this run, and removes that journal.

        Raises:
            InputError: it belongs to another run, or is damaged before its last line.
        """
        other = ResultsJournal.resume(path, self.header)
        for line in other._videos(video_id for video_id in other._places if video_id not in self._places):
            self.append(line["video_id"], line["results"], line["summary"])
        other.remove()

    def summaries(self) -> Iterator[dict[str, Any]]:
        """The summaries of the finished videos, in the order they were appended; not available after `finish`."""
        for line in self._videos(self._places):
            yield line["summary"]

    def finish(self, results_path: str | os.PathLike, video_order: Sequence[int]) -> None:
        """Writes results.json, videos in the order of `video_order`, and removes the journal.

        Finished videos that are not in `video_order` are left out.

        Raises:
            ValueError: a video of `video_order` is not finished.
        """
        missing = [video_id for video_id in video_order if video_id not in self._places]
        if missing:
            raise ValueError(f"{len(missing)} videos are not finished, the first is {missing[0]}")
        write_results((entry for line in self._videos(video_order) for entry in line["results"]), results_path)
        self.remove()

    def _take(self, content: dict) -> bool:
        video_id = content.get("video_id")
        is_complete = isinstance(content.get("results"), list) and isinstance(content.get("summary"), dict)
        if not is_complete or not is_id(video_id) or video_id in self._places:
            return False
        self._places[video_id] = self._end
        return True

    def _videos(self, video_ids: Iterable[int]) -> Iterator[dict]:
        """The content of the lines of `video_ids`."""
        return self._lines(self._places[video_id] for video_id in video_ids)
