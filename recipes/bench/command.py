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

from optselect.errors import MissingExtraError
from optselect.recipes.bench import curves, oracle, plot, scores, tasks
from optselect.recipes.bench.calibration_tables import calibrate
from optselect.recipes.bench.contenders import STANDARD, method
from optselect.recipes.bench.methods import Arena, grid_point
from optselect.recipes.bench.oracle import Reference
from optselect.recipes.bench.task import Splits, Task, default_cache
from optselect.recipes.bench.training import Lines, Trainings

TINY_TASKS, TINY_METHODS, TINY_STEPS = ("digits",), ("default", "sweep", "ours@1"), 24


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `optselect bench` was asked for. None: all tasks, the standard methods, the user's cache folder.

    tiny         a short task, one seed and a small reference of its own: shows that everything works, and no more
    oracle       make the references, run no method
    redo         forget the results of these methods first; full trainings stay known
    curves       record the arms of the tasks' searches over whole trainings, run no method
    calibration  fit and check what a search's judgement goes by on recorded curves, run no method
    """

    tasks: Sequence[str] | None = None
    methods: Sequence[str] | None = None
    seeds: int = 3
    out: Path = Path("bench_runs")
    cache: Path | None = None
    tiny: bool = False
    oracle: bool = False
    redo: bool = False
    curves: bool = False
    calibration: bool = False


def bench(arguments: argparse.Namespace) -> None:
    """Run `optselect bench` with its parsed arguments."""
    names = {field.name for field in fields(Settings)}
    run(Settings(**{name: value for name, value in vars(arguments).items() if name in names}))


def run(settings: Settings, say: Callable[[str], None] = print) -> None:
    """Run what is missing, then write `benchmark.md` and `benchmark.svg` beside the results.

    Without matplotlib there is no picture. Raises `ConfigurationError` on a name that is none, and
    `MissingExtraError` when data are not installed.
    """
    if settings.curves:
        with _one_thread():
            _Session(settings, say).record_curves()
    if settings.calibration:
        calibrate(settings.out, say)
    if settings.curves or settings.calibration:
        return
    session = _Session(settings, say)
    with _one_thread():
        if settings.oracle or settings.tiny:
            session.make_references()
        if not settings.oracle:
            references = oracle.read(settings.out, session.tasks)
            session.run_methods(references)
            session.write(references)


class _Session:
    """The tasks and methods of one call, with their data and what is known already."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.say = say
        self.methods = settings.methods or (TINY_METHODS if settings.tiny else STANDARD)
        for name in self.methods:
            method(name)
        self.tasks = _chosen_tasks(settings)
        # All data before the first training: what is missing is said at once.
        cache = settings.cache or default_cache()
        self.data = {task.name: task.splits(cache) for task in self.tasks}
        self.trainings = Trainings(settings.out / "trainings.jsonl")
        self.results = Lines(settings.out / "results.jsonl")

    @property
    def seeds(self) -> range:
        """Those of the searches."""
        return range(1 if self.settings.tiny else self.settings.seeds)

    def make_references(self) -> None:
        grid = [grid_point("adamw", lr) for lr in (3e-3, 1e-2)] if self.settings.tiny else None
        for task in self.tasks:
            made = oracle.make_reference(task, self.data[task.name], self.trainings, grid)
            oracle.write(self.settings.out / oracle.FILE, {task.name: made}, "optselect bench --oracle")
            self.say(oracle.described(task, made))

    def record_curves(self) -> None:
        """Record seed by seed, then pack all that the folder has as the package carries it."""
        lines = Lines(self.settings.out / curves.FILE)
        for seed in self.seeds:
            for task in self.tasks:
                curves.record(task, self.data[task.name], seed, lines, self.say)
        curves.pack(lines.rows, self.settings.out / curves.PACKED)
        self.say(str(self.settings.out / curves.PACKED))

    def run_methods(self, references: Mapping[str, Reference]) -> None:
        """Run method by method: a run that is stopped has whole columns to show."""
        if self.settings.redo:
            self._forget()
        done = {_key(row) for row in self.results.rows}
        for name in self.methods:
            for task in self.tasks:
                for seed in self.seeds:
                    if (task.name, task.steps, name, seed) not in done:
                        row = _run_one(task, self.data[task.name], name, seed, self.trainings)
                        self.results.append(row)
                        self._say_result(row, references)

    def write(self, references: Mapping[str, Reference]) -> None:
        """Write the tables and the picture of all results of these tasks, those of earlier calls among them."""
        out = self.settings.out
        found = scores.scores(self.results.rows, references)
        table = scores.markdown(found, references)
        command = shlex.join(["optselect", *sys.argv[1:]])
        (out / "benchmark.md").write_text(f"`{command}`\n\n{table}", encoding="utf-8")
        self.say(f"\n{table}\n{out / 'benchmark.md'}")
        try:
            plot.draw(scores.summaries(found, references), out / "benchmark.svg")
        except MissingExtraError as error:
            self.say(f"no picture: {error}")
        else:
            self.say(str(out / "benchmark.svg"))

    def _forget(self) -> None:
        named = {task.name for task in self.tasks}
        self.results.keep(lambda row: row["method"] not in self.methods or row["task"] not in named)

    def _say_result(self, row: Mapping[str, Any], references: Mapping[str, Reference]) -> None:
        (score,) = scores.scores([row], references)
        self.say(
            f"{score.task:<10} {score.method:<14} seed {score.seed}: regret {score.regret:6.3f} "
            f"for {score.cost:6.2f} trainings in {row['search_seconds']:4.0f} s: {row['describe']}"
        )


def _chosen_tasks(settings: Settings) -> list[Task]:
    if settings.tiny:
        return [task.lasting(TINY_STEPS) for task in tasks.named(settings.tasks or TINY_TASKS)]
    return tasks.named(settings.tasks or list(tasks.TASKS))


def _run_one(task: Task, data: Splits, name: str, seed: int, trainings: Trainings) -> dict[str, Any]:
    """Run one search, and the full trainings with its choice on fresh seeds."""
    started = time.perf_counter()
    choice = method(name)(Arena(task=task, data=data, seed=seed, trainings=trainings))
    seconds = time.perf_counter() - started
    runs = [trainings.run(task, data, choice.recipe, fresh) for fresh in task.fresh_seeds]
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


def _key(row: Mapping[str, Any]) -> tuple[str, int, str, int]:
    return row["task"], row["steps"], row["method"], row["seed"]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: tiny tensors gain nothing from more, and sums come out the same on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
