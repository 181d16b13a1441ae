"""Maps tracks from the network input to the pixels of the video."""

from dataclasses import fields

import torch

from utils.structures import FrameMeta, FrameObjects, Tracks
from ytvis.pixels import TrackArrays, to_pixels


def postprocess(
    tracks: Tracks, meta: FrameMeta, score_threshold: float, top_k: int = 0, one_sided: bool = False
) -> FrameObjects:
    """The reported objects of a frame: boxes and masks in pixels of the video, on the CPU.

    Drops objects with a score of at most `score_threshold`, objects whose box centre is in the padding, and all but
    the `top_k` with the highest scores (0: no limit). Keeps the order. N = 0 gives N = 0.

    The scores of `RescoredTracks` are multiplied by the masks' expected IoUs; they may exceed 1, and objects whose
    score is then below `score_threshold` are dropped too. With `one_sided` no object is dropped for its
    place, and each edge of a box is clamped on one side only, as in YOLACT (docs/quirks.md): a box outside the frame
    comes out with its corners exchanged.
    """
    columns = {f.name: getattr(tracks, f.name, None) for f in fields(TrackArrays)}
    # On the CPU, as soft masks are much smaller than the enlarged ones.
    arrays = TrackArrays(**{name: None if column is None else column.cpu().numpy() for name, column in columns.items()})
    objects = to_pixels(arrays, meta, score_threshold, top_k, one_sided)
    return FrameObjects(**{name: torch.from_numpy(array) for name, array in vars(objects).items()})
