"""What both workloads do alike with the training that was begun."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from optselect.workload.borrowed_model import BorrowedModel
from optselect.workload.own_optimizer import own_optimizer_of
from optselect.workload.stored import NotPlainError
from optselect.workload.training import Training


def begun(model: nn.Module, *, momentum: float = 0.9) -> Training:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    return Training(optimizers=[optimizer], schedulers=[scheduler], seed=3)


def train(training: Training, model: nn.Module, steps: int) -> None:
    (optimizer,), (scheduler,) = training.optimizers, training.schedulers
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
        scheduler.step()
        training.position += 1


def weights(model: nn.Module) -> list[Any]:
    return [parameter.tolist() for parameter in model.parameters()]


def test_a_restored_training_goes_on_as_if_it_had_never_stopped() -> None:
    model = nn.Linear(3, 2)
    borrowed = BorrowedModel(model)
    borrowed.begin()
    training = begun(model)
    train(training, model, 3)
    stored = copy.deepcopy(training.store(borrowed))
    train(training, model, 3)
    expected = weights(model)
    borrowed.begin()
    again = begun(model)

    assert stored is not None
    again.restore(borrowed, stored)
    train(again, model, 3)

    assert (again.seed, again.position) == (3, 6)
    assert weights(model) == expected


def test_what_builtins_cannot_say_is_not_stored() -> None:
    class Mine(torch.optim.SGD):
        pass

    model = nn.Linear(3, 2)
    borrowed = BorrowedModel(model)
    borrowed.begin()
    training = Training(optimizers=[Mine(model.parameters(), lr=0.1)], schedulers=[], seed=0)

    assert training.store(borrowed) is None


def test_another_optimizer_cannot_be_restored() -> None:
    model = nn.Linear(3, 2)
    borrowed = BorrowedModel(model)
    borrowed.begin()
    stored = begun(model).store(borrowed)
    other = Training(optimizers=[torch.optim.Adam(model.parameters())], schedulers=[], seed=3)

    assert stored is not None
    with pytest.raises(NotPlainError):
        other.restore(borrowed, stored)


@pytest.mark.parametrize("position, held_back, first", [(0, 0, 0), (8, 0, 0), (9, 0, 1), (9, 8, 9)])
def test_statistics_are_taken_over_the_last_eight_batches(position: int, held_back: int, first: int) -> None:
    training = Training(optimizers=[], schedulers=[], seed=0, position=position)

    assert training.recent_batches(held_back) == range(first, first + 8)


def test_a_look_at_optimizers_leaves_the_model_as_it_was() -> None:
    model = nn.Linear(3, 2)
    before = weights(model)
    borrowed = BorrowedModel(model)

    def configure() -> tuple[torch.optim.Optimizer, list[object]]:
        nn.init.zeros_(model.weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return optimizer, [torch.optim.lr_scheduler.StepLR(optimizer, 3)]

    found = own_optimizer_of(borrowed, configure)

    assert found.called == "SGD lr=0.1, StepLR"
    assert weights(model) == before
