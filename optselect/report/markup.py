"""HTML that cannot be broken by what it shows: all text is escaped, unless it is `Html` already."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Literal

_VOID = frozenset({"meta", "br"})
# HTML has no way to write most of them, and XML, which pictures are made through, refuses them.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")


class Html(str):
    """Markup. Only this module, and who draws, makes it out of plain strings."""

    __slots__ = ()


Content = str | None | Iterable["Content"]


def element(name: str, /, *content: Content, **attributes: str | bool | None) -> Html:
    """Write `<name attributes>content</name>`; attributes are written with `_` for `-`, and `class_` for `class`.

    An attribute that is True stands without a value, an empty one not at all.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items() if value)
    return Html(f"<{name}{written}>" if name in _VOID else f"<{name}{written}>{fragment(*content)}</{name}>")


def _attribute(key: str, value: str | Literal[True]) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{shown(value)}"'


def fragment(*content: Content) -> Html:
    """Join pieces one after another; those that are not `Html` are escaped, None is left out."""
    return Html("".join(map(_written, content)))


def shown(text: str) -> str:
    """Escape `text` so that HTML shows it, also inside quotes; what HTML cannot hold becomes U+FFFD."""
    return html.escape(visible(text))


def visible(text: str) -> str:
    """Put U+FFFD for what neither HTML nor XML can hold."""
    return _CONTROL.sub("\ufffd", text)


def _written(content: Content) -> str:
    if content is None:
        return ""
    if isinstance(content, Html):
        return content
    return shown(content) if isinstance(content, str) else fragment(*content)
