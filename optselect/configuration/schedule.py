"""Learning-rate schedules as one small value: a factor on the peak learning rate for every step.

The value knows no tensors; `optselect.optim.scheduler` turns it into a torch scheduler.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from optselect.errors import ConfigurationError

ScheduleKind = Literal["constant", "linear", "cosine", "wsd"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Warm up linearly, then hold or decay.

    | kind | after the warmup | source |
    |---|---|---|
    | constant | stays at the peak | |
    | linear | falls to `final` along a line | Defazio et al. 2023, arXiv:2310.07831 |
    | cosine | falls to `final` along half a cosine | Loshchilov & Hutter 2017, arXiv:1608.03983 |
    | wsd | stays, then falls to `final` in the last `decay` share | Hägele et al. 2024, arXiv:2405.18392 |

    `warmup_steps` counts optimizer steps. `final` is the factor that the step after the last would have.
    `decay` is a share of the whole training. Every kind but `constant` needs the training's length.
    """

    kind: ScheduleKind = "constant"
    warmup_steps: int = 0
    final: float = 0.0
    decay: float = 0.2

    def __post_init__(self) -> None:
        if self.kind not in get_args(ScheduleKind):
            raise ConfigurationError(
                f"a schedule is one of {', '.join(get_args(ScheduleKind))}, but got kind={self.kind!r}"
            )
        if self.warmup_steps < 0:
            raise ConfigurationError(f"warmup_steps must be 0 or more, but got {self.warmup_steps}")
        if not 0.0 <= self.final <= 1.0:
            raise ConfigurationError(f"final is a share of the peak learning rate in [0, 1], but got {self.final}")
        if not 0.0 < self.decay <= 1.0:
            raise ConfigurationError(f"decay is a share of the training in (0, 1], but got {self.decay}")

    @property
    def needs_length(self) -> bool:
        """Whether the factor depends on how long the training is."""
        return self.kind != "constant"

    def factor(self, step: int, total_steps: int | None) -> float:
        """Return the factor on the peak learning rate in optimizer step `step`, counted from 0.

        Beyond `total_steps` the factor of the last step holds. Raises `ConfigurationError` when the
        schedule needs the training's length and `total_steps` is None.
        """
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        if self.kind == "constant":
            return 1.0
        if total_steps is None:
            raise ConfigurationError(
                f"a {self.kind} schedule needs the length of the training; pass total_steps or use kind='constant'"
            )
        start, last, steps = self.slope(total_steps)
        progress = (min(max(step, start), last) - start) / steps
        remaining = (1.0 + math.cos(math.pi * progress)) / 2.0 if self.kind == "cosine" else 1.0 - progress
        return self.final + (1.0 - self.final) * remaining

    def rise(self, steps: int) -> float:
        """Give the factor of parameters that joined `steps` ago: their moments know as little as others' once did."""
        return min((steps + 1) / (self.warmup_steps + 1), 1.0)

    def slope(self, total_steps: int) -> tuple[int, int, int]:
        """Return the first and the last step of the decay, and the number of steps it is divided by."""
        start = self.warmup_steps if self.kind != "wsd" else total_steps - round(self.decay * total_steps)
        # The number of steps, not of intervals: the last step still moves when final is 0, as with torch's
        # CosineAnnealingLR(T_max=total_steps).
        return start, max(total_steps - 1, start), max(total_steps - start, 1)

    def describe(self) -> str:
        """Put it in words: `cosine after 20 warmup steps`."""
        warmup = f" after {self.warmup_steps} warmup steps" if self.warmup_steps else ""
        floor = f" to {self.final:g} of the peak" if self.final and self.needs_length else ""
        return f"{self.kind}{floor}{warmup}"

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins; inverse of `from_dict`."""
        # Not asdict, which copies each: a study of thousands is known by its configurations.
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Schedule:
        """Read the schedule that `to_dict` wrote."""
        return cls(**data)
