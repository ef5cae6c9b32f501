"""The parts of a value as a study keeps them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from optselect.configuration import Batches
from optselect.study.batches import packed, unpacked


def drawn(seed: int) -> Batches:
    draw = random.Random(seed)
    return tuple((draw.gauss(0.0, 1.0) * 10 ** draw.randint(-9, 9), float(draw.randint(1, 512))) for _ in range(64))


@pytest.mark.parametrize("seed", range(20))
def test_what_is_read_is_what_was_written_in_single_precision(seed: int) -> None:
    batches = drawn(seed)

    read = unpacked(packed(batches))

    assert [value for value, _ in read] == pytest.approx([value for value, _ in batches], rel=1e-7)
    assert [weight for _, weight in read] == [weight for _, weight in batches]


@pytest.mark.parametrize("seed", range(20))
def test_what_was_read_is_written_as_it_was(seed: int) -> None:
    written = packed(drawn(seed))

    assert packed(unpacked(written)) == written


def test_the_most_batches_that_are_judged_take_less_than_a_kilobyte() -> None:
    assert len(packed(drawn(0))) < 1_000


def test_no_parts_are_an_empty_string() -> None:
    assert packed(()) == ""
    assert unpacked("") == ()


def test_of_what_is_beyond_single_precision_no_parts_are_kept() -> None:
    assert packed(((1e39, 1.0), (1.0, 1.0))) == ""


@pytest.mark.parametrize("wrong", [5, None, [1.0], "=", "no base 64", "ü", "AAAA", packed(((1.0, 1.0),))[:-4]])
def test_anything_else_is_no_string_of_parts(wrong: Any) -> None:
    with pytest.raises(ValueError, match="batches"):
        unpacked(wrong)


@pytest.mark.parametrize("batch", [(float("nan"), 1.0), (float("inf"), 1.0), (1.0, float("inf")), (1.0, -1.0)])
def test_parts_are_finite_and_weigh_something(batch: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="batches"):
        unpacked(packed((batch,)))
