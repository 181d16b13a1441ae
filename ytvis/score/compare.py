"""Prints the differences of two results files in each score, with 95 % intervals over the videos.

    python -m ytvis compare annotations/valid.json new.json old.json

Differences are the first file minus the second: positive where the first is better.
"""

import argparse

from ytvis.score.command import add_scoring_arguments, print_differences, read_files, scoring_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to `parser`."""
    parser.add_argument("ann_file", metavar="GT.json", help="annotation file with the true tracks")
    parser.add_argument("results", metavar="RESULTS.json", help="first results file")
    parser.add_argument("other", metavar="OTHER.json", help="results file to compare it with")
    add_scoring_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Prints the differences; returns the exit code."""
    scoring, videos = scoring_of(options)
    print_differences(*read_files(options.ann_file, [options.results, options.other], videos), scoring)
    return 0
