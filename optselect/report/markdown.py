"""A plan as Markdown, for an issue, a notebook or a page of docs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from optselect.plan import OptimizerPlan
from optselect.report.explanation import Item, sections
from optselect.report.groups import Table

# What would be read as markup inside a line: emphasis, code, links, tables and HTML.
# And what would begin a list or a heading.
_MARKUP = re.compile(r"([\\`*\[\]<>|]|(?<!\w)_|_(?!\w)|^[-+#](?=\s))")


def as_markdown(plan: OptimizerPlan) -> str:
    """Write the plan with a heading for each section, and lists and tables below it."""
    first, *others = sections(plan)
    blocks = [f"## {escaped(first.title)}", *_list(first.items)]
    for section in others:
        title = escaped(section.title)
        blocks += [f"### {title[:1].upper()}{title[1:]}", *_list(section.items)]
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """Write `text` as Markdown that shows it as it is, in one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table; the cells are Markdown already, without a bare `|`."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(items: Sequence[Item | Table]) -> Iterator[str]:
    """Yield the blocks of a section: bullets that follow each other are one list."""
    for are_bullets, run in itertools.groupby(items, key=lambda item: isinstance(item, Item)):
        if are_bullets:
            yield "\n".join(line for item in run if isinstance(item, Item) for line in _bullets(item, ""))
        else:
            yield from (_table(item) for item in run if isinstance(item, Table))


def _table(given: Table) -> str:
    return table(tuple(map(escaped, given.header)), (tuple(map(escaped, row)) for row in given.rows))


def _bullets(item: Item, indent: str) -> Iterator[str]:
    yield f"{indent}- {escaped(item.text)}"
    for below in item.below:
        yield from _bullets(below, f"{indent}  ")
