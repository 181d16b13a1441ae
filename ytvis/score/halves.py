"""The two halves of YouTube-VIS 2022, short videos and long ones, which are scored apart; AP is the mean of both.

The challenge (https://youtube-vos.org/challenge/2022/) reports AP_S of the 421 short videos, those of 2021, AP_L of the
71 long ones, and their mean. Each half has its own annotation file. Each has its own results file, or
one file holds the results of both.
"""

import os

import numpy as np

from ytvis.files import InputError
from ytvis.score.ap import Metrics, format_rows
from ytvis.score.selection import restrict
from ytvis.score.ytvos import YTVOS, load_pair

Pair = tuple[YTVOS, YTVOS]


def read_halves(
    ann_file: str | os.PathLike,
    results_file: str | os.PathLike,
    long_ann_file: str | os.PathLike,
    long_results_file: str | os.PathLike | None = None,
) -> tuple[Pair, Pair]:
    """(truth, results) of the short videos, and of the long ones.

    Without `long_results_file`, `results_file` holds the results of both. The long videos are those of `long_ann_file`,
    the short ones all others of `ann_file`, which may hold all videos.

    Raises:
        InputError: a file is missing or malformed, no short video is left, or an id of a single results file belongs
            to two videos.
    """
    short, long = (YTVOS(path) for path in (ann_file, long_ann_file))
    for half in (short, long):
        load_pair(half, [])  # refuses a file without annotations
    shared = [video_id for video_id in short.vids if video_id in long.vids]
    same = {video_id for video_id in shared if _names(short.vids[video_id]) == _names(long.vids[video_id])}
    if len(same) == len(short.vids):
        raise InputError(f"{ann_file}: all its videos are in {long_ann_file} too, so that no short ones are left")
    if long_results_file is None:
        for video_id in shared:
            if video_id not in same:
                raise InputError(
                    f"video {video_id} of {ann_file} is not that of {long_ann_file}, so {results_file} cannot hold the "
                    "results of both; give those of the long videos apart: --long GT_LONG.json RESULTS_LONG.json"
                )
        found = [load_pair(_with_videos(short, long), results_file)[1]] * 2
    else:
        found = [load_pair(short, results_file)[1], load_pair(long, long_results_file)[1]]
    short = restrict(short, [video_id for video_id in short.vids if video_id not in same])
    halves = zip((short, long), found, strict=True)
    return tuple((truth, restrict(results, list(truth.vids))) for truth, results in halves)


def _names(video: dict) -> tuple:
    """The identity of a video in two files: the names of its frames and its size."""
    return tuple(video.get(key) for key in ("file_names", "height", "width", "length"))


def _with_videos(first: YTVOS, second: YTVOS) -> YTVOS:
    """The videos of both, without tracks; messages name both."""
    both = first.with_tracks([], f"{first.source} or {second.source}")
    both.dataset["videos"] = list((first.vids | second.vids).values())
    both.createIndex()
    return both


def mean_of_halves(short: Metrics, long: Metrics) -> np.ndarray:
    """The mean of each of `STAT_NAMES` of both, [12]; -1 if a half has nothing to measure."""
    both = np.stack([short.stats, long.stats])
    return np.where((both > -1).all(axis=0), both.mean(axis=0), -1.0)


def format_halves(short: Metrics, long: Metrics) -> str:
    """A table of both halves and their mean, and a line with AP_S, AP_L and their mean, in percent."""
    rows = [("short", short.stats), ("long", long.stats), ("mean", mean_of_halves(short, long))]
    names = zip(("AP_S", "AP_L", "mean"), (stats[0] for _, stats in rows), strict=True)
    line = ", ".join(f"{name} {'-' if value < 0 else f'{100 * value:.1f}'}" for name, value in names)
    return f"{format_rows('videos', rows)}\n{line}"
