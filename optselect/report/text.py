"""A plan as plain text that fits a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator

from optselect.plan import OptimizerPlan
from optselect.report.explanation import Item, Section, sections
from optselect.report.groups import Table, aligned

WIDTH = 100
"""Columns where there is no terminal."""
# Words do not fit a narrower one, and lines of a wider one are hard to read.
_NARROWEST, _WIDEST = 40, 120


def terminal_width() -> int:
    """Return the columns of the terminal, within what can be read; 100 where there is none."""
    return min(max(shutil.get_terminal_size((WIDTH, 24)).columns, _NARROWEST), _WIDEST)


def as_text(plan: OptimizerPlan, width: int | None = None) -> str:
    """Write lines of at most `width` columns (None: the terminal's); lines stand two further in than their title."""
    return _text(sections(plan), width)


def choice_as_text(plan: OptimizerPlan, width: int | None = None) -> str:
    """Write the choice alone, with its reasons, schedule, groups and cost: what a search has not shown already."""
    return _text(sections(plan)[:1], width)


def _text(found: Iterable[Section], width: int | None) -> str:
    columns = terminal_width() if width is None else max(width, _NARROWEST)
    return "\n".join(line for section in found for line in _section(section, columns))


def wrapped(text: str, indent: str = "", width: int = WIDTH) -> list[str]:
    """Wrap `text` into lines of at most `width` columns, the second and further ones indented."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,  # 1e-3 is one word
    )


def _section(section: Section, width: int) -> Iterator[str]:
    yield from wrapped(section.title, width=width)
    for item in section.items:
        yield from _lines(item, "  ", width)


def _lines(item: Item | Table, indent: str, width: int) -> Iterator[str]:
    if isinstance(item, Table):
        yield from (f"{indent}{line}" for line in aligned(item.header, item.rows, item.numbers, width - 2))
        return
    yield from wrapped(item.text, indent, width)
    for below in item.below:
        yield from _lines(below, f"{indent}  ", width)
