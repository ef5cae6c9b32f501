"""From results to regrets, their means and intervals, and the table of the reference page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optselect.recipes.bench.oracle import Reference

_DRAWS = 4_000
_INTERVAL = (5, 95)


@dataclass(frozen=True, kw_only=True)
class Score:
    """One search: its regret, the standard error of that over fresh seeds, and its cost in trainings."""

    task: str
    method: str
    seed: int
    regret: float
    error: float
    cost: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A method over all tasks that count.

    interval  90 % of the means over tasks and seeds drawn again
    worse     tasks, whether they count or not, on which it loses to the default by more than a standard error
    """

    method: str
    tasks: int
    searches: int
    cost: float
    mean: float
    median: float
    interval: tuple[float, float]
    worse: tuple[str, ...]


def scores(rows: Iterable[Mapping[str, Any]], references: Mapping[str, Reference]) -> list[Score]:
    """Return the regret of every result whose task has a reference of the same length."""
    return [
        Score(
            task=row["task"],
            method=row["method"],
            seed=row["seed"],
            regret=references[row["task"]].regret(row["test"]),
            error=statistics.stdev(row["test"]) / len(row["test"]) ** 0.5 / abs(references[row["task"]].gap),
            cost=row["search_steps"] / row["steps"],
        )
        for row in rows
        if row["task"] in references and references[row["task"]].steps == row["steps"]
    ]


def summaries(found: Sequence[Score], references: Mapping[str, Reference]) -> list[Summary]:
    """Make one summary for each method, in the order in which methods first appear."""
    made = []
    for method in dict.fromkeys(score.method for score in found):
        by_task: dict[str, list[Score]] = {}
        for score in found:
            if score.method == method:
                by_task.setdefault(score.task, []).append(score)
        counted = {task: of for task, of in by_task.items() if references[task].counts}
        if not counted:
            continue
        every = [score for of in counted.values() for score in of]
        made.append(
            Summary(
                method=method,
                tasks=len(counted),
                searches=len(every),
                cost=statistics.fmean(score.cost for score in every),
                mean=statistics.fmean(statistics.fmean(score.regret for score in of) for of in counted.values()),
                median=statistics.median(score.regret for score in every),
                interval=_interval([[score.regret for score in of] for of in counted.values()]),
                worse=tuple(task for task, of in by_task.items() if _is_worse(of)),
            )
        )
    return made


def markdown(found: Sequence[Score], references: Mapping[str, Reference]) -> str:
    """Write three tables: the methods, the tasks' scales, and the regret of each method on each task."""
    rows = summaries(found, references)
    lines = [
        "| method | search cost | mean regret | 90 % interval | median | loses to default on | searches |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.method} | {row.cost:.2f} | {row.mean:.3f} | {row.interval[0]:.3f} to {row.interval[1]:.3f} "
        f"| {row.median:.3f} | {', '.join(row.worse) or 'none'} | {row.searches} |"
        for row in rows
    ]
    lines += ["", "| task | default | oracle | gap, sd | best of the grid |", "|---|---|---|---|---|"]
    for task, reference in references.items():
        ends = [statistics.fmean(end.values()) for end in (reference.default, reference.oracle)]
        left_out = "" if reference.counts else " (left out of the means)"
        lines.append(
            f"| {task}{left_out} | {ends[0]:.3f} | {ends[1]:.3f} | {reference.gap / reference.deviation:.1f} "
            f"| {reference.recipe} |"
        )
    lines += ["", f"| method | {' | '.join(references)} |", "|---" * (1 + len(references)) + "|"]
    for method in dict.fromkeys(score.method for score in found):
        of_method = [score for score in found if score.method == method]
        cells = [_cell([score for score in of_method if score.task == task]) for task in references]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(found: Sequence[Score]) -> str:
    if not found:
        return ""
    return f"{statistics.fmean(score.regret for score in found):.2f} ± {_error(found):.2f}"


def _error(found: Sequence[Score]) -> float:
    """Estimate the error of a task's mean regret: the spread of searches, or of the trainings' seeds if it is more."""
    between = statistics.stdev(score.regret for score in found) / len(found) ** 0.5 if len(found) > 1 else 0.0
    within = statistics.fmean(score.error for score in found)
    return max(between, within)


def _is_worse(found: Sequence[Score]) -> bool:
    return statistics.fmean(score.regret for score in found) - 1 > _error(found)


def _interval(regrets: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Bootstrap the interval: tasks are drawn with replacement, then the searches of each."""
    generator = np.random.default_rng(0)
    means = [
        np.mean([generator.choice(regrets[task], len(regrets[task])).mean() for task in tasks])
        for tasks in generator.integers(len(regrets), size=(_DRAWS, len(regrets)))
    ]
    low, high = np.percentile(means, _INTERVAL)
    return float(low), float(high)
