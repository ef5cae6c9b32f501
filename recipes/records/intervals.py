"""A number with its interval: the bootstrap over groups of trainings that belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

RESAMPLES, SEED = 1000, 0
Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number, its 95 % interval, and how many rows it was made of."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        """Return the number and its interval, as a table has it."""
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def estimates(groups: Iterable[Sequence[Row]], statistic: Callable[[Sequence[Row]], Sequence[float]]) -> list[Estimate]:
    """Compute numbers over all rows, with percentile intervals of `RESAMPLES` draws of whole groups.

    Rows of one group (a size of model, a workload) are not independent: so groups are drawn, not rows.
    """
    drawn = np.random.default_rng(SEED)
    every = list(groups)
    rows = [row for group in every for row in group]
    samples = np.array(
        [
            statistic([row for index in drawn.integers(len(every), size=len(every)) for row in every[index]])
            for _ in range(RESAMPLES)
        ]
    )
    low, high = np.nanpercentile(samples, (2.5, 97.5), axis=0)
    return [
        Estimate(value=float(value), low=float(least), high=float(most), count=len(rows))
        for value, least, most in zip(statistic(rows), low, high, strict=True)
    ]


def estimate(groups: Iterable[Sequence[Row]], statistic: Callable[[Sequence[Row]], float]) -> Estimate:
    """Compute one number with its interval."""
    return estimates(groups, lambda rows: (statistic(rows),))[0]


def median(values: Sequence[float]) -> float:
    """Return the median of what is a number; no number of nothing."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.median(known)) if known else float("nan")


def mean(values: Sequence[float]) -> float:
    """Return the mean; no number of nothing."""
    return float(np.mean(values)) if len(values) else float("nan")
