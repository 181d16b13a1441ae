"""Selects the trained parameters, creates the optimiser, and averages the weights over its steps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ytvis.files import InputError

OPTIMIZER_STATE = {torch.optim.SGD: {"momentum_buffer"}, torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}}


def train_only(model: nn.Module, beginnings: Sequence[str]) -> None:
    """Freezes all parameters except those whose names begin with one of `beginnings`; without any freezes nothing.

    Raises:
        InputError: no name of a trained parameter begins so, or the batch norms would still be trained.
    """
    if not beginnings:
        return
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for beginning in beginnings:
        if not any(name.startswith(beginning) for name in trained):
            some = ", ".join(sorted({name.split(".")[0] for name in trained}))
            raise InputError(f"train.only: no trained parameter's name begins with {beginning!r}, but with {some}, …")
    if not model.config.train.freeze_batch_norm:
        raise InputError("train.only freezes all other parameters: pass --set train.freeze_batch_norm=true")
    for name, parameter in model.named_parameters():
        if not name.startswith(tuple(beginnings)):
            parameter.requires_grad_(False)


def make_optimizer(losses: nn.Module, config) -> torch.optim.Optimizer:
    """Returns the optimiser of a `data.config.Config` over all parameters that `losses` trains."""
    parameters = [p for p in losses.parameters() if p.requires_grad]
    recipe = config.train
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(parameters, recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay)


def average_weights(model: nn.Module, optimizer: torch.optim.Optimizer, decay: float) -> AveragedModel:
    """Returns an average whose `module`, a copy of `model`, follows it after each step that `optimizer` takes.

    The average of weights after the first step is the weights. After step k + 1 it is d · average + (1 − d) · weights
    with d = min(`decay`, (1 + k) / (10 + k)): an average over many steps cannot be had early in a run. The statistics
    of batch norms are averaged like weights. Steps that are left out, or that a GradScaler skips, do not count.
    """

    def mix(averages: list[Tensor], weights: list[Tensor], _: Any) -> None:
        num_steps = int(average.n_averaged)  # on the CPU: the argument is a copy on the device, and reading it waits
        get_ema_multi_avg_fn(min(decay, (1 + num_steps) / (10 + num_steps)))(averages, weights, num_steps)

    average = AveragedModel(model, multi_avg_fn=mix, use_buffers=True)
    optimizer.register_step_post_hook(lambda *_: average.update_parameters(model))
    return average


def clip_groups(losses: nn.Module) -> list[list[nn.Parameter]]:
    """The groups of parameters whose gradients are clipped together: the temporal net's, and all others.

    The temporal net's norm is several times as large, and 0 if a clip's frames show no common object: clipped together,
    the others would be small in one step and large in the next."""
    groups: dict[bool, list[nn.Parameter]] = {}
    for name, parameter in losses.named_parameters():
        groups.setdefault("TemporalNet" in name.split("."), []).append(parameter)
    return list(groups.values())


def check_optimizer_state(state: dict[int, dict[str, Any]], optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError if `state`, by the number of a parameter, does not fit this optimiser."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = OPTIMIZER_STATE[type(optimizer)]
    for number, values in state.items():
        if number not in range(len(parameters)) or set(values) not in (set(), names):
            raise ValueError(f"the optimiser has no state {list(values)} of a parameter {number!r}")
        for name, value in values.items():
            shape = torch.Size() if name == "step" else parameters[number].shape
            if value is not None and (value.shape != shape or not value.is_floating_point()):
                raise ValueError(f"{name!r} of parameter {number} is {value.dtype} {list(value.shape)}")
