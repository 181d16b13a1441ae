"""Scores a network on annotated videos during training."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from data.dataset import YTVISDataset, read_frames
from data.transforms import FrameTransform
from inference.network import Model
from inference.videos import collect_tracks, track_videos
from utils.distributed import World
from utils.structures import FrameResult
from ytvis.drawing import PixelObjects, truth_beside_prediction
from ytvis.results import as_entry
from ytvis.score.ap import STAT_NAMES, evaluate_results

SHOWN_VIDEOS = 4

Show = Callable[[str, np.ndarray], None]


def score_videos(
    model: Model, data: YTVISDataset, world: World, num_workers: int, show: Show | None = None
) -> dict[str, float] | None:
    """Returns {name: score} of `model` on the videos of `data`, shared by the processes; None except on the main one.

    On the main process `show` is called with (title, picture) of the middle frame of the first few videos, beside its
    truth.
    """
    transform = FrameTransform.from_config(model.config)
    videos = world.share(data.videos)
    frames = read_frames(data, transform, videos=videos, num_workers=num_workers, keep_frames=show is not None)
    found = track_videos(model, frames)
    if show is not None:
        found = _showing(found, data, model.config.dataset.class_names, show)
    tracked = collect_tracks(found, videos, data.category_ids, length_power=model.config.postprocess.length_power)
    parts = world.collect([as_entry(track) for _, tracks, _ in tracked for track in tracks])
    if parts is None:
        return None
    results = [track for part in parts for track in part]
    return dict(zip(STAT_NAMES, evaluate_results(data.truth(), results).stats.tolist(), strict=True))


def _showing(
    results: Iterable[FrameResult], data: YTVISDataset, class_names: tuple[str, ...], show: Show
) -> Iterator[FrameResult]:
    """Yields `results`, and passes pictures of some of them to `show`."""
    middles = {video.video_id: len(video) // 2 for video in data.videos[:SHOWN_VIDEOS]}
    for result in results:
        meta = result.meta
        if result.error is None and middles.get(meta.video_id) == meta.frame_index:
            shown = data.frame_annotations(meta.video_id, meta.frame_index, skip_unusable=True)
            truth = PixelObjects(
                boxes_px=shown.boxes_px.round().long().numpy(),
                labels=shown.labels.numpy(),
                track_ids=shown.instance_ids.numpy(),
                masks=shown.masks.numpy(),
            )
            picture = truth_beside_prediction(result.frame, truth, result.objects, class_names)
            show(f"validation/video {meta.video_id}", picture)
        yield result
