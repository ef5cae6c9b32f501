"""Rules that are wrong by a factor of a thousand cost a search its time, not its result."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from optselect import TorchWorkload
from optselect.briefing import METHOD
from optselect.building.groups import param_groups
from optselect.building.optimizer import build_groups
from optselect.configuration import Configuration
from optselect.configuration.schedule import Schedule
from optselect.parameters.anatomy import anatomy_of
from optselect.pipeline import make_selection
from optselect.recipes.bench.ablations import poisoned
from optselect.search.progress import Silent
from optselect.settings import Settings
from optselect.workload.protocol import Build

STEPS = 200
SWEEP = (1e-4, 10**-3.25, 10**-2.5, 10**-1.75, 1e-1)


def least_squares() -> TorchWorkload:
    """A quadratic loss whose curvatures lie a factor of a hundred apart; the least value is 0."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(512, 8, generator=generator) * torch.logspace(-0.5, 0.5, 8)
    data = TensorDataset(inputs, inputs @ torch.randn(8, 4, generator=generator))
    model = nn.Linear(8, 4, bias=False)
    nn.init.zeros_(model.weight)
    part = torch.utils.data.Subset(data, range(64))
    return TorchWorkload(
        model, nn.functional.mse_loss, DataLoader(data, batch_size=32), DataLoader(part, batch_size=64), steps=STEPS
    )


def final_loss(build: Build) -> float:
    workload = least_squares()
    with workload.borrowed():
        workload.begin(build, seed=0)
        workload.train(STEPS)
        return workload.validate().value


def adamw(lr: float, schedule: Schedule) -> Build:
    chosen = Configuration(optimizer="adamw", hyperparameters={"lr": lr, "weight_decay": 1e-2}, schedule=schedule)
    return lambda model: build_groups(param_groups(anatomy_of(model), chosen), schedule, model, STEPS)


@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_a_search_of_four_trainings_on_a_poisoned_prior_ends_within_reach_of_a_sweep(factor: float) -> None:
    default = final_loss(adamw(1e-3, Schedule()))
    best_of_five = min(final_loss(adamw(lr, Schedule(kind="cosine"))) for lr in SWEEP)
    method = replace(METHOD, prior=poisoned(factor))

    plan = make_selection(least_squares(), Settings(budget=4), progress=Silent(), method=method).plan

    found = final_loss(lambda model: plan.build(model, total_steps=STEPS))
    assert (found - best_of_five) / (default - best_of_five) < 0.1
