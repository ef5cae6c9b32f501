"""A search beside a sweep of one's own rate at the same price; `docs/reference/own-sweep.md` is made of it.

    python -m tests.benchmarks.own_sweep

Short trainings of the benchmark's tasks, each with an optimizer of its own, AdamW at 1e-3. The sweep trains it at one,
three, ten and thirty times its rate, each in full, and takes the best by validation loss: what one does by hand for
four trainings. The search has the default budget, and knows no recorded training of the task's family. What either
chooses is trained with fresh seeds and judged on test data that neither has seen.
"""

from __future__ import annotations

import argparse
import logging
import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, TensorDataset

from optselect import TorchWorkload, select
from optselect.recipes.bench.task import Splits, Task, default_cache, training_loader
from optselect.recipes.bench.tasks import named
from optselect.recipes.bench.training import Recipe, train
from optselect.rules.portfolio import leaving_out
from optselect.search.progress import Silent

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "own-sweep.md"
RATE, FACTORS = 1e-3, (1.0, 10**0.5, 10.0, 10**1.5)
_FRESH = 201


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is run: the tasks with their steps, the searches, and the trainings of each choice."""

    tasks: tuple[tuple[str, int], ...]
    searches: int
    trainings: int


FULL = Scale(
    tasks=(
        ("penbased", 128),
        ("vowels", 128),
        ("kjv-gru", 100),
        ("segment", 150),
        ("mnist-cnn", 100),
        ("shapes", 120),
        ("tail", 150),
        ("seasons", 100),
    ),
    searches=3,
    trainings=3,
)
TINY = Scale(tasks=(("segment", 24),), searches=1, trainings=2)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one search seed gave.

    swept, ours  test losses of the two choices by fresh seed
    factor       of the sweep's choice on the own rate
    chosen       the search's choice in words
    cost         micro-batches of the search over those of the training
    """

    task: str
    steps: int
    swept: tuple[float, ...]
    ours: tuple[float, ...]
    factor: float
    chosen: str
    cost: float


def own_optimizer(factor: float) -> Recipe:
    """The training's own AdamW at `factor` times its rate."""

    def build(model: nn.Module, steps: int) -> tuple[Optimizer, LRScheduler | None]:
        del steps
        return AdamW(model.parameters(), lr=factor * RATE), None

    return Recipe(describe=f"AdamW at {factor * RATE:.3g}", identity={"own": factor}, build=build)


def searched(task: Task, data: Splits, seed: int) -> tuple[Recipe, str, float]:
    """Search with the default budget: the choice, in words, and its price in trainings."""
    model, own = task.new_model(seed), own_optimizer(1.0)
    workload = TorchWorkload(
        model,
        task.loss,
        training_loader(task, data, seed),
        DataLoader(TensorDataset(*data.val), batch_size=task.batch_size),
        steps=task.steps,
        user_optimizer=lambda model: own.build(model, task.steps),
    )
    with leaving_out(task.family):
        plan = select(workload, seed=seed, progress=Silent())
    recipe = Recipe(
        describe=plan.configuration.describe(),
        identity={"plan": plan.to_dict()},
        build=lambda model, steps: plan.build(model, total_steps=steps, own=lambda model: own.build(model, steps)),
        sparse=task.sparse,
    )
    return recipe, plan.configuration.describe(), plan.search_steps / task.steps


def compare(task: Task, data: Splits, seed: int, trainings: int) -> Outcome:
    """Sweep and search with one seed, and train both choices with the same fresh ones."""
    factor = min(FACTORS, key=lambda each: train(task, data, own_optimizer(each), seed).val)
    recipe, chosen, cost = searched(task, data, seed)
    fresh = range(_FRESH, _FRESH + trainings)
    return Outcome(
        task=task.name,
        steps=task.steps,
        swept=tuple(train(task, data, own_optimizer(factor), each).test for each in fresh),
        ours=tuple(train(task, data, recipe, each).test for each in fresh),
        factor=factor,
        chosen=chosen,
        cost=cost,
    )


def measured(scale: Scale) -> list[Outcome]:
    """Run all of `scale`."""
    found = []
    for name, steps in scale.tasks:
        (task,) = named([name])
        data = task.splits(default_cache())
        found += [compare(task.lasting(steps), data, seed, scale.trainings) for seed in range(scale.searches)]
    return found


def row(outcomes: Sequence[Outcome]) -> str:
    """Write a line of the table: one task, all searches."""
    swept = [loss for each in outcomes for loss in each.swept]
    ours = [loss for each in outcomes for loss in each.ours]
    differences = [statistics.fmean(each.ours) - statistics.fmean(each.swept) for each in outcomes]
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
    spread = statistics.stdev(ours) / math.sqrt(len(ours)) if len(ours) > 1 else math.nan
    first = outcomes[0]
    factors = " ".join(f"{each.factor:.3g}" for each in outcomes)
    return (
        f"| {first.task} | {first.steps} | {statistics.fmean(swept):.4g} | {statistics.fmean(ours):.4g} "
        f"| {statistics.fmean(differences):+.2g} | {max(error, spread):.2g} | {factors} "
        f"| {statistics.fmean(each.cost for each in outcomes):.1f} |"
    )


def page(found: Sequence[Outcome], scale: Scale) -> str:
    """Write the page of what was measured."""
    tasks = list(dict.fromkeys(each.task for each in found))
    rows = [row([each for each in found if each.task == name]) for name in tasks]
    chosen = [f"| {each.task} | {each.chosen} |" for each in found]
    return "\n".join(
        [
            "# Beside a sweep of one's own rate",
            "",
            "What most people do by hand: train their own optimizer at a few rates and take the best.",
            "Here that is AdamW at 1e-3 and at three, ten and thirty times that, each in full: four trainings.",
            "The search has the default budget on the same training, whose own optimizer is that AdamW.",
            "It knows no [recorded training](portfolio.md) of the task's family.",
            "It was measured when more arms began, and fewer went further.",
            f"Each was done with {scale.searches} seeds, each choice trained with {scale.trainings} fresh ones.",
            "Losses are those of test data.",
            "The standard error is that over searches, or that over trainings with the search's choice if it is more.",
            "",
            "<!-- not run: takes long -->",
            "```bash",
            "python -m tests.benchmarks.own_sweep",
            "```",
            "",
            "| task | steps | sweep | search | difference | standard error | factors of the sweep | price, trainings |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
            "## What was chosen",
            "",
            "| task | by the search |",
            "|---|---|",
            *chosen,
            "",
        ]
    )


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PAGE)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    logging.getLogger("optselect").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out.write_text(page(measured(FULL), FULL), encoding="utf-8")


if __name__ == "__main__":
    main()
