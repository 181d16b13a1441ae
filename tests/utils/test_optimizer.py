"""Steps that a fused optimiser leaves out, and the average of the weights over an optimiser's steps."""

import copy

import pytest
import torch
from torch import nn

from data.config import get_config
from tools.launches import OperatorCounter
from utils.optimizer import WeightAverage, average_weights, check_optimizer_state, make_optimizer

LEFT_OUT = torch.ones(())


@pytest.mark.parametrize("recipe", ["sgd", "adamw"])
@pytest.mark.parametrize("resumed_fused", [True, False])
def test_a_first_step_that_is_left_out_leaves_nothing_behind(recipe, resumed_fused):
    config = get_config("STMask_demo_config", {"train.optimizer": recipe})
    left_out = nn.Linear(3, 2)
    plain, resumed = copy.deepcopy(left_out), copy.deepcopy(left_out)
    bad = make_optimizer(left_out, config, fused=True)
    for parameter in left_out.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    bad.found_inf = LEFT_OUT
    bad.step()
    state = copy.deepcopy(bad.state_dict())
    assert len(state["state"]) == 2 and not any(v.any() for values in state["state"].values() for v in values.values())
    again = make_optimizer(resumed, config, fused=resumed_fused)
    check_optimizer_state(state["state"], again)
    again.load_state_dict({**state, "param_groups": again.state_dict()["param_groups"]})
    never = make_optimizer(plain, config)
    for _ in range(2):
        for model, optimizer in ((left_out, bad), (resumed, again), (plain, never)):
            for parameter in model.parameters():
                parameter.grad = torch.linspace(-1, 1, parameter.numel()).view_as(parameter)
            optimizer.found_inf = 1 - LEFT_OUT if optimizer.defaults["fused"] else None
            optimizer.step()
    for model in (left_out, resumed):
        torch.testing.assert_close(model.state_dict(), plain.state_dict())


@pytest.mark.parametrize(("decay", "third"), [(0.2, 5.0), (1.0, 5.25)])
def test_an_average_follows_the_steps_with_a_decay_that_warms_up(decay, third):
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    weight, mean = model[0].weight, model[1].running_mean
    optimizer = torch.optim.SGD([weight], lr=1.0)
    average = average_weights(model, optimizer, decay)
    for value, expected in ((0.0, 0.0), (11.0, 9.0), (4.0, third)):  # decays 2/11, and min(decay, 3/12)
        weight.grad = weight.detach() - value
        mean.fill_(value)
        optimizer.step()
        assert weight.item() == value
        assert average.module[0].weight.item() == pytest.approx(expected)
        assert average.module[1].running_mean.item() == pytest.approx(expected)
    assert average.module[1].weight.item() == 1.0


def layers(number):
    """Convolutions in the layout of training on a GPU, with batch norms."""
    parts = [nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)) for _ in range(number)]
    return nn.Sequential(*parts).to(memory_format=torch.channels_last)


def test_all_tensors_are_averaged_together_and_each_as_if_alone():
    torch.manual_seed(0)
    model = layers(2)
    average = WeightAverage(model, 0.9)
    expected = copy.deepcopy(model.state_dict())
    for decay in (0, 2 / 11, None, 3 / 12, 4 / 13):
        for value in model.state_dict().values():
            value.copy_(value + 1 if value.dtype == torch.int64 else torch.randn_like(value))
        average.update(model, LEFT_OUT * (decay is None))
        for name, value in model.state_dict().items():
            if value.dtype == torch.int64:
                expected[name].copy_(value)
            elif decay is not None:
                expected[name].lerp_(value, torch.tensor(1 - decay))
        for name, value in average.module.state_dict().items():
            assert torch.equal(value, expected[name]), name


def test_an_average_of_many_tensors_takes_as_many_operators_as_one_of_few_and_no_wait():
    found = []
    for number in (1, 20):
        model = layers(number)
        average = WeightAverage(model, 0.9)
        with OperatorCounter() as counter:
            average.update(model, LEFT_OUT)
        assert not counter.counts.waits
        found.append(sum(counter.counts.kernels.values()))
    assert found[0] == found[1] < 20


def test_a_model_without_counts_is_averaged():
    average = WeightAverage(nn.Linear(1, 1), 0.9)
    model = nn.Linear(1, 1)
    average.update(model)
    assert average.module.weight.item() == model.weight.item()
