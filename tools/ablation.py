"""Measures what parts of the method, and keys beyond the paper, add under one small budget.

    python -m tools.recipe recipes/demo.toml --stage crops    # trains the weights that the runs start from, ...
    python -m tools.recipe recipes/demo.toml --stage small    # ... in two stages
    python -m tools.ablation --start results/train_demo/small/latest --training_set data/ShapesVIS_3000
    python -m tools.ablation --table                          # prints the finished runs

Every run calls `train.py` and `eval.py` with one thread on small frames. The runs of a group start from the same
weights and, with the same seed, see the same clips; all are scored on a hundred drawn videos of their own. Finished
runs are skipped and interrupted ones resume, so the same command continues. A row is compared with another one; the
differences of AP and HOTA are between means over seeds, with 95 % intervals over the videos, which are drawn alike for
both rows. Run it in the repository's root. Exit codes: 0 done, 1 a run failed or was interrupted, 2 bad input.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean, median
from typing import Any, Self

import numpy as np

from data import synthetic
from data.config import MODELS, WEIGHT_NAMES, get_config
from stmask import STMask
from tools.recipe import ROOT, DrawnSet, Recipe, Stage, Stopped
from utils.checkpoint import compare as compare_weights
from utils.checkpoint import find_checkpoint, fingerprint, load_state_dict, save_state_dict
from utils.device import pick_device
from utils.logging import setup_logging
from utils.precision import PRECISIONS, check_precision
from utils.stop_signal import StopSignal
from utils.training_log import read_log
from ytvis.command_line import Parser, positive, run_command, seed_number
from ytvis.convert import coco, youtube_vis
from ytvis.files import InputError, atomic_write, make_folder, read_json, read_text
from ytvis.score.bootstrap import Interval, MeanStatistics, ResultStatistics, compare
from ytvis.score.ytvos import YTVOS

logger = logging.getLogger("ablation")

CONFIG = "STMask_demo_config"
LOG_NAME = "STMask_demo_log.jsonl"
SCORES = ("AP", "AP50", "AR10", "HOTA", "AssA")
COMPARED = ("AP", "HOTA")
TEST_VIDEOS, TEST_SEED = 100, 7
IMAGE_VIDEOS, IMAGE_SEED = 200, 8  # the frames of as many other videos are the static images
IMAGE_WEIGHT = 0.5

# The demo's tracker and scores of tracks are tuned for its shipped network; these are the published ones.
COMMON = {
    "input.size_hw": (128, 224),
    "train.warmup_iterations": 100,
    "tracking.match_coeff": (0, 1, 2, 0),
    "tracking.new_object_similarity": 0.5,
    "tracking.new_object_iou": 0.3,
    "tracking.max_hidden_age": 10,
    "postprocess.length_power": 0,
}
DEMO_TRACKER = {key: MODELS[CONFIG][key] for key in COMMON if key.startswith(("tracking.", "postprocess."))}


# --------------------------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class Row:
    """A row of a table: `keys` are its config keys beside `COMMON`, `against` is the row that it is compared with.

    With `weights_of`, only the evaluation uses the keys: the weights are those of that row. With `images`, static
    images are a second training set.
    """

    title: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    against: str = ""
    weights_of: str = ""
    images: bool = False


@dataclass(frozen=True)
class Group:
    """Rows with the same start: the weights of --start without parameters whose names begin with one of `fresh`."""

    rows: Mapping[str, Row]
    fresh: tuple[str, ...] = ()


NO_FUSION = {"temporal_fusion.enabled": False}
CONTRASTIVE = {"train.contrastive": True}
GROUPS = {
    "method": Group(
        {
            "square_kernels": Row(
                "square kernels", {"head.square_kernels": True, "head.calibration": "none", **NO_FUSION}
            ),
            "fca": Row("FCA", {"head.calibration": "none", **NO_FUSION}, against="square_kernels"),
            "fcb_ali": Row("FCA + FCB ali", {"head.calibration": "ali", **NO_FUSION}, against="fca"),
            "fcb_ada": Row("FCA + FCB ada", {"head.calibration": "ada", **NO_FUSION}, against="fca"),
            "fusion": Row("FCA + FCB ada + TF (the demo)", against="fcb_ada"),
            "centerness_order": Row(
                "`centerness_kernel_major` on", {"quirks.centerness_kernel_major": True}, against="fusion"
            ),
            "ohem_order": Row(
                "`ohem_weights_by_position` on", {"quirks.ohem_weights_by_position": True}, against="fusion"
            ),
        },
        fresh=("prediction_layers.", "TemporalNet."),  # the compared parts
    ),
    "keys": Group(
        {
            "baseline": Row("the demo's config"),
            "contrastive": Row("`train.contrastive`", CONTRASTIVE, against="baseline"),
            "scales": Row(
                "`train.scales`, 96×160, 128×224, 160×288",
                {"train.scales": ((96, 160), (128, 224), (160, 288))},
                against="baseline",
            ),
            "ema": Row("`train.ema_decay=0.998`", {"train.ema_decay": 0.998}, against="baseline"),
            "images": Row(f"`--train_dataset`, static images:{IMAGE_WEIGHT:g}", against="baseline", images=True),
            "clip_frames": Row(
                "`train.contrastive`, `train.clip_frames=3`",
                {**CONTRASTIVE, "train.clip_frames": 3},
                against="contrastive",
            ),
            "joint": Row("`tracking.joint`", {"tracking.joint": True}, against="baseline", weights_of="baseline"),
            "demo_tracker": Row("the demo's tracker", DEMO_TRACKER, against="baseline", weights_of="baseline"),
            "contrastive_demo_tracker": Row(
                "`train.contrastive`, the demo's tracker",
                DEMO_TRACKER,
                against="demo_tracker",
                weights_of="contrastive",
            ),
            "memory": Row(
                "the same with `tracking.memory=4`",
                {**DEMO_TRACKER, "tracking.memory": 4},
                against="contrastive_demo_tracker",
                weights_of="contrastive",
            ),
            "crop": Row("`train.crop`", {"train.crop": True}, against="baseline"),
            "zoom_out": Row("`train.zoom_out`", {"train.zoom_out": True}, against="baseline"),
            "photometric": Row("`train.photometric`", {"train.photometric": True}, against="baseline"),
        }
    ),
}
ROWS = {name: row for group in GROUPS.values() for name, row in group.rows.items()}


def choose_rows(names: Iterable[str]) -> list[str]:
    """These rows and all that they are compared with or take their weights from, in the order of the tables."""
    chosen, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name not in chosen:
            chosen.add(name)
            waiting += filter(None, (ROWS[name].against, ROWS[name].weights_of))
    return [name for name in ROWS if name in chosen]


def group_of(name: str) -> str:
    """The name of a row's group."""
    return next(group for group, content in GROUPS.items() if name in content.rows)


# --------------------------------------------------------------------------------------------------------------- runs


@dataclass(frozen=True)
class Budget:
    """What all runs of a folder share; `start` and the data sets are digests of files."""

    start: str
    training_set: str
    test_set: str
    max_iter: int
    batch_size: int
    precision: str
    device: str


@dataclass(frozen=True)
class Run:
    """The row `name` with one seed; it writes to its own folder in `output`."""

    output: Path
    name: str
    seed: int

    @property
    def row(self) -> Row:
        """What is measured."""
        return ROWS[self.name]

    @property
    def folder(self) -> Path:
        """The folder of the run's files."""
        return self.output / f"{self.name}_{self.seed}"

    @property
    def results(self) -> Path:
        """The results file; the run is finished when it exists."""
        return self.folder / "results.json"

    @property
    def trained(self) -> Self:
        """The run whose weights are evaluated."""
        return type(self)(self.output, self.row.weights_of or self.name, self.seed)

    @property
    def log_path(self) -> Path:
        """The output of the commands of the run."""
        return self.folder / "run.log"

    @property
    def record_path(self) -> Path:
        """The file with the options of the run."""
        return self.folder / "run.json"

    def record(self, budget: Budget) -> dict[str, Any]:
        """The options that the files of the run depend on, as they are read from JSON."""
        images = {"videos": IMAGE_VIDEOS, "seed": IMAGE_SEED, "weight": IMAGE_WEIGHT} if self.row.images else None
        own = {"weights_of": self.row.weights_of, "images": images}
        return json.loads(json.dumps({**asdict(budget), **COMMON, **self.row.keys, **own}))

    def read_record(self) -> dict[str, Any]:
        """The `record` that it was made with.

        Raises:
            InputError: there is none.
        """
        record = read_json(self.record_path)
        if not isinstance(record, dict):
            raise InputError(f"{self.record_path}: holds no options of a run; delete the folder to run it again")
        return record

    def read_budget(self) -> Budget:
        """The budget that it was made with."""
        record = self.read_record()
        return Budget(**{f.name: record.get(f.name) for f in fields(Budget)})

    def check(self, budget: Budget) -> None:
        """Raises InputError if its folder has the files of a run with other options, or with unknown ones."""
        if not self.record_path.exists() and not self.results.exists():
            return
        found, expected = self.read_record(), self.record(budget)
        for name in {**found, **expected}:
            if found.get(name) != expected.get(name):
                raise InputError(
                    f"{self.record_path}: {name} was {found.get(name)} and is {expected.get(name)} now; choose another "
                    "--output, or delete the folder to run it again"
                )

    def step_seconds(self) -> float | None:
        """The median time of a training step, None if the log does not tell it; on a CPU it is CPU time, on which other
        processes have little effect."""
        name = "cpu_seconds" if self.read_budget().device == "cpu" else "seconds"
        times = [line[name] for line in read_log(self.folder / LOG_NAME) if name in line]
        return median(times) if times else None


@dataclass(frozen=True)
class Study:
    """Runs with the same budget: where their files are, and the commands that write them."""

    output: Path
    training_set: DrawnSet
    test_set: DrawnSet
    budget: Budget

    @property
    def images(self) -> DrawnSet:
        """The videos whose frames are the static images."""
        return DrawnSet(str(self.output / "images"), IMAGE_VIDEOS, 0, IMAGE_SEED)

    @property
    def image_file(self) -> Path:
        """The annotation file of the static images."""
        return Path(self.images.root) / "annotations" / "images.json"

    def start(self, group: str) -> Path:
        """The weights that the runs of a group start from."""
        return self.output / f"start_{group}.pth"

    def stage(self, run: Run) -> tuple[Recipe, Stage]:
        """The training of a run, as a stage of a recipe."""
        shared = {name: getattr(self.budget, name) for name in ("batch_size", "precision", "device")}
        options = {"config": CONFIG, **shared, "num_workers": 0, "save_interval": 100, "keep_latest": True}
        recipe = Recipe(self.output, options, {"train": self.training_set}, "", ())
        own: dict[str, Any] = {"seed": run.seed}
        if run.row.images:
            first = f"{self.training_set.annotations('train')}@{self.training_set.root}/train/JPEGImages"
            own["train_dataset"] = f"{first},{self.image_file}@{self.images.root}/train/JPEGImages:{IMAGE_WEIGHT}"
        keys = {**COMMON, **run.row.keys, "train.pretrained": self.start(group_of(run.name))}
        return recipe, Stage(run.folder.name, run.row.title, "train", self.budget.max_iter, train=own, set=keys)

    def evaluation(self, run: Run) -> list[str]:
        """The command that writes the results of a run."""
        keys = run.row.keys if run.row.weights_of else {}  # others are in the checkpoint
        return [
            *(sys.executable, str(ROOT / "eval.py"), f"--device={self.budget.device}", "--num_workers=0"),
            "--eval_batch_size=4",
            *(f"--set={key}={value}" for key, value in keys.items()),
            *self.test_set.arguments("valid"),
            *(f"--trained_model={run.trained.folder}/latest", f"--mask_det_file={run.results}", "--resume"),
        ]

    def commands(self, run: Run) -> Iterator[list[str]]:
        """Yields the commands that the run still needs, each after the one before it has ended.

        Raises:
            Stopped: the last command did not finish its work.
        """
        if run.results.exists():
            return
        with atomic_write(run.record_path) as file:
            json.dump(run.record(self.budget), file, indent=1)
        if not run.row.weights_of:
            recipe, stage = self.stage(run)
            if not recipe.is_done(stage):
                yield recipe.command(stage, resume=recipe.iterations_done(stage) > 0)
            if not recipe.is_done(stage):
                raise Stopped(f"{run.folder} stopped at iteration {recipe.iterations_done(stage)}")
        yield self.evaluation(run)


class Progress:
    """Logs each finished run and the time left, which is estimated from the runs that ended before."""

    def __init__(self, runs: Sequence[Run], jobs: int):
        self._waiting, self._total, self._jobs = list(runs), len(runs), jobs
        self._seconds: dict[bool, list[float]] = {True: [], False: []}  # with and without training

    def done(self, run: Run, seconds: float) -> None:
        """Counts a run that took so long."""
        self._waiting.remove(run)
        self._seconds[not run.row.weights_of].append(seconds)
        known = self._seconds[True] + self._seconds[False]
        left = sum(fmean(self._seconds[not other.row.weights_of] or known) for other in self._waiting) / self._jobs
        number = self._total - len(self._waiting)
        logger.info(
            "%s, seed %d: done in %.1f minutes; %d of %d runs, about %.0f minutes left",
            *(run.name, run.seed, seconds / 60, number, self._total, left / 60),
        )


def run_all(study: Study, runs: Sequence[Run], jobs: int) -> None:
    """Runs those that are not finished, `jobs` at a time; one that takes another's weights follows it.

    Raises:
        InputError: a command refused its input.
        Stopped: a command failed, or this one was interrupted; those that are running are stopped, and continue later.
    """
    todo = [run for run in runs if not run.results.exists()]
    logger.info("%d of %d runs are finished", len(runs) - len(todo), len(runs))
    progress = Progress(todo, jobs)
    chains: dict[Run, list[Run]] = {}
    for run in todo:
        chains.setdefault(run.trained, []).append(run)
    waiting = deque(_work(study, chain, progress) for chain in chains.values())
    running: dict[subprocess.Popen, tuple[Iterator, Run]] = {}
    with StopSignal() as stop:
        try:
            while waiting or running:
                if stop.requested:
                    raise Stopped(f"stopped by {stop.requested}")
                for process in [process for process in running if process.poll() is not None]:
                    work, run = running.pop(process)
                    _check_exit(process, run)
                    waiting.appendleft(work)  # its next command comes before other runs
                while waiting and len(running) < jobs:
                    work = waiting.popleft()
                    for run, command in islice(work, 1):
                        running[_start(command, run)] = work, run
                time.sleep(0.1)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


def _work(study: Study, chain: Sequence[Run], progress: Progress) -> Iterator[tuple[Run, list[str]]]:
    """Yields the commands of the runs, one after another."""
    for run in chain:
        begin = time.monotonic()
        for command in study.commands(run):
            yield run, command
        progress.done(run, time.monotonic() - begin)


def _start(command: Sequence[str], run: Run) -> subprocess.Popen:
    """Starts a command of a run with one thread; its output is added to the log of the run."""
    environment = {"PYTHONPATH": str(ROOT), **os.environ, "OMP_NUM_THREADS": "1"}
    with open(run.log_path, "a", encoding="utf-8") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def _check_exit(process: subprocess.Popen, run: Run) -> None:
    """Raises InputError or Stopped if a command of a run has failed."""
    if process.returncode == 2:
        raise InputError(f"{run.log_path}: {(read_text(run.log_path).splitlines() or [''])[-1]}")
    if process.returncode:
        raise Stopped(f"a command failed with exit code {process.returncode}; see {run.log_path}")


# -------------------------------------------------------------------------------------------------------------- table


@dataclass(frozen=True)
class Line:
    """A row's means over `seeds`; scores are 0…1.

    `differences` to the row `against`, each with `each_seed`, are those of the seeds that both have; without any both
    are empty. `step_seconds` is the time of a training step, None without training or without times in the logs.
    """

    row: str
    group: str
    against: str
    seeds: list[int]
    scores: dict[str, float]
    differences: dict[str, Interval]
    each_seed: dict[str, list[float]]
    step_seconds: float | None


def measure(output: Path, names: Iterable[str], seeds: Sequence[int], test_set: DrawnSet) -> list[Line]:
    """The lines of the rows `names` that have finished runs.

    Raises:
        InputError: the runs had different budgets, or were scored on another set.
    """
    runs = {name: [run for seed in seeds if (run := Run(output, name, seed)).results.exists()] for name in names}
    finished = [run for name in names for run in runs[name]]
    if not finished:
        return []
    budget = finished[0].read_budget()
    for run in finished:
        run.check(budget)
    truth = YTVOS(test_set.annotations("valid"))
    if fingerprint(test_set.annotations("valid")) != budget.test_set:
        raise InputError(f"{test_set.root}: the runs were scored on another set; name it with --test_set")
    scores = {run: ResultStatistics.of(truth, run.results) for run in finished}
    return [measure_row(name, runs, scores) for name in names if runs[name]]


def measure_row(name: str, runs: Mapping[str, Sequence[Run]], scores: Mapping[Run, ResultStatistics]) -> Line:
    """The line of a row with finished runs, from the scores of all runs."""
    own, against = runs[name], ROWS[name].against
    everything = np.ones((1, len(scores[own[0]].video_ids)), np.int64)
    values = {run: scores[run].statistics(everything) for run in [*own, *runs.get(against, ())]}
    means = {score: fmean(float(values[run][score][0]) for run in own) for score in SCORES}
    others = {run.seed: run for run in runs.get(against, ())}
    pairs = [(others[run.seed], run) for run in own if run.seed in others]
    differences, each_seed = {}, {}
    if pairs:
        found = compare(*(MeanStatistics([scores[run] for run in side]) for side in zip(*pairs, strict=True)))
        differences = {score: found[score] for score in COMPARED}
        each_seed = {
            score: [float(values[new][score][0] - values[old][score][0]) for old, new in pairs] for score in COMPARED
        }
    times = [] if ROWS[name].weights_of else [run.step_seconds() for run in own]
    seconds = None if not times or None in times else fmean(times)
    return Line(name, group_of(name), against, [run.seed for run in own], means, differences, each_seed, seconds)


def as_markdown(lines: Sequence[Line]) -> str:
    """A table for each group, with percentages; differences whose interval excludes zero are bold."""
    steps = {line.row: line.step_seconds for line in lines}
    heads = ("", "against", "seeds", *SCORES, *(f"{name} gained" for name in COMPARED), "s a step")
    tables = []
    for group in dict.fromkeys(line.group for line in lines):
        rows = [heads, ("---",) * len(heads)]
        for line in (line for line in lines if line.group == group):
            against = ROWS[line.against].title if line.against else "–"
            rows.append(
                (
                    *(ROWS[line.row].title, against, str(len(line.seeds))),
                    *(f"{100 * line.scores[name]:.1f}" for name in SCORES),
                    *(_difference_cell(line, name) for name in COMPARED),
                    _step_cell(line.step_seconds, steps.get(line.against)),
                )
            )
        tables.append("\n".join(f"| {' | '.join(cells)} |" for cells in rows))
    return "\n\n".join(tables)


def _difference_cell(line: Line, score: str) -> str:
    """A difference with its interval, and that of each seed."""
    if score not in line.differences:
        return "–"
    interval = line.differences[score]
    bold = "**" if interval.excludes_zero else ""
    each = ", ".join(f"{100 * value:+.1f}" for value in line.each_seed[score])
    value, low, high = (f"{100 * number:+.1f}" for number in (interval.value, interval.low, interval.high))
    return f"{bold}{value}{bold} ({low} to {high}; {each})"


def _step_cell(seconds: float | None, other: float | None) -> str:
    """The time of a step, and how much it is more than that of the other row."""
    if seconds is None:
        return "–"
    return f"{seconds:.3f}" + (f" ({100 * (seconds / other - 1):+.0f} %)" if other else "")


# ------------------------------------------------------------------------------------------------------- command line


def make_parser() -> Parser:
    """The options of the command line."""
    parser = Parser("python -m tools.ablation", __doc__)
    parser.add_argument("--output", type=Path, default=Path("results/ablation"), help="folder of the runs")
    parser.add_argument("--start", metavar="FILE", help="checkpoint that the runs start from, or FOLDER/latest")
    parser.add_argument(
        "--training_set",
        type=Path,
        default=Path(MODELS[CONFIG]["dataset.root"]),
        metavar="DIR",
        help="drawn set to train on (default: %(default)s)",
    )
    parser.add_argument(
        "--test_set",
        type=Path,
        default=Path(f"data/ShapesVIS_test{TEST_SEED}"),
        metavar="DIR",
        help=f"drawn set to score on (default: %(default)s; if it is missing, {TEST_VIDEOS} videos are drawn there)",
    )
    parser.add_argument("--group", choices=GROUPS, nargs="+", default=[], help="groups of rows (default: all)")
    parser.add_argument("--rows", choices=ROWS, nargs="+", default=[], metavar="NAME", help=", ".join(ROWS))
    parser.add_argument("--max_iter", type=positive, default=350, help="iterations of a run (default: %(default)s)")
    parser.add_argument("--batch_size", type=positive, default=2, help="clips a step (default: %(default)s)")
    parser.add_argument("--seeds", type=seed_number, nargs="+", default=[0, 1], help="one run for each (default: 0 1)")
    parser.add_argument("--jobs", type=positive, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the training (default: fp32)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, … (default: the GPU if there is one)")
    parser.add_argument("--table", action="store_true", help="only print the table of the finished runs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = make_parser().parse_args(arguments)
    setup_logging()
    try:
        return run_command("ablation", partial(run, options))
    except Stopped as error:
        print(f"ablation: {error}; run the same command to continue", file=sys.stderr)
        return 1


def run(options: argparse.Namespace) -> None:
    """Makes the runs of the chosen rows, unless only their table is asked for, and prints the table.

    Raises:
        InputError: something given cannot be used.
        Stopped: see `run_all`.
    """
    in_groups = [name for group in options.group or (() if options.rows else GROUPS) for name in GROUPS[group].rows]
    names = choose_rows([*in_groups, *options.rows])
    test_set = DrawnSet(str(options.test_set), 0, TEST_VIDEOS, TEST_SEED)
    if not options.table:
        runs = [Run(options.output, name, seed) for name in names for seed in options.seeds]
        run_all(prepare(options, test_set, runs), runs, options.jobs)
    lines = measure(options.output, names, options.seeds, test_set)
    if not lines:
        raise InputError(f"{options.output}: no finished runs of these rows there")
    print(json.dumps([asdict(line) for line in lines], indent=1) if options.json else as_markdown(lines))


def prepare(options: argparse.Namespace, test_set: DrawnSet, runs: Sequence[Run]) -> Study:
    """Checks the options, and writes the files that the runs read.

    Raises:
        InputError: something given cannot be used, or a run was made with other options.
    """
    if not options.start:
        raise InputError("pass --start=FILE, a checkpoint of the demo's network")
    device = pick_device(options.device)
    check_precision(options.precision, device)
    start = find_checkpoint(options.start, WEIGHT_NAMES, CONFIG)
    state = load_state_dict(start)
    mismatch = compare_weights(state, STMask.from_config(get_config(CONFIG)).state_dict())
    if mismatch:
        raise InputError(f"{start}: does not fit {CONFIG}: {mismatch}; pass a checkpoint of the demo's network")
    training_set = DrawnSet(str(options.training_set), 0, 0)
    if not Path(training_set.annotations("train")).is_file():
        raise InputError(
            f"{options.training_set}: no drawn set there; draw one with "
            f"python -m data.synthetic --root {options.training_set}"
        )
    if not options.test_set.exists():
        synthetic.generate(**vars(test_set), progress=True)
    digests = [fingerprint(path) for path in (start, training_set.annotations("train"), test_set.annotations("valid"))]
    budget = Budget(*digests, options.max_iter, options.batch_size, options.precision, str(device))
    for each in runs:
        each.check(budget)
    study = Study(options.output, training_set, test_set, budget)
    make_folder(study.output)
    for group in {group_of(each.name) for each in runs}:
        kept = {name: value for name, value in state.items() if not name.startswith(GROUPS[group].fresh)}
        save_state_dict(kept, study.start(group))
    if any(each.row.images for each in runs) and not study.image_file.exists():
        synthetic.generate(**vars(study.images), progress=True)
        coco.write(youtube_vis.read(study.images.annotations("train")), study.image_file)
    return study


if __name__ == "__main__":
    sys.exit(main())
