"""What recorded trainings teach."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib import resources

import pytest

from optselect import catalogue
from optselect.profile import Profile
from optselect.rules import DEFAULT, propose
from optselect.rules.features import distance_squared, features
from optselect.rules.portfolio import (
    FILE,
    PICKS,
    TRAINED_SCALE,
    WARMUP,
    Point,
    Portfolio,
    Recorded,
    advice,
    leaving_out,
    portfolio,
    starts,
    trainings_like_it_were_recorded,
)
from optselect.rules.voting import RULES_ALONE
from optselect.testing import PROFILES
from tests.support.cases import case

PERCEPTRON = PROFILES["small perceptron"]
HERE = features(PERCEPTRON)
POINTS = tuple(Point(optimizer="adamw", rate=rate) for rate in (1e-3, 1e-2, 1e-1))


def recorded(name: str, *regrets: float, family: str = "tables", **differs: float) -> Recorded:
    return Recorded(name=name, family=family, summary="", features={**HERE, **differs}, regrets=regrets)


def of(*trainings: Recorded, reach: float = 0.5, everywhere: float = 0.1) -> Portfolio:
    spread = {"rows": 1.0, "steps": 1.0, "parameters": 1.0}
    return Portfolio(points=POINTS, trainings=trainings, spread=spread, reach=reach, everywhere=everywhere)


def weights(known: Portfolio, profile: Profile = PERCEPTRON) -> dict[str, float]:
    return {each.recorded.name: each.weight for each in known.like(profile)}


SAME = recorded("same", 1.0, 0.0, 2.0)
FAR = recorded("far", 0.0, 1.0, 0.5, rows=9.0)
KNOWN = of(SAME, FAR)


# --- likeness


def test_the_weights_of_all_trainings_sum_up_to_one() -> None:
    for name, profile in PROFILES.items():
        with case(name):
            assert math.fsum(each.weight for each in portfolio().like(profile)) == pytest.approx(1)


def test_the_more_a_training_is_like_it_the_more_it_weighs() -> None:
    near = recorded("near", 0.0, 1.0, 2.0, rows=HERE["rows"] + 0.2 if HERE["rows"] is not None else 0.0)

    found = weights(of(SAME, near, FAR))

    assert found["same"] > found["near"] > found["far"] > 0


def test_of_each_workload_the_length_counts_that_is_nearest_or_its_own() -> None:
    steps = PERCEPTRON.steps
    assert steps is not None
    longer = replace(recorded("same x16", 1.0, 0.0, 2.0, steps=math.log10(16 * steps)), length=16)
    known = of(SAME, longer, FAR)

    for given, counts in ((steps, "same"), (3 * steps, "same"), (6 * steps, "same x16"), (None, "same")):
        with case(given):
            assert [*weights(known, replace(PERCEPTRON, steps=given))] == [counts, "far"]


def test_what_is_not_known_of_either_counts_for_nothing() -> None:
    spread = {"rows": 1.0, "noise": 1.0}

    assert distance_squared({"rows": 2.0, "noise": None}, {"rows": 4.0, "noise": 3.0}, spread) == 4.0


def test_trained_weights_are_not_like_random_ones() -> None:
    tuned = replace(PERCEPTRON, model=replace(PERCEPTRON.model, at_initialisation=False))

    assert len(set(weights(KNOWN, tuned).values())) == 1


def test_features_of_a_profile_that_knows_nothing_are_unknown_or_none() -> None:
    assert {value for value in features(PROFILES["nothing known"]).values() if value} == set()


# --- picks


def test_the_first_pick_is_what_is_expected_to_end_least_behind() -> None:
    first, *_ = KNOWN.picks(KNOWN.like(PERCEPTRON), 3)

    assert (first.point, first.regret) == (
        POINTS[1],
        min(pick.regret for pick in KNOWN.picks(KNOWN.like(PERCEPTRON), 3)),
    )


def test_the_next_pick_is_what_adds_most() -> None:
    # The second is the better one alone, but only the first helps where the third is behind.
    known = of(recorded("one", 2.0, 0.0, 0.1), recorded("other", 0.0, 1.0, 0.8))

    assert [pick.point for pick in known.picks(known.like(PERCEPTRON), 2)] == [POINTS[2], POINTS[0]]


def test_each_pick_leaves_less_to_be_behind() -> None:
    for name, profile in PROFILES.items():
        with case(name):
            left = [pick.rest for pick in portfolio().picks(portfolio().like(profile), PICKS)]

            assert left == sorted(left, reverse=True)


def test_nothing_is_picked_that_may_not_be() -> None:
    picks = KNOWN.picks(KNOWN.like(PERCEPTRON), 3, lambda point: point.rate < 0.05)

    assert {pick.point.rate for pick in picks} == {1e-3, 1e-2}


def test_an_error_is_none_where_all_trainings_agree() -> None:
    known = of(recorded("one", 1.0, 0.5, 2.0), recorded("other", 1.0, 0.5, 2.0, rows=9.0))

    assert known.picks(known.like(PERCEPTRON), 1)[0].error == pytest.approx(0)


# --- its word


def test_where_no_recorded_training_is_near_the_rules_alone_speak() -> None:
    large = replace(
        PERCEPTRON,
        data=replace(PERCEPTRON.data, size=10**9, batch_size=4_096),
        model=replace(PERCEPTRON.model, parameters=10**10, depth=100),
        steps=10**6,
    )

    assert not advice(large, lambda _: True).is_near
    assert propose(large) == propose(large, rules=RULES_ALONE)


def test_a_profile_like_a_recorded_one_starts_with_what_was_best_there() -> None:
    assert advice(PERCEPTRON, lambda _: True, of=of(SAME)).picks[0].point == POINTS[1]


def test_its_proposals_come_first_and_say_which_trainings_are_like_it() -> None:
    proposals = propose(PERCEPTRON)
    said = [vote for vote in proposals[0].votes if vote.rule == trainings_like_it_were_recorded.name]

    assert [proposal.seat for proposal in proposals[:PICKS]] == ["portfolio"] * PICKS
    assert [vote.because.value for vote in said] == [advice(PERCEPTRON, lambda _: True).neighbours]


def test_without_its_rule_nothing_is_proposed_from_records() -> None:
    for rules in ("classic", RULES_ALONE, ()):
        assert {proposal.seat for proposal in propose(PERCEPTRON, rules=rules)} & {"portfolio"} == set()


def test_nothing_that_a_fact_forbids_is_proposed_from_records() -> None:
    conv = replace(PERCEPTRON, model=replace(PERCEPTRON.model, muon_share=0.0))

    assert "muon" not in {proposal.optimizer for proposal in propose(conv)}


def test_of_candidates_these_alone_are_proposed_from_records() -> None:
    proposals = propose(PERCEPTRON, candidates=["nadam", "adadelta"])

    assert {(each.optimizer, each.seat) for each in proposals} == {
        ("nadam", "portfolio"),
        ("nadam", "candidate"),
        ("adadelta", "candidate"),
    }


def test_momentum_is_not_proposed_from_records_where_gradients_are_sparse() -> None:
    found = starts(PROFILES["matrix factorisation"], lambda _: True)

    assert found
    assert "momentum" not in {configuration.optimizer for configuration in found}


# --- points


def test_a_point_warms_up_for_its_share_of_the_training() -> None:
    made = Point(optimizer="adamw", rate=1e-2).configuration(steps=400)

    assert (made.rate, made.schedule.kind, made.schedule.warmup_steps) == (1e-2, "cosine", WARMUP * 400)


def test_rates_are_smaller_where_weights_were_trained_before() -> None:
    tuned = replace(PERCEPTRON, model=replace(PERCEPTRON.model, at_initialisation=False))
    known = {point.rate for point in portfolio().points}

    rates = [configuration.rate for configuration in starts(tuned, lambda _: True)]

    assert all(any(rate == pytest.approx(TRAINED_SCALE * each) for each in known) for rate in rates)


def test_a_training_of_unknown_length_has_no_falling_rate() -> None:
    found = starts(replace(PERCEPTRON, steps=None), lambda _: True)

    assert {configuration.schedule.kind for configuration in found} <= {"constant"}


# --- the file


def test_a_portfolio_is_json_both_ways() -> None:
    assert Portfolio.from_dict(KNOWN.to_dict()) == KNOWN


def test_a_family_left_out_has_no_training_left() -> None:
    families = {each.family for each in portfolio().trainings}

    with leaving_out("tables"):
        rest = {each.family for each in portfolio().trainings}

    assert rest == families - {"tables"}


def test_the_file_is_small() -> None:
    assert len((resources.files("optselect.rules") / FILE).read_bytes()) < 300_000


def test_every_point_is_of_the_catalogue_and_every_training_says_how_each_ended() -> None:
    known = portfolio()

    assert {point.optimizer for point in known.points} <= set(catalogue.names())
    assert {len(each.regrets) for each in known.trainings} == {len(known.points)}


def test_the_records_speak_first_of_all_rules() -> None:
    assert (trainings_like_it_were_recorded, *RULES_ALONE) == DEFAULT
