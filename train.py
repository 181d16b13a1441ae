"""Train STMask.

    python train.py --config=STMask_plus_base_config --batch_size=8 --save_folder=weights/weights_r101
    python train.py --config=STMask_plus_base_config --batch_size=8 --save_folder=weights/weights_r101 --resume=latest
    python train.py --config=STMask_demo_config --batch_size=4 --save_folder=results/demo_training
    torchrun --nproc_per_node=4 train.py --config=STMask_plus_base_config --batch_size=32

Checkpoints are `<config>_<epoch>_<iteration>.pth`, plain state dicts, each with a `.state` beside it for exact resume.
Ctrl+C and SIGTERM save `…_interrupt.pth` and stop. Exit codes: 0 done, or interrupted and saved, 1 diverged,
2 bad input, 130 interrupted before the first step.
"""

if __name__ == "__main__":  # the imports below take seconds
    from ytvis.command_line import exit_at_interrupt

    exit_at_interrupt("train.py")

import argparse
import logging
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.classes import config_for
from data.clips import ClipDataset, ClipSampler, collate_clips, make_clip_loader
from data.config import WEIGHT_NAMES, Config, add_config_arguments, get_config, overrides_from
from data.crops import CropDataset, collate_crops
from data.dataset import YTVISDataset, read_frames
from data.transforms import FrameTransform
from inference.videos import collect_tracks, track_videos
from layers.losses import MultiBoxLoss, semantic_loss
from stmask import STMask
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
from utils.device import describe_device
from utils.distributed import World, keep_gradients, launch, torchrun_command
from utils.logging import setup_logging
from utils.precision import PRECISIONS, autocast, check_precision
from utils.schedule import Schedule
from utils.stop_signal import StopSignal
from utils.structures import ClipBatch, CropBatch, FrameResult
from utils.training_log import TrainingLog
from ytvis.command_line import Parser, end_process, run_command
from ytvis.drawing import PixelObjects, truth_beside_prediction
from ytvis.files import InputError
from ytvis.results import as_entry
from ytvis.score.ap import STAT_NAMES, evaluate_results
from ytvis.splits import write_video_ids

logger = logging.getLogger("train")

PROGRAM = "train.py"
MAX_BAD_STEPS = 20
OPTIMIZER_STATE = {torch.optim.SGD: {"momentum_buffer"}, torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}}
SHOWN_VIDEOS = 4  # of a validation, as pictures in TensorBoard
CONFIG_OPTIONS = {  # options that are short for a config key
    "lr": "train.learning_rate",
    "momentum": "train.momentum",
    "decay": "train.weight_decay",
    "gamma": "train.gamma",
}


@dataclass(frozen=True)
class TrainSettings:
    """The settings of a run apart from its config: the options of the same names, which `parse_arguments` explains."""

    batch_size: int
    accumulate: int
    task: Literal["clips", "crops"]
    save_folder: Path
    max_iter: int | None
    save_interval: int
    keep_latest: bool
    validation_epoch: int
    tensorboard: bool
    precision: str
    compile: bool
    seed: int
    num_workers: int

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> Self:
        """Those of a parsed command line."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})


class Diverged(Exception):
    """The loss was not finite for too many steps in a row."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = Parser(PROGRAM, __doc__)
    add_config_arguments(parser)
    parser.add_argument(
        "--batch_size",
        type=int,
        default=8,
        help="clips that go through the network at once, two frames each, of all processes together (default: 8)",
    )
    parser.add_argument(
        "--accumulate",
        type=int,
        default=1,
        metavar="N",
        help="average the gradients of N batches for every step: N times the batch in the memory of one (default: 1)",
    )
    parser.add_argument(
        "--task",
        choices=("clips", "crops"),
        default="clips",
        help="what to learn from: clips, or crops of single objects, which teach the backbone alone to tell classes: a "
        "start for --set train.pretrained=FILE where there is no COCO checkpoint; a batch then counts frames",
    )
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
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write TensorBoard event files, to <save_folder>/<config>_tensorboard (pip install tensorboard)",
    )
    parser.add_argument("--lr", type=float, help="learning rate (config key train.learning_rate)")
    parser.add_argument("--momentum", type=float, help="momentum of SGD (train.momentum)")
    parser.add_argument("--decay", type=float, help="weight decay (train.weight_decay)")
    parser.add_argument("--gamma", type=float, help="factor of the learning rate at each step (train.gamma)")
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        default="fp32",
        help="of the network's forward pass (default: fp32); fp16, with scaled losses, is for GPUs without bf16",
    )
    parser.add_argument("--compile", action="store_true", help="compile the network's forward pass with torch.compile")
    parser.add_argument("--seed", type=int, default=0, help="of fresh weights and of the order and draws of clips")
    parser.add_argument(
        "--num_workers", type=int, default=2, help="processes that prepare clips, for each that trains (default: 2)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, … (default: the GPU if there is one; torchrun: one each)")
    parser.add_argument("--train_dataset", metavar="NAME", help="another data set than the config's, e.g. COCO2017")
    parser.add_argument(
        "--split",
        choices=("train", "train_sub"),
        default="train",
        help="train_sub: the first nine tenths of the videos; validation is then on the last (default: train)",
    )
    parser.add_argument("--video_ids", metavar="FILE", help="only the videos whose ids the file lists, one a line")
    parser.add_argument("--write_video_ids", metavar="FILE", help="write the ids of the videos that are trained on")
    parser.add_argument("--ann_file", metavar="FILE", help="annotation file instead of the train split's")
    parser.add_argument("--image_root", metavar="DIR", help="folder of the frames instead of the train split's")
    options = parser.parse_args(arguments)
    for name, least in (
        *(("batch_size", 1), ("accumulate", 1), ("save_interval", 1), ("max_iter", 1)),
        *(("validation_epoch", 0), ("num_workers", 0), ("seed", 0)),
    ):
        value = getattr(options, name)
        if value is not None and value < least:
            parser.error(f"--{name} must be at least {least}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = parse_arguments(arguments)
    setup_logging()
    return run_command(PROGRAM, partial(start, options, arguments))


def start(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """`run`, on the processes that torchrun started, or this one alone; returns the exit code."""
    try:
        with launch(options.device) as world:
            command = torchrun_command(os.path.relpath(__file__), arguments)
            if command and options.device in (None, "cuda"):
                logger.warning("only one of the GPUs is used; all are by: %s", command)
            run(options, world)
    except Diverged as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    return 0


def run(options: argparse.Namespace, world: World) -> None:
    """What the command line asks for, of one of the processes of `world`.

    Raises:
        InputError: something given cannot be used.
        Diverged: the loss was not finite too often.
    """
    config, checkpoint = find_config(options)
    if options.print_config:
        if world.is_main:
            print(config)
        return
    check_options(options, world)
    dataset = YTVISDataset.from_config(config, options.split, options.ann_file, options.image_root, options.video_ids)
    if options.write_video_ids and world.is_main:
        write_video_ids(options.write_video_ids, [video.video_id for video in dataset.videos])
    crops = options.task == "crops"
    samples = (CropDataset if crops else ClipDataset).from_config(config, dataset)
    torch.manual_seed(options.seed)
    model = STMask.from_config(config)
    if checkpoint is None and config.train.pretrained:
        start_from(model, find_checkpoint(config.train.pretrained, WEIGHT_NAMES))
    trainer = Trainer(model, TrainSettings.from_options(options), len(samples), world, find_validation(config, options))
    if checkpoint is not None:
        trainer.resume(checkpoint)
    trainer.announce()
    sampler = ClipSampler(
        len(samples),
        trainer.samples_per_step,
        options.seed,
        trainer.iteration,
        trainer.schedule.iterations,
        world.rank,
        world.size,
    )
    collate = collate_crops if crops else collate_clips
    pin_memory = world.device.type == "cuda"
    trainer.train(make_clip_loader(samples, sampler, options.num_workers, pin_memory, collate))


def find_validation(config: Config, options: argparse.Namespace) -> YTVISDataset | None:
    """What is scored every --validation_epoch: the valid split, or what --split=train_sub left; None if nothing."""
    if not options.validation_epoch:
        return None
    if options.split == "train_sub":
        return YTVISDataset.from_config(config, "valid_sub", options.ann_file, options.image_root)
    data = YTVISDataset.from_config(config, "valid")
    if not data.has_truth:
        raise InputError(
            f"--validation_epoch: {data.ann_file} has no annotations to compare with; use --split=train_sub to train "
            "on nine tenths of the train split and score the rest"
        )
    data.truth()  # what scoring would refuse ends the run before it starts
    return data


def check_options(options: argparse.Namespace, world: World) -> None:
    """Raises InputError for what these processes and their devices cannot do."""
    if options.batch_size % world.size:
        raise InputError(f"--batch_size={options.batch_size}: {world.size} processes share it, make it a multiple")
    check_precision(options.precision, world.device)
    if options.task == "crops" and (options.validation_epoch or options.accumulate > 1 or options.compile):
        raise InputError("--task=crops goes without --validation_epoch, --accumulate and --compile")


def find_config(options: argparse.Namespace) -> tuple[Config, Path | None]:
    """(the config with all overrides, the checkpoint to resume or None)."""
    name, checkpoint = options.config, None
    if options.resume:
        known = get_config(name).name if name else None
        word = options.resume
        if word in ("latest", "interrupt"):
            word = os.path.join(options.save_folder, word)  # as a Path, ./latest would be the bare word again
        checkpoint = find_checkpoint(word, WEIGHT_NAMES, known)
        name = known or config_name_of(checkpoint, WEIGHT_NAMES)
    if name is None:
        raise InputError("pass --config=NAME; `python -m data.config` lists the names")
    return config_for(name, overrides_from(options, CONFIG_OPTIONS, options.train_dataset)), checkpoint


def start_from(model: STMask, path: Path) -> None:
    """Takes every tensor of the checkpoint `path` whose name and shape the model has; the rest stays as it is.

    Raises:
        InputError: no such file (the message says how to do without), or it has nothing in common with the model.
    """
    if not os.path.isfile(path):
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


def train_only(model: STMask, beginnings: Sequence[str]) -> None:
    """Keeps all parameters as they are but those whose names begin with one of `beginnings`; none keeps nothing.

    Raises:
        InputError: no name of a trained parameter begins so, or the batch norms would learn all the same.
    """
    if not beginnings:
        return
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for beginning in beginnings:
        if not any(name.startswith(beginning) for name in trained):
            some = ", ".join(sorted({name.split(".")[0] for name in trained}))
            raise InputError(f"train.only: no trained parameter's name begins with {beginning!r}, but with {some}, …")
    if not model.config.train.freeze_batch_norm:
        raise InputError("train.only leaves the rest as it is: pass --set train.freeze_batch_norm=true")
    for name, parameter in model.named_parameters():
        if not name.startswith(tuple(beginnings)):
            parameter.requires_grad_(False)


class NetworkLosses(nn.Module):
    """A batch in, its losses out.

    As one module, because DistributedDataParallel has to see all use of parameters, and the losses use the temporal
    net, which the network's own forward pass does not.
    """

    def __init__(self, model: STMask, world: World, precision: str = "fp32", compiled: bool = False):
        super().__init__()
        self.model = model
        self.criterion = MultiBoxLoss.from_config(model.config, world.gather)
        # What the losses need and the model itself does not hold.
        self.auxiliary = nn.Module()
        self.semantic_weight = model.config.train.semantic_loss
        if self.semantic_weight:
            self.auxiliary = nn.Conv2d(model.config.head.channels, model.config.num_classes + 1, 1).to(world.device)
        self.autocast = autocast(precision, world.device)
        # Compiled is a function, so that no parameter gets a second name, and validation runs the network as it is.
        self.network = torch.compile(model.forward) if compiled else model.forward

    def forward(self, batch: ClipBatch) -> dict[str, Tensor]:
        with self.autocast():
            predictions = self.network(batch.frames)
        losses = self.criterion(self.model, predictions, batch.targets)
        if self.semantic_weight:
            logits = self.auxiliary(predictions.finest.float())
            truths = [truth for clip in batch.targets for truth in clip]
            losses["S"] = self.semantic_weight * semantic_loss(logits, truths)
        if torch.is_grad_enabled() and not any(loss.requires_grad for loss in losses.values()):
            # The temporal net is trained alone, and no clip shows an object twice: all its gradients are 0.
            trained = [p.sum() for p in self.parameters() if p.requires_grad]
            losses["B_shift"] = losses["B_shift"] + 0 * sum(trained)
        return losses


class CropLosses(nn.Module):
    """The cross-entropies C3, C4 and C5 of classifiers of their own on what the stages say of a crop, on average."""

    def __init__(self, model: STMask, world: World, precision: str = "fp32"):
        super().__init__()
        if model.config.train.freeze_batch_norm:
            raise InputError("--task=crops starts from nothing: pass --set train.freeze_batch_norm=false")
        self.backbone = model.backbone
        outputs = model.config.num_classes + 1
        self.auxiliary = nn.ModuleList(nn.Linear(c, outputs) for c in model.backbone.out_channels[1:]).to(world.device)
        self.autocast = autocast(precision, world.device)
        self.gather = world.gather

    def forward(self, batch: CropBatch) -> dict[str, Tensor]:
        with self.autocast():
            stages = self.backbone(batch.images)[1:]
        losses = {}
        for number, (stage, classifier) in enumerate(zip(stages, self.auxiliary, strict=True), start=3):
            logits = classifier(stage.float().mean(dim=(2, 3)))
            cross_entropy = self.gather(F.cross_entropy(logits, batch.labels, reduction="none"))
            losses[f"C{number}"] = cross_entropy.sum() / max(len(cross_entropy), 1)
        return losses


class Trainer:
    """One run of training: the model, its optimiser, where it is, and its files."""

    def __init__(
        self,
        model: STMask,
        settings: TrainSettings,
        num_samples: int,
        world: World,
        validation: YTVISDataset | None = None,
    ):
        config = model.config
        if not config.train.freeze_batch_norm:
            model = world.sync_batch_norm(model)
        self.model = model.to(world.device).train()
        train_only(self.model, config.train.only)
        self.settings = settings
        self.num_samples = num_samples
        self.world = world
        self.validation = validation
        self.iteration = 0
        self.samples_per_step = settings.batch_size * settings.accumulate
        self.schedule = Schedule(config, self.samples_per_step, settings.max_iter)
        crops = settings.task == "crops"
        if crops:
            losses = CropLosses(self.model, world, settings.precision)
        else:
            losses = NetworkLosses(self.model, world, settings.precision, settings.compile)
        self.auxiliary = losses.auxiliary
        # A batch in which no instance is in both frames of its clip trains no temporal net.
        self.losses = world.parallel(losses, find_unused=config.temporal_fusion.enabled and not crops)
        self.optimizer = make_optimizer(losses, config)
        self._clipped_together = clip_groups(losses)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=settings.precision == "fp16")
        self.log: TrainingLog | None = None  # opened by `train` on the main process
        self._last_saved: Path | None = None
        self._bad_steps = 0

    def announce(self) -> None:
        """Logs the settings of the run."""
        schedule, settings = self.schedule, self.settings
        epochs = schedule.iterations * self.samples_per_step / self.num_samples
        trained = sum(p.numel() for p in self.losses.parameters() if p.requires_grad)
        parts = f" ({settings.accumulate} times {settings.batch_size})" if settings.accumulate > 1 else ""
        others = f" and {self.world.size - 1} more" if self.world.size > 1 else ""
        logger.info(
            "%s on %s%s: %.2f M parameters trained, %d key frames, batches of %d%s, iterations %d…%d (%.1f epochs)",
            *(self.model.config.name, describe_device(self.world.device), others, trained / 1e6, self.num_samples),
            *(self.samples_per_step, parts, self.iteration, schedule.iterations, epochs),
        )
        logger.info("%s, %s", self.model.config.train.optimizer, schedule)

    def train(self, batches: Iterable[ClipBatch | CropBatch]) -> None:
        """Takes a step for each batch; saves at intervals, at the end, and when told to stop."""
        due = False
        with StopSignal() as stop, self.open_log() as self.log:
            for batch in batches:
                losses = self.step(batch)
                self.iteration += 1
                if self.log:
                    self.log.add(self.iteration, losses, self.schedule(self.iteration - 1), self.model.device)
                if self.world.any(stop.requested is not None):
                    self.save("_interrupt")
                    by = stop.requested or "a signal to another process"
                    logger.info("stopped by %s; --resume=interrupt goes on", by)
                    return
                due |= self.iteration % self.settings.save_interval == 0 or self.iteration == self.schedule.iterations
                if self.validation_is_due():
                    self.validate()
                if due and self._bad_steps == 0:  # weights that gave a loss that is not finite may be broken
                    self.save()
                    due = False
        if due:
            logger.warning("the last steps were not finite: iteration %d is not saved", self.iteration)

    def open_log(self) -> AbstractContextManager[TrainingLog | None]:
        """The log of this run, which goes on with that of the run that is resumed; the main process has one."""
        if not self.world.is_main:
            return nullcontext()
        folder, name = self.settings.save_folder, stem(self.model.config)
        return TrainingLog(
            folder / f"{name}_log.jsonl",
            self.schedule.iterations,
            clips_per_step=self.samples_per_step,
            start_iteration=self.iteration,
            tensorboard=folder / f"{name}_tensorboard" if self.settings.tensorboard else None,
        )

    def epoch_at(self, iteration: int) -> int:
        """The number of whole epochs before `iteration`."""
        return iteration * self.samples_per_step // self.num_samples

    def validation_is_due(self) -> bool:
        """Whether an epoch that is to be validated, or the run, ended with the last iteration."""
        if self.validation is None:
            return False
        epoch = self.epoch_at(self.iteration)
        ended = epoch > self.epoch_at(self.iteration - 1) and epoch % self.settings.validation_epoch == 0
        return ended or self.iteration == self.schedule.iterations

    def validate(self) -> None:
        """Scores the videos of the validation, which the processes share, to the log."""
        self.world.broadcast_tensors(self.model.buffers())  # as they are saved, should batch norms have them differ
        data, transform = self.validation, FrameTransform.from_config(self.model.config)
        videos = self.world.share(data.videos)
        pictures = self.log is not None and self.log.takes_pictures
        frames = read_frames(
            data, transform, videos=videos, num_workers=self.settings.num_workers, keep_frames=pictures
        )
        found = track_videos(self.model, frames)
        power = self.model.config.postprocess.length_power
        shown = self.showing(found) if pictures else found
        tracked = collect_tracks(shown, videos, data.category_ids, length_power=power)
        parts = self.world.collect([as_entry(track) for _, tracks, _ in tracked for track in tracks])
        if self.world.is_main:
            results = [track for part in parts for track in part]
            scores = dict(zip(STAT_NAMES, evaluate_results(data.truth(), results).stats.tolist(), strict=True))
            self.log.note(self.iteration, scores)
        self.world.barrier()

    def showing(self, results: Iterable[FrameResult]) -> Iterator[FrameResult]:
        """`results`, while the middle frame of the first few videos goes to the log beside its truth."""
        middles = {video.video_id: len(video) // 2 for video in self.validation.videos[:SHOWN_VIDEOS]}
        for result in results:
            meta = result.meta
            if result.error is None and middles.get(meta.video_id) == meta.frame_index:
                shown = self.validation.frame_annotations(meta.video_id, meta.frame_index, skip_unusable=True)
                truth = PixelObjects(
                    boxes_px=shown.boxes_px.round().long().numpy(),
                    labels=shown.labels.numpy(),
                    track_ids=shown.instance_ids.numpy(),
                    masks=shown.masks.numpy(),
                )
                names = self.model.config.dataset.class_names
                picture = truth_beside_prediction(result.frame, truth, result.objects, names)
                self.log.show(self.iteration, f"validation/video {meta.video_id}", picture)
            yield result

    def step(self, batch: ClipBatch | CropBatch) -> dict[str, float]:
        """One optimiser step for this process's share of a batch; the losses of the whole batch.

        Gradients and losses are the means over the `accumulate` parts of the batch, which go through the network one
        after another. A batch with a loss that is not finite, in any part of any process, is left out.

        Raises:
            Diverged: that happened `MAX_BAD_STEPS` times in a row.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule(self.iteration)
        self.optimizer.zero_grad(set_to_none=True)
        parts = split(batch, self.settings.accumulate) if self.settings.accumulate > 1 else [batch]
        rows = []
        for number, part in enumerate(parts, start=1):
            with nullcontext() if number == len(parts) else keep_gradients(self.losses):
                losses = self.losses(part.to(self.model.device, non_blocking=True))
                rows.append(self.world.mean(torch.stack(list(losses.values()))))
                values = dict(zip(losses, torch.stack(rows).mean(dim=0).tolist(), strict=True))
                bad = [name for name, value in values.items() if not math.isfinite(value)]
                if bad:
                    self._leave_out(bad)
                    return values
                self.scaler.scale(sum(losses.values()) / len(parts)).backward()
        self._bad_steps = 0
        if self.model.config.train.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            for parameters in self._clipped_together:
                nn.utils.clip_grad_norm_(parameters, self.model.config.train.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return values

    def _leave_out(self, bad: Sequence[str]) -> None:
        """Notes a step whose losses `bad` are not finite."""
        self._bad_steps += 1
        if self.world.is_main:
            logger.warning("iteration %d: %s not finite, step left out", self.iteration, ", ".join(bad))
        if self._bad_steps >= MAX_BAD_STEPS:
            raise Diverged(f"{', '.join(bad)} not finite {MAX_BAD_STEPS} times in a row; lower --lr")

    def save(self, suffix: str = "") -> None:
        """Writes the checkpoint of this iteration, its state first: a checkpoint that is there is complete."""
        if not self.world.is_main:
            return
        name = f"{stem(self.model.config)}_{self.epoch_at(self.iteration)}_{self.iteration}{suffix}.pth"
        path = self.settings.save_folder / name
        save_training_state(
            {
                "iteration": self.iteration,
                "seed": self.settings.seed,
                "batch_size": self.settings.batch_size,
                "accumulate": self.settings.accumulate,
                "optimizer": self.optimizer.state_dict(),
                "recipe": self.recipe(),
                "scaler": self.scaler.state_dict(),
                "task": self.settings.task,
                "auxiliary": self.auxiliary.state_dict(),
                "random": torch.get_rng_state(),
            },
            path,
        )
        save_state_dict(self.model.state_dict(), path)
        logger.info("saved %s", path)
        if self.settings.keep_latest and self._last_saved is not None:
            for old in (self._last_saved, self._last_saved.with_suffix(".state")):
                old.unlink(missing_ok=True)
        self._last_saved = path

    def resume(self, checkpoint: Path) -> None:
        """Takes weights, optimiser and place from `checkpoint`; without a state beside it, weights and place only.

        Raises:
            InputError: the checkpoint does not fit the model, or was made with another seed or batch.
        """
        state = load_state_dict(checkpoint)
        mismatch = compare(state, self.model.state_dict())
        if mismatch:
            raise InputError(f"{checkpoint}: does not fit {self.model.config.name}: {mismatch}")
        self.model.load_state_dict(state)
        training = load_training_state(checkpoint)
        if training is None:
            name = CheckpointName.parse(checkpoint)
            if name is None:
                raise InputError(
                    f"{checkpoint}: the file name tells no iteration; call it <config>_<epoch>_<iteration>.pth"
                )
            self.iteration = name.iteration
            logger.warning("%s has no .state beside it: optimiser and warm-up start anew", checkpoint)
        else:
            try:
                self._compare(training, checkpoint)
                self._take(training)
            except (AttributeError, KeyError, OverflowError, ValueError, TypeError, RuntimeError) as error:
                reason = shorten(f"{type(error).__name__}: {error}", 120, placeholder="…")
                raise InputError(
                    f"{checkpoint}: its .state does not fit ({reason}); delete it to resume with the weights only"
                ) from None
        logger.info("resumed %s at iteration %d", checkpoint, self.iteration)

    def recipe(self) -> dict[str, Any]:
        """What has to be the same for an optimiser's state to fit."""
        trained = [name.removeprefix("module.") for name, p in self.losses.named_parameters() if p.requires_grad]
        return {"optimizer": self.model.config.train.optimizer, "trained": trained}

    def _compare(self, training: dict[str, Any], checkpoint: Path) -> None:
        """Refuses the state `training` of a run with other settings, which could not go on as it was."""
        for key, default in (("seed", 0), ("batch_size", 1), ("accumulate", 1), ("task", "clips")):
            value = training.get(key, default)
            if type(value) is not type(default):
                raise TypeError(f"{key!r} is a {type(value).__name__}")
            if value != getattr(self.settings, key):
                raise InputError(f"{checkpoint}: was trained with --{key}={value}; give the same to resume it")
        if training.get("recipe", self.recipe()) != self.recipe():
            raise InputError(f"{checkpoint}: was trained with other --set train.…; give the same to resume it")

    def _take(self, training: dict[str, Any]) -> None:
        """Goes on from the state `training`, with the settings of today."""
        if type(training["iteration"]) is not int or not 0 <= training["iteration"] < 2**53:
            raise ValueError(f"'iteration' is {training['iteration']!r}")
        check_optimizer_state(training["optimizer"]["state"], self.optimizer)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": training["optimizer"]["state"], "param_groups": groups})
        self.auxiliary.load_state_dict(training.get("auxiliary", {}))
        if training.get("scaler"):
            self.scaler.load_state_dict(training["scaler"])
        torch.set_rng_state(training["random"])
        self.iteration = training["iteration"]


def clip_groups(losses: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters whose gradients are shortened together: the temporal net's, and all others.

    The temporal net's are several times as long, and missing where a clip's frames show no common object: shortened
    with them, the others would be short in one step and long in the next."""
    groups: dict[bool, list[nn.Parameter]] = {}
    for name, parameter in losses.named_parameters():
        groups.setdefault("TemporalNet" in name.split("."), []).append(parameter)
    return list(groups.values())


def make_optimizer(losses: nn.Module, config: Config) -> torch.optim.Optimizer:
    """The config's optimiser over all parameters that `losses` trains."""
    parameters = [p for p in losses.parameters() if p.requires_grad]
    recipe = config.train
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(parameters, recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay)


def check_optimizer_state(state: dict[int, dict[str, Any]], optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError where `state`, by the number of a parameter, is none of this optimiser."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = OPTIMIZER_STATE[type(optimizer)]
    for number, values in state.items():
        if number not in range(len(parameters)) or set(values) not in (set(), names):
            raise ValueError(f"the optimiser has no state {list(values)} of a parameter {number!r}")
        for name, value in values.items():
            shape = torch.Size() if name == "step" else parameters[number].shape
            if value is not None and (value.shape != shape or not value.is_floating_point()):
                raise ValueError(f"{name!r} of parameter {number} is {value.dtype} {list(value.shape)}")


def split(batch: ClipBatch, num_parts: int) -> list[ClipBatch]:
    """`batch` in `num_parts` equal parts, its clips in order; nothing is copied."""
    size = len(batch.targets) // num_parts
    starts = range(0, len(batch.targets), size)
    return [ClipBatch(batch.frames[i : i + size], batch.targets[i : i + size]) for i in starts]


def stem(config: Config) -> str:
    """The config's name as checkpoints carry it."""
    return config.name.removesuffix("_config")


if __name__ == "__main__":
    end_process(main())
