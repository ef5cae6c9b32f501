"""How values are said to people, and what is kept from them."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Sequence

# --- passwords ------------------------------------------------------------------------------------

# A colon, an at sign and an equals sign as they stand, percent-encoded, or that once more.
_COLON, _AT, _EQUALS = "(?::|%(?:25)*3A)", "(?:@|%(?:25)*40)", "(?:=|%(?:25)*3D)"
_SCHEME = f"{_COLON}(?:/|%(?:25)*2F){{2}}"
# Greedy up to the last @ before a blank: a password may hold an @ itself. After a colon it may hold blanks, too.
_LOGIN = re.compile(
    rf"(?P<scheme>{_SCHEME})(?:[^\s@'\"]*?{_AT}(?:[^\s@]*@)*|[^:/@\n%]*{_COLON}[^@\n]*@(?:[^\s@]*@)*)", re.IGNORECASE
)
# What a query calls a password; its value ends where the next one begins, or with the text.
_IN_QUERY = re.compile(
    r"(?P<name>[?&;][^=&;\s]*(?:pass|pw|secret|token|key|credential|auth)[^=&;\s]*=)"
    r"(?P<value>'[^']*'|\"[^\"]*\"|\{[^}]*\}|[^&\s;]*?(?=[\"')\]},]*(?:[&\s;]|$)))",
    re.IGNORECASE,
)
# `password=…` wherever it stands: a DSN of libpq, of ODBC, the arguments of a driver, JSON and YAML.
_NAMED = re.compile(
    r"(?P<name>(?:password|passwd|passphrase|pwd|secret|api_?key|access_?key|auth_?token|(?<![A-Za-z])(?:pw|pass))"
    rf"[\"']?\s*(?:{_EQUALS}|:(?=\s|[\"']))\s*)"
    # In quotes, where a backslash or a doubled quote takes one in; in braces; up to a semicolon; or up to a blank.
    r"(?P<value>'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.|\"\")*\"|\{(?:[^}]|\}\})*\}|%(?:25)*7B.*?%(?:25)*7D"
    r"|[^;&'\"\n=]*?(?=;|%(?:25)*3B)|(?:\\.|[^\s;&'\",)}\]])+)",
    re.IGNORECASE,
)
_HIDDEN = "…"


def without_passwords(text: str) -> str:
    """Replace every login in `text`, and the value of what is called a password, by `…`.

    In URLs, in their queries, in the key-value lists that drivers take, also percent-encoded.
    """
    text = _LOGIN.sub(lambda found: f"{found['scheme']}{_HIDDEN}@", text)
    for pattern in (_IN_QUERY, _NAMED):
        text = pattern.sub(lambda found: f"{found['name']}{_HIDDEN}", text)
    return text


# --- terminals ------------------------------------------------------------------------------------

# Control characters move the cursor, set titles and colours; those for the direction of writing let a line read
# otherwise than it is; a lone half of a pair cannot be written at all.
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """Write out whatever in `text` a terminal would obey in place of showing it; line breaks stay."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(each if _is_shown(each) else each.encode("unicode_escape").decode("ascii") for each in text)


def _is_shown(character: str) -> bool:
    if character == "\n":
        return True
    return unicodedata.category(character) not in _UNPRINTABLE and character not in _DIRECTIONS


class PrintableFilter(logging.Filter):
    """Writes out what a terminal would obey in a message, whatever names and values are in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, in plain characters."""
        message = record.getMessage()
        if (shown := printable(message)) != message:
            record.msg, record.args = shown, ()
        return True


# Of the logger itself, so that it holds for every handler.
logging.getLogger("optselect").addFilter(PrintableFilter())


def format_value(value: object) -> str:
    """Write a float with three significant digits, anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def format_times(ratio: float) -> str:
    """Write how many times as much something is, with two significant digits or as a whole number."""
    return f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.1f}" if ratio >= 0.95 else f"{ratio:.2g}"


def format_share(share: float) -> str:
    """Write a share in percent, and what is more than the whole as so many times it: `12%`, `8.5 ×`."""
    return f"{format_times(share)} ×" if share >= 1 else f"{share:.0%}" if abs(share) >= 0.095 else f"{share:.1%}"


def format_seconds(seconds: float) -> str:
    """Write a duration with three significant digits, in seconds or in thousandths of one."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def format_duration(seconds: float) -> str:
    """Write a longer time as one says it: `0.4 s`, `12 s`, `3.5 min`, `40 min`, `2.5 h`."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.2g} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{max(seconds, 0.0):.1g} s"


def some(names: Sequence[str], most: int = 5) -> str:
    """List the first few of `names`, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def format_gibibytes(size: int) -> str:
    """Write a number of bytes in GiB, with two significant digits or as a whole number."""
    amount = size / 2**30
    return f"{amount:.0f} GiB" if amount >= 9.95 else f"{amount:.2g} GiB"
