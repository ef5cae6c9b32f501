"""How values are said to people, and what is kept from them."""

from __future__ import annotations

import re

# Greedy up to the last @ before a blank: a password may hold an @ itself.
_LOGIN = re.compile(r"(?<=://)[^\s@]*(?:@[^\s@]*)*@")
_SECRET_VALUE = re.compile(r"([?&][^=&\s]*(?:pass|pwd|secret|token|key)[^=&\s]*=)[^&\s'\"]*", re.IGNORECASE)


def without_passwords(text: str) -> str:
    """Replace the login of every URL in `text`, and what its query calls a password, by `…`."""
    return _SECRET_VALUE.sub(r"\1…", _LOGIN.sub("…@", text))


def format_value(value: object) -> str:
    """Write a float with three significant digits, anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
