"""What a profile costs, counted from outside: passes of the loss, rows of the data, seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from optselect import TorchWorkload, measure, select
from optselect.profile.measure import MAX_PASSES
from optselect.profile.sample import MAX_ROWS

HUGE = 100_000_000


class Rows(Dataset[Any]):
    """So many rows, each made when it is asked for."""

    def __init__(self, size: int, row: Callable[[int], tuple[Tensor, Tensor]]) -> None:
        self.size = size
        self.row = row

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.row(index)


class CountedLoss:
    """Mean squared error or cross entropy, and how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        if target.is_floating_point():
            return nn.functional.mse_loss(output.flatten(), target.flatten())
        return nn.functional.cross_entropy(output, target)


class Ratings(nn.Module):
    """A matrix factorisation of the size of MovieLens-100k."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(943, 8, sparse=True), nn.Embedding(1_682, 8, sparse=True)

    def forward(self, pairs: Tensor) -> Tensor:
        output: Tensor = (self.users(pairs[:, 0]) * self.items(pairs[:, 1])).sum(1)
        return output


def digits(_: Path) -> tuple[Rows, nn.Module]:
    pixels, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(pixels, dtype=torch.float32), torch.tensor(labels)
    return Rows(len(inputs), lambda index: (inputs[index], targets[index])), nn.Linear(64, 10)


def ratings(_: Path) -> tuple[Rows, nn.Module]:
    def row(index: int) -> tuple[Tensor, Tensor]:
        return torch.tensor([index % 943, index % 1_682]), torch.tensor(float(index % 5))

    return Rows(100_000, row), Ratings()


def mapped(folder: Path) -> tuple[Rows, nn.Module]:
    with (folder / "rows").open("wb") as file:
        file.truncate(HUGE * 4)  # a sparse file: it takes no room on disk
    array = np.memmap(folder / "rows", dtype=np.float32, mode="r", shape=(HUGE, 1))
    return Rows(HUGE, lambda index: (torch.tensor(array[index]), torch.zeros(1))), nn.Linear(1, 1)


def workload(dataset: Dataset[Any], model: nn.Module, loss: CountedLoss, batch_size: int = 64) -> TorchWorkload:
    return TorchWorkload(model, loss, DataLoader(dataset, batch_size=batch_size, shuffle=True), steps=100)


each_data_set = pytest.mark.parametrize("make", [digits, ratings, mapped], ids=lambda make: make.__name__)


@each_data_set
def test_a_profile_takes_the_passes_it_says_and_few(make: Any, tmp_path: Path) -> None:
    loss = CountedLoss()
    dataset, model = make(tmp_path)

    profile = measure(workload(dataset, model, loss))

    assert loss.calls == profile.gradient.passes <= MAX_PASSES


@each_data_set
def test_of_any_number_of_rows_at_most_two_thousand_are_looked_at(make: Any, tmp_path: Path) -> None:
    dataset, model = make(tmp_path)

    profile = measure(workload(dataset, model, CountedLoss()))

    assert profile.data.rows_read == min(dataset.size, MAX_ROWS)


def test_of_a_huge_data_set_no_more_is_read_than_looked_at(tmp_path: Path) -> None:
    dataset, model = mapped(tmp_path)
    read: list[int] = []

    def row(index: int) -> tuple[Tensor, Tensor]:
        read.append(index)
        return dataset.row(index)

    measure(workload(Rows(HUGE, row), model, CountedLoss()))

    assert len(read) == len(set(read)) == MAX_ROWS


def test_a_hundred_million_shuffled_rows_cost_what_a_thousand_do(tmp_path: Path) -> None:
    huge = workload(*mapped(tmp_path), CountedLoss())
    measure(huge)  # whatever is loaded once
    began = time.process_time()  # what else runs here does not count

    measure(huge)

    # Shuffling the indices alone takes 24 s and 4.9 GB; this takes 0.1 s.
    assert time.process_time() - began < 5


def test_batches_gathered_by_index_are_as_large_as_the_loaders(tmp_path: Path) -> None:
    sizes = []

    def step(model: nn.Module, batch: Any) -> Tensor:
        sizes.append(len(batch[0]))
        loss: Tensor = (model(batch[0]) - batch[1]).square().mean()
        return loss

    dataset, model = mapped(tmp_path)
    loader = DataLoader(dataset, batch_size=96, shuffle=True)
    measure(TorchWorkload(model, None, loader, steps=100, step=step), passes=3)

    assert sizes == [96, 96, 96]


def test_more_rows_than_two_thousand_in_the_batches_are_read_for_the_passes_alone(tmp_path: Path) -> None:
    profile = measure(workload(*mapped(tmp_path), CountedLoss(), batch_size=400))

    assert (profile.gradient.passes, profile.data.rows_read) == (8, MAX_ROWS)


def test_a_huge_data_set_that_only_its_sampler_can_index_is_read_through_its_loader() -> None:
    class Keyed(Dataset[Any]):
        def __len__(self) -> int:
            return 2_000_000

        def __getitem__(self, key: tuple[str, int]) -> tuple[Tensor, Tensor]:
            _, index = key
            return torch.full((1,), float(index)), torch.zeros(1)

    class Keys:
        def __iter__(self) -> Any:
            return iter([("row", index) for index in range(640)])

        def __len__(self) -> int:
            return 640

    loader = DataLoader(Keyed(), batch_size=64, sampler=Keys())

    profile = measure(TorchWorkload(nn.Linear(1, 1), CountedLoss(), loader, steps=100))

    assert (profile.gradient.passes, profile.data.rows_read) == (8, 512)


@pytest.mark.parametrize("budget, passes", [(0, 5), (2.0, 8)])
def test_what_the_profile_cost_is_said_in_the_plan(budget: float, passes: int, tmp_path: Path) -> None:
    loss = CountedLoss()

    plan = select(workload(*digits(tmp_path), loss), budget)

    assert plan.profile is not None
    assert plan.profile.gradient.passes == passes
    assert f"the profile took {passes} forward and backward passes and read 1,797 rows" in plan.explain()


def test_the_rules_word_alone_costs_the_profile_alone(tmp_path: Path) -> None:
    loss = CountedLoss()

    select(workload(*digits(tmp_path), loss), 0)

    assert loss.calls == 5
