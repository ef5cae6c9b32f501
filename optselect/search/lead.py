"""How far one configuration is ahead of another at one point of their trainings, with its error."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from optselect.configuration.evaluation import Evaluation, paired
from optselect.configuration.goal import Goal

# Where a value has no parts, the share of the progress by which two trials may differ for nothing. From a quarter of
# the schedule on the median standard error of the leads in the calibration's record is .012 of it.
UNKNOWN_NOISE = 0.01


@dataclass(frozen=True, kw_only=True)
class Lead:
    """How much lower the loss of a configuration is than another's, on the same validation batches.

    rung        micro-batches trained
    values      what the other and it were judged at, as logged: means over seeds
    difference  the other's loss less its own: above zero it is ahead
    error       standard error of that, over validation batches and between seeds
    progress    the other's and its own since the untrained model (None: that was not judged)
    seeds       pairs of the same seed
    """

    rung: int
    values: tuple[float, float]
    difference: float
    error: float
    progress: tuple[float, float] | None
    seeds: int = 1

    @property
    def scale(self) -> float | None:
        """The larger progress of the two, and what the other has lost; None: neither has made any."""
        if self.progress is None or max(self.progress) <= 0:
            return None
        return max(self.progress) - min(*self.progress, 0.0)

    @property
    def share(self) -> float | None:
        """The lead as a share of the other's progress; None where that is no more than the error of the lead.

        It stays the same when all losses get a constant added or are multiplied.
        """
        if self.progress is None or self.progress[0] <= self.error:
            return None
        return self.difference / self.progress[0]

    def describe(self, whose: str) -> str:
        """Put it in words: `12 % ± 3 % of AdamW's progress`, or as a plain difference where that is no measure."""
        seeds = f" over {self.seeds} seeds" if self.seeds > 1 else ""
        if self.share is None or self.progress is None:
            return f"{self.difference:.3g} ± {self.error:.2g}{seeds}"
        return f"{_percent(self.share)} ± {_percent(self.error / self.progress[0])} of {whose} progress{seeds}"


def lead_between(
    pairs: Sequence[tuple[Evaluation, Evaluation]], *, rung: int, goal: Goal, untrained: Evaluation | None
) -> Lead:
    """Compare two configurations at `rung` by their evaluations, (the other's, its own), of one seed after another.

    There is at least one pair. The error is that over batches, which all seeds have in common, and that of the mean
    over seeds.
    """
    losses = [(goal.loss(other.value), goal.loss(own.value)) for other, own in pairs]
    differences = [other - own for other, own in losses]
    progress: tuple[float, float] | None = None
    if untrained is not None and math.isfinite(untrained.value):
        start = goal.loss(untrained.value)
        others, owns = zip(*losses, strict=True)
        progress = (start - _mean(others), start - _mean(owns))
    over_batches = [known[1] for other, own in pairs if (known := paired(other, own)) is not None]
    unknown = UNKNOWN_NOISE * max((0.0, *(progress or ())))
    of_batches = _mean(over_batches) if over_batches else unknown
    of_seeds = statistics.stdev(differences) / math.sqrt(len(pairs)) if len(pairs) > 1 else 0.0
    return Lead(
        rung=rung,
        values=(_mean([other.value for other, _ in pairs]), _mean([own.value for _, own in pairs])),
        difference=_mean(differences),
        error=math.hypot(of_batches, of_seeds),
        progress=progress,
        seeds=len(pairs),
    )


def _mean(values: Sequence[float]) -> float:
    # As `statistics.fmean` has it, which takes five times as long: a search may compare tens of thousands.
    return math.fsum(values) / len(values)


def _percent(share: float) -> str:
    return f"{share:.0%}" if abs(share) >= 0.095 else f"{share:.1%}"
