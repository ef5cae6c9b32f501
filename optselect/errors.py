"""Every error optselect raises on purpose.

    OptselectError
    ├── UnknownOptimizerError   (also a KeyError)   a name that is not in the catalogue
    ├── ConfigurationError      (also a ValueError) an argument that cannot be meant
    │   └── BudgetError                             a budget that cannot be spent
    ├── MetricNotLoggedError    (also a KeyError)   the monitored value never came
    ├── UnsupportedModuleError                      this module cannot be searched or built for
    ├── SearchError                                 every trial failed
    ├── StorageError                                the study cannot be read or written
    ├── PlanError                                   a plan cannot be used
    │   ├── PlanFormatError     (also a ValueError) not a plan at all
    │   ├── PlanVersionError                        written by a later optselect
    │   └── PlanMismatchError                       written for another model
    ├── ResumeError                                 a checkpoint without what resuming needs
    └── MissingExtraError       (also an ImportError) an optional package is not installed

Each message says what is true, what came, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from optselect.words import printable


class OptselectError(Exception):
    """The root: catch this to catch everything optselect raises on purpose."""

    def __str__(self) -> str:
        # KeyError quotes its argument; a sentence must come out as a sentence.
        # And it may quote a name out of somebody's file, which a terminal must not obey.
        return printable(Exception.__str__(self))


class UnknownOptimizerError(OptselectError, KeyError):
    """A name that is not in the catalogue."""

    @classmethod
    def named(cls, name: str, known: Iterable[str]) -> UnknownOptimizerError:
        """Make the error for `name`, with the nearest of the `known` names as a suggestion."""
        known = sorted(known)
        return cls(f"no optimizer named {name!r} in the catalogue.{nearest(name, known)} Known: {', '.join(known)}.")


class ConfigurationError(OptselectError, ValueError):
    """An argument that cannot be meant."""


class BudgetError(ConfigurationError):
    """A budget that cannot be spent: negative, or a share of a training without a known length."""


class MetricNotLoggedError(OptselectError, KeyError):
    """The monitored value never came."""

    @classmethod
    def among(cls, what: str, name: str, logged: Iterable[str]) -> MetricNotLoggedError:
        """Make the error for `name`: `what` says in words what was looked for, and `logged` is what there was."""
        names = sorted(logged)
        return cls(
            f"{what}; logged: {', '.join(names) or 'nothing'}.{nearest(name, names)} "
            "Pass monitor= with the name of a logged value."
        )


class UnsupportedModuleError(OptselectError):
    """This module cannot be searched, or the chosen optimizer cannot train it."""

    @classmethod
    def nothing_trains(cls) -> UnsupportedModuleError:
        """Make the error for a model of which all is frozen."""
        return cls("the model has no trainable parameter; set requires_grad=True on what should learn")


class SearchError(OptselectError):
    """No trial gave a value, so there is nothing to choose by."""


class StorageError(OptselectError):
    """The study cannot be read or written."""


class PlanError(OptselectError):
    """A plan cannot be used."""


class PlanFormatError(PlanError, ValueError):
    """Not a plan at all: unreadable, not JSON, or with fields missing or of the wrong type."""


class PlanVersionError(PlanError):
    """A plan written by a later optselect than this one."""


class PlanMismatchError(PlanError):
    """A plan written for another model."""


class ResumeError(OptselectError):
    """A checkpoint lacks what resuming needs."""


class MissingExtraError(OptselectError, ImportError):
    """An optional package is not installed."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?` for the closest of the `known` names, or two as close; nothing when none is close.

    Capitals and blanks do not count.
    """
    names = list(known)
    meant = name.strip().lower()
    if same := [each for each in names if each.lower() == meant]:
        close = same[:1]
    else:
        close = difflib.get_close_matches(meant, names, n=5)
        least = min((_edits(meant, each) for each in close), default=0)
        close = [each for each in close if _edits(meant, each) == least][:2]
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def _edits(one: str, other: str) -> int:
    """Count the letters to put in, take out or change, to come from `one` to `other`."""
    row = list(range(len(other) + 1))
    for line, letter in enumerate(one, 1):
        before, row[0] = row[0], line
        for column, its in enumerate(other, 1):
            before, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, before + (letter != its))
    return row[-1]
