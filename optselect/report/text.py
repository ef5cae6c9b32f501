"""A plan as plain text that fits a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from optselect.plan import OptimizerPlan
from optselect.report.explanation import Item, Section, proposal_item, sections
from optselect.report.groups import Table, aligned
from optselect.rules import Proposal

WIDTH = 100


def as_text(plan: OptimizerPlan) -> str:
    """Write lines of at most 100 columns; a section's lines stand two further in than its title."""
    return "\n".join(line for section in sections(plan) for line in _section(section))


def choice_as_text(plan: OptimizerPlan) -> str:
    """Write the choice alone, with its reasons, schedule, groups and cost: what a search has not shown already."""
    return "\n".join(_section(sections(plan)[0]))


def proposal_lines(proposals: Iterable[Proposal]) -> Iterator[str]:
    """Yield each proposal with the votes for and against it."""
    for proposal in proposals:
        yield from _lines(proposal_item(proposal), "  ")


def wrapped(text: str, indent: str = "") -> list[str]:
    """Wrap `text` into lines of at most 100 columns, the second and further ones indented."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,  # 1e-3 is one word
    )


def _section(section: Section) -> Iterator[str]:
    yield from wrapped(section.title)
    for item in section.items:
        yield from _lines(item, "  ")


def _lines(item: Item | Table, indent: str) -> Iterator[str]:
    if isinstance(item, Table):
        yield from (f"{indent}{line}" for line in aligned(item.header, item.rows, item.numbers))
        return
    yield from wrapped(item.text, indent)
    for below in item.below:
        yield from _lines(below, f"{indent}  ")
