"""The choice and its reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from optselect.configuration import USER, Configuration
from optselect.configuration.goal import Goal, Mode
from optselect.configuration.schedule import Schedule
from optselect.configuration.trial import Trial
from optselect.plan.versions import versions
from optselect.rules import Evidence, Proposal, Vote
from optselect.search import reasons
from optselect.search.choice import Choice, choose, first_proposal
from optselect.search.race import Race

BASE = Configuration(optimizer="adamw", hyperparameters={"lr": 1e-3})
OTHER = Configuration(optimizer="nadam", hyperparameters={"lr": 1e-2}, schedule=Schedule(kind="cosine"))
THIRD = Configuration(optimizer="sgd", hyperparameters={"lr": 0.1})
VOTE = Vote(
    optimizer="nadam", because=Evidence(quantity="data.size", value=96), rule="small data favour nadam", cites="here"
)
PROPOSALS = (
    Proposal(
        configuration=Configuration(optimizer="nadam", hyperparameters={"lr": 1e-2}, schedule=Schedule(kind="cosine")),
        votes=(VOTE,),
    ),
    Proposal(configuration=Configuration(optimizer="sgd", hyperparameters={"lr": 0.1})),
)

Trials = Mapping[tuple[str, int], Mapping[int, float] | None]
BY_NAME = {"base": BASE, "other": OTHER, "third": THIRD}


def race(mode: Mode = "min", **changes: Any) -> Race:
    return Race(arms=(OTHER, BASE, THIRD), baseline=BASE, horizon=100, steps=1_000, goal=Goal(mode), **changes)


def ended(trials: Trials, sign: float = 1.0) -> list[Trial]:
    """By name and seed the values at each rung; None: it diverged."""
    found = []
    for number, ((name, seed), values) in enumerate(trials.items()):
        found.append(
            Trial(
                number=number,
                configuration=BY_NAME[name],
                seed=seed,
                values={rung: sign * value for rung, value in (values or {}).items()},
                reached=3 if values is None else max(values),
                state="complete",
                note="diverged after 3 micro-batches" if values is None else "",
                cap=(25, sign * 9.0) if values is None else None,
            )
        )
    return found


def said(choice: Choice) -> list[str]:
    return list(map(str, choice.reasons))


CASES: dict[str, tuple[Trials, Configuration]] = {
    "a clear lead": ({("base", 0): {25: 1.0}, ("other", 0): {25: 0.5}}, OTHER),
    "the best of three": ({("base", 0): {25: 1.0}, ("other", 0): {25: 0.5}, ("third", 0): {25: 0.4}}, THIRD),
    "the best beyond zero": ({("base", 0): {25: 0.03}, ("other", 0): {25: -0.03}, ("third", 0): {25: -0.6}}, THIRD),
    "worse": ({("base", 0): {25: 1.0}, ("other", 0): {25: 1.5}}, BASE),
    "equal": ({("other", 0): {25: 1.0}, ("base", 0): {25: 1.0}}, BASE),
    "a lead of half a percent": ({("base", 0): {25: 1.0}, ("other", 0): {25: 0.995}}, BASE),
    "nothing tried": ({}, BASE),
    "all diverged": ({("base", 0): None, ("other", 0): None}, BASE),
    "the other diverged": ({("base", 0): {25: 1.0}, ("other", 0): None}, BASE),
    "the baseline diverged": ({("base", 0): None, ("other", 0): {25: 1.5}}, OTHER),
    "the baseline was never tried": ({("other", 0): {25: 0.1}}, BASE),
    "deeper says the contrary": ({("base", 0): {25: 0.5, 100: 0.3}, ("other", 0): {25: 0.4, 100: 0.5}}, BASE),
    "deeper confirms": ({("base", 0): {25: 1.0, 100: 0.9}, ("other", 0): {25: 0.9, 100: 0.3}}, OTHER),
    "only the leader went deeper": ({("base", 0): {25: 1.0}, ("other", 0): {25: 0.5, 100: 0.9}}, OTHER),
    "further on without the baseline another leads": (
        {("base", 0): {25: 1.0}, ("other", 0): {25: 0.5, 100: 0.4}, ("third", 0): {25: 0.6, 100: 0.3}},
        THIRD,
    ),
    "the seeds agree": (
        {("base", 0): {25: 1.0}, ("base", 1): {25: 1.1}, ("other", 0): {25: 0.5}, ("other", 1): {25: 0.7}},
        OTHER,
    ),
    "the seeds contradict each other": (
        {("base", 0): {25: 1.0}, ("base", 1): {25: 0.5}, ("other", 0): {25: 0.5}, ("other", 1): {25: 0.9}},
        BASE,
    ),
    "the lead is lost on another seed": (
        {("base", 0): {25: 1.0}, ("base", 1): {25: 1.0}, ("other", 0): {25: 0.5}, ("other", 1): None},
        BASE,
    ),
}
case = pytest.mark.parametrize("trials, chosen", CASES.values(), ids=CASES.keys())


@case
def test_the_baseline_is_replaced_on_evidence_only(trials: Trials, chosen: Configuration) -> None:
    assert choose(race(), ended(trials), PROPOSALS, "val_loss").configuration == chosen


@case
def test_of_large_values_the_largest_is_chosen_on_the_same_evidence(trials: Trials, chosen: Configuration) -> None:
    choice = choose(race("max"), ended(trials, sign=-1.0), PROPOSALS, "val_acc")

    assert choice.configuration == chosen


def test_where_the_best_weights_are_kept_the_best_value_so_far_decides() -> None:
    trials = {("base", 0): {25: 0.5, 50: 0.45, 100: 0.4}, ("other", 0): {25: 0.4, 50: 0.2, 100: 0.9}}

    choice = choose(race(keeps_best=True), ended(trials), PROPOSALS, "val_loss")

    assert choice.configuration == OTHER
    assert any("its best was val_loss 0.2 within 100 micro-batches" in reason for reason in said(choice))


@case
def test_every_choice_has_a_reason_with_words_in_it(trials: Trials, chosen: Configuration) -> None:
    words = said(choose(race(), ended(trials), PROPOSALS, "val_loss"))

    assert words
    assert all(len(each.split()) > 3 for each in words)


def test_the_reason_gives_both_values_in_the_users_direction() -> None:
    trials = ended({("base", 0): {25: -0.5}, ("other", 0): {25: -0.75}}, sign=-1.0)

    first = said(choose(race("max"), trials, PROPOSALS, "val_acc"))[0]

    assert "it reached val_acc 0.75 after 25 micro-batches, the baseline (adamw lr=0.001, constant) 0.5" in first


@pytest.mark.parametrize("mode, sign", [("min", 1.0), ("max", -1.0)])
def test_what_went_further_than_the_baseline_says_so_and_its_lead_is_where_both_have_been(
    mode: Mode, sign: float
) -> None:
    trials, _ = CASES["further on without the baseline another leads"]

    choice = choose(race(mode), ended(trials, sign), PROPOSALS, "val_loss")

    words = "; ".join(said(choice))
    further = f"after 100 micro-batches it had val_loss {0.3 * sign:.4g}; the baseline was taken no further than 25"
    assert further in words
    assert f"next came {OTHER.describe()}: val_loss {0.4 * sign:.4g}" in words
    assert choice.lead == pytest.approx(0.4)


def test_the_winners_votes_are_among_its_reasons() -> None:
    trials = ended({("base", 0): {25: 1.0}, ("other", 0): {25: 0.5}})

    assert "small data favour nadam: data.size = 96 [here]" in said(choose(race(), trials, PROPOSALS, "val_loss"))


def test_a_tie_is_called_one() -> None:
    trials = ended({("base", 0): {25: 1.0}, ("other", 0): {25: 0.995}})

    assert "ties go to the baseline" in said(choose(race(), trials, PROPOSALS, "val_loss"))[0]


def test_the_users_own_optimizer_is_a_baseline_like_any() -> None:
    own = Configuration(optimizer=USER)
    trials = [
        Trial(number=n, configuration=c, seed=0, values={25: v}, reached=25, state="complete")
        for n, (c, v) in enumerate(((own, 1.0), (OTHER, 1.0)))
    ]

    choice = choose(Race(arms=(OTHER, own), baseline=own, horizon=100, steps=1_000), trials, PROPOSALS, "val_loss")

    assert choice.configuration == own


def test_the_lead_is_the_share_by_which_the_loss_is_lower() -> None:
    trials = ended({("base", 0): {25: 1.0}, ("other", 0): {25: 0.25}})

    assert choose(race(), trials, PROPOSALS, "val_loss").lead == 0.75


def test_a_baseline_that_stays_has_no_lead() -> None:
    trials = ended({("base", 0): {25: 1.0}, ("other", 0): {25: 0.995}})

    assert choose(race(), trials, PROPOSALS, "val_loss").lead is None


# --- at the rules' word ---------------------------------------------------------------------


def test_without_a_budget_the_first_proposal_is_taken_with_its_votes() -> None:
    choice = first_proposal(PROPOSALS, BASE)

    assert choice.configuration == OTHER
    assert "without evidence from trials" in said(choice)[0]
    assert said(choice)[1].startswith("small data favour nadam")


def test_the_users_optimizer_is_nobodys_proposal() -> None:
    own = Proposal(configuration=Configuration(optimizer=USER), seat="baseline")

    assert first_proposal((own, *PROPOSALS), BASE).configuration == OTHER
    assert first_proposal((own,), BASE).configuration == BASE
    assert first_proposal((), BASE).reasons


# --- what is written down -------------------------------------------------------------------


def test_the_cost_is_said_in_micro_batches_and_in_trainings_where_the_length_is_known() -> None:
    trials = ended({("base", 0): {25: 1.0}, ("other", 0): {25: 1.0, 50: 0.5}})
    costly = race(spent=10.0, validation_cost=2.0)

    # 10 before, 75 of training, three validations of 2.
    cost = reasons.cost(costly, trials)
    assert str(cost) == "the choice cost 91 micro-batches, 0.91 of the training: profile 10, 2 trials 81"
    assert cost.value == pytest.approx(0.91)
    unknown = reasons.cost(replace(costly, length_known=False), trials)
    assert "of the training" not in str(unknown)
    assert unknown.value is None


def test_the_versions_name_what_makes_a_choice() -> None:
    assert {"optselect", "torch", "optuna", "python"} <= versions().keys()
