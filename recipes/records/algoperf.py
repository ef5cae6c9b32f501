"""AlgoPerf's recorded trainings as pools of arms that a race chooses from.

A pool holds the points of one study on one workload in one framework: those of one submission (five), or of all.
An arm succeeds where it reaches the benchmark's target within its run; its time counts steps, as a share of the
benchmark's length.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from optselect.recipes.records.store import Record

# Workloads of one family share data and nearly all of the model: none is judged by another.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "criteo": ("criteo1tb", "criteo1tb_embed_init"),
    "fastmri": ("fastmri", "fastmri_tanh"),
    "resnet": ("imagenet_resnet", "imagenet_resnet_large_bn_init"),
    "vit": ("imagenet_vit",),
    "conformer": ("librispeech_conformer", "librispeech_conformer_layernorm"),
    "deepspeech": ("librispeech_deepspeech",),
    "ogbg": ("ogbg", "ogbg_model_size"),
    "wmt": ("wmt", "wmt_glu_tanh"),
}
# What their logs call a step takes 23 to 380 seconds where others take .3 to 1: at a fortieth of the benchmark's steps
# all of a training is seen.
COUNT_NO_STEPS = ("lawa_ema", "lawa_queue")
FAMILY_OF = {task: family for family, tasks in FAMILIES.items() for task in tasks}
POINTS = 5


@dataclass(frozen=True, eq=False)
class Arm:
    """One recorded training: how far its validation metric was at any share of the benchmark's length."""

    record: Record

    @property
    def task(self) -> str:
        """The workload."""
        return str(self.record["task"])

    @property
    def family(self) -> str:
        """The workload's family."""
        return FAMILY_OF[self.task]

    @property
    def submission(self) -> str:
        """The algorithm."""
        return str(self.record["submission"])

    @cached_property
    def point(self) -> str:
        """What is one configuration on every workload: the algorithm and its hyperparameters."""
        return f"{self.submission} {json.dumps(self.record['hp'], sort_keys=True)}"

    @cached_property
    def _curve(self) -> tuple[np.ndarray, np.ndarray]:
        sign = 1 if self.record["goal"] == "min" else -1
        found = [
            (step / self.record["step_hint"], sign * value)
            for step, value, *_ in self.record["curve"]
            if value is not None
        ]
        shares, values = np.array(found or [(0.0, math.inf)], dtype=float).T
        return shares, values

    @cached_property
    def time(self) -> float:
        """Share of the benchmark's length at the first evaluation that reaches the target; infinity for none."""
        shares, values = self._curve
        target = self.record["target"] * (1 if self.record["goal"] == "min" else -1)
        hits = shares[values <= target]
        return float(hits[0]) if len(hits) else math.inf

    @property
    def reaches(self) -> bool:
        """Whether it reaches the target."""
        return math.isfinite(self.time)

    def value_at(self, share: float) -> float:
        """Return the validation metric at a share of the length, lower is better, between two evaluations by a line.

        Infinity for one that ended before without reaching the target: it diverged, or ran out of its time.
        """
        shares, values = self._curve
        if share > shares[-1] and not self.reaches:
            return math.inf
        return float(np.interp(share, shares, values))

    def seen_by(self, share: float) -> float:
        """Return the metric of the last evaluation up to a share; as `value_at` for one that has ended."""
        shares, values = self._curve
        if share > shares[-1]:
            return self.value_at(share)
        return float(values[max(int(np.searchsorted(shares, share, side="right")) - 1, 0)])


@dataclass(frozen=True, eq=False)
class Pool:
    """The arms that a race may try on one workload."""

    arms: tuple[Arm, ...]

    @property
    def task(self) -> str:
        """The workload."""
        return self.arms[0].task

    @property
    def family(self) -> str:
        """Its family."""
        return self.arms[0].family

    @cached_property
    def fastest(self) -> float:
        """Time of the fastest arm."""
        return min(arm.time for arm in self.arms)

    def slowdown(self, arm: Arm) -> float:
        """Return an arm's time over the fastest's; infinity for one that never arrives."""
        return arm.time / self.fastest if arm.reaches else math.inf


def arms(records: Iterable[Record]) -> list[Arm]:
    """Keep the trainings whose hyperparameters are known and whose steps were counted, on the fourteen workloads."""
    return [
        Arm(each)
        for each in records
        if each["track"] == "external_tuning" and each["task"] in FAMILY_OF and each["submission"] not in COUNT_NO_STEPS
    ]


def pools(found: Iterable[Arm], *, of_submission: bool = True) -> list[Pool]:
    """Put together what one race may choose from.

    of_submission  five points of one submission; otherwise those of all submissions of that year, fifteen or more
    """
    together: dict[tuple[str, ...], list[Arm]] = defaultdict(list)
    for arm in found:
        record = arm.record
        key = (record["source"], record["study"], arm.task, record["framework"])
        together[(*key, arm.submission) if of_submission else key].append(arm)
    return [
        Pool(tuple(sorted(each, key=lambda arm: (arm.point, arm.record["trial"]))))
        for _, each in sorted(together.items())
        if (len(each) == POINTS if of_submission else len(each) >= 3 * POINTS)
    ]


def judged(found: Iterable[Pool]) -> list[Pool]:
    """Keep the pools that something succeeds in."""
    return [pool for pool in found if any(arm.reaches for arm in pool.arms)]


# --- priors -----------------------------------------------------------------------------------------------


def _share_beaten(pool: Pool, arm: Arm) -> float:
    """Return the share of the pool that is slower; those that are as slow count half."""
    return sum((other.time > arm.time) + (other.time == arm.time) / 2 for other in pool.arms) / len(pool.arms)


Score = Callable[[Pool, Arm], float]
SCORES: Mapping[str, Score] = {
    "reach rate": lambda _, arm: float(arm.reaches),
    "speed": lambda pool, arm: 1 / pool.slowdown(arm),
    "near the fastest": lambda pool, arm: float(pool.slowdown(arm) <= 1.1),
    "rank": _share_beaten,
}


class Prior:
    """What the points did on other families of workloads: the mean of a score over families, workloads alike.

    Pools that nothing succeeds in belong to what was seen: a rank there is half for all.
    """

    def __init__(self, seen: Iterable[Pool], score: Score) -> None:
        found: dict[str, dict[str, dict[str, list[float]]]] = {}
        for pool in seen:
            for arm in pool.arms:
                by_family = found.setdefault(arm.point, {}).setdefault(arm.family, {})
                by_family.setdefault(arm.task, []).append(score(pool, arm))
        self._scores = {
            point: {family: _mean(map(_mean, tasks.values())) for family, tasks in families.items()}
            for point, families in found.items()
        }

    def __call__(self, point: str, without: frozenset[str]) -> float:
        """Return the mean over the families but those `without`; 0 for what was seen nowhere else."""
        seen = [score for family, score in self._scores.get(point, {}).items() if family not in without]
        return _mean(seen) if seen else 0.0

    @property
    def points(self) -> list[str]:
        """All that were seen, the best first."""
        return sorted(self._scores, key=lambda point: -self(point, frozenset()))

    def best(self, pool: Pool, count: int, without: frozenset[str] = frozenset()) -> list[Arm]:
        """Return the arms it wants first, none of them judged by the pool's own family."""
        left_out = without | {pool.family}
        return sorted(pool.arms, key=lambda arm: -self(arm.point, left_out))[:count]


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)


# --- races ------------------------------------------------------------------------------------------------


AT_RANDOM = "at random"


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a race spends its budget.

    prior    one of `SCORES`, or `AT_RANDOM`
    stages   how many go on, and to which share of the length; the best of the last wins
    by_then  judge by the last evaluation that was made by then, instead of by a line to the next one
    """

    prior: str
    stages: tuple[tuple[int, float], ...]
    by_then: bool = False

    @property
    def cost(self) -> float:
        """What the losers cost, in trainings: the winner goes on from where it is."""
        going = [count for count, _ in self.stages] + [1]
        return sum(share * (now - then) for (now, share), then in zip(self.stages, going[1:], strict=True))

    def __str__(self) -> str:
        """Return it as a table has it."""
        by = AT_RANDOM if self.prior == AT_RANDOM else f"by {self.prior}"
        if self.cost == 0:
            return f"{by}: the first"
        return (
            f"{by}: "
            + ", ".join(f"{count} to {100 * share:.3g} %" for count, share in self.stages)
            + (", by what was evaluated by then" if self.by_then else "")
        )


def raced(way: Way, pool: Pool, priors: Mapping[str, Prior], without: frozenset[str] = frozenset()) -> list[Arm]:
    """Run a race on recorded curves and return its winner; at random: those of all races that are as likely."""
    count = way.stages[0][0]
    if way.prior == AT_RANDOM:
        return [_winner(way, list(entered)) for entered in itertools.combinations(pool.arms, count)]
    return [_winner(way, priors[way.prior].best(pool, count, without))]


def _winner(way: Way, going: list[Arm]) -> Arm:
    for place, (_, share) in enumerate(way.stages):
        if len(going) > 1:
            then = way.stages[place + 1][0] if place + 1 < len(way.stages) else 1
            seen = Arm.seen_by if way.by_then else Arm.value_at
            going = sorted(going, key=lambda arm: seen(arm, share))[:then]
    return going[0]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How races in a pool ended: shares of those whose winner reaches the target, and how soon."""

    pool: Pool
    slowdowns: tuple[float, ...]

    @property
    def speed(self) -> float:
        """The fastest arm's time over the winner's, 0 where it does not arrive."""
        return sum(1 / each for each in self.slowdowns) / len(self.slowdowns)

    def within(self, factor: float) -> float:
        """Return the share that arrives within `factor` times the fastest arm's time; infinity: that arrives."""
        return sum(each <= factor if math.isfinite(factor) else math.isfinite(each) for each in self.slowdowns) / len(
            self.slowdowns
        )


def outcomes(
    way: Way, entered: Iterable[Pool], priors: Mapping[str, Prior], without: frozenset[str] = frozenset()
) -> list[Outcome]:
    """Race in every pool, with nothing known of its own family nor of those `without`."""
    return [
        Outcome(pool=pool, slowdowns=tuple(pool.slowdown(arm) for arm in raced(way, pool, priors, without)))
        for pool in entered
    ]
