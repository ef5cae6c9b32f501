"""What both suites raise."""

from __future__ import annotations


class ConformanceError(AssertionError):
    """A spec or a rule does not do what it says."""


def said(error: Exception) -> str:
    """Return what an error says in its first line, after its class."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
