"""The choice and its reasons."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from optselect.configuration import USER, Configuration, Evaluation
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
    goal = Goal(mode)
    values = {"untrained": Evaluation(value=goal.loss(2.0)), **changes}
    return Race(arms=(OTHER, BASE, THIRD), baseline=BASE, horizon=100, steps=1_000, goal=goal, **values)


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


def test_votes_that_several_proposals_bring_are_said_once() -> None:
    proposal = next(each for each in PROPOSALS if each.because)

    once, twice = (list(reasons.votes(proposal.configuration, [proposal] * count)) for count in (1, 2))

    assert once == twice != []


def test_the_winners_votes_are_among_its_reasons() -> None:
    trials = ended({("base", 0): {25: 1.0}, ("other", 0): {25: 0.5}})

    assert "small data favour nadam: data.size = 96 [here]" in said(choose(race(), trials, PROPOSALS, "val_loss"))


def test_a_search_that_cannot_tell_says_so_and_what_would() -> None:
    trials = ended({("base", 0): {25: 1.0}, ("other", 0): {25: 0.995}})
    short = replace(race(), steps=100)

    words = said(choose(short, trials, PROPOSALS, "val_loss"))[0]

    assert words == (
        "this search cannot tell: nadam lr=0.01, cosine led the baseline by 0.5% ± 1.0% of the baseline's progress in "
        "val_loss after 25 micro-batches, and the chance that it ends behind is 35%, where 5% is accepted, so the "
        "baseline stays; a budget of 2 trainings takes both to their end"
    )


def test_what_is_passed_over_is_named_with_its_better_value() -> None:
    trials = ended({("base", 0): {100: 1.0}, ("other", 0): {100: 0.5}, ("third", 0): {100: 0.495}})

    choice = choose(race(), trials, PROPOSALS, "val_loss")

    assert choice.configuration == OTHER
    passed = "sgd lr=0.1, constant had val_loss 0.495 where it had 0.5 after 100 micro-batches"
    assert any(reason.startswith(passed) for reason in said(choice))


def test_the_lead_is_told_over_the_baseline_and_over_the_best_of_its_rates_that_was_tried() -> None:
    found = [(BASE, 1.0), (OTHER, 0.4), (BASE.at_rate(1e-2), 0.5), (BASE.at_rate(3e-3), 0.8)]
    trials = [
        Trial(number=number, configuration=each, values={100: value}, reached=100)
        for number, (each, value) in enumerate(found)
    ]

    leads = [str(each) for each in choose(race(), trials, PROPOSALS, "val_loss").reasons if each.kind == "lead"]

    assert leads == [
        "its lead is 60% ± 1.6% of the baseline's progress after 100 micro-batches",
        (
            "over the best rate of that optimizer that was tried (adamw lr=0.01, constant) its lead is 6.7% ± 1.1% of "
            "its progress after 100 micro-batches"
        ),
    ]


def test_the_users_own_optimizer_is_a_baseline_like_any() -> None:
    own = Configuration(optimizer=USER)
    trials = [
        Trial(number=n, configuration=c, seed=0, values={25: v}, reached=25, state="complete")
        for n, (c, v) in enumerate(((own, 1.0), (OTHER, 1.0)))
    ]

    choice = choose(Race(arms=(OTHER, own), baseline=own, horizon=100, steps=1_000), trials, PROPOSALS, "val_loss")

    assert choice.configuration == own


def test_the_lead_is_a_share_of_the_baselines_progress() -> None:
    trials = ended({("base", 0): {25: 1.0}, ("other", 0): {25: 0.25}})

    assert choose(race(untrained=Evaluation(value=3.0)), trials, PROPOSALS, "val_loss").lead == 0.75 / 2.0


def test_a_baseline_that_stays_has_no_lead() -> None:
    trials = ended({("base", 0): {25: 1.0}, ("other", 0): {25: 0.995}})

    assert choose(race(), trials, PROPOSALS, "val_loss").lead is None


# --- laws, on drawn searches ----------------------------------------------------------------


def drawn(seed: int) -> tuple[Race, list[Trial]]:
    """A search of five configurations that were taken to some rungs, each judged on eight batches of unlike sizes."""
    rng = np.random.default_rng(seed)
    found = [BASE, OTHER, THIRD, OTHER.at_rate(3e-3), BASE.at_rate(1e-2)]
    weights = rng.integers(1, 9, size=8).astype(float)
    hard = rng.normal(size=8)
    trials = []
    for number in rng.permutation(len(found)):
        deepest, quality = rng.integers(1, 4), 0.2 * rng.normal()
        batches = {
            rung: [1 / rung**0.3 + quality + 0.3 * each + 0.05 * rng.normal() for each in hard]
            for rung in (25, 50, 100)[:deepest]
        }
        trials.append(trial(int(number), found[number], {rung: (values, weights) for rung, values in batches.items()}))
    return race(untrained=Evaluation(value=1.5)), trials


def trial(number: int, configuration: Configuration, judged: Mapping[int, tuple[Any, Any]]) -> Trial:
    parts = {
        rung: tuple(zip(map(float, values), map(float, weights), strict=True))
        for rung, (values, weights) in judged.items()
    }
    means = {rung: float(np.average(values, weights=weights)) for rung, (values, weights) in judged.items()}
    return Trial(number=number, configuration=configuration, values=means, batches=parts, reached=max(judged))


def moved(searched: tuple[Race, list[Trial]], move: Callable[[float], float]) -> tuple[Race, list[Trial]]:
    """The same search where every value is another function of what it was."""
    one, trials = searched
    assert one.untrained is not None
    return replace(one, untrained=Evaluation(value=move(one.untrained.value))), [
        replace(
            each,
            values={rung: move(value) for rung, value in each.values.items()},
            batches={rung: tuple((move(v), w) for v, w in parts) for rung, parts in each.batches.items()},
        )
        for each in trials
    ]


def chosen(searched: tuple[Race, list[Trial]]) -> Configuration:
    return choose(*searched, PROPOSALS, "val_loss").configuration


SEARCHES = range(60)


def test_a_constant_or_a_factor_on_all_values_changes_no_choice() -> None:
    for seed in SEARCHES:
        as_it_is = chosen(drawn(seed))

        assert chosen(moved(drawn(seed), lambda value: value + 8.0)) == as_it_is
        assert chosen(moved(drawn(seed), lambda value: value - 3.0)) == as_it_is
        assert chosen(moved(drawn(seed), lambda value: 1e-13 * value)) == as_it_is
        assert chosen(moved(drawn(seed), lambda value: 1e6 * value)) == as_it_is


def test_the_mirror_of_a_search_has_the_same_choice() -> None:
    for seed in SEARCHES:
        mirrored, trials = moved(drawn(seed), lambda value: -value)

        assert chosen((replace(mirrored, goal=Goal("max")), trials)) == chosen(drawn(seed))


def test_a_better_value_never_makes_what_was_chosen_lose() -> None:
    for seed, gain in itertools.product(SEARCHES, (0.01, 0.1, 1.0)):
        one, trials = drawn(seed)
        winner = chosen((one, trials))
        improve = functools.partial(operator.add, -gain)
        _, better = moved((one, [each for each in trials if each.configuration == winner]), improve)
        rest = [each for each in trials if each.configuration != winner]

        assert winner == BASE or chosen((one, [*rest, *better])) == winner


def test_equal_trials_leave_the_baseline() -> None:
    for seed in SEARCHES:
        one, trials = drawn(seed)
        same = [replace(trials[0], number=each.number, configuration=each.configuration) for each in trials]

        assert chosen((one, same)) == BASE


def test_the_drawn_searches_end_in_every_way() -> None:
    assert {chosen(drawn(seed)).optimizer for seed in SEARCHES} == {"adamw", "nadam", "sgd"}


def test_a_smaller_risk_replaces_the_baseline_less_often() -> None:
    def replaced(risk: float) -> int:
        return sum(chosen((replace(one, risk=risk), trials)) != BASE for one, trials in map(drawn, SEARCHES))

    assert replaced(0.001) < replaced(0.05) < replaced(0.5)


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


def test_what_a_settled_choice_leaves_of_the_budget_is_said() -> None:
    trials = ended({("base", 0): {100: 1.0}, ("other", 0): {100: 0.2}})

    cost = str(reasons.cost(race(), trials))

    assert "; 800 more were left, but nothing that goes on could be expected to change the choice by enough" in cost


def test_the_versions_name_what_makes_a_choice() -> None:
    assert {"optselect", "torch", "optuna", "python"} <= versions().keys()
