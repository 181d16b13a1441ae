"""The start of a training: from another network's weights, or from where an earlier run stopped."""

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import nn

from utils.checkpoint import CheckpointName, compare, load_state_dict, load_training_state, save_training_state
from utils.checkpoint_record import CheckpointRecord, is_text, read_record
from utils.checkpoint_shapes import keys_of
from utils.optimizer import WeightAverage, check_optimizer_state
from utils.torchvision_names import from_torchvision, is_torchvision
from utils.weight_sources import how_to_get
from ytvis.files import InputError

logger = logging.getLogger(__name__)

# Options that a resumed run must share, and their values in states that were saved without them.
SHARED_SETTINGS = {"seed": 0, "batch_size": 1, "accumulate": 1, "task": "clips"}


def start_from(model: nn.Module, path: Path) -> None:
    """Takes every tensor of the checkpoint `path` whose name and shape the model has; the rest stays as it is.

    torchvision's weights are renamed first (`utils.torchvision_names`).

    Raises:
        InputError: no such file (the message says how to get it, or do without), it has nothing in common with the
            model, or it is torchvision's of another backbone.
    """
    if not os.path.isfile(path):
        raise InputError(
            f"{path}: the COCO checkpoint to start from is not there; {how_to_get(path)}; or train from scratch "
            "with --set train.pretrained= --set train.freeze_batch_norm=false"
        )
    state = load_state_dict(path)
    if is_torchvision(state):
        try:
            state = from_torchvision(state, model.state_dict())
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    mismatch = compare(state, model.state_dict())
    skipped = {*mismatch.unexpected, *mismatch.reshaped}
    taken = {name: value for name, value in state.items() if name not in skipped}
    if not taken:
        raise InputError(f"{path}: none of its tensors fit {model.config.name}")
    model.load_state_dict(taken, strict=False)
    logger.info(
        "start: %d of the %d tensors of %s taken; the rest: %s", len(taken), len(state), path, mismatch or "none"
    )
    _report_plain_blocks(state, model)


def _report_plain_blocks(state: Mapping[str, torch.Tensor], model: nn.Module) -> None:
    """Logs how many blocks of the backbone are deformable in `state`, but not in `model`, and how to have them all: in
    YOLACT++'s ResNet-50 every one is, in STMask's every second."""
    deformable = {name for name in state if name.endswith(".conv2.conv_offset_mask.weight")}
    num_plain = len(deformable - model.state_dict().keys())
    keys = keys_of(state)
    if num_plain and keys.get("backbone.blocks") == model.config.backbone.blocks:
        logger.info(
            "start: %d of %d deformable blocks are plain convolutions here, for which their weights were not trained; "
            "take the whole backbone with --set backbone.dcn_interval=%d",
            *(num_plain, len(deformable), keys["backbone.dcn_interval"]),
        )


@dataclass(frozen=True)
class RunOrigin:
    """What the files of a run say of how it began: the `record` of its checkpoints, and the `arguments` of the command
    line that one which goes on has to share; these are only in its .state, as they may hold paths."""

    record: CheckpointRecord
    arguments: tuple[str, ...] = ()


def saved_arguments(checkpoint: Path, allowed: Collection[str]) -> list[str] | None:
    """The `RunOrigin.arguments` in the .state of `checkpoint`; None if there are none.

    Raises:
        InputError: the .state is damaged, or holds other arguments than of the options `allowed`.
    """
    arguments = (load_training_state(checkpoint) or {}).get("arguments")
    if arguments is None:
        return None
    is_list = isinstance(arguments, list) and all(map(is_text, arguments))
    if not is_list or not all(text.partition("=")[0] in allowed for text in arguments):
        raise InputError(
            f"{checkpoint}: its .state does not fit ('arguments'); delete it to resume with the weights only"
        )
    return arguments


@dataclass(frozen=True)
class TrainingState:
    """What a run keeps beside a checkpoint, in its .state, to go on exactly.

    `auxiliary` are the layers that the losses need and the model itself does not hold; `settings` are the values of
    `SHARED_SETTINGS`; `recipe` is what else has to be the same for the optimiser's state to fit; `arguments` are those
    of `RunOrigin`. With an `average` (`utils.optimizer.average_weights`) the checkpoint holds that, and the state the
    weights themselves.
    """

    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    auxiliary: nn.Module
    settings: Mapping[str, Any]
    recipe: Mapping[str, Any]
    arguments: tuple[str, ...] = ()
    average: WeightAverage | None = None

    def save(self, model: nn.Module, checkpoint: Path, iteration: int) -> None:
        """Writes the state for `checkpoint`, of this iteration of `model`."""
        averaging = {}
        if self.average is not None:
            averaging = {"weights": dict(model.state_dict()), "averaged_steps": int(self.average.n_averaged)}
        save_training_state(
            {
                "iteration": iteration,
                **self.settings,
                "optimizer": self.optimizer.state_dict(),
                "recipe": dict(self.recipe),
                "arguments": list(self.arguments),
                "scaler": self.scaler.state_dict(),
                "auxiliary": self.auxiliary.state_dict(),
                "random": torch.get_rng_state(),
                **averaging,
            },
            checkpoint,
        )

    def resume(self, model: nn.Module, checkpoint: Path) -> int:
        """Loads `checkpoint` into `model` and its state, if there is one, into everything else; returns its iteration.

        Raises:
            InputError: the checkpoint does not fit the model, or was made with another seed, batch, task or recipe.
        """
        state = load_state_dict(checkpoint)
        mismatch = compare(state, model.state_dict())
        if mismatch:
            raise InputError(f"{checkpoint}: does not fit {model.config.name}: {mismatch}")
        model.load_state_dict(state)
        if self.average is not None:
            self.average.module.load_state_dict(state)
        training = load_training_state(checkpoint)
        if training is None:
            record, name = read_record(checkpoint), CheckpointName.parse(checkpoint)
            if record is not None and record.iteration is not None:
                iteration = record.iteration
            elif name is not None:
                iteration = name.iteration
            else:
                raise InputError(
                    f"{checkpoint}: its name does not contain an iteration; call it <config>_<epoch>_<iteration>.pth"
                )
            parts = "optimiser and warm-up" if self.average is None else "optimiser, warm-up and average of the weights"
            logger.warning("%s has no .state beside it: %s start anew", checkpoint, parts)
        else:
            try:
                self._compare(training, checkpoint)
                iteration = self._take(training, model)
            except (AttributeError, KeyError, OverflowError, ValueError, TypeError, RuntimeError) as error:
                reason = shorten(f"{type(error).__name__}: {error}", 120, placeholder="…")
                raise InputError(
                    f"{checkpoint}: its .state does not fit ({reason}); delete it to resume with the weights only"
                ) from None
        logger.info("resumed %s at iteration %d", checkpoint, iteration)
        return iteration

    def _compare(self, training: Mapping[str, Any], checkpoint: Path) -> None:
        """Refuses the state `training` of a run with other settings, which could not go on as it was."""
        for key, default in SHARED_SETTINGS.items():
            value = training.get(key, default)
            if type(value) is not type(default):
                raise TypeError(f"{key!r} is a {type(value).__name__}")
            if value != self.settings[key]:
                raise InputError(f"{checkpoint}: was trained with --{key}={value}; give the same to resume it")
        if training.get("recipe", self.recipe) != self.recipe:
            raise InputError(f"{checkpoint}: was trained with other --set train.…; give the same to resume it")

    def _take(self, training: Mapping[str, Any], model: nn.Module) -> int:
        """Takes everything over from the state `training`, also the weights of `model` if the checkpoint only has their
        average; returns its iteration."""
        iteration = _count(training, "iteration")
        if "weights" in training:
            averaged_steps = _count(training, "averaged_steps")
            mismatch = compare(training["weights"], model.state_dict())
            if mismatch:
                raise ValueError(f"'weights': {mismatch}")
            model.load_state_dict(training["weights"])
            if self.average is not None:
                self.average.n_averaged.fill_(averaged_steps)
        check_optimizer_state(training["optimizer"]["state"], self.optimizer)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": training["optimizer"]["state"], "param_groups": groups})
        self.auxiliary.load_state_dict(training.get("auxiliary", {}))
        if training.get("scaler"):
            self.scaler.load_state_dict(training["scaler"])
        torch.set_rng_state(training["random"])
        return iteration


def _count(training: Mapping[str, Any], name: str) -> int:
    """The number `name` of the state `training`, which counts something."""
    value = training[name]
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError(f"{name!r} is {value!r}")
    return value
