"""What a person sees of a search: a live table in a terminal or a notebook, log lines elsewhere."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from optselect.configuration import USER
from optselect.configuration.trial import Trial
from optselect.plan import OptimizerPlan
from optselect.report.explanation import cost, headline
from optselect.report.notebook import NotebookProgress
from optselect.report.standing import Row, Standing
from optselect.rules import Proposal
from optselect.search.outcome import Outcome
from optselect.search.progress import Preview, Progress, Silent
from optselect.search.race import Job, Race
from optselect.study.claims import Claim
from optselect.words import format_duration, format_times, printable

if TYPE_CHECKING:
    from optselect.workload.room import Room

_log = logging.getLogger("optselect")

# A terminal narrower than this shows neither schedule, seed nor stage, so that the values stay whole.
_WIDE_COLUMNS = 100
# Around the trials: header, rule, "earlier ones", caption, the lines above, and where the cursor stands.
_OTHER_LINES = 9
# A table that is drawn more often than this only flickers.
_SECONDS_BETWEEN = 0.2
# Of the workers that are waited for, a line names so many.
_NAMED = 4


class LogProgress(Silent):
    """One log line for each job; where none is run there is nothing to say.

    Where nobody has set up logging, lines go to stderr while a search runs: a batch job's output would say nothing of
    one that takes its time. Not if that is not `shown`.
    """

    def __init__(self, *, shown: bool = True) -> None:
        self._standing = Standing()
        self._preview: Preview | None = None
        self._begun = False
        self._waits = False
        self._shown = shown
        self._own: tuple[logging.Handler, int] | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._leave()

    def proposed(self, preview: Preview) -> None:
        """Keep what is known, to say it before the first job."""
        self._preview = preview
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
        if not self._begun:
            for line in opening(race, self._preview):
                _log.info("%s", line)
            for row in self._standing.earlier(trials):
                _log.info("earlier: %s", row.in_words(self._monitor))
        self._tell(trials)
        self._begun, self._waits = True, False
        self._standing.started(job, race, trials)

    def _tell(self, trials: Sequence[Trial]) -> None:
        for row in self._standing.news(trials):
            _log.info("elsewhere: %s", row.in_words(self._monitor))

    def alongside(self, running: Sequence[Claim], lost: Sequence[Claim]) -> None:
        """Note who is at what, for the line that says what is waited for."""
        self._standing.alongside(running, lost)

    def waiting(self) -> None:
        """Say so once, and for whom."""
        if not self._waits and self._standing.others:
            at = "; ".join(f"{row.cells['optimizer']} {row.worker}" for row in self._standing.others[:_NAMED])
            more = len(self._standing.others) - _NAMED
            _log.info("waits until others have ended: %s%s", at, f"; {more} more" if more > 0 else "")
            self._waits = True

    @property
    def _monitor(self) -> str:
        return self._preview.monitor if self._preview is not None else "value"

    def finished(self, job: Job, outcome: Outcome) -> None:
        """Say what the job gave."""
        row = self._standing.finished(job, outcome)
        _log.info("%s (%s before it)", row.in_words(self._monitor), self._standing.spent_in_words)

    def chosen(self, plan: OptimizerPlan) -> None:
        """Say so, after a search."""
        if self._begun:
            self._tell(plan.trials)
        level = logging.INFO if self._begun else logging.DEBUG
        _log.log(level, "%s", "; ".join(closing(plan)))
        self._leave()


class TableProgress(Silent):
    """A table that grows while the search runs, with the share of the budget spent and the time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._standing = Standing()
        self._preview: Preview | None = None
        self._drawn = -math.inf
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._standing.others = ()
            if self._standing.rows:
                self._live.update(self._table(self._standing.rows))
            self._live.__exit__(kind, error, trace)

    def proposed(self, preview: Preview) -> None:
        """Keep what is known, to print it above the table."""
        self._preview = preview

    def started(self, job: Job, race: Race, trials: Sequence[Trial]) -> None:
        """Show the job as running, and the budget; at the first, what the search may cost and what was run before."""
        if not self._standing.begun:
            for line in opening(race, self._preview):
                self._console.print(Text(printable(line)))
            self._standing.rows += self._standing.earlier(trials)
        self._standing.rows += self._standing.news(trials)
        self._standing.started(job, race, trials)
        self._show()

    def alongside(self, running: Sequence[Claim], lost: Sequence[Claim]) -> None:
        """Note who is at what, for the next drawing."""
        self._standing.alongside(running, lost)

    def waiting(self) -> None:
        """Show what others are at."""
        self._show()

    def advanced(self, reached: int) -> None:
        """Show how far the running job is."""
        self._standing.advanced(reached)
        if time.monotonic() - self._drawn >= _SECONDS_BETWEEN:
            self._show()

    def finished(self, job: Job, outcome: Outcome) -> None:
        """Show what the job gave."""
        self._standing.finished(job, outcome)
        self._show()

    def chosen(self, plan: OptimizerPlan) -> None:
        """Print it below the table, where there is one."""
        if self._standing.begun:
            for line in closing(plan):
                self._console.print(Text(printable(line)))

    def _show(self) -> None:
        if self._live is not None:
            room = max(self._console.height - _OTHER_LINES, 1)
            rows = [*self._standing.rows, *self._standing.others]
            self._live.update(self._table(rows[-room:]), refresh=True)
            self._drawn = time.monotonic()

    def _table(self, rows: Sequence[Row]) -> Table:
        """Show the last `rows`, and how many there are above them: what does not fit is not shown while it grows."""
        table = Table(
            caption=", ".join(filter(None, [self._standing.caption, self._standing.company])),
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1),
        )
        shown = [column for column in _COLUMNS if self._console.width >= _WIDE_COLUMNS or column not in _LEFT_OUT]
        monitor = self._preview.monitor if self._preview is not None else "value"
        for column in shown:
            title = monitor if column == "value" else column
            # Whole, whatever the metric is called: the title may break, a value never.
            least = max((len(row.cells[column]) for row in rows), default=0)
            if column == "optimizer":
                table.add_column(column)
            else:
                table.add_column(printable(title), justify=_JUSTIFY.get(column, "left"), no_wrap=True, min_width=least)
        if (more := len(self._standing.rows) + len(self._standing.others) - len(rows)) > 0:
            table.add_row(f"{more} more")
        best = self._standing.best(self._preview.goal if self._preview is not None else None)
        for row in rows:
            cells = {**row.cells, "": "← best so far" if row is best else row.cells[""]}
            table.add_row(*(Text(printable(cells[column])) for column in shown), style="bold" if row is best else "")
        return table


def progress_for(progress: Progress | bool, *, quiet: bool = False) -> Progress:  # noqa: FBT001  # as users pass it
    """Choose a table where the output is a terminal or a notebook, log lines elsewhere; nothing where it is False.

    `quiet`: log lines alone, for whoever has set up logging. A progress of the user's own is what is shown.
    """
    if not isinstance(progress, bool):
        return progress
    if not progress:
        return Silent()
    console = Console()
    if quiet or not (console.is_terminal or console.is_jupyter):
        return LogProgress(shown=not quiet)
    return NotebookProgress(opening, closing) if console.is_jupyter else TableProgress(console)


_COLUMNS = ("stage", "optimizer", "lr", "schedule", "seed", "batches", "value", "")
_LEFT_OUT = ("stage", "schedule", "seed")
_JUSTIFY: Mapping[str, Literal["right"]] = {"lr": "right", "seed": "right", "batches": "right", "value": "right"}


def opening(race: Race, preview: Preview | None) -> list[str]:
    """Say what will be compared, by what, and what that costs."""
    pace = preview.pace if preview is not None else None
    known = [] if preview is None else [f"optselect tries {_names(preview.proposals)}, judged by {preview.monitor}"]
    room = None if preview is None else preview.room
    return [
        *known,
        f"to beat: {race.baseline.describe()}",
        f"{cost_at_most(race, pace)}; budget= changes that, budget=0 tries nothing",
        *([] if room is None else [copies(room, race, pace)]),
    ]


def copies(room: Room, race: Race, pace: float | None = None) -> str:
    """Say where parts of a model are put aside and what that takes; `pace` in seconds per micro-batch."""
    if room.seconds is None:
        return room.said
    arms, seconds = race.layout.arms, format_duration(room.seconds)
    as_many = f" or {format_times(room.seconds / pace)} micro-batches" if pace else ""
    together = format_duration(arms * room.seconds)
    return f"{room.said}; each trial puts them back in about {seconds}{as_many}, the first {arms} in {together}"


def closing(plan: OptimizerPlan) -> list[str]:
    """Say what was chosen, how far it leads, and what that cost."""
    leads = [str(reason) for reason in plan.reasons_of("lead")[:1]]
    return [f"chosen: {headline(plan)}", *leads, *cost(plan)[:1]]


def _names(proposals: Sequence[Proposal]) -> str:
    names = dict.fromkeys(each.optimizer for each in proposals if each.optimizer != USER)
    return ", ".join(names) or "other rates of your own optimizer"


def cost_at_most(race: Race, pace: float | None = None) -> str:
    """Say what the search may cost, as far as that is known before it; `pace` in seconds per micro-batch."""
    limits = []
    if race.seconds is not None:
        limits.append(f"{format_duration(race.seconds)}")
    if race.steps is not None:
        about = "about " if race.seconds is not None else ""
        share = f" ({race.steps / race.whole:.2f} of the training)" if race.length_known else ""
        takes = f", about {format_duration(pace * race.left)}" if pace is not None and race.seconds is None else ""
        limits.append(f"{about}{race.steps} micro-batches{share}{takes}")
    if race.trials is not None:
        limits.append(f"{race.trials} trials of at most {race.horizon} micro-batches each")
    return f"the search costs at most {' or '.join(limits)}{', whichever is less' if len(limits) > 1 else ''}"
