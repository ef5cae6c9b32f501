"""What a search takes beside its trials' own steps; `docs/reference/scheduling.md` is made of it.

    python -m tests.benchmarks.scheduling

One thread of one process. Shares are of wall-clock time, so that waiting for the disk counts. A search that is thrown
away goes first: what a process imports once is not a search's.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from optselect import TorchWorkload, catalogue, select
from optselect.configuration import Configuration, Evaluation
from optselect.search.gaussian_process import suggestion
from optselect.search.next_job import next_job
from optselect.search.progress import Preview, Silent
from optselect.search.race import Race
from optselect.study.opening import open_study
from optselect.study.storage import storage_of
from optselect.study.study import TrialStudy
from tests.benchmarks.overhead import cpu_seconds

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "scheduling.md"
INPUTS, CLASSES = 64, 10

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is run.

    width        of two hidden layers, which decides what a step takes
    batch        rows of one
    steps        of the training, of which most trials run a quarter
    budgets      of the searches, in trainings
    repetitions  of each search
    suggestions  after so many judged trials each
    finished     trials among which the next is chosen
    judged       trials that the sampler learns from
    """

    width: int = 128
    batch: int = 128
    steps: int = 800
    budgets: Sequence[float] = (1.0, 4.0)
    repetitions: int = 3
    suggestions: int = 12
    finished: int = 10_000
    judged: Sequence[int] = (10, 60, 200)


@dataclass(frozen=True, kw_only=True)
class Searched:
    """One search: its seconds, by what they went to, and its trials.

    opening  of the storage, which gets its tables
    profile  beside the gradients of its batches
    own      training, validation and those gradients
    rest     scheduling, the study, what is put aside and restored
    """

    budget: float
    where: str
    opening: float
    profile: float
    own: float
    rest: float
    trials: int


class Watched(TorchWorkload):
    """A training that says how long its own steps took."""

    own = 0.0
    profiled = 0.0
    begun = 0.0

    def train(self, micro_batches: int) -> Sequence[float | None]:
        return self._timed(lambda: super(Watched, self).train(micro_batches))

    def validate(self) -> Evaluation:
        return self._timed(super().validate)

    def backward(self, batch: Any) -> float:
        return self._timed(lambda: super(Watched, self).backward(batch))

    def proposed(self) -> None:
        """So far it was the profile."""
        self.profiled = time.perf_counter() - self.begun - self.own

    def _timed(self, work: Callable[[], T]) -> T:
        begun = time.perf_counter()
        try:
            return work()
        finally:
            self.own += time.perf_counter() - begun


class Proposed(Silent):
    """Tells the training when the profile is made."""

    def __init__(self, workload: Watched) -> None:
        self._workload = workload

    def proposed(self, preview: Preview) -> None:
        self._workload.proposed()


def measure_search(scale: Scale, budget: float, storage: str | None, repetition: int) -> Searched:
    """A search of a classifier from nothing to the plan."""
    torch.manual_seed(repetition)
    width = scale.width
    model = nn.Sequential(
        nn.Linear(INPUTS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, CLASSES)
    )
    rows = scale.batch * 64
    inputs = torch.randn(rows, INPUTS)
    targets = (inputs @ torch.randn(INPUTS, CLASSES)).argmax(1)
    train = DataLoader(TensorDataset(inputs, targets), batch_size=scale.batch, shuffle=True)
    val = DataLoader(TensorDataset(inputs[: rows // 8], targets[: rows // 8]), batch_size=scale.batch)
    workload = Watched(model, F.cross_entropy, train, val, steps=scale.steps)
    begun = time.perf_counter()
    opened = storage_of(storage)
    opening = time.perf_counter() - begun
    workload.begun = time.perf_counter()
    plan = select(workload, budget, storage=opened, seed=repetition, progress=Proposed(workload))
    rest = time.perf_counter() - workload.begun - workload.own - workload.profiled
    where = "memory" if storage is None else "SQLite" if storage.startswith("sqlite") else "journal"
    return Searched(
        budget=budget,
        where=where,
        opening=opening,
        profile=workload.profiled,
        own=workload.own,
        rest=rest,
        trials=len(plan.trials),
    )


def measure_searches(scale: Scale) -> list[Searched]:
    """With each budget in each storage, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        measure_search(replace(scale, steps=8), 1.0, f"sqlite:///{folder}/first.db", 0)
        return [
            measure_search(scale, budget, storage and storage.format(f"{folder}/{budget}-{repetition}"), repetition)
            for repetition in range(scale.repetitions)
            for budget in scale.budgets
            for storage in (None, "{}.journal", "sqlite:///{}.db")
        ]


def measure_next_job(scale: Scale) -> list[float]:
    """CPU seconds of reading a study of many ended trials and choosing the next job, once all were read before."""
    study = _filled(scale.finished)
    configurations = [evaluation.configuration for evaluation in study.trials()]
    race = Race(
        arms=tuple(configurations[:2]),
        baseline=configurations[0],
        horizon=400,
        steps=None,
        trials=2 * scale.finished,
        specs=(catalogue.get("adamw"),),
    )
    return [cpu_seconds(lambda: next_job(race, study.trials())) for _ in range(9)]


def measure_suggestion(judged: int, repetitions: int) -> list[float]:
    """CPU seconds that the sampler takes for one suggestion after so many `judged` trials."""
    space = {"adamw": catalogue.get("adamw").space}
    known = [(configuration, 1.0 + 1e-3 * index) for index, configuration in enumerate(_configurations(judged))]
    others = [[*known[:-1], (known[-1][0], 2.0 + index)] for index in range(repetitions)]
    return [cpu_seconds(partial(suggestion, each, space)) for each in others]


def _filled(count: int) -> TrialStudy:
    study = open_study(storage=None, name="many", mode="min", facts={})
    for index, configuration in enumerate(_configurations(count)):
        number = study.begin(configuration, 0, ["adamw"])
        study.report(number, reached=100, until=100, value=1.0 + 1e-4 * index, cost=101.0)
        study.finish(number, "complete", 1.0 + 1e-4 * index)
    return study


def _configurations(count: int) -> list[Configuration]:
    """AdamW at rates over three decades."""
    base = Configuration(optimizer="adamw", hyperparameters=catalogue.get("adamw").defaults())
    return [base.at_rate(1e-5 * 10 ** (3 * index / count)) for index in range(count)]


# --- the page ---------------------------------------------------------------------------------------------


def page(scale: Scale) -> str:
    """Measure all of it, and say so as docs/reference/scheduling.md."""
    searches = measure_searches(scale)
    kinds = list(dict.fromkeys((each.budget, each.where) for each in searches))
    rows = "\n".join(
        _search_row([each for each in searches if (each.budget, each.where) == kind]) for kind in sorted(kinds)
    )
    suggestions = "\n".join(
        f"| {count} | {_spread(measure_suggestion(count, scale.suggestions))} |" for count in scale.judged
    )
    packages = ("optselect", "optuna", "torch")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    return f"""# What a search takes beside its trials

The scheduler, the study and its storage, the snapshots and the profile, beside the steps of the trials.
[What a trial's own steps cost](overhead.md) against a plain loop is another page.
This one is written by

<!-- not run: takes long -->
```bash
make scheduling                        # python -m tests.benchmarks.scheduling
```

Wall-clock time of one process with one thread; {versions}, Python {platform.python_version()}, {platform.machine()}.

## A search

A perceptron with two hidden layers of {scale.width}, {scale.steps} steps of {scale.batch} rows.
Each kind of search was run {scale.repetitions} times, in turn; medians, with the smallest and the largest in brackets.
Its own steps are training, validation and the gradients of the profile.
The profile is what reading data and model takes beside them, once a search.
Opening the storage, which gets its tables, is another thing done once.
The rest, from the profile to the plan, is scheduling, the study, and what is put aside and restored.
No search here is large enough for the sampler, whose time stands below.

| trainings | study in | trials | s a trial | opening, ms | profile, ms | the rest, % of own steps | goal: under 2 % |
|---|---|---|---|---|---|---|---|
{rows}

{_beyond_memory(searches)}

## The sampler

Searches of six trainings and more ask Optuna's Gaussian process where to look next; one suggestion in four is random.

| judged trials | one suggestion, ms of CPU time |
|---|---|
{suggestions}

A search never shows it more than 200 trials, and asks for none once 60 have been judged at a quarter.

## The next job

Reading a study of {scale.finished:,} ended trials and choosing the next job: {_spread(measure_next_job(scale))} ms.
It is CPU time, too; the goal is a median under 50 ms.
"""


def _search_row(searches: Sequence[Searched]) -> str:
    first = searches[0]
    shares = [each.rest / each.own for each in searches]
    trial = statistics.median(each.own / each.trials for each in searches)
    reached = "reached" if statistics.median(shares) < 0.02 else "**missed**"
    trials = statistics.median_low(each.trials for each in searches)
    opening, profile = (_spread([getattr(each, part) for each in searches]) for part in ("opening", "profile"))
    share = _spread(shares, 100, digits=1)
    return (
        f"| {first.budget:g} | {first.where} | {trials} | {trial:.1f} | {opening} | {profile} | {share} | {reached} |"
    )


def _beyond_memory(searches: Sequence[Searched]) -> str:
    """Say what a trial of the largest budget takes more where its study is on disk."""
    budget = max(each.budget for each in searches)
    kept = list(dict.fromkeys(each.where for each in searches))

    def a_trial(where: str) -> float:
        known = [each for each in searches if (each.budget, each.where) == (budget, where)]
        return statistics.median(each.rest / each.trials for each in known)

    more = {where: a_trial(where) - a_trial("memory") for where in sorted(kept) if where != "memory"}
    said = " and ".join(f"{1_000 * seconds:.0f} ms in {where}" for where, seconds in more.items())
    enough = max(more.values()) / 0.02
    return (
        f"With {budget:g} trainings a study on disk takes {said} for each trial beyond what it takes in memory, the "
        f"state that the trial goes on from included.\nThat is less than 2 % of a trial that takes {enough:.1f} s."
    )


def _spread(values: Sequence[float], unit: float = 1_000, *, digits: int = 0) -> str:
    low, middle, high = (unit * value for value in (min(values), statistics.median(values), max(values)))
    return f"{middle:.{digits}f} ({low:.{digits}f}, {high:.{digits}f})"


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3, help="of each search")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("optselect").setLevel(logging.ERROR)
    PAGE.write_text(page(Scale(repetitions=given.repetitions)))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
