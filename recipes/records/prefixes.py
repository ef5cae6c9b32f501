"""What the beginning of a long training tells about its end, where random configurations were trained to the end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optselect.recipes.records.intervals import SEED, Estimate
from optselect.recipes.records.store import Record

ARMS, DRAWS = 16, 2000
SHARES = (0.02, 0.05, 0.1, 0.25, 0.5, 0.75)
_RATES = ("lr", "learning_rate")


@dataclass(frozen=True, eq=False)
class Searched:
    """One training of a random search.

    shares  of its own length, at which it was judged
    values  accuracy there
    """

    rate: float
    shares: np.ndarray
    values: np.ndarray

    @property
    def final(self) -> float:
        """The accuracy at the end; 0 for one that ended before."""
        return float(self.values[-1]) if len(self.shares) and self.shares[-1] >= 1 else 0.0

    def at(self, share: float) -> float:
        """Return the accuracy at a share of the length; 0 for one that has ended."""
        if not len(self.shares) or share > self.shares[-1]:
            return 0.0
        return float(np.interp(share, self.shares, self.values))


def searched(records: Iterable[Record], task: str) -> list[Searched]:
    """Read the random search on one task of opda."""
    found = []
    for each in records:
        if each["task"] == task:
            hp, curve = each["hp"], each["curve"]
            if "epochs" in hp:
                points = [((point["epoch"] + 1) / hp["epochs"], point["top_1"]) for point in curve]
            else:
                points = [(point["step"] / hp["total_model_steps"], point["accuracy"]) for point in curve]
            shares, values = np.array(points or [(0.0, 0.0)], dtype=float).T
            rate = next(hp[name] for name in _RATES if name in hp)
            found.append(Searched(rate=rate, shares=shares, values=np.nan_to_num(values)))
    return found


@dataclass(frozen=True, kw_only=True)
class Pick:
    """The arm that leads at a share of the length, of `ARMS` at random, or the best of the four that lead.

    share     of the length
    loses     accuracy at the end below the best arm's, mean of `DRAWS` draws
    of_four   the same if the four that lead are trained to the end
    rate      median of its rate over the best arm's
    """

    share: float
    loses: Estimate
    of_four: Estimate
    rate: float


def picks(found: Sequence[Searched], shares: Iterable[float] = SHARES) -> list[Pick]:
    """Pick among random arms at each share of the length."""
    drawn = np.random.default_rng(SEED)
    finals = np.array([each.final for each in found])
    rates = np.array([each.rate for each in found])
    draws = np.array([drawn.choice(len(found), size=min(ARMS, len(found)), replace=False) for _ in range(DRAWS)])
    best = finals[draws].max(axis=1)
    rows = []
    for share in shares:
        seen = np.array([each.at(share) for each in found])
        order = np.take_along_axis(draws, np.argsort(-seen[draws], axis=1, kind="stable"), axis=1)
        winner = np.take_along_axis(draws, finals[draws].argmax(axis=1)[:, None], axis=1)[:, 0]
        rows.append(
            Pick(
                share=share,
                loses=_mean(best - finals[order[:, 0]]),
                of_four=_mean(best - finals[order[:, :4]].max(axis=1)),
                rate=float(np.median(rates[order[:, 0]] / rates[winner])),
            )
        )
    return rows


def _mean(values: np.ndarray) -> Estimate:
    """Return the mean with an interval by its standard error, of the draws alone."""
    half = 1.96 * float(np.std(values)) / math.sqrt(len(values))
    centre = float(np.mean(values))
    return Estimate(value=centre, low=centre - half, high=centre + half, count=len(values))


def rate_over_length(records: Iterable[Record], task: str) -> Mapping[str, Estimate]:
    """Return the powers of length and batch in the best rate: a paraboloid over logarithms, of the better half.

    Random searches never repeat a length. So the final accuracy is fitted as a quadratic of log rate (over one less
    momentum), log length and log batch, and the ridge of it is the best rate. Intervals by the bootstrap of trainings.
    """
    rows = [
        (_effective_rate(each["hp"]), *_length_and_batch(each["hp"]), final)
        for each in records
        if each["task"] == task and (final := _final(each)) is not None
    ]
    table = np.array(rows)
    table = table[table[:, 3] >= np.median(table[:, 3])]
    drawn = np.random.default_rng(SEED)
    samples = [_ridge(table[drawn.integers(len(table), size=len(table))]) for _ in range(200)]
    low, high = np.percentile(samples, (2.5, 97.5), axis=0)
    return {
        name: Estimate(value=value, low=float(low[place]), high=float(high[place]), count=len(table))
        for place, (name, value) in enumerate(zip(("length", "batch"), _ridge(table), strict=True))
    }


def _ridge(table: np.ndarray) -> tuple[float, float]:
    rate, length, batch = (np.log(column) - np.log(column).mean() for column in table.T[:3])
    columns = [np.ones(len(rate)), rate, length, batch, rate**2, rate * length, rate * batch, length**2, batch**2]
    fitted = np.linalg.lstsq(np.column_stack([*columns, length * batch]), table[:, 3], rcond=None)[0]
    return float(-fitted[5] / (2 * fitted[4])), float(-fitted[6] / (2 * fitted[4]))


def _effective_rate(hp: Record) -> float:
    return float(hp["lr"] / (1 - hp["momentum"]) if "momentum" in hp else hp["learning_rate"])


def _length_and_batch(hp: Record) -> tuple[float, float]:
    if "epochs" in hp:
        return float(hp["epochs"]), float(hp["batch_size"])
    return float(hp["num_train_epochs"]), float(hp["train_batch_size"])


def _final(record: Record) -> float | None:
    curve = record["curve"]
    if not curve:
        return None
    last = curve[-1].get("top_1", curve[-1].get("accuracy"))
    return None if last is None else float(last)
