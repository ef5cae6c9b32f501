"""What `replay` prints: Markdown tables of races on recorded curves, and of rates that a formula proposes."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from optselect.recipes.records import language, rates, store
from optselect.recipes.records.algoperf import AT_RANDOM, SCORES, Outcome, Way
from optselect.recipes.records.intervals import mean, median
from optselect.recipes.records.rates import DIVERGED
from optselect.recipes.records.replay import ADVISED, ARRIVES, BY_CHANCE, COSTS, SHARES, Replay, arriving, speed
from optselect.report.markdown import table

_HEADER = ("way", "cost, trainings", *ARRIVES.values(), "speed")
LEADERS = 12


def tables(folder: Path) -> Iterator[str]:
    """Write each table under its heading. Raises `ConfigurationError` where records are missing."""
    records = store.read(folder, "algoperf")
    for of_submission in (True, False):
        races = Replay(records, of_submission=of_submission)
        kind = "five points of one submission" if of_submission else "points of all submissions"
        if not races.pools:
            continue
        sizes = [len(pool.arms) for pool in races.pools]
        yield f"## Pools of {kind}: {len(sizes)}, of {min(sizes)} to {max(sizes)} arms"
        yield table(_HEADER, _ways(races))
        yield table(("left out", *(f"chosen on the others, cost {cost:g}" for cost in COSTS)), _choices(races))
        if of_submission:
            yield "## By family: share that reaches the target"
            yield table(("way", *races.families), _families(races))
            yield "## The leader of all five at a share of the length"
            yield table(("judged at", *ARRIVES.values()), _shares(races))
        else:
            yield "## Algorithms: share of their points that reach the target, and the points that arrive most often"
            yield table(("algorithm", "all", *races.families), _algorithms(races))
            yield table(("algorithm", *SCORES, "hyperparameters"), _leaders(races))
    yield "## Rates that a power law proposes, without the size it is judged on"
    yield table(
        ("records", "cells", "nats above the best: median", "nine in ten below", "worst", "diverged"), _laws(folder)
    )


def _ways(races: Replay) -> Iterator[Sequence[str]]:
    for cost in COSTS:
        if races.of_submission:
            yield _row(str(BY_CHANCE[cost]), cost, races.ended(BY_CHANCE[cost]))
        for way in races.ways(cost):
            yield _row(str(way), way.cost, races.ended(way))
        yield _row("**chosen on the other families**", cost, races.chosen_elsewhere(cost)[0])
        if cost:
            cautious = replace(ADVISED[cost], by_then=True)
            yield _row(str(cautious), cost, races.ended(cautious))
            blind = races.prior_alone_where_prefixes_mislead(ADVISED[cost])
            yield _row(f"{ADVISED[cost]}; BatchNorm nets by the reach rate alone", cost, blind)


def _row(way: str, cost: float, ended: Iterable[Outcome]) -> Sequence[str]:
    every = list(ended)
    return (way, f"{cost:.2g}", *(str(arriving(every, factor)) for factor in ARRIVES), str(speed(every)))


def _choices(races: Replay) -> Iterator[Sequence[str]]:
    chosen = [races.chosen_elsewhere(cost)[1] for cost in COSTS]
    for family in races.families:
        yield (family, *(str(ways[family]) for ways in chosen))


def _families(races: Replay) -> Iterator[Sequence[str]]:
    halfway = (Way(prior=AT_RANDOM, stages=((5, share),)) for share in (0.1, 0.25))
    for way in (BY_CHANCE[0.0], *ADVISED.values(), *halfway):
        arrives: dict[str, list[float]] = defaultdict(list)
        for each in races.ended(way):
            arrives[each.pool.family].append(each.within(math.inf))
        yield (str(way), *(f"{mean(arrives[family]):.2f}" for family in races.families))


def _shares(races: Replay) -> Iterator[Sequence[str]]:
    for share in SHARES:
        ended = races.ended(Way(prior=AT_RANDOM, stages=((5, share),)))
        yield (f"{100 * share:g} %", *(str(arriving(ended, factor)) for factor in ARRIVES))


def _algorithms(races: Replay) -> Iterator[Sequence[str]]:
    reach: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for pool in races.every:
        for arm in pool.arms:
            reach[arm.submission][pool.family].append(arm.reaches)
    over = {name: mean([mean(found) for found in families.values()]) for name, families in reach.items()}
    for name in sorted(over, key=lambda name: -over[name]):
        shares = (f"{mean(reach[name][family]):.2f}" if family in reach[name] else "" for family in races.families)
        yield (name, f"{over[name]:.2f}", *shares)


def _leaders(races: Replay) -> Iterator[Sequence[str]]:
    for point in races.priors["reach rate"].points[:LEADERS]:
        name, _, values = point.partition(" ")
        known = {key: value for key, value in (json.loads(values) or {}).items() if isinstance(value, float)}
        scores = (f"{prior(point, frozenset()):.2f}" for prior in races.priors.values())
        yield (name, *scores, ", ".join(f"{key} {value:.3g}" for key, value in known.items()))


def _laws(folder: Path) -> Iterator[Sequence[str]]:
    swept = [loss for _, loss in rates.proposed(rates.sweeps(store.read(folder, "steplaw")))]
    both = rates.proposed_with_batch(rates.sweeps(store.read(folder, "steplaw")))
    varied = [loss for _, loss in language.proposed(language.cells(store.read(folder, "marin")))]
    for name, losses in (("Step law", swept), ("Step law, with the batch", both), ("marin", varied)):
        diverged = sum(loss > DIVERGED for loss in losses)
        figures = (median(losses), float(np.percentile(losses, 90)), max(losses))
        yield (name, str(len(losses)), *(f"{figure:.4f}" for figure in figures), str(diverged))
