"""Which predicted track shows which true object, frame by frame.

A track shows an object in a frame if the IoU of their masks is at least 0.5. As in the counts of the MOT challenge, a
pair of the frame before is kept while its IoU allows; then the other tracks, by falling score, each take the free
object that they overlap most. Classes do not matter here: an object shown by a track of another class is found, and the
class is wrong.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from ytvis.annotations import Track
from ytvis.masks import mask_ious

MIN_IOU = 0.5


@dataclass
class FrameMatches:
    """The comparison of one frame, by places in the lists of tracks.

    `matched` has (predicted, true), `missed` true ones, `false` predicted ones, `switched` (predicted, the predicted
    one that last showed the same object), `wrong_class` predicted ones.
    """

    matched: list[tuple[int, int]] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    false: list[int] = field(default_factory=list)
    switched: list[tuple[int, int]] = field(default_factory=list)
    wrong_class: list[int] = field(default_factory=list)

    def as_dict(self) -> dict[str, list]:
        """The lists that are not empty, as JSON can hold them."""
        return {key: values for key, values in asdict(self).items() if values}


def match_frames(predictions: Sequence[Track], truths: Sequence[Track], num_frames: int) -> list[FrameMatches]:
    """The comparison of every frame, as the module describes; masks must be RLEs or None."""
    frames = []
    before: dict[int, int] = {}  # true: predicted, of the frame before
    last: dict[int, int] = {}  # true: predicted, of the last frame in which it was shown
    for frame in range(num_frames):
        seen, present = _visible(predictions, frame), _visible(truths, frame)
        overlaps = _overlaps(predictions, truths, frame, seen, present)
        in_crowd = {track for track, true in overlaps if truths[true].iscrowd}
        objects = {pair: iou for pair, iou in overlaps.items() if not truths[pair[1]].iscrowd}
        before = _pairs(sorted(seen, key=lambda track: -(predictions[track].score or 0)), objects, before)
        pairs = sorted((track, true) for true, track in before.items())
        frames.append(
            FrameMatches(
                matched=pairs,
                missed=[true for true in present if true not in before and not truths[true].iscrowd],
                false=[track for track in seen if track not in in_crowd.union(before.values())],
                switched=[(track, last[true]) for track, true in pairs if last.get(true, track) != track],
                wrong_class=[t for t, true in pairs if predictions[t].category_id != truths[true].category_id],
            )
        )
        last |= before
    return frames


def link_tracks(tracks: Sequence[Track], others: Sequence[Track], num_frames: int) -> dict[int, int]:
    """{place in `tracks`: place in `others`} of the pairs that share the most frames; no track is in two pairs."""
    counts = Counter(pair for frame in match_frames(tracks, others, num_frames) for pair in frame.matched)
    links: dict[int, int] = {}
    for (track, other), _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if track not in links and other not in links.values():
            links[track] = other
    return links


def _visible(tracks: Sequence[Track], frame: int) -> list[int]:
    """The places of the tracks that are seen in the frame."""
    return [place for place, track in enumerate(tracks) if track.segmentations[frame] is not None]


def _overlaps(
    predictions: Sequence[Track], truths: Sequence[Track], frame: int, seen: list[int], present: list[int]
) -> dict[tuple[int, int], float]:
    """{(predicted, true): IoU} where it is enough; for a crowd, the part of the prediction that is inside it."""
    if not seen or not present:
        return {}
    ious = mask_ious(
        [predictions[track].segmentations[frame] for track in seen],
        [truths[true].segmentations[frame] for true in present],
        [truths[true].iscrowd for true in present],
    )
    rows, columns = np.nonzero(ious >= MIN_IOU)
    return {(seen[row], present[column]): ious[row, column] for row, column in zip(rows, columns, strict=True)}


def _pairs(by_score: list[int], overlaps: dict[tuple[int, int], float], before: dict[int, int]) -> dict[int, int]:
    """{true: predicted} of one frame, given that of the frame before."""
    pairs = {true: track for true, track in before.items() if (track, true) in overlaps}
    kept = set(pairs.values())
    for track in by_score:
        free = [true for candidate, true in overlaps if candidate == track and true not in pairs]
        if track not in kept and free:
            pairs[max(free, key=lambda true, track=track: overlaps[track, true])] = track
    return pairs
