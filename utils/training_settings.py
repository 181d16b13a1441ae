"""The settings of a training run apart from its config; each is an option of train.py."""

import argparse
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from utils.precision import PRECISIONS
from ytvis.command_line import not_negative, positive, seed_number
from ytvis.files import InputError


def _option(default: Any, meaning: str, **how: Any) -> Any:
    """A field that is an option: its default, its help, and what else `add_argument` takes."""
    return field(default=default, metadata={"help": meaning, **how})


@dataclass(frozen=True)
class TrainSettings:
    """How a config is trained. `given_keys` are the config keys that were given by hand."""

    batch_size: int = _option(
        8,
        "clips that go through the network at once, of train.clip_frames frames each, of all processes together "
        "(default: %(default)s)",
        type=positive,
    )
    accumulate: int = _option(
        1,
        "average the gradients of N batches for every step: N times the batch in the memory of one (default: 1)",
        type=positive,
        metavar="N",
    )
    task: Literal["clips", "crops"] = _option(
        "clips",
        "what to learn from: clips, or crops of single objects, which teach the backbone alone to tell classes: a "
        "start for --set train.pretrained=FILE where there is no COCO checkpoint; a batch then counts frames",
        choices=("clips", "crops"),
    )
    save_folder: Path = _option(
        Path("weights"),
        "where checkpoints and the log go (default: weights; with --resume the folder of that checkpoint)",
        type=Path,
    )
    max_iter: int | None = _option(
        None,
        "iterations (default: the recipe's, for the batch size); warm-up and steps of a shorter run shrink with it",
        type=positive,
        metavar="N",
    )
    epochs: int | None = _option(
        None, "train for N epochs of the data set, instead of --max_iter", type=positive, metavar="N"
    )
    save_interval: int = _option(10_000, "iterations between checkpoints (default: %(default)s)", type=positive)
    keep_latest: bool = _option(False, "delete each checkpoint when the next one is saved", action="store_true")
    validation_epoch: int = _option(
        0,
        "every N epochs, and at the end, score the valid split, which must be annotated, and keep the best weights as "
        "<config>_best.pth (default: never)",
        type=not_negative,
        metavar="N",
    )
    tensorboard: bool = _option(
        False,
        "also write TensorBoard event files, to <save_folder>/<config>_tensorboard (pip install tensorboard)",
        action="store_true",
    )
    precision: str = _option(
        "fp32",
        "of the network's forward pass (default: fp32); fp16, with scaled losses, is for GPUs without bf16",
        choices=tuple(PRECISIONS),
    )
    compile: bool = _option(False, "compile the network's forward pass with torch.compile", action="store_true")
    seed: int = _option(0, "of fresh weights and of the draws of clips (default: 0)", type=seed_number)
    num_workers: int = _option(2, "processes that load, for each that trains (default: %(default)s)", type=not_negative)
    given_keys: frozenset[str] = frozenset()

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser, *names: str) -> None:
        """Adds the options to a command line: all, or those of `names`."""
        for setting in fields(cls):
            if setting.metadata and (not names or setting.name in names):
                parser.add_argument(f"--{setting.name}", default=setting.default, **setting.metadata)

    @classmethod
    def from_options(cls, options: argparse.Namespace, given_keys: frozenset[str] = frozenset()) -> Self:
        """The settings of a parsed command line; those that are not among its options have their defaults.

        Raises:
            InputError: two of them contradict each other.
        """
        names = {setting.name for setting in fields(cls)}
        settings = cls(**{name: value for name, value in vars(options).items() if name in names}, given_keys=given_keys)
        if settings.max_iter and settings.epochs:
            raise InputError("--max_iter and --epochs both say how long to train: pass one of them")
        return settings

    @property
    def samples_per_step(self) -> int:
        """Clips, or frames of crops, that one step of the optimiser learns from."""
        return self.batch_size * self.accumulate

    def iterations(self, num_samples: int) -> int | None:
        """Iterations of a run on a data set of `num_samples`; None for the recipe's own number."""
        if self.epochs is None:
            return self.max_iter
        return math.ceil(self.epochs * num_samples / self.samples_per_step)
