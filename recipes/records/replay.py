"""Races on AlgoPerf's recorded curves, each judged on a family of workloads that its prior has not seen."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from optselect.recipes.records.algoperf import (
    AT_RANDOM,
    FAMILIES,
    SCORES,
    Outcome,
    Pool,
    Prior,
    Way,
    arms,
    judged,
    outcomes,
    pools,
)
from optselect.recipes.records.intervals import Estimate, estimate, mean
from optselect.recipes.records.store import Record

COSTS = (0.0, 0.05, 0.2)
SHARES = (0.0125, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 0.75)
# What counts of a winner: that it arrives at all, and within so many times the time of the pool's fastest.
ARRIVES: Mapping[float, str] = {
    math.inf: "reaches the target",
    1.1: "arrives within 1.1 × the fastest",
    1.5: "arrives within 1.5 × the fastest",
}
# How a budget may be spent; each with every prior.
STAGES: Mapping[float, tuple[tuple[tuple[int, float], ...], ...]] = {
    0.0: (((1, 0.0),),),
    0.05: (
        ((2, 0.05),),
        ((3, 0.025),),
        ((4, 0.05 / 3),),
        ((5, 0.0125),),
        ((3, 0.0125), (2, 0.0375)),
        ((4, 0.01), (3, 0.015), (2, 0.025)),
    ),
    0.2: (
        ((2, 0.2),),
        ((3, 0.1),),
        ((4, 0.2 / 3),),
        ((5, 0.05),),
        ((3, 0.05), (2, 0.15)),
        ((5, 0.025), (3, 0.05), (2, 0.1)),
        ((4, 0.05), (3, 0.05), (2, 0.1)),
    ),
}
# The best of all ways at each cost, over all families: judged by `Replay.chosen_elsewhere` without the family.
ADVISED: Mapping[float, Way] = {
    0.0: Way(prior="reach rate", stages=((1, 0.0),)),
    0.05: Way(prior="rank", stages=((3, 0.025),)),
    0.2: Way(prior="rank", stages=((4, 0.05), (3, 0.05), (2, 0.1))),
}
BY_CHANCE: Mapping[float, Way] = {
    0.0: Way(prior=AT_RANDOM, stages=((1, 0.0),)),
    0.05: Way(prior=AT_RANDOM, stages=((2, 0.05),)),
    0.2: Way(prior=AT_RANDOM, stages=((5, 0.05),)),
}


# ResNet-50 with BatchNorm: there a prefix tells less than nothing, and the prior alone decides.
NO_PREFIX = frozenset({"resnet"})


class Replay:
    """The pools of one kind and the priors learned on them.

    every  all of them; `pools` are those that something succeeds in
    """

    def __init__(self, records: Iterable[Record], *, of_submission: bool) -> None:
        self.every = every = pools(arms(records), of_submission=of_submission)
        self.of_submission = of_submission
        self.pools = judged(every)
        self.priors = {name: Prior(every, score) for name, score in SCORES.items()}

    @property
    def families(self) -> list[str]:
        """The families that are there, in the order of `FAMILIES`."""
        there = {pool.family for pool in self.pools}
        return [family for family in FAMILIES if family in there]

    def ways(self, cost: float) -> list[Way]:
        """Return all ways to spend a budget, but one at random."""
        return [Way(prior=prior, stages=stages) for prior in SCORES for stages in STAGES[cost]]

    def ended(self, way: Way, pools: Sequence[Pool] | None = None) -> list[Outcome]:
        """Race in every pool."""
        return outcomes(way, self.pools if pools is None else pools, self.priors)

    def gain_of_share(self, share: float, others: Sequence[float]) -> Estimate:
        """Return how much more often the leader of five at `share` arrives than at the others, with an interval."""
        ways = [Way(prior=AT_RANDOM, stages=((5, each),)) for each in (share, *others)]
        groups: dict[object, list[float]] = defaultdict(list)
        for own, *rest in zip(*map(self.ended, ways), strict=True):
            groups[own.pool.task].append(own.within(math.inf) - mean([each.within(math.inf) for each in rest]))
        return estimate(groups.values(), mean)

    def prior_alone_where_prefixes_mislead(self, way: Way) -> list[Outcome]:
        """Race by a way, but where no prefix is trusted take what reached its target most often elsewhere."""
        blind = [pool for pool in self.pools if pool.family in NO_PREFIX]
        others = [pool for pool in self.pools if pool.family not in NO_PREFIX]
        return [*self.ended(ADVISED[0.0], blind), *self.ended(way, others)]

    def chosen_elsewhere(self, cost: float) -> tuple[list[Outcome], dict[str, Way]]:
        """Race in each family by the way that did best on the other families; return which that was, too.

        Best: the mean of the share that arrives and of that within 1.1 times the fastest, workloads alike. While a
        family is judged neither the choice of the way nor a prior sees it.
        """
        ended, ways = [], {}
        for family in self.families:
            others = [pool for pool in self.pools if pool.family != family]
            own = [pool for pool in self.pools if pool.family == family]
            worth = {way: _worth(outcomes(way, others, self.priors, frozenset({family}))) for way in self.ways(cost)}
            ways[family] = max(worth, key=lambda way: worth[way])
            ended += outcomes(ways[family], own, self.priors)
        return ended, ways


def arriving(ended: Iterable[Outcome], factor: float) -> Estimate:
    """Return the share of races that arrive within a factor, with an interval over workloads."""
    return _over_workloads(ended, lambda each: each.within(factor))


def speed(ended: Iterable[Outcome]) -> Estimate:
    """Return the mean of the fastest arm's time over the winner's, with an interval over workloads."""
    return _over_workloads(ended, lambda each: each.speed)


def _over_workloads(ended: Iterable[Outcome], worth: Callable[[Outcome], float]) -> Estimate:
    groups: dict[str, list[float]] = defaultdict(list)
    for each in ended:
        groups[each.pool.task].append(worth(each))
    return estimate(groups.values(), mean)


def _worth(ended: Sequence[Outcome]) -> float:
    groups: dict[str, list[float]] = defaultdict(list)
    for each in ended:
        groups[each.pool.task].append((each.within(math.inf) + each.within(1.1)) / 2)
    return mean([mean(found) for found in groups.values()])
