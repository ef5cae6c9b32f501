"""What sections of a page are made of: figures, tables, and boxes that scroll."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from optselect.report import figures
from optselect.report.markup import Html, element


def figure(title: str, caption: str, draw: Callable[[], Html], table: Html | None = None) -> Html:
    """Show a plot with its numbers; without matplotlib the numbers alone."""
    name = re.sub(r"\W+", "-", title.lower())
    plot = None
    if figures.available():
        try:
            plot = draw()
        # matplotlib gives up on axes from 1e-300 to 1e300, and a diverged trial may be as far off.
        except Exception:  # noqa: BLE001  # whatever it is: the numbers are there
            said = f"{caption} The numbers are too far apart for a plot."
        else:
            said = caption
    else:
        said = f"{caption} The plot needs matplotlib: pip install 'optselect[report]'."
    return element(
        "figure",
        element("figcaption", element("h3", title, id=f"figure-{name}"), element("p", said)),
        plot,
        element("details", element("summary", "The numbers"), table, open=plot is None) if table else None,
        aria_labelledby=f"figure-{name}",
    )


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Iterable[int] = (),
    cards: bool = False,
) -> Html:
    """Write a table whose first column heads its rows; `numbers` are the columns to align at the right.

    With `cards` a row is a card on a phone, where long cells would be out of sight.
    """
    right = set(numbers)
    classes = ["number" if column in right else None for column in range(len(header))]
    head = element(
        "tr", *(element("th", each, scope="col", class_=how) for each, how in zip(header, classes, strict=True))
    )
    body = [
        element(
            "tr",
            element("th", row[0], scope="row", class_=classes[0]),
            *(
                element("td", cell, class_=how, data_label=said if cards else None)
                for cell, how, said in zip(row[1:], classes[1:], header[1:], strict=True)
            ),
        )
        for row in rows
    ]
    return scrolling(
        caption,
        element(
            "table",
            element("caption", element("span", caption)),
            element("thead", head),
            element("tbody", *body),
            class_="cards" if cards else None,
        ),
    )


# What a source may be found by, and where.
_FOUND_AT = re.compile(r"arXiv:(?P<arxiv>\d{4}\.\d{4,5})|(?P<github>github\.com/[\w./#-]*\w)")


def cited(text: str) -> Html:
    """Show a source; what can be looked up is a link, which a reader follows or does not: the page fetches nothing."""
    pieces: list[str] = []
    at = 0
    for found in _FOUND_AT.finditer(text):
        where = f"https://arxiv.org/abs/{found['arxiv']}" if found["arxiv"] else f"https://{found['github']}"
        pieces += [text[at : found.start()], element("a", found.group(), href=where, rel="noreferrer")]
        at = found.end()
    return element("cite", *pieces, text[at:])


def scrolling(label: str, content: Html) -> Html:
    """Put `content` in a box that scrolls, with the keyboard, too."""
    return element("div", content, class_="scroll", role="region", aria_label=label, tabindex="0")
