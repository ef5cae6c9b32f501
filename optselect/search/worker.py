"""A search at work: jobs of a race run on a workload, by this worker and others, their trials kept in a study."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from optselect.configuration import Evaluation, Trial
from optselect.errors import SearchError, StorageError
from optselect.search.next_job import Turn, next_turns
from optselect.search.outcome import Outcome
from optselect.search.progress import Progress
from optselect.search.race import Job, Race
from optselect.search.runner import TrialRunner
from optselect.search.sequence import cap, ended, in_turn
from optselect.search.stages import STAGES, Stage
from optselect.study.claims import Claim, Claims, Keeper
from optselect.study.reading import Look
from optselect.study.storage import TrialEndedError
from optselect.study.study import TrialStudy
from optselect.workload.protocol import Workload

# How long a worker waits before it looks again, at first and at most. Other processes of its training wait with it,
# inside a collective that gives up after minutes.
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.05, 5.0
_LONGER = 1.5
# Of the time that a job takes: who looks so often loses little when a stage opens.
_SHARE_OF_A_JOB = 0.25

_log = logging.getLogger("optselect")


class LaidOutOtherwiseError(Exception):
    """Another worker has begun this search meanwhile, on what it has measured: the race has to be laid out anew."""


def search(
    workload: Workload,
    race: Race,
    study: TrialStudy | None,
    runner: TrialRunner,
    *,
    progress: Progress,
    stages: Sequence[Stage] = STAGES,
) -> tuple[Race, tuple[Trial, ...]]:
    """Run jobs of `race` on `workload` until it is over; return it with what it learned of the untrained model.

    `study` is None on every process but the first. What the study holds already is not run again, nor what another
    worker is at. An interrupt leaves the study as it is; the next call goes on from it. Raises the model's own
    exception when it hit every trial, `SearchError` when all trials failed in other ways, and `LaidOutOtherwiseError`
    before the first job where another worker was quicker.
    """
    if not race.searches:
        return race, ()
    runner.take_up(race, study)
    runner.on_advance = progress.advanced
    race = replace(race, untrained=workload.agree(study.untrained() if study else None))
    desk = _desk(study, stages, runner, progress)
    errors: list[Exception] = []
    run = 0
    with progress:
        while True:
            step = workload.agree(desk.step(race) if desk is not None else Step(kind="over"))
            if step.kind == "over":
                break
            if step.kind == "anew":
                raise LaidOutOtherwiseError
            if step.kind == "judge":
                race = replace(race, untrained=_untrained(workload, study, runner))
                continue
            if step.turn is None:
                progress.waiting()
                if desk is not None:
                    desk.wait()
                continue
            job = step.turn.job
            progress.started(job, race, step.trials)
            outcome = _run(job, step, runner, desk, race)
            run += 1
            if outcome.error is not None:
                errors.append(outcome.error)
                _log.warning("the trial of %s failed: %r", job.configuration.describe(), outcome.error)
            workload.agree(None)  # nobody reads the study before it is written
            progress.finished(job, outcome)
        trials = workload.agree(desk.close(race) if desk is not None else [])
        runner.end()
    if trials and all(trial.diverged for trial in trials):
        _refuse(study, trials, errors, anything_run=run > 0)
    return race, tuple(trials)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a worker does next.

    kind     "run" a job that it has taken, "wait" for others, "judge" the untrained model, lay the race out "anew" by
             what another has measured, or nothing: the search is "over"
    turn     the job
    claim    it is held by
    trials   what was judged so far
    course   of the baseline, as far as it tells what has diverged
    """

    kind: Literal["run", "wait", "judge", "anew", "over"]
    turn: Turn | None = None
    claim: Claim | None = None
    trials: Sequence[Trial] = ()
    course: Mapping[int, float] = field(default_factory=dict)


class Desk:
    """Where one worker takes its jobs, and leaves what came of them; `holds` tells what it can go on with at once."""

    def __init__(
        self,
        claims: Claims,
        stages: Sequence[Stage] = STAGES,
        *,
        holds: Callable[[Job], bool] = lambda _: False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.claims = claims
        self._study = claims.study
        self._stages = stages
        self._holds = holds
        self._sleep = sleep
        self._waits = self._longest = _FIRST_WAIT_SECONDS
        self._before: Job | None = None
        # Where to look for a job when another was quicker: all would go on to the same one.
        self._chance = random.Random()

    def step(self, race: Race) -> Step:
        """Look at the study, and take a job where there is one."""
        collided = False
        while True:
            look, claims = self.claims.look()
            if self._study.is_laid_out_otherwise:
                return Step(kind="anew")
            trials = in_turn(race, look.trials)
            running = [claim for claim in claims if claim is not None]
            # Where somebody does not say, or not yet, what they are at, nothing is sure.
            turns = self._turns(race, trials, running) if len(running) == len(claims) else []
            if not turns:
                self._longest = self._longest_wait(trials)
                return Step(kind="wait" if claims else "over")
            if race.untrained is None and race.judges_untrained:
                return Step(kind="judge")
            held = None if collided else next(filter(self._is_held, turns), None)
            # As many as are at it now may look at this moment, and all would take the first. Who is alone does.
            turn = held or self._chance.choice(turns if collided else turns[: len(running) + 1])
            claim = self._taken(turn, race, look.trials, look)
            if claim is not None:
                if self._study.is_laid_out_otherwise:
                    self._study.withdraw(claim.number)
                    self.claims.done(claim)
                    return Step(kind="anew")
                self._waits = _FIRST_WAIT_SECONDS
                course = _course(race, trials, turn)
                return Step(kind="run", turn=turn, claim=claim, trials=trials, course=course)
            collided = True

    def _is_held(self, turn: Turn) -> bool:
        return self._holds(turn.job)

    def _turns(self, race: Race, trials: Sequence[Trial], running: Sequence[Claim]) -> list[Turn]:
        if len(trials) >= len(race.arms) and all(trial.state == "failed" for trial in trials):
            return []  # it is not the optimizers
        turns = next_turns(race, trials, [_turn(claim) for claim in running], self._stages)
        for turn in turns[:1]:
            if turn.job == self._before and not running:
                raise StorageError(
                    f"the study does not give back what was stored of {turn.job.configuration.describe()} at "
                    f"micro-batch {turn.job.until}, so the search would repeat it for ever; pass another storage="
                )
        return [turn for turn in turns if has_time_for(turn.job, race, trials)]

    def _taken(self, turn: Turn, race: Race, trials: Collection[Trial], look: Look) -> Claim | None:
        job = turn.job
        return self.claims.take(
            look,
            job.configuration,
            job.seed,
            until=job.until,
            turn=turn.place,
            stage=job.stage,
            optimizers=sorted({configuration.optimizer for configuration in race.arms}),
            known=_trial_of(job, trials),
        )

    def leave(self, step: Step, race: Race, outcome: Outcome, seconds: float) -> bool:
        """Store what came of the job of `step`, which took so long; False: it was given back to others meanwhile."""
        claim, turn = step.claim, step.turn
        if claim is None or turn is None:
            return False
        note = ""
        evaluation = outcome.evaluation
        if evaluation is None:
            note = repr(outcome.error) if outcome.error else f"diverged after {outcome.reached} micro-batches"
            evaluation = Evaluation(value=cap(race, step.trials))
        try:
            self._study.report(
                claim.number,
                reached=outcome.reached,
                until=turn.job.until,
                value=evaluation.value,
                batches=evaluation.batches,
                cost=outcome.cost,
                note=note,
                seconds=seconds,
                pace=outcome.pace,
                turn=turn.place,
                course=outcome.course,
                aside=outcome.error is None,
            )
            if outcome.error is not None:
                self._study.finish(claim.number, "failed")
        except TrialEndedError:
            _log.warning("%s was given back to others meanwhile: what came of it does not count", claim.name)
            return False
        finally:
            self.claims.done(claim)
        self._before = turn.job
        return True

    def wait(self) -> None:
        """Let some time pass before the next look: the longer nothing was found, the more."""
        # By chance, so that those who wait do not all come at once.
        self._sleep(self._chance.uniform(0.5, 1.0) * self._waits)
        self._waits = min(_LONGER * self._waits, self._longest)

    def _longest_wait(self, trials: Collection[Trial]) -> float:
        jobs = sum(len(trial.judged) for trial in trials)
        job = sum(trial.seconds for trial in trials) / jobs if jobs else 0.0
        seldom = min(_LONGEST_WAIT_SECONDS, self.claims.look_seconds)
        return min(max(_SHARE_OF_A_JOB * job, _FIRST_WAIT_SECONDS), seldom) if jobs else seldom

    def close(self, race: Race) -> list[Trial]:
        """End every trial that waits, and return all trials."""
        trials = ended(race, in_turn(race, self._study.trials()))
        values = {
            (trial.configuration.key, trial.seed): value
            for trial in trials
            if trial.state == "complete" and (value := race.as_kept(trial).value) is not None
        }
        self._study.close(trials, values)
        return trials


def has_time_for(job: Job, race: Race, trials: Collection[Trial]) -> bool:
    """Tell whether what `job` will take, at the pace so far, is left of the seconds that trials may take together."""
    if race.seconds is None:
        return True
    seconds, spent = sum(trial.seconds for trial in trials), race.cost_of(trials)
    # The first job has no pace to go by.
    pace = seconds / spent if spent else 0.0
    return seconds + pace * race.cost_of_job(job, _trial_of(job, trials)) <= race.seconds


def _run(job: Job, step: Step, runner: TrialRunner, desk: Desk | None, race: Race) -> Outcome:
    """Run the job of `step`, and leave what came of it."""
    runner.guide(step.course)
    begun = time.monotonic()
    known = _trial_of(job, step.trials)
    since = known.reached if known is not None else 0
    if desk is None or step.claim is None:
        return runner.run(job.configuration, job.seed, job.until, since=since)
    with Keeper(desk.claims, step.claim):
        outcome = runner.run(job.configuration, job.seed, job.until, since=since)
        desk.leave(step, race, outcome, time.monotonic() - begun)
    return outcome


def _turn(claim: Claim) -> Turn:
    job = Job(configuration=claim.configuration, seed=claim.seed, until=claim.until, stage=claim.stage)
    return Turn(place=claim.turn, job=job)


def _course(race: Race, trials: Collection[Trial], turn: Turn) -> Mapping[int, float]:
    """Return the course of the baseline up to the guide of `turn`."""
    known = (trial for trial in trials if trial.seed == 0 and trial.configuration == race.baseline)
    return {end: loss for trial in known for end, loss in trial.course.items() if end <= turn.guide}


def _trial_of(job: Job, trials: Collection[Trial]) -> Trial | None:
    wanted = (job.configuration.key, job.seed)
    return next((trial for trial in trials if (trial.configuration.key, trial.seed) == wanted), None)


def _desk(study: TrialStudy | None, stages: Sequence[Stage], runner: TrialRunner, progress: Progress) -> Desk | None:
    if study is None:
        return None

    def holds(job: Job) -> bool:
        return runner.position(job.configuration, job.seed) > 0

    return Desk(Claims(study, on_look=progress.alongside), stages, holds=holds)


def _refuse(
    study: TrialStudy | None, trials: Sequence[Trial], errors: Sequence[Exception], *, anything_run: bool
) -> None:
    """Raise what hit every trial."""
    if study is not None:
        # A rerun with the cause mended must not find these again.
        study.mark_used()
    if errors and all(trial.state == "failed" for trial in trials):
        raise errors[0]
    earlier = "" if anything_run else "; they are of an earlier run: pass another study_name or storage"
    raise SearchError(
        f"all {len(trials)} trials diverged or failed ({trials[0].note}); check that the loss is finite "
        f"at the first batches{earlier}"
    )


def _untrained(workload: Workload, study: TrialStudy | None, runner: TrialRunner) -> Evaluation:
    """Judge the untrained model, once for a study."""
    measured = runner.untrained()
    if study is not None:
        study.keep_untrained(measured)
    # As the study gives it back: a process that goes on from it knows no other.
    return workload.agree(study.untrained() if study else None) or measured
