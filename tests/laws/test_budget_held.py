"""No search costs more than its budget, and the plan says what it did cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from optselect import Budget, TorchWorkload
from optselect.briefing import METHOD
from optselect.configuration import USER
from optselect.pipeline import make_selection
from optselect.search.progress import Silent
from optselect.settings import Settings
from tests.support.searches import STEPS, Meter, choose, training
from tests.support.small import loader, sentences, vectors, words


@pytest.mark.parametrize("limit", [1, 2, 5, 8, 9, 12, 15, 20, 31, 48, 77, 100, 150, 333, 600])
def test_the_budget_is_held_to_profile_and_validation_included(limit: int) -> None:
    meter = Meter()

    plan = choose(training(meter), Budget(steps=limit))

    assert meter.cost <= limit
    assert plan.search_steps <= limit
    assert meter.cost <= plan.search_steps + 1


@pytest.mark.parametrize("model", [words, lambda: nn.Linear(6, 3)])
@pytest.mark.parametrize("validated", [True, False])
def test_the_stated_cost_is_what_was_spent(model: Callable[[], nn.Module], validated: bool) -> None:
    meter, module = Meter(), model()
    data = sentences if isinstance(module, type(words())) else vectors
    val = loader(data(48)) if validated else None
    workload = TorchWorkload(module, meter, loader(data(320)), val, steps=STEPS)

    plan = choose(workload, Budget(steps=200))

    # A trial that diverged is counted as judged, though it was not.
    unjudged = sum(trial.value is None for trial in plan.trials) * workload.validation_batches / 3
    assert plan.search_steps - unjudged - 1 <= meter.cost <= plan.search_steps + 1
    assert meter.cost <= 200
    assert f"the choice cost {plan.search_steps} micro-batches" in str(plan.reasons[-1])


def test_a_model_too_large_to_be_put_aside_is_held_to_the_budget_too() -> None:
    meter, settings = Meter(), Settings(budget=Budget(steps=400))

    plan = make_selection(training(meter), settings, progress=Silent(), method=replace(METHOD, paused_bytes=0)).plan

    assert meter.cost <= 400
    assert meter.cost == pytest.approx(plan.search_steps, abs=1)
    assert any(trial.micro_batches > STEPS // 4 for trial in plan.trials)


@pytest.mark.parametrize("limit", [60, 300])
def test_ones_own_optimizer_that_evaluates_the_loss_again_is_held_to_the_budget_too(limit: int) -> None:
    def lbfgs(model: nn.Module) -> tuple[torch.optim.Optimizer, None]:
        return torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3), None

    meter = Meter()

    plan = choose(training(meter, user_optimizer=lbfgs), Budget(steps=limit))

    assert meter.cost <= plan.search_steps + 1 <= limit + 1
    assert any(trial.configuration.optimizer == USER and trial.value is not None for trial in plan.trials)


def test_a_budget_of_zero_takes_the_rules_at_their_word_for_at_most_five_passes() -> None:
    meter = Meter()

    plan = choose(training(meter), 0)

    assert meter.cost <= 5
    assert plan.search_steps == meter.cost
    assert plan.trials == ()
    assert "without evidence from trials" in str(plan.reasons[0])


@pytest.mark.parametrize("trials", [1, 2, 3, 7])
def test_no_more_trials_are_begun_than_allowed(trials: int) -> None:
    plan = choose(training(), Budget(steps=600, trials=trials))

    assert len(plan.trials) == trials


def test_a_search_ends_when_its_time_is_over() -> None:
    plan = choose(training(), Budget(seconds=1e-9))

    assert plan.trials == ()
    assert "no trial gave a value" in str(plan.reasons[0])


def test_a_share_of_the_training_is_spent_at_most() -> None:
    meter = Meter()

    choose(training(meter), 3.0)

    assert meter.cost <= 3 * STEPS


def test_more_budget_lets_trials_go_deeper() -> None:
    deepest = [max(t.micro_batches for t in choose(training(), Budget(steps=steps)).trials) for steps in (60, 600)]

    assert deepest[0] <= STEPS // 4 < deepest[1] == STEPS
