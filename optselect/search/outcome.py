"""What one stretch of a trial gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from optselect.configuration import Evaluation


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one stretch of a trial gave.

    evaluation  what the workload's monitor says at its end (None: diverged or failed)
    cost        micro-batches spent, validation included at a third
    reached     micro-batches of training behind the trial (at most so many when an exception ended it)
    error       the exception that ended it (None: it came to its end)
    pace        seconds per micro-batch of training, the median of its stretches (None: there was none)
    course      of a baseline: its mean training loss over the micro-batches that end at each of these

    Where trials are compared at equal time, `cost` and `reached` are in micro-batches of the baseline that take as
    long; `pace` is always that of its own.
    """

    evaluation: Evaluation | None
    cost: float
    reached: int
    error: Exception | None = None
    pace: float | None = field(default=None, compare=False)
    course: Mapping[int, float] = field(default_factory=dict, compare=False)

    @property
    def value(self) -> float | None:
        """The value of its evaluation."""
        return None if self.evaluation is None else self.evaluation.value
