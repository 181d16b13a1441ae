"""Writes a report of a results file: one page that needs neither server nor network, and files of its numbers.

    python -m ytvis report annotations/valid.json results.json OUT
    python -m ytvis report annotations/valid.json results.json OUT --images valid/JPEGImages

docs/report.md describes the page. `python -m ytvis score … --report OUT` also prints the scores.
"""

import argparse

from ytvis.command_line import seed_number
from ytvis.report import write_report
from ytvis.score.command import add_scoring_arguments, read_files, scoring_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to `parser`."""
    parser.add_argument("ann_file", metavar="GT.json", help="annotation file with the true tracks")
    parser.add_argument("results", metavar="RESULTS.json", help="results file to report on")
    parser.add_argument("folder", metavar="OUT", help="write report.html, metrics.json and metrics.md to this folder")
    parser.add_argument("--images", metavar="DIR", help="folder of the frames, for the pictures of the worst videos")
    parser.add_argument(
        "--seed",
        type=seed_number,
        default=0,
        metavar="N",
        help="seed of the bootstrap intervals (default: %(default)s)",
    )
    add_scoring_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Writes the report and prints the path of its page; returns the exit code."""
    scoring, videos = scoring_of(options)
    parts = scoring.view(*read_files(options.ann_file, [options.results], videos))
    print(write_report(*parts, options.folder, options.images, options.seed, scoring.track_score_threshold))
    return 0
