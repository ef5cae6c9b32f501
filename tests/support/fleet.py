"""Many workers of one search on one clock that is made up: the real scheduler, claims and storage, no training.

What a job gives and how long it takes is said by whoever asks. Workers may die in the midst of a job; another begins
in their place.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import optuna
from optuna.storages import BaseStorage

from optselect.configuration import Evaluation, Trial
from optselect.search.outcome import Outcome
from optselect.search.race import Job, Race
from optselect.search.sequence import ended, in_turn
from optselect.search.stages import STAGES, Stage
from optselect.search.worker import Desk, Step
from optselect.study.claims import LEASE_SECONDS, Claims
from optselect.study.study import TrialStudy

_RENEWALS = 3
_NAME = "fleet"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One job as one worker ran it.

    ended  when it came to its end (None: its worker died)
    left   whether what came of it was stored
    cost   micro-batches it took
    """

    worker: int
    job: Job
    begun: float
    ended: float | None
    left: bool
    cost: float


@dataclass(kw_only=True)
class Ran:
    """What came of it all.

    runs      every job, as often as it was begun
    seconds   from the first look to the last end, on the made-up clock
    trials    as the search leaves them
    own       seconds of this machine's processor that looking, choosing and storing took
    calls     of the storage
    lost      how long each claim of a dead worker stood until it was given back
    """

    runs: list[Run] = field(default_factory=list)
    seconds: float = 0.0
    trials: list[Trial] = field(default_factory=list)
    own: float = 0.0
    calls: int = 0
    lost: list[float] = field(default_factory=list)

    @property
    def spent(self) -> float:
        """Micro-batches of all that was run, whether it counts or not."""
        return sum(run.cost for run in self.runs)

    @property
    def twice(self) -> int:
        """Jobs that were begun again though nobody had died at them."""
        whole = [(run.job.configuration.key, run.job.seed, run.job.until) for run in self.runs if run.ended is not None]
        return len(whole) - len(set(whole))

    @property
    def sequence(self) -> list[Job]:
        """The jobs that count, in their places."""
        turns = {
            turn: (trial.configuration.key, trial.seed, rung)
            for trial in self.trials
            for rung, turn in trial.turns.items()
        }
        jobs = {
            (run.job.configuration.key, run.job.seed, run.job.until): run.job
            for run in self.runs
            if run.left or run.ended is None
        }
        return [jobs[turns[turn]] for turn in sorted(turns)]


class Fleet:
    """`count` workers on `race`, whose jobs `judge` says the outcome of, and `takes` the seconds.

    storage   gives each worker its own way to one study
    dies      the chance that a job is the last of its worker
    returns   seconds until another begins in place of one that died
    real      whether the processor's time for looking, choosing and storing counts on the clock, too
    """

    def __init__(
        self,
        race: Race,
        judge: Callable[[Job, Trial | None], Outcome],
        *,
        count: int,
        takes: Callable[[Job, random.Random], float] = lambda *_: 1.0,
        storage: Callable[[], BaseStorage] | None = None,
        stages: Sequence[Stage] = STAGES,
        dies: float = 0.0,
        returns: float = 1.0,
        lease_seconds: float = LEASE_SECONDS,
        seed: int = 0,
        real: bool = False,
    ) -> None:
        shared = optuna.storages.InMemoryStorage()
        self._race, self._judge, self._takes, self._stages = race, judge, takes, stages
        self._storage = storage or (lambda: shared)
        self._dies, self._returns, self._lease = dies, returns, lease_seconds
        self._chance, self._real = random.Random(seed), real
        self._now = 0.0
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._workers = itertools.count()
        self._standing: dict[int, float] = {}
        self.ran = Ran()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        optuna.create_study(study_name=_NAME, storage=self._storage(), load_if_exists=True)
        for _ in range(count):
            # They do not begin at the same moment: imports alone take a second, give or take.
            self._at(self._chance.uniform(0.0, 0.2), Worker(self, next(self._workers)).look)

    def run(self) -> Ran:
        """Let them all come to their end."""
        while self._events:
            self._now, _, happens = heapq.heappop(self._events)
            happens()
        study = self.study()
        self.ran.trials = ended(self._race, in_turn(self._race, study.trials()))
        return self.ran

    def study(self) -> TrialStudy:
        """A worker's own way to the study."""
        return TrialStudy(optuna.load_study(study_name=_NAME, storage=self._storage()))

    def _at(self, moment: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._order), happens))


class Worker:
    """One of them."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self._fleet, self._number = fleet, number
        study = fleet.study()
        self._storage = Counted(study._storage, fleet.ran)
        study._storage = self._storage  # type: ignore[assignment]  # it does what a storage does
        self._claims = Claims(
            study,
            lease_seconds=fleet._lease,
            clock=lambda: fleet._now,
            # As if of a machine of its own: nobody can ask whether it lives.
            worker={"machine": f"machine-{number}", "pid": number, "started": None},
        )
        self._desk = Desk(self._claims, fleet._stages, sleep=self._wait)
        self._desk._chance = random.Random(number)
        self._waits = 0.0

    def _wait(self, seconds: float) -> None:
        self._waits = seconds

    def look(self) -> None:
        """Take a job, wait, or go home."""
        fleet = self._fleet
        begun = time.process_time()
        step = self._desk.step(fleet._race)
        if step.kind == "wait":
            self._desk.wait()
        took = time.process_time() - begun
        fleet.ran.own += took
        self._note_lost()
        if step.kind == "wait":
            fleet._at(fleet._now + self._waits, self.look)
        elif step.kind == "run":
            self._begin(step, took if fleet._real else 0.0)
        else:
            assert step.kind == "over", step

    def _note_lost(self) -> None:
        """Note of what was given back how long it had stood since its worker died."""
        fleet = self._fleet
        while self._claims.lost:
            died = fleet._standing.pop(self._claims.lost.pop().number, None)
            if died is not None:
                fleet.ran.lost.append(fleet._now - died)

    def _begin(self, step: Step, after: float) -> None:
        fleet = self._fleet
        assert step.turn is not None
        assert step.claim is not None
        job = step.turn.job
        known = next((t for t in step.trials if (t.configuration, t.seed) == (job.configuration, job.seed)), None)
        outcome, seconds = fleet._judge(job, known), fleet._takes(job, fleet._chance)
        run = Run(worker=self._number, job=job, begun=fleet._now + after, ended=None, left=False, cost=outcome.cost)
        if fleet._chance.random() < fleet._dies:
            share = fleet._chance.random()
            died = fleet._now + after + share * seconds
            fleet.ran.runs.append(replace(run, cost=share * outcome.cost))
            fleet._standing[step.claim.number] = died
            fleet._at(died + fleet._returns, Worker(fleet, next(fleet._workers)).look)
            seconds = share * seconds
            self._renew_until(fleet._now + after + seconds, step)
            return
        self._renew_until(fleet._now + after + seconds, step)
        fleet._at(fleet._now + after + seconds, lambda: self._end(step, run, outcome, seconds))

    def _renew_until(self, moment: float, step: Step) -> None:
        """Renew the claim every third of a lease, and look at those of others, as the thread of a real one does."""
        fleet = self._fleet
        held = [step.claim]

        def renew() -> None:
            assert held[0] is not None
            held[0] = self._claims.renew(held[0])
            self._claims.look()
            self._note_lost()

        renewals = itertools.takewhile(
            lambda at: at < moment, (fleet._now + n * fleet._lease / _RENEWALS for n in itertools.count(1))
        )
        for at in renewals:
            fleet._at(at, renew)

    def _end(self, step: Step, run: Run, outcome: Outcome, seconds: float) -> None:
        fleet = self._fleet
        begun = time.process_time()
        left = self._desk.leave(step, fleet._race, outcome, seconds)
        took = time.process_time() - begun
        fleet.ran.own += took
        fleet.ran.runs.append(replace(run, ended=fleet._now, left=left))
        fleet.ran.seconds = max(fleet.ran.seconds, fleet._now)
        fleet._at(fleet._now + (took if fleet._real else 0.0), self.look)


class Counted:
    """A storage that counts what it is called for."""

    def __init__(self, storage: Any, ran: Ran) -> None:
        self._counted_storage, self._ran = storage, ran

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._counted_storage, name)
        if callable(found) and not name.startswith("_"):
            self._ran.calls += 1
        return found


def judged(value: float | None, job: Job, known: Trial | None, race: Race, *, noticed: int = 20) -> Outcome:
    """What a job gives that is judged at `value`; None: it diverges, and that is noticed after some micro-batches."""
    done = known.reached if known is not None and race.continues else 0
    if value is None:
        reached = min(done + noticed, job.until)
        return Outcome(evaluation=None, cost=reached - done, reached=reached)
    cost = job.until - done + race.validation_cost
    return Outcome(evaluation=Evaluation(value=value), cost=cost, reached=job.until)
