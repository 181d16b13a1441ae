"""Scores a results file: YouTube-VIS AP and AR, and HOTA, IDF1 and ID switches on masks.

    python -m ytvis score annotations/valid.json results.json
    python -m ytvis score annotations/valid.json results.json --report OUT --images valid/JPEGImages
    python -m ytvis score annotations/valid.json new.json --compare old.json
    python -m ytvis score annotations/valid.json results.json --class_agnostic --boundary
    python -m ytvis score short.json results.json --long long.json                     # one results file for both
    python -m ytvis score short.json results.json --long long.json results_long.json   # YouTube-VIS 2022

docs/evaluate.md explains the numbers. The results may have more videos than are scored.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ytvis.command_line import number_in
from ytvis.files import InputError
from ytvis.score.ap import Metrics, evaluate_results, format_table
from ytvis.score.bootstrap import OF_RETURNING, RETURNING, compare_results, describe_difference
from ytvis.score.groups import returning_objects
from ytvis.score.halves import format_halves, read_halves
from ytvis.score.selection import pool_categories, restrict
from ytvis.score.tracking import RATES, SCORE_THRESHOLD, evaluate_tracking
from ytvis.score.ytvos import YTVOS, load_pair
from ytvis.splits import VideoChoice, add_choice_arguments

BOUNDARY_TITLE = "tube-boundary AP: of two tracks, the smaller of the IoU of their masks and that of their boundaries"
COMPARED = ("AP", "AP50", "AP75", "AR10", "HOTA", "DetA", "AssA", "IDF1")  # of two results files


@dataclass(frozen=True)
class Scoring:
    """How results are scored.

    HOTA, IDF1 and switches use the tracks with a score of at least `track_score_threshold`. `class_agnostic` merges all
    categories into one. With `boundary`, tube-boundary AP is printed too.
    """

    track_score_threshold: float = SCORE_THRESHOLD
    class_agnostic: bool = False
    boundary: bool = False

    def view(self, *parts: YTVOS) -> tuple[YTVOS, ...]:
        """Truth and results, ready for comparison."""
        return tuple(map(pool_categories, parts)) if self.class_agnostic else parts


@dataclass(frozen=True)
class ReportPlace:
    """The folder of a report, and the folder of the frames for its pictures."""

    folder: str | os.PathLike
    images: str | os.PathLike | None = None


def score_files(
    ann_file: str | os.PathLike,
    results_file: str | os.PathLike,
    scoring: Scoring,
    videos: VideoChoice,
    report: ReportPlace | None = None,
    compare: str | os.PathLike | None = None,
) -> None:
    """Prints the scores of a results file, and its differences to another, `compare`, if that is given.

    Raises:
        InputError: a file is missing or malformed, or the truth has no tracks.
    """
    truth, results, *others = read_files(ann_file, [results_file, *([compare] if compare else [])], videos)
    print_scores(truth, results, scoring, report)
    for other in others:
        print()
        print_differences(truth, results, other, scoring)


def read_files(
    ann_file: str | os.PathLike, results_files: Sequence[str | os.PathLike], videos: VideoChoice
) -> list[YTVOS]:
    """The truth and each of the results, restricted to the chosen videos; the files may have others."""
    whole = YTVOS(ann_file)
    video_ids = videos.of(list(whole.vids))
    return [restrict(tracks, video_ids) for tracks in (whole, *(load_pair(whole, path)[1] for path in results_files))]


def print_scores(truth: YTVOS, results: YTVOS, scoring: Scoring, report: ReportPlace | None = None) -> list[Metrics]:
    """Prints the table of AP and AR and a line of tracking metrics, and another of objects that return after a long
    absence if there are any; writes the report if its folder is given.

    Returns the printed metrics: those of masks, and with `scoring.boundary` those of tube boundaries.
    """
    threshold = scoring.track_score_threshold
    truth, results = scoring.view(truth, results)
    printed = [evaluate_results(truth, results)]
    print(format_table(printed[0]))
    tracking = evaluate_tracking(truth, results, threshold)
    numbers = ", ".join(f"{name} {_tracking_text(name, value)}" for name, value in tracking.overall().items())
    print(f"tracks with a score of at least {threshold:g} (--track_score_threshold): {numbers}")
    if returning := returning_objects(truth):
        alone = tracking.of_objects(returning).overall()
        numbers = ", ".join(f"{name} {_tracking_text(name, alone[name])}" for name in OF_RETURNING)
        print(f"{len(returning)} {RETURNING}: {numbers}")
    if scoring.boundary:
        printed.append(evaluate_results(truth, results, "boundary"))
        print(f"\n{BOUNDARY_TITLE}\n{format_table(printed[1])}")
    if report:
        from ytvis.report import (
            write_report,
        )  # imported here because it needs matplotlib and OpenCV, which take a second

        print(f"report: {write_report(truth, results, report.folder, report.images, score_threshold=threshold)}")
    return printed


def print_halves(halves: Sequence[tuple[YTVOS, YTVOS]], scoring: Scoring) -> None:
    """Prints the scores of the short and of the long videos, each (truth, results), and the means of both."""
    printed = []
    for name, (truth, results) in zip(("short", "long"), halves, strict=True):
        print(f"{name} videos: {results.source} against {truth.source}, {len(truth.vids)} videos")
        printed.append(print_scores(truth, results, scoring))
        print()
    for title, short, long in zip(("AP and AR", BOUNDARY_TITLE), *printed, strict=False):
        print(f"{title}\n{format_halves(short, long)}")


def print_differences(truth: YTVOS, results: YTVOS, others: YTVOS, scoring: Scoring) -> None:
    """Prints the differences of `results` to `others`, a line for each of `COMPARED`, and of `OF_RETURNING` if objects
    return."""
    truth, results, others = scoring.view(truth, results, others)
    differences = compare_results(truth, others, results, scoring.track_score_threshold)
    print(f"{results.source} against {others.source}:")
    for name in (*COMPARED, *(title for title in OF_RETURNING.values() if title in differences)):
        print(describe_difference(name, differences[name], len(truth.vids)))


def _tracking_text(name: str, value: float) -> str:
    """A rate in percent, "-" without objects; a count unchanged."""
    return f"{value:.0f}" if name not in RATES else "-" if value == -1 else f"{100 * value:.1f}"


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `Scoring` and `VideoChoice` to `parser`."""
    parser.add_argument(
        "--track_score_threshold",
        type=number_in(float),
        default=SCORE_THRESHOLD,
        metavar="SCORE",
        help="least score of the tracks in HOTA, IDF1 and switches; 0: all (default: %(default)s)",
    )
    parser.add_argument("--class_agnostic", action="store_true", help="merge all categories into one")
    add_choice_arguments(parser)


def scoring_of(options: argparse.Namespace) -> tuple[Scoring, VideoChoice]:
    """Returns the settings of the options of `add_scoring_arguments`."""
    videos = VideoChoice(options.split, options.video_ids, options.max_videos, options.write_video_ids)
    return Scoring(options.track_score_threshold, options.class_agnostic), videos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to `parser`."""
    parser.add_argument("ann_file", metavar="GT.json", help="annotation file with the true tracks")
    parser.add_argument("results", metavar="RESULTS.json", help="results file to score")
    parser.add_argument(
        "--report",
        metavar="DIR",
        help="write report.html, metrics.json and metrics.md with 95 %% intervals to this folder",
    )
    parser.add_argument("--images", metavar="DIR", help="with --report: folder of the frames, for its pictures")
    parser.add_argument(
        "--compare", metavar="OTHER.json", help="also print the differences to this results file, with 95 %% intervals"
    )
    parser.add_argument(
        "--long",
        nargs="+",
        metavar="FILE",
        help="YouTube-VIS 2022: GT_LONG.json, the annotation file of the long videos, and RESULTS_LONG.json, unless "
        "RESULTS.json holds the results of both; scores short and long videos apart, and their mean",
    )
    parser.add_argument(
        "--boundary", action="store_true", help="also tube-boundary AP, which asks for exact edges, as HQ-YTVIS does"
    )
    add_scoring_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Prints the scores; returns the exit code."""
    if options.images and not options.report:
        raise InputError("--images is for the pictures of a report: add --report=DIR, or leave --images out")
    scoring, videos = scoring_of(options)
    scoring = replace(scoring, boundary=options.boundary)
    if options.long:
        _refuse_with_long(options, videos)
        print_halves(read_halves(options.ann_file, options.results, *options.long), scoring)
        return 0
    report = ReportPlace(options.report, options.images) if options.report else None
    score_files(options.ann_file, options.results, scoring, videos, report, options.compare)
    return 0


def _refuse_with_long(options: argparse.Namespace, videos: VideoChoice) -> None:
    """Raises InputError for options that are ambiguous with two halves, and for more than two files."""
    if len(options.long) > 2:
        raise InputError("--long takes GT_LONG.json and optionally RESULTS_LONG.json, not a third file")
    if options.report or options.compare or videos != VideoChoice():
        raise InputError("--long scores all videos of both halves: leave out --report, --compare and choices of videos")
