"""What a search may cost."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest

from optselect.budget import UNKNOWN_LENGTH_STEPS, Budget, default_steps, resolve_budget
from optselect.errors import BudgetError
from tests.support.cases import case


@pytest.mark.parametrize(
    "horizon, steps",
    [(10, 40), (400, 1_600), (500, 2_000), (2_000, 2_000), (40_000, 2_000), (40_020, 2_001), (100_000, 5_000)],
)
def test_the_default_is_2000_steps_at_most_four_trainings_and_at_least_a_twentieth_of_one(
    horizon: int, steps: int
) -> None:
    assert default_steps(horizon) == steps
    assert resolve_budget(None, horizon) == Budget(steps=steps)


@pytest.mark.parametrize("share, steps", [(0.25, 100), (1, 400), (8.0, 3_200), (0, 0), (1e-9, 0)])
def test_a_number_is_a_share_of_the_training(share: float, steps: int) -> None:
    assert resolve_budget(share, 400) == Budget(steps=steps)


def test_a_budget_is_taken_as_it_is_whether_the_length_is_known_or_not() -> None:
    budget = Budget(seconds=3.5, trials=7)

    assert resolve_budget(budget, 400) is budget
    assert resolve_budget(budget, None) is budget


@pytest.mark.parametrize("share", [0.25, 1, 8.0])
def test_a_share_of_an_unknown_length_is_refused(share: float) -> None:
    with pytest.raises(BudgetError, match=r"Budget\(steps=\.\.\.\)"):
        resolve_budget(share, None)


def test_without_a_length_the_default_is_absolute_and_zero_is_still_zero() -> None:
    assert resolve_budget(None, None) == Budget(steps=UNKNOWN_LENGTH_STEPS)
    assert resolve_budget(0, None) == Budget(steps=0)


@pytest.mark.parametrize("wrong", [-1, -1e-9, math.nan, math.inf, "1.0", True])
@pytest.mark.parametrize("horizon", [400, None])
def test_a_share_that_cannot_be_spent_is_refused(wrong: Any, horizon: int | None) -> None:
    with pytest.raises(BudgetError, match="but got"):
        resolve_budget(wrong, horizon)


def test_a_limit_that_cannot_be_kept_is_refused() -> None:
    wrong: Any
    for limit, wrong in product(("steps", "seconds", "trials"), (-1, math.nan, math.inf, "3", True)):
        with case(limit, wrong), pytest.raises(BudgetError, match=limit):
            Budget(**{limit: wrong})


def test_a_budget_without_a_limit_is_refused() -> None:
    with pytest.raises(BudgetError, match="at least one"):
        Budget()


@pytest.mark.parametrize("budget", [Budget(steps=0), Budget(seconds=0.0), Budget(trials=0), Budget(steps=9, trials=0)])
def test_a_limit_of_zero_lets_no_trial_run(budget: Budget) -> None:
    assert not budget.searches


def test_any_number_may_be_a_limit() -> None:
    three: Any = np.int64(3)
    assert Budget(steps=three).searches
    assert Budget(seconds=np.float64(0.1)).searches


def test_seconds_are_worth_what_the_pace_lets_them_on_top_of_what_was_spent() -> None:
    assert Budget(seconds=60).at_pace(0.5, spent=10) == Budget(seconds=60, steps=130)
    assert Budget(seconds=60, steps=100).at_pace(0.5, spent=10) == Budget(seconds=60, steps=100)


@pytest.mark.parametrize("budget, pace", [(Budget(seconds=60), 0.0), (Budget(steps=9), 0.5)])
def test_without_a_pace_or_a_limit_in_seconds_nothing_changes(budget: Budget, pace: float) -> None:
    assert budget.at_pace(pace, spent=10) == budget
