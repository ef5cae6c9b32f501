"""The trials of a plan as one looks at them: ranked, by optimizer, and along their rungs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from optselect.configuration import USER, format_value
from optselect.plan import OptimizerPlan, TrialRecord

OWN = "your own"
"""What the user's optimizer is called where there is little room."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One trial, with what sets it apart from the others.

    series  number of its optimizer, counted from 0: the chosen one first
    """

    record: TrialRecord
    series: int
    is_chosen: bool
    is_baseline: bool

    @property
    def name(self) -> str:
        """The optimizer."""
        return short(self.record.configuration.optimizer)

    @property
    def label(self) -> str:
        """`adamw lr=0.001`, with the seed where it is not the first."""
        sign = " × " if self.record.configuration.optimizer == USER else " lr="
        rate = f"{sign}{format_value(self.rate)}" if self.rate is not None else ""
        return f"{self.name}{rate}{f' (seed {self.record.seed})' if self.record.seed else ''}"

    @property
    def rate(self) -> float | None:
        """The peak learning rate, or the factor on the user's own (None: it has none)."""
        rate = self.record.configuration.rate
        return rate if rate is not None and rate > 0 else None

    @property
    def role(self) -> str:
        """`chosen`, `baseline`, both, or nothing."""
        return ", ".join(word for word, holds in (("chosen", self.is_chosen), ("baseline", self.is_baseline)) if holds)


def short(optimizer: str) -> str:
    """The optimizer's name for a reader."""
    return OWN if optimizer == USER else optimizer


def tried(plan: OptimizerPlan) -> list[Tried]:
    """The trials of `plan`: the chosen configuration first, then the baseline, then the others, the best first."""
    series = {name: number for number, name in enumerate(optimizers(plan))}
    chosen = plan.configuration.key
    baseline = plan.baseline.key if plan.baseline else None
    found = [
        Tried(
            record=record,
            series=series[record.configuration.optimizer],
            is_chosen=record.configuration.key == chosen,
            is_baseline=record.configuration.key == baseline,
        )
        for record in plan.trials
    ]
    return sorted(found, key=lambda each: _rank(plan, each))


def _rank(plan: OptimizerPlan, each: Tried) -> tuple[bool, bool, float, int]:
    at = main_rung(plan)
    value = each.record.values.get(at) if at is not None else None
    sign = 1.0 if plan.mode == "min" else -1.0
    return not each.is_chosen, not each.is_baseline, math.inf if value is None else sign * value, each.record.seed


def optimizers(plan: OptimizerPlan) -> list[str]:
    """The optimizers that were tried: the chosen one, then in the order in which they were begun."""
    names = dict.fromkeys(record.configuration.optimizer for record in plan.trials)
    return [plan.optimizer, *(name for name in names if name != plan.optimizer)]


def rungs(plan: OptimizerPlan) -> list[int]:
    """The micro-batches at which trials were judged."""
    return sorted({rung for record in plan.trials for rung in record.values})


def main_rung(plan: OptimizerPlan) -> int | None:
    """The rung at which most trials have a value, the later one where two have as many; None: there is none."""
    counts = Counter(rung for record in plan.trials for rung in record.values)
    return max(counts, key=lambda rung: (counts[rung], rung), default=None)


def best(plan: OptimizerPlan, rung: int) -> float:
    """The best value at `rung`."""
    choose = min if plan.mode == "min" else max
    return choose(record.values[rung] for record in plan.trials if rung in record.values)


def rate_name(plan: OptimizerPlan) -> str:
    """What trials are laid out by: rates, or factors where the user's own optimizer alone was tried."""
    return "factor on your own learning rate" if optimizers(plan) == [USER] else "peak learning rate"


def points(plan: OptimizerPlan, trials: Sequence[Tried], rung: int) -> Iterator[tuple[Tried, float, float]]:
    """Each trial of the first seed that has a rate and a value at `rung`, with both.

    A factor is no rate: the user's own optimizer is left out where it was not alone.
    """
    alone = optimizers(plan) == [USER]
    for each in trials:
        value = each.record.values.get(rung)
        comparable = alone or each.record.configuration.optimizer != USER
        if comparable and each.rate is not None and value is not None and each.record.seed == 0:
            yield each, each.rate, value
