"""What one stretch of a trial gave."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one stretch of a trial gave.

    value    what the workload's monitor says at its end (None: diverged or failed)
    cost     micro-batches spent, validation included at a third
    reached  micro-batches of training behind the trial (at most so many when an exception ended it)
    error    the exception that ended it (None: it came to its end)
    """

    value: float | None
    cost: float
    reached: int
    error: Exception | None = None
