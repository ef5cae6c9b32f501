"""How much each hyperparameter mattered: Optuna's word, where there are enough trials that can be compared."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest

from optselect import OptimizerPlan, catalogue
from optselect.configuration import Configuration, Schedule, Trial
from optselect.report.importance import FEWEST, importance, place_of
from optselect.report.page import as_html
from tests.support.plans import PLANS

RATES = {"adamw": 3e-3, "momentum": 0.1}


def tried(matters: str, count: int = 24) -> tuple[Trial, ...]:
    """Trials of a grid whose value depends on one parameter alone."""
    factors = {"optimizer": (*RATES,), "schedule": ("constant", "cosine"), "lr": (0.1, 0.3, 1.0, 3.0, 10.0, 0.5)}
    grid = [dict(zip(factors, each, strict=True)) for each in itertools.product(*factors.values())]
    return tuple(
        trial(
            str(each["optimizer"]),
            factor=float(each["lr"]),
            kind="cosine" if each["schedule"] == "cosine" else "constant",
            value=0.1 + factors[matters].index(each[matters]),
        )
        for each in grid[:count]
    )


def trial(name: str, *, factor: float, kind: str, value: float) -> Trial:
    schedule = Schedule(kind="cosine" if kind == "cosine" else "constant")
    made = Configuration(optimizer=name, hyperparameters={"lr": RATES[name] * factor}, schedule=schedule)
    return Trial(configuration=made, values={10: value}, reached=10, state="pruned")


def plan_of(trials: Sequence[Trial]) -> OptimizerPlan:
    return replace(PLANS["bare"](), trials=tuple(trials), monitor="val_loss")


@pytest.mark.parametrize("parameter", ["optimizer", "schedule", "lr"])
def test_what_alone_decides_has_nearly_all_of_the_share(parameter: str) -> None:
    found = importance(plan_of(tried(parameter)))

    assert found is not None
    assert next(iter(found.shares)) == parameter
    assert found.shares[parameter] > 0.9


def test_shares_sum_up_to_one_and_come_with_how_many_trials_they_rest_on() -> None:
    found = importance(plan_of(tried("lr")))

    assert found is not None
    assert (found.trials, found.rung) == (24, 10)
    assert sum(found.shares.values()) == pytest.approx(1)


def test_of_too_few_trials_nothing_is_said_but_how_many_there_are() -> None:
    found = importance(plan_of(tried("lr", FEWEST - 1)))

    assert found is not None
    assert (found.trials, found.shares) == (FEWEST - 1, {})
    assert f"there are {FEWEST - 1}" in as_html(plan_of(tried("lr", FEWEST - 1)))


def test_another_seed_and_an_optimizer_that_is_not_known_here_are_not_compared() -> None:
    trials = tried("lr")
    unknown = replace(trials[0], configuration=replace(trials[0].configuration, optimizer="of another package"))

    found = importance(plan_of([*trials, replace(trials[0], seed=1), unknown]))

    assert found == importance(plan_of(trials))


def test_one_that_diverged_comes_last_and_a_loss_without_bound_drowns_nothing() -> None:
    trials = tried("lr")
    worst = max(trials, key=lambda each: each.values[10])
    diverged = [replace(each, values={}, note="diverged") if each.values == worst.values else each for each in trials]
    huge = [replace(each, values={10: 1e300}) if each.values == worst.values else each for each in trials]

    as_it_was, without, beyond = (importance(plan_of(each)) for each in (trials, diverged, huge))

    assert as_it_was == without == beyond


def test_trials_that_all_came_to_the_same_say_nothing() -> None:
    same = [replace(each, values={10: 0.5}) for each in tried("lr")]

    assert "takes trials that differ to tell" in as_html(plan_of(same))


def test_rates_are_compared_by_where_they_stand_beside_their_optimizers_centre() -> None:
    places = [
        place_of(Configuration(optimizer=name, hyperparameters=catalogue.get(name).defaults()))
        for name in ("adamw", "sgd", "muon")
    ]

    own = place_of(Configuration(optimizer="user"))

    assert [place and place["lr"] for place in (*places, own)] == [0.0] * 4


def test_the_page_shows_the_shares_with_their_numbers() -> None:
    page = as_html(plan_of(tried("lr")))

    assert "What mattered" in page
    assert "learning rate" in page
