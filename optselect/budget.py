"""What a search may cost, in micro-batches: one forward and backward pass each, a validation batch a third."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from optselect.errors import BudgetError

VALIDATION_COST = 1 / 3
"""A forward pass alone: a third of it with a backward one (Kaplan et al. 2020, arXiv:2001.08361: 2N of 6N FLOPs)."""

UNKNOWN_LENGTH_STEPS = 1_000
"""The default where the length of the training is not known."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits on a search; whichever is reached first ends it. None: no such limit.

    steps    micro-batches in all, profile, trials and validation included
    seconds  wall-clock time of the trials on the first process: they go as far as the pace of the first few
             micro-batches lets them, and a job that would not end in time, at the pace of those before it, is not begun
    trials   trials started
    """

    steps: int | None = None
    seconds: float | None = None
    trials: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "seconds", "trials"):
            value = getattr(self, name)
            if value is not None and not _is_amount(value):
                raise BudgetError(f"a budget is a finite number, 0 or more, but got {name}={value!r}; None is no limit")
        if self.steps is None and self.seconds is None and self.trials is None:
            raise BudgetError("a Budget needs at least one of steps, seconds and trials")

    @property
    def searches(self) -> bool:
        """Whether any trial may run."""
        return 0 not in (self.steps, self.seconds, self.trials)

    def at_pace(self, seconds_per_micro_batch: float, *, spent: int) -> Budget:
        """Give the seconds as micro-batches, too: those of the trials, and what was `spent` before them.

        So a search knows from the start how far its trials can go; the clock still has the last word.
        """
        if self.seconds is None or not seconds_per_micro_batch:
            return self
        steps = spent + int(self.seconds / seconds_per_micro_batch)
        return replace(self, steps=steps if self.steps is None else min(steps, self.steps))


def resolve_budget(budget: float | Budget | None, horizon: int | None) -> Budget:
    """Turn `budget` into the limits for a training of `horizon` micro-batches (None: not known).

    A number is a share of the training. None is the default: 2,000 micro-batches, but at most four
    trainings and at least a twentieth of one. So a tiny training is searched thoroughly, and a long one
    pays a twentieth of itself. Raises `BudgetError` on a negative number, and on a share of a training
    whose length is not known.
    """
    if isinstance(budget, Budget):
        return budget
    if budget is not None and not _is_amount(budget):
        raise BudgetError(f"budget is a share of the training's steps, 0 or more, but got {budget!r}")
    if horizon is None:
        if budget:
            raise BudgetError(
                f"budget={budget!r} is a share of the training, whose length is not known here (a stream, max_time "
                "or a changing accumulation); pass Budget(steps=...)"
            )
        return Budget(steps=UNKNOWN_LENGTH_STEPS if budget is None else 0)
    if budget is None:
        return Budget(steps=default_steps(horizon))
    return Budget(steps=int(budget * horizon))


def _is_amount(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < math.inf


def default_steps(horizon: int) -> int:
    """Return how many micro-batches are spent by default on a training of `horizon` micro-batches."""
    return int(min(max(2_000, horizon / 20), 4 * horizon))
