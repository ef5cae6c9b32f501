"""What a person sees of a search: a live table in a terminal, log lines elsewhere, nothing on other processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from optselect.configuration import USER, format_value
from optselect.evaluate import Outcome
from optselect.profile import Profile
from optselect.profile.text import describe
from optselect.race import Job, Race, nominal_cost
from optselect.report.text import proposal_lines
from optselect.rules import Proposal
from optselect.study import Evaluation

_log = logging.getLogger("optselect")


class Progress(Protocol):
    """Told what the search does; a context manager around its trials."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def proposed(self, profile: Profile, proposals: Sequence[Proposal]) -> None:
        """The training is measured, and the rules have spoken."""

    def started(self, job: Job, race: Race, evaluations: list[Evaluation]) -> None:
        """A job begins; `evaluations` are those before it."""

    def finished(self, job: Job, outcome: Outcome) -> None:
        """The job that was begun has ended."""


class Silent:
    """Says nothing: for processes other than the first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def proposed(self, profile: Profile, proposals: Sequence[Proposal]) -> None:
        """Nothing."""

    def started(self, job: Job, race: Race, evaluations: list[Evaluation]) -> None:
        """Nothing."""

    def finished(self, job: Job, outcome: Outcome) -> None:
        """Nothing."""


class LogProgress(Silent):
    """One log line for each job."""

    def __init__(self) -> None:
        self._share = ""
        self._limit_shown = False
        if not _log.hasHandlers():
            # Nobody has set up logging: a batch job's output would say nothing of a search that takes its time.
            _log.addHandler(logging.StreamHandler())
            _log.setLevel(logging.INFO)

    def proposed(self, profile: Profile, proposals: Sequence[Proposal]) -> None:
        """The profile and the proposals, line by line."""
        for line in ("profile", *describe(profile), "proposals", *proposal_lines(proposals)):
            _log.info("%s", line)

    def started(self, job: Job, race: Race, evaluations: list[Evaluation]) -> None:  # said when it ends
        """Remember how far the budget is; before the first job, say what the search may cost."""
        del job
        if not self._limit_shown and race.steps is not None:
            _log.info(
                "the search costs at most %d micro-batches, %.2f of the training", race.steps, race.steps / race.whole
            )
        self._limit_shown = True
        spent = race.spent + nominal_cost(race, evaluations)
        self._share = f"{spent:.0f} of {race.steps} micro-batches spent" if race.steps else f"{spent:.0f} micro-batches"

    def finished(self, job: Job, outcome: Outcome) -> None:
        """Say what the job gave."""
        _log.info(
            "%s: %s, seed %d, to micro-batch %d: %s (%s before it)",
            job.stage,
            job.configuration.describe(),
            job.seed,
            job.until,
            _result(outcome),
            self._share,
        )


class TableProgress(Silent):
    """A table that grows while the search runs, with the share of the budget spent and the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: list[tuple[str, ...]] = []
        self._caption = ""
        self._begun = time.monotonic()
        self._before: float | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def proposed(self, profile: Profile, proposals: Sequence[Proposal]) -> None:
        """Print the profile and the proposals above the table."""
        for title, lines in (("profile", describe(profile)), ("proposals", list(proposal_lines(proposals)))):
            self._console.print(title, style="bold")
            for line in lines:
                self._console.print(line, highlight=False, markup=False)

    def started(self, job: Job, race: Race, evaluations: list[Evaluation]) -> None:
        """Show the job as running, and the budget."""
        spent = race.spent + nominal_cost(race, evaluations)
        self._before = spent if self._before is None else self._before
        self._caption = f"{spent:.0f} micro-batches spent"
        if race.steps:
            done, left = spent - self._before, race.steps - spent
            rate = (time.monotonic() - self._begun) / done if done > 0 else None
            clock = f", at most {rate * left:.0f} s left" if rate is not None else ""
            self._caption = f"{spent:.0f} of {race.steps} micro-batches spent ({spent / race.steps:.0%}){clock}"
        self._rows.append((*_row(job), "…", "running"))
        self._show()

    def finished(self, job: Job, outcome: Outcome) -> None:
        """Show what the job gave."""
        state = "failed" if outcome.error else "diverged" if outcome.value is None else "judged"
        self._rows[-1] = (*_row(job), _result(outcome), state)
        self._show()

    def _show(self) -> None:
        table = Table(title="trials", caption=self._caption, title_justify="left", caption_justify="left")
        for column in ("stage", "candidate", "lr", "schedule", "seed", "to", "value", "state"):
            table.add_column(column, justify="right" if column in ("lr", "seed", "to", "value") else "left")
        for row in self._rows:
            table.add_row(*row)
        if self._live is not None:
            self._live.update(table, refresh=True)


def default_progress() -> Progress:
    """A table where the output is a terminal, log lines elsewhere."""
    console = Console()
    return TableProgress(console) if console.is_terminal else LogProgress()


def _row(job: Job) -> tuple[str, ...]:
    configuration = job.configuration
    own = configuration.optimizer == USER
    rate = "" if configuration.rate is None else format_value(configuration.rate)
    return (
        job.stage,
        configuration.optimizer,
        f"× {rate}" if own else rate,
        configuration.schedule.kind if rate and not own else "",
        str(job.seed),
        str(job.until),
    )


def _result(outcome: Outcome) -> str:
    if outcome.error is not None:
        return type(outcome.error).__name__
    return "diverged" if outcome.value is None else f"{outcome.value:.5g}"
