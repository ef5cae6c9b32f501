"""What `replay` prints: Markdown tables of races on recorded curves, and of rates that a formula proposes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from optselect.recipes.records import language, rates, store
from optselect.recipes.records.algoperf import AT_RANDOM, Outcome, Way
from optselect.recipes.records.intervals import mean, median
from optselect.recipes.records.rates import DIVERGED
from optselect.recipes.records.replay import ADVISED, ARRIVES, BY_CHANCE, COSTS, SHARES, Replay, arriving
from optselect.report.markdown import table

_HEADER = ("way", "cost, trainings", *ARRIVES.values())


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
            blind = races.prior_alone_where_prefixes_mislead(ADVISED[cost])
            yield _row(f"{ADVISED[cost]}; BatchNorm nets by the reach rate alone", cost, blind)


def _row(way: str, cost: float, ended: Iterable[Outcome]) -> Sequence[str]:
    every = list(ended)
    return (way, f"{cost:.2g}", *(str(arriving(every, factor)) for factor in ARRIVES))


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


def _laws(folder: Path) -> Iterator[Sequence[str]]:
    swept = [loss for _, loss in rates.proposed(rates.sweeps(store.read(folder, "steplaw")))]
    varied = [loss for _, loss in language.proposed(language.cells(store.read(folder, "marin")))]
    for name, losses in (("Step law", swept), ("marin", varied)):
        diverged = sum(loss > DIVERGED for loss in losses)
        figures = (median(losses), float(np.percentile(losses, 90)), max(losses))
        yield (name, str(len(losses)), *(f"{figure:.4f}" for figure in figures), str(diverged))
