"""Counts the objects of the recorded clips that differ between bfloat16 and float32.

    python -m tools.half_precision

The weights of the recordings are random, so scores are close to each other and to the thresholds, where rounding
matters: a hard case. An object of a frame counts as found if a mask of the other precision overlaps it with an IoU over
0.5.
"""

from inference.network import Network
from inference.tracker import VideoTracker
from layers.association import binary_mask_iou
from stmask import STMask
from tools.parity import RECORDED, clip, load_model
from utils.structures import Tracks
from ytvis.command_line import Parser

VIDEOS = (1, 2)


def main() -> None:
    Parser(description=__doc__).parse_args()
    for name in RECORDED:
        model = load_model(name)
        found, same_id, total = compare(track(model, "fp32"), track(model, "bf16"))
        print(f"{name}: of {total} objects in frames, {found} are also found in bfloat16, {same_id} with the same id")


def track(model: STMask, precision: str) -> list[Tracks]:
    """The tracks of each frame of the recorded videos."""
    frames = []
    for video in VIDEOS:
        tracker = VideoTracker(model, network=Network(model, precision))
        frames += [tracker.step(image) for image in clip(video)]
    return frames


def compare(ours: list[Tracks], others: list[Tracks]) -> tuple[int, int, int]:
    """(objects of `ours` found in the same frame of `others`, those with the same id, objects of `ours`)."""
    found = same_id = 0
    for tracks, other in zip(ours, others, strict=True):
        if len(tracks) and len(other):
            overlap, which = binary_mask_iou(tracks, other).max(dim=1)
            there = overlap > 0.5
            found += int(there.sum())
            same_id += int((there & (tracks.track_ids == other.track_ids[which])).sum())
    return found, same_id, sum(map(len, ours))


if __name__ == "__main__":
    main()
