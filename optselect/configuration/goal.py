"""What is good: whether small or large values of what trials are judged by, and at what they are compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Mode = Literal["min", "max"]
Compare = Literal["steps", "seconds"]
"""Whether trials are compared after equally many steps, or after equal time."""


@dataclass(frozen=True)
class Goal:
    """Small values ("min") or large ones ("max"); the one place where the sign is decided."""

    mode: Mode = "min"

    def loss(self, value: float) -> float:
        """Turn `value` so that less is better. It is its own inverse: the loss of a loss is the value."""
        return value if self.mode == "min" else -value

    def better(self, one: float, other: float) -> bool:
        """Tell whether `one` is better than `other`."""
        return self.loss(one) < self.loss(other)

    def best(self, values: Iterable[float]) -> float:
        """Return the best of `values`, of which there is at least one."""
        return min(values, key=self.loss)

    def worst(self, values: Iterable[float]) -> float:
        """Return the worst of `values`, of which there is at least one."""
        return max(values, key=self.loss)
