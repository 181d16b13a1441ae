"""The worst videos: the track that covers each object in each frame, and the frames to show."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from ytvis.annotations import Track
from ytvis.masks import measure_masks
from ytvis.report.inputs import ReportInput
from ytvis.results import track_numbers
from ytvis.viewer.matching import FrameMatches, link_tracks, match_frames

FRAMES_A_VIDEO = 3


@dataclass(frozen=True)
class Span:
    """A stretch of frames `start`…`end`-1 in which an object is covered by the same `track`, a number, or by None."""

    start: int
    end: int
    track: int | None

    @property
    def length(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        what = "not covered" if self.track is None else f"track {self.track}"
        return f"frames {self.start} to {self.end - 1}: {what}"


@dataclass(frozen=True)
class Row:
    """The time line of a true object: the `spans` in which it is visible, and the frames at which the track changes."""

    number: int
    category_id: int
    spans: list[Span]
    switches: list[int]


@dataclass(frozen=True)
class VideoDetail:
    """The part of a report about a video.

    `tracks`, by falling score, have `track_numbers`: the track ids of the results, or with `has_ids` false the places
    among the video's tracks in the file, from 0. `truths` have `truth_numbers`: that of the track that covers the
    object in the most frames, or a number after the last track's. `frames` are those with a picture.
    """

    video_id: int
    name: str
    quality: float
    length: int
    tracks: list[Track]
    truths: list[Track]
    track_numbers: list[int]
    has_ids: bool
    truth_numbers: list[int]
    rows: list[Row]
    frames: list[int]

    @property
    def switches(self) -> int:
        return sum(len(row.switches) for row in self.rows)

    @property
    def num_objects(self) -> int:
        return sum(1 for truth in self.truths if not truth.iscrowd)


def describe_video(inputs: ReportInput, video_id: int, quality: float, cut: float) -> VideoDetail:
    """Compares the tracks of a video with a score of at least `cut` with the truth, frame by frame."""
    predictions = inputs.results.vidToAnns.get(video_id, [])
    numbers, has_ids = track_numbers([prediction.get("track_id") for prediction in predictions])
    found = [pair for pair in zip(predictions, numbers, strict=True) if pair[0]["score"] >= cut]
    found.sort(key=lambda pair: -pair[0]["score"])
    true = inputs.truth.vidToAnns.get(video_id, [])
    length = max((len(entry["segmentations"]) for entry in (*true, *(entry for entry, _ in found))), default=0)
    tracks = [_as_track(entry, length) for entry, _ in found]
    truths = [_as_track(entry, length) for entry in true]
    shown_numbers = [number for _, number in found]
    first_free = max(numbers, default=-1) + 1
    links = {truth: track for track, truth in link_tracks(tracks, truths, length).items()}
    alone = [place for place in range(len(truths)) if place not in links]
    truth_numbers = [
        shown_numbers[links[place]] if place in links else first_free + alone.index(place)
        for place in range(len(truths))
    ]
    matches = match_frames(tracks, truths, length)
    rows = [
        _row(place, truth, truth_numbers[place], shown_numbers, matches)
        for place, truth in enumerate(truths)
        if not truth.iscrowd
    ]
    return VideoDetail(
        video_id=video_id,
        name=inputs.video_name(video_id),
        quality=quality,
        length=length,
        tracks=tracks,
        truths=truths,
        track_numbers=shown_numbers,
        has_ids=has_ids or not predictions,
        truth_numbers=truth_numbers,
        rows=sorted(rows, key=lambda row: row.number),
        frames=list(_telling_frames(matches)),
    )


def _as_track(entry: dict, length: int) -> Track:
    """An entry as input of the matching; after its end it is not visible."""
    areas = measure_masks(entry["segmentations"])
    masks = [mask if area else None for mask, area in zip(entry["segmentations"], areas, strict=True)]
    masks += [None] * (length - len(masks))
    return Track(
        entry["video_id"],
        entry["category_id"],
        tuple(masks),
        iscrowd=bool(entry.get("iscrowd")),
        score=entry.get("score"),
    )


def _row(place: int, truth: Track, number: int, track_numbers: list[int], matches: list[FrameMatches]) -> Row:
    """The time line of the true object at `place`, which is shown under `number`."""
    covered = [{true: track for track, true in frame.matched}.get(place) for frame in matches]
    switches = [
        index for index, frame in enumerate(matches) if covered[index] in {track for track, _ in frame.switched}
    ]
    spans = []
    seen = [(mask is not None, track) for mask, track in zip(truth.segmentations, covered, strict=True)]
    for (is_seen, track), run in groupby(range(len(seen)), key=seen.__getitem__):
        frames = list(run)
        if is_seen:
            spans.append(Span(frames[0], frames[-1] + 1, None if track is None else track_numbers[track]))
    return Row(number, truth.category_id, spans, switches)


def _telling_frames(matches: list[FrameMatches]) -> Iterator[int]:
    """For each third of the video the frame with the most mistakes, of equal ones that nearest to its middle."""
    for part in range(min(FRAMES_A_VIDEO, len(matches))):
        start, end = (len(matches) * edge // min(FRAMES_A_VIDEO, len(matches)) for edge in (part, part + 1))
        yield max(range(start, end), key=lambda frame: (_mistakes(matches[frame]), -abs(2 * frame + 1 - start - end)))


def _mistakes(frame: FrameMatches) -> int:
    return len(frame.missed) + len(frame.false) + len(frame.switched) + len(frame.wrong_class)
