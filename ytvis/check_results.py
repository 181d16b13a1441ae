"""The results doctor: what an evaluation server would refuse, or score wrongly, in a results.json before it is sent.

`examine_results` reads the file once, entry by entry, and keeps a bounded part of it. Findings are "refused" where the
official evaluator refuses the file, crashes on it, or silently scores something else than what was meant; they are
warnings where a file is taken as it is but hardly as it was meant.
"""

import os
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ytvis.annotations import Video, read_annotations
from ytvis.check import read_categories, read_videos
from ytvis.diagnostics import Finding, Findings, Rule
from ytvis.files import InputError, NotAList, read_json_list
from ytvis.masks import Tubes, check_rle, frame_overlaps, measure_masks

DUPLICATE_IOU = 0.9
MAX_TRACKS = 100  # of a video and category: the evaluator takes no more
MEMORY = 256 * 2**20  # bytes of masks that are kept to look for duplicates

_KEYS = ("video_id", "category_id", "score", "segmentations")
_ONE_A_FRAME = "write one entry a frame of the video, null where the object is not seen"
_PLAIN_RLE = 'write null or a compressed RLE {"size": [height, width], "counts": text}'

NOT_JSON = Rule("refused", "the file is no whole JSON", "write it anew with a JSON writer")
NOT_A_LIST = Rule("refused", "the file is no list", "write one list with an entry a track")
NOTHING = Rule("refused", "the list is empty", "send at least one track: the official evaluator fails without any")
NOT_AN_OBJECT = Rule("refused", "an entry is no object", f"an entry must have {', '.join(_KEYS)}")
LACKS = {key: Rule("refused", f"{key!r} is missing", f"an entry must have {', '.join(_KEYS)}") for key in _KEYS}
UNKNOWN_VIDEO = Rule("refused", "there is no such video", "video_id must be one of the annotation file's, an integer")
UNKNOWN_CATEGORY = Rule(
    "refused", "there is no such category", "category_id must be one of the annotation file's, an integer, not a label"
)
NOT_A_SCORE = Rule("refused", "the score is no finite number", "write a number in 0…1")
SCORE_RANGE = Rule("warning", "the score is not in 0…1", "only the order of scores counts, but some tools expect 0…1")
NO_LIST = Rule("refused", "'segmentations' is no list", _ONE_A_FRAME)
WRONG_LENGTH = Rule("refused", "'segmentations' is not as long as the video", _ONE_A_FRAME)
BYTES_AS_TEXT = Rule("refused", "counts are the printed form of bytes", "write counts.decode('ascii'), not str(counts)")
RUNS = Rule("refused", "counts are a list of runs", "compress them: pycocotools.mask.frPyObjects(rle, height, width)")
POLYGONS = Rule("refused", "a segmentation is polygons", _PLAIN_RLE)
BAD_RLE = Rule("refused", "a segmentation cannot be read", _PLAIN_RLE)
SWAPPED_SIZE = Rule("refused", "a mask has height and width swapped", "size is [height, width], and so is the mask")
WRONG_SIZE = Rule("refused", "a mask is not of the video's size", "resize masks to the video's height and width")
NEVER_SEEN = Rule("warning", "a track has only empty masks", "leave it out: it can only count against you")
DUPLICATE = Rule(
    "warning", "two tracks of a class are nearly the same", "keep one: the other can only count against you"
)
SCATTERED = Rule("warning", "tracks of a video are far apart in the file", "put them together to look for duplicates")
TOO_MANY = Rule("warning", f"over {MAX_TRACKS} tracks of a class in a video", f"only the best {MAX_TRACKS} count")
NO_PREDICTION = Rule("warning", "a video has no track", "its objects count as missed")


def examine_results(
    annotations_path: str | os.PathLike,
    results_path: str | os.PathLike,
    choose: Callable[[Sequence[int]], Sequence[int]] | None = None,
) -> list[Finding]:
    """What is wrong with a results.json for the videos and categories of an annotation file; [] if nothing is.

    `choose` says which of the videos the results should be of, given all their ids; by default all.

    Raises:
        InputError: one of the files cannot be read, or the annotation file itself has faults.
    """
    videos, category_ids = _read_tables(annotations_path)
    if choose is not None:
        videos = {video_id: videos[video_id] for video_id in choose(list(videos))}
    examiner = _Examiner(videos, category_ids)
    try:
        for index, entry in enumerate(read_json_list(results_path)):
            examiner.take(index, entry)
    except NotAList as error:
        examiner.findings.add(NOT_A_LIST, "the file", str(error))
    except ValueError as error:
        examiner.findings.add(NOT_JSON, "the file", str(error))
    except OSError as error:
        raise InputError(f"{results_path}: cannot be read: {error.strerror}") from None
    examiner.finish()
    return list(examiner.findings)


def _read_tables(path: str | os.PathLike) -> tuple[dict[int, Video], set[int]]:
    """(The videos by id, the ids of the categories) of an annotation file."""
    content = read_annotations(path)
    faults = Findings()
    videos, categories = read_videos(content, path, faults), read_categories(content, path, faults)
    for finding in faults:
        if finding.severity == "fault":
            raise InputError(
                f"{path}: {finding.where}: {finding.what}; `python -m ytvis check {path}` names all faults"
            )
    return {video_id: video for video_id, video in videos.items() if video is not None}, set(categories)


# ---------------------------------------------------------------------------------------------------- the entries


@dataclass(frozen=True)
class _Track:
    """A track to compare others with: where it is, its masks, and the pixels of all of them."""

    index: int
    masks: list[dict | None]
    area: int


class _Examiner:
    """Takes the entries one by one; what is wrong is in `findings`."""

    def __init__(self, videos: dict[int, Video], category_ids: set[int]):
        self.findings = Findings()
        self._videos = videos
        self._category_ids = category_ids
        self._num_entries = 0
        self._num_tracks: Counter[tuple[int, int]] = Counter()
        self._seen: set[int] = set()
        # The tracks that later ones are compared with, by video; the video of the latest entry is the last.
        self._recent: OrderedDict[int, dict[int, list[_Track]]] = OrderedDict()
        self._sizes: Counter[int] = Counter()
        self._given_up: set[int] = set()

    def take(self, index: int, entry: Any) -> None:
        """Looks at entry number `index`."""
        self._num_entries += 1
        where = f"entry {index}"
        if not isinstance(entry, dict):
            self.findings.add(NOT_AN_OBJECT, where, str(entry))
            return
        for key in _KEYS:
            if key not in entry:
                self.findings.add(LACKS[key], where)
        video = self._known(entry, "video_id", self._videos.get, UNKNOWN_VIDEO, where)
        if video is not None:
            where = f"entry {index} (video {video.video_id})"
            self._seen.add(video.video_id)
        category_id = self._known(
            entry, "category_id", lambda key: key if key in self._category_ids else None, UNKNOWN_CATEGORY, where
        )
        if "score" in entry:
            self._take_score(entry["score"], where)
        if "segmentations" in entry:
            masks = self._take_masks(entry["segmentations"], video, where)
            if masks is not None:
                track = _Track(index, masks, int(measure_masks(masks).sum()))
                if not track.area:
                    self.findings.add(NEVER_SEEN, where)
                if video is not None and category_id is not None:
                    self._compare(track, video.video_id, category_id, where)
        if video is not None and category_id is not None:
            self._num_tracks[video.video_id, category_id] += 1
            if self._num_tracks[video.video_id, category_id] == MAX_TRACKS + 1:
                self.findings.add(TOO_MANY, where, f"category {category_id}")

    def finish(self) -> None:
        """To be called after the last entry."""
        if not self._num_entries and not list(self.findings):
            self.findings.add(NOTHING, "the file")
        for video_id in self._videos:
            if video_id not in self._seen:
                self.findings.add(NO_PREDICTION, f"video {video_id}")

    def _known(self, entry: dict, key: str, find, rule: Rule, where: str) -> Any | None:
        """What `find` makes of an id, None if it is missing or unknown."""
        value = entry.get(key)
        is_id = isinstance(value, int) and not isinstance(value, bool)
        found = find(value) if is_id else None
        if found is None and key in entry:
            self.findings.add(rule, where, repr(value))
        return found

    def _take_score(self, score: Any, where: str) -> None:
        is_number = isinstance(score, int | float) and not isinstance(score, bool)
        if not is_number or not abs(score) < float("inf"):
            self.findings.add(NOT_A_SCORE, where, repr(score))
        elif not 0 <= score <= 1:
            self.findings.add(SCORE_RANGE, where, str(score))

    def _take_masks(self, segmentations: Any, video: Video | None, where: str) -> list[dict | None] | None:
        """The masks of a track, one a frame; None if there is anything wrong with them."""
        if not isinstance(segmentations, list):
            self.findings.add(NO_LIST, where, str(segmentations))
            return None
        if video is not None and len(segmentations) != len(video):
            self.findings.add(WRONG_LENGTH, where, f"{len(segmentations)} entries, the video has {len(video)} frames")
            return None
        masks, faults = [], 0
        for frame_index, segmentation in enumerate(segmentations):
            if segmentation is None or segmentation == []:
                masks.append(None)
                continue
            fault = _mask_fault(segmentation, video)
            if fault is not None:
                faults += 1
                self.findings.add(fault[0], f"{where}, frame {frame_index}", fault[1])
            else:
                masks.append(segmentation)
        if faults:
            return None
        return masks

    def _compare(self, track: _Track, video_id: int, category_id: int, where: str) -> None:
        """Looks for duplicates of a track among those before it, and keeps it for those behind it."""
        if video_id in self._given_up:
            self.findings.add(SCATTERED, where)
        known = self._recent.setdefault(video_id, {})
        self._recent.move_to_end(video_id)
        others = known.setdefault(category_id, [])
        for other in others:
            overlap = _tube_iou(track, other)
            if overlap > DUPLICATE_IOU:
                self.findings.add(DUPLICATE, where, f"IoU {overlap:.2f} with entry {other.index}")
                break
        others.append(track)
        self._sizes[video_id] += sum(200 + len(mask["counts"]) for mask in track.masks if mask)
        while self._sizes.total() > MEMORY and len(self._recent) > 1:
            oldest, _ = self._recent.popitem(last=False)
            del self._sizes[oldest]
            self._given_up.add(oldest)


def _mask_fault(segmentation: Any, video: Video | None) -> tuple[Rule, str] | None:
    """(What is wrong with the mask of a frame, details), None if nothing is."""
    if isinstance(segmentation, list):
        return POLYGONS, ""
    counts = segmentation.get("counts") if isinstance(segmentation, dict) else None
    if isinstance(counts, list):
        return RUNS, ""
    if isinstance(counts, str) and counts.startswith(("b'", 'b"')):
        return BYTES_AS_TEXT, counts[:20]
    try:
        size = check_rle(segmentation)["size"]
    except InputError as error:
        return BAD_RLE, str(error)
    if video is None or size == [video.height, video.width]:
        return None
    rule = SWAPPED_SIZE if size == [video.width, video.height] else WRONG_SIZE
    return rule, f"{size} (height, width), the video is [{video.height}, {video.width}]"


def _tube_iou(first: _Track, second: _Track) -> float:
    """Pixels that two tracks share over those of either, in all frames together; 0 if neither has any."""
    if min(first.area, second.area) <= DUPLICATE_IOU * max(first.area, second.area):
        return 0.0  # it cannot be more than DUPLICATE_IOU, so it need not be known
    shared = frame_overlaps(Tubes.of([first.masks]), Tubes.of([second.masks]))[0].sum()
    return shared / (first.area + second.area - shared)
