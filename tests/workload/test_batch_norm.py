"""BatchNorm's statistics as they will be at the end of the training."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from optselect import TorchWorkload
from optselect.workload.batch_norm import recalibrated


def net(momentum: float | None) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=momentum), nn.ReLU(), nn.Linear(6, 1))


def batch() -> Tensor:
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(1)) * 3 + 2


def statistics(model: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in model.buffers()]


def moved(momentum: float | None, batches: int) -> nn.Sequential:
    """The net, with so many batches behind it that are unlike the later ones."""
    model = net(momentum)
    with torch.no_grad():
        for _ in range(batches):
            model(batch() / 3)
    return model


@pytest.mark.parametrize("left", [1, 3, 40, 1_000])
@pytest.mark.parametrize("momentum", [0.5, 0.1, 0.01, 0.0003, None])
def test_the_statistics_are_those_that_the_batches_to_come_would_make(momentum: float | None, left: int) -> None:
    model, later = moved(momentum, 5), moved(momentum, 5)
    with torch.no_grad():
        for _ in range(left):
            later(batch())

    with recalibrated(model, lambda: model(batch()), left):
        found = statistics(model)[:2]

    for now, then in zip(found, statistics(later)[:2], strict=True):
        torch.testing.assert_close(now, then, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("left", [0, 7, math.inf])
def test_the_statistics_are_back_afterwards(left: float) -> None:
    model = moved(0.1, 5)
    before = statistics(model)

    with recalibrated(model, lambda: model(batch()), left):
        pass

    assert all(map(torch.equal, statistics(model), before))


@pytest.mark.parametrize("momentum", [0.1, 0.01, None])
def test_at_the_end_of_the_training_the_statistics_are_its_own(momentum: float | None) -> None:
    model = moved(momentum, 5)
    before = statistics(model)

    with recalibrated(model, lambda: model(batch()), 0):
        found = statistics(model)

    assert all(map(torch.equal, found[:2], before[:2]))


def test_where_the_length_is_not_known_the_statistics_are_those_of_the_present_weights() -> None:
    model, fresh = moved(0.01, 5), net(None)

    with recalibrated(model, lambda: model(batch())):
        found = statistics(model)[:2]

    with torch.no_grad():
        fresh(batch())
    assert all(map(torch.equal, found, statistics(fresh)[:2]))


@pytest.mark.parametrize("momentum", [0.1, 0.01, 0.0003, None])
def test_a_trial_that_runs_to_the_end_is_judged_as_the_training_ends(momentum: float | None) -> None:
    inputs = torch.randn(96, 4, generator=torch.Generator().manual_seed(2)) * 3 + 2
    data = TensorDataset(inputs, inputs.sum(1, keepdim=True))
    model, steps = net(momentum), 18

    def build(module: nn.Module) -> Any:
        return torch.optim.SGD(module.parameters(), lr=1e-2), None

    workload = TorchWorkload(model, nn.MSELoss(), DataLoader(data, 16), DataLoader(data, 96), steps=steps)
    by_hand = copy.deepcopy(model)
    optimizer, _ = build(by_hand)
    for step in range(steps):
        rows = slice(16 * (step % 6), 16 * (step % 6) + 16)
        optimizer.zero_grad()
        nn.functional.mse_loss(by_hand(inputs[rows]), data.tensors[1][rows]).backward()
        optimizer.step()
    by_hand.eval()
    with torch.no_grad():
        ended = float(nn.functional.mse_loss(by_hand(inputs), data.tensors[1]))

    with workload.borrowed():
        workload.begin(build, 0)
        workload.train(steps)
        judged = workload.validate().value

    assert judged == pytest.approx(ended, rel=1e-5)
