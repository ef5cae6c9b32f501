"""What the rules propose: a configuration to start from, with every vote for and against its optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from optselect.configuration import Configuration, Schedule
from optselect.rules.rule import Vote
from optselect.space import Value

Seat = Literal["baseline", "portfolio", "evidence", "classic", "candidate"]


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """An optimizer worth trying, the configuration to start from, and every vote for and against it.

    `seat` says why it is here: to be beaten, for what recorded trainings showed, as the measured rules' pick, as the
    textbook's, or as a candidate.
    """

    configuration: Configuration
    votes: tuple[Vote, ...] = ()
    seat: Seat = "evidence"

    @property
    def optimizer(self) -> str:
        """The catalogue's name, or "user"."""
        return self.configuration.optimizer

    @property
    def hyperparameters(self) -> Mapping[str, Value]:
        """Where to start."""
        return self.configuration.hyperparameters

    @property
    def schedule(self) -> Schedule:
        """The learning rate's."""
        return self.configuration.schedule

    @property
    def score(self) -> float:
        """The sum of the votes' weights."""
        return math.fsum(vote.weight for vote in self.votes)

    @property
    def because(self) -> tuple[Vote, ...]:
        """The votes that speak for it."""
        return tuple(vote for vote in self.votes if vote.weight > 0 and not vote.veto)

    @property
    def against(self) -> tuple[Vote, ...]:
        """The votes that speak against it."""
        return tuple(vote for vote in self.votes if vote.weight < 0)

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins; inverse of `from_dict`."""
        return {
            **self.configuration.to_dict(),
            "votes": [vote.to_dict() for vote in self.votes],
            "seat": self.seat,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Proposal:
        """Read the proposal that `to_dict` wrote."""
        return cls(
            configuration=Configuration.from_dict(data),
            votes=tuple(Vote.from_dict(vote) for vote in data["votes"]),
            seat=data["seat"],
        )
