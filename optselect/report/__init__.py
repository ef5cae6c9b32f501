"""A plan explained to a person."""

from optselect.report.text import explain

__all__ = ["explain"]
