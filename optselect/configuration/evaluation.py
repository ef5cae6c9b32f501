"""What a trial was judged at, with the parts that the value is made of: two trials are compared batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

Batches = tuple[tuple[float, float], ...]
"""(value, weight) of each validation batch, in order."""

# Lightning adds up in single precision; a share of the values' mean size.
_SAME_MEAN = 1e-5
# Beyond single precision sums of squares, too, would leave the range of a float.
_LARGEST = 3.4e38


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One value of the monitor at the weights of one moment.

    `of` makes one of parts that may not fit.

    value    as the workload reduces it
    batches  value and weight of each validation batch, in order, whose weighted mean it is; empty where it is no such
             mean, as of a metric over the whole set
    """

    value: float
    batches: Batches = ()

    @classmethod
    def of(cls, value: float, batches: Iterable[tuple[float, float]]) -> Evaluation:
        """Keep `batches` where single precision holds all and `value` is their weighted mean; else the one value."""
        batches = tuple(batches)
        return cls(value=value, batches=batches if _is_mean_of(value, batches) else ())


def paired(one: Evaluation, other: Evaluation) -> tuple[float, float] | None:
    """Return the mean of `one` less `other` over their batches, weighted, and its standard error.

    That of a ratio estimator (Cochran 1977, Sampling Techniques, section 6.4). None where they were not judged on the
    same batches as far as is known: there are fewer than two, or others, or of other weights.
    """
    weights = [weight for _, weight in one.batches]
    count = len(weights)
    if count < 2 or weights != [weight for _, weight in other.batches]:
        return None
    whole = math.fsum(weights)
    differences = [mine - theirs for (mine, _), (theirs, _) in zip(one.batches, other.batches, strict=True)]
    mean = math.fsum(w * d for w, d in zip(weights, differences, strict=True)) / whole
    spread = math.fsum((w * (d - mean)) ** 2 for w, d in zip(weights, differences, strict=True))
    return mean, math.sqrt(spread * count / (count - 1)) / whole


def _is_mean_of(value: float, batches: Batches) -> bool:
    # Not so of a NaN.
    if not all(abs(part) <= _LARGEST and 0 <= weight <= _LARGEST for part, weight in batches):
        return False
    whole = math.fsum(weight for _, weight in batches)
    if not whole:
        return False
    size = math.fsum(weight * abs(part) for part, weight in batches) / whole
    return abs(math.fsum(weight * part for part, weight in batches) / whole - value) <= _SAME_MEAN * size
