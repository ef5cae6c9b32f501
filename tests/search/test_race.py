"""What trials count as in a race whose training keeps the weights of its best value."""

from __future__ import annotations

import pytest

from optselect.configuration import Batches, Configuration, Goal, Mode, Trial
from optselect.search.race import Race

SGD = Configuration(optimizer="sgd", hyperparameters={"lr": 0.1})
VALUES = {25: 0.9, 50: 0.7, 100: 0.8}
PARTS: dict[int, Batches] = {rung: ((value, 8.0), (value, 2.0)) for rung, value in VALUES.items()}
TRIAL = Trial(configuration=SGD, values=VALUES, batches=PARTS, reached=100)


def race(*, keeps_best: bool, mode: Mode = "min") -> Race:
    return Race(
        arms=(SGD,), baseline=SGD, horizon=100, steps=None, keeps_best=keeps_best, goal=Goal(mode), least_rung=25
    )


@pytest.mark.parametrize("mode, kept", [("min", [25, 50, 50]), ("max", [25, 25, 25])])
def test_the_parts_are_those_of_the_rung_whose_value_is_kept(mode: Mode, kept: list[int]) -> None:
    found = race(keeps_best=True, mode=mode).as_kept(TRIAL)

    assert [found.evaluation(rung) for rung in VALUES] == [TRIAL.evaluation(rung) for rung in kept]


def test_where_the_last_weights_count_a_trial_stays_as_it_is() -> None:
    assert race(keeps_best=False).as_kept(TRIAL) is TRIAL


def test_a_better_value_without_parts_takes_none_from_another_rung() -> None:
    trial = Trial(configuration=SGD, values=VALUES, batches={25: PARTS[25]}, reached=100)

    found = race(keeps_best=True).as_kept(trial)

    assert [found.evaluation(rung).batches for rung in VALUES] == [PARTS[25], (), ()]
