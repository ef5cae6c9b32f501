"""A value with its parts, and two of them compared batch by batch."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from optselect.configuration import Batches, Evaluation, paired

SEEDS = range(20)


def mean(batches: Batches) -> float:
    return math.fsum(value * weight for value, weight in batches) / math.fsum(weight for _, weight in batches)


def judged(values: list[float], weights: list[float]) -> Evaluation:
    batches = tuple(zip(values, weights, strict=True))
    return Evaluation(value=mean(batches), batches=batches)


def drawn(seed: int, count: int = 12) -> tuple[Evaluation, Evaluation]:
    draw = random.Random(seed)
    weights = [float(draw.choice((3, 16))) for _ in range(count)]
    one, other = ([draw.gauss(1.0, 1.0) for _ in weights] for _ in range(2))
    return judged(one, weights), judged(other, weights)


# --- its parts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_parts_are_kept_where_the_value_is_their_weighted_mean(seed: int) -> None:
    batches = drawn(seed)[0].batches

    evaluation = Evaluation.of(mean(batches) * (1 + 1e-7), batches)

    assert evaluation.batches == batches


@pytest.mark.parametrize(
    "value, batches",
    [
        (3.0, [(1.0, 1.0), (2.0, 1.0)]),
        (1.5, [(1.0, 1.0), (2.0, 2.0)]),
        (1.5 + 1e-4, [(1.0, 1.0), (2.0, 1.0)]),
        (math.nan, [(math.nan, 1.0), (2.0, 1.0)]),
        (math.inf, [(math.inf, 1.0), (2.0, 1.0)]),
        (0.0, [(0.0, 0.0), (0.0, 0.0)]),
        (1.0, [(1.0, -1.0)]),
        (1e308, [(1e308, 8.0), (1e308, 8.0)]),
        (0.0, [(1e308, 8.0), (-1e308, 8.0)]),
        (1.0, []),
    ],
)
def test_where_the_value_is_no_mean_of_its_parts_the_one_value_is_left(
    value: float, batches: list[tuple[float, float]]
) -> None:
    evaluation = Evaluation.of(value, batches)

    assert evaluation.batches == ()
    assert evaluation.value == value or math.isnan(value)


def test_parts_that_cancel_are_measured_by_their_size() -> None:
    batches = [(1.0, 1.0), (-1.0, 1.0)]

    assert Evaluation.of(1e-8, batches).batches == tuple(batches)


# --- paired ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mean_difference_is_that_of_the_values(seed: int) -> None:
    one, other = drawn(seed)

    found = paired(one, other)

    assert found is not None
    assert found[0] == pytest.approx(one.value - other.value, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_other_way_round_the_difference_turns_and_its_error_stays(seed: int) -> None:
    one, other = drawn(seed)

    there, back = paired(one, other), paired(other, one)

    assert there is not None
    assert back is not None
    assert back == pytest.approx((-there[0], there[1]), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_of_equal_weights_the_error_is_the_textbooks(seed: int) -> None:
    draw = random.Random(seed)
    differences = [draw.gauss(0.0, 1.0) for _ in range(9)]
    weights = [4.0] * 9

    found = paired(judged(differences, weights), judged([0.0] * 9, weights))

    assert found is not None
    assert found[1] == pytest.approx(statistics.stdev(differences) / 3)


def test_the_error_is_the_spread_that_other_batches_would_give() -> None:
    draw = random.Random(1)
    found = [paired(*drawn(draw.randrange(10**9), count=40)) for _ in range(2_000)]
    means, errors = zip(*(each for each in found if each is not None), strict=True)

    assert statistics.fmean(errors) == pytest.approx(statistics.stdev(means), rel=0.05)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_all_batches_share_is_in_no_error(seed: int) -> None:
    one, _ = drawn(seed)
    shifted = judged([value + 2.5 for value, _ in one.batches], [weight for _, weight in one.batches])

    found = paired(shifted, one)

    assert found == pytest.approx((2.5, 0.0), abs=1e-12)


ONE = judged([1.0, 2.0, 3.0], [8.0, 8.0, 2.0])


@pytest.mark.parametrize(
    "other",
    [
        Evaluation(value=1.5),
        judged([1.0, 2.0], [8.0, 8.0]),
        judged([1.0, 2.0, 3.0], [8.0, 8.0, 8.0]),
        judged([1.0, 2.0, 3.0], [2.0, 8.0, 8.0]),
    ],
)
def test_other_batches_are_not_paired(other: Evaluation) -> None:
    assert paired(ONE, other) is None
    assert paired(other, ONE) is None


def test_one_batch_has_no_error_to_tell() -> None:
    assert paired(judged([1.0], [8.0]), judged([2.0], [8.0])) is None
