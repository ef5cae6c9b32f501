"""Many workers whose trials are made up, on a real storage, one of which is killed every other second.

    python -m tests.benchmarks.fleet_kills --storage postgres --workers 64 --jobs 1000

Scheduler, claims, leases and storage are real, and so are the processes: only the training is a nap. A worker is
killed at random, at a job or not, and another begins in its place; both call themselves machines of their own, so that
nobody can ask whether one lives. All jobs must be judged, none of them twice, and no trial may run at the end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import optuna
from optuna.trial import TrialState

from optselect.search.race import Race
from optselect.search.stages import Arms
from optselect.search.worker import Desk
from optselect.study import process
from optselect.study.claims import Claims, Keeper
from optselect.study.opening import open_study
from tests.benchmarks.worker_kills import Watch, places
from tests.benchmarks.workers import wide_race
from tests.support.fleet import judged

_NAME = "fleet"
_LOOK_SECONDS, _WATCH_SECONDS, _FIRST_KILL_SECONDS = 0.05, 1.0, 3.0


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """How much is run: `jobs` of about `seconds` each, by `workers`, one of which is killed every `kill_seconds`."""

    workers: int
    jobs: int
    seconds: float
    kill_seconds: float
    lease_seconds: float


@dataclass(frozen=True, kw_only=True)
class Survived:
    """What came of it.

    killed         workers that were killed
    judged, twice  jobs whose outcome was stored, and how many outcomes were one too many
    running        trials that run when all have ended
    longest        seconds for which a trial ran on unrenewed
    seconds        from the first start to the last end
    own            seconds of the processor for all of it but the server
    """

    killed: int
    judged: int
    twice: int
    running: int
    longest: float
    seconds: float
    own: float


def work(fleet: Fleet, race: Race, url: str, seed: int) -> None:
    """One worker, to the end of the search."""
    process._machine = lambda: f"machine-{os.getpid()}"  # nobody can ask whether it lives
    chance = random.Random(seed)
    time.sleep(chance.uniform(0.0, fleet.seconds / 10))
    study = open_study(storage=url, name=_NAME, mode="min", facts={})
    desk = Desk(Claims(study, lease_seconds=fleet.lease_seconds), (Arms(),))
    while (step := desk.step(race)).kind != "over":
        if step.turn is None or step.claim is None:
            desk.wait()
            continue
        with Keeper(desk.claims, step.claim):
            seconds = fleet.seconds * chance.uniform(0.67, 1.33)
            time.sleep(seconds)
            outcome = judged(1.0 + (step.turn.job.configuration.rate or 0.0), step.turn.job, None, race)
            desk.leave(step, race, outcome, seconds)


def watch(fleet: Fleet, url: str, ends: Event, found: Connection) -> None:
    """Look on until `ends`, and send what there is to see: jobs judged, judged twice, running, longest unrenewed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, seen = open_study(storage=url, name=_NAME, mode="min", facts={}).study, Watch()
    while not ends.wait(_WATCH_SECONDS):
        seen.look(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    trials = study.get_trials(deepcopy=False)
    judged_at = Counter(
        (trial.user_attrs["optselect:configuration"], trial.user_attrs["optselect:seed"], name)
        for trial in trials
        for name, about in trial.user_attrs.items()
        if name.startswith("optselect:at ") and "turn" in about
    )
    running = sum(trial.state == TrialState.RUNNING for trial in trials)
    found.send((len(judged_at), judged_at.total() - len(judged_at), running, seen.longest))


def survive(fleet: Fleet, url: str, *, seed: int = 0) -> Survived:
    """Run all jobs; `url` is where."""
    race, chance = wide_race(fleet.jobs), random.Random(seed)
    # Forked off this one, which has no connection of its own: importing for each would be most of the work.
    context = multiprocessing.get_context("fork")
    ends, (mine, its) = context.Event(), context.Pipe()
    watcher = context.Process(target=watch, args=(fleet, url, ends, its))
    watcher.start()
    begun = time.monotonic()

    def hire() -> BaseProcess:
        worker = context.Process(target=work, args=(fleet, race, url, chance.randrange(1 << 30)))
        worker.start()
        return worker

    workers = [hire() for _ in range(fleet.workers)]
    killed, due = 0, begun + _FIRST_KILL_SECONDS
    try:
        while any(worker.is_alive() for worker in workers):
            time.sleep(_LOOK_SECONDS)
            if failed := [worker.exitcode for worker in workers if worker.exitcode]:
                raise RuntimeError(f"workers ended with {failed}")
            # While all are at it: where one has come to the end of the search, the others will.
            if time.monotonic() >= due and all(worker.is_alive() for worker in workers):
                struck = workers.pop(chance.randrange(len(workers)))
                struck.kill()
                struck.join()
                workers.append(hire())
                killed, due = killed + 1, due + fleet.kill_seconds
        seconds = time.monotonic() - begun
        ends.set()
        jobs, twice, running, longest = mine.recv()
    finally:
        for each in (*workers, watcher):
            each.kill()
            each.join()
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Survived(
        killed=killed,
        judged=jobs,
        twice=twice,
        running=running,
        longest=longest,
        seconds=seconds,
        own=own.ru_utime + own.ru_stime,
    )


def main() -> None:
    """Run it, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", default="postgres", help="journal, sqlite or postgres")
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a job, give or take a third")
    parser.add_argument("--kill-every", type=float, default=2.0, help="seconds")
    parser.add_argument("--lease", type=float, default=20.0, help="seconds")
    given = parser.parse_args()
    fleet = Fleet(
        workers=given.workers,
        jobs=given.jobs,
        seconds=given.seconds,
        kill_seconds=given.kill_every,
        lease_seconds=given.lease,
    )
    with tempfile.TemporaryDirectory() as root, places(given.storage) as place:
        found = survive(fleet, place(Path(root)))
    print(
        f"{given.storage}, {fleet.workers} workers: {found.killed} kills in {found.seconds:.0f} s; {found.judged} of "
        f"{fleet.jobs} jobs judged, {found.twice} of them twice; longest without renewal {found.longest:.1f} s, lease "
        f"{fleet.lease_seconds:g} s; running at the end {found.running}; "
        f"{1_000 * found.own / fleet.jobs:.0f} ms of the processor a job"
    )
    if found.judged != fleet.jobs or found.twice or found.running:
        sys.exit(1)


if __name__ == "__main__":
    main()
