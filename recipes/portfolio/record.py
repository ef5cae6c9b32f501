"""To record: every workload trained with every point of the grid, judged all along the way; resumable.

A record is two files of JSON lines: `workloads.jsonl`, a profile for each workload and length, and `trainings.jsonl`.
Only the parent writes. What is there is not run again.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from optselect.briefing import briefed, measured
from optselect.building.groups import param_groups
from optselect.building.optimizer import build_groups
from optselect.configuration.schedule import Schedule
from optselect.parameters.anatomy import Anatomy
from optselect.plan.versions import versions
from optselect.profile.values import Profile
from optselect.recipes.bench.curves import judged_all_along, rounded
from optselect.recipes.bench.methods import quiet
from optselect.recipes.bench.task import Splits, Task, default_cache, workload
from optselect.recipes.bench.training import Lines, evaluate
from optselect.recipes.portfolio.grid import AT_LENGTH, GRID, SPARSE, points_of
from optselect.recipes.portfolio.workloads import LONGER, WORKLOADS
from optselect.rules.kinds import is_pretrained
from optselect.rules.portfolio import TRAINED_SCALE
from optselect.settings import Settings

TRAININGS, PROFILES, PACKED = "trainings.jsonl", "workloads.jsonl", "records.jsonl.gz"
# The modules that decide what a record says.
_SOURCES = (
    "made",
    "models",
    "equations",
    "pretrained",
    "tabular",
    "vision",
    "sequential",
    "assorted",
    "grid",
    "record",
)
# Of the configurations of a workload, the best ones are trained with a second seed.
_REPEATED = 0.25


@dataclass(frozen=True, kw_only=True, order=True)
class Job:
    """One training: a workload at so many times its length, a seed, a point of the grid; "": only its profile."""

    workload: str
    length: int = 1
    seed: int = 0
    point: str = ""


@dataclass(frozen=True, kw_only=True)
class Training:
    """One recorded training.

    values   mean validation losses: of the untrained model, then at `curves.FRACTIONS` as far as it came
    test     mean test loss at the end (None: it was no number)
    seconds  per step, of training alone
    """

    job: Job
    values: tuple[float, ...]
    test: float | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins, numbers to five digits; inverse of `from_dict`."""
        return {
            **vars(self.job),
            "values": [rounded(value) for value in self.values],
            "test": rounded(self.test),
            "seconds": rounded(self.seconds),
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Training:
        """Read the training that `to_dict` wrote."""
        rest = dict(row)
        job = Job(**{name: rest.pop(name) for name in ("workload", "length", "seed", "point")})
        return cls(job=job, **{**rest, "values": tuple(rest["values"])})


def task_of(job: Job) -> Task:
    """Find the workload, at its length."""
    task = WORKLOADS[job.workload]
    return task.lasting(task.steps * job.length)


# --- what there is to do ----------------------------------------------------------------------------------


def profiles_missing(known: Iterable[Job], names: Sequence[str]) -> list[Job]:
    """List the profiles to measure, those at other lengths last."""
    lengths = [(1, names), *((length, [name for name in names if name in LONGER]) for length in AT_LENGTH)]
    wanted = [Job(workload=name, length=length) for length, some in lengths for name in some]
    there = set(known)
    return [job for job in wanted if job not in there]


def trainings_missing(known: Sequence[Training], names: Sequence[str], sparse: Iterable[str]) -> list[Job]:
    """List the trainings to run: all at their own length, the best with a second seed, then the longer ones."""
    with_sparse = set(sparse)
    grids = {name: points_of(sparse=name in with_sparse) for name in names}
    wanted = [Job(workload=name, point=point) for name, grid in grids.items() for point in grid]
    for name, grid in grids.items():
        ended = [each for each in known if each.job.workload == name and each.job.length == 1 and each.job.seed == 0]
        if len(ended) == len(grid):
            best = sorted(ended, key=lambda each: math.inf if each.test is None else each.test)
            wanted += [
                Job(workload=name, seed=1, point=each.job.point) for each in best[: math.ceil(_REPEATED * len(grid))]
            ]
    wanted += [
        Job(workload=name, length=length, point=point)
        for length, points in AT_LENGTH.items()
        for name in names
        if name in LONGER
        for point in points
        if point in grids[name]
    ]
    there = {each.job for each in known}
    return [job for job in wanted if job not in there]


# --- to do it -----------------------------------------------------------------------------------------------


def record(
    folder: Path,
    *,
    names: Sequence[str] | None = None,
    points: Collection[str] | None = None,
    processes: int = 1,
    say: Callable[[str], None] = print,
) -> None:
    """Run what `folder` does not have of the workloads `names` and the `points` (None: all), then pack it."""
    names = list(WORKLOADS) if names is None else names
    profiles, trainings = Lines(folder / PROFILES), Lines(folder / TRAININGS)
    with _pool(processes) as run:
        for row in run(_measured, profiles_missing([_job(row) for row in profiles.rows], names)):
            profiles.append(row)
            say(f"{row['workload']} x{row['length']}: measured")
        sparse = [row["workload"] for row in profiles.rows if row["profile"]["gradient"]["sparse"]]
        # Twice: which are the best is known after the first time.
        for _ in range(2):
            known = [Training.from_dict(row) for row in trainings.rows]
            missing = trainings_missing(known, names, sparse)
            for row in run(_trained, [job for job in missing if points is None or job.point in points]):
                trainings.append(row)
                say(f"{row['workload']} x{row['length']} seed {row['seed']} {row['point']}: {row['test']}")
    pack(profiles.rows, trainings.rows, folder / PACKED)
    say(str(folder / PACKED))


_Run = Callable[[Callable[[Job], dict[str, Any]], Sequence[Job]], Iterator[dict[str, Any]]]


@contextmanager
def _pool(processes: int) -> Iterator[_Run]:
    """Give what runs a function on jobs, in this process or in several, and yields rows as they come."""
    if processes == 1:
        yield map
        return
    executor = ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        yield lambda function, jobs: (
            done.result() for done in as_completed([executor.submit(function, job) for job in jobs])
        )
    finally:
        executor.shutdown(cancel_futures=True)


def _measured(job: Job) -> dict[str, Any]:
    """Measure the profile as a search would."""
    profile, _ = _profile(job.workload, job.length)
    return {**vars(job), "family": task_of(job).family, "profile": profile.to_dict()}


@functools.lru_cache(maxsize=4)
def _profile(name: str, length: int) -> tuple[Profile, Anatomy]:
    training = workload(task_of(Job(workload=name, length=length)), _data(name), 0)
    with quiet(), training.borrowed():
        return measured(training, briefed(training, Settings(budget=1.0, seed=0)))


def _trained(job: Job) -> dict[str, Any]:
    """Train to the end, as far as losses are numbers."""
    task, data = task_of(job), _data(job.workload)
    training = workload(task, data, job.seed)
    profile, anatomy = _profile(job.workload, job.length)
    with quiet(), training.borrowed():
        point = {**GRID, **SPARSE}[job.point]
        configuration = point.configuration(task.steps, TRAINED_SCALE if is_pretrained(profile) else 1.0)
        groups = param_groups(anatomy, configuration)
        schedule: Schedule = configuration.schedule
        values, weights, seconds = judged_all_along(
            training, lambda model: build_groups(groups, schedule, model, task.steps), job.seed
        )
        test = evaluate(task, training.model, data.test) if task.steps in values else math.nan
    means = [
        math.fsum(v * w for v, w in zip(each, weights, strict=True)) / math.fsum(weights) for each in values.values()
    ]
    ended = Training(job=job, values=tuple(means), test=test if math.isfinite(test) else None, seconds=seconds)
    return ended.to_dict()


@functools.lru_cache(maxsize=4)
def _data(name: str) -> Splits:
    return WORKLOADS[name].splits(default_cache().with_name("portfolio"))


def _job(row: Mapping[str, Any]) -> Job:
    return Job(workload=row["workload"], length=row["length"], seed=row["seed"], point=row["point"])


# --- to keep ------------------------------------------------------------------------------------------------


def pack(profiles: Iterable[Mapping[str, Any]], trainings: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Write both as the repository carries them: what made them first; equal rows in any order make equal files."""

    def in_order(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return sorted(rows, key=lambda row: (row["workload"], row["length"], row["seed"], row["point"]))

    lines = [{"generator": generator(), "versions": dict(versions())}, *in_order(profiles), *in_order(trainings)]
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    file.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def generator() -> str:
    """Digest the sources that decide what a record says."""
    folder = resources.files("optselect.recipes.portfolio")
    sources = [(folder / f"{name}.py").read_bytes() for name in _SOURCES]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:12]
