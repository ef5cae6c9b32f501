"""How far a configuration is ahead of the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Lead:
    """A lead over the baseline, on the same batches.

    mean    at the deepest rung, over seeds, as a share of the larger loss; over all rungs where that is small
    error   standard error over seeds (0: one seed)
    seeds   paired seeds at the rung that has most
    values  mean (baseline, own) value by rung, as logged
    """

    mean: float
    error: float
    seeds: int
    values: Mapping[int, tuple[float, float]]

    def describe(self) -> str:
        """Put it in words: `23 % ± 4 % over 2 seeds`."""
        noise = f" ± {self.error:.0%} over {self.seeds} seeds" if self.seeds > 1 else ""
        return f"{self.mean:.0%}{noise}"
