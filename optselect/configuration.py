"""What one trial runs: a whole configuration, since a schedule and a learning rate belong together."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optselect.schedules import Schedule
from optselect.space import Value

USER = "user"
"""The name of the user's own optimizer among the candidates."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """An optimizer with every hyperparameter and its schedule. For `"user"` both are the user's own."""

    optimizer: str
    hyperparameters: Mapping[str, Value] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=Schedule)

    @functools.cached_property
    def key(self) -> str:
        """A short digest: equal configurations have equal keys, on every machine."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def describe(self) -> str:
        """In words: `adamw lr=0.003 weight_decay=0.01, cosine after 20 warmup steps`."""
        if self.optimizer == USER:
            return "your own optimizer, as it is"
        values = " ".join(f"{name}={format_value(value)}" for name, value in self.hyperparameters.items())
        return f"{self.optimizer} {values}, {self.schedule.describe()}"

    def to_dict(self) -> dict[str, Any]:
        """Builtins only; inverse of `from_dict`."""
        return {
            "optimizer": self.optimizer,
            "hyperparameters": dict(self.hyperparameters),
            "schedule": self.schedule.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Configuration:
        """The configuration that `to_dict` wrote."""
        return cls(
            optimizer=data["optimizer"],
            hyperparameters=dict(data["hyperparameters"]),
            schedule=Schedule.from_dict(data["schedule"]),
        )


def format_value(value: Value) -> str:
    """Three significant digits for a float, as it is for anything else."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
