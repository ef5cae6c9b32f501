"""The one place where the sign is decided."""

from __future__ import annotations

import pytest

from optselect.configuration import Goal, Mode

VALUES = (0.5, -1.0, 2.0)


@pytest.mark.parametrize("mode, best, worst", [("min", -1.0, 2.0), ("max", 2.0, -1.0)])
def test_the_best_value_has_the_least_loss_and_the_worst_the_most(mode: Mode, best: float, worst: float) -> None:
    goal = Goal(mode)

    assert (goal.best(VALUES), goal.worst(VALUES)) == (best, worst)
    assert goal.better(best, worst)
    assert not goal.better(best, best)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_loss_of_a_loss_is_the_value(mode: Mode) -> None:
    goal = Goal(mode)

    assert [goal.loss(goal.loss(value)) for value in VALUES] == list(VALUES)
