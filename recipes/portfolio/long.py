"""What a search of a long training is worth, for a twentieth of it or for nothing.

The trainings are recorded workloads at 16 times their length, each searched without the records of its own family.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from optselect.recipes.bench.contenders import method
from optselect.recipes.bench.methods import COSINE, Arena, Choice
from optselect.recipes.bench.task import default_cache
from optselect.recipes.bench.training import Lines, Trainings, by_hand
from optselect.recipes.portfolio.build import Outcome
from optselect.recipes.portfolio.grid import AT_LENGTH, BASELINE
from optselect.recipes.portfolio.judge import figures
from optselect.recipes.portfolio.record import Job, task_of
from optselect.recipes.portfolio.workloads import LONGER, WORKLOADS

LENGTH = max(AT_LENGTH)
FILE = "long.jsonl"


def cosine(_: Arena) -> Choice:
    """Choose AdamW at 1e-3 with a cosine to zero."""
    return Choice(recipe=by_hand(torch.optim.AdamW, COSINE, lr=1e-3), search_steps=0)


METHODS: Mapping[str, Callable[[Arena], Choice]] = {
    "AdamW 1e-3, cosine": cosine,
    **{name: method(name) for name in ("lr_find", "prodigy", "schedule_free", "ours@0", "ours@0.05")},
}


@dataclass(frozen=True, kw_only=True)
class Score:
    """How far behind the best of the recorded points a method ended: 0 that one, 1 AdamW at a constant 1e-3."""

    workload: str
    method: str
    seed: int
    regret: float
    cost: float


def compare(
    found: Sequence[Outcome],
    folder: Path,
    *,
    names: Sequence[str] | None = None,
    methods: Sequence[str] = tuple(METHODS),
    seeds: int = 1,
    say: Callable[[str], None] = print,
) -> list[Score]:
    """Run what `folder` does not have of the methods on the long workloads `names` (None: all that were recorded)."""
    references = {each.name: each for each in found if each.length == LENGTH and each.has(AT_LENGTH[LENGTH])}
    chosen = [name for name in LONGER if name in references and (names is None or name in names)]
    lines, trainings = Lines(folder / FILE), Trainings(folder / "trainings.jsonl")
    done = {(row["workload"], row["method"], row["seed"]) for row in lines.rows}
    for seed in range(seeds):
        for name in chosen:
            wanted = [each for each in methods if (name, each, seed) not in done]
            if wanted:
                task = task_of(Job(workload=name, length=LENGTH))
                data = WORKLOADS[name].splits(default_cache().with_name("portfolio"))
            for each in wanted:
                choice = METHODS[each](Arena(task=task, data=data, seed=seed, trainings=trainings))
                ended = trainings.run(task, data, choice.recipe, seed)
                row: dict[str, Any] = {
                    "workload": name,
                    "method": each,
                    "seed": seed,
                    "test": ended.test,
                    "cost": choice.search_steps / task.steps,
                    "describe": choice.recipe.describe,
                }
                lines.append(row)
                say(f"{name} {each} seed {seed}: {references[name].regret_of(ended.test):.2f} {row['describe']}")
    return [
        Score(
            workload=row["workload"],
            method=row["method"],
            seed=row["seed"],
            regret=references[row["workload"]].regret_of(row["test"]),
            cost=row["cost"],
        )
        for row in lines.rows
        if row["workload"] in chosen
    ] + [_sweep(references[name]) for name in chosen]


def _sweep(reference: Outcome) -> Score:
    """Choose the best of the recorded rates of AdamW with a cosine by its last validation loss."""
    rates = [name for name in AT_LENGTH[LENGTH] if name.startswith("adamw") and name != BASELINE.name]
    best = min(rates, key=lambda name: reference.trainings[name].values[-1])
    return Score(
        workload=reference.name,
        method=f"sweep of {len(rates)} rates",
        seed=0,
        regret=reference.regret(best),
        cost=float(len(rates)),
    )


def report(scores: Sequence[Score]) -> str:
    """Write a row for each method, and a column for each workload."""
    names = list(dict.fromkeys(score.workload for score in scores))
    head = ["method", "cost, trainings", "mean", "median", "worst", "harm", *names]
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for each in dict.fromkeys(score.method for score in scores):
        of = [score for score in scores if score.method == each]
        regrets = [score.regret for score in of]
        by_name = [[score.regret for score in of if score.workload == name] for name in names]
        cells = [f"{statistics.fmean(some):.2f}" if some else "" for some in by_name]
        cost = f"{statistics.fmean(score.cost for score in of):.2f}"
        lines.append(f"| {' | '.join([each, cost, *figures(regrets), *cells])} |")
    return "\n".join(lines)
