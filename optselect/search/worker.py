"""A search at work: the jobs of a race run one after another on a workload, their trials kept in a study."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from optselect.configuration import Evaluation, Trial
from optselect.errors import SearchError, StorageError
from optselect.search.board import Board
from optselect.search.next_job import next_job
from optselect.search.outcome import Outcome
from optselect.search.progress import Progress
from optselect.search.race import Job, Race
from optselect.search.runner import TrialRunner
from optselect.search.stages import STAGES, Stage
from optselect.study.study import TrialStudy
from optselect.workload.protocol import Workload

_log = logging.getLogger("optselect")


def search(
    workload: Workload,
    race: Race,
    study: TrialStudy | None,
    runner: TrialRunner,
    *,
    progress: Progress,
    stages: Sequence[Stage] = STAGES,
) -> tuple[Race, tuple[Trial, ...]]:
    """Run the jobs of `race` on `workload` until it is over; return it with what it learned of the untrained model.

    `study` is None on every process but the first. What the study holds already is not run again. An
    interrupt leaves the study as it is; the next call goes on from it. Raises the model's own exception
    when it hit every trial, and `SearchError` when all trials failed in other ways.
    """
    if not race.searches:
        return race, ()
    runner.take_up(race, study)
    runner.on_advance = progress.advanced
    race = replace(race, untrained=workload.agree(study.untrained() if study else None))
    clock = _Clock(race.seconds, study.trials() if study else [])
    errors: list[Exception] = []
    run = 0
    before: Job | None = None
    with progress:
        while True:
            trials = workload.agree(study.trials() if study else [])
            over = study is not None and study.ended_with(_limits(race))
            job = None if over else next_job(race, trials, stages)
            job = workload.agree(job if job is not None and clock.has_time_for(job, race, trials) else None)
            if job is None:
                break
            if job == before:
                raise StorageError(
                    f"the study does not give back what was stored of {job.configuration.describe()} at micro-batch "
                    f"{job.until}, so the search would repeat it for ever; pass another storage="
                )
            before = job
            if race.untrained is None and race.judges_untrained:
                race = replace(race, untrained=_untrained(workload, study, runner))
            progress.started(job, race, trials)
            # Before it runs: whoever looks at the study sees it, with the time at which it began.
            number = _begun(study, race, trials, job) if study is not None else 0
            begun = time.monotonic()
            outcome = runner.run(job.configuration, job.seed, job.until)
            run += 1
            if outcome.error is not None:
                errors.append(outcome.error)
                _log.warning("the trial of %s failed: %r", job.configuration.describe(), outcome.error)
            if study is not None:
                cap = _cap(race, trials)
                _record(study, number, job=job, outcome=outcome, cap=cap, seconds=time.monotonic() - begun)
            workload.agree(None)  # nobody reads the study before it is written
            progress.finished(job, outcome)
            if errors and len(errors) == run >= len(race.arms):
                break
        trials = workload.agree(_closed(study, race) if study else [])
        runner.end()
    if trials and all(trial.diverged for trial in trials):
        _refuse(study, trials, errors, anything_run=run > 0)
    return race, tuple(trials)


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


class _Clock:
    """A limit in seconds: a job is begun only when what it will take, at the pace so far, is left.

    What an earlier process spent on the same study counts.
    """

    def __init__(self, seconds: float | None, trials: Collection[Trial]) -> None:
        spent = sum(trial.seconds for trial in trials)
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds - spent

    def has_time_for(self, job: Job, race: Race, trials: Collection[Trial]) -> bool:
        # The first job has no pace to go by.
        spent = race.cost_of(trials)
        pace = sum(trial.seconds for trial in trials) / spent if spent else 0.0
        return time.monotonic() + pace * race.cost_of_job(job, _trial_of(job, trials)) <= self._deadline


def _trial_of(job: Job, trials: Collection[Trial]) -> Trial | None:
    wanted = (job.configuration.key, job.seed)
    return next((trial for trial in trials if (trial.configuration.key, trial.seed) == wanted), None)


def _begun(study: TrialStudy, race: Race, trials: Collection[Trial], job: Job) -> int:
    """Return the number of the job's trial in the study, a new one where there is none."""
    trial = _trial_of(job, trials)
    if trial is not None and trial.state == "running":
        return trial.number
    # A trial that an earlier search has ended is taken up in a new one.
    names = sorted({configuration.optimizer for configuration in race.arms})
    known = (trial.judged, trial.batches) if trial else ({}, {})
    return study.begin(job.configuration, job.seed, names, *known)


def _record(study: TrialStudy, number: int, *, job: Job, outcome: Outcome, cap: float, seconds: float) -> None:
    note = ""
    evaluation = outcome.evaluation
    if evaluation is None:
        note = repr(outcome.error) if outcome.error else f"diverged after {outcome.reached} micro-batches"
        evaluation = Evaluation(value=cap)
    study.report(
        number,
        reached=outcome.reached,
        until=job.until,
        value=evaluation.value,
        batches=evaluation.batches,
        cost=outcome.cost,
        note=note,
        seconds=seconds,
        pace=outcome.pace,
    )
    if outcome.error is not None:
        study.finish(number, "failed")


def _cap(race: Race, trials: Collection[Trial]) -> float:
    """Return what a diverged trial counts as: no better than the untrained model and the worst trial so far.

    A finite value, so that samplers learn from it (a NaN would tell them nothing).
    """
    known = [value for trial in trials for value in trial.judged.values()]
    known += [race.untrained.value] if race.untrained is not None else []
    finite = [value for value in known if math.isfinite(value)]
    return race.goal.worst(finite or [race.goal.loss(1e30)])


def _closed(study: TrialStudy, race: Race) -> list[Trial]:
    """End every open trial, at the last rung as complete, below it as pruned, and return all trials."""
    # First: were it last, a kill before it would leave a search that goes on with trials already ended.
    study.mark_ended(_limits(race))
    trials = study.trials()
    top = max((rung for trial in trials for rung in trial.judged), default=0)
    nothing_ranked = not Board(race, trials).standings(top)
    for trial in trials:
        if trial.state != "running":
            continue
        if trial.diverged or not trial.values:
            study.finish(trial.number, "pruned" if trial.judged else "failed")
        elif max(trial.values) == top or nothing_ranked:
            study.finish(trial.number, "complete", race.as_kept(trial).value)
        else:
            study.finish(trial.number, "pruned")
    return study.trials()


def _limits(race: Race) -> str:
    return json.dumps([race.steps, race.trials])
