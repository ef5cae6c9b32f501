"""What recorded trainings teach: whole configurations that did well on those most like the one at hand.

A portfolio is the record in short: for each recorded training what it was like, and for each configuration how far
behind the best one it ended. Every recorded training is a way in which the one at hand may turn out, the likelier the
more it is like it. Configurations are picked one by one, each for what it adds to those before it: as auto-sklearn
(Feurer et al. 2022, arXiv:2007.04074) and AutoGluon's zero-shot portfolios (Salinas, Erickson 2024, arXiv:2311.02971)
do, but weighted by likeness. `optselect portfolio build` makes the file out of the records.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from typing import Any

from optselect import catalogue
from optselect.configuration import Configuration, Schedule
from optselect.configuration.schedule import ScheduleKind
from optselect.profile.values import Profile
from optselect.rules.features import distance_squared, features
from optselect.rules.kinds import is_pretrained
from optselect.rules.length import at_rate, rate_factor, repeats
from optselect.rules.prior import WARMUP_STEPS_OF_AN_UNKNOWN_LENGTH
from optselect.rules.rule import Answer, Evidence, rule, votes
from optselect.space import Value
from optselect.words import format_value

FILE = "portfolio.json"

# Of the steps: between the 2 % of training from random weights and the 10 % of fine-tuning.
WARMUP = 0.05

TRAINED_SCALE = 0.1
"""Of all rates, where the weights were trained before."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """An optimizer at a rate with a schedule; hyperparameters beyond the catalogue's centres in `others`.

    The rate is one for training from random weights: `configuration` scales it.
    """

    optimizer: str
    rate: float
    schedule: ScheduleKind = "cosine"
    others: Mapping[str, Value] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What records call it: `adamw 0.003 cosine`, `muon 0.01 cosine partner_lr_ratio=0.3`."""
        rest = "".join(f" {name}={format_value(value)}" for name, value in self.others.items())
        return f"{self.optimizer} {self.rate:g} {self.schedule}{rest}"

    def configuration(self, steps: int, scale: float = 1.0) -> Configuration:
        """Return it for a training of `steps` whose rates are `scale` times as large."""
        spec = catalogue.get(self.optimizer)
        start = Configuration(optimizer=self.optimizer, hyperparameters={**spec.defaults(), **self.others})
        warmup = 0 if self.schedule == "constant" and spec.schedulable else round(WARMUP * steps)
        return replace(start.at_rate(self.rate * scale), schedule=Schedule(kind=self.schedule, warmup_steps=warmup))


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One recorded training: what it was like, and how far behind the best each point of the portfolio ended.

    length   how many times as long as its workload is by itself
    regrets  0: the best of all points; 1: plain AdamW
    """

    name: str
    family: str
    summary: str
    features: Mapping[str, float | None]
    regrets: tuple[float, ...]
    length: int = 1

    @property
    def workload(self) -> str:
        """What was trained, at whatever length."""
        return self.name.removesuffix(f" x{self.length}")


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """A recorded training, and its weight among all: they sum up to 1."""

    recorded: Recorded
    weight: float


@dataclass(frozen=True, kw_only=True)
class Pick:
    """A point, how far behind the best it is expected to end, and the standard deviation of that.

    rest  what the best of it and of those picked before it is expected to be behind
    """

    point: Point
    regret: float
    error: float
    rest: float


@dataclass(frozen=True, kw_only=True)
class Portfolio:
    """Recorded trainings with the points that all of them were run with.

    spread      unit of each feature: its standard deviation over the trainings, half of it for steps and passes
    reach       distance, in those, at which a training counts exp(-1/2) as much as one that is no different
    everywhere  how much all trainings together count, however different, beside one that is no different
    """

    points: tuple[Point, ...]
    trainings: tuple[Recorded, ...]
    spread: Mapping[str, float]
    reach: float
    everywhere: float

    def like(self, profile: Profile) -> list[Likeness]:
        """Weigh the recorded trainings by how much they are like that of `profile`, the most like it first.

        Of each workload that one counts whose length is nearest.
        """
        here = features(profile)
        known = self._nearest_in_length(here["steps"])
        near = [self._nearness(here, each.features) for each in known]
        total = math.fsum(near) + self.everywhere
        least = self.everywhere / len(known)
        found = [
            Likeness(recorded=each, weight=(weight + least) / total) for each, weight in zip(known, near, strict=True)
        ]
        return sorted(found, key=lambda each: (-each.weight, each.recorded.name))

    def _nearest_in_length(self, steps: float | None) -> list[Recorded]:
        """Choose one training of each workload; its own length where that of the training at hand is not known."""

        def apart(each: Recorded) -> float:
            return each.length if steps is None else abs((each.features["steps"] or 0.0) - steps)

        found: dict[str, Recorded] = {}
        for each in self.trainings:
            found[each.workload] = min(found.get(each.workload, each), each, key=apart)
        return list(found.values())

    def _nearness(self, here: Mapping[str, float | None], there: Mapping[str, float | None]) -> float:
        # What weights that were trained before want tells nothing of random ones, nor the other way round.
        if here["trained"] != there["trained"]:
            return 0.0
        return math.exp(-distance_squared(here, there, self.spread) / (2 * self.reach**2))

    def picks(self, alike: Sequence[Likeness], count: int, may: Callable[[Point], bool] = lambda _: True) -> list[Pick]:
        """Pick up to `count` of the points that `may` be, the most wanted first, each for what it adds."""
        left = [index for index, point in enumerate(self.points) if may(point)]
        behind = [math.inf] * len(alike)
        found: list[Pick] = []
        while left and len(found) < count:
            rest, best = min((self._rest(alike, behind, index), index) for index in left)
            left.remove(best)
            behind = [min(known, each.recorded.regrets[best]) for known, each in zip(behind, alike, strict=True)]
            mean = math.fsum(each.weight * each.recorded.regrets[best] for each in alike)
            square = math.fsum(each.weight * (each.recorded.regrets[best] - mean) ** 2 for each in alike)
            found.append(Pick(point=self.points[best], regret=mean, error=math.sqrt(square), rest=rest))
        return found

    @staticmethod
    def _rest(alike: Sequence[Likeness], behind: Sequence[float], index: int) -> float:
        return math.fsum(
            each.weight * min(known, each.recorded.regrets[index]) for known, each in zip(behind, alike, strict=True)
        )

    def without(self, family: str) -> Portfolio:
        """Leave the trainings of a family out."""
        return replace(self, trainings=tuple(each for each in self.trainings if each.family != family))

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins; inverse of `from_dict`."""
        return {
            "points": [asdict(point) for point in self.points],
            "spread": dict(self.spread),
            "reach": self.reach,
            "everywhere": self.everywhere,
            "trainings": [{**asdict(each), "regrets": list(each.regrets)} for each in self.trainings],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Portfolio:
        """Read the portfolio that `to_dict` wrote."""
        return cls(
            points=tuple(Point(**point) for point in data["points"]),
            trainings=tuple(Recorded(**{**row, "regrets": tuple(row["regrets"])}) for row in data["trainings"]),
            spread=data["spread"],
            reach=data["reach"],
            everywhere=data["everywhere"],
        )


_LEFT_OUT: ContextVar[str | None] = ContextVar("the family that is left out", default=None)


@contextmanager
def leaving_out(family: str | None) -> Iterator[None]:
    """Leave a family of the recorded trainings out of what is known: nothing is to be judged by its own kind."""
    token = _LEFT_OUT.set(family)
    try:
        yield
    finally:
        _LEFT_OUT.reset(token)


def portfolio() -> Portfolio:
    """Return the package's own, without the family that is left out."""
    family = _LEFT_OUT.get()
    return _whole() if family is None else _whole().without(family)


@functools.cache
def _whole() -> Portfolio:
    return Portfolio.from_dict(json.loads((resources.files("optselect.rules") / FILE).read_text(encoding="utf-8")))


# --- its word ---------------------------------------------------------------------------------------------

# Below this share of all weight, no recorded training is near: the rules know better.
NEAR = 0.3
# As many arms as a thorough search begins with.
PICKS = 6
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What the portfolio says of one training.

    alike   recorded trainings with their weights, the most like it first
    trust   share of the weight that likeness gives; the rest is that of all alike
    picks   the points to try, the most wanted first
    """

    alike: tuple[Likeness, ...]
    trust: float
    picks: tuple[Pick, ...]

    @property
    def steps(self) -> float:
        """Steps of the recorded trainings: their geometric mean by weight."""
        return math.pow(10.0, math.fsum(each.weight * (each.recorded.features["steps"] or 0.0) for each in self.alike))

    @property
    def is_near(self) -> bool:
        """Whether any recorded training is like it at all."""
        return self.trust >= NEAR

    @property
    def neighbours(self) -> str:
        """The names of those most like it."""
        return ", ".join(each.recorded.name for each in self.alike[:_NAMED])


def advice(profile: Profile, may: Callable[[Point], bool], *, of: Portfolio | None = None) -> Advice:
    """Ask the portfolio `of` (None: the package's own) for points that `may` be tried on a training of `profile`."""
    known = portfolio() if of is None else of
    alike = known.like(profile)
    return Advice(
        alike=tuple(alike),
        trust=1 - len(alike) * alike[-1].weight,
        picks=tuple(known.picks(alike, PICKS, may)),
    )


@rule(cites="docs/reference/portfolio.md; `optselect portfolio judge`", strength="measured")
def trainings_like_it_were_recorded(profile: Profile) -> Answer:
    """What ended best on recorded trainings that are like this one most often ends well on it."""
    found = advice(profile, comes_with_torch)
    if not found.is_near:
        return None
    because = Evidence(quantity="the recorded trainings most like it", value=found.neighbours)
    gains: dict[str, float] = {}
    for pick in found.picks:
        gains[pick.point.optimizer] = max(gains.get(pick.point.optimizer, -math.inf), round(1 - pick.regret, 2))
    return votes(because, {name: gain for name, gain in gains.items() if gain})


def comes_with_torch(point: Point) -> bool:
    """Tell whether the optimizer of `point` needs no other package."""
    return catalogue.get(point.optimizer).extra is None


def starts(profile: Profile, may: Callable[[str], bool]) -> list[Configuration]:
    """List the picks among the optimizers that `may` be tried, each as a configuration for this very training.

    Empty where no recorded training is near. Nothing was recorded of momentum on sparse gradients.
    """
    sparse = bool(profile.gradient.sparse)
    found = advice(profile, lambda point: may(point.optimizer) and not (sparse and point.optimizer == "momentum"))
    return [at_home(pick.point, profile, found.steps) for pick in found.picks] if found.is_near else []


def at_home(point: Point, profile: Profile, steps: float) -> Configuration:
    """Fit a point that was recorded on trainings of some `steps` to the one of `profile`.

    Its warmup is a share of the steps; its rate goes with their number, and with whether weights were trained before.
    """
    made = point.configuration(profile.steps or 0, TRAINED_SCALE if is_pretrained(profile) else 1.0)
    if not profile.steps:
        # A schedule that falls needs an end.
        return replace(made, schedule=Schedule(warmup_steps=WARMUP_STEPS_OF_AN_UNKNOWN_LENGTH))
    recorded = steps / profile.steps
    rate = (made.rate or 0.0) / rate_factor(made, profile, recorded)
    return at_rate(made, rate, repeats=repeats(profile, min(recorded, 1.0)))
