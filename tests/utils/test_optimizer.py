"""The average of the weights over an optimiser's steps."""

import pytest
import torch
from torch import nn

from utils.optimizer import average_weights


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
