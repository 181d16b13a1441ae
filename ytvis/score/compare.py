"""Says by how much one results file is better than another, with 95 % intervals over the videos.

    python -m ytvis compare annotations/valid.json new.json old.json

A difference is that of the first file minus the second: positive where the first is better.
"""

import argparse

from ytvis.score.command import add_scoring_arguments, print_differences, read_files, scoring_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Gives `parser` the command's arguments."""
    parser.add_argument("ann_file", metavar="GT.json", help="annotation file with the true tracks")
    parser.add_argument("results", metavar="RESULTS.json", help="results file that may be better")
    parser.add_argument("other", metavar="OTHER.json", help="results file it is compared with")
    add_scoring_arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Prints the differences; returns the exit code."""
    scoring, videos = scoring_of(options)
    print_differences(*read_files(options.ann_file, [options.results, options.other], videos), scoring)
    return 0
