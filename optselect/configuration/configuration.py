"""What one trial runs: a whole configuration, since a schedule and a learning rate belong together."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from optselect.configuration.policy import FineTuning
from optselect.configuration.schedule import Schedule
from optselect.space import SearchSpace, Value, log_uniform
from optselect.words import format_value

USER = "user"
"""The name of the user's own optimizer among the candidates."""

LR_SCALE, WEIGHT_DECAY_SCALE = "lr_scale", "weight_decay_scale"
"""Factors on the rates of the user's own optimizer: its only hyperparameters here, 1 when missing."""

USER_SPACE = SearchSpace(
    {LR_SCALE: log_uniform(1e-3, 1e3, centre=1.0), WEIGHT_DECAY_SCALE: log_uniform(1e-2, 1e2, centre=1.0)}
)
"""Where the user's own optimizer may be searched: three decades around its rate, two around its weight decay."""

_SORTED = json.JSONEncoder(sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """An optimizer with every hyperparameter and its schedule.

    For `"user"` both are the user's own, and the hyperparameters are factors on them: none, as it is.
    `fine_tuning` says how the parts of a trained model differ (None: all are treated alike).
    `called` says what the user's own is, for people alone ("": not known): it makes no other configuration.
    """

    optimizer: str
    hyperparameters: Mapping[str, Value] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=Schedule)
    fine_tuning: FineTuning | None = None
    called: str = field(default="", compare=False)

    @property
    def scales(self) -> dict[str, float]:
        """The factors on the user's own rates; none for any other optimizer."""
        return {name: float(value) for name, value in self.hyperparameters.items()} if self.optimizer == USER else {}

    @property
    def rate(self) -> float | None:
        """The learning rate, or the factor on the user's own; None where there is none."""
        value = self.scales.get(LR_SCALE, 1.0) if self.optimizer == USER else self.hyperparameters.get("lr")
        return None if value is None else float(value)

    @property
    def rate_falls(self) -> bool:
        """Whether the learning rate falls to the end; of the user's own schedule nobody knows."""
        return self.optimizer != USER and self.schedule.kind != "constant"

    def at_rate(self, rate: float) -> Configuration:
        """Return the same with another learning rate, or another factor on the user's own."""
        if self.optimizer != USER:
            return replace(self, hyperparameters={**self.hyperparameters, "lr": rate})
        # Without factors of 1, so that there is one configuration for the user's own as it is.
        scales = {**self.scales, LR_SCALE: rate}
        return replace(self, hyperparameters={name: value for name, value in scales.items() if value != 1.0})

    @functools.cached_property
    def key(self) -> str:
        """A short digest: equal configurations have equal keys, on every machine."""
        known = {name: value for name, value in self.to_dict().items() if name != "called"}
        return hashlib.sha256(_SORTED.encode(known).encode()).hexdigest()[:12]

    def describe(self) -> str:
        """Put it in words: `adamw lr=0.003 weight_decay=0.01, cosine after 20 warmup steps`."""
        if self.optimizer == USER:
            words = {LR_SCALE: "learning rate", WEIGHT_DECAY_SCALE: "weight decay"}
            factors = [f"its {words[name]} × {format_value(value)}" for name, value in self.hyperparameters.items()]
            if self.called:
                return ", ".join([f"yours: {self.called}", *([" and ".join(factors)] if factors else [])])
            return f"your own optimizer, {' and '.join(factors) or 'as it is'}"
        values = " ".join(f"{name}={format_value(value)}" for name, value in self.hyperparameters.items())
        policy = f", {self.fine_tuning.describe()}" if self.fine_tuning else ""
        return f"{self.optimizer} {values}, {self.schedule.describe()}{policy}"

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins; inverse of `from_dict`."""
        return {
            "optimizer": self.optimizer,
            "hyperparameters": dict(self.hyperparameters),
            "schedule": self.schedule.to_dict(),
            # Left out where there is none: keys of earlier studies stay what they were.
            **({"fine_tuning": self.fine_tuning.to_dict()} if self.fine_tuning else {}),
            **({"called": self.called} if self.called else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Configuration:
        """Read the configuration that `to_dict` wrote."""
        return cls(
            optimizer=data["optimizer"],
            hyperparameters=dict(data["hyperparameters"]),
            schedule=Schedule.from_dict(data["schedule"]),
            fine_tuning=FineTuning.from_dict(data["fine_tuning"]) if data.get("fine_tuning") else None,
            called=data.get("called", ""),
        )
