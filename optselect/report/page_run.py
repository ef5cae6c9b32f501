"""The section of a page that says what was trained, and how that ended: what a plan itself does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from optselect.report.markup import Html, element
from optselect.words import format_value


@dataclass(frozen=True, kw_only=True)
class Run:
    """The training that a plan was made for.

    module  the class of the module
    data    of its data
    folder  of the run
    chosen  the day and the minute of the choice
    ended   how the training ended ("": it has not)
    values  what it logged last
    """

    module: str
    data: str
    folder: str
    chosen: str
    ended: str = ""
    values: Mapping[str, float] = field(default_factory=dict)


def run_section(run: Run) -> Iterator[Html]:
    """Show it as a list of facts."""
    facts = [("module", run.module), ("data", run.data), ("run", run.folder), ("chosen", run.chosen)]
    facts.append(("training", run.ended or "not ended when this was written"))
    facts += [(name, format_value(value)) for name, value in run.values.items()]
    pairs = [(element("dt", name), element("dd", value)) for name, value in facts if value]
    yield element("dl", *pairs, class_="facts")
