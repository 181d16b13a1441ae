"""Train STMask.

    python train.py --config=STMask_plus_base_config --batch_size=8 --save_folder=weights/weights_r101
    python train.py --config=STMask_plus_base_config --resume=weights/weights_r101/latest
    python train.py --config=STMask_demo_config --batch_size=4 --save_folder=results/demo_training

Checkpoints are `<config>_<epoch>_<iteration>.pth`, plain state dicts, each with a `.state` beside it for exact resume.
Ctrl+C and SIGTERM save `…_interrupt.pth` and stop. Exit codes: 0 done or interrupted, 1 diverged, 2 bad input.
"""

import argparse
import json
import logging
import math
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch

from data.clips import ClipDataset, ClipSampler, make_clip_loader
from data.config import WEIGHT_NAMES, Config, add_config_arguments, get_config, overrides_from
from data.transforms import ClipTransform, FrameTransform
from data.ytvis import YTVISDataset, read_frames
from layers.losses import MultiBoxLoss
from stmask import STMask, collect_tracks, track_videos
from utils.checkpoint import (
    CheckpointName,
    compare,
    config_name_of,
    find_checkpoint,
    load_state_dict,
    load_training_state,
    save_state_dict,
    save_training_state,
)
from utils.device import describe_device, peak_memory_mib, pick_device
from utils.logger import setup_logging
from utils.structures import ClipBatch, InputError
from utils.ytvis_eval import STAT_NAMES, evaluate_results

logger = logging.getLogger("train")

REFERENCE_IMAGES = 8  # the recipe's iterations are told for batches of so many images
LOG_INTERVAL = 10
MAX_BAD_STEPS = 20
CONFIG_OPTIONS = {  # options that are short for a config key
    "lr": "train.learning_rate",
    "momentum": "train.momentum",
    "decay": "train.weight_decay",
    "gamma": "train.gamma",
}


class Diverged(Exception):
    """The loss was not finite for too many steps in a row."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument("--batch_size", type=int, default=8, help="clips a step, two frames each (default: 8)")
    parser.add_argument("--save_folder", type=Path, default=Path("weights"), help="where checkpoints and the log go")
    parser.add_argument("--resume", metavar="FILE", help="checkpoint to go on from, or [FOLDER/]latest or interrupt")
    parser.add_argument("--max_iter", type=int, help="iterations (default: the recipe's, for the batch size)")
    parser.add_argument("--save_interval", type=int, default=10_000, help="iterations between checkpoints")
    parser.add_argument("--keep_latest", action="store_true", help="delete each checkpoint when the next one is saved")
    parser.add_argument(
        "--validation_epoch",
        type=int,
        default=0,
        metavar="N",
        help="every N epochs, and at the end, score the valid split, which must be annotated (default: never)",
    )
    parser.add_argument("--lr", type=float, help="learning rate (config key train.learning_rate)")
    parser.add_argument("--momentum", type=float, help="momentum of SGD (train.momentum)")
    parser.add_argument("--decay", type=float, help="weight decay (train.weight_decay)")
    parser.add_argument("--gamma", type=float, help="factor of the learning rate at each step (train.gamma)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the network's forward pass")
    parser.add_argument("--seed", type=int, default=0, help="of fresh weights and of the order and draws of clips")
    parser.add_argument("--num_workers", type=int, default=2, help="processes that prepare clips (default: 2)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, … (default: the GPU if there is one)")
    parser.add_argument("--ann_file", metavar="FILE", help="annotation file instead of the train split's")
    parser.add_argument("--image_root", metavar="DIR", help="folder of the frames instead of the train split's")
    options = parser.parse_args(arguments)
    for name in ("batch_size", "save_interval"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parse_arguments(arguments)
    setup_logging()
    try:
        run(options)
    except InputError as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 2
    except Diverged as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace) -> None:
    """What the command line asks for.

    Raises:
        InputError: something given cannot be used.
        Diverged: the loss was not finite too often.
    """
    config, checkpoint = find_config(options)
    if options.print_config:
        print(config)
        return
    device = pick_device(options.device)
    dataset = YTVISDataset.from_config(config, "train", options.ann_file, options.image_root)
    clips = ClipDataset(
        dataset,
        ClipTransform(
            FrameTransform.from_config(config),
            flip_probability=config.train.flip_probability,
            photometric=config.train.photometric,
            zoom_out=config.train.zoom_out,
            crop=config.train.crop,
        ),
        max_distance=config.train.max_frame_distance,
    )
    torch.manual_seed(options.seed)
    model = STMask.from_config(config)
    if checkpoint is None and config.train.pretrained:
        start_from(model, Path(config.train.pretrained))
    validation = YTVISDataset.from_config(config, "valid") if options.validation_epoch else None
    trainer = Trainer(model.to(device).train(), options, len(clips), validation)
    if checkpoint is not None:
        trainer.resume(checkpoint)
    trainer.announce(len(clips), device)
    sampler = ClipSampler(len(clips), options.batch_size, options.seed, trainer.iteration, trainer.schedule.iterations)
    trainer.train(make_clip_loader(clips, sampler, options.num_workers, pin_memory=device.type == "cuda"))


def find_config(options: argparse.Namespace) -> tuple[Config, Path | None]:
    """(the config with all overrides, the checkpoint to resume or None)."""
    name, checkpoint = options.config, None
    if options.resume:
        known = get_config(name).name if name else None
        word = options.resume
        if word in ("latest", "interrupt"):
            word = options.save_folder / word
        checkpoint = find_checkpoint(word, WEIGHT_NAMES, known)
        name = known or config_name_of(checkpoint, WEIGHT_NAMES)
    if name is None:
        raise InputError("say --config=NAME; `python -m data.config` lists the names")
    return get_config(name, overrides_from(options, CONFIG_OPTIONS)), checkpoint


def start_from(model: STMask, path: Path) -> None:
    """Takes every tensor of the checkpoint `path` whose name and shape the model has; the rest stays as it is.

    Raises:
        InputError: no such file (the message says how to do without), or it has nothing in common with the model.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: the COCO checkpoint to start from is not there; put it there (weights/README.md), or train "
            "from scratch with --set train.pretrained= --set train.freeze_batch_norm=false"
        )
    state = load_state_dict(path)
    mismatch = compare(state, model.state_dict())
    skipped = {*mismatch.unexpected, *mismatch.reshaped}
    taken = {name: value for name, value in state.items() if name not in skipped}
    if not taken:
        raise InputError(f"{path}: none of its tensors fit {model.config.name}")
    model.load_state_dict(taken, strict=False)
    logger.info("start: %d tensors taken from %s; of the model %s", len(taken), path, mismatch or "none is fresh")


class Schedule:
    """The learning rate of every iteration: linear warm-up, then steps; lengths divided by the batch's size.

    The recipe's lengths are for batches of 8 images. The learning rate itself is divided only with the quirk
    `lr_not_autoscaled` off (then multiplied by images/8).
    """

    def __init__(self, config: Config, batch_size: int, iterations: int | None = None):
        recipe = config.train
        factor = 2 * batch_size / REFERENCE_IMAGES
        self.iterations = round(recipe.iterations / factor) if iterations is None else iterations
        self.warmup = round(recipe.warmup_iterations / factor)
        self.steps = [round(step / factor) for step in recipe.lr_steps]
        self.gamma = recipe.gamma
        self.learning_rate = recipe.learning_rate * (1 if config.quirks.lr_not_autoscaled else factor)

    def __call__(self, iteration: int) -> float:
        rate = self.learning_rate * self.gamma ** sum(iteration >= step for step in self.steps)
        return rate * min(1.0, (iteration + 1) / max(self.warmup, 1))


class Trainer:
    """One run of training: the model, its optimiser, where it is, and its files."""

    def __init__(
        self, model: STMask, options: argparse.Namespace, num_clips: int, validation: YTVISDataset | None = None
    ):
        config = model.config
        self.model = model
        self.options = options
        self.num_clips = num_clips
        self.validation = validation
        self.iteration = 0
        self.criterion = MultiBoxLoss.from_config(config)
        self.schedule = Schedule(config, options.batch_size, options.max_iter)
        self.optimizer = make_optimizer(model, config)
        self.log = TrainingLog(options.save_folder / f"{stem(config)}_log.jsonl", self.schedule.iterations)
        self._last_saved: Path | None = None
        self._bad_steps = 0

    def announce(self, num_clips: int, device: torch.device) -> None:
        """Says aloud what will be done."""
        schedule = self.schedule
        epochs = schedule.iterations * self.options.batch_size / num_clips
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        logger.info(
            "%s on %s: %.2f M parameters trained, %d key frames, batches of %d clips, iterations %d…%d (%.1f epochs)",
            *(self.model.config.name, describe_device(device), trained / 1e6, num_clips, self.options.batch_size),
            *(self.iteration, schedule.iterations, epochs),
        )
        logger.info(
            "%s, learning rate %g, warm-up over %d iterations, ×%g at %s",
            *(
                self.model.config.train.optimizer,
                schedule.learning_rate,
                schedule.warmup,
                schedule.gamma,
                schedule.steps,
            ),
        )

    def train(self, batches: Iterable[ClipBatch]) -> None:
        """Takes a step for each batch; saves at intervals, at the end, and when told to stop."""
        due = False
        with StopSignal() as stop:
            for batch in batches:
                losses = self.step(batch.to(self.model.device, non_blocking=True))
                self.iteration += 1
                self.log.add(self.iteration, losses, self.schedule(self.iteration - 1), self.model.device)
                if stop.requested:
                    self.save("_interrupt")
                    logger.info("stopped by %s; --resume=interrupt goes on", stop.requested)
                    return
                due |= self.iteration % self.options.save_interval == 0 or self.iteration == self.schedule.iterations
                if self.validation_is_due():
                    self.validate()
                if due and self._bad_steps == 0:  # weights that gave a loss that is not finite may be broken
                    self.save()
                    due = False
        if due:
            logger.warning("the last steps were not finite: iteration %d is not saved", self.iteration)

    def epoch_at(self, iteration: int) -> int:
        """The number of whole epochs before `iteration`."""
        return iteration * self.options.batch_size // self.num_clips

    def validation_is_due(self) -> bool:
        """Whether an epoch that is to be validated, or the run, ended with the last iteration."""
        if self.validation is None:
            return False
        epoch = self.epoch_at(self.iteration)
        ended = epoch > self.epoch_at(self.iteration - 1) and epoch % self.options.validation_epoch == 0
        return ended or self.iteration == self.schedule.iterations

    def validate(self) -> None:
        """Scores the valid split, to the log."""
        data = self.validation
        frames = read_frames(data, FrameTransform.from_config(self.model.config), num_workers=self.options.num_workers)
        tracked = collect_tracks(track_videos(self.model, frames), data.videos, data.category_ids)
        results = [vars(track) for _, tracks, _ in tracked for track in tracks]
        scores = dict(zip(STAT_NAMES, evaluate_results(str(data.ann_file), results).stats.tolist(), strict=True))
        self.log.note(self.iteration, scores)

    def step(self, batch: ClipBatch) -> dict[str, float]:
        """One optimiser step; the losses. A batch whose loss is not finite is left out.

        Raises:
            Diverged: that happened `MAX_BAD_STEPS` times in a row.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule(self.iteration)
        bf16 = self.options.precision == "bf16"
        with torch.autocast(self.model.device.type, dtype=torch.bfloat16, enabled=bf16):
            predictions = self.model(batch.frames)
        losses = self.criterion(self.model, predictions, batch.targets)
        self.optimizer.zero_grad(set_to_none=True)
        values = {name: loss.item() for name, loss in losses.items()}
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            self._bad_steps += 1
            logger.warning("iteration %d: %s not finite, step left out", self.iteration, ", ".join(bad))
            if self._bad_steps >= MAX_BAD_STEPS:
                raise Diverged(f"{', '.join(bad)} not finite {MAX_BAD_STEPS} times in a row; lower --lr")
            return values
        self._bad_steps = 0
        sum(losses.values()).backward()
        self.optimizer.step()
        return values

    def save(self, suffix: str = "") -> None:
        """Writes the checkpoint of this iteration, its state first: a checkpoint that is there is complete."""
        name = f"{stem(self.model.config)}_{self.epoch_at(self.iteration)}_{self.iteration}{suffix}.pth"
        path = self.options.save_folder / name
        save_training_state(
            {
                "iteration": self.iteration,
                "seed": self.options.seed,
                "batch_size": self.options.batch_size,
                "optimizer": self.optimizer.state_dict(),
                "random": torch.get_rng_state(),
            },
            path,
        )
        save_state_dict(self.model.state_dict(), path)
        logger.info("saved %s", path)
        if self.options.keep_latest and self._last_saved is not None:
            for old in (self._last_saved, self._last_saved.with_suffix(".state")):
                old.unlink(missing_ok=True)
        self._last_saved = path

    def resume(self, checkpoint: Path) -> None:
        """Takes weights, optimiser and place from `checkpoint`; without a state beside it, weights and place only.

        Raises:
            InputError: the checkpoint does not fit the model, or was made with another seed or batch size.
        """
        state = load_state_dict(checkpoint)
        mismatch = compare(state, self.model.state_dict())
        if mismatch:
            raise InputError(f"{checkpoint}: does not fit {self.model.config.name}: {mismatch}")
        self.model.load_state_dict(state)
        training = load_training_state(checkpoint)
        if training is None:
            self.iteration = CheckpointName.parse(checkpoint).iteration
            logger.warning("%s has no .state beside it: optimiser and warm-up start anew", checkpoint)
        else:
            for key in ("seed", "batch_size"):
                if training[key] != getattr(self.options, key):
                    raise InputError(f"{checkpoint}: was trained with --{key}={training[key]}; say so to resume it")
            self.iteration = training["iteration"]
            self.optimizer.load_state_dict(training["optimizer"])
            torch.set_rng_state(training["random"])
        logger.info("resumed %s at iteration %d", checkpoint, self.iteration)


def make_optimizer(model: STMask, config: Config) -> torch.optim.Optimizer:
    """The config's optimiser over all parameters that are trained."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    recipe = config.train
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(parameters, recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay)


def stem(config: Config) -> str:
    """The config's name as checkpoints carry it."""
    return config.name.removesuffix("_config")


class TrainingLog:
    """What is said of the training: a line every ten iterations, to the log and as JSON to `path`."""

    def __init__(self, path: Path, num_iterations: int, clock: Callable[[], float] = time.monotonic):
        self.path = path
        self.num_iterations = num_iterations
        self._clock = clock
        self._window: list[Mapping[str, float]] = []
        self._seconds: deque[float] = deque(maxlen=10)
        self._last = clock()

    def add(self, iteration: int, losses: Mapping[str, float], learning_rate: float, device: torch.device) -> None:
        """Notes one iteration."""
        self._window.append(losses)
        if iteration % LOG_INTERVAL and iteration != self.num_iterations:
            return
        now = self._clock()
        seconds = (now - self._last) / len(self._window)
        self._seconds.append(seconds)
        self._last = now
        means = {name: sum(row[name] for row in self._window) / len(self._window) for name in self._window[0]}
        self._window.clear()
        left = (self.num_iterations - iteration) * sum(self._seconds) / len(self._seconds)
        record = {
            "iteration": iteration,
            "total": sum(means.values()),
            **means,
            "lr": learning_rate,
            "seconds": seconds,
            "memory_mib": peak_memory_mib(device),
        }
        self._write(record)
        logger.info(
            "%d/%d | %s | total %.2f | lr %.1e | %.2f s/it | ETA %d:%02d:%02d",
            *(iteration, self.num_iterations, " ".join(f"{name} {value:.2f}" for name, value in means.items())),
            *(record["total"], learning_rate, seconds, left // 3600, left // 60 % 60, left % 60),
        )

    def note(self, iteration: int, scores: Mapping[str, float]) -> None:
        """Notes the scores of a validation; its time is nobody's."""
        self._write({"iteration": iteration, "validation": dict(scores)})
        logger.info("%d | validation | %s", iteration, " ".join(f"{k} {100 * v:.1f}" for k, v in scores.items()))
        self._last = self._clock()

    def _write(self, record: Mapping) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


class StopSignal:
    """A context manager that notes Ctrl+C and SIGTERM in `requested` instead of dying of them."""

    def __init__(self):
        self.requested: str | None = None

    def __enter__(self) -> "StopSignal":
        self._handlers = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        self.requested = signal.Signals(number).name


if __name__ == "__main__":
    sys.exit(main())
