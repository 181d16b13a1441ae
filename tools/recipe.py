"""Trains a network in several stages, as a recipe file describes them.

    python -m tools.recipe recipes/demo.toml                  # runs every unfinished stage, and prints the scores
    python -m tools.recipe recipes/demo.toml --list           # prints the stages and their progress
    python -m tools.recipe recipes/demo.toml --dry_run        # prints the commands
    python -m tools.recipe recipes/demo.toml --stage fusion   # runs this stage alone
    python -m tools.recipe recipes/demo.toml --log all.jsonl  # and writes the logs of all stages as one
    python -m tools.recipe recipes/demo_gpu.toml --device=cuda:1 --json scores.json

A stage is done when the checkpoint of its last iteration exists; one that was trained with other options or config keys
is refused. An interrupted stage resumes, so the same command continues where the last one stopped. Run it in the
repository's root. Exit codes: 0 done, 1 a stage failed or was interrupted, 2 bad input.

A recipe is a TOML file:

    results = "results/train_demo"     # each stage writes to a folder of this one
    [train]                            # options of train.py for every stage; a value true is an option without value
    [data.NAME]                        # a drawn data set: root, train_videos, valid_videos and seed of data.synthetic
    [evaluate]                         # data: the set that the stages with an expected score are scored on, its valid
                                       # split or the one that `split` names
    [settings.NAME]                    # config keys that several stages share
    [[stages]]
    name, purpose                      # its folder, and a short description
    start                              # the stage whose last weights this one starts from (default: none)
    data                               # the set whose train split it trains on
    iterations, minutes                # its length, and the measured time
    processes                          # number of training processes, one thread each (default: 1)
    train, settings, set               # options of train.py, a name of [settings] and config keys of this stage alone
    half                               # whether the next stage and the evaluation use its weights as float16
    expected                           # scores in percent: AP, AP50, AR10, HOTA
"""

import difflib
import io
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import redirect_stdout
from dataclasses import MISSING, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, get_origin

import train
from data import synthetic
from data.trained import config_of_record
from utils.checkpoint import CheckpointName, publish
from utils.checkpoint_record import read_record
from utils.logging import setup_logging
from utils.stop_signal import StopSignal
from utils.training_log import read_log
from ytvis.command_line import Parser
from ytvis.files import InputError, atomic_write
from ytvis.messages import shown
from ytvis.score.ap import STAT_NAMES, evaluate_results
from ytvis.score.tracking import evaluate_tracking
from ytvis.score.ytvos import load_pair

logger = logging.getLogger("recipe")

ROOT = Path(__file__).parent.parent
SCORES = ("AP", "AP50", "AR10", "HOTA")
# Keys that do not shape the weights, and the place of those that a stage starts from.
NOT_TRAINED = ("dataset.", "detection.", "tracking.", "postprocess.", "train.pretrained")


class Stopped(Exception):
    """A stage failed or was interrupted."""


@dataclass(frozen=True)
class DrawnSet:
    """A data set that data.synthetic draws."""

    root: str
    train_videos: int
    valid_videos: int
    seed: int = 0

    def arguments(self, split: str) -> list[str]:
        """Options of train.py and eval.py that name the files of `split`, "train" or "valid"."""
        return [f"--ann_file={self.annotations(split)}", f"--image_root={self.root}/{split}/JPEGImages"]

    def annotations(self, split: str) -> str:
        """The annotation file of `split`."""
        return f"{self.root}/annotations/{split}.json"


@dataclass(frozen=True)
class Stage:
    """One training of a recipe. Its fields are the keys of [[stages]]; `set` includes those of `settings`."""

    name: str
    purpose: str
    data: str
    iterations: int
    start: str = ""
    minutes: float = 0
    processes: int = 1
    train: Mapping[str, Any] = field(default_factory=dict)
    settings: str = ""
    set: Mapping[str, Any] = field(default_factory=dict)
    half: bool = False
    expected: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """The data set and the split, "train" or "valid", on which stages are scored; its fields are the keys of
    [evaluate]. Without stages that are scored `data` may be empty."""

    data: str = ""
    split: str = "valid"


@dataclass(frozen=True)
class Recipe:
    """A recipe file, and the folder that its stages write to."""

    results: Path
    train: Mapping[str, Any]
    data: Mapping[str, DrawnSet]
    evaluated: Evaluation
    stages: tuple[Stage, ...]

    @classmethod
    def read(cls, path: Path, results: Path | None = None, device: str | None = None) -> Self:
        """Reads the recipe in the file `path`; `results` replaces its folder, and `device` that of its stages.

        Raises:
            InputError: the file cannot be read or is not a recipe; the message names the stage and the key.
        """
        try:
            content = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        except ValueError as error:  # not TOML, or not UTF-8
            raise InputError(f"{path}: not a TOML file: {error}") from None
        known = {"results": str, "train": dict, "data": dict, "evaluate": dict, "settings": dict, "stages": list}
        _check_keys(content, known, {"results", "data", "stages"}, str(path))
        data = {name: _make(DrawnSet, table, f"{path}: [data.{name}]") for name, table in content["data"].items()}
        stages = [_make(Stage, table, f"{path}: stage {n}") for n, table in enumerate(content["stages"], start=1)]
        settings = content.get("settings", {})
        for name, keys in settings.items():
            if not isinstance(keys, dict):
                raise InputError(f"{path}: [settings.{name}]: must be a table")
        for number, stage in enumerate(stages):
            _check_names(stage, stages[:number], data, settings, f"{path}: stage {stage.name!r}")
        options = content.get("train", {})
        if not isinstance(options.get("config"), str):
            raise InputError(f"{path}: [train] must name the config")
        if device is not None:
            options = {**options, "device": device}
        evaluated = _make(Evaluation, content.get("evaluate", {}), f"{path}: [evaluate]")
        if evaluated.data not in data and (evaluated.data or any(stage.expected for stage in stages)):
            raise InputError(f"{path}: [evaluate] names {evaluated.data!r}, which is not a set of [data]")
        if evaluated.split not in ("train", "valid"):
            raise InputError(f"{path}: [evaluate] has split {evaluated.split!r}; the splits are train and valid")
        # A stage's own keys come last and override the others.
        stages = [replace(stage, set={**settings.get(stage.settings, {}), **stage.set}) for stage in stages]
        return cls(results or Path(content["results"]), options, data, evaluated, tuple(stages))

    def stage(self, name: str) -> Stage:
        """The stage of that name.

        Raises:
            InputError: it is unknown.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = [stage.name for stage in self.stages]
        raise InputError(f"no stage {name!r}{_nearest(name, names)}; the stages are {', '.join(names)}")

    def folder(self, stage: Stage) -> Path:
        """The folder of the checkpoints and the log of a stage."""
        return self.results / stage.name

    def weights(self, stage: Stage) -> str:
        """The weights of a finished stage, for the stages after it and its evaluation."""
        if stage.half:
            return f"{self.folder(stage)}/{self.train['config'].removesuffix('_config')}.pth"
        return f"{self.folder(stage)}/latest"

    def last_checkpoint(self, stage: Stage) -> Path | None:
        """The checkpoint of a stage's highest iteration; None without any."""
        names = {path: CheckpointName.parse(path) for path in self.folder(stage).glob("*.pth")}
        return max(filter(names.get, names), key=lambda path: names[path].iteration, default=None)

    def iterations_done(self, stage: Stage) -> int:
        """The iteration of the last checkpoint of a stage; 0 without any."""
        last = self.last_checkpoint(stage)
        return CheckpointName.parse(last).iteration if last else 0

    def is_done(self, stage: Stage) -> bool:
        """Whether the checkpoint of the last iteration exists."""
        return self.iterations_done(stage) >= stage.iterations

    def training(self, stage: Stage, resume: bool = False) -> list[str]:
        """The arguments of train.py for a stage."""
        keys = dict(stage.set)
        if stage.start:
            keys["train.pretrained"] = self.weights(self.stage(stage.start))
        return [
            *_options({**self.train, **stage.train}),
            *self.data[stage.data].arguments("train"),
            *(f"--set={key}={_text(value)}" for key, value in keys.items()),
            f"--max_iter={stage.iterations}",
            f"--save_folder={self.folder(stage)}",
            *(["--resume=latest"] if resume else []),
        ]

    def command(self, stage: Stage, resume: bool = False) -> list[str]:
        """The command that trains a stage."""
        several = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={stage.processes}"]
        launcher = several if stage.processes > 1 else []
        return [sys.executable, *launcher, str(ROOT / "train.py"), *self.training(stage, resume)]

    def evaluation(self, stage: Stage) -> list[str]:
        """The command that writes `results_file` of a stage."""
        options = {name: value for name, value in self.train.items() if name in ("config", "device", "num_workers")}
        # The size of the input is that of the stage; all other keys are the config's.
        keys = {key: value for key, value in stage.set.items() if key.startswith("input.")}
        return [
            *(sys.executable, str(ROOT / "eval.py"), *_options(options)),
            *(f"--set={key}={_text(value)}" for key, value in keys.items()),
            *self.data[self.evaluated.data].arguments(self.evaluated.split),
            f"--trained_model={self.weights(stage)}",
            *(f"--mask_det_file={self.results_file(stage)}", "--resume"),
        ]

    def results_file(self, stage: Stage) -> Path:
        """The results.json of a stage's evaluation."""
        return self.folder(stage) / "results.json"


def measure_scores(recipe: Recipe, stages: Sequence[Stage]) -> dict[str, dict[str, float]]:
    """{stage: {each of `SCORES`: 0…1}} of evaluated stages; nan, or -1 of AP and AR, if there is nothing to score."""
    scores = {}
    for stage in stages:
        truth = recipe.data[recipe.evaluated.data].annotations(recipe.evaluated.split)
        pair = load_pair(truth, recipe.results_file(stage))
        stats = dict(zip(STAT_NAMES, evaluate_results(*pair).stats.tolist(), strict=True))
        scores[stage.name] = {
            **{name: stats[name] for name in SCORES[:-1]},
            "HOTA": evaluate_tracking(*pair).overall()["HOTA"],
        }
    return scores


def run_recipe(
    recipe: Recipe, stages: Sequence[Stage], json_file: Path | None = None, log_file: Path | None = None
) -> None:
    """Trains the unfinished `stages` and prints the scores of those with an expected one; writes minutes and scores to
    `json_file`, and `whole_log` to `log_file`.

    Raises:
        InputError: see `check_stages`.
        Stopped: a stage failed or was interrupted.
    """
    check_stages(recipe, stages)
    for name in dict.fromkeys([*(stage.data for stage in stages), *filter(None, [recipe.evaluated.data])]):
        synthetic.generate(**vars(recipe.data[name]), progress=True)
    for stage in stages:
        train_stage(recipe, stage)
    scored = [stage for stage in stages if stage.expected]
    for stage in scored:
        evaluate_stage(recipe, stage)
    scores = measure_scores(recipe, scored)
    if scored:
        print(score_table(scored, scores))
    if json_file:
        content = [
            {"name": stage.name, "minutes": minutes_of(recipe, stage), "scores": scores.get(stage.name)}
            for stage in stages
        ]
        with atomic_write(json_file, "w") as file:
            json.dump({"stages": content}, file, indent=1)
    if log_file:
        with atomic_write(log_file, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in whole_log(recipe, stages))


def minutes_of(recipe: Recipe, stage: Stage) -> float | None:
    """The time that the steps of a stage took, by its log; None without a log."""
    log = log_of(recipe, stage)
    if log is None:
        return None
    rows = [row for row in log if "seconds" in row]
    numbers = [0, *(row["iteration"] for row in rows)]
    return sum((end - start) * row["seconds"] for (start, end), row in zip(pairwise(numbers), rows, strict=True)) / 60


def log_of(recipe: Recipe, stage: Stage) -> list[dict[str, Any]] | None:
    """The lines of a stage's log, see `read_log`; None without a log."""
    log = next(recipe.folder(stage).glob("*_log.jsonl"), None)
    return read_log(log) if log else None


def whole_log(recipe: Recipe, stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """The logs of `stages` as one: each line with its `stage`, and iterations that count on from stage to stage."""
    rows, before = [], 0
    for stage in stages:
        for row in log_of(recipe, stage) or []:
            rows.append({"stage": stage.name, **row, "iteration": before + row["iteration"]})
        before += stage.iterations
    return rows


def check_stages(recipe: Recipe, stages: Sequence[Stage]) -> None:
    """Checks the options and the config of every stage with train.py, to find mistakes before hours of training.

    Raises:
        InputError: train.py refuses them (with a message on stderr), a stage starts from one that is neither done nor
            among `stages`, or see `check_done`.
    """
    for stage in stages:
        start = recipe.stage(stage.start) if stage.start else None
        if start and start not in stages and not recipe.is_done(start):
            raise InputError(f"stage {stage.name!r} starts from {start.name!r}, which is not done; run that one first")
        with redirect_stdout(io.StringIO()):
            try:
                code = train.main([*recipe.training(stage), "--print_config"])
            except SystemExit as error:  # argparse's
                code = error.code
        if code:
            raise InputError(f"stage {stage.name!r}: train.py does not take its options; its message is above")
        for finished in filter(None, (start, stage)):
            if recipe.is_done(finished):
                check_done(recipe, finished)


def check_done(recipe: Recipe, stage: Stage) -> None:
    """Checks that the last checkpoint of a finished stage is of its training, by what the file says about itself.

    Raises:
        InputError: it was trained with another config, config key or option, as by another recipe.
    """
    path = recipe.last_checkpoint(stage)
    record = read_record(path)
    if record is None or not record.class_names:
        return
    options = train.parse_arguments(recipe.training(stage))
    config, _ = train.find_config(options)
    keys, then = config.flat(), config_of_record(record, path).flat()
    shared = [key for key in keys if key in then and not key.startswith(NOT_TRAINED)]
    known = [name for name in train.IN_RECORD if name in record.training]
    now = {key: keys[key] for key in shared} | {f"--{name}": getattr(options, name) for name in known}
    found = {key: then[key] for key in shared} | {f"--{name}": record.training[name] for name in known}
    for name, value in found.items():
        if value != now[name]:
            raise InputError(
                f"{path}: was trained with {name} {shown(value)}, and stage {stage.name!r} has {shown(now[name])}; "
                "choose another --results, or delete the folder to train it again"
            )


def train_stage(recipe: Recipe, stage: Stage) -> None:
    """Trains a stage to its end, from its last checkpoint if there is one.

    Raises:
        Stopped: it failed or was interrupted.
    """
    number, count = recipe.stages.index(stage) + 1, len(recipe.stages)
    title = f"stage {number} of {count}, {stage.name} ({stage.purpose})"
    if not recipe.is_done(stage):
        done = recipe.iterations_done(stage)
        going_on = f", from iteration {done}" if done else ""
        budget = f", about {stage.minutes * (1 - done / stage.iterations):.0f} minutes" if stage.minutes else ""
        logger.info("%s: %d iterations%s%s", title, stage.iterations, going_on, budget)
        call(recipe.command(stage, resume=done > 0), f"stage {stage.name}")
        if not recipe.is_done(stage):
            raise Stopped(f"stage {stage.name} stopped at iteration {recipe.iterations_done(stage)}")
    logger.info("%s: done", title)
    weights = Path(recipe.weights(stage))
    if stage.half and not weights.exists():
        publish(recipe.last_checkpoint(stage), weights, half=True)


def evaluate_stage(recipe: Recipe, stage: Stage) -> None:
    """Writes the results file of a stage, if it is missing.

    Raises:
        Stopped: eval.py failed or was interrupted.
    """
    if not recipe.results_file(stage).exists():
        call(recipe.evaluation(stage), f"the evaluation of {stage.name}")


def call(command: Sequence[str], what: str) -> None:
    """Runs a command with one thread a process; forwards SIGTERM to it and waits until it has saved.

    Raises:
        InputError: it refused its input.
        Stopped: it ended with another exit code than 0 and 2, or by a signal.
    """
    environment = {"PYTHONPATH": str(ROOT), **os.environ, "OMP_NUM_THREADS": "1"}
    with StopSignal() as stop:
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None:
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                if stop.requested == signal.SIGTERM.name:  # a terminal sends Ctrl+C to the command itself
                    process.terminate()
    if stop.requested:
        raise Stopped(f"{what} was stopped by {stop.requested}")
    if process.returncode == 2:
        raise InputError(f"{what} refused its input; its message is above")
    if process.returncode:
        raise Stopped(f"{what} failed with exit code {process.returncode}; its output is above")


def score_table(stages: Sequence[Stage], scores: Mapping[str, Mapping[str, float]]) -> str:
    """Each stage's `scores` in percent beside the expected ones."""
    lines = [f"{'stage':12}" + "".join(f"{name:>8}{'expected':>10}" for name in SCORES)]
    for stage in stages:
        cells = (f"{100 * scores[stage.name][name]:8.1f}{stage.expected.get(name, '–'):>10}" for name in SCORES)
        lines.append(f"{stage.name:12}" + "".join(cells))
    return "\n".join(lines)


def stage_table(recipe: Recipe) -> str:
    """The stages with their budget, expected AP and progress."""
    lines = [f"{'stage':12}{'iterations':>12}{'minutes':>9}{'AP':>7}  {'state':16}purpose"]
    for stage in recipe.stages:
        done = recipe.iterations_done(stage)
        state = "done" if recipe.is_done(stage) else f"at {done}" if done else "not begun"
        numbers = f"{stage.iterations:>12}{stage.minutes:>9g}{stage.expected.get('AP', '–'):>7}"
        lines.append(f"{stage.name:12}{numbers}  {state:16}{stage.purpose}")
    return "\n".join([*lines, f"{'together':12}{'':12}{sum(stage.minutes for stage in recipe.stages):>9g}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = Parser(description=__doc__)
    parser.add_argument("recipe", type=Path, help="TOML file")
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder of the stages, in place of the recipe's")
    parser.add_argument("--device", help="cpu, cuda, …, in place of the recipe's")
    parser.add_argument("--stage", metavar="NAME", help="run only this stage")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the minutes and scores of the stages to FILE")
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the training logs of the stages as one to FILE")
    parser.add_argument("--list", action="store_true", help="print the stages and their progress, and stop")
    parser.add_argument("--dry_run", action="store_true", help="print the commands of unfinished stages, and stop")
    options = parser.parse_args(arguments)
    setup_logging()
    try:
        recipe = Recipe.read(options.recipe, options.results, options.device)
        stages = [recipe.stage(options.stage)] if options.stage else recipe.stages
        if options.list:
            print(stage_table(recipe))
        elif options.dry_run:
            print_commands(recipe, stages)
        else:
            run_recipe(recipe, stages, options.json, options.log)
    except InputError as error:
        print(f"recipe: error: {error}", file=sys.stderr)
        return 2
    except Stopped as error:
        print(f"recipe: {error}; run the same command to continue", file=sys.stderr)
        return 1
    return 0


def print_commands(recipe: Recipe, stages: Sequence[Stage]) -> None:
    """Prints the command of each unfinished stage, and of each evaluation."""
    for stage in stages:
        if not recipe.is_done(stage):
            print(shlex.join(recipe.command(stage, resume=recipe.iterations_done(stage) > 0)))
    for stage in stages:
        if stage.expected and not recipe.results_file(stage).exists():
            print(shlex.join(recipe.evaluation(stage)))


def _make(kind: type, table: Any, where: str) -> Any:
    """The dataclass `kind` with the fields of a TOML table."""
    if not isinstance(table, dict):
        raise InputError(f"{where}: must be a table")
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}
    _check_keys(table, {f.name: get_origin(f.type) or f.type for f in fields(kind)}, needed, where)
    return kind(**table)


def _check_names(
    stage: Stage, before: Sequence[Stage], data: Iterable[str], settings: Iterable[str], where: str
) -> None:
    """Raises InputError for a name that a stage may not have or that is unknown."""
    names = [other.name for other in before]
    if stage.name in names:
        raise InputError(f"{where}: another stage has that name too")
    for key, known in (("start", ["", *names]), ("data", data), ("settings", ["", *settings])):
        if (value := getattr(stage, key)) not in known:
            raise InputError(f"{where}: {key} names {value!r}, which is unknown{_nearest(value, known)}")
    for name in stage.expected:
        if name not in SCORES:
            raise InputError(f"{where}: expected has {name!r}; the scores are {', '.join(SCORES)}")


def _check_keys(table: Mapping[str, Any], types: Mapping[str, type], needed: Set[str], where: str) -> None:
    """Raises InputError for a key that is unknown or of another type, and if one of `needed` is missing or empty."""
    for key, value in table.items():
        if key not in types:
            raise InputError(f"{where}: unknown key {key!r}{_nearest(key, types)}")
        allowed = (int, float) if types[key] is float else types[key]
        if not isinstance(value, allowed) or (isinstance(value, bool) and types[key] is not bool):
            raise InputError(f"{where}: {key} must be of type {types[key].__name__}, not {value!r}")
        if key in needed and value == "":  # as a folder it would be the one that the command runs in
            raise InputError(f"{where}: {key} is empty")
    if missing := sorted(needed - set(table)):
        raise InputError(f"{where}: {missing[0]} is missing")


def _nearest(name: str, names: Iterable[str]) -> str:
    """A hint at the nearest name."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _options(values: Mapping[str, Any]) -> list[str]:
    """The arguments of {option: value}; a value true is an option without a value."""
    return [f"--{name}" if value is True else f"--{name}={_text(value)}" for name, value in values.items()]


def _text(value: Any) -> str:
    """The text of a TOML value for --set and options."""
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main())
