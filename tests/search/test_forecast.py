"""What a lead at a part of the schedule says of the end."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from optselect.search.forecast import PREFIX_ERROR, chance_behind, expected_gain, is_apart, is_sure, prefix_error
from optselect.search.lead import Lead

FRACTIONS = (0.02, 0.05, 0.125, 0.25, 0.5, 0.75, 1.0)


def lead(difference: float, error: float = 0.01, progress: float | None = 1.0) -> Lead:
    behind = None if progress is None else (progress, progress + difference)
    return Lead(rung=10, values=(1.0, 1.0 - difference), difference=difference, error=error, progress=behind)


def test_a_later_lead_is_a_surer_one() -> None:
    chances = [chance_behind(lead(0.1), fraction) for fraction in FRACTIONS]

    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.4
    assert chances[-1] < 1e-6


def test_a_larger_lead_is_a_surer_one() -> None:
    for fraction, first in itertools.product(FRACTIONS, (False, True)):
        chances = [chance_behind(lead(each), fraction, first_choice=first) for each in (0.01, 0.05, 0.2, 0.5, 1.0)]

        assert chances == sorted(chances, reverse=True)


def test_at_the_end_the_errors_of_the_validation_data_and_of_one_seed_are_all_there_is() -> None:
    assert prefix_error(1.0) == 0.0
    # One standard error is the noise it may be behind by, and 1.645 of them are one in twenty.
    one = 1.645 * math.hypot(0.01, PREFIX_ERROR.seeds) - 0.01
    assert chance_behind(lead(one + 1e-4), 1.0) < 0.05 < chance_behind(lead(one - 1e-4), 1.0)
    two = [replace(lead(each * 0.01), seeds=2) for each in (0.65, 0.64)]
    assert chance_behind(two[0], 1.0) < 0.05 < chance_behind(two[1], 1.0)
    assert chance_behind(lead(0.1, error=0.0, progress=None), 1.0) == 0.0


def test_before_the_end_a_lead_no_larger_than_its_error_is_never_sure() -> None:
    small = lead(0.0329, error=0.044, progress=0.02)

    assert chance_behind(small, 0.05, first_choice=True) < 0.05
    assert not is_sure(small, 0.05, 0.05, first_choice=True)
    assert is_sure(small, 1.0, 0.05)


def test_what_does_not_lead_is_never_sure() -> None:
    for fraction in FRACTIONS:
        assert chance_behind(lead(0.0), fraction) == 1.0
        assert chance_behind(lead(-0.1), fraction) == 1.0
        assert not is_apart(lead(-0.1), fraction, scheduled=True)


def test_without_known_progress_a_prefix_says_nothing() -> None:
    assert chance_behind(lead(0.5, progress=None), 0.5) == 1.0
    assert not is_apart(lead(0.5, progress=None), 0.5, scheduled=False)


def test_the_priors_first_choice_is_trusted_earlier_and_no_less_at_any_time() -> None:
    for fraction in FRACTIONS:
        assert prefix_error(fraction, first_choice=True) <= prefix_error(fraction)
    assert prefix_error(0.05, first_choice=True) < 0.3 * prefix_error(0.05)


def test_a_constant_rate_has_to_be_further_ahead_of_another_rival_than_one_that_falls() -> None:
    assert is_apart(lead(0.05), 0.25, scheduled=True)
    assert not is_apart(lead(0.05), 0.25, scheduled=False)


def test_where_the_baseline_has_lost_ground_a_lead_is_no_more_than_all() -> None:
    lost = Lead(rung=10, values=(9.0, 2.0), difference=7.0, error=0.01, progress=(-6.9, 0.1))

    assert lost.scale == pytest.approx(7.0)
    assert Lead(rung=10, values=(9.0, 8.0), difference=1.0, error=0.01, progress=(-6.0, -5.0)).scale is None


def test_nothing_is_left_to_gain_at_the_end_and_more_the_closer_two_are() -> None:
    assert expected_gain(lead(0.0), 1.0) == 0.0
    gains = [expected_gain(lead(each), 0.25) for each in (0.0, 0.02, 0.1, 0.3)]
    assert gains == sorted(gains, reverse=True)
    # Of a normal error of standard deviation s, the mean of what is above zero is s / sqrt(2 pi).
    assert gains[0] == pytest.approx(prefix_error(0.25) / (2 * 3.14159265) ** 0.5)
