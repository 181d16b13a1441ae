"""Run a trained STMask over a data set, or over a video of your own: results.json, overlay videos, timings.

    python eval.py --trained_model=weights/STMask_r101_FCA+TF.pth --mask_det_file=weights/results.json
    python eval.py --trained_model=weights/STMask_r50_ada.pth --split=train --max_videos=20 --display
    python eval.py --config=STMask_demo_config --trained_model=random --benchmark
    python eval.py --only_calc_metrics --ann_file=annotations/valid.json --mask_det_file=weights/results.json
    python eval.py --only_calc_metrics --ann_file=annotations/valid.json --mask_det_file=new.json --compare=old.json
    python eval.py --check --ann_file=annotations/valid.json --mask_det_file=weights/results.json
    python eval.py --trained_model=weights/STMask_demo.pth --video=in.mp4:out.mp4           # or 0 for the first camera
    python eval.py --trained_model=weights/STMask_demo.pth --images=frames:drawn --classes=circle,ring --top_k=5
    torchrun --nproc_per_node=4 eval.py --trained_model=weights/STMask_r101_FCA+TF.pth      # shares out the videos

A killed run goes on with --resume. Exit codes: 0 done, 1 --check found what a server would refuse, 2 bad input,
130 interrupted.
"""

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

from data.classes import config_for
from data.config import WEIGHT_NAMES, Config, add_config_arguments, get_config, overrides_from
from data.dataset import YTVISDataset, read_frames
from data.transforms import FrameTransform
from data.video import VideoWriter
from inference.benchmark import Way, benchmark
from inference.internals_pictures import PICTURES
from inference.measurement import Measurement
from inference.output_files import (
    FOLLOW_OPTIONS,
    VIDEO_OPTIONS,
    add_video_arguments,
    kind_of,
    tracks_text,
    write_picture,
)
from inference.own_video import run_on_own_video
from inference.tracker import VideoTracker
from inference.videos import collect_tracks, track_videos
from layers.deform_conv import BACKENDS, deform_backend
from stmask import STMask
from utils.checkpoint import config_name_of, find_checkpoint, fingerprint
from utils.device import describe_device, has_spare_core
from utils.distributed import World, launch
from utils.logging import EvalProgress, setup_logging
from utils.precision import PRECISIONS
from utils.structures import FrameResult
from ytvis.annotations import Video
from ytvis.check_results import examine_results
from ytvis.diagnostics import exit_code, format_findings
from ytvis.drawing import draw_objects
from ytvis.files import InputError, make_folder
from ytvis.results import ResultsJournal, VideoResult
from ytvis.score.command import ReportPlace, Scoring, print_scores, score_files
from ytvis.score.tracking import SCORE_THRESHOLD
from ytvis.score.ytvos import YTVOS, load_pair
from ytvis.splits import SPLITS, VideoChoice, write_video_ids

logger = logging.getLogger("eval")

RANDOM_WEIGHTS = "random"
DISPLAY_FRAME_RATE = 6  # YouTube-VIS annotates every fifth frame of videos at 30 frames per second
DATA_SET_OPTIONS = (  # that say nothing about a person's own video
    *("split", "video_ids", "write_video_ids", "ann_file", "image_root", "max_videos", "skip_bad_frames"),
    *("mask_det_file", "resume", "display", "display_png", "only_calc_metrics", "report", "compare", "check"),
    *("track_score_threshold", "baseline", "eval_batch_size", "num_workers"),
)
CONFIG_OPTIONS = {  # options that are short for a config key
    "cross_class_nms": "detection.cross_class_nms",
    "score_threshold": "postprocess.score_threshold",
    "top_k": "postprocess.top_k",
}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)

    group = parser.add_argument_group("model")
    group.add_argument(
        "--trained_model",
        metavar="FILE",
        help="checkpoint; its name tells the config. Or [FOLDER/]latest, [FOLDER/]interrupt (default folder: weights), "
        "or 'random' for seeded random weights, to try the installation or measure speed",
    )
    group.add_argument("--seed", type=int, default=0, help="seed of --trained_model=random (default: %(default)s)")
    group.add_argument("--device", help="cpu, cuda, cuda:1, … (default: the GPU if there is one; torchrun: one each)")
    group.add_argument(
        "--cross_class_nms",
        metavar="True|False",
        help="one class per candidate in NMS, or class by class (default: the config's, True)",
    )

    group = parser.add_argument_group("data")
    group.add_argument(
        "--split",
        choices=SPLITS,
        default="valid",
        help="split of the data set; train_sub and valid_sub are the first nine tenths and the last tenth of the "
        "videos of train, whose truth is public (default: valid)",
    )
    group.add_argument("--video_ids", metavar="FILE", help="only the videos whose ids the file lists, one a line")
    group.add_argument("--write_video_ids", metavar="FILE", help="write the ids of the videos, to be cited")
    group.add_argument("--ann_file", metavar="FILE", help="annotation file (YouTube-VIS format) instead of the split's")
    group.add_argument("--image_root", metavar="DIR", help="folder of the frames instead of the split's")
    group.add_argument("--max_videos", type=_positive, metavar="N", help="only the first N videos")
    group.add_argument(
        "--num_workers",
        type=_not_negative,
        default=2,
        help="processes that read frames ahead, for each that tracks (default: %(default)s)",
    )
    group.add_argument(
        "--skip_bad_frames",
        action="store_true",
        help="a frame that is missing or does not decode becomes null masks instead of stopping the run",
    )

    group = parser.add_argument_group("results")
    group.add_argument(
        "--mask_det_file",
        default="weights/results.json",
        metavar="FILE",
        help="where the results go (default: %(default)s)",
    )
    group.add_argument("--score_threshold", type=float, help="report objects over this score (default: 0.05)")
    group.add_argument("--top_k", type=_not_negative, help="report at most this many objects a frame (default: all)")
    group.add_argument(
        "--save_details",
        action="store_true",
        help="each track also gets 'scores', that of each frame, and 'shifted', where temporal fusion alone shows it",
    )
    group.add_argument("--resume", action="store_true", help="go on with the run that was killed or interrupted")
    group.add_argument(
        "--display", action="store_true", help="draw what was found: one H.264 mp4 a video, in <results>_display/"
    )
    group.add_argument("--display_png", action="store_true", help="with --display: also every frame as a PNG")
    modes = group.add_mutually_exclusive_group()
    modes.add_argument(
        "--only_calc_metrics",
        action="store_true",
        help="score the results file that is there against --ann_file; no model is run",
    )
    group.add_argument(
        "--report",
        metavar="DIR",
        help="with annotations: write report.html, metrics.json and metrics.md there, with 95 %% intervals",
    )
    group.add_argument(
        "--compare",
        metavar="FILE",
        help="with --only_calc_metrics: by how much the results are better than these, with 95 %% intervals",
    )
    modes.add_argument(
        "--check",
        action="store_true",
        help="examine the results file that is there against --ann_file; no model is run",
    )
    group.add_argument(
        "--track_score_threshold",
        type=float,
        default=SCORE_THRESHOLD,
        metavar="SCORE",
        help="HOTA, IDF1, switches are of the tracks with at least this score; 0: of all (default: %(default)s)",
    )

    group = parser.add_argument_group("speed")
    group.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        default="fp32",
        help="of the network; boxes, scores and overlaps stay float32 (default: fp32; fp16 is for GPUs)",
    )
    group.add_argument(
        "--deform_backend",
        choices=BACKENDS,
        help="which deformable convolution (default: native on a CPU if it is built, else torchvision)",
    )
    group.add_argument(
        "--compile", action="store_true", help="compile the network with torch.compile: minutes at first"
    )
    group.add_argument(
        "--eval_batch_size",
        type=_positive,
        default=1,
        metavar="N",
        help="frames of a data set that go through the network at once (default: %(default)s)",
    )
    group.add_argument(
        "--no_overlap",
        action="store_true",
        help="network and results take turns, in one thread, as they do "
        "anyway on a CPU whose cores all run the network",
    )
    group.add_argument(
        "--benchmark",
        action="store_true",
        help="print time by stage, memory, frames and operations per second, all written to <results>_benchmark.json "
        "(one's own video: <OUT>_benchmark.json) too",
    )
    group.add_argument(
        "--baseline",
        action="store_true",
        help="with --benchmark: track the videos once more in the plain way (float32, torchvision's deformable "
        "convolution, batch norms apart, no overlap), and with --compile once without",
    )
    add_video_arguments(parser, PICTURES)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parse_arguments(arguments)
    setup_logging()
    try:
        with launch(options.device) as world:
            return run(options, world)
    except InputError as error:
        print(f"eval.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "" if kind_of(options) else "; --resume goes on after the last finished video"
        print(f"eval.py: interrupted{hint}", file=sys.stderr)
        return 130


def run(options: argparse.Namespace, world: World) -> int:
    """What the command line asks for, of one of the processes of `world`; returns the exit code.

    Raises:
        InputError: something given cannot be used; finished videos are kept for --resume.
    """
    refuse_unread(options)
    for name in ("only_calc_metrics", "check"):
        if getattr(options, name):
            if options.ann_file is None:
                raise InputError(f"--{name} needs --ann_file=FILE with annotations")
            if options.check and (options.report or options.compare):
                raise InputError("--check only examines the results; --report and --compare need --only_calc_metrics")
            if world.is_main:
                return examine(options) if options.check else score(options)
            return 0
    if options.compare:
        raise InputError("--compare needs --only_calc_metrics")
    config, checkpoint = find_config(options)
    if options.print_config:
        if world.is_main:
            print(config)
        return 0
    for name, needed in (("display_png", "display"), ("baseline", "benchmark")):
        if getattr(options, name) and not getattr(options, needed):
            raise InputError(f"--{name} needs --{needed}")
    overlap = has_spare_core(world.device) and not options.no_overlap
    way = Way(
        options.precision,
        options.deform_backend or "auto",
        overlap,
        compiled=options.compile,
        batch_size=options.eval_batch_size,
    )
    way.check(world.device)
    if kind_of(options):
        if world.size > 1:
            raise InputError("a video is one process's work: leave torchrun away")
        return run_on_own_video(
            config, options, partial(load_model, config, checkpoint, options.seed, world.device), way
        )
    if os.path.isdir(options.mask_det_file):
        raise InputError(f"{options.mask_det_file}: is a folder; --mask_det_file names the file to write")
    dataset = YTVISDataset.from_config(config, options.split, options.ann_file, options.image_root, options.video_ids)
    if options.max_videos:
        dataset = dataset.subset(video.video_id for video in dataset.videos[: options.max_videos])
    if options.write_video_ids and world.is_main:
        write_video_ids(options.write_video_ids, [video.video_id for video in dataset.videos])
    model = load_model(config, checkpoint, options.seed, world.device)
    header = journal_header(model, checkpoint, options.seed, dataset) | way.for_journal()
    if options.save_details:
        header["save_details"] = True
    evaluate(model, dataset, options, way, header, world)
    return 0


def refuse_unread(options: argparse.Namespace) -> None:
    """Refuses options that are for a data set where a video of one's own is given, and the other way round; and those
    for its files where --show is given."""
    defaults = vars(parse_arguments([]))
    given = [name for name, value in vars(options).items() if value != defaults[name]]
    if options.scene_cut is not False:  # a threshold of 0 equals that default
        given.append("scene_cut")
    own = kind_of(options)
    for name in given:
        if own and name in DATA_SET_OPTIONS:
            raise InputError(f"--{name} is for data sets, and does nothing with --{own}")
        if not own and name in VIDEO_OPTIONS:
            raise InputError(f"--{name} is for one's own video: say --video, --images or --image too")
        if options.show and name in (*FOLLOW_OPTIONS, "save_details", "benchmark"):
            raise InputError(f"--{name} does nothing with --show, which only draws one frame: leave one of them away")
    if options.show_frame is not None and not options.show:
        raise InputError("--show_frame needs --show")


def video_choice(options: argparse.Namespace) -> VideoChoice:
    """Which videos of --ann_file are scored or examined."""
    return VideoChoice(options.split, options.video_ids, options.max_videos, options.write_video_ids)


def report_place(options: argparse.Namespace, image_root: str | os.PathLike | None) -> ReportPlace | None:
    """Where the report goes, if one is asked for."""
    return ReportPlace(options.report, image_root) if options.report else None


def score(options: argparse.Namespace) -> int:
    """Prints the scores of the results file, and by how much they differ from those of another."""
    report = report_place(options, options.image_root)
    scoring = Scoring(options.track_score_threshold)
    score_files(options.ann_file, options.mask_det_file, scoring, video_choice(options), report, options.compare)
    return 0


def examine(options: argparse.Namespace) -> int:
    """Prints what is wrong with the results file; 1 if a server would refuse it."""
    findings = examine_results(options.ann_file, options.mask_det_file, video_choice(options).of)
    print(format_findings(findings))
    return exit_code(findings)


def find_config(options: argparse.Namespace) -> tuple[Config, Path | None]:
    """(the config with all overrides, the checkpoint's path or None for random weights)."""
    random_weights = options.trained_model == RANDOM_WEIGHTS
    checkpoint = None
    name = options.config
    if options.trained_model and not random_weights:
        known = get_config(name).name if name else None
        checkpoint = find_checkpoint(options.trained_model, WEIGHT_NAMES, known)
        name = known or config_name_of(checkpoint, WEIGHT_NAMES)
    if name is None:
        missing = "--config=NAME" if random_weights else "--trained_model=FILE"
        raise InputError(f"say {missing}; --help lists the options")
    if not options.trained_model and not options.print_config:
        raise InputError("say --trained_model=FILE, or --trained_model=random to try the installation")
    return config_for(name, overrides_from(options, CONFIG_OPTIONS)), checkpoint


def load_model(config: Config, checkpoint: Path | None, seed: int, device: torch.device) -> STMask:
    """The network in evaluation mode, from the checkpoint or with seeded random weights."""
    if checkpoint is not None:
        return STMask.from_pretrained(checkpoint, config, device)
    logger.warning("the weights are random (seed %d): the pipeline is real, what it finds means nothing", seed)
    torch.manual_seed(seed)
    return STMask.from_config(config).to(device).eval()


def evaluate(
    model: STMask, dataset: YTVISDataset, options: argparse.Namespace, way: Way, header: dict, world: World
) -> None:
    """Runs `model` over this process's share of the videos; the main process writes the results and prints a summary.

    Each finished video goes to a journal beside the results, from which --resume goes on; the results appear, whole,
    when all are done. `header` tells this run from others.
    """
    results_path = Path(options.mask_det_file)
    journal, done = open_journal(results_path, header, options.resume, world)
    todo = [video for video in dataset.videos if video.video_id not in done]
    if len(todo) < len(dataset.videos):
        logger.info("resuming: %d of %d videos are done", len(dataset.videos) - len(todo), len(dataset.videos))
    measured = way.measurement("this run", model.device)
    begin = time.monotonic()
    job = Job(model, dataset, world.share(todo), options)
    for video, tracks, bad_frames in track(job, way, measured, show_progress=world.is_main):
        names = Counter(model.config.dataset.class_names[dataset.labels[t.category_id] - 1] for t in tracks)
        journal.append(video.video_id, tracks, {"frames": len(video), "tracks": dict(names), "bad_frames": bad_frames})
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
    num_frames = sum(len(video) for video in todo)
    print(f"{num_frames} frames in {seconds:.1f} s on {describe_device(model.device)}{processes}")
    if any(dataset.annotations(video.video_id) for video in dataset.videos):
        truth = YTVOS(dataset.truth(), dataset.ann_file)
        report = report_place(options, dataset.image_root)
        print_scores(*load_pair(truth, results_path), Scoring(options.track_score_threshold), report)
    if options.display:
        print(f"overlays: {display_folder(results_path)}/")
    if options.benchmark:
        path = results_path.with_name(f"{results_path.stem}_benchmark.json")
        benchmark(model, way, measured, path, job.again if options.baseline else None)


@dataclass(frozen=True)
class Job:
    """What is tracked: `videos` of `dataset` by `model`, as the command line's `options` say."""

    model: STMask
    dataset: YTVISDataset
    videos: Sequence[Video]
    options: argparse.Namespace

    def again(self, way: Way, measured: Measurement) -> None:
        """Does it once more, for the time that it takes."""
        for _ in track(self, way, measured, display=False):
            pass


def track(
    job: Job, way: Way, measured: Measurement, show_progress: bool = False, display: bool | None = None
) -> Iterator[tuple[Video, list[VideoResult], list[str]]]:
    """Does `job`, drawn if asked for (`display`, by default --display); see `collect_tracks`."""
    model, dataset, videos, options = job.model, job.dataset, job.videos, job.options
    display = options.display if display is None else display
    transform = FrameTransform.from_config(model.config)
    frames = read_frames(dataset, transform, videos=videos, num_workers=options.num_workers, keep_frames=display)
    timer = measured.timer
    tracker = VideoTracker(model, timer=timer, network=way.network(model))
    with (
        deform_backend(way.deform_backend),
        EvalProgress(len(frames), len(videos)) if show_progress else nullcontext() as progress,
        closing(track_videos(model, frames, timer, tracker, overlap=way.overlap, batch_size=way.batch_size)) as results,
    ):
        if display:
            folder = make_folder(display_folder(Path(options.mask_det_file)))
            results = drawn(results, folder, model.config, options.display_png)
        results = counted(results, measured, progress)
        skip, details, power = options.skip_bad_frames, options.save_details, model.config.postprocess.length_power
        yield from collect_tracks(results, videos, dataset.category_ids, timer, skip, details, power)


def counted(
    results: Iterable[FrameResult], measured: Measurement, progress: EvalProgress | None
) -> Iterator[FrameResult]:
    """`results`, each frame closed in `measured` and `progress` when the next is asked for."""
    for result in results:
        yield result
        measured.frame_done()
        if progress is not None:
            progress.update()
            if result.is_last:
                progress.video_done()


def drawn(results: Iterable[FrameResult], folder: Path, config: Config, png: bool) -> Iterator[FrameResult]:
    """`results`, drawn on their way: `folder`/<video id>.mp4, and with `png` `folder`/<video id>/<frame>.png.

    A frame that could not be read is black.
    """
    for (video_id, size_hw), video_results in groupby(results, lambda r: (r.meta.video_id, r.meta.original_hw)):
        with VideoWriter(folder / f"{video_id}.mp4", DISPLAY_FRAME_RATE, size_hw) as writer:
            for result in video_results:
                if result.frame is None:
                    picture = np.zeros((*size_hw, 3), np.uint8)
                else:
                    picture = draw_objects(result.frame, result.objects, config.dataset.class_names)
                writer.write(picture)
                if png:
                    write_picture(picture, folder / str(video_id) / f"{result.meta.frame_index:05d}.png")
                yield result


def display_folder(results_path: Path) -> Path:
    """Where --display draws the videos of a results file."""
    return results_path.with_name(f"{results_path.stem}_display")


def open_journal(results_path: Path, header: dict, resume: bool, world: World) -> tuple[ResultsJournal, set[int]]:
    """(this process's journal, the videos that are finished): a new one, or with `resume` what an earlier run left.

    The main process's is `<results>.partial`, that of another `<results>.partial.<rank>`; it takes in the others of a
    run that was resumed, which may have had another number of processes.

    Raises:
        InputError: there is one and `resume` was not asked for, or it is of a run with other settings.
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
            if found.exists():
                raise InputError(f"{found}: an unfinished run is kept there; go on with --resume, or delete the file")
        journal = ResultsJournal.create(path, header)
    return journal, world.broadcast(journal.done)


def other_journals(results_path: Path) -> list[Path]:
    """The journals that other processes than the main one keep of the run to `results_path`."""
    prefix = f"{results_path.name}.partial."
    found = results_path.parent.iterdir() if results_path.parent.is_dir() else ()
    return sorted(path for path in found if path.name.startswith(prefix) and path.name.removeprefix(prefix).isdigit())


def journal_header(model: STMask, checkpoint: Path | None, seed: int, dataset: YTVISDataset) -> dict:
    """What two runs must share for one to go on with the other: weights, data, and every config key."""
    return {
        "trained_model": fingerprint(checkpoint) if checkpoint else f"{RANDOM_WEIGHTS}, seed {seed}",
        "ann_file": fingerprint(dataset.ann_file),
        "config": model.config.name,
        **model.config.flat(),
    }


def summary_text(summaries: Sequence[dict], results_path: Path) -> str:
    """A few lines: how much was done, what was found, what was skipped, and where the results are."""
    tracks = sum((Counter(summary["tracks"]) for summary in summaries), Counter())
    bad_frames = [line for summary in summaries for line in summary["bad_frames"]]
    lines = [
        f"{len(summaries)} videos, {sum(summary['frames'] for summary in summaries)} frames, {tracks_text(tracks)}"
    ]
    if bad_frames:
        lines += [f"{len(bad_frames)} frames skipped:", *(f"  {line}" for line in bad_frames)]
    lines.append(f"results: {results_path}")
    return "\n".join(lines)


def _positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def _not_negative(text: str) -> int:
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
