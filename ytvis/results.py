"""results.json: masks as RLE, the tracks of a video, files of them, and the journal of an unfinished run.

The file is a list with one entry a track: `video_id`, `score`, `category_id`, and `segmentations`, one entry a frame of
the video: a COCO compressed RLE `{"size": [height, width], "counts": text}`, or null where the track is not seen. Two
keys beyond the official format are written if asked for, lists with one entry a frame too: `scores`, a number or null,
and `shifted`, true where temporal fusion alone shows the track.
"""

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.structures import FrameObjects
from ytvis.files import InputError, atomic_write
from ytvis.journal import Journal, json_line, plain_number
from ytvis.masks import check_rle, encode_masks, is_whole

logger = logging.getLogger(__name__)

SCORE_DIGITS = 4  # of the score of a track in one frame

# ---------------------------------------------------------------------------------------------------- one video


@dataclass(frozen=True)
class VideoResult:
    """One track over a whole video, as `results.json` holds it.

    `segmentations` has one entry a frame: a COCO compressed RLE `{"size": [h, w], "counts": str}` or None. So have the
    details, where they are kept: `scores`, rounded to four digits, None where the track is not seen, and `shifted`,
    whether it is seen by temporal fusion alone.
    """

    video_id: int
    category_id: int
    score: float
    segmentations: tuple[dict | None, ...]
    scores: tuple[float | None, ...] | None = None
    shifted: tuple[bool, ...] | None = None


@dataclass(frozen=True, slots=True)
class SeenObject:
    """What results keep of one object in one frame."""

    frame: int
    label: int
    score: float
    shifted: bool
    rle: dict


def track_result(
    seen: Sequence[Any],
    num_frames: int,
    video_id: int,
    details: bool = False,
    category_id: int | None = None,
    length_power: float = 0.0,
) -> VideoResult:
    """The entry of results.json that a track makes of the frames it is seen in.

    `seen`, at least one, have the fields of `SeenObject`. The category is the `majority_label`, unless it is given; the
    score the mean over the frames, times (how many they are / `num_frames`) to the power `length_power`; with `details`
    each frame's own score and whether it is shifted are kept.
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
    return VideoResult(
        video_id,
        category_id=majority_label(seen) if category_id is None else category_id,
        score=mean_score * (len(seen) / num_frames) ** length_power,
        segmentations=tuple(segmentations),
        scores=tuple(scores) if details else None,
        shifted=tuple(shifted) if details else None,
    )


def majority_label(seen: Sequence[Any]) -> int:
    """The label most of `seen` have, the smallest on a tie."""
    return min(Counter(item.label for item in seen).items(), key=lambda item: (-item[1], item[0]))[0]


class VideoResultBuilder:
    """Collects the objects of a video frame by frame and makes its entries of results.json.

    `category_ids[label - 1]` is the annotation file's id of a label, or None if the file lacks the class: such tracks
    are left out, and counted in `left_out` by `finish`. `details` and `length_power` are as in `track_result`.
    """

    def __init__(
        self,
        video_id: int,
        num_frames: int,
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
        self.left_out = 0
        self._seen: dict[int, list[SeenObject]] = {}

    def add(self, frame_index: int, objects: FrameObjects) -> None:
        """Takes the objects of one frame, 0 ≤ frame_index < num_frames; a frame never given has none.

        Raises:
            IndexError: the video has no such frame.
            ValueError: the masks are not of the video's size.
        """
        if not 0 <= frame_index < self.num_frames:
            raise IndexError(f"video {self.video_id} has {self.num_frames} frames, none with index {frame_index}")
        if len(objects) and tuple(objects.masks.shape[1:]) != tuple(self.original_hw):
            raise ValueError(f"masks of {tuple(objects.masks.shape[1:])} in a video of {tuple(self.original_hw)}")
        rows = zip(
            objects.track_ids.tolist(),
            objects.labels.tolist(),
            objects.scores.tolist(),
            objects.shifted.tolist(),
            encode_masks(objects.masks.cpu().numpy()),
            strict=True,
        )
        for track_id, *item in rows:
            self._seen.setdefault(track_id, []).append(SeenObject(frame_index, *item))

    def finish(self) -> list[VideoResult]:
        """One entry a track, see `track_result`, in the order of first appearance; [] if nothing was seen."""
        results = []
        for seen in self._seen.values():
            category_id = self.category_ids[majority_label(seen) - 1]
            if category_id is not None:
                results.append(
                    track_result(seen, self.num_frames, self.video_id, self.details, category_id, self.length_power)
                )
        self.left_out = len(self._seen) - len(results)
        if self.left_out:
            logger.info(
                "video %s: %d tracks left out, the annotation file lacks their class", self.video_id, self.left_out
            )
        return results


# ---------------------------------------------------------------------------------------------------- whole files


def write_results(results: Iterable[VideoResult | Mapping], path: str | os.PathLike) -> None:
    """Writes a results.json, entry by entry, so that `results` may be a generator over any number of videos.

    Counts given as bytes become text; numpy numbers are accepted. The file appears whole or not at all: whatever
    `results` or the check of an entry raises, `path` holds what it held before.

    Raises:
        InputError: an entry lacks a key, holds a value of another type, or a score that is not finite.
    """
    with atomic_write(path) as file:
        file.write("[")
        for index, result in enumerate(results):
            where = f"{path}: entry {index}"
            entry = _checked_entry(_as_dict(result), where)
            try:
                text = json.dumps(entry, default=plain_number, allow_nan=False)
            except ValueError:
                raise InputError(f"{where} holds a number that is not finite") from None
            file.write((",\n" if index else "\n") + text)
        file.write("\n]\n")


def read_json(path: str | os.PathLike, object_hook: Callable[[dict], Any] | None = None) -> Any:
    """What a JSON file holds; `object_hook` makes what stands for each of its objects.

    Raises:
        InputError: the file cannot be read or is no JSON.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file, object_hook=object_hook)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a JSON file: {error}") from None


def read_results(path: str | os.PathLike) -> list[dict]:
    """The entries of a results.json, checked; counts given as a list of runs are compressed.

    Raises:
        InputError: the file cannot be read or is no such list; the message names the file and the entry.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise InputError(f"{path}: must hold a list of results, not {type(entries).__name__}")
    return [_checked_entry(entry, f"{path}: entry {index}") for index, entry in enumerate(entries)]


def _as_dict(result: VideoResult | Mapping) -> Any:
    """An entry as results.json holds it; anything but a `VideoResult` is left to the check."""
    if not isinstance(result, VideoResult):
        return result
    entry = {
        "video_id": result.video_id,
        "score": result.score,
        "category_id": result.category_id,
        "segmentations": list(result.segmentations),
    }
    details = {"scores": result.scores, "shifted": result.shifted}
    return entry | {key: list(values) for key, values in details.items() if values is not None}


def _checked_entry(entry: Any, where: str) -> dict:
    """`entry` with the `check_rle` of its segmentations, or InputError; keys of other tools are kept."""
    if not isinstance(entry, Mapping):
        raise InputError(f"{where} must be an object, not {type(entry).__name__}")
    for key in ("video_id", "category_id", "score", "segmentations"):
        if key not in entry:
            raise InputError(f"{where} lacks {key!r}")
    for key in ("video_id", "category_id"):
        if not is_whole(entry[key]):
            raise InputError(f"{where}: {key!r} must be an integer, not {entry[key]!r}")
    score = entry["score"]
    if not (is_whole(score) or isinstance(score, float | np.floating)) or not math.isfinite(score):
        raise InputError(f"{where}: 'score' must be a finite number, not {score!r}")
    if not isinstance(entry["segmentations"], list | tuple):
        raise InputError(f"{where}: 'segmentations' must be a list, one RLE or null a frame")
    segmentations = []
    for frame, rle in enumerate(entry["segmentations"]):
        try:
            segmentations.append(None if rle is None else check_rle(rle))
        except InputError as error:
            raise InputError(f"{where}, frame {frame}: {error}") from None
    return {**entry, "segmentations": segmentations}


# ---------------------------------------------------------------------------------------------------- unfinished runs


class ResultsJournal(Journal):
    """The finished videos of a run that is not, a line each, so that the run can go on after a crash.

    Each is on disk before `append` returns. Of each video only the place in the file is kept in memory.
    """

    def __init__(self, path: str | os.PathLike, header: Mapping[str, Any]):
        super().__init__(path, header)
        self._places: dict[int, int] = {}

    @property
    def done(self) -> set[int]:
        """The ids of the videos that are finished."""
        return set(self._places)

    def append(self, video_id: int, results: Sequence[VideoResult | Mapping], summary: Mapping[str, Any]) -> None:
        """Puts a finished video on disk; `summary` is anything small about it that JSON can hold.

        Raises:
            ValueError: the video is there already.
            InputError: `write_results` would refuse one of the results.
        """
        if video_id in self._places:
            raise ValueError(f"video {video_id} is already in {self.path}")
        entries = [
            _checked_entry(_as_dict(result), f"video {video_id}: track {index}") for index, result in enumerate(results)
        ]
        place = self._end
        self._append(json_line({"video_id": video_id, "results": entries, "summary": dict(summary)}))
        self._places[video_id] = place

    def absorb(self, path: str | os.PathLike) -> None:
        """Takes in the finished videos of the journal at `path`, kept by another process of this run, and removes it.

        Raises:
            InputError: it is of another run, or damaged before its last line.
        """
        other = ResultsJournal.resume(path, self.header)
        for line in other._videos(video_id for video_id in other._places if video_id not in self._places):
            self.append(line["video_id"], line["results"], line["summary"])
        other.path.unlink()

    def summaries(self) -> Iterator[dict[str, Any]]:
        """The summaries of the finished videos, in the order they were appended; gone after `finish`."""
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
        self.path.unlink()

    def _take(self, content: dict) -> bool:
        if not {"video_id", "results", "summary"} <= content.keys():
            return False
        self._places[content["video_id"]] = self._end
        return True

    def _videos(self, video_ids: Iterable[int]) -> Iterator[dict]:
        """What the lines of `video_ids` hold."""
        return self._lines(self._places[video_id] for video_id in video_ids)
