"""Suggestions of the Gaussian process: pure, inside the bounds, and drawn to what was good."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from optselect import catalogue
from optselect.configuration import USER, Configuration
from optselect.refine import suggestion
from optselect.rng import rng_state
from optselect.schedules import Schedule

SPECS = tuple(catalogue.get(name) for name in ("momentum", "nadam"))


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
    assert suggestion(tried(level=level), SPECS) == suggestion(tried(level=level), SPECS)


def test_a_suggestion_lies_inside_the_bounds_and_keeps_the_rest() -> None:
    for count in range(1, 11):
        configuration = suggestion(tried()[:count], SPECS)

        assert configuration is not None
        spec = catalogue.get(configuration.optimizer)
        assert all(spec.space[name].contains(value) for name, value in configuration.hyperparameters.items())
        assert configuration.schedule == Schedule(kind="cosine")
        assert configuration.hyperparameters.keys() == spec.defaults().keys()


def test_only_optimizers_that_were_judged_are_suggested() -> None:
    momentum = [item for item in tried() if item[0].optimizer == "momentum"]

    configuration = suggestion(momentum, SPECS)

    assert configuration is not None
    assert configuration.optimizer == "momentum"


def test_without_anything_to_vary_nothing_is_suggested() -> None:
    assert suggestion([], SPECS) is None
    assert suggestion([(Configuration(optimizer=USER), 1.0)], SPECS) is None
    assert suggestion(tried(), ()) is None


def test_a_suggestion_draws_no_random_number_of_the_training_and_warns_of_nothing() -> None:
    before = rng_state()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        suggestion(tried(), SPECS)

    after = rng_state()
    assert torch.equal(after.torch, before.torch)
    assert after.python == before.python
