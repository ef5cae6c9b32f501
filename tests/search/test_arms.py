"""The first stage's configurations."""

from __future__ import annotations

from dataclasses import replace

import pytest

from optselect import catalogue
from optselect.configuration import USER, Configuration
from optselect.configuration.schedule import Schedule
from optselect.rules import Proposal
from optselect.search.arms import arms, baseline

MUON = Proposal(
    configuration=Configuration(optimizer="muon", hyperparameters={"lr": 0.02}, schedule=Schedule(kind="cosine")),
    seat="evidence",
)
ADAM = Proposal(
    configuration=Configuration(optimizer="adam", hyperparameters={"lr": 1e-3}, schedule=Schedule(kind="linear")),
    seat="classic",
)
NADAM = Proposal(configuration=Configuration(optimizer="nadam", hyperparameters={"lr": 3e-3}), seat="candidate")
OWN = Proposal(configuration=Configuration(optimizer=USER), seat="baseline")


def test_the_baseline_is_plain_adamw_unless_the_user_has_an_optimizer() -> None:
    plain = baseline(has_user_optimizer=False)

    assert plain.describe() == "adamw lr=0.001 weight_decay=0.01, constant"
    assert baseline(has_user_optimizer=True).optimizer == USER


def test_the_first_choice_comes_first_then_ones_own_at_two_rates_then_the_second_and_the_textbooks() -> None:
    base = baseline(has_user_optimizer=True)

    found = arms([MUON, NADAM, ADAM], base)

    higher, highest = base.at_rate(10**0.5), base.at_rate(10.0)
    assert found[:6] == (MUON.configuration, base, higher, NADAM.configuration, highest, ADAM.configuration)


def test_of_weights_that_were_trained_before_ones_own_goes_down_first() -> None:
    base = baseline(has_user_optimizer=True)

    found = arms([MUON, NADAM, ADAM], base, trained=True)

    assert [arm.rate for arm in found if arm.optimizer == USER] == pytest.approx([1.0, 10**-0.5, 10**0.5])


def test_other_rates_of_the_baseline_are_left_out_where_it_is_no_candidate() -> None:
    base = baseline(has_user_optimizer=True)

    found = arms([MUON, ADAM], base, sweeps_own=False)

    assert [arm for arm in found if arm.optimizer == USER] == [base]


@pytest.mark.parametrize("user", [True, False])
@pytest.mark.parametrize("proposals", [[], [MUON], [OWN], [MUON, ADAM], [ADAM, NADAM, MUON, OWN], [MUON, MUON]])
def test_the_baseline_is_among_them_once_and_nothing_comes_twice(proposals: list[Proposal], user: bool) -> None:
    base = baseline(has_user_optimizer=user)

    found = arms(proposals, base)

    assert [arm.key for arm in found].count(base.key) == 1
    assert len({arm.key for arm in found}) == len(found)
    assert {proposal.optimizer for proposal in proposals} - {USER} <= {arm.optimizer for arm in found}


def test_one_arm_is_cautious_and_one_is_bold() -> None:
    rates = [
        arm.hyperparameters["lr"] for arm in arms([MUON], baseline(has_user_optimizer=True)) if arm.optimizer == "muon"
    ]

    assert rates == pytest.approx([0.02, 0.002, 0.02 * 10**0.5])


def test_what_is_another_again_but_for_a_little_of_its_rate_is_left_out() -> None:
    base = baseline(has_user_optimizer=True)
    rate = MUON.configuration.rate
    assert rate is not None
    near, apart = (replace(MUON, configuration=MUON.configuration.at_rate(rate * factor)) for factor in (1.2, 1.6))

    assert near.configuration not in arms([MUON, near], base)
    assert apart.configuration in arms([MUON, apart], base)


def test_every_rate_lies_inside_its_bounds() -> None:
    extreme = Proposal(configuration=Configuration(optimizer="adam", hyperparameters={"lr": 0.1}))

    for arm in arms([extreme], baseline(has_user_optimizer=False)):
        assert catalogue.get(arm.optimizer).space["lr"].contains(arm.hyperparameters["lr"])


def test_where_the_users_own_is_the_only_candidate_the_arms_are_five_rates_of_it() -> None:
    base = baseline(has_user_optimizer=True)

    found = arms([OWN], base)

    assert found[0] == base
    assert {arm.optimizer for arm in found} == {USER}
    assert sorted(arm.rate or 0.0 for arm in found) == pytest.approx([0.1, 10**-0.5, 1.0, 10**0.5, 10.0])
