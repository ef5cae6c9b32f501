"""How a search stands: its trials as rows, the budget and the time, for whatever shows them."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from optselect.configuration import USER, Configuration
from optselect.configuration.goal import Goal
from optselect.configuration.trial import Trial
from optselect.report.trials import short_of
from optselect.search.outcome import Outcome
from optselect.search.race import Job, Race
from optselect.study.claims import Claim
from optselect.words import format_duration, format_value


@dataclass(frozen=True, kw_only=True)
class Row:
    """One job, or a trial of an earlier process.

    reached  its micro-batch, while it runs (None: it has ended)
    value    what it was judged at (None: it was not, or not yet)
    said     that in words, or why there is none
    worker   who runs it, where that is another
    """

    stage: str
    configuration: Configuration
    seed: int
    until: int
    reached: int | None = None
    value: float | None = None
    said: str = "…"
    worker: str = ""

    @property
    def cells(self) -> Mapping[str, str]:
        """Its words, by column."""
        chosen = self.configuration
        own = chosen.optimizer == USER
        rate = "" if chosen.rate is None else format_value(chosen.rate)
        return {
            "stage": self.stage,
            "optimizer": short_of(chosen),
            "lr": f"× {rate}" if own else rate,
            "schedule": chosen.schedule.kind if rate and not own else "",
            "seed": str(self.seed),
            "batches": str(self.until) if self.reached is None else f"{self.reached}/{self.until}",
            "value": self.said,
            "": self.worker or ("running" if self.reached is not None else ""),
        }

    def in_words(self, monitor: str) -> str:
        """Say it in one line."""
        seed = f" (seed {self.seed})" if self.seed else ""
        said = self.said if self.value is None else f"{monitor} {self.said}"
        return f"{self.configuration.describe()}{seed}: {said} after {self.until} micro-batches"


class Standing:
    """The rows so far, and what the budget and the clock say."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.caption = ""
        self.spent_in_words = ""
        self.others: Sequence[Row] = ()
        self.lost: Sequence[str] = ()
        self._known: set[tuple[str, int, int]] = set()
        self._clock = time.monotonic()
        self._before: float | None = None

    @property
    def begun(self) -> bool:
        """Whether any job was."""
        return self._before is not None

    def earlier(self, trials: Collection[Trial]) -> list[Row]:
        """Make rows of the trials that an earlier process has run."""
        self._known |= {(trial.configuration.key, trial.seed, rung) for trial in trials for rung in trial.judged}
        return [
            Row(
                stage="earlier",
                configuration=trial.configuration,
                seed=trial.seed,
                until=max(trial.judged),
                value=trial.value,
                said=result_of(trial.value),
            )
            for trial in trials
            if trial.judged
        ]

    def news(self, trials: Collection[Trial]) -> list[Row]:
        """Make rows of what other workers have judged since the last look."""
        found = [
            Row(
                stage="elsewhere",
                configuration=trial.configuration,
                seed=trial.seed,
                until=rung,
                value=trial.values.get(rung),
                said=result_of(trial.values.get(rung)),
            )
            for trial in trials
            for rung in trial.judged
            if (trial.configuration.key, trial.seed, rung) not in self._known
        ]
        self._known |= {(row.configuration.key, row.seed, row.until) for row in found}
        return found

    def alongside(self, running: Sequence[Claim], lost: Sequence[Claim]) -> None:
        """Note what other workers are at, and who was lost."""
        self.others = [row_of_claim(claim) for claim in running]
        self.lost = list(dict.fromkeys(claim.name for claim in lost))

    @property
    def company(self) -> str:
        """The other workers in words (empty: there are none)."""
        said = [f"{len(self.others)} other workers at it"] if self.others else []
        return ", ".join([*said, *([f"lost: {', '.join(self.lost)}"] if self.lost else [])])

    def started(self, job: Job, race: Race, trials: Sequence[Trial]) -> None:
        """Add the job, and look at budget and clock."""
        spent = race.spent_with(trials)
        if self._before is None:
            self._before, self._clock = spent, time.monotonic()
        self.spent_in_words = self.caption = f"{spent:.0f} micro-batches spent"
        if race.steps:
            done, left, passed = spent - self._before, race.steps - spent, time.monotonic() - self._clock
            seconds = math.inf if race.seconds is None else max(race.seconds - passed, 0.0)
            clock = f", at most {format_duration(min(passed / done * left, seconds))} left" if done > 0 else ""
            self.spent_in_words = f"{spent:.0f} of {race.steps} micro-batches spent"
            self.caption = f"{self.spent_in_words} ({spent / race.steps:.0%}){clock}"
        self.rows.append(_row_of(job))

    def advanced(self, reached: int) -> None:
        """Move the running job."""
        if self.rows and self.rows[-1].reached is not None:
            self.rows[-1] = replace(self.rows[-1], reached=reached)

    def finished(self, job: Job, outcome: Outcome) -> Row:
        """End the running job; return its row."""
        said = type(outcome.error).__name__ if outcome.error is not None else result_of(outcome.value)
        row = replace(_row_of(job), reached=None, value=outcome.value, said=said)
        self._known.add((job.configuration.key, job.seed, job.until))
        self.rows[-1:] = [row]
        return row

    def best(self, goal: Goal | None) -> Row | None:
        """Find the row with the best value among those that went furthest (None: none has a value, or only one)."""
        judged = [row for row in self.rows if row.value is not None]
        if goal is None or len(judged) < 2:
            return None
        furthest = max(row.until for row in judged)
        return min((row for row in judged if row.until == furthest), key=lambda row: goal.loss(row.value or 0.0))


def result_of(value: float | None) -> str:
    """Say what a trial gave."""
    return "diverged" if value is None else f"{value:.5g}"


def row_of_claim(claim: Claim) -> Row:
    """Make a row of what another worker is at."""
    return Row(
        stage=claim.stage,
        configuration=claim.configuration,
        seed=claim.seed,
        until=claim.until,
        worker=f"at {claim.name}",
    )


def _row_of(job: Job) -> Row:
    return Row(stage=job.stage, configuration=job.configuration, seed=job.seed, until=job.until, reached=0)
