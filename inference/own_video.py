"""A person's own video, frames, picture or camera: what `eval.py --video`, `--images` and `--image` do."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from data.config import Config
from data.transforms import FrameTransform
from data.video import Camera, FrameSource
from inference.benchmark import Way, benchmark
from inference.internals import content, explain_objects
from inference.internals_pictures import MethodView, draw_method
from inference.measurement import Measurement
from inference.output_files import (
    StreamFiles,
    default_target,
    kind_of,
    open_input,
    split_names,
    tracks_text,
    write_picture,
)
from inference.stream import labels_of, stream_track_age
from inference.tracker import VideoTracker
from layers.deform_conv import deform_backend
from utils.device import describe_device
from utils.logging import EvalProgress
from utils.stop_signal import StopSignal
from utils.structures import FrameMeta, ObjectInsides, Predictions, Tracks
from utils.timer import StageTimer
from utils.window import LiveWindow
from ytvis.drawing import FrameRate, Overlay, Trails
from ytvis.files import InputError

if TYPE_CHECKING:
    from stmask import STMask

logger = logging.getLogger(__name__)


def run_on_own_video(config: Config, options: argparse.Namespace, load: Callable[[], STMask], way: Way) -> int:
    """What --video, --images or --image asks for; returns the exit code.

    `load` gives the model of `config`; it is called when the input has been found to be there.

    Raises:
        InputError: as `follow` and `show`, or an option that names nothing.
    """
    source, target = open_input(options)
    if options.classes is not None:
        labels_of(split_names(options.classes), config.dataset.class_names)
    if options.show:
        folder = Path(target or default_target(source, "images"))
        return show(load(), source, folder, options, way)
    names = config.dataset.class_names
    tables = {name: getattr(options, f"save_{name}") for name in ("csv", "mots", "details")}
    files = StreamFiles(source, kind_of(options), target, names, **tables)
    return follow(load(), files, options, way)


def follow(model: STMask, files: StreamFiles, options: argparse.Namespace, way: Way) -> int:
    """Tracks a person's own video, and writes it drawn, with the results beside it; returns the exit code.

    Raises:
        InputError: the input cannot be used, or not to its end; what was done by then is written.
    """
    measured = Measurement("this run", StageTimer(model.device))
    timer = measured.timer
    overlay = Overlay(
        masks=options.display_masks,
        boxes=options.display_bboxes,
        text=options.display_text,
        scores=options.display_scores,
        trails=Trails() if options.display_trails else None,
        frame_rate=FrameRate() if options.display_fps else None,
    )
    max_age = stream_track_age(model.config)
    tracker = VideoTracker(model, timer=timer, max_track_age=max_age, network=way.network(model))
    if files.source.num_frames is None:  # then the picture of now counts, not the rate
        way = replace(way, overlap=False)
    stream = model.stream(
        files.source,
        scene_cut=options.scene_cut,
        classes=split_names(options.classes),
        tracker=tracker,
        timer=timer,
        overlap=way.overlap,
    )
    fault = None
    begin = time.monotonic()
    with (
        deform_backend(way.deform_backend),
        files,
        stream,
        StopSignal() as stop,
        EvalProgress(files.source.num_frames) as progress,
        live_window(files) as window,
    ):
        try:
            for frame in stream:
                with timer("draw"):
                    picture = overlay.draw(frame.frame, frame.objects, frame.class_names)
                with timer("encode"):
                    files.add(frame.rows, picture, frame.index, frame.time_s, frame.name)
                measured.frame_done()
                progress.update()
                if stop.requested or (window is not None and not window.show(picture)):
                    break
        except InputError as error:
            fault = error
    seconds = time.monotonic() - begin
    if not files.written:
        raise fault or InputError(f"{files.source.name}: holds no frames")
    print(f"{files.num_frames} frames, {tracks_text(files.tracks)}")
    print(f"{files.num_frames / seconds:.1f} frames per second on {describe_device(model.device)}")
    print(f"written: {', '.join(map(str, files.written))}")
    if options.benchmark:
        benchmark(model, way, measured, files.beside("_benchmark.json"))
        print(beside_the_network(measured))
    if fault:
        raise InputError(f"{fault}; what was read until there is written")
    if stop.requested and files.source.num_frames is not None:
        print("eval.py: interrupted; what was done is written", file=sys.stderr)
        return 130
    return 0  # to be stopped is how a camera ends


def beside_the_network(measured: Measurement) -> str:
    """Frames per second of a whole run, and those that the network would do alone."""
    summary = measured.summary()
    whole = f"{summary['fps']:.1f}" if "fps" in summary else "-"  # of one frame it cannot be told
    alone = 1000 / summary["stages"]["network"]["median_ms"]
    return f"{whole} frames per second with everything, {alone:.1f} the network alone"


def live_window(files: StreamFiles) -> AbstractContextManager[LiveWindow | None]:
    """A window for what is drawn of a camera; None of anything else, and where there is no screen."""
    if not isinstance(files.source, Camera):
        return nullcontext()
    if not LiveWindow.can_open():
        logger.info("there is no screen to show %s on; Ctrl+C ends it and writes %s", files.source.name, files.target)
        return nullcontext()
    logger.info("q in the window, or Ctrl+C, ends it and writes %s", files.target)
    return LiveWindow(f"STMask, {files.source.name}")


class WatchedTracker(VideoTracker):
    """A tracker that keeps what its last frame was made of: `last` and `shifted` are the known objects before and after
    temporal fusion, None without; `tracks` and `predictions` what came of the frame."""

    last: Tracks | None = None
    shifted: Tracks | None = None

    def update(self, predictions: Predictions, index: int = 0) -> Tracks:
        self.predictions = predictions
        self.tracks = super().update(predictions, index)
        return self.tracks

    def _shift(self, known: Tracks, predictions: Predictions, index: int) -> Tracks:
        self.last, self.shifted = known, super()._shift(known, predictions, index)
        return self.shifted

    def explain(self, meta: FrameMeta, track_ids: Sequence[int]) -> list[ObjectInsides]:
        """How the method came to the objects `track_ids` of the last frame, by falling score."""
        wanted = torch.tensor(track_ids, dtype=torch.int64, device=self.model.device)
        tracks = self.tracks[torch.isin(self.tracks.track_ids, wanted)]
        tracks = tracks[tracks.scores.argsort(descending=True, stable=True)]
        head = self.model.prediction_layers[0]
        return explain_objects(tracks, self.last, self.shifted, self.predictions, head, meta)


def show(model: STMask, source: FrameSource, folder: Path, options: argparse.Namespace, way: Way) -> int:
    """Writes the pictures that --show names, of one frame of the video, into `folder`; returns the exit code.

    Raises:
        InputError: there is no such frame, or nothing to show in it.
    """
    config = model.config
    tracker = WatchedTracker(model, max_track_age=stream_track_age(config), network=way.network(model))
    classes = split_names(options.classes)
    last_frame = None
    with (
        deform_backend(way.deform_backend),
        model.stream(source, scene_cut=options.scene_cut, classes=classes, tracker=tracker) as stream,
    ):
        for frame in stream:
            moves = tracker.last is None or len(tracker.last) > 0 or source.num_frames == 1
            if frame.index == options.show_frame or (options.show_frame is None and moves and len(frame.objects)):
                break
            last_frame = frame.frame
        else:
            wanted = "nothing was found to show" if options.show_frame is None else f"no frame {options.show_frame}"
            raise InputError(f"{source.name}: {wanted}")
    transform = FrameTransform.from_config(config)
    meta = FrameMeta(0, frame.index, frame.frame.shape[:2], transform.size_hw, transform.padded_hw)
    view = MethodView(
        frame=frame.frame,
        last_frame=last_frame,
        prototypes=content(tracker.predictions.prototypes[0], meta).float().cpu().numpy(),
        objects=tracker.explain(meta, frame.track_ids.tolist()),
        kernels=config.head.kernels,
        class_names=frame.class_names,
    )
    for name in options.show:
        path = folder / f"{name}.jpg"
        write_picture(draw_method(name, view), path)
        print(f"frame {frame.index}: {path}")
    return 0
