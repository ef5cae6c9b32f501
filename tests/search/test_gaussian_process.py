"""Suggestions of the Gaussian process: pure, inside the bounds, and drawn to what was good."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import pytest
import torch

from optselect import catalogue
from optselect.configuration import LR_SCALE, USER, USER_SPACE, Configuration
from optselect.configuration.schedule import Schedule
from optselect.search.gaussian_process import suggestion
from optselect.workload.rng import rng_state

SPECS = tuple(catalogue.get(name) for name in ("momentum", "nadam"))
SPACES = {**{spec.name: spec.space for spec in SPECS}, USER: USER_SPACE}


def tried(best: float = 0.03, level: float = 1.0) -> list[tuple[Configuration, float]]:
    found = []
    for spec in SPECS:
        for lr in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1):
            values = {**spec.defaults(), "lr": spec.space["lr"].clip(lr)}
            loss = level + abs(math.log10(lr / best))
            found.append(
                (Configuration(optimizer=spec.name, hyperparameters=values, schedule=Schedule(kind="cosine")), loss)
            )
    return sorted(found, key=lambda item: item[1])


@pytest.mark.parametrize("level", [1.0, 0.0, -1.0, -100.0])
def test_the_same_trials_give_the_same_suggestion(level: float) -> None:
    assert suggestion(tried(level=level), SPACES) == suggestion(tried(level=level), SPACES)


def test_a_suggestion_lies_inside_the_bounds_and_keeps_the_rest() -> None:
    for count in range(1, 11):
        configuration = suggestion(tried()[:count], SPACES)

        assert configuration is not None
        spec = catalogue.get(configuration.optimizer)
        assert all(spec.space[name].contains(value) for name, value in configuration.hyperparameters.items())
        assert configuration.schedule == Schedule(kind="cosine")
        assert configuration.hyperparameters.keys() == spec.defaults().keys()


def test_only_optimizers_that_were_judged_are_suggested() -> None:
    momentum = [item for item in tried() if item[0].optimizer == "momentum"]

    configuration = suggestion(momentum, SPACES)

    assert configuration is not None
    assert configuration.optimizer == "momentum"


def test_without_anything_to_vary_nothing_is_suggested() -> None:
    assert suggestion([], SPACES) is None
    assert suggestion(tried(), {}) is None


def test_the_users_own_optimizer_is_varied_by_factors_alone() -> None:
    own = Configuration(optimizer=USER)
    judged = [(own.at_rate(factor), 1.0 + abs(math.log10(factor / 2))) for factor in (1.0, 0.1, 10.0, 0.3, 3.0)]

    configuration = suggestion(sorted(judged, key=lambda item: item[1]), SPACES, {USER})

    assert configuration is not None
    assert (configuration.optimizer, configuration.schedule) == (USER, own.schedule)
    assert configuration.scales.keys() == {LR_SCALE}


def test_schedules_that_were_tried_are_suggested_except_where_there_is_none_to_choose() -> None:
    constant = [(replace(configuration, schedule=Schedule()), loss + 0.01) for configuration, loss in tried()]
    names = {spec.name for spec in SPECS}

    free = {suggestion([*tried()[:n], *constant], SPACES).schedule.kind for n in range(1, 11)}  # type: ignore[union-attr]
    kept = {suggestion([*constant, *tried()[:n]], SPACES, names).schedule.kind for n in range(1, 11)}  # type: ignore[union-attr]

    assert free == {"constant", "cosine"}
    assert kept == {"constant"}


def test_a_suggestion_draws_no_random_number_of_the_training_and_warns_of_nothing() -> None:
    before = rng_state()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        suggestion(tried(), SPACES)

    after = rng_state()
    assert torch.equal(after.torch, before.torch)
    assert after.python == before.python
