"""What each storage takes: for a report, for many workers at once, for a long study.

    python -m tests.benchmarks.storages

The table of `docs/reference/storages.md` is made of it. Times are of the wall clock, so that waiting for the disk and
the network counts, but for the loading of a long study, which is CPU time of the one who loads it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages import JournalStorage
from optuna.storages._rdb import models
from optuna.storages.journal import JournalFileBackend

from optselect import catalogue
from optselect.configuration import Configuration
from optselect.search.next_job import next_job
from optselect.search.race import Race
from optselect.study.database import database_storage
from optselect.study.opening import open_study
from optselect.study.study import TrialStudy
from tests.support.postgres import running_cluster
from tests.support.proxies import proxy_over

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "storages.md"
BEGINS, ENDS = "<!-- measured -->", "<!-- until here -->"
CLAIM = {"worker": {"machine": "host", "pid": 1}, "until": 100, "turn": 1, "stage": "arms", "token": "0" * 32}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is run.

    trials   of one worker, whose steps are timed
    workers  that report at once
    reports  of each of them
    loaded   trials of a study that is read anew
    """

    trials: int = 200
    workers: int = 8
    reports: int = 100
    loaded: int = 30_000


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one storage took; milliseconds, but for `together` (reports a second) and `loading` (seconds)."""

    storage: str
    begin: list[float]
    report: list[float]
    look: list[float]
    together: float
    loading: float


@dataclass(frozen=True, kw_only=True)
class Place:
    """A new storage: its URL or path, and that of what is behind it, which rows can be written to."""

    url: str
    behind: str


@contextmanager
def storages(folder: Path) -> Iterator[dict[str, Callable[[], Place]]]:
    """Give, by its name, how to come by a new storage of each kind."""
    names = itertools.count()
    with ExitStack() as stack:
        cluster = stack.enter_context(running_cluster())

        def itself(url: str) -> Place:
            return Place(url=url, behind=url)

        def proxied() -> Place:
            behind = cluster.database()
            return Place(url=stack.enter_context(proxy_over(behind)), behind=behind)

        yield {
            "journal": lambda: itself(f"{folder}/{next(names)}.journal"),
            "SQLite": lambda: itself(f"sqlite:///{folder}/{next(names)}.db"),
            "PostgreSQL": lambda: itself(cluster.database()),
            "gRPC over PostgreSQL": proxied,
        }


def configurations(count: int) -> list[Configuration]:
    """AdamW at rates over three decades."""
    base = Configuration(optimizer="adamw", hyperparameters=catalogue.get("adamw").defaults())
    return [base.at_rate(1e-5 * 10 ** (3 * index / count)) for index in range(count)]


def opened(storage: Any) -> TrialStudy:
    return open_study(storage=storage, name="study", mode="min", facts={})


def measure(name: str, new: Callable[[], Place], scale: Scale) -> Measured:
    """All of one storage."""
    study = opened(new().url)
    seconds: dict[str, list[float]] = {"begin": [], "report": [], "look": []}

    def timed(what: str, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        answer = work()
        seconds[what].append(1_000 * (time.perf_counter() - begun))
        return answer

    for index, configuration in enumerate(configurations(scale.trials)):
        number = timed("begin", lambda: study.begin(configuration, 0, ["adamw"], claim=CLAIM))  # noqa: B023  # at once
        report: dict[str, Any] = {
            "until": 100,
            "reached": 100,
            "value": 1.0 + 1e-4 * index,
            "cost": 101.0,
            "turn": index,
        }
        timed("report", lambda: study.report(number, **report, aside=True))  # noqa: B023  # at once
        timed("look", study.look)
    return Measured(storage=name, **seconds, together=at_once(new().url, scale), loading=loading(new(), scale))


def at_once(storage: str, scale: Scale) -> float:
    """Reports a second of all workers together, each with a trial of its own."""
    opened(storage)
    lines = [
        [sys.executable, "-m", "tests.benchmarks.storages", "--child", storage, "--number", str(number)]
        for number in range(scale.workers)
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        processes: list[Any] = [
            stack.enter_context(
                subprocess.Popen([*line, "--reports", str(scale.reports)], cwd=ROOT, env=environment, **pipes)
            )
            for line in lines
        ]
        if any(process.stdout.readline() != "ready\n" for process in processes):
            raise RuntimeError("a worker did not begin")
        begun = time.perf_counter()
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        if any(process.wait() for process in processes):
            raise RuntimeError("a worker failed")
        return scale.workers * scale.reports / (time.perf_counter() - begun)


def child(storage: str, number: int, reports: int) -> None:
    """One of those who report at once."""
    study = opened(storage)
    trial = study.begin(configurations(100)[number], 0, ["adamw"], claim=CLAIM)
    print("ready", flush=True)
    sys.stdin.readline()
    for until in range(reports):
        study.report(trial, until=until, reached=until, value=1.0, cost=1.0)


def loading(place: Place, scale: Scale) -> float:
    """CPU seconds until a worker that joins a long study knows its next job."""
    fill(place.behind, scale.loaded)
    begun = time.process_time()
    trials = opened(place.url).trials()
    race = Race(
        arms=tuple(trial.configuration for trial in trials[:2]),
        baseline=trials[0].configuration,
        horizon=400,
        steps=None,
        trials=2 * scale.loaded,
        specs=(catalogue.get("adamw"),),
    )
    next_job(race, trials)
    return time.process_time() - begun


class Unwaited(JournalFileBackend):
    """The lines of a journal, written by one process that waits for nobody: to make a long one."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with Path(self._file_path).open("a") as file:
            file.writelines(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)


def fill(storage: str, count: int) -> None:
    """Write a study of `count` ended trials."""
    if "://" not in storage:
        opened(storage)
        journal = JournalStorage(Unwaited(storage))
        write(TrialStudy(optuna.load_study(study_name="study", storage=journal)), count)
        return
    study = opened(storage)
    memory = opened(None)
    write(memory, count)
    database = database_storage(storage)
    rows: dict[Any, list[dict[str, Any]]] = {}

    def add(model: Any, **row: Any) -> None:
        rows.setdefault(model.__table__, []).append(row)

    between = models.TrialIntermediateValueModel
    for trial in memory._frozen():
        name = {"trial_id": trial.number + 1}
        times = {"datetime_start": trial.datetime_start, "datetime_complete": trial.datetime_complete}
        add(models.TrialModel, **name, number=trial.number, study_id=study._id, state=trial.state, **times)
        for key, value in trial.params.items():
            kind = trial.distributions[key]
            told = {"param_value": kind.to_internal_repr(value), "distribution_json": distribution_to_json(kind)}
            add(models.TrialParamModel, **name, param_name=key, **told)
        for key, value in trial.user_attrs.items():
            add(models.TrialUserAttributeModel, **name, key=key, value_json=json.dumps(value))
        for step, value in trial.intermediate_values.items():
            finite = {"intermediate_value": value, "intermediate_value_type": "FINITE"}
            add(between, **name, step=step, **finite)
        add(models.TrialValueModel, **name, objective=0, value=trial.value, value_type="FINITE")
    with database.engine.begin() as connection:
        for table, added in rows.items():
            connection.execute(sqlalchemy.insert(table), added)


def write(study: TrialStudy, count: int) -> None:
    """Begin, report and end so many trials."""
    for index, configuration in enumerate(configurations(count)):
        number = study.begin(configuration, 0, ["adamw"], claim=CLAIM)
        study.report(number, until=100, reached=100, value=1.0 + 1e-4 * index, cost=101.0, turn=index)
        study.finish(number, "complete", 1.0 + 1e-4 * index)


# --- the page ---------------------------------------------------------------------------------------------


def table(scale: Scale, measured: Sequence[Measured]) -> str:
    """What was measured, in words and a table."""
    packages = ("optselect", "optuna", "SQLAlchemy", "psycopg")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    rows = "\n".join(map(_row, measured))
    return f"""One worker: {scale.trials} trials, each begun, reported and put aside, and the study read after each.
At once: {scale.workers} processes report {scale.reports} values each, and these are all their reports a second.
Loading: a study of {scale.loaded:,} ended trials is opened and its next job chosen by one who knows nothing of it.
Wall-clock time, medians, with the first and the last of twenty in brackets; server and proxy on the same machine.
Loading is CPU time, the server's not counted. {os.cpu_count()} cores; the system's load was {_load()} at the end.
{versions}, Python {platform.python_version()}, {platform.machine()}.

| storage | begin, ms | report, ms | look, ms | reports a second, at once | loading, s | goal: under 2 s |
|---|---|---|---|---|---|---|
{rows}
"""


def _load() -> str:
    return f"{os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else "not known"


def _row(each: Measured) -> str:
    reached = "reached" if each.loading < 2 else "**missed**"
    times = " | ".join(map(_spread, (each.begin, each.report, each.look)))
    return f"| {each.storage} | {times} | {each.together:.0f} | {each.loading:.1f} | {reached} |"


def _spread(values: Sequence[float]) -> str:
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    return f"{statistics.median(ordered):.1f} ({low:.1f}, {high:.1f})"


def made(scale: Scale) -> str:
    """Measure every storage, and make the table."""
    with tempfile.TemporaryDirectory() as folder, storages(Path(folder)) as kinds:
        return table(scale, [measure(name, new, scale) for name, new in kinds.items()])


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--loaded", type=int, default=Scale.loaded, help="trials of the long study")
    parser.add_argument("--reports", type=int, default=Scale.reports, help="of each of those who report at once")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    logging.getLogger("optselect").setLevel(logging.ERROR)
    if given.child:
        child(given.child, given.number, given.reports)
        return
    before, _, rest = PAGE.read_text().partition(BEGINS)
    _, _, after = rest.partition(ENDS)
    told = made(Scale(loaded=given.loaded, reports=given.reports))
    PAGE.write_text(f"{before}{BEGINS}\n{told}{ENDS}{after}")
    print(told)


if __name__ == "__main__":
    main()
