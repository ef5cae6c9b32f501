"""Few cases out of a product of two factors: what `make test` runs, while `make test-all` runs the whole product."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Hashable, Sequence
from typing import Any

import pytest

from optselect import catalogue

Pair = tuple[str, str]


def in_turn(
    items: Sequence[str],
    levels: Sequence[str],
    family: Callable[[str], Hashable],
    impossible: Container[Pair] = (),
) -> list[Pair]:
    """Every item at least once, and every level with every family of items, if only one of its items can.

    The levels take turns, so that each comes about as often as any other.
    """
    chosen: list[Pair] = []
    families: dict[Hashable, list[str]] = {}
    for item in items:
        families.setdefault(family(item), []).append(item)
    for members in families.values():
        met: set[str] = set()
        for item in itertools.islice(itertools.cycle(members), max(len(members), len(levels))):
            possible = [level for level in levels if (item, level) not in impossible and (item, level) not in chosen]
            if not possible:
                continue
            # First what the family has not met, then what came up least; of several the first.
            level = min(possible, key=lambda level: (level in met, sum(level == other for _, other in chosen)))
            met.add(level)
            chosen.append((item, level))
    return chosen


def parameters(whole: Sequence[Pair], chosen: Container[Pair]) -> list[Any]:
    """For `parametrize`: the whole product, of which what was not chosen waits for `make test-all`."""
    return [pytest.param(*pair, marks=() if pair in chosen else pytest.mark.full) for pair in whole]


def manner(name: str) -> Hashable:
    """What sets an optimizer of the catalogue apart where it is stepped, saved and judged."""
    spec = catalogue.get(name)
    return spec.dense, spec.closure, spec.train_eval, spec.cost
