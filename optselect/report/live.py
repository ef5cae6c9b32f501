"""What a person sees of a search: a live table in a terminal, log lines elsewhere, nothing on other processes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Literal, Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from optselect.configuration import USER, Configuration
from optselect.configuration.trial import Trial
from optselect.plan import OptimizerPlan
from optselect.profile import Profile
from optselect.profile.text import describe
from optselect.report.explanation import headline
from optselect.report.text import proposal_lines
from optselect.rules import Proposal
from optselect.search.outcome import Outcome
from optselect.search.progress import Progress, Silent
from optselect.search.race import Job, Race
from optselect.words import format_value, printable

_log = logging.getLogger("optselect")

# A terminal narrower than this shows no schedule and no seed, so that the values stay whole.
_NARROW_COLUMNS = 80
# Around the trials: title, header, rule, "earlier ones", caption, and where the cursor stands.
_OTHER_LINES = 7


class LogProgress(Silent):
    """One log line for each job; where none is run there is nothing to say.

    Where nobody has set up logging, lines go to stderr while a search runs: a batch job's output would say nothing of
    one that takes its time. Not if that is not `shown`.
    """

    def __init__(self, *, shown: bool = True) -> None:
        self._share = ""
        self._begun = False
        self._before: list[str] = []
        self._shown = shown
        self._own: tuple[logging.Handler, int] | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._leave()

    def proposed(self, profile: Profile, proposals: Sequence[Proposal]) -> None:
        """Log the profile and the proposals, line by line."""
        self._before = ["profile", *describe(profile), "proposals", *proposal_lines(proposals)]
        # Now: what the study is gone on with, or not, is said next.
        self._enter()

    def _enter(self) -> None:
        if self._shown and not _log.hasHandlers():
            self._own = logging.StreamHandler(), _log.level
            _log.addHandler(self._own[0])
            _log.setLevel(logging.INFO)

    def _leave(self) -> None:
        if self._own is not None:
            handler, level = self._own
            _log.removeHandler(handler)
            _log.setLevel(level)
        self._own = None

    def started(self, job: Job, race: Race, trials: Sequence[Trial]) -> None:  # said when it ends
        """Remember how far the budget is; before the first job, say what the search may cost and what was run."""
        del job
        if not self._begun:
            for line in (*self._before, cost_at_most(race)):
                _log.info("%s", line)
            for trial in _judged(trials):
                _log.info("earlier: %s", _in_words(trial))
        self._begun = True
        spent = race.spent_with(trials)
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

    def chosen(self, plan: OptimizerPlan) -> None:
        """Say so, after a search."""
        level = logging.INFO if self._begun else logging.DEBUG
        _log.log(level, "chosen: %s; %s", headline(plan), "; ".join(map(str, plan.reasons_of("cost"))))
        self._leave()


class TableProgress(Silent):
    """A table that grows while the search runs, with the share of the budget spent and the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: list[tuple[str, ...]] = []
        self._above: Sequence[tuple[str, list[str]]] = ()
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
            if self._rows:
                self._live.update(self._table(self._rows))
            self._live.__exit__(kind, error, trace)

    def proposed(self, profile: Profile, proposals: Sequence[Proposal]) -> None:
        """Keep the profile and the proposals, to print them above the table."""
        self._above = (("profile", describe(profile)), ("proposals", list(proposal_lines(proposals))))

    def _print_above(self) -> None:
        for title, lines in self._above:
            self._console.print(title, style="bold")
            for line in lines:
                self._console.print(printable(line), highlight=False, markup=False)

    def started(self, job: Job, race: Race, trials: Sequence[Trial]) -> None:
        """Show the job as running, and the budget; at the first, what the search may cost and what was run before."""
        spent = race.spent_with(trials)
        if self._before is None:
            self._before = spent
            self._print_above()
            self._console.print(cost_at_most(race), highlight=False, markup=False)
            self._rows += map(_earlier, _judged(trials))
        self._caption = f"{spent:.0f} micro-batches spent"
        if race.steps:
            done, left, passed = spent - self._before, race.steps - spent, time.monotonic() - self._begun
            seconds = math.inf if race.seconds is None else max(race.seconds - passed, 0.0)
            clock = f", at most {min(passed / done * left, seconds):.0f} s left" if done > 0 else ""
            self._caption = f"{spent:.0f} of {race.steps} micro-batches spent ({spent / race.steps:.0%}){clock}"
        self._rows.append((*_row(job.stage, job.configuration, job.seed, job.until), "…", "running"))
        self._show()

    def finished(self, job: Job, outcome: Outcome) -> None:
        """Show what the job gave."""
        state = "failed" if outcome.error else "diverged" if outcome.value is None else "judged"
        self._rows[-1] = (*_row(job.stage, job.configuration, job.seed, job.until), _result(outcome), state)
        self._show()

    def chosen(self, plan: OptimizerPlan) -> None:
        """Print it below the table, where there is one."""
        if self._before is None:
            return
        self._console.print("chosen", style="bold")
        for line in (headline(plan), *map(str, plan.reasons_of("cost"))):
            self._console.print(printable(f"  {line}"), highlight=False, markup=False)

    def _show(self) -> None:
        if self._live is not None:
            room = max(self._console.height - _OTHER_LINES, 1)
            self._live.update(self._table(self._rows[-room:]), refresh=True)

    def _table(self, rows: Sequence[tuple[str, ...]]) -> Table:
        """Show the last `rows`, and how many there are above them: what does not fit is not shown while it grows."""
        table = Table(
            title="trials",
            caption=self._caption,
            title_justify="left",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        shown = [column for column in _COLUMNS if self._console.width >= _NARROW_COLUMNS or column not in _LEFT_OUT]
        for column in shown:
            table.add_column(column, justify=_JUSTIFY.get(column, "left"), no_wrap=column not in ("stage", "candidate"))
        if len(rows) < len(self._rows):
            table.add_row(f"{len(self._rows) - len(rows)} more")
        for row in rows:
            table.add_row(*(printable(cell) for column, cell in zip(_COLUMNS, row, strict=True) if column in shown))
        return table


def default_progress(*, quiet: bool = False) -> Progress:
    """Choose a table where the output is a terminal, log lines elsewhere.

    `quiet`: those alone, for whoever has set up logging.
    """
    console = Console()
    return TableProgress(console) if console.is_terminal and not quiet else LogProgress(shown=not quiet)


_COLUMNS = ("stage", "candidate", "lr", "schedule", "seed", "to", "value", "state")
_LEFT_OUT = ("schedule", "seed")
_JUSTIFY: Mapping[str, Literal["right"]] = {"lr": "right", "seed": "right", "to": "right", "value": "right"}


def cost_at_most(race: Race) -> str:
    """Say what the search may cost, as far as that is known before it."""
    limits = []
    if race.seconds is not None:
        limits.append(f"{race.seconds:.0f} s")
    if race.steps is not None:
        pace = "about " if race.seconds is not None else ""
        share = f" ({race.steps / race.whole:.2f} of the training)" if race.length_known else ""
        limits.append(f"{pace}{race.steps} micro-batches{share}")
    if race.trials is not None:
        limits.append(f"{race.trials} trials of at most {race.horizon} micro-batches each")
    return f"the search costs at most {' or '.join(limits)}{', whichever is less' if len(limits) > 1 else ''}"


def _judged(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.judged]


def _earlier(trial: Trial) -> tuple[str, ...]:
    value, state = ("diverged", "diverged") if trial.value is None else (f"{trial.value:.5g}", "judged")
    return (*_row("earlier", trial.configuration, trial.seed, max(trial.judged)), value, state)


def _in_words(trial: Trial) -> str:
    name, value = trial.configuration.describe(), _earlier(trial)[-2]
    return f"{name}, seed {trial.seed}, to micro-batch {max(trial.judged)}: {value}"


def _row(stage: str, configuration: Configuration, seed: int, until: int) -> tuple[str, ...]:
    own = configuration.optimizer == USER
    rate = "" if configuration.rate is None else format_value(configuration.rate)
    return (
        stage,
        configuration.optimizer,
        f"× {rate}" if own else rate,
        configuration.schedule.kind if rate and not own else "",
        str(seed),
        str(until),
    )


def _result(outcome: Outcome) -> str:
    if outcome.error is not None:
        return type(outcome.error).__name__
    return "diverged" if outcome.value is None else f"{outcome.value:.5g}"
