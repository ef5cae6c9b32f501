"""The race run on a workload, its trials kept in a study."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Collection

from optselect.errors import SearchError
from optselect.search.progress import Progress
from optselect.search.race import Job, Race, as_kept, job_cost, next_job, nominal_cost, standings
from optselect.search.runner import Outcome, TrialRunner
from optselect.study.study import Evaluation, TrialStudy
from optselect.workload.protocol import Workload

_log = logging.getLogger("optselect")


def search(
    workload: Workload,
    race: Race,
    study: TrialStudy | None,
    runner: TrialRunner,
    *,
    progress: Progress,
) -> tuple[Evaluation, ...]:
    """Run the jobs of `race` on `workload` until it is over.

    `study` is None on every process but the first. What the study holds already is not run again. An
    interrupt leaves the study as it is; the next call goes on from it. Raises the model's own exception
    when it hit every trial, and `SearchError` when all trials failed in other ways.
    """
    clock = _Clock(race.seconds, study.evaluations() if study else [])
    trials_run = 0
    errors: list[Exception] = []
    untrained: float | None = None if race.judges_untrained else math.nan
    with progress:
        while True:
            evaluations = workload.agree(study.evaluations() if study else [])
            over = study is not None and study.ended_with(_limits(race))
            job = None if over else next_job(race, evaluations)
            job = workload.agree(job if job is not None and clock.has_time_for(job, race, evaluations) else None)
            if job is None:
                break
            if untrained is None:
                untrained = runner.untrained_value()
            progress.started(job, race, evaluations)
            # Before it runs: whoever looks at the study sees it, with the time at which it began.
            number = _begun(study, race, evaluations, job) if study is not None else 0
            begun = time.monotonic()
            outcome = runner.run(job.configuration, job.seed, job.until)
            trials_run += 1
            if outcome.error is not None:
                errors.append(outcome.error)
                _log.warning("the trial of %s failed: %r", job.configuration.describe(), outcome.error)
            if study is not None:
                cap = _cap(race, evaluations, untrained)
                _record(study, number, job=job, outcome=outcome, cap=cap, seconds=time.monotonic() - begun)
            workload.agree(None)  # nobody reads the study before it is written
            progress.finished(job, outcome)
            if errors and len(errors) == trials_run >= len(race.arms):
                break
        evaluations = workload.agree(_closed(study, race) if study else [])
        runner.end()
    if evaluations and all(e.diverged for e in evaluations):
        if study is not None:
            # A rerun with the cause mended must not find these again.
            study.mark_used()
        if errors and all(e.state == "failed" for e in evaluations):
            raise errors[0]
        earlier = "" if trials_run else "; they are of an earlier run: pass another study_name or storage"
        raise SearchError(
            f"all {len(evaluations)} trials diverged or failed ({evaluations[0].note}); check that the loss is finite "
            f"at the first batches{earlier}"
        )
    return tuple(evaluations)


class _Clock:
    """A limit in seconds: a job is begun only when what it will take, at the pace so far, is left.

    What an earlier process spent on the same study counts.
    """

    def __init__(self, seconds: float | None, evaluations: Collection[Evaluation]) -> None:
        spent = sum(evaluation.seconds for evaluation in evaluations)
        self._deadline = math.inf if seconds is None else time.monotonic() + seconds - spent

    def has_time_for(self, job: Job, race: Race, evaluations: Collection[Evaluation]) -> bool:
        # The first job has no pace to go by.
        spent = nominal_cost(race, evaluations)
        pace = sum(evaluation.seconds for evaluation in evaluations) / spent if spent else 0.0
        return time.monotonic() + pace * job_cost(race, job, _trial_of(job, evaluations)) <= self._deadline


def _trial_of(job: Job, evaluations: Collection[Evaluation]) -> Evaluation | None:
    return next((e for e in evaluations if (e.configuration.key, e.seed) == (job.configuration.key, job.seed)), None)


def _begun(study: TrialStudy, race: Race, evaluations: Collection[Evaluation], job: Job) -> int:
    """The number of the job's trial in the study, a new one where there is none."""
    trial = _trial_of(job, evaluations)
    if trial is not None and trial.state == "running":
        return trial.number
    # A trial that an earlier search has ended is taken up in a new one.
    return study.begin(job.configuration, job.seed, _names(race), trial.values if trial else {})


def _record(study: TrialStudy, number: int, *, job: Job, outcome: Outcome, cap: float, seconds: float) -> None:
    note = ""
    value = outcome.value
    if value is None:
        note = repr(outcome.error) if outcome.error else f"diverged after {outcome.reached} micro-batches"
        value = cap
    study.report(
        number,
        reached=outcome.reached,
        until=job.until,
        value=value,
        cost=outcome.cost,
        note=note,
        seconds=seconds,
    )
    if outcome.error is not None:
        study.finish(number, "failed")


def _cap(race: Race, evaluations: Collection[Evaluation], untrained: float) -> float:
    """What a diverged trial counts as: no better than the untrained model and the worst trial so far.

    A finite value, so that samplers learn from it (a NaN would tell them nothing).
    """
    worst = max if race.mode == "min" else min
    known = [value for e in evaluations for value in e.values.values()]
    finite = [value for value in (untrained, *known) if math.isfinite(value)]
    return worst(finite) if finite else (1e30 if race.mode == "min" else -1e30)


def _closed(study: TrialStudy, race: Race) -> list[Evaluation]:
    """The evaluations, with every open trial ended: at its last rung complete, below it pruned."""
    # First: were it last, a kill before it would leave a search that goes on with trials already ended.
    study.mark_ended(_limits(race))
    evaluations = study.evaluations()
    top = max((rung for e in evaluations for rung in e.values), default=0)
    for evaluation in evaluations:
        if evaluation.state != "running":
            continue
        if evaluation.diverged or not evaluation.values:
            study.finish(evaluation.number, "pruned" if evaluation.values else "failed")
        elif max(evaluation.values) == top or len(standings(race, evaluations, top)) == 0:
            study.finish(evaluation.number, "complete", as_kept(race, evaluation).values[max(evaluation.values)])
        else:
            study.finish(evaluation.number, "pruned")
    return study.evaluations()


def _limits(race: Race) -> str:
    return json.dumps([race.steps, race.trials])


def _names(race: Race) -> list[str]:
    return sorted({configuration.optimizer for configuration in race.arms})
