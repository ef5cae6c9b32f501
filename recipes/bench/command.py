"""`optselect bench`: every method on every task, seed by seed; what has been done is not done again."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from optselect.recipes.bench import oracle, plot, scores, tasks
from optselect.recipes.bench.methods import STANDARD, Arena, grid_point, method
from optselect.recipes.bench.oracle import FRESH_SEEDS, Reference
from optselect.recipes.bench.tasks import Splits, Task
from optselect.recipes.bench.training import Lines, Trainings

TINY_TASKS, TINY_METHODS, TINY_STEPS = ("digits",), ("default", "sweep", "ours@1"), 24


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `optselect bench` was asked for. None: all tasks, the standard methods, the user's cache folder.

    tiny    one short task, one seed and its own small reference: shows that everything works, and nothing else
    oracle  make the references, run no method
    redo    forget the results of these methods first; full trainings stay known
    """

    tasks: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    seeds: int = 3
    out: Path = Path("bench_runs")
    cache: Path | None = None
    tiny: bool = False
    oracle: bool = False
    redo: bool = False


def bench(arguments: argparse.Namespace) -> None:
    """`optselect bench` with its parsed arguments."""
    names = {field.name for field in fields(Settings)}
    run(Settings(**{name: value for name, value in vars(arguments).items() if name in names}))


def run(settings: Settings, say: Callable[[str], None] = print) -> None:
    """Run what is missing, then write `benchmark.md` and `benchmark.svg` beside the results in `settings.out`.

    Raises `ConfigurationError` on a name that is none, and `MissingExtraError` when data are not installed.
    """
    names = settings.methods or (TINY_METHODS if settings.tiny else STANDARD)
    for name in names:
        method(name)
    chosen = _chosen_tasks(settings)
    # All data before the first training: what is missing is said at once.
    data = {task.name: task.splits(settings.cache or tasks.default_cache()) for task in chosen}
    trainings = Trainings(settings.out / "trainings.jsonl")
    with _one_thread():
        if settings.oracle or settings.tiny:
            _make_references(chosen, data, trainings, settings, say)
        if not settings.oracle:
            references = oracle.read(settings.out, chosen)
            results = _run_methods(chosen, data, names, trainings, settings, references, say)
            _write(results, references, settings.out, say)


def _chosen_tasks(settings: Settings) -> list[Task]:
    if settings.tiny:
        return [task.lasting(TINY_STEPS) for task in tasks.named(settings.tasks or TINY_TASKS)]
    return tasks.named(settings.tasks or list(tasks.TASKS))


def _make_references(
    chosen: Sequence[Task], data: Mapping[str, Splits], trainings: Trainings, settings: Settings, say: Callable[[str], None]
) -> None:
    grid = [grid_point("adamw", lr) for lr in (3e-3, 1e-2)] if settings.tiny else None
    for task in chosen:
        made = oracle.make_reference(task, data[task.name], trainings, grid, say)
        oracle.write(settings.out / oracle.FILE, {task.name: made}, "optselect bench --oracle")


def _run_methods(
    chosen: Sequence[Task],
    data: Mapping[str, Splits],
    names: Sequence[str],
    trainings: Trainings,
    settings: Settings,
    references: Mapping[str, Reference],
    say: Callable[[str], None],
) -> list[dict[str, Any]]:
    results = Lines(settings.out / "results.jsonl")
    if settings.redo:
        mine = {task.name for task in chosen}
        results.keep(lambda row: row["method"] not in names or row["task"] not in mine)
    done = {_key(row) for row in results.rows}
    # Method by method: a run that is stopped has whole columns to show.
    for name in names:
        for task in chosen:
            for seed in range(1 if settings.tiny else settings.seeds):
                if (task.name, task.steps, name, seed) in done:
                    continue
                row = _run_one(task, data[task.name], name, seed, trainings)
                results.append(row)
                (score,) = scores.scores([row], references)
                say(
                    f"{task.name:<10} {name:<14} seed {seed}: regret {score.regret:6.3f} for {score.cost:6.2f} trainings "
                    f"in {row['search_seconds']:4.0f} s: {row['describe']}"
                )
    return results.rows


def _run_one(task: Task, data: Splits, name: str, seed: int, trainings: Trainings) -> dict[str, Any]:
    """One search, and the full trainings with its choice on fresh seeds."""
    started = time.perf_counter()
    choice = method(name)(Arena(task=task, data=data, seed=seed, trainings=trainings))
    seconds = time.perf_counter() - started
    runs = [trainings.run(task, data, choice.recipe, fresh) for fresh in FRESH_SEEDS]
    return {
        "task": task.name,
        "steps": task.steps,
        "method": name,
        "seed": seed,
        "search_steps": choice.search_steps,
        "search_seconds": round(seconds, 2),
        "recipe": choice.recipe.key,
        "describe": choice.recipe.describe,
        "val": [each.val for each in runs],
        "test": [each.test for each in runs],
    }


def _write(
    results: Sequence[Mapping[str, Any]], references: Mapping[str, Reference], out: Path, say: Callable[[str], None]
) -> None:
    found = scores.scores(results, references)
    table = scores.markdown(found, references)
    command = shlex.join(["optselect", *sys.argv[1:]])
    (out / "benchmark.md").write_text(f"`{command}`\n\n{table}", encoding="utf-8")
    plot.draw(scores.summaries(found, references), out / "benchmark.svg")
    say(f"\n{table}\n{out / 'benchmark.md'}\n{out / 'benchmark.svg'}")


def _key(row: Mapping[str, Any]) -> tuple[str, int, str, int]:
    return row["task"], row["steps"], row["method"], row["seed"]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from more, and sums come out the same on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
