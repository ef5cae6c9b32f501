"""What several workers gain, and what sharing costs them; `docs/reference/workers.md` is made of it.

    python -m tests.benchmarks.workers

The scheduler, the claims and the storage are real, and the processor's time for them counts; the trials are made up, on
a clock that is made up, too. Each worker is thought to have a processor of its own.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.storages import BaseStorage

from optselect import catalogue
from optselect.configuration import Configuration, Evaluation, Trial
from optselect.search.next_job import next_turns
from optselect.search.outcome import Outcome
from optselect.search.race import Job, Race
from optselect.search.sequence import in_turn
from optselect.study.storage import storage_of
from optselect.study.study import TrialStudy
from tests.laws.playing import Judge, judges_untrained, plain, pure_suggestion, race_of, suggestions_by, trained_length
from tests.laws.specs import race
from tests.support.fleet import Fleet, Ran, judged

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "workers.md"
Takes = Callable[[Job, random.Random], float]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is run.

    wide       pairs of workers and jobs of one stage
    uneven     workers, at most, that are run with uneven jobs and with deaths, too
    storages   of which each runs the second of these
    trainings  budgets of whole searches
    workers    on each of them
    finished   trials among which the next jobs are chosen
    """

    wide: Sequence[tuple[int, int]] = ((1, 200), (4, 200), (16, 320), (64, 384), (256, 512))
    uneven: int = 16
    storages: Sequence[str] = ("memory", "journal", "SQLite")
    trainings: Sequence[float] = (1.0, 2.5, 4.0, 8.0)
    workers: Sequence[int] = (1, 2, 4, 8, 16)
    finished: Sequence[int] = (100, 1_000, 5_000, 10_000, 30_000)


def wide_race(count: int) -> Race:
    """A race that asks for `count` jobs at once."""
    base = Configuration(optimizer="adamw", hyperparameters=catalogue.get("adamw").defaults())
    arms = tuple(base.at_rate(1e-5 * 10 ** (3 * index / count)) for index in range(count))
    return Race(
        arms=arms,
        baseline=arms[0],
        horizon=400,
        steps=None,
        trials=count,
        specs=(catalogue.get("adamw"),),
        untrained=Evaluation(value=2.3),
    )


def a_second(job: Job, chance: random.Random) -> float:
    """Every job takes a second."""
    del job, chance
    return 1.0


def uneven(job: Job, chance: random.Random) -> float:
    """A second, give or take a third; one in twenty takes ten times as long."""
    del job
    return chance.uniform(0.67, 1.33) * (10.0 if chance.random() < 0.05 else 1.0)


def run_wide(
    workers: int, jobs: int, takes: Takes, storage: str = "memory", *, dies: float = 0.0, real: bool = True
) -> Ran:
    """Run `jobs` jobs of one stage."""
    made = wide_race(jobs)

    def outcome(job: Job, known: Trial | None) -> Outcome:
        # One in twenty diverges.
        ill = int(job.configuration.key, 16) % 20 == 0
        return judged(None if ill else 1.0 + (job.configuration.rate or 0.0), job, known, made)

    with tempfile.TemporaryDirectory() as folder:
        url = {"journal": f"{folder}/study.journal", "SQLite": f"sqlite:///{folder}/study.db"}.get(storage)
        opened: Callable[[], BaseStorage] | None = None if url is None else lambda: storage_of(url)
        return Fleet(
            made, outcome, count=workers, takes=takes, storage=opened, dies=dies, lease_seconds=10.0, real=real
        ).run()


def run_search(trainings: float, workers: int) -> Ran:
    """Run a whole search of the golden record's curves of digits, whose jobs take as long as their micro-batches."""
    spec = race("digits", trainings)
    made = race_of(spec)
    judge = Judge(spec=spec, horizon=trained_length(made))
    if judges_untrained(made):
        made = replace(made, untrained=Evaluation(value=judge.untrained()))

    def outcome(job: Job, known: Trial | None) -> Outcome:
        value = judge.value(plain(job.configuration.to_dict()), job.seed, job.until)
        return judged(value, job, known, made)

    def takes(job: Job, chance: random.Random) -> float:
        del chance
        # A training of a minute. What a trial had behind it before is not run again.
        behind = max((rung for rung in made.rungs if rung < job.until and not job.seed), default=0)
        return float(60.0 * (job.until - behind) / spec["horizon"])

    with suggestions_by(pure_suggestion):
        return Fleet(made, outcome, count=workers, takes=takes).run()


def choosing(finished: int) -> tuple[float, float]:
    """Seconds of reading a study of `finished` trials for the first time, and of the next look and choice."""
    made = wide_race(2 * finished)
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="many", storage=storage)
    study = TrialStudy(optuna.load_study(study_name="many", storage=storage))
    for turn, arm in enumerate(made.arms[:finished]):
        number = study.begin(arm, 0, ["adamw"])
        study.report(number, until=made.rung, reached=made.rung, value=1.0 + turn, cost=1.0, turn=turn, aside=True)
    later = TrialStudy(optuna.load_study(study_name="many", storage=storage))

    def look() -> float:
        begun = time.process_time()
        assert next_turns(made, in_turn(made, later.look().trials))
        return time.process_time() - begun

    return look(), statistics.median(look() for _ in range(3))


# --- the page ---------------------------------------------------------------------------------------------


def page(scale: Scale) -> str:
    """Measure all of it, and say so as docs/reference/workers.md."""
    packages = ("optselect", "optuna")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    return f"""# What several workers gain

[Several workers](../how-to/several-workers.md) share one search; this page says what they gain, and what sharing costs.
It is written by

<!-- not run: takes long -->
```bash
python -m tests.benchmarks.workers
```

The scheduler, the claims and the storage are real, and the processor's time for them counts.
The trials are made up, on a clock that is made up, too, and each worker is thought to have a processor of its own.
{versions}, Python {platform.python_version()}, {platform.machine()}.

## A stage that has jobs for all

Trials of one second each, one in twenty of which diverges.
Efficiency is the time of all jobs over the time of all workers; the gain is that times the workers: jobs per time.
*Uneven* trials take a second give or take a third, and one in twenty ten times as long.
*Dying* workers are lost at one job in fifty, and another begins after a second.
The baseline is run before those that it guides, so even a wide stage begins with a second for one worker alone.
With 64 and 256 workers there are six and two jobs for each, so that beginning and end are much of it.
Whoever waits looks again after at most a quarter of a job, or five seconds.

| workers | jobs | gain | efficiency | uneven | uneven and dying | own ms a job | storage calls a job |
|---|---|---|---|---|---|---|---|
{_wide_rows(scale)}

Own is the processor's time for the scheduler and the storage beside the trials, here in memory.

| {scale.wide[1][0]} workers, {scale.wide[1][1]} jobs, study in | efficiency | own ms a job |
|---|---|---|
{_storage_rows(scale)}

## A whole search

A training of a minute, on recorded curves; what a search takes with several workers, over what it takes with one.
The jobs, the trials and the choice are the same in each row.

| budget, trainings | jobs | minutes with one | {" | ".join(f"{count} workers" for count in scale.workers[1:])} |
|---|---|---|{"---|" * (len(scale.workers) - 1)}
{_search_rows(scale)}

More workers than the first stage has arms only wait: after it each job depends on the one before.
Idle workers might guess what comes next, within the twentieth of a budget that they may spend beyond it.
A guess costs a quarter of a training, which fits where the budget is five trainings or more.
From six on the next job is often a suggestion of a Gaussian process, which no guess hits.
So they wait.

## Many trials

Reading a study in memory for the first time, and the next look with the choice of jobs, of a stage that goes on.

| trials | first look, ms | next look and choice, ms |
|---|---|---|
{_choosing_rows(scale)}

A look reads what has changed since the last one, and the choice goes over all trials: ten microseconds for each.
So a study of ten thousand trials does for some hundreds of workers whose jobs take a minute or more.
A hundred thousand trials, or a thousand workers, are where it breaks: every worker that waits looks, too, and all looks
go to one storage. Share such a search out over several studies, by task or by candidates, each with its own workers.
Optuna's own studies, whose trials do not depend on one another, go further.
"""


def _wide_rows(scale: Scale) -> str:
    rows = []
    for workers, jobs in scale.wide:
        even = run_wide(workers, jobs, a_second)
        others = [run_wide(workers, jobs, uneven, dies=dies) for dies in (0.0, 0.02) if workers <= scale.uneven]
        cells = [
            str(workers),
            str(jobs),
            f"{workers * _efficiency(even, workers):.2g}",
            *([f"{_efficiency(each, workers):.0%}" for each in (even, *others)] + ["", ""])[:3],
            f"{1_000 * even.own / len(even.runs):.0f}",
            f"{even.calls / len(even.runs):.0f}",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _efficiency(ran: Ran, workers: int) -> float:
    busy = sum(run.ended - run.begun for run in ran.runs if run.ended is not None and run.left)
    return busy / (workers * ran.seconds)


def _storage_rows(scale: Scale) -> str:
    workers, jobs = scale.wide[1]
    ran = {where: run_wide(workers, jobs, a_second, where) for where in scale.storages}
    return "\n".join(
        f"| {where} | {_efficiency(each, workers):.0%} | {1_000 * each.own / len(each.runs):.0f} |"
        for where, each in ran.items()
    )


def _search_rows(scale: Scale) -> str:
    rows = []
    for trainings in scale.trainings:
        ran = {workers: run_search(trainings, workers) for workers in scale.workers}
        alone = ran[scale.workers[0]]
        assert all(each.sequence == alone.sequence for each in ran.values())
        gains = [f"{ran[workers].seconds / alone.seconds:.0%}" for workers in scale.workers[1:]]
        rows.append(f"| {trainings:g} | {len(alone.sequence)} | {alone.seconds / 60:.1f} | {' | '.join(gains)} |")
    return "\n".join(rows)


def _choosing_rows(scale: Scale) -> str:
    rows = []
    for finished in scale.finished:
        first, later = choosing(finished)
        rows.append(f"| {finished:,} | {1_000 * first:.0f} | {1_000 * later:.0f} |")
    return "\n".join(rows)


def main() -> None:
    """Measure, and write the page."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    PAGE.write_text(page(Scale()))
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
