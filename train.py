"""Train STMask.

    python train.py --config=STMask_plus_base_config --batch_size=8 --save_folder=weights/weights_r101
    python train.py --config=STMask_plus_base_config --batch_size=8 --save_folder=weights/weights_r101 --resume=latest
    python train.py --config=STMask_demo_config --batch_size=4 --save_folder=results/demo_training
    torchrun --nproc_per_node=4 train.py --config=STMask_plus_base_config --batch_size=32

Checkpoints are `<config>_<epoch>_<iteration>.pth`, plain state dicts, each with a `.state` beside it for exact resume,
and with --validation_epoch `<config>_best.pth`. --resume goes on with the options of the run that it resumes.
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
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from data.classes import config_for
from data.clips import ClipDataset, ClipSampler, collate_clips, make_clip_loader
from data.config import WEIGHT_NAMES, Config, add_config_arguments, get_config, overrides_from, split_overrides
from data.crops import CropDataset, collate_crops
from data.dataset import YTVISDataset
from data.trained import check_classes, make_record, trained_config
from data.training_sets import TrainingSets, join
from data.transforms import PictureInput, change_colours
from inference.validation import score_videos
from layers.anchor_targets import count_candidates
from layers.crop_losses import CropLosses
from layers.losses import MultiBoxLoss, known_of_images, semantic_loss
from stmask import Anchors, STMask
from utils.checkpoint import SEARCH_WORDS, find_checkpoint, save_state_dict
from utils.checkpoint_record import read_record
from utils.delayed_reads import STEPS_AHEAD, DelayedReads
from utils.device import cpu_shortage, describe_device
from utils.distributed import World, keep_gradients, launch, processes_here, torchrun_command
from utils.logging import setup_logging
from utils.optimizer import average_weights, clip_groups, make_optimizer, train_only
from utils.precision import autocast, check_precision
from utils.schedule import REFERENCE_CLIP_FRAMES, Schedule
from utils.stop_signal import StopSignal
from utils.structures import Clip, ClipBatch, ClipTargets, CropBatch
from utils.training_log import TrainingLog
from utils.training_settings import TrainSettings
from utils.training_state import SHARED_SETTINGS, RunOrigin, TrainingState, saved_arguments, start_from
from utils.transfers import Transfers
from ytvis.command_line import Parser, end_process, number_in, run_command
from ytvis.files import InputError
from ytvis.splits import write_video_ids

logger = logging.getLogger("train")

PROGRAM = "train.py"
MAX_BAD_STEPS = 20
COARSEST_STRIDE = 128  # of P7
CONFIG_OPTIONS = {  # options that are short for a config key
    "lr": "train.learning_rate",
    "momentum": "train.momentum",
    "decay": "train.weight_decay",
    "gamma": "train.gamma",
}


NOT_RESUMED = ("resume", "save_folder", "print_config", "write_video_ids", "device", "num_workers")
OF_SETS = ("train_dataset", "class_map")
IN_RECORD = (*SHARED_SETTINGS, "max_iter", "epochs", "precision", "split")  # options that are no config key and no path


class Diverged(Exception):
    """The loss was not finite for too many steps in a row."""


def make_parser() -> Parser:
    """The options of the command line."""
    parser = Parser(PROGRAM, __doc__)
    add_config_arguments(parser)
    for option, key in CONFIG_OPTIONS.items():
        parser.add_argument(f"--{option}", type=number_in(float), help=f"config key {key}")
    TrainSettings.add_options(parser)
    parser.add_argument(
        "--resume",
        metavar="FILE",
        help="checkpoint to go on from, [FOLDER/]latest, interrupt or best, hf:OWNER/REPO/FILE or https://…; the "
        "options of its run hold unless they are given anew",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, … (default: the GPU if there is one; torchrun: one each)")
    parser.add_argument(
        "--train_dataset",
        metavar="SET,…",
        help="another data set than the config's, e.g. COCO2017, or several: each NAME[@FOLDER][:WEIGHT] or "
        "FILE.json@FOLDER[:WEIGHT], where weights give the sets' shares (default: their numbers of key frames); "
        "--split, --video_ids, --ann_file and --image_root are those of the first",
    )
    parser.add_argument(
        "--class_map",
        metavar="FILE",
        help="JSON {set: {class of the set: class of the model, or empty to leave it out}} (default: classes of "
        "several sets are joined by name)",
    )
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
    return parser


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    return make_parser().parse_args(arguments)


def arguments_of(options: argparse.Namespace) -> list[str]:
    """The arguments of these options that a run which goes on with their run has to share."""
    parser, arguments = make_parser(), []
    for name, value in vars(options).items():
        if name not in NOT_RESUMED and value != parser.get_default(name):
            values = value if isinstance(value, list) else [value]
            arguments += [f"--{name}" if item is True else f"--{name}={item}" for item in values]
    return arguments


def resumed_options(options: argparse.Namespace, arguments: Sequence[str], world: World) -> argparse.Namespace:
    """The options of the run that --resume names, as far as its checkpoint knows them, changed by `arguments`.

    Raises:
        InputError: there is no such checkpoint, or it cannot be used.
    """
    checkpoint = find_resumed(options)
    allowed = vars(options).keys() - set(NOT_RESUMED)
    before = saved_arguments(checkpoint, [f"--{name}" for name in sorted(allowed)])
    if before is None and (record := read_record(checkpoint)) is not None:
        known = record.training.items()
        before = [f"--{name}={value}" for name, value in known if name in (*IN_RECORD, *OF_SETS) and name in allowed]
    is_known = bool(before)
    before = [f"--save_folder={checkpoint.parent}", *(before or [])]
    parser = make_parser()
    for name, other in (("max_iter", "epochs"), ("epochs", "max_iter")):  # two ways of saying one thing
        if any(text.startswith(f"--{name}") for text in arguments):
            before = [text for text in before if not text.startswith(f"--{other}=")]
    former, now = parser.parse_args(before), parser.parse_args([*before, *arguments])
    for parsed in (former, now):  # a key that is given again as it was is no other
        parsed.set = [f"{key}={value}" for key, value in split_overrides(parsed.set).items()]
    changed = [name for name in sorted(allowed) if getattr(former, name) != getattr(now, name)]
    if is_known and changed and world.is_main:
        texts = (f"--{name}={getattr(now, name)} (before: {getattr(former, name)})" for name in changed)
        logger.info("resumes with other options than %s had: %s", checkpoint, ", ".join(texts))
    return now


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
            run(resumed_options(options, arguments, world) if options.resume else options, world)
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
    sets = find_sets(options)
    config, checkpoint = find_config(options, sets)
    if options.print_config and world.is_main:
        print(config)
    settings = TrainSettings.from_options(options, frozenset(split_overrides(options.set)))
    check_settings(settings, config, world)
    if options.print_config:
        return
    places = {"ann_file": options.ann_file, "image_root": options.image_root}
    datasets = sets.load(config, options.split, **places, video_ids_file=options.video_ids)
    dataset = datasets[0]
    if options.write_video_ids and world.is_main:
        write_video_ids(options.write_video_ids, [video.video_id for video in dataset.videos])
    crops = settings.task == "crops"
    training = {name: value for name, value in vars(options).items() if name in IN_RECORD and value is not None}
    record = replace(make_record(config, dataset, options.split), training={**training, **sets.recorded()})
    if checkpoint is not None:
        check_classes(read_record(checkpoint) or record, config, dataset, checkpoint)
    if crops:
        parts = [CropDataset.from_config(config, part) for part in datasets]
    else:
        parts = [ClipDataset.from_config(config, part, as_pictures=world.is_queued) for part in datasets]
    samples = join(parts)
    torch.manual_seed(settings.seed)
    model = STMask.from_config(config)
    if checkpoint is None and config.train.pretrained:
        start_from(model, find_checkpoint(config.train.pretrained, WEIGHT_NAMES, as_start=True))
    origin = RunOrigin(record, tuple(arguments_of(options)))
    trainer = Trainer(model, settings, len(samples), world, find_validation(config, options, sets), origin)
    if checkpoint is not None:
        trainer.resume(checkpoint)
    trainer.announce()
    iterations = (trainer.iteration, trainer.schedule.iterations)
    if world.is_main:
        sets.report(parts, trainer.schedule.iterations * settings.samples_per_step)
    sampler = ClipSampler(
        [len(part) for part in parts],
        settings.samples_per_step,
        settings.seed,
        *iterations,
        rank=world.rank,
        world_size=world.size,
        weights=sets.weights,
    )
    collate = collate_crops if crops else collate_for(config, world)
    pin_memory = world.device.type == "cuda"
    trainer.train(make_clip_loader(samples, sampler, settings.num_workers, pin_memory, collate))


def collate_for(config: Config, world: World) -> Callable[[list[Clip]], ClipBatch]:
    """The function that makes a batch of clips; if the device works through a queue, it counts the candidates of the
    targets, so that the losses need not wait for the numbers of anchors that learn them."""
    return CandidateCounter(config) if world.is_queued else collate_clips


class CandidateCounter:
    """Returns clips as a batch whose targets' candidates are counted."""

    def __init__(self, config: Config):
        self._anchors = Anchors(config)

    def __call__(self, clips: list[Clip]) -> ClipBatch:
        batch = collate_clips(clips)
        masks = batch.targets.truth.masks
        candidates = count_candidates(self._anchors(masks.shape[-2:], masks.device), batch.targets)
        return replace(batch, targets=replace(batch.targets, candidates=candidates))


def find_validation(config: Config, options: argparse.Namespace, sets: TrainingSets) -> YTVISDataset | None:
    """What is scored every --validation_epoch: the valid split, or what --split=train_sub left; None if nothing."""
    if not options.validation_epoch:
        return None
    sets.check_scores()
    if options.split == "train_sub":
        return sets.load_first(config, "valid_sub", ann_file=options.ann_file, image_root=options.image_root)
    data = sets.load_first(config, "valid")
    if not data.has_truth:
        raise InputError(
            f"--validation_epoch: {data.ann_file} has no annotations to compare with; use --split=train_sub to train "
            "on nine tenths of the train split and score the rest"
        )
    data.truth()  # what scoring would refuse ends the run before it starts
    return data


def check_settings(settings: TrainSettings, config: Config, world: World) -> None:
    """Raises InputError for what these processes, their devices and the losses cannot do."""
    if settings.batch_size % world.size:
        raise InputError(f"--batch_size={settings.batch_size}: {world.size} processes share it, make it a multiple")
    check_precision(settings.precision, world.device)
    if settings.precision == "bf16" and world.device.type == "cpu":
        check_bf16_on_cpu(config)
    if config.train.only and not config.train.freeze_batch_norm:
        raise InputError("train.only freezes all other parameters: pass --set train.freeze_batch_norm=true")
    of_videos = settings.validation_epoch or settings.accumulate > 1 or settings.compile or config.train.scales
    if settings.task == "crops" and of_videos:
        raise InputError("--task=crops goes without --validation_epoch, --accumulate, --compile and train.scales")
    if settings.task == "clips":
        MultiBoxLoss.from_config(config)  # refuses networks that it cannot train, before their data are looked for


def check_bf16_on_cpu(config: Config) -> None:
    """Raises InputError where torch's bfloat16 gradients are wrong on a CPU.

    From 128 channels on, oneDNN's gradient of a 5×3 kernel on a map one pixel high reads memory that nothing wrote.
    """
    height = min(height for height, _ in config.train.scales or (config.input.size_hw,))
    if height <= COARSEST_STRIDE and config.head.channels >= 128:
        raise InputError(
            f"--precision=bf16 on a CPU needs frames of more than {COARSEST_STRIDE} pixels in height, these have "
            f"{height}: gradients would be wrong; pass --precision=fp32"
        )


def find_sets(options: argparse.Namespace) -> TrainingSets:
    """The data sets to train on."""
    class_names = split_overrides(options.set).get("dataset.class_names")
    return TrainingSets.parse(options.train_dataset, options.class_map, class_names)


def find_config(options: argparse.Namespace, sets: TrainingSets | None = None) -> tuple[Config, Path | None]:
    """(the config with all overrides, the checkpoint to resume or None); `sets` are those of `find_sets`."""
    shortcuts = {key: getattr(options, option) for option, key in CONFIG_OPTIONS.items()}
    overrides = overrides_from(options.set, shortcuts, (sets or find_sets(options)).overrides())
    if options.resume:
        checkpoint = find_resumed(options)
        return trained_config(checkpoint, options.config, overrides), checkpoint
    if options.config is None:
        raise InputError("pass --config=NAME; `python -m data.config` lists the names")
    return config_for(options.config, overrides), None


def find_resumed(options: argparse.Namespace) -> Path:
    """The checkpoint that --resume names; words alone are looked for in --save_folder."""
    word = options.resume
    if word in SEARCH_WORDS:
        word = os.path.join(options.save_folder, word)  # as a Path, ./latest would be the bare word again
    return find_checkpoint(word, WEIGHT_NAMES, get_config(options.config).name if options.config else None)


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
        self.picture_input = PictureInput(model.config.input, world.device)

    def forward(self, batch: ClipBatch) -> dict[str, Tensor]:
        frames = batch.frames if batch.colours is None else change_colours(batch.frames, batch.colours)
        images = self.picture_input(frames.flatten(0, 1))
        with self.autocast():
            predictions = self.network(images)
        losses = self.criterion(self.model, predictions, batch.targets, batch.known)
        if self.semantic_weight:
            logits = self.auxiliary(predictions.finest.float())
            targets = ClipTargets.pack(batch.targets)
            known = known_of_images(batch.known, len(logits))
            losses["S"] = self.semantic_weight * semantic_loss(logits, targets, known)
        if torch.is_grad_enabled() and not any(loss.requires_grad for loss in losses.values()):
            # The temporal net is trained alone, and no clip shows an object twice: all its gradients are 0.
            trained = [p.sum() for p in self.parameters() if p.requires_grad]
            name = next(iter(losses))
            losses[name] = losses[name] + 0 * sum(trained)
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
        origin: RunOrigin | None = None,
    ):
        config = model.config
        if not config.train.freeze_batch_norm:
            model = world.sync_batch_norm(model)
        layout = torch.channels_last if world.is_queued else torch.preserve_format
        self.model = model.to(world.device, memory_format=layout).train()
        train_only(self.model, config.train.only)
        self.settings = settings
        self.num_samples = num_samples
        self.world = world
        self.validation = validation
        self.iteration = 0
        length = settings.iterations(num_samples)
        crops = settings.task == "crops"
        clip_frames = REFERENCE_CLIP_FRAMES if crops else config.train.clip_frames
        self.schedule = Schedule(config, settings.samples_per_step, length, settings.given_keys, clip_frames)
        if crops:
            losses = CropLosses(self.model, world, settings.precision)
        else:
            losses = NetworkLosses(self.model, world, settings.precision, settings.compile)
        # A batch in which no instance is in two neighbouring frames of its clip trains no temporal net.
        self.losses = world.parallel(losses, find_unused=config.temporal_fusion.enabled and not crops)
        self.optimizer = make_optimizer(losses, config, fused=world.is_queued)
        decay = config.train.ema_decay
        average = average_weights(self.model, self.optimizer, decay) if decay else None
        self.saved_model = self.model if average is None else average.module  # and validated
        self._clipped_together = clip_groups(losses)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=settings.precision == "fp16")
        shared = {name: getattr(settings, name) for name in SHARED_SETTINGS}
        trained = [name for name, parameter in losses.named_parameters() if parameter.requires_grad]
        recipe = {"optimizer": config.train.optimizer, "trained": trained}
        origin = origin or RunOrigin(make_record(config))
        self.record = origin.record  # with the scores of the last validation
        self.state = TrainingState(
            self.optimizer, self.scaler, losses.auxiliary, shared, recipe, origin.arguments, average
        )
        self.log: TrainingLog | None = None  # opened by `train` on the main process
        self.best_score = -1.0  # AP; a validation without anything to score has -1
        self._last_saved: Path | None = None
        self._bad_steps = 0  # in a row, of those whose losses are on the host
        self.reads = DelayedReads(STEPS_AHEAD if world.is_queued else 0, Transfers(world.device))

    def announce(self) -> None:
        """Logs the settings of the run."""
        schedule, settings = self.schedule, self.settings
        epochs = schedule.iterations * settings.samples_per_step / self.num_samples
        trained = sum(p.numel() for p in self.losses.parameters() if p.requires_grad)
        parts = f" ({settings.accumulate} times {settings.batch_size})" if settings.accumulate > 1 else ""
        others = f" and {self.world.size - 1} more" if self.world.size > 1 else ""
        logger.info(
            "%s on %s%s: %.2f M parameters trained, %d key frames, batches of %d%s, iterations %d…%d (%.1f epochs)",
            *(self.model.config.name, describe_device(self.world.device), others, trained / 1e6, self.num_samples),
            *(settings.samples_per_step, parts, self.iteration, schedule.iterations, epochs),
        )
        logger.info("%s, %s", self.model.config.train.optimizer, schedule)
        if self.saved_model is not self.model:
            decay = self.model.config.train.ema_decay
            logger.info("checkpoints and validations take the weights' moving average, decay %g", decay)
        if schedule.warmup >= schedule.iterations:
            logger.warning("the run ends in its warm-up; lower it with --set train.warmup_iterations=N")
        shortage = cpu_shortage(self.world.device, processes_here())
        if shortage:
            logger.warning(shortage)

    def train(self, batches: Iterable[ClipBatch | CropBatch]) -> None:
        """Takes a step for each batch; saves at intervals, at the end, and at a signal to stop."""
        due = False
        if self.iteration >= self.schedule.iterations:
            logger.info("nothing left to train: iteration %d of %d", self.iteration, self.schedule.iterations)
            return
        logger.info("reading data for the first batch (processes that load: %d)", self.settings.num_workers)
        with StopSignal() as stop, self.open_log() as self.log:
            for batch in batches:
                self.step(batch)
                self.iteration += 1
                if self.world.any(stop.requested is not None):
                    self._note_losses(everything=True)
                    self.save("_interrupt")
                    by = stop.requested or "a signal to another process"
                    logger.info("stopped by %s; --resume=interrupt goes on", by)
                    return
                due |= self.iteration % self.settings.save_interval == 0 or self.iteration == self.schedule.iterations
                validates = self.validation_is_due()
                if due or validates:
                    self._note_losses(everything=True)
                if due and self._bad_steps == 0:  # weights that gave a loss that is not finite may be broken
                    self.save()
                    due = False
                if validates:  # after saving, as it may fail
                    self.validate()
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
            clips_per_step=self.settings.samples_per_step,
            start_iteration=self.iteration,
            tensorboard=folder / f"{name}_tensorboard" if self.settings.tensorboard else None,
        )

    def epoch_at(self, iteration: int) -> int:
        """The number of whole epochs before `iteration`."""
        return iteration * self.settings.samples_per_step // self.num_samples

    def validation_is_due(self) -> bool:
        """Whether an epoch that is to be validated, or the run, ended with the last iteration."""
        if self.validation is None:
            return False
        epoch = self.epoch_at(self.iteration)
        ended = epoch > self.epoch_at(self.iteration - 1) and epoch % self.settings.validation_epoch == 0
        return ended or self.iteration == self.schedule.iterations

    def validate(self) -> None:
        """Scores the videos of the validation, which the processes share, to the log and to this iteration's
        checkpoint; keeps the weights as <config>_best.pth if their AP is the best so far."""
        # As they are saved, should batch norms have them differ.
        self.world.broadcast_tensors(self.saved_model.buffers())
        show = partial(self.log.show, self.iteration) if self.log is not None and self.log.takes_pictures else None
        scores = score_videos(self.saved_model, self.validation, self.world, self.settings.num_workers, show)
        if self.log is not None:
            self.log.note(self.iteration, scores)
            self.record = replace(self.record, scores={**scores, "iteration": self.iteration})
            if self._last_saved is not None and self._last_saved == self.path():
                self._write(self._last_saved)
            if scores["AP"] > self.best_score and self._bad_steps == 0:
                self.best_score = scores["AP"]
                self._write(self.best_path())
                logger.info(
                    "the best so far, AP %.4f, after epoch %d: %s",
                    self.best_score,
                    self.epoch_at(self.iteration),
                    self.best_path(),
                )
        self.world.barrier()

    def step(self, batch: ClipBatch | CropBatch) -> dict[str, Tensor]:
        """One optimiser step for this process's share of a batch; the losses of the whole batch, on the device.

        Gradients and losses are the means over the `accumulate` parts of the batch, which go through the network one
        after another. A batch with a loss that is not finite, in any part of any process, is left out. On a device with
        a queue nothing here waits for the device, and losses are logged `STEPS_AHEAD` steps later.

        Raises:
            Diverged: `MAX_BAD_STEPS` batches in a row were left out.
        """
        rate = self.schedule(self.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        batch = batch.to(self.model.device, non_blocking=True)
        parts = batch.split(self.settings.accumulate) if self.settings.accumulate > 1 else [batch]
        rows = []
        for number, part in enumerate(parts, start=1):
            with nullcontext() if number == len(parts) else keep_gradients(self.losses):
                losses = self.losses(part)
                rows.append(self.world.mean(torch.stack(list(losses.values()))))
                total = sum(losses.values()) / len(parts)
                if self.scaler.is_enabled():  # it looks at gradients: those of a loss that is not finite are NaN
                    total = total * torch.where(rows[-1].isfinite().all(), 1.0, math.nan)
                self.scaler.scale(total).backward()
        values = torch.stack(rows).mean(dim=0)
        self._update(~values.isfinite().all())
        self.reads.add((self.iteration, tuple(losses), rate), values)
        self._note_losses()
        return dict(zip(losses, values.unbind(), strict=True))

    def _update(self, is_bad: Tensor) -> None:
        """Takes the optimiser's step, unless `is_bad` [] bool; a fused optimiser decides that on the device."""
        if self.optimizer.defaults["fused"]:
            self.optimizer.found_inf = is_bad.float()
        elif is_bad:
            return
        if self.model.config.train.clip_grad_norm:
            self.scaler.unscale_(self.optimizer)
            for parameters in self._clipped_together:
                nn.utils.clip_grad_norm_(parameters, self.model.config.train.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _note_losses(self, everything: bool = False) -> None:
        """Logs the losses of steps that have come to the host; waits for those of all steps with `everything`.

        Raises:
            Diverged: there were `MAX_BAD_STEPS` in a row with a loss that is not finite.
        """
        for (iteration, names, rate), values in self.reads.read(everything):
            losses = dict(zip(names, values, strict=True))
            bad = ", ".join(name for name, value in losses.items() if not math.isfinite(value))
            self._bad_steps = self._bad_steps + 1 if bad else 0
            if bad and self.world.is_main:
                logger.warning("iteration %d: %s not finite, step left out", iteration, bad)
            if self._bad_steps >= MAX_BAD_STEPS:
                raise Diverged(f"{bad} not finite {MAX_BAD_STEPS} times in a row; lower --lr")
            if self.log:
                self.log.add(iteration + 1, losses, rate, self.model.device)

    def save(self, suffix: str = "") -> None:
        """Writes the checkpoint of this iteration, its state first: a checkpoint that is there is complete."""
        if not self.world.is_main:
            return
        path = self.path(suffix)
        self.state.save(self.model, path, self.iteration)
        self._write(path)
        logger.info("saved %s", path)
        if self.settings.keep_latest and self._last_saved is not None:
            for old in (self._last_saved, self._last_saved.with_suffix(".state")):
                old.unlink(missing_ok=True)
        self._last_saved = path

    def path(self, suffix: str = "") -> Path:
        """Where the checkpoint of this iteration goes."""
        name = f"{stem(self.model.config)}_{self.epoch_at(self.iteration)}_{self.iteration}{suffix}.pth"
        return self.settings.save_folder / name

    def best_path(self) -> Path:
        """Where the weights of the best validation go."""
        return self.settings.save_folder / f"{stem(self.model.config)}_best.pth"

    def _write(self, path: Path) -> None:
        """Writes the weights as they are now, with their record."""
        record = replace(self.record, iteration=self.iteration, epoch=self.epoch_at(self.iteration))
        save_state_dict(self.saved_model.state_dict(), path, record)

    def resume(self, checkpoint: Path) -> None:
        """Takes weights, optimiser and place from `checkpoint`; see `TrainingState.resume`. The best validation of the
        run so far stays the best until a better one."""
        self.iteration = self.state.resume(self.model, checkpoint)
        former = read_record(checkpoint)
        if former is not None:
            self.record = replace(self.record, scores=former.scores)
        best = read_record(self.best_path())
        if best is not None:
            self.best_score = best.scores.get("AP", self.best_score)


def stem(config: Config) -> str:
    """The config's name as checkpoints carry it."""
    return config.name.removesuffix("_config")


if __name__ == "__main__":
    end_process(main())
