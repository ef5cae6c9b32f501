"""The cases that stand for a product."""

from __future__ import annotations

from collections import Counter
from itertools import product

from optselect import catalogue
from tests.support.pairs import in_turn, manner, parameters

ITEMS, LEVELS = ["aA", "aB", "aC", "aD", "aE", "aF", "aG", "bH", "bI", "cJ"], ["one", "two", "three", "four"]


def family(item: str) -> str:
    return item[0]


def test_every_item_is_chosen_and_every_level_with_every_family() -> None:
    chosen = in_turn(ITEMS, LEVELS, family)

    assert {item for item, _ in chosen} == set(ITEMS)
    assert {(family(item), level) for item, level in chosen} == set(product("abc", LEVELS))


def test_no_case_is_chosen_twice_and_no_more_than_it_takes() -> None:
    chosen = in_turn(ITEMS, LEVELS, family)

    # Seven of the first family; of the others as many as there are levels.
    assert len(chosen) == len(set(chosen)) == 7 + 4 + 4


def test_the_levels_come_about_as_often_as_each_other() -> None:
    times = Counter(level for _, level in in_turn(ITEMS, LEVELS, family))

    assert max(times.values()) - min(times.values()) <= 1


def test_what_is_impossible_is_not_chosen_and_another_of_the_family_stands_in() -> None:
    impossible = {("cJ", "two"), ("bH", "one"), ("bH", "three")}

    chosen = in_turn(ITEMS, LEVELS, family, impossible)

    assert not impossible & set(chosen)
    assert {(family(item), level) for item, level in chosen} == set(product("abc", LEVELS)) - {("c", "two")}


def test_what_was_not_chosen_is_left_to_the_full_run() -> None:
    whole = list(product("ab", "xy"))

    marked = {each.values: [mark.name for mark in each.marks] for each in parameters(whole, {("a", "x"), ("b", "y")})}

    assert marked == {("a", "x"): [], ("a", "y"): ["full"], ("b", "x"): ["full"], ("b", "y"): []}


def test_each_of_four_levels_meets_a_third_of_the_catalogue() -> None:
    names = catalogue.names()

    times = Counter(level for _, level in in_turn(names, LEVELS, manner))

    assert min(times.values()) >= len(names) / 3
