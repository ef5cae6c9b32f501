"""What a notebook shows: a search as one table in the cell's output, drawn anew as it grows, and a plan."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any

from optselect.configuration.trial import Trial
from optselect.plan import OptimizerPlan
from optselect.report.explanation import Item, sections
from optselect.report.markup import Html, element
from optselect.report.standing import Standing
from optselect.report.text import WIDTH, as_text
from optselect.search.outcome import Outcome
from optselect.search.progress import Preview, Silent
from optselect.search.race import Job, Race
from optselect.study.claims import Claim

# Each drawing is a message to the browser, and stays in the notebook's file until the next one.
_SECONDS_BETWEEN = 0.5
_COLUMNS = ("optimizer", "lr", "schedule", "batches", "value", "")
_NUMBERS = ("lr", "batches", "value")


def choice_as_html(plan: OptimizerPlan) -> str:
    """Write the choice, its reasons and its groups; the whole explanation is folded up below."""
    items: list[Html] = []
    tables: list[Html] = []
    choice = sections(plan)[0]
    for item in choice.items:
        if isinstance(item, Item):
            items.append(element("li", item.text))
        else:
            rows = [_line(item.header, "th", item.numbers), *(_line(row, "td", item.numbers) for row in item.rows)]
            tables.append(element("table", *rows))
    whole = element("pre", as_text(plan, WIDTH), style="white-space: pre-wrap")
    return element(
        "div",
        element("p", element("b", choice.title)),
        element("ul", *items),
        *tables,
        element("details", element("summary", "the profile, the proposals, the rules and the trials"), whole),
    )


def _line(cells: Sequence[str], tag: str, numbers: Collection[int]) -> Html:
    sides = ("text-align: right" if column in numbers else "text-align: left" for column in range(len(cells)))
    return element("tr", *(element(tag, cell, style=side) for cell, side in zip(cells, sides, strict=True)))


class NotebookProgress(Silent):
    """A table in the output of the cell that runs.

    `opening` gives the lines above it, `closing` those below.
    """

    def __init__(
        self,
        opening: Callable[[Race, Preview | None], Sequence[str]],
        closing: Callable[[OptimizerPlan], Sequence[str]],
        display: Callable[[Html], Callable[[Html], None]] | None = None,
    ) -> None:
        self._opening, self._closing = opening, closing
        self._display = display or _shown_in_cell
        self._update: Callable[[Html], None] | None = None
        self._standing = Standing()
        self._preview: Preview | None = None
        self._above: Sequence[str] = ()
        self._below: Sequence[str] = ()
        self._drawn = -math.inf

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._standing.begun:
            self._draw()

    def proposed(self, preview: Preview) -> None:
        """Keep what is known, to show it above the table."""
        self._preview = preview

    def started(self, job: Job, race: Race, trials: Sequence[Trial]) -> None:
        """Show the job as running, and the budget."""
        if not self._standing.begun:
            self._above = self._opening(race, self._preview)
            self._standing.rows += self._standing.earlier(trials)
        self._standing.rows += self._standing.news(trials)
        self._standing.started(job, race, trials)
        self._draw()

    def alongside(self, running: Sequence[Claim], lost: Sequence[Claim]) -> None:
        """Note who is at what, for the next drawing."""
        self._standing.alongside(running, lost)

    def waiting(self) -> None:
        """Show what others are at."""
        self._draw()

    def advanced(self, reached: int) -> None:
        """Show how far the running job is."""
        self._standing.advanced(reached)
        if time.monotonic() - self._drawn >= _SECONDS_BETWEEN:
            self._draw()

    def finished(self, job: Job, outcome: Outcome) -> None:
        """Show what the job gave."""
        self._standing.finished(job, outcome)
        self._draw()

    def chosen(self, plan: OptimizerPlan) -> None:
        """Show it below the table, where there is one."""
        if self._standing.begun:
            self._standing.others = ()
            self._below, self._standing.caption = self._closing(plan), ""
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if self._update is None:
            self._update = self._display(self._html())
        else:
            self._update(self._html())

    def _html(self) -> Html:
        best = self._standing.best(self._preview.goal if self._preview is not None else None)
        monitor = self._preview.monitor if self._preview is not None else "value"
        titles = (monitor if column == "value" else column for column in _COLUMNS)
        head = element("tr", *map(_cell, _COLUMNS, titles, ["th"] * len(_COLUMNS)))
        rows = []
        for row in (*self._standing.rows, *self._standing.others):
            cells = {**row.cells, "": "← best so far" if row is best else row.cells[""]}
            style = "font-weight: bold" if row is best else None
            rows.append(element("tr", *(_cell(column, cells[column], "td") for column in _COLUMNS), style=style))
        return element(
            "div",
            *(element("div", line) for line in self._above),
            element("table", element("thead", head), element("tbody", *rows)),
            *(element("div", line) for line in (self._standing.caption, self._standing.company, *self._below) if line),
        )


def _cell(column: str, text: str, tag: str) -> Html:
    return element(tag, text, style=f"text-align: {'right' if column in _NUMBERS else 'left'}")


def _shown_in_cell(html: Html) -> Callable[[Html], None]:
    """Show `html` in the output of the running cell; return what replaces it."""
    from IPython.display import HTML, display  # noqa: PLC0415  # there is one only in a notebook

    handle: Any = display(HTML(html), display_id=True)
    return lambda later: handle.update(HTML(later))
