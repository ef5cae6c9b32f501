"""What a sweep of twelve optimizers on language models teaches (marin): rates, decay, order, Muon's other part."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optselect.recipes.records.intervals import Estimate, estimate, estimates, median
from optselect.recipes.records.rates import DIVERGED, vertex
from optselect.recipes.records.store import Record

# Parameters as the sweep's authors count them for a Chinchilla ratio of one: twenty tokens each.
PARAMETERS = {"130m": 1.34e8, "300m": 3.02e8, "520m": 5.37e8, "1.2b": 1.2e9}
TOKENS_PER_PARAMETER, SEQUENCE = 20, 4096
NAMES = {"soape": "soap", "mini": "adam-mini", "cautious": "cautious adamw"}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One optimizer at one size and length: the best configuration that was found, and changes of one thing.

    steps  of the optimizer, at the best configuration's batch
    """

    optimizer: str
    size: str
    chinchilla: int
    trained: tuple[Record, ...]

    @property
    def baseline(self) -> Record:
        """What was varied."""
        return next(each for each in self.trained if each["varied"] == "Baseline")

    @property
    def best(self) -> Record:
        """The lowest loss."""
        return min((each for each in self.trained if each["final"] is not None), key=lambda each: float(each["final"]))

    @property
    def steps(self) -> float:
        """Optimizer's steps of the best configuration."""
        tokens = PARAMETERS[self.size] * TOKENS_PER_PARAMETER * self.chinchilla
        return tokens / (SEQUENCE * float(self.best["hp"]["train_batch_size"]))

    def over(self, name: str) -> dict[float, float]:
        """Return final losses over one hyperparameter, the others as in the baseline; infinity where it diverged."""
        at = [each for each in self.trained if each is self.baseline or each["varied"].startswith(f"{name}=")]
        return {
            float(each["hp"][name]): math.inf if each["final"] is None else float(each["final"])
            for each in at
            if each["hp"].get(name) is not None
        }


def cells(records: Iterable[Record]) -> list[Cell]:
    """Put the trainings of one optimizer, size and length together, where the baseline is among them."""
    found: dict[tuple[str, str, int], list[Record]] = defaultdict(list)
    for each in records:
        name = str(each["optimizer"])
        found[NAMES.get(name, name), each["size"], each["chinchilla"]].append(each)
    return [
        Cell(optimizer=optimizer, size=size, chinchilla=ratio, trained=tuple(trained))
        for (optimizer, size, ratio), trained in sorted(found.items())
        if any(each["varied"] == "Baseline" for each in trained)
    ]


# --- rates ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SweepLaw:
    """rate = exp(constants[optimizer]) · steps^steps · batch^batch · parameters^size, one set of powers for all."""

    constants: Mapping[str, float]
    steps: float
    batch: float
    size: float

    def rate(self, cell: Cell) -> float:
        """Return the rate for a training. Raises `KeyError` for an optimizer it was not fitted on."""
        batch = float(cell.best["hp"]["train_batch_size"])
        powers = self.steps * math.log(cell.steps) + self.batch * math.log(batch)
        return math.exp(self.constants[cell.optimizer] + powers + self.size * math.log(PARAMETERS[cell.size]))


def sweep_law(seen: Sequence[Cell], quantity: str = "learning_rate") -> SweepLaw:
    """Fit the best rates (or another positive quantity) by least squares of logarithms."""
    optimizers = sorted({cell.optimizer for cell in seen})
    columns = [[*(float(cell.optimizer == each) for each in optimizers), *_logs(cell)] for cell in seen]
    values = [math.log(_best(cell, quantity)) for cell in seen]
    solved = [float(each) for each in np.linalg.lstsq(np.array(columns), np.array(values), rcond=None)[0]]
    return SweepLaw(
        constants=dict(zip(optimizers, solved, strict=False)), steps=solved[-3], batch=solved[-2], size=solved[-1]
    )


def exponents(seen: Sequence[Cell], quantity: str = "learning_rate") -> dict[str, Estimate]:
    """Return the powers of `sweep_law`, with intervals over cells of size and length."""

    def powers(rows: Sequence[Cell]) -> tuple[float, float, float]:
        law = sweep_law(rows, quantity)
        return law.steps, law.batch, law.size

    return dict(zip(("steps", "batch", "size"), estimates(_by_training(seen).values(), powers), strict=True))


def power_of_length(seen: Sequence[Cell], quantity: str = "learning_rate") -> Estimate:
    """Return the power of the steps at one size, whatever the batch was, with an interval over cells."""

    def power(rows: Sequence[Cell]) -> float:
        points: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        for cell in rows:
            points[cell.optimizer, cell.size].append((math.log(cell.steps), math.log(_best(cell, quantity))))
        return _slope(points.values())

    return estimate(_by_training(seen).values(), power)


def power_of_tokens(seen: Sequence[Cell]) -> float:
    """Return the power of the tokens in the rate of the sweep's own baselines, at one size."""
    points: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for cell in seen:
        rate = float(cell.baseline["hp"]["learning_rate"])
        points[cell.optimizer, cell.size].append((math.log(cell.chinchilla), math.log(rate)))
    return _slope(points.values())


def power_of_vertices(seen: Sequence[Cell]) -> tuple[float, int] | None:
    """Return the power of the length at one size and batch, over the vertices of its sweeps of rates, and their number.

    Finer than the powers of two that were tried. None where no size and batch has three vertices.
    """
    points: dict[tuple[str, float], list[tuple[float, float]]] = defaultdict(list)
    for cell in seen:
        tried = sorted(cell.over("learning_rate").items())
        best = vertex([rate for rate, _ in tried], [loss for _, loss in tried])
        if best is not None:
            batch = float(cell.baseline["hp"]["train_batch_size"])
            points[cell.size, batch].append((math.log(cell.chinchilla), math.log(best)))
    lines = [line for line in points.values() if len(line) > 2]
    return (_slope(lines), sum(map(len, lines))) if lines else None


def _slope(lines: Iterable[Sequence[tuple[float, float]]]) -> float:
    """Return the common slope of lines that have each its own height; no number where nothing varies."""
    centred = [np.array(each) - np.mean(each, axis=0) for each in lines]
    along, up = np.concatenate(centred).T
    return float(along @ up / (along @ along)) if along @ along > 0 else math.nan


def _best(cell: Cell, quantity: str) -> float:
    best = cell.best["hp"]
    if quantity == "rate times decay":
        return float(best["learning_rate"]) * float(best["weight_decay"])
    return float(best[quantity])


def _logs(cell: Cell) -> list[float]:
    batch = float(cell.best["hp"]["train_batch_size"])
    return [math.log(cell.steps), math.log(batch), math.log(PARAMETERS[cell.size])]


def _by_training(seen: Iterable[Cell]) -> dict[tuple[str, int], list[Cell]]:
    groups: dict[tuple[str, int], list[Cell]] = defaultdict(list)
    for cell in seen:
        groups[cell.size, cell.chinchilla].append(cell)
    return groups


def proposed(seen: Sequence[Cell], *, times: float = 1.0) -> list[tuple[Cell, float]]:
    """Propose a rate for each cell by the law of all *other* sizes; return its loss above the cell's best, nats.

    The recorded rate nearest below counts, or the lowest: rates were recorded in powers of two. Cells with one
    recorded rate say nothing and are left out.
    """
    excesses = []
    for size in PARAMETERS:
        others = [cell for cell in seen if cell.size != size]
        law = sweep_law(others)
        for cell in seen:
            over = cell.over("learning_rate")
            if cell.size == size and cell.optimizer in law.constants and len(over) > 1:
                rate = law.rate(cell) * times
                nearest = min(over, key=lambda known: abs(math.log(known / rate)))
                excesses.append((cell, over[nearest] - min(over.values())))
    return excesses


def cost_of_factor(seen: Sequence[Cell], factor: float) -> tuple[Estimate, float] | None:
    """Return the median loss above that of the best rate at `factor` times it, and the share that diverged."""
    losses: dict[object, list[float]] = defaultdict(list)
    for cell in seen:
        over = cell.over("learning_rate")
        best = min(over, key=lambda rate: over[rate])
        for rate, loss in over.items():
            if math.isclose(rate, best * factor):
                losses[cell.optimizer, cell.size, cell.chinchilla].append(min(loss - over[best], 9.0))
    if not losses:
        return None
    every = [each for found in losses.values() for each in found]
    return estimate(losses.values(), median), sum(each > DIVERGED for each in every) / len(every)


# --- decay, order, parts ----------------------------------------------------------------------------------


def spread(seen: Sequence[Cell], quantity: str) -> tuple[float, float, float]:
    """Return the least, the median and the greatest value among the best configurations of the cells."""
    values = sorted(_best(cell, quantity) for cell in seen)
    return values[0], median(values), values[-1]


def gains(seen: Sequence[Cell]) -> dict[tuple[str, int], dict[str, float]]:
    """Return the loss of each optimizer's best above that of AdamW's, nats, by size and length."""
    table = {}
    for (size, ratio), found in _by_training(seen).items():
        losses = {cell.optimizer: float(cell.best["final"]) for cell in found}
        if "adamw" in losses:
            table[size, ratio] = {name: loss - losses["adamw"] for name, loss in losses.items() if name != "adamw"}
    return table


def ratio_of_parts(seen: Sequence[Cell], optimizer: str, name: str) -> dict[float, Estimate]:
    """Return the loss above the cell's best of each ratio between the AdamW part's rate and the matrices', nats."""
    losses: dict[float, dict[object, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in seen:
        over = cell.over(name)
        if cell.optimizer == optimizer and len(over) > 1:
            for ratio, loss in over.items():
                losses[ratio][cell.size, cell.chinchilla].append(loss - min(over.values()))
    return {ratio: estimate(found.values(), median) for ratio, found in sorted(losses.items())}
