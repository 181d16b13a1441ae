"""Times the evaluator against the official one; measures start-up, and the memory for large results files.

    python -m tools.evaluator_speed                        # times on the large generated case, with and without kernels
    python -m tools.evaluator_speed --megabytes 200 1000   # peak memory of `ytvis` on results files of these sizes
    python -m tools.evaluator_speed --start GT.json RESULTS.json          # start-up and whole of `ytvis score`

The official times were recorded on another machine (tests/fixtures/evaluator/README.md, section 11), so the same work
is timed on both: reading the two JSON files, and comparing all pairs of tracks by pycocotools' merging, as the official
evaluator does. The ratio scales the official times to this machine. All times are CPU seconds unless stated otherwise,
the minimum over several fresh processes that alternate, so that other work on the machine matters little.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pycocotools import mask as mask_ops

from ytvis.command_line import Parser
from ytvis.files import atomic_write

FIXTURES = Path(__file__).parent.parent / "tests" / "fixtures" / "evaluator"
RECORDED = {"json": 0.81 + 0.37, "tubes": 2.69, "scoring": 3.40 + 0.19, "everything": 5.7}  # seconds, section 11
ASKED = {"scoring": 1 / 4, "everything": 1 / 2}  # of the official time
TITLES = {"scoring": "evaluate + accumulate", "everything": "all, reading included"}
BACKENDS = {"native": "native kernels", "python": "pycocotools and numpy"}


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="fresh processes for each time (default: %(default)s)")
    parser.add_argument(
        "--megabytes", type=int, nargs="+", default=[], help="measure the memory for results files of these sizes"
    )
    parser.add_argument("--folder", type=Path, help="folder for the generated files (default: a temporary folder)")
    parser.add_argument(
        "--start", nargs=2, metavar=("GT.json", "RESULTS.json"), help="measure `ytvis score` of these files"
    )
    parser.add_argument("--child", choices=("calibration", *BACKENDS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.start:
        print(start_table(options.start, options.runs))
        return 0
    if options.child:
        print(json.dumps(calibrate(options.folder) if options.child == "calibration" else score(options)))
        return 0
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        draw_case(folder)
        print(memory_table(folder, options.megabytes) if options.megabytes else time_table(folder, options.runs))
    return 0


def draw_case(folder: Path) -> None:
    """Writes gt.json and pred.json of the large case, unless they exist; raises if they are not the recorded ones."""
    if not (folder / "pred.json").exists():
        maker = [sys.executable, str(FIXTURES / "make_cases.py"), "large", str(folder)]
        subprocess.run(maker, check=True, stdout=subprocess.DEVNULL)
    for name, expected in golden_case()["sha256"].items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
            raise SystemExit(f"{folder / name} is not the file of the official times")


def golden_case() -> dict:
    """The recorded numbers of the large case."""
    return json.loads((FIXTURES / "large_golden.json").read_text("utf-8"))["cases"]["large"]


def child(name: str, folder: Path, *arguments: str) -> dict:
    """The JSON printed by a fresh process after the work of `name`."""
    line = [sys.executable, "-m", "tools.evaluator_speed", "--child", name, "--folder", str(folder), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


# ------------------------------------------------------------------------------------------------------------- time


def timed(work: Callable) -> tuple[object, float]:
    """The result of `work` and its CPU seconds."""
    begin = time.process_time()
    return work(), time.process_time() - begin


def calibrate(folder: Path) -> dict[str, float]:
    """CPU seconds of the work that takes most of the official evaluator's time, done in its way."""
    texts = [folder / "gt.json", folder / "pred.json"]
    (truth, predictions), json_time = timed(lambda: [json.loads(path.read_text("utf-8")) for path in texts])
    truths = defaultdict(list)
    for track in truth["annotations"]:
        masks = [None if m is None else mask_ops.frPyObjects(m, *m["size"]) for m in track["segmentations"]]
        truths[track["video_id"], track["category_id"]].append(masks)

    def compare_all() -> None:
        for track in predictions:
            for masks in truths[track["video_id"], track["category_id"]]:
                tube_iou_by_merging(track["segmentations"], masks)

    return {"json": json_time, "tubes": timed(compare_all)[1]}


def tube_iou_by_merging(firsts: list[dict | None], seconds: list[dict | None]) -> float:
    """IoU of two tracks from the drawn intersection and union of every frame."""
    intersection = union = 0.0
    for first, second in zip(firsts, seconds, strict=True):
        if first and second:
            intersection += float(mask_ops.area(mask_ops.merge([first, second], intersect=True)))
            union += float(mask_ops.area(mask_ops.merge([first, second], intersect=False)))
        elif first or second:
            union += float(mask_ops.area(first or second))
    return intersection / union if union else 0.0


def score(options: argparse.Namespace) -> dict:
    """CPU seconds and results of the evaluator on the large case."""
    if options.child == "python":
        sys.modules["ytvis._mask_kernels"] = None  # as if not compiled
    from ytvis.score import ap as ytvis_eval

    if (ytvis_eval._mask_kernels is not None) != (options.child == "native"):
        raise SystemExit("the native kernels are not built: python setup.py build_ext --inplace")
    truth, reading = timed(lambda: ytvis_eval.YTVOS(options.folder / "gt.json"))
    predictions, loading = timed(lambda: truth.loadRes(options.folder / "pred.json", boxes=False))
    evaluation = ytvis_eval.YTVOSeval(truth, predictions)
    scoring = timed(evaluation.evaluate)[1] + timed(evaluation.accumulate)[1]
    with contextlib.redirect_stdout(io.StringIO()):
        summing = timed(evaluation.summarize)[1]
    arrays = b"".join(evaluation.eval[name].tobytes() for name in ("precision", "recall", "scores"))
    return {
        "scoring": scoring,
        "everything": reading + loading + scoring + summing,
        "stats": evaluation.stats.tolist(),
        "bits": hashlib.sha256(arrays).hexdigest(),
    }


def time_table(folder: Path, runs: int) -> str:
    """The Markdown table of times; raises AssertionError if a score differs from the recorded one."""
    names = ("calibration", *BACKENDS)
    rounds = [{name: child(name, folder) for name in names} for _ in range(runs)]  # alternating

    def fastest(name: str, key: str) -> float:
        return min(measured[name][key] for measured in rounds)

    scores = [measured[name] for measured in rounds for name in BACKENDS]
    assert len({s["bits"] for s in scores}) == 1, "the results with and without kernels differ"
    difference = max(abs(a - b) for a, b in zip(scores[0]["stats"], golden_case()["stats"].values(), strict=True))
    assert difference <= 1e-12, f"the scores differ from the recorded ones: {difference}"

    work = {name: fastest("calibration", name) for name in ("json", "tubes")}
    scales = {
        "scoring": work["tubes"] / RECORDED["tubes"],
        "everything": sum(work.values()) / (RECORDED["json"] + RECORDED["tubes"]),
    }
    lines = [
        f"calibration: JSON {work['json']:.2f} s (recorded {RECORDED['json']:.2f}), merging {work['tubes']:.2f} s "
        f"(recorded {RECORDED['tubes']:.2f}); largest difference to the recorded scores {difference:.1e}",
        "",
        "| | official, scaled | goal | " + " | ".join(BACKENDS.values()) + " |",
        "|---|---|---|" + "---|" * len(BACKENDS),
    ]
    for key, title in TITLES.items():
        official = RECORDED[key] * scales[key]
        ours = [fastest(name, key) for name in BACKENDS]
        cells = [f"{official:.2f} s", f"{official * ASKED[key]:.2f} s"]
        cells += [f"{seconds:.3f} s (1/{official / seconds:.1f})" for seconds in ours]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


# ----------------------------------------------------------------------------------------------------------- memory


def write_large_results(source: Path, path: Path, size: int) -> None:
    """Writes a results file of about `size` bytes: every object repeatedly, as other classes with lower scores.

    Methods that report several classes for every query write such files.
    """
    predictions = json.loads(source.read_text("utf-8"))
    text_size = source.stat().st_size
    with atomic_write(path) as file:
        for copy in range(max(1, round(size / text_size))):
            for number, track in enumerate(predictions):
                category = 1 + (track["category_id"] - 1 + copy) % 40
                entry = {**track, "category_id": category, "score": track["score"] / (1 + copy)}
                file.write(("," if copy or number else "[") + json.dumps(entry, separators=(",", ":")))
        file.write("]")


class Run(NamedTuple):
    """A finished process: its exit code, wall and CPU seconds, peak bytes of memory."""

    code: int
    wall: float
    cpu: float
    peak: int


# A small process between, because a process forked from a large one starts with its peak memory.
LAUNCHER = """
import json, os, subprocess, sys, time
begin = time.perf_counter()
process = subprocess.Popen([sys.executable, "-m", "ytvis", *sys.argv[1:]], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
wall, cpu = time.perf_counter() - begin, usage.ru_utime + usage.ru_stime
print(json.dumps([os.waitstatus_to_exitcode(status), wall, cpu, usage.ru_maxrss * 1024]))
"""


def run_ytvis(*arguments: str | os.PathLike) -> Run:
    """Runs `python -m ytvis` with these arguments and discards its output."""
    line = [sys.executable, "-c", LAUNCHER, *map(str, arguments)]
    return Run(*json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout))


def start_table(files: list[str], runs: int) -> str:
    """The Markdown table of time and memory to start `ytvis score`, and to score these files."""
    lines = ["| | wall time | CPU time | peak memory |", "|---|---|---|---|"]
    commands = {"`score --help`": ["score", "--help"], "`score GT.json RESULTS.json`": ["score", *files]}
    done = [{title: run_ytvis(*command) for title, command in commands.items()} for _ in range(runs)]
    for title in commands:
        wall, cpu, peak = (min(getattr(one[title], name) for one in done) for name in ("wall", "cpu", "peak"))
        lines.append(f"| {title} | {wall:.2f} s | {cpu:.2f} s | {peak / 1e6:.0f} MB |")
    return "\n".join(lines)


def memory_table(folder: Path, sizes: list[int]) -> str:
    """The Markdown table of peak memory; removes the large files."""
    lines = ["| file | command | exit code | peak memory | above start-up | CPU time |", "|---|---|---|---|---|---|"]
    for megabytes in sizes:
        path = folder / f"results_{megabytes}.json"
        try:
            write_large_results(folder / "pred.json", path, megabytes * 10**6)
            size = path.stat().st_size
            truth = folder / "gt.json"
            for command in (["score", truth, path], ["check", path, "--ann_file", truth]):
                done, base = run_ytvis(*command), run_ytvis(command[0], "--help")
                grown = done.peak - base.peak
                lines.append(
                    f"| {size / 1e6:.0f} MB | `{command[0]}` | {done.code} | {done.peak / 1e6:.0f} MB "
                    f"| {grown / 1e6:.0f} MB ({grown / size:.2f}x the file) | {done.cpu:.0f} s |"
                )
        finally:
            path.unlink(missing_ok=True)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
