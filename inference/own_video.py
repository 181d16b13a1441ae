"""Track the objects of your own video, frames, picture or camera.

    python eval.py --trained_model=weights/STMask_demo.pth --video=in.mp4:out.mp4           # or 0 for the first camera
    python eval.py --trained_model=weights/STMask_demo.pth --images=frames:drawn --classes=circle,ring --top_k=5
    python eval.py --trained_model=weights/STMask_demo.pth --image=in.jpg:pictures --show=anchors,shift

Exit codes: 0 done, 2 bad input (the frames before it are written), 130 interrupted (likewise).
"""

from __future__ import annotations

import argparse
import glob
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import torch

from data.transforms import FrameTransform
from data.video import DEFAULT_FRAME_RATE, Camera, SceneCuts, open_source
from inference.benchmark import Measurement, report_benchmark
from inference.internals import ObjectInternals, explain_objects, without_padding
from inference.internals_pictures import PICTURES, FrameInternals, draw_internals
from inference.network import Model
from inference.output_files import OutputFiles, default_target, describe_tracks, write_picture
from inference.run_options import (
    ModelChoice,
    RunSettings,
    add_display_threshold,
    add_file_options,
    add_model_options,
    add_result_options,
    add_speed_options,
    display_threshold,
)
from inference.stream import Stream, labels_of, stream_track_age
from inference.tracker import VideoTracker
from inference.tracker_step import TrackerState
from layers.deform_conv import deform_backend
from utils.device import describe_device
from utils.distributed import launch
from utils.logging import EvalProgress
from utils.stop_signal import StopSignal
from utils.structures import FrameMeta, Predictions, Tracks
from utils.timer import StageTimer
from utils.window import LiveWindow
from ytvis.command_line import KILLED_BY_INTERRUPT, Parser, not_negative, run_command
from ytvis.drawing import FrameRate, Overlay, Trails
from ytvis.files import InputError

logger = logging.getLogger(__name__)

PROGRAM = "eval.py"
KINDS = ("video", "images", "image")  # each is an option for input and output
SWITCHES = {"masks": "masks", "bboxes": "boxes", "text": "text", "scores": "scores"}  # --display_KEY: Overlay's name

LoadModel = Callable[[ModelChoice, torch.device], Model]


def make_parser(files: bool = True) -> Parser:
    """The options of this mode; without `files` only those that --show allows."""
    parser = Parser(PROGRAM, __doc__)
    group = parser.add_argument_group("your own video (docs/your-video.md)")
    kinds = group.add_mutually_exclusive_group(required=True)
    kinds.add_argument(
        "--video",
        metavar="IN[:OUT]",
        help="track the objects of a video file, a folder of frames, or a camera by its number; OUT is an mp4 file, "
        "and the results are beside it in <OUT>.json (default: results/<IN>.mp4); python -m ytvis view <OUT>.json "
        "--images IN shows them",
    )
    kinds.add_argument("--images", metavar="IN[:OUT]", help="the same for a folder or glob of frames; OUT is a folder")
    kinds.add_argument("--image", metavar="IN[:OUT]", help="the same for one picture; OUT is a picture")
    group.add_argument("--classes", metavar="NAME,…", help="report only these classes (default: all)")
    group.add_argument(
        "--scene_cut",
        nargs="?",
        const=SceneCuts.DEFAULT_THRESHOLD,
        type=float,
        metavar="THRESHOLD",
        help="forget the objects at hard cuts; the threshold is in 0…1 (default: %(const)s)",
    )
    group.add_argument(
        "--frame_rate",
        type=float,
        default=DEFAULT_FRAME_RATE,
        help="frames per second of input without time stamps (default: %(default)s)",
    )
    if files:
        for name in SWITCHES:
            group.add_argument(
                f"--display_{name}", type=_switch, default=True, metavar="True|False", help=f"draw {name}"
            )
        add_display_threshold(group)
        group.add_argument("--display_trails", action="store_true", help="draw the path of each object")
        group.add_argument("--display_fps", action="store_true", help="write the frames per second into each frame")
        group.add_argument("--save_csv", action="store_true", help="also write a table of boxes, <OUT>.csv")
        group.add_argument("--save_mots", action="store_true", help="also write MOTS text, <OUT>_mots/")
        add_file_options(parser)
    group.add_argument(
        "--show",
        type=_names_of(PICTURES),
        metavar="NAME,…",
        help="write only pictures of how the method found the objects of one frame, to the folder OUT: "
        + ", ".join(PICTURES),
    )
    group.add_argument(
        "--show_frame",
        type=not_negative,
        metavar="N",
        help="the frame of --show, from 0 (default: the first with an object that was known before)",
    )
    add_result_options(parser)
    add_model_options(parser)
    add_speed_options(parser)
    return parser


def input_kind(arguments: Sequence[str]) -> str | None:
    """Returns the one of `KINDS` among the `arguments` of a command line; None if they are not for this mode."""
    given = {text.partition("=")[0] for text in arguments}
    return next((kind for kind in KINDS if f"--{kind}" in given), None)


def main(arguments: Sequence[str], load_model: LoadModel, data_set_parser: Parser) -> int:
    """Runs a command line that has one of `KINDS`; returns the exit code.

    `load_model` is called when the input has been found. Options that only `data_set_parser` has are refused.
    """
    return run_command(PROGRAM, partial(run, arguments, load_model, data_set_parser))


def run(arguments: Sequence[str], load_model: LoadModel, data_set_parser: Parser) -> int:
    """As `main`, but bad input raises InputError."""
    kind = input_kind(arguments)
    parser = make_parser()
    parser.refuse_options_of(data_set_parser, arguments, f"is for data sets and cannot be used with --{kind}")
    options = parser.parse_args(arguments)
    if options.show:
        reason = "does nothing with --show, which only draws one frame: leave one of them out"
        make_parser(files=False).refuse_options_of(parser, arguments, reason)
    elif options.show_frame is not None:
        raise InputError("--show_frame needs --show")
    with launch(options.device) as world:
        if world.size > 1:
            raise InputError("your own video needs one process: run it without torchrun")
        choice = ModelChoice.from_options(options)
        if options.print_config:
            print(choice.config)
            return 0
        settings = RunSettings.from_options(options, world.device)
        source_name, target = split_paths(getattr(options, kind))
        source = open_source(source_name, options.frame_rate)
        cuts = None if options.scene_cut is None else SceneCuts(options.scene_cut)
        class_names = choice.config.dataset.class_names
        labels = None if options.classes is None else labels_of(split_names(options.classes), class_names)
        if options.show:
            model = load_model(choice, world.device)
            tracker = RecordingTracker(
                model, max_track_age=stream_track_age(model.config), network=settings.network(model)
            )
            with deform_backend(settings.deform_backend), Stream(tracker, source, cuts, labels) as stream:
                folder = Path(target or default_target(source, "images"))
                return show(stream, options.show, options.show_frame, folder)
        tables = {name: getattr(options, f"save_{name}") for name in ("csv", "mots", "details")}
        files = OutputFiles(source, kind, target, class_names, **tables, category_ids=choice.config.category_ids)
        return follow(load_model(choice, world.device), files, cuts, labels, settings, options)


# ---------------------------------------------------------------------------------------------------- a whole video


def follow(
    model: Model,
    files: OutputFiles,
    cuts: SceneCuts | None,
    labels: Collection[int] | None,
    settings: RunSettings,
    options: argparse.Namespace,
) -> int:
    """Tracks the objects of the source of `files` and writes these, as set by `options`; returns the exit code.

    Raises:
        InputError: the input cannot be used, or not to its end; the frames before the fault are written.
    """
    measured = Measurement("this run", StageTimer(model.device))
    if files.source.num_frames is None:  # for a camera the newest picture matters, not the rate
        settings = replace(settings, overlap=False)
    tracker = VideoTracker(
        model, timer=measured.timer, max_track_age=stream_track_age(model.config), network=settings.network(model)
    )
    stream = Stream(tracker, files.source, cuts, labels, measured.timer, settings.overlap)
    fault = None
    begin = time.monotonic()
    with deform_backend(settings.deform_backend), files, stream, StopSignal() as stop:
        try:
            write_stream(stream, files, make_overlay(options), stop, measured)
        except InputError as error:
            fault = error
    seconds = time.monotonic() - begin
    if not files.written:
        raise fault or InputError(f"{files.source.name}: has no frames")
    print(f"{files.num_frames} frames, {describe_tracks(files.tracks)}")
    print(f"{files.num_frames / seconds:.1f} frames per second on {describe_device(model.device)}")
    print(f"written: {', '.join(map(str, files.written))}")
    if options.benchmark:
        report_benchmark(model, settings, measured, files.beside("_benchmark.json"))
        print(compare_with_network(measured))
    if fault:
        raise InputError(f"{fault}; the frames before it are written")
    if stop.requested and files.source.num_frames is not None:
        print(f"{PROGRAM}: interrupted; the frames until then are written", file=sys.stderr)
        return KILLED_BY_INTERRUPT
    return 0  # a camera runs until it is stopped


def write_stream(stream: Stream, files: OutputFiles, overlay: Overlay, stop: StopSignal, measured: Measurement) -> None:
    """Draws and writes every frame of `stream` and its objects, until `stop` or the window ends it."""
    timer = measured.timer
    first = next(stream, None)  # before anything is logged: of a camera that is missing there is one line
    if first is None:
        return
    with EvalProgress(files.source.num_frames) as progress, live_window(files) as window:
        for frame in chain((first,), stream):
            with timer("draw", on_host=True):
                picture = overlay.draw(frame.frame, frame.objects, frame.class_names)
            with timer("encode", on_host=True):
                files.add(frame.rows, picture, frame.index, frame.time_s, frame.name)
            measured.frame_done()
            progress.update()
            if stop.requested or (window is not None and not window.show(picture)):
                break


def make_overlay(options: argparse.Namespace) -> Overlay:
    """Returns the drawing style set by the options --display_…"""
    switches = {name: getattr(options, f"display_{option}") for option, name in SWITCHES.items()}
    return Overlay(
        **switches,
        trails=Trails() if options.display_trails else None,
        frame_rate=FrameRate() if options.display_fps else None,
        score_threshold=display_threshold(options),
    )


def compare_with_network(measured: Measurement) -> str:
    """One line: frames per second of the whole run, and those of the network alone."""
    summary = measured.summary()
    whole = f"{summary['fps']:.1f}" if "fps" in summary else "-"  # one frame has no rate
    alone = 1000 / summary["stages"]["network"]["median_ms"]
    return f"{whole} frames per second with everything, {alone:.1f} the network alone"


def live_window(files: OutputFiles) -> AbstractContextManager[LiveWindow | None]:
    """A window for the drawn frames of a camera; None for other sources, and without a screen."""
    if not isinstance(files.source, Camera):
        return nullcontext()
    if not LiveWindow.can_open():
        logger.info("no screen to show %s on; press Ctrl+C to stop and write %s", files.source.name, files.target)
        return nullcontext()
    logger.info("press q in the window, or Ctrl+C, to stop and write %s", files.target)
    return LiveWindow(f"STMask, {files.source.name}")


# ---------------------------------------------------------------------------------------------------- one frame


class RecordingTracker(VideoTracker):
    """A tracker that keeps how its last frame came about: `before` is the state before it, `predictions` and `tracks`
    are the network's and the tracker's output."""

    before: TrackerState

    def begin(self, predictions: Predictions, index: int = 0) -> Callable[[], Tracks]:
        self.before, self.predictions, self._index = self._state, predictions, index
        end = super().begin(predictions, index)

        def end_and_keep() -> Tracks:
            self.tracks = end()
            return self.tracks

        return end_and_keep

    @property
    def shifts(self) -> bool:
        """Whether temporal fusion moved objects to the last frame."""
        return self.compute_step.fusion and self.before.known is not None and len(self.before.known) > 0

    def explain(self, meta: FrameMeta, track_ids: Sequence[int]) -> list[ObjectInternals]:
        """How the method found the objects `track_ids` of the last frame, by falling score."""
        tracks = self.tracks[torch.isin(self.tracks.track_ids, torch.tensor(track_ids, dtype=torch.int64))]
        tracks = tracks[tracks.scores.argsort(descending=True, stable=True)].to(self.model.device)
        last = shifted = None
        if self.shifts:
            last = self.before.known[self.before.are_known]
            with torch.inference_mode():
                after = self.compute_step.shift(self.before, self.predictions, self._index)
            shifted = after.known[after.are_known]
        return explain_objects(tracks, last, shifted, self.predictions, self.model.prediction_layers[0], meta)


def show(stream: Stream, names: Sequence[str], frame_index: int | None, folder: Path) -> int:
    """Writes the pictures `names` of one frame of `stream`, run by a `RecordingTracker`; returns the exit code.

    Without `frame_index` it is the first frame with an object that was known before.

    Raises:
        InputError: the frame does not exist, or has nothing to show.
    """
    tracker, source = stream.tracker, stream.source
    last_frame = None
    for frame in stream:
        moves = tracker.shifts or not tracker.compute_step.fusion or source.num_frames == 1
        if frame.index == frame_index or (frame_index is None and moves and len(frame.objects)):
            break
        last_frame = frame.frame
    else:
        wanted = "nothing was found to show" if frame_index is None else f"no frame {frame_index}"
        raise InputError(f"{source.name}: {wanted}")
    config = tracker.model.config
    transform = FrameTransform.from_config(config)
    meta = FrameMeta(0, frame.index, frame.frame.shape[:2], transform.size_hw, transform.padded_hw)
    internals = FrameInternals(
        frame=frame.frame,
        last_frame=last_frame,
        prototypes=without_padding(tracker.predictions.prototypes[0], meta).float().cpu().numpy(),
        objects=tracker.explain(meta, frame.track_ids.tolist()),
        kernels=config.head.kernels,
        class_names=frame.class_names,
    )
    for name in names:
        path = folder / f"{name}.jpg"
        write_picture(draw_internals(name, internals), path)
        print(f"frame {frame.index}: {path}")
    return 0


# ---------------------------------------------------------------------------------------------------- option values


def split_names(text: str) -> list[str]:
    """The names in a text such as "person, dog"."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _names_of(known: Collection[str]) -> Callable[[str], list[str]]:
    """A converter for argparse of "a,b" to a list of names, all of them `known`."""

    def parse(text: str) -> list[str]:
        names = split_names(text)
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown) or 'nothing'}: choose from {', '.join(known)}")
        return names

    return parse


def _switch(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text} is neither True nor False")
    return values[text.lower()]


def split_paths(text: str) -> tuple[str, str | None]:
    """(source, target) of "source:target", target None if only a source is named.

    The colons of Windows drives and of stream addresses are not separators, nor are those in the name of an existing
    file.

    Raises:
        InputError: it can be split in several ways, or one side of the colon is empty.
    """
    if not text:
        raise InputError("name a video, folder or picture: IN:OUT, or only IN")
    if os.path.exists(text):
        return text, None
    places = [match.start() for match in re.finditer(":", text) if _may_separate(text, match.start())]
    of_files = [place for place in places if os.path.exists(text[:place]) or glob.glob(text[:place])]
    places = of_files or places
    if not places:
        return text, None
    if len(places) > 1:
        raise InputError(f"{text!r}: the colon between input and output is ambiguous; use paths without colons")
    source, target = text[: places[0]], text[places[0] + 1 :]
    if not source or not target:
        raise InputError(f"{text!r}: input or output is missing; write IN:OUT, or only IN")
    return source, target


def _may_separate(text: str, place: int) -> bool:
    before, after = text[:place], text[place + 1 :]
    is_drive = re.search(r"(^|:)[A-Za-z]$", before) and after[:1] in ("/", "\\") and not os.path.exists(before)
    is_port = "://" in before and re.match(r"\d+(/|$)", after)
    return not (is_drive or is_port or after.startswith("//"))
