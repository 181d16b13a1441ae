"""Checks a results file before it is sent to a server: finds what the server refuses or scores unexpectedly.

`examine_results` reads the file once, entry by entry, and keeps a bounded part of it. A fault "refused" is also refused
by `ytvis score`; a "warning" is refused only by the official evaluator, or is accepted but probably a mistake.
"""

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from ytvis.annotations import AnnotationParser, Track, Video, as_video_entry, compact_masks, read_content
from ytvis.diagnostics import Diagnostic, Diagnostics, Rule
from ytvis.files import NotAList, NotJSON, read_json_list
from ytvis.masks import Tubes, frame_overlaps
from ytvis.results import ResultsParser

DUPLICATE_IOU = 0.9
MAX_TRACKS = 100  # of a video and category: the evaluator takes no more
MEMORY = 256 * 2**20  # bytes of masks that are kept to look for duplicates

NOT_JSON = Rule("refused", "the file is not whole JSON", "write it again with a JSON writer")
NOT_A_LIST = Rule("refused", "the file is not a list", "write one list with one entry per track")
NOTHING = Rule("warning", "the list is empty", "every object counts as missed; the official evaluator fails on it")
NEVER_SEEN = Rule("warning", "a track has only empty masks", "leave it out: it can only lower the score")
DUPLICATE = Rule("warning", "two tracks of a class are nearly the same", "keep one: the other can only lower the score")
SCATTERED = Rule(
    "warning", "tracks of a video are far apart in the file", "put them together, so that duplicates are found"
)
TOO_MANY = Rule("warning", f"over {MAX_TRACKS} tracks of a class in a video", f"only the best {MAX_TRACKS} count")
NO_PREDICTION = Rule("warning", "a video has no track", "its objects count as missed")


def examine_results(
    annotations_path: str | os.PathLike,
    results_path: str | os.PathLike,
    choose: Callable[[Sequence[int]], Sequence[int]] | None = None,
) -> list[Diagnostic]:
    """Returns the faults of a results.json for the videos and categories of an annotation file; [] if it has none.

    `choose` returns the videos that the results should have, given all their ids; by default all.

    Raises:
        InputError: one of the files cannot be read, or the annotation file itself has faults.
    """
    annotations = AnnotationParser(read_content(annotations_path), annotations_path, Diagnostics(annotations_path))
    videos = annotations.videos
    if choose is not None:
        videos = {video_id: videos[video_id] for video_id in choose(list(videos))}
    examiner = _Examiner(videos, annotations.categories)
    try:
        for index, entry in enumerate(read_json_list(results_path, compact_masks())):
            examiner.take(index, entry)
    except NotAList as error:
        examiner.found.add(NOT_A_LIST, "the file", error.problem)
    except NotJSON as error:
        examiner.found.add(NOT_JSON, "the file", error.problem)
    examiner.finish()
    return list(examiner.found)


# ---------------------------------------------------------------------------------------------------- the entries


class _Examiner:
    """Checks the entries one by one; collects faults in `found`."""

    def __init__(self, videos: dict[int, Video], categories: dict[int, str]):
        self.found = Diagnostics()
        self._parser = ResultsParser(self.found, videos, categories)
        self._videos = videos
        self._categories = categories
        self._num_entries = 0
        self._num_tracks: Counter[tuple[int, int]] = Counter()
        self._seen: set[int] = set()
        # (entry, track) that later ones are compared with, by video and class; the video of the latest is the last.
        self._recent: OrderedDict[int, dict[int, list[tuple[int, Track]]]] = OrderedDict()
        self._sizes: Counter[int] = Counter()
        self._given_up: set[int] = set()

    def take(self, index: int, entry: Any) -> None:
        """Checks entry number `index`."""
        self._num_entries += 1
        track = self._parser.parse(entry, f"entry {index}")
        video_id = as_video_entry(entry).get("video_id") if isinstance(entry, dict) else None
        if isinstance(video_id, int) and video_id in self._videos:
            self._seen.add(video_id)
        if track is None:
            return
        where = f"entry {index} (video {track.video_id})"
        if not any(track.areas):
            self.found.add(NEVER_SEEN, where)
        if track.category_id in self._categories:
            self._compare(index, track, where)
            self._num_tracks[track.video_id, track.category_id] += 1
            if self._num_tracks[track.video_id, track.category_id] == MAX_TRACKS + 1:
                self.found.add(TOO_MANY, where, f"category {track.category_id}")

    def finish(self) -> None:
        """Finishes the check after the last entry."""
        if not self._num_entries and not list(self.found):
            self.found.add(NOTHING, "the file")
        for video_id in self._videos:
            if video_id not in self._seen:
                self.found.add(NO_PREDICTION, f"video {video_id}")

    def _compare(self, index: int, track: Track, where: str) -> None:
        """Compares a track with those before it to find duplicates, and keeps it for those after it."""
        video_id = track.video_id
        if video_id in self._given_up:
            self.found.add(SCATTERED, where)
        known = self._recent.setdefault(video_id, {})
        self._recent.move_to_end(video_id)
        others = known.setdefault(track.category_id, [])
        for place, other in others:
            overlap = _tube_iou(track, other)
            if overlap > DUPLICATE_IOU:
                self.found.add(DUPLICATE, where, f"IoU {overlap:.2f} with entry {place}")
                break
        others.append((index, track))
        self._sizes[video_id] += sum(200 + len(mask["counts"]) for mask in track.segmentations if mask)
        while self._sizes.total() > MEMORY and len(self._recent) > 1:
            oldest, _ = self._recent.popitem(last=False)
            del self._sizes[oldest]
            self._given_up.add(oldest)


def _tube_iou(first: Track, second: Track) -> float:
    """Pixels that two tracks share over those of either, in all frames together; 0 if neither has any."""
    areas = [sum(filter(None, track.areas)) for track in (first, second)]
    if min(areas) <= DUPLICATE_IOU * max(areas):
        return 0.0  # it cannot exceed DUPLICATE_IOU, so it is not computed
    tubes = [Tubes.of([list(track.segmentations)]) for track in (first, second)]
    shared = frame_overlaps(*tubes)[0].sum()
    return float(shared / (sum(areas) - shared))
