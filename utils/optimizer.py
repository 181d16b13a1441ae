"""Selects the trained parameters, creates the optimiser, and averages the weights over its steps."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ytvis.files import InputError

OPTIMIZER_STATE = {torch.optim.SGD: {"momentum_buffer"}, torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}}


def train_only(model: nn.Module, beginnings: Sequence[str]) -> None:
    """Freezes all parameters except those whose names begin with one of `beginnings`; without any freezes nothing.

    Raises:
        InputError: no name of a trained parameter begins so.
    """
    if not beginnings:
        return
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for beginning in beginnings:
        if not any(name.startswith(beginning) for name in trained):
            some = ", ".join(sorted({name.split(".")[0] for name in trained}))
            raise InputError(f"train.only: no trained parameter's name begins with {beginning!r}, but with {some}, …")
    for name, parameter in model.named_parameters():
        if not name.startswith(tuple(beginnings)):
            parameter.requires_grad_(False)


def make_optimizer(losses: nn.Module, config, fused: bool = False) -> torch.optim.Optimizer:
    """Returns the optimiser of a `data.config.Config` over all parameters that `losses` trains.

    A `fused` one takes a step in a few launches, and leaves out those for which its `found_inf` [] is not 0.
    """
    parameters = [p for p in losses.parameters() if p.requires_grad]
    recipe, shared = config.train, {"weight_decay": config.train.weight_decay, "fused": fused}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, recipe.learning_rate, **shared)
    optimizer = torch.optim.SGD(parameters, recipe.learning_rate, recipe.momentum, **shared)
    if fused and recipe.momentum:
        optimizer.register_step_pre_hook(_begin_momentum)
    return optimizer


def _begin_momentum(optimizer: torch.optim.SGD, *_: Any) -> None:
    """Sets momentum that is not there yet to 0: torch would not set it in a step that is left out."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if parameter.grad is not None and state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


class WeightAverage:
    """The average of a model's weights over the steps of its training: `module`, a copy of the model.

    The average of weights after the first step is the weights. After step k + 1 it is d · average + (1 − d) · weights
    with d = min(`decay`, (1 + k) / (10 + k)): an average over many steps cannot be had early in a run. The statistics
    of batch norms are averaged like weights, and their counts are copied. `n_averaged` [] int64 is the number of steps.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.module = copy.deepcopy(model)
        self.decay = decay
        self.n_averaged = torch.zeros((), dtype=torch.int64, device=next(model.parameters()).device)
        self._averages, self._counts = _weights_and_counts(self.module)
        # Only for weights of lerp that are laid out like the tensors, torch has one launch for many tensors.
        self._share = torch.zeros(max(map(torch.numel, self._averages)), device=self.n_averaged.device)
        self._shares = [self._share.as_strided(average.shape, average.stride()) for average in self._averages]

    @torch.no_grad()
    def update(self, model: nn.Module, left_out: Tensor | None = None) -> None:
        """Takes a step of `model` into the average, unless `left_out` [] is not 0; on the device, in a few launches
        and without a wait."""
        steps = self.n_averaged.double()
        decay = torch.where(steps > 0, ((1 + steps) / (10 + steps)).clamp(max=self.decay), 0)
        if left_out is not None:
            decay = torch.where(left_out > 0, 1, decay)
        self._share.copy_(1 - decay)
        values, counts = _weights_and_counts(model)
        torch._foreach_lerp_(self._averages, values, self._shares)
        if counts:
            torch._foreach_copy_(self._counts, counts)
        self.n_averaged += 1 if left_out is None else left_out == 0


def _weights_and_counts(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters and buffers of `model` that are floats, and those that are not."""
    tensors = [*model.parameters(), *model.buffers()]
    return [t for t in tensors if t.is_floating_point()], [t for t in tensors if not t.is_floating_point()]


def average_weights(model: nn.Module, optimizer: torch.optim.Optimizer, decay: float) -> WeightAverage:
    """Returns the average of `model` that follows each step that `optimizer` takes; those that are left out, or that a
    GradScaler skips, do not count."""
    average = WeightAverage(model, decay)
    optimizer.register_step_post_hook(lambda *_: average.update(model, getattr(optimizer, "found_inf", None)))
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
