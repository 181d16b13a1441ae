"""Tracks the objects of videos frame by frame and collects their results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import count, groupby, islice

import torch
from torch import Tensor

from data.video import read_ahead
from inference.network import Model, Network
from inference.tracker import VideoTracker
from layers.postprocess import postprocess
from utils.structures import FrameInput, FrameResult, Predictions, Tracks
from utils.timer import NoTimer, Stages, StageTimer
from ytvis.annotations import Track, Video
from ytvis.files import InputError
from ytvis.results import VideoResultBuilder


def track_videos(
    model: Model,
    frames: Iterable[FrameInput],
    timer: StageTimer | None = None,
    tracker: VideoTracker | None = None,
    labels: Collection[int] | None = None,
    overlap: bool = False,
    batch_size: int = 1,
) -> Iterator[FrameResult]:
    """Yields the objects of each of `frames`, in the video's own pixels and on the CPU, in order.

    The frames of a video follow each other; a new video id starts a new tracker, and a cut makes it forget its objects.
    If `tracker` is given, the first video continues with its state. Only `labels` are reported, by default all. A frame
    that could not be read gives a result without objects but with its `error`; tracking ignores it. The model's
    training mode is restored when the iteration ends.

    With `overlap` a thread tracks up to three frames ahead, while the caller processes results and the masks are
    resized to the video's pixels; `tracker` is then ahead too. If it has fixed shapes, as on a GPU, the network for the
    next frames is then launched before the host waits for the objects of a frame. `batch_size` frames, of one size, go
    through the network at once, which changes their results in the last digits and delays the first of them until the
    last.
    """
    timer = timer or NoTimer()
    limits = model.config.postprocess
    was_training = model.training
    model.eval()
    tracker = tracker or VideoTracker(model, timer=timer, network=Network(model))
    wanted = None if labels is None else torch.tensor(sorted(labels))
    tracked = _track(tracker, frames, timer, batch_size, launches_ahead=overlap and tracker.has_fixed_shapes)
    if overlap:
        tracked = read_ahead(tracked, size=2)
    try:
        for frame, tracks, stages in tracked:
            timer.give(stages)
            if tracks is None:
                yield FrameResult(frame.meta, None, frame.is_last, error=frame.error)
                continue
            with timer("write", on_host=True):
                tracks = tracks if wanted is None else tracks[torch.isin(tracks.labels, wanted)]
                objects = postprocess(tracks, frame.meta, limits.score_threshold, limits.top_k, limits.one_sided_clamps)
            yield FrameResult(frame.meta, objects, frame.is_last, frame.frame)
    finally:
        tracked.close()
        model.train(was_training)


Tracked = tuple[FrameInput, Tracks | None, Stages]
Begun = deque[tuple[FrameInput, Callable[[], Tracks] | None, Stages]]


def _track(
    tracker: VideoTracker,
    frames: Iterable[FrameInput],
    timer: StageTimer | NoTimer,
    batch_size: int,
    launches_ahead: bool,
) -> Iterator[Tracked]:
    """(frame, its tracks or None if it could not be read, its stages) for each of `frames`.

    With `launches_ahead` the network for the next batch is launched before the host waits for a batch's last frame.
    """
    video_id = None
    frames = _timed(frames, timer)
    begun: Begun = deque()
    while True:
        try:
            batch = list(islice(frames, batch_size))
            predictions = _look(tracker, [frame.image for frame in batch if frame.error is None])
        except Exception:
            yield from _ended(begun, timer)
            raise
        shares = timer.take(parts=len(batch) or 1)
        if not batch:
            break
        places = count()
        for frame in batch:
            yield from _ended(begun, timer)
            if video_id not in (None, frame.meta.video_id):
                tracker.reset()
            elif frame.meta.is_cut:
                tracker.reset(keep_ids=True)
            video_id = frame.meta.video_id
            timer.give(shares)
            end = tracker.begin(predictions, next(places)) if frame.error is None else None
            begun.append((frame, end, timer.take()))
            if not launches_ahead:
                yield from _ended(begun, timer)
    yield from _ended(begun, timer)


def _look(tracker: VideoTracker, images: Sequence[Tensor]) -> Predictions | None:
    """What the network says of the `images`, which are on the host; None without images."""
    return tracker.look(tracker.transfers.to_device(images)) if images else None


def _ended(begun: Begun, timer: StageTimer | NoTimer) -> Iterator[Tracked]:
    """Removes and ends the frames that have `begun`."""
    while begun:
        frame, end, stages = begun.popleft()
        timer.give(stages)
        tracks = None if end is None else end()
        yield frame, tracks, timer.take()


def collect_tracks(
    results: Iterable[FrameResult],
    videos: Iterable[Video],
    category_ids: Sequence[int | None],
    timer: StageTimer | None = None,
    skip_bad_frames: bool = False,
    details: bool = False,
    length_power: float = 0.0,
) -> Iterator[tuple[Video, list[Track], list[str]]]:
    """(video, its tracks, a line for each frame of it that could not be read), for each of `videos` in turn.

    `results` are the frames of `videos`, as yielded by `track_videos`; `category_ids` are those of labels 1…C;
    `details` and `length_power` are as in `ytvis.results.track_result`.

    Raises:
        InputError: a frame could not be read, and `skip_bad_frames` is off.
    """
    timer = timer or NoTimer()
    for video, (_, video_results) in zip(videos, groupby(results, lambda result: result.meta.video_id), strict=True):
        size_hw = (video.height, video.width)
        builder = VideoResultBuilder(video.video_id, len(video), size_hw, category_ids, details, length_power)
        bad_frames = []
        for result in video_results:
            if result.error is None:
                with timer("write", on_host=True):
                    builder.add(result.meta.frame_index, result.objects)
            elif skip_bad_frames:
                bad_frames.append(result.error)
            else:
                raise InputError(
                    f"{result.error}; correct it and --resume, or leave it out with --resume --skip_bad_frames"
                )
        yield video, builder.finish(), bad_frames


def _timed(frames: Iterable[FrameInput], timer) -> Iterator[FrameInput]:
    """Yields `frames`; the time waiting for each is counted as the stage "read"."""
    iterator = iter(frames)
    while True:
        with timer("read", on_host=True):
            frame = next(iterator, None)
        if frame is None:
            return
        yield frame
