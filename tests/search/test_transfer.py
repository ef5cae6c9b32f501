"""A shorter training is searched in place of a long one, and its learning rate is carried over."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import nn
from torch.utils.data import DataLoader

from optselect import TorchWorkload, select
from optselect.configuration import USER, Configuration
from optselect.configuration.schedule import Schedule
from optselect.rules.length import rate_factor
from optselect.search.progress import Silent
from optselect.search.transfer import carried_over, search_horizon
from optselect.testing import PROFILES
from tests.support.small import net, vectors

NADAM = Configuration(
    optimizer="nadam", hyperparameters={"lr": 1e-2}, schedule=Schedule(kind="cosine", warmup_steps=10)
)
FRESH = next(iter(PROFILES.values()))


@pytest.mark.parametrize(
    "training, steps, searched",
    [
        (400, 1_600, 400),  # the budget pays for the whole
        (400, 100, 400),  # shorter than what the catalogue's centres are for
        (1_190, 300, 1_190),  # hardly longer than that
        (1_200, 300, 800),
        (8_000, 2_000, 2_000),
        (8_000, None, 8_000),
    ],
)
def test_the_training_that_is_searched_is_as_long_as_the_budget(
    training: int, steps: int | None, searched: int
) -> None:
    assert search_horizon(training, steps) == searched


def test_there_and_back_is_where_it_started() -> None:
    there = carried_over(NADAM, 0.25, 4**0.3)

    back = carried_over(there, 4.0, 4**-0.3)

    assert there.rate == pytest.approx(1e-2 * 4**0.3)
    assert there.schedule.warmup_steps == 2
    assert back.rate == pytest.approx(NADAM.rate)


def test_the_users_own_optimizer_is_carried_over_as_it_is() -> None:
    own = Configuration(optimizer=USER, hyperparameters={"lr_scale": 3.0})

    assert carried_over(own, 4.0, 0.5) == own
    assert rate_factor(own, FRESH, 4.0) == 1.0


@pytest.mark.parametrize("optimizer, exponent", [("nadam", -0.3), ("adagrad", -0.3), ("momentum", 0.0)])
def test_a_rate_is_carried_over_by_the_priors_power_of_the_length(optimizer: str, exponent: float) -> None:
    factor = rate_factor(replace(NADAM, optimizer=optimizer), replace(FRESH, steps=800), 8.0)

    assert factor == pytest.approx(8.0**exponent)


@pytest.mark.parametrize("optimizer, exponent", [("muon", -1.0), ("adamw", -0.5), ("momentum", -0.3)])
def test_beyond_ten_passes_rates_fall_faster_unless_the_best_weights_are_kept(optimizer: str, exponent: float) -> None:
    seen_often = replace(FRESH, data=replace(FRESH.data, batches=40), steps=800)
    configuration = replace(NADAM, optimizer=optimizer)

    last = rate_factor(configuration, seen_often, 8.0)
    best = rate_factor(configuration, replace(seen_often, keeps_best=True), 8.0)

    assert last == pytest.approx(8.0**exponent)
    assert best == pytest.approx(1.0 if optimizer == "momentum" else 8.0**-0.3)


def test_decoupled_decay_goes_with_the_rate_where_the_same_rows_are_seen() -> None:
    decaying = replace(NADAM, hyperparameters={"lr": 1e-2, "weight_decay": 1e-2})

    same = carried_over(decaying, 4.0, 0.5, same_rows=True).hyperparameters
    fresh = carried_over(decaying, 4.0, 0.5).hyperparameters

    assert (same["lr"], same["weight_decay"]) == pytest.approx((5e-3, 2e-2))
    assert (fresh["lr"], fresh["weight_decay"]) == pytest.approx((5e-3, 1e-2))


def test_a_long_training_is_searched_within_its_budget_and_the_plan_says_how_it_was_carried_over() -> None:
    loader = DataLoader(vectors(), batch_size=16, shuffle=True)
    workload = TorchWorkload(net(), nn.functional.cross_entropy, loader, loader, steps=4_000)

    plan = select(workload, budget=0.2, candidates=["nadam"], risk=0.9, progress=Silent())

    assert plan.total_steps == 4_000
    assert plan.search_steps <= 800
    assert max(trial.micro_batches for trial in plan.trials) <= 400
    tried = {trial.configuration.rate for trial in plan.trials}
    carried = [reason for reason in plan.reasons if "carried over to the 4,000" in str(reason)]
    assert plan.optimizer == "nadam"
    assert len(carried) == 1
    assert plan.configuration.rate is not None
    assert min(abs(plan.configuration.rate * 5**0.5 / rate - 1) for rate in tried if rate) < 1e-6
