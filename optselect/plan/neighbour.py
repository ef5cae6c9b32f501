"""Recorded trainings that are like the one at hand, and what did best on each: what a prior's word rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optselect.configuration.schedule import ScheduleKind
from optselect.profile.values import Profile
from optselect.rules.portfolio import TRAINED_SCALE, Likeness, Point, portfolio
from optselect.space import Value
from optselect.words import format_value

# The rest differ little in weight from all those that are not like it at all.
NEIGHBOURS = 5
BEST = 3


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What was run on a recorded training, and how far behind the best of all it ended.

    others  hyperparameters beside the rate, where they are not the catalogue's centres
    regret  0: the best; 1: plain AdamW
    """

    optimizer: str
    lr: float
    schedule: ScheduleKind
    others: Mapping[str, Value] = field(default_factory=dict)
    regret: float

    def describe(self) -> str:
        """Put it in words: `muon lr=0.03 weight_decay=0.1, cosine`."""
        others = "".join(f" {name}={format_value(value)}" for name, value in self.others.items())
        return f"{self.optimizer} lr={format_value(self.lr)}{others}, {self.schedule}"

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins; inverse of `from_dict`."""
        others = {"others": dict(self.others)} if self.others else {}
        return {
            "optimizer": self.optimizer,
            "lr": self.lr,
            "schedule": self.schedule,
            **others,
            "regret": self.regret,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Ended:
        """Read what `to_dict` wrote."""
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A recorded training that is like this one.

    summary  what it trains
    weight   how much it counts: those of all recorded trainings sum up to 1
    best     what did best on it, the best first
    """

    name: str
    family: str
    summary: str
    weight: float
    best: tuple[Ended, ...]

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins; inverse of `from_dict`."""
        return {
            "name": self.name,
            "family": self.family,
            "summary": self.summary,
            "weight": self.weight,
            "best": [each.to_dict() for each in self.best],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Neighbour:
        """Read what `to_dict` wrote."""
        return cls(**{**data, "best": tuple(map(Ended.from_dict, data["best"]))})


def neighbours_of(profile: Profile) -> tuple[Neighbour, ...]:
    """List the recorded trainings that are most like that of `profile`, the nearest first."""
    known = portfolio()
    return tuple(_neighbour(each, known.points) for each in known.like(profile)[:NEIGHBOURS])


def _neighbour(alike: Likeness, points: tuple[Point, ...]) -> Neighbour:
    there = alike.recorded
    best = sorted(zip(there.regrets, points, strict=True), key=lambda pair: (pair[0], pair[1].name))[:BEST]
    # A point's rate is that of a training from random weights.
    scale = TRAINED_SCALE if there.features["trained"] else 1.0
    return Neighbour(
        name=there.name,
        family=there.family,
        summary=there.summary,
        weight=round(alike.weight, 4),
        best=tuple(
            Ended(
                optimizer=point.optimizer,
                lr=point.rate * scale,
                schedule=point.schedule,
                others=dict(point.others),
                regret=round(regret, 4),
            )
            for regret, point in best
        ),
    )
