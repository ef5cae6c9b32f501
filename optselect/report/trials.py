"""The trials of a plan as one looks at them: ranked, by optimizer, and along their rungs."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from optselect.configuration import USER, Configuration, Trial
from optselect.plan import OptimizerPlan
from optselect.words import format_times, format_value

OWN = "yours"
"""What the user's optimizer is called where there is little room."""


def short(optimizer: str) -> str:
    """Name the optimizer for a reader."""
    return OWN if optimizer == USER else optimizer


def short_of(configuration: Configuration) -> str:
    """Name its optimizer for a reader; the user's own by its class: `yours: AdamW`."""
    kind = re.split(r"[ ,]", configuration.called, maxsplit=1)[0]
    return f"{OWN}: {kind}" if configuration.optimizer == USER and kind else short(configuration.optimizer)


def label(trial: Trial) -> str:
    """Label the trial in words: `adamw lr=0.001`, with the seed where it is not the first."""
    sign = " × " if trial.configuration.optimizer == USER else " lr="
    rate = rate_of(trial)
    at = f"{sign}{format_value(rate)}" if rate is not None else ""
    return f"{short(trial.configuration.optimizer)}{at}{f' (seed {trial.seed})' if trial.seed else ''}"


def rate_of(trial: Trial) -> float | None:
    """Return the peak learning rate, or the factor on the user's own (None: it has none)."""
    rate = trial.configuration.rate
    return rate if rate is not None and rate > 0 else None


def but_for_its_rate(configuration: Configuration) -> str:
    """Return what is equal for configurations that differ in their rate alone: along them a valley can be seen."""
    return configuration.at_rate(1.0).key


def is_chosen(plan: OptimizerPlan, trial: Trial) -> bool:
    """Tell whether it is a trial of what was chosen."""
    return trial.configuration.key == plan.configuration.key


def is_baseline(plan: OptimizerPlan, trial: Trial) -> bool:
    """Tell whether it is a trial of what the choice had to beat."""
    return plan.baseline is not None and trial.configuration.key == plan.baseline.key


def role(plan: OptimizerPlan, trial: Trial) -> str:
    """Say which it is: `chosen`, `baseline`, both, or nothing."""
    roles = (("chosen", is_chosen), ("baseline", is_baseline))
    return ", ".join(word for word, holds in roles if holds(plan, trial))


def relative_pace(plan: OptimizerPlan, trial: Trial) -> str:
    """Say how long a step took beside the baseline's: `1.4 ×`; nothing where one of the two is not known."""
    paces = [each.pace for each in plan.trials if is_baseline(plan, each) and each.pace]
    return f"{format_times(trial.pace / paces[-1])} ×" if trial.pace and paces else ""


def ranked(plan: OptimizerPlan) -> list[Trial]:
    """Sort the trials of `plan`: the chosen configuration first, then the baseline, then the others, the best first."""
    rung = main_rung(plan)

    def rank(trial: Trial) -> tuple[bool, bool, float, int]:
        value = trial.values.get(rung) if rung is not None else None
        loss = math.inf if value is None else plan.goal.loss(value)
        return not is_chosen(plan, trial), not is_baseline(plan, trial), loss, trial.seed

    return sorted(plan.trials, key=rank)


def optimizers(plan: OptimizerPlan) -> list[str]:
    """List the optimizers that were tried: the chosen one, then in the order in which they were begun."""
    names = dict.fromkeys(trial.configuration.optimizer for trial in plan.trials)
    return [plan.optimizer, *(name for name in names if name != plan.optimizer)]


def series(plan: OptimizerPlan) -> dict[str, int]:
    """Give each optimizer a number, counted from 0: the chosen one first."""
    return {name: number for number, name in enumerate(optimizers(plan))}


def rungs(plan: OptimizerPlan) -> list[int]:
    """List the micro-batches at which trials were judged."""
    return sorted({rung for trial in plan.trials for rung in trial.values})


def main_rung(plan: OptimizerPlan) -> int | None:
    """Find the rung at which most trials have a value, the later one where two have as many; None: there is none."""
    counts = Counter(rung for trial in plan.trials for rung in trial.values)
    return max(counts, key=lambda rung: (counts[rung], rung), default=None)


def best(plan: OptimizerPlan, rung: int) -> float:
    """Return the best value at `rung`."""
    return plan.goal.best(trial.values[rung] for trial in plan.trials if rung in trial.values)


def rate_name(plan: OptimizerPlan) -> str:
    """Name what trials are laid out by: rates, or factors where the user's own optimizer alone was tried."""
    return "factor on your own learning rate" if optimizers(plan) == [USER] else "peak learning rate"


def points(plan: OptimizerPlan, trials: Sequence[Trial], rung: int) -> Iterator[tuple[Trial, float, float]]:
    """Yield each trial of the first seed that has a rate and a value at `rung`, with both.

    A factor is no rate: the user's own optimizer is left out where it was not alone.
    """
    alone = optimizers(plan) == [USER]
    for trial in trials:
        rate, value = rate_of(trial), trial.values.get(rung)
        comparable = alone or trial.configuration.optimizer != USER
        if comparable and rate is not None and value is not None and trial.seed == 0:
            yield trial, rate, value
