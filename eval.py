"""Run a trained STMask over a data set, or over your own video: results.json, overlay videos, timings.

    python eval.py --trained_model=weights/STMask_r101_FCA+TF.pth --mask_det_file=weights/results.json
    python eval.py --trained_model=weights/STMask_r50_ada.pth --split=train --max_videos=20 --display
    python eval.py --config=STMask_demo_config --trained_model=random --benchmark
    python eval.py --only_calc_metrics --ann_file=annotations/valid.json --mask_det_file=weights/results.json
    python eval.py --only_calc_metrics --ann_file=annotations/valid.json --mask_det_file=new.json --compare=old.json
    python eval.py --check --ann_file=annotations/valid.json --mask_det_file=weights/results.json
    python eval.py --trained_model=weights/STMask_demo.pth --video=in.mp4:out.mp4           # or 0 for the first camera
    python eval.py --trained_model=weights/STMask_demo.pth --images=frames:drawn --classes=circle,ring --top_k=5
    torchrun --nproc_per_node=4 eval.py --trained_model=weights/STMask_r101_FCA+TF.pth      # distributes the videos

--resume continues a killed run. Exit codes: 0 done, 1 --check found faults that a server would refuse, 2 bad input,
130 interrupted.
"""

if __name__ == "__main__":  # the imports below take seconds
    from ytvis.command_line import exit_at_interrupt

    exit_at_interrupt("eval.py")

import argparse
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from data.config import Config
from data.dataset import YTVISDataset, read_frames
from data.transforms import FrameTransform
from data.video import VideoWriter
from inference import own_video
from inference.benchmark import Measurement, report_benchmark
from inference.output_files import describe_tracks, write_picture
from inference.run_options import (
    RANDOM_WEIGHTS,
    ModelChoice,
    RunSettings,
    add_display_threshold,
    add_file_options,
    add_model_options,
    add_result_options,
    add_speed_options,
    display_threshold,
)
from inference.tracker import VideoTracker
from inference.videos import collect_tracks, track_videos
from layers.deform_conv import deform_backend
from stmask import STMask
from utils.checkpoint import fingerprint
from utils.device import describe_device
from utils.distributed import World, launch
from utils.logging import EvalProgress, setup_logging
from utils.structures import FrameResult
from utils.timer import StageTimer
from ytvis.annotations import Track, Video
from ytvis.check_results import examine_results
from ytvis.command_line import (
    Parser,
    end_process,
    log_if_accepted,
    not_negative,
    number_in,
    positive,
    run_command,
)
from ytvis.diagnostics import exit_code, format_diagnostics
from ytvis.drawing import Overlay
from ytvis.files import InputError, make_folder
from ytvis.masks import mask_area
from ytvis.results import ResultsJournal, as_image_entry
from ytvis.score.command import ReportPlace, add_scoring_arguments, print_scores, score_files, scoring_of
from ytvis.score.ytvos import load_pair
from ytvis.splits import write_video_ids

logger = logging.getLogger("eval")

PROGRAM = "eval.py"
DISPLAY_FRAME_RATE = 6  # YouTube-VIS annotates every fifth frame of videos at 30 frames per second


def make_parser() -> Parser:
    """The options for a data set; those for your own video are in `inference.own_video`."""
    parser = Parser(PROGRAM, __doc__, epilog="options for your own video: python eval.py --video=IN --help")
    add_model_options(parser)
    group = parser.add_argument_group("data")
    group.add_argument("--ann_file", metavar="FILE", help="annotation file (YouTube-VIS format) instead of the split's")
    group.add_argument("--image_root", metavar="DIR", help="folder of the frames instead of the split's")
    group.add_argument(
        "--num_workers",
        type=not_negative,
        default=2,
        help="processes that read frames ahead, for each tracking process (default: %(default)s)",
    )
    group.add_argument(
        "--skip_bad_frames",
        action="store_true",
        help="write null masks for a frame that is missing or does not decode, instead of stopping",
    )
    group = add_result_options(parser)
    group.add_argument(
        "--mask_det_file",
        default="weights/results.json",
        metavar="FILE",
        help="results file to write or to score (default: %(default)s)",
    )
    group.add_argument("--resume", action="store_true", help="continue a killed or interrupted run")
    group.add_argument(
        "--display", action="store_true", help="draw the objects: one H.264 mp4 a video, in <results>_display/"
    )
    group.add_argument("--display_png", action="store_true", help="with --display: also every frame as a PNG")
    add_display_threshold(group)
    group.add_argument(
        "--frame_rate",
        type=number_in(float, 0.01, 1000),
        help=f"with --display: frames per second of its videos (default: {DISPLAY_FRAME_RATE})",
    )
    add_file_options(parser)
    group = parser.add_argument_group("scores")
    add_scoring_arguments(group)
    modes = group.add_mutually_exclusive_group()
    modes.add_argument(
        "--only_calc_metrics",
        action="store_true",
        help="score the existing results file against --ann_file; no model is run (see python -m ytvis score)",
    )
    modes.add_argument(
        "--check",
        action="store_true",
        help="check the existing results file against --ann_file; no model is run (see python -m ytvis check)",
    )
    group.add_argument(
        "--report",
        metavar="DIR",
        help="with annotations: write report.html, metrics.json and metrics.md with 95 %% intervals to this folder",
    )
    group.add_argument(
        "--compare",
        metavar="FILE",
        help="with --only_calc_metrics: also print the differences to these results, with 95 %% intervals",
    )
    group = add_speed_options(parser)
    group.add_argument(
        "--eval_batch_size",
        type=positive,
        default=1,
        metavar="N",
        help="frames of a data set that go through the network at once (default: %(default)s)",
    )
    group.add_argument(
        "--baseline",
        action="store_true",
        help="with --benchmark: also time the plain network (float32, torchvision's deformable convolution, separate "
        "batch norms, no overlap), and with --compile the network without compilation",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    setup_logging()
    if own_video.input_kind(arguments):
        return own_video.main(arguments, load_model, make_parser())
    return run_command(PROGRAM, partial(run, arguments), "; --resume continues after the last finished video")


def run(arguments: Sequence[str]) -> int:
    """As `main`, for a data set, but bad input raises InputError; finished videos are kept for --resume."""
    parser = make_parser()
    reason = "is for your own video: also pass --video, --images or --image"
    parser.refuse_options_of(own_video.make_parser(), arguments, reason)
    options = parser.parse_args(arguments)
    with launch(options.device) as world:
        if options.only_calc_metrics or options.check:
            with log_if_accepted():
                return run_on_files(options) if world.is_main else 0
        if options.compare:
            raise InputError("--compare needs --only_calc_metrics")
        choice = ModelChoice.from_options(options)
        if options.print_config:
            if world.is_main:
                print(choice.config)
            return 0
        needs = {name: "display" for name in ("display_png", "display_score_threshold", "frame_rate")}
        for name, needed in {**needs, "baseline": "benchmark"}.items():
            given = getattr(options, name)
            if given is not None and given is not False and not getattr(options, needed):
                raise InputError(f"--{name} needs --{needed}")
        settings = RunSettings.from_options(options, world.device, options.eval_batch_size)
        if os.path.isdir(options.mask_det_file):
            raise InputError(f"{options.mask_det_file}: is a folder; set --mask_det_file to the file to write")
        dataset = open_data_set(choice.config, options, world)
        evaluation = Evaluation(load_model(choice, world.device), dataset, options)
        evaluate(evaluation, settings, journal_header(choice, dataset, settings, options.save_details), world)
    return 0


def run_on_files(options: argparse.Namespace) -> int:
    """Scores or checks the results file; returns the exit code."""
    if options.ann_file is None:
        mode = "--check" if options.check else "--only_calc_metrics"
        raise InputError(f"{mode} needs --ann_file=FILE with annotations")
    scoring, videos = scoring_of(options)
    if options.only_calc_metrics:
        report = report_place(options, options.image_root)
        score_files(options.ann_file, options.mask_det_file, scoring, videos, report, options.compare)
        return 0
    if options.report or options.compare:
        raise InputError("--check only examines the results; --report and --compare need --only_calc_metrics")
    found = examine_results(options.ann_file, options.mask_det_file, videos.of)
    print(format_diagnostics(found))
    return exit_code(found)


def report_place(options: argparse.Namespace, image_root: str | os.PathLike | None) -> ReportPlace | None:
    """The place of --report, with frames from `image_root`; None without --report."""
    return ReportPlace(options.report, image_root) if options.report else None


def open_data_set(config: Config, options: argparse.Namespace, world: World) -> YTVISDataset:
    """The videos chosen by the options."""
    dataset = YTVISDataset.from_config(config, options.split, options.ann_file, options.image_root, options.video_ids)
    if options.max_videos:
        dataset = dataset.subset(video.video_id for video in dataset.videos[: options.max_videos])
    if options.write_video_ids and world.is_main:
        write_video_ids(options.write_video_ids, [video.video_id for video in dataset.videos])
    return dataset


def load_model(choice: ModelChoice, device: torch.device) -> STMask:
    """The network in evaluation mode, from the checkpoint or with seeded random weights."""
    if choice.checkpoint is not None:
        return STMask.from_pretrained(choice.checkpoint, choice.config, device)
    logger.warning("the weights are random (seed %d): the results are meaningless", choice.seed)
    torch.manual_seed(choice.seed)
    return STMask.from_config(choice.config).to(device).eval()


@dataclass(frozen=True)
class Evaluation:
    """A model, a data set, and the command line's `options` for running one over the other."""

    model: STMask
    dataset: YTVISDataset
    options: argparse.Namespace

    def track(
        self,
        videos: Sequence[Video],
        settings: RunSettings,
        measured: Measurement,
        display: Path | None = None,
        progress: EvalProgress | None = None,
    ) -> Iterator[tuple[Video, list[Track], list[str]]]:
        """As `collect_tracks`, for `videos` of the data set, which are drawn into the folder `display` if given."""
        model, options, timer = self.model, self.options, measured.timer
        transform = FrameTransform.from_config(model.config)
        keep = display is not None
        frames = read_frames(self.dataset, transform, videos=videos, num_workers=options.num_workers, keep_frames=keep)
        tracker = VideoTracker(model, timer=timer, network=settings.network(model))
        tracked = track_videos(model, frames, timer, tracker, overlap=settings.overlap, batch_size=settings.batch_size)
        with deform_backend(settings.deform_backend), closing(tracked) as results:
            if display is not None:
                results = draw_videos(results, make_folder(display), model.config, options)
            yield from collect_tracks(
                count_frames(results, measured, progress),
                videos,
                self.dataset.category_ids,
                timer,
                options.skip_bad_frames,
                options.save_details,
                model.config.postprocess.length_power,
            )

    def repeat(self, videos: Sequence[Video], settings: RunSettings, measured: Measurement) -> None:
        """Tracks `videos` again, only for timing."""
        for _ in self.track(videos, settings, measured):
            pass


def evaluate(evaluation: Evaluation, settings: RunSettings, header: dict, world: World) -> None:
    """Runs this process's share of an evaluation; the main process writes the results and prints a summary.

    Each finished video is written to a journal beside the results, from which --resume continues; the results are
    written, whole, when all are done. `header` identifies the run.
    """
    model, dataset, options = evaluation.model, evaluation.dataset, evaluation.options
    results_path = Path(options.mask_det_file)
    journal, done = open_journal(results_path, header, options.resume, world)
    todo = [video for video in dataset.videos if video.video_id not in done]
    if len(todo) < len(dataset.videos):
        logger.info("resuming: %d of %d videos are done", len(dataset.videos) - len(todo), len(dataset.videos))
    measured = Measurement("this run", StageTimer(model.device), settings.batch_size)
    begin = time.monotonic()
    videos = world.share(todo)
    display = display_folder(results_path) if options.display else None
    total = sum(map(len, videos))
    with EvalProgress(total, len(videos)) if world.is_main else nullcontext() as progress:
        for video, tracks, bad_frames in evaluation.track(videos, settings, measured, display, progress):
            names = Counter(model.config.dataset.class_names[dataset.labels[t.category_id] - 1] for t in tracks)
            summary = {"frames": len(video), "tracks": dict(names), "bad_frames": bad_frames}
            if dataset.is_static:
                visible = (track for track in tracks if mask_area(track.segmentations[0]))
                journal.append(video.video_id, list(map(as_image_entry, visible)), summary)
            else:
                journal.append(video.video_id, tracks, summary)
    world.barrier()
    if not world.is_main:
        return
    for part in other_journals(results_path):
        journal.absorb(part)
    seconds = time.monotonic() - begin
    summaries = list(journal.summaries())
    journal.finish(results_path, [video.video_id for video in dataset.videos])
    print(summary_text(summaries, results_path))
    processes = f", {world.size} processes" if world.size > 1 else ""
    num_frames = sum(map(len, todo))
    print(f"{num_frames} frames in {seconds:.1f} s on {describe_device(model.device)}{processes}")
    if any(dataset.annotations(video.video_id) for video in dataset.videos):
        truth, results = load_pair(dataset.truth(), results_path)
        print_scores(truth, results, scoring_of(options)[0], report_place(options, dataset.image_root))
    if display is not None:
        print(f"overlays: {display}/")
    if options.benchmark:
        path = results_path.with_name(f"{results_path.stem}_benchmark.json")
        repeat = partial(evaluation.repeat, videos) if options.baseline else None
        report_benchmark(model, settings, measured, path, repeat)


def count_frames(
    results: Iterable[FrameResult], measured: Measurement, progress: EvalProgress | None
) -> Iterator[FrameResult]:
    """Yields `results`; each frame ends in `measured` and `progress` when the next one is requested."""
    for result in results:
        yield result
        measured.frame_done()
        if progress is not None:
            progress.update()
            if result.is_last:
                progress.video_done()


def draw_videos(
    results: Iterable[FrameResult], folder: Path, config: Config, options: argparse.Namespace
) -> Iterator[FrameResult]:
    """Yields and draws `results`: to `folder`/<video id>.mp4, and with `display_png` also <video id>/<frame>.png there.

    A frame that could not be read is black.
    """
    frame_rate = options.frame_rate or DISPLAY_FRAME_RATE
    for (video_id, size_hw), video_results in groupby(results, lambda r: (r.meta.video_id, r.meta.original_hw)):
        overlay = Overlay(score_threshold=display_threshold(options))
        with VideoWriter(folder / f"{video_id}.mp4", frame_rate, size_hw) as writer:
            for result in video_results:
                if result.frame is None:
                    picture = np.zeros((*size_hw, 3), np.uint8)
                else:
                    picture = overlay.draw(result.frame, result.objects, config.dataset.class_names)
                writer.write(picture)
                if options.display_png:
                    write_picture(picture, folder / str(video_id) / f"{result.meta.frame_index:05d}.png")
                yield result


def display_folder(results_path: Path) -> Path:
    """The folder of --display for the videos of a results file."""
    return results_path.with_name(f"{results_path.stem}_display")


def open_journal(results_path: Path, header: dict, resume: bool, world: World) -> tuple[ResultsJournal, set[int]]:
    """(this process's journal, the ids of finished videos): new and empty, or with `resume` that of an earlier run.

    The main process's is `<results>.partial`, that of another `<results>.partial.<rank>`. With `resume` the main
    process absorbs the others', from any number of processes.

    Raises:
        InputError: it exists without `resume`, or belongs to a run with other settings.
    """
    path = results_path.with_name(f"{results_path.name}.partial")
    if not world.is_main:
        done = world.broadcast(None)
        return ResultsJournal.create(path.with_name(f"{path.name}.{world.rank}"), header), done
    parts = other_journals(results_path)
    if resume:
        journal = ResultsJournal.resume(path, header)
        for part in parts:
            journal.absorb(part)
    else:
        for found in (path, *parts):
            if os.path.exists(found):
                raise InputError(
                    f"{found}: the journal of an unfinished run; continue it with --resume, or delete the file"
                )
        journal = ResultsJournal.create(path, header)
    return journal, world.broadcast(journal.done)


def other_journals(results_path: Path) -> list[Path]:
    """The journals of all processes but the main one, for the run to `results_path`."""
    prefix = f"{results_path.name}.partial."
    found = results_path.parent.iterdir() if os.path.isdir(results_path.parent) else ()
    return sorted(path for path in found if path.name.startswith(prefix) and path.name.removeprefix(prefix).isdigit())


def journal_header(choice: ModelChoice, dataset: YTVISDataset, settings: RunSettings, details: bool) -> dict:
    """The settings that a continued run must share: weights, data, every config key, and precision."""
    return {
        "trained_model": fingerprint(choice.checkpoint)
        if choice.checkpoint
        else f"{RANDOM_WEIGHTS}, seed {choice.seed}",
        "ann_file": fingerprint(dataset.ann_file),
        "config": choice.config.name,
        **choice.config.flat(),
        **settings.for_journal(),
        **({"save_details": True} if details else {}),
    }


def summary_text(summaries: Sequence[dict], results_path: Path) -> str:
    """A few lines: counts of videos, frames and tracks, the frames that were skipped, and the results file."""
    tracks = sum((Counter(summary["tracks"]) for summary in summaries), Counter())
    bad_frames = [line for summary in summaries for line in summary["bad_frames"]]
    lines = [
        f"{len(summaries)} videos, {sum(summary['frames'] for summary in summaries)} frames, {describe_tracks(tracks)}"
    ]
    if bad_frames:
        lines += [f"{len(bad_frames)} frames skipped:", *(f"  {line}" for line in bad_frames)]
    lines.append(f"results: {results_path}")
    return "\n".join(lines)


if __name__ == "__main__":
    end_process(main())
