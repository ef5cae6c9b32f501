"""A plan explained to a person, and the tables of what there is to choose from."""

from __future__ import annotations

import os

from optselect.files import write_whole
from optselect.plan import OptimizerPlan
from optselect.report.code import as_python
from optselect.report.explanation import headline
from optselect.report.figures import available as can_draw
from optselect.report.logged import logged_facts
from optselect.report.markdown import as_markdown
from optselect.report.notebook import choice_as_html
from optselect.report.page import as_html, is_page_of
from optselect.report.page_run import Run
from optselect.report.text import as_text
from optselect.words import printable

__all__ = [
    "Run",
    "as_html",
    "as_python",
    "can_draw",
    "choice_as_html",
    "explain",
    "headline",
    "is_page_of",
    "logged_facts",
    "write_report",
]


def explain(plan: OptimizerPlan, *, markdown: bool = False, width: int | None = None) -> str:
    """Explain why this optimizer: the choice, its reasons and cost, and all that it rests on.

    Plain text is at most `width` columns wide; None: as wide as the terminal. What it would obey is written out.
    """
    return printable(as_markdown(plan) if markdown else as_text(plan, width))


def write_report(plan: OptimizerPlan, path: str | os.PathLike[str], run: Run | None = None) -> None:
    """Write the same with plots to `path`, as one HTML page that needs no network.

    `run` says what was trained. Where matplotlib is missing (`pip install 'optselect[report]'`) the page has tables in
    place of the plots.
    """
    write_whole(path, as_html(plan, run))
