"""The best learning rate over length, batch and size, and what a wrong one costs."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optselect.recipes.records.intervals import Estimate, estimate, estimates, mean, median
from optselect.recipes.records.store import Record

# A loss this far above the best of the same sweep, in nats, has diverged or never left its start.
DIVERGED = 0.3
LEAST_RATES, NEAR = 6, 0.02
CARRIED = (0.0, -0.15, -0.3, -0.5, -1.0)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Final losses of one training at several rates, rates ascending.

    size   parameters of the model
    batch  sequences a step
    steps  optimizer's steps
    """

    size: float
    tokens: float
    batch: float
    steps: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def lowest(self) -> float:
        """The lowest loss that was recorded."""
        return min(self.losses)

    @property
    def best(self) -> float | None:
        """The rate at the vertex of a parabola through the five losses around the lowest; None at the sweep's edge."""
        return vertex(self.rates, self.losses)

    def loss_at(self, rate: float) -> float | None:
        """Interpolate the loss over the rate's logarithm. None outside what was recorded."""
        if not self.rates[0] * 0.999 <= rate <= self.rates[-1] * 1.001:
            return None
        return float(np.interp(math.log(rate), np.log(self.rates), self.losses))


def vertex(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """Return the rate of the least loss, by a parabola over the rate's logarithm; None at an edge.

    The vertex stays between the neighbours of the lowest recorded loss. Beside a cliff, where a neighbour has
    diverged, it is the lowest itself.
    """
    index = int(np.argmin(losses))
    if index in {0, len(rates) - 1}:
        return None
    around = [place for place in range(max(index - 2, 0), index + 3) if place < len(rates)]
    around = [place for place in around if losses[place] < losses[index] + DIVERGED]
    logs = np.log(np.array(rates))
    if len(around) < 3 or losses[index + 1] >= losses[index] + DIVERGED:
        return rates[index]
    bend, slope, _ = np.polyfit(logs[around] - logs[index], np.array(losses)[around], 2)
    if bend <= 0:
        return rates[index]
    place = logs[index] - slope / (2 * bend)
    return float(np.exp(np.clip(place, logs[index - 1], logs[index + 1])))


# --- language models: Step law ----------------------------------------------------------------------------


def sweeps(records: Iterable[Record]) -> list[Sweep]:
    """Put Step law's trainings of one size, token count and batch together, where six rates or more were tried."""
    found: dict[tuple[float, float, int], list[Record]] = defaultdict(list)
    for each in records:
        found[each["N"], each["D"], each["batch_sequences"]].append(each)
    made = []
    for (size, tokens, batch), trained in found.items():
        # Two records of one rate come of another length by a step or two: the better counts.
        by_rate = sorted({each["lr"]: each for each in sorted(trained, key=lambda each: -each["final"])}.items())
        if len(by_rate) >= LEAST_RATES:
            made.append(
                Sweep(
                    size=size,
                    tokens=tokens,
                    batch=batch,
                    steps=trained[0]["steps"],
                    rates=tuple(rate for rate, _ in by_rate),
                    losses=tuple(each["final"] for _, each in by_rate),
                )
            )
    return made


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """rate = exp(constant) · steps^steps · batch^batch · size^size; batch in sequences, size in parameters."""

    constant: float
    steps: float
    batch: float
    size: float

    def rate(self, of: Sweep) -> float:
        """Return the rate for a training."""
        powers = self.steps * math.log(of.steps) + self.batch * math.log(of.batch) + self.size * math.log(of.size)
        return math.exp(self.constant + powers)


def power_law(seen: Sequence[Sweep]) -> PowerLaw:
    """Fit the best rates of sweeps by least squares of logarithms."""
    known = [(each, best) for each in seen if (best := each.best) is not None]
    columns = [[1, math.log(each.steps), math.log(each.batch), math.log(each.size)] for each, _ in known]
    solved = np.linalg.lstsq(np.array(columns), np.log([best for _, best in known]), rcond=None)[0]
    constant, steps, batch, size = (float(each) for each in solved)
    return PowerLaw(constant=constant, steps=steps, batch=batch, size=size)


def exponents(seen: Sequence[Sweep]) -> dict[str, Estimate]:
    """Return the powers of `power_law`, with intervals over cells of size and tokens."""

    def powers(rows: Sequence[Sweep]) -> tuple[float, float, float]:
        law = power_law(rows)
        return law.steps, law.batch, law.size

    return dict(zip(("steps", "batch", "size"), estimates(_by_cell(seen).values(), powers), strict=True))


def proposed(seen: Sequence[Sweep], *, times: float = 1.0) -> list[tuple[Sweep, float]]:
    """Propose a rate for each sweep by the law of all *other* sizes; return its loss above the sweep's best, nats.

    A rate outside what was recorded loses infinity: nobody knows what it does.
    """
    excesses = []
    for size in sorted({each.size for each in seen}):
        law = power_law([each for each in seen if each.size != size])
        for each in seen:
            if each.size == size:
                loss = each.loss_at(law.rate(each) * times)
                excesses.append((each, math.inf if loss is None else loss - each.lowest))
    return excesses


def near_best(seen: Sequence[Sweep]) -> list[Sweep]:
    """Keep the sweeps whose batch is about right: whose lowest loss is within `NEAR` of the best batch's."""
    lowest = {cell: min(each.lowest for each in sweeps) for cell, sweeps in _by_cell(seen).items()}
    return [each for each in seen if each.lowest <= lowest[each.size, each.tokens] + NEAR]


def proposed_with_batch(seen: Sequence[Sweep]) -> list[float]:
    """Propose batch and rate for each size and number of tokens by laws of all *other* sizes.

    The batch is a power of the tokens, and the recorded one nearest to it counts. The rate's law is that of batches
    that are about right. Returns losses above the lowest of all batches and rates, nats; infinity as in `proposed`.
    """
    excesses = []
    for (size, tokens), own in _by_cell(seen).items():
        others = [each for each in seen if each.size != size]
        best = [min(sweeps, key=lambda each: each.lowest) for sweeps in _by_cell(others).values()]
        power, constant = np.polyfit(np.log([each.tokens for each in best]), np.log([each.batch for each in best]), 1)
        wanted = constant + power * math.log(tokens)
        nearest = min(own, key=lambda each: abs(math.log(each.batch) - wanted))
        loss = nearest.loss_at(power_law(near_best(others)).rate(nearest))
        excesses.append(math.inf if loss is None else loss - min(each.lowest for each in own))
    return excesses


def cost_of_factors(seen: Sequence[Sweep], factors: Sequence[float]) -> dict[float, Estimate]:
    """Return the median loss above the lowest at the best rate times each factor, nats."""
    groups: dict[float, dict[object, list[float]]] = {factor: defaultdict(list) for factor in factors}
    for each in seen:
        for factor in factors:
            loss = each.loss_at(each.best * factor) if each.best else None
            if loss is not None:
                groups[factor][each.size, each.tokens].append(loss - each.lowest)
    return {factor: estimate(found.values(), median) for factor, found in groups.items()}


def cost_of_carrying(seen: Sequence[Sweep]) -> dict[float, Estimate]:
    """Return the mean loss above the lowest when the best recorded rate of a shorter training is carried over.

    By each of the powers `CARRIED` of the ratio of lengths, same size and batch, nats.
    """
    groups: dict[float, dict[object, list[float]]] = {power: defaultdict(list) for power in CARRIED}
    for short, long in itertools.permutations(seen, 2):
        if (short.size, short.batch) == (long.size, long.batch) and long.tokens > short.tokens:
            best = short.rates[int(np.argmin(short.losses))]
            for power in CARRIED:
                rate = best * (long.tokens / short.tokens) ** power
                loss = long.loss_at(min(max(rate, long.rates[0]), long.rates[-1]))
                groups[power][long.size, long.tokens].append((loss or math.inf) - long.lowest)
    return {power: estimate(found.values(), mean) for power, found in groups.items()}


def _by_cell(seen: Iterable[Sweep]) -> dict[tuple[float, float], list[Sweep]]:
    groups: dict[tuple[float, float], list[Sweep]] = defaultdict(list)
    for each in seen:
        groups[each.size, each.tokens].append(each)
    return groups


# --- constant rates: DeepOBS ------------------------------------------------------------------------------

OPTIMIZERS = {"AdamOptimizer": "adam", "GradientDescentOptimizer": "sgd", "MomentumOptimizer": "momentum"}
JUDGED: Mapping[str, Callable[[Record], Sequence[float | None]]] = {
    "training loss": lambda record: record["train_losses"],
    "last weights": lambda record: record["test_losses"],
    "best weights kept": lambda record: _kept(record["test_losses"]),
}
LENGTHS, SHORTEST = 12, 0.04


def constant_rates(records: Iterable[Record], judged: str) -> dict[str, dict[str, float]]:
    """Return the power of the length in the best constant rate, by optimizer and problem.

    A line through the best rates at twelve lengths, from a twenty-fifth of the longest on. What counts is one of
    `JUDGED`. A median of slopes between pairs (Theil 1950, Sen 1968): a jump to another valley is no trend.
    """
    found: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for each in records:
        found[OPTIMIZERS[each["setting"]], each["task"]].append(each)
    powers: dict[str, dict[str, float]] = defaultdict(dict)
    for (optimizer, task), trained in found.items():
        ordered = sorted(trained, key=lambda each: float(each["lr"]))
        curves = [JUDGED[judged](each) for each in ordered]
        last = max(map(len, curves)) - 1
        epochs = sorted({round(last * SHORTEST ** (1 - at / (LENGTHS - 1))) for at in range(LENGTHS)} - {0})
        rates = [each["lr"] for each in ordered]
        best = [(epoch, vertex(rates, [_at(curve, epoch) for curve in curves])) for epoch in epochs]
        powers[optimizer][task] = _slope([(epoch, rate) for epoch, rate in best if rate is not None])
    return powers


def _slope(points: Sequence[tuple[float, float]]) -> float:
    logs = [(math.log(length), math.log(rate)) for length, rate in points]
    pairs = [(two[1] - one[1]) / (two[0] - one[0]) for one, two in itertools.combinations(logs, 2)]
    return median(pairs)


def _at(curve: Sequence[float | None], epoch: int) -> float:
    value = curve[epoch] if epoch < len(curve) else None
    return math.inf if value is None else value


def _kept(curve: Sequence[float | None]) -> list[float]:
    return list(itertools.accumulate((math.inf if value is None else value for value in curve), min))
