"""What ways to order configurations are worth: each judged on recorded trainings of families that it knows nothing of.

A way gives points, the most wanted first. How a search would go on with them is played on the recorded curves: which
of them lead the baseline at a part of the schedule, by the rule of `optselect.search.forecast`, and how far behind the
best point of all the chosen one ended.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from optselect.configuration import Configuration
from optselect.recipes.bench.curves import FRACTIONS
from optselect.recipes.portfolio.build import EVERYWHERE, REACH, Outcome, build
from optselect.recipes.portfolio.grid import BASELINE, GRID
from optselect.rules.features import features
from optselect.rules.portfolio import Point, Portfolio, comes_with_torch
from optselect.rules.voting import RULES_ALONE, propose
from optselect.search.forecast import prefix_error
from optselect.settings import RISK

_MOST = 8
# Further behind than plain AdamW by more than this is harm: what one seed may differ by.
_NOISE = 0.02


@dataclass(frozen=True, kw_only=True)
class Design:
    """How a budget is spent: so many points beside the baseline go to each fraction, the best of them further.

    Of one point alone there may be a `look` on the way, which ends it where that is enough to choose.
    """

    budget: float
    stages: tuple[tuple[int, float], ...]
    look: float | None = None

    @property
    def words(self) -> str:
        """How many points go how far: `7 @ 0.25, 2 @ 0.5`."""
        words = [f"{count} @ {fraction:g}" for count, fraction in self.stages]
        return ", ".join([*words, *([f"a look at {self.look:g}"] if self.look else [])]) or "the first"


DESIGNS = (
    Design(budget=0.0, stages=()),
    Design(budget=0.05, stages=((1, 0.02),)),
    Design(budget=0.25, stages=((1, 0.125),)),
    Design(budget=1.0, stages=((1, 0.5),)),
    Design(budget=2.0, stages=((1, 1.0),)),
    Design(budget=4.0, stages=((7, 0.25), (2, 0.5), (1, 1.0))),
)
# What else the same budgets would pay for: more arms, not as far, or an early end.
BROADER = (
    Design(budget=0.5, stages=((1, 0.25),)),
    Design(budget=0.5, stages=((3, 0.125),)),
    Design(budget=1.0, stages=((1, 0.5),)),
    Design(budget=1.0, stages=((1, 0.5),), look=0.25),
    Design(budget=1.0, stages=((3, 0.25),)),
    Design(budget=2.0, stages=((1, 1.0),)),
    Design(budget=2.0, stages=((1, 1.0),), look=0.25),
    Design(budget=2.0, stages=((3, 0.5),)),
    Design(budget=2.0, stages=((7, 0.25),)),
)

Order = Callable[[Outcome], list[str]]
"""Orders points for a workload, of which it sees the profile alone."""

Way = Callable[[Sequence[Outcome]], Order]
"""Learns to order from what was recorded."""


# --- ways ---------------------------------------------------------------------------------------------------


def rules(_: Sequence[Outcome]) -> Order:
    """Order as the rules alone propose, each by the point nearest to it."""

    def order(outcome: Outcome) -> list[str]:
        found = propose(outcome.profile, rules=RULES_ALONE)
        return list(dict.fromkeys(nearest(each.configuration) for each in found))

    return order


def greedy(known: Sequence[Outcome]) -> Order:
    """Pick one by one what adds most over all recorded trainings, however different."""
    return functools.partial(_picked, build(known, reach=1e6))


def neighbours(known: Sequence[Outcome]) -> Order:
    """Pick what adds most over those like it: what the rules ask."""
    return functools.partial(_picked, build(known, reach=REACH, everywhere=EVERYWHERE))


def gaussian(known: Sequence[Outcome]) -> Order:
    """Order by a Gaussian process over features and points."""
    learned = build(known)
    points = [point for point in learned.points if _may(point)]
    place = np.array([_coordinates(point) for point in points])

    def rows(of: Mapping[str, float | None]) -> NDArray[np.float64]:
        spread = learned.spread
        here = [(of.get(name) or 0.0) / spread[name] / math.sqrt(len(spread)) / REACH for name in spread]
        return np.hstack([np.tile(here, (len(points), 1)), place])

    index = [learned.points.index(point) for point in points]
    seen = np.array([[each.regrets[at] for at in index] for each in learned.trainings])
    mean = seen.mean(axis=0)
    process = GaussianProcessRegressor(ConstantKernel(0.16) * RBF(1.0), alpha=0.16, optimizer=None)
    process.fit(np.vstack([rows(each.features) for each in learned.trainings]), (seen - mean).ravel())

    def order(outcome: Outcome) -> list[str]:
        expected = mean + process.predict(rows(features(outcome.profile)))
        return [points[at].name for at in np.argsort(expected, kind="stable")[:_MOST]]

    return order


WAYS: Mapping[str, Way] = {"rules": rules, "greedy": greedy, "gaussian": gaussian, "neighbours": neighbours}


def nearest(configuration: Configuration) -> str:
    """Name the point of the same optimizer, if there is one, that is nearest in rate; with a cosine if it has one."""

    def apart(point: Point) -> tuple[bool, float, bool]:
        rate = abs(math.log10((configuration.rate or 1.0) / point.rate))
        return point.optimizer != configuration.optimizer, rate, bool(point.others) or point.schedule != "cosine"

    return min((point for point in GRID.values() if _may(point)), key=apart).name


def _picked(known: Portfolio, outcome: Outcome) -> list[str]:
    return [pick.point.name for pick in known.picks(known.like(outcome.profile), _MOST, _may)]


def _may(point: Point) -> bool:
    return comes_with_torch(point) and point != BASELINE


def _coordinates(point: Point) -> list[float]:
    """Place a point so that a distance of 1 is half a decade of rate, or another schedule; 2 another optimizer."""
    optimizers = sorted({each.optimizer for each in GRID.values()})
    return [
        2 * math.log10(point.rate),
        *(math.sqrt(2.0) * (point.optimizer == name) for name in optimizers),
        *(math.sqrt(0.5) * (point.schedule == kind) for kind in ("constant", "cosine", "linear", "wsd")),
        0.5 * bool(point.others),
    ]


# --- to play a search on recorded curves ----------------------------------------------------------------------


def chosen(outcome: Outcome, order: Sequence[str], design: Design) -> str:
    """Return what a search with `design` would choose; without a trial, the first."""
    if not design.stages:
        return order[0]
    going = [point for point in order if point in outcome.trainings]
    if is_told_early(outcome, order, design):
        return going[0]
    reach: dict[str, float] = {}
    for count, fraction in design.stages:
        going = (
            sorted(going, key=lambda point: _judged(outcome, point, reach.get(point, 0.0)))[:count]
            if reach
            else going[:count]
        )
        reach |= dict.fromkeys(going, fraction)
    sure = [point for point, fraction in reach.items() if _is_sure(outcome, point, fraction, first=order[0])]
    furthest = max((reach[point] for point in sure), default=0.0)
    ranked = [point for point in sure if reach[point] == furthest]
    return min(ranked, key=lambda point: _judged(outcome, point, furthest), default=BASELINE.name)


def is_told_early(outcome: Outcome, order: Sequence[str], design: Design) -> bool:
    """Tell whether the look on the way is enough to choose the first."""
    first = next((point for point in order if point in outcome.trainings), None)
    return design.look is not None and first is not None and _is_sure(outcome, first, design.look, first=order[0])


def _is_sure(outcome: Outcome, point: str, fraction: float, *, first: str) -> bool:
    base, own = (_judged(outcome, each, fraction) for each in (BASELINE.name, point))
    progress = max(outcome.untrained - base, outcome.untrained - own)
    error = prefix_error(fraction, first_choice=point == first) * progress
    return base - own > max(NormalDist().inv_cdf(1 - RISK) * error, 0.0)


def _judged(outcome: Outcome, point: str, fraction: float) -> float:
    values = outcome.trainings[point].values
    at = FRACTIONS.index(fraction) + 1 if fraction else 0
    return values[at] if at < len(values) else math.inf


def figures(regrets: Sequence[float]) -> list[str]:
    """Write mean, median, worst, and the share of harm."""
    harm = sum(regret > 1 + _NOISE for regret in regrets) / len(regrets)
    return [*(f"{of(regrets):.2f}" for of in (statistics.fmean, statistics.median, max)), f"{harm:.0%}"]


# --- to judge -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Score:
    """How far behind the best the chosen ones ended, over all workloads: 0 the best point of each, 1 plain AdamW.

    early  the share of workloads where a look on the way was enough
    """

    way: str
    design: Design
    regrets: tuple[float, ...]
    early: float

    @property
    def spent(self) -> float:
        """The share of the budget that was spent, over all workloads."""
        look, (_, last) = self.design.look, self.design.stages[-1] if self.design.stages else (0, 0.0)
        return 1.0 if look is None else 1 - self.early * (1 - look / last)

    @property
    def row(self) -> str:
        """A line of a table: mean, median, worst, the share of harm, and of the budget what was spent."""
        told = [self.way, f"{self.design.budget:g}", self.design.words, *figures(self.regrets), f"{self.spent:.0%}"]
        return f"| {' | '.join(told)} |"


def judged(
    found: Sequence[Outcome], ways: Mapping[str, Way] = WAYS, designs: Sequence[Design] = DESIGNS
) -> list[Score]:
    """Judge `ways` on all workloads at their own length, each by what was recorded of other families."""
    known = [each for each in found if BASELINE.name in each.trainings]
    scored = [each for each in known if each.length == 1]
    scores = []
    for name, way in ways.items():
        orders: dict[str, list[str]] = {}
        for family in sorted({each.family for each in scored}):
            order = way([each for each in known if each.family != family])
            orders |= {each.name: order(each) for each in scored if each.family == family}
        for design in designs:
            regrets = tuple(each.regret(chosen(each, orders[each.name], design)) for each in scored)
            early = statistics.fmean(is_told_early(each, orders[each.name], design) for each in scored)
            scores.append(Score(way=name, design=design, regrets=regrets, early=early))
    return scores


def report(found: Sequence[Outcome]) -> str:
    """Judge all ways and write the table."""
    scored = [each for each in found if each.length == 1]
    families = len({each.family for each in scored})
    head = f"{len(scored)} workloads of {families} families, each judged by the others' families."
    lines = ["| way | budget | points | mean | median | worst | harm | spent |", "|---|--:|---" + "|--:" * 5 + "|"]
    broader = judged(found, {"neighbours": neighbours}, BROADER)
    rows = (score.row for score in judged(found))
    return "\n".join([head, "", *lines, *rows, "", *lines, *(score.row for score in broader)])
