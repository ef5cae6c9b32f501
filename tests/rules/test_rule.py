"""What a rule, a vote and a proposal are."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from optselect.configuration import Configuration
from optselect.configuration.schedule import Schedule
from optselect.profile import DataProfile, GradientProfile, ModelProfile, Profile
from optselect.rules import DEFAULT, FACTS, Evidence, Proposal, Rule, Vote, at_least, at_most, rule, votes
from optselect.rules.rule import Answer
from optselect.testing import ConformanceError, check_rule
from tests.support.cases import case

NOTHING = Profile(data=DataProfile(), model=ModelProfile(parameters=0), gradient=GradientProfile())
BECAUSE = Evidence(quantity="data.size", value=10, threshold=5)


@rule(cites="a source", strength="measured", counter="another source")
def big_is_beautiful(profile: Profile) -> Answer:
    """The mechanism.

    More words.
    """
    return Vote(optimizer="adamw", because=BECAUSE)


def test_a_rules_name_is_its_claim_and_its_first_line_the_mechanism() -> None:
    assert (big_is_beautiful.name, big_is_beautiful.mechanism) == ("big is beautiful", "The mechanism.")


def test_a_vote_carries_its_rule_its_source_and_what_speaks_against_it() -> None:
    (vote,) = big_is_beautiful(NOTHING)

    assert (vote.rule, vote.mechanism, vote.cites, vote.strength, vote.counter) == (
        "big is beautiful",
        "The mechanism.",
        "a source",
        "measured",
        "another source",
    )


@pytest.mark.parametrize(
    "answer, count",
    [
        (None, 0),
        ((), 0),
        (Vote(optimizer="adamw", because=BECAUSE), 1),
        (votes(BECAUSE, {"sgd": 1.0, "adam": 2.0}), 2),
    ],
)
def test_an_answer_is_none_a_vote_or_several(answer: Answer, count: int) -> None:
    silent = replace(big_is_beautiful, function=lambda _: answer)

    assert len(silent(NOTHING)) == count


@pytest.mark.parametrize("value, speaks", [(None, False), (0.49, False), (0.5, True), (0.51, True)])
def test_at_least_speaks_at_its_threshold(value: float | None, *, speaks: bool) -> None:
    assert (at_least("x", value, 0.5) is not None) is speaks


@pytest.mark.parametrize("value, speaks", [(None, False), (0.49, True), (0.5, True), (0.51, False)])
def test_at_most_speaks_at_its_threshold(value: float | None, *, speaks: bool) -> None:
    assert (at_most("x", value, 0.5) is not None) is speaks


def test_without_evidence_there_are_no_votes() -> None:
    assert votes(None, {"adamw": 1.0}) == ()


def test_evidence_says_value_and_threshold() -> None:
    assert Evidence(quantity="data.density", value=0.012, threshold=0.05, sense="at most").describe() == (
        "data.density = 0.012 (at most 0.05)"
    )


def test_a_proposal_has_a_json_form_both_ways() -> None:
    proposal = Proposal(
        configuration=Configuration(
            optimizer="adamw", hyperparameters={"lr": 1e-3}, schedule=Schedule(kind="cosine", warmup_steps=3)
        ),
        votes=big_is_beautiful(NOTHING),
        seat="classic",
    )

    assert Proposal.from_dict(json.loads(json.dumps(proposal.to_dict()))) == proposal


def test_a_proposal_tells_reasons_from_counter_reasons() -> None:
    for_, against, veto = (
        Vote(optimizer="adamw", because=BECAUSE, weight=2.0),
        Vote(optimizer="adamw", because=BECAUSE, weight=-0.5),
        Vote(optimizer="adamw", because=BECAUSE, weight=0.0, veto=True),
    )

    proposal = Proposal(configuration=Configuration(optimizer="adamw"), votes=(for_, against, veto))

    assert (proposal.because, proposal.against, proposal.score) == ((for_,), (against,), 1.5)


def test_rules_are_judged_without_torch() -> None:
    script = (
        "import sys; from optselect.profile import *; from optselect.rules import propose; "
        "p = Profile(data=DataProfile(), model=ModelProfile(parameters=9), gradient=GradientProfile()); "
        "propose(p, candidates=[q.optimizer for q in propose(p)]); sys.exit('torch' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=300)

    assert done.returncode == 0


def test_every_rule_of_ours_conforms() -> None:
    for each in [*FACTS, *DEFAULT]:
        with case(each.name):
            check_rule(each)


def raising(profile: Profile) -> Answer:
    raise ZeroDivisionError("division by zero")


def forgetful(_: Profile) -> Answer:
    return Vote(optimizer="adamw", because=Evidence(quantity="calls", value=next(COUNTER)))


COUNTER = iter(range(10_000))


def meddling(profile: Profile) -> Answer:
    profile.model.kinds["linear"] = 1  # type: ignore[index]  # that is the point
    return None


def vote_for(name: str, value: object = 1, weight: float = 1.0) -> Answer:
    return Vote(optimizer=name, because=Evidence(quantity="x", value=value), weight=weight)


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (replace(big_is_beautiful, cites=" "), "has an empty cites"),
        (replace(big_is_beautiful, mechanism=""), "has an empty mechanism"),
        (replace(big_is_beautiful, strength="rumour"), "strength='rumour'"),  # type: ignore[arg-type]  # wrong
        (replace(big_is_beautiful, function=raising), "raises ZeroDivisionError: division by zero"),
        (replace(big_is_beautiful, function=forgetful), "answers the same profile differently"),
        (replace(big_is_beautiful, function=lambda _: vote_for("loin")), "votes for 'loin', which is not in"),
        (replace(big_is_beautiful, function=lambda _: vote_for("adam", {1, 2})), "without a JSON form"),
        (replace(big_is_beautiful, function=lambda _: vote_for("adam", (1, 2))), "that JSON changes"),
        (replace(big_is_beautiful, function=lambda _: vote_for("adam", weight=0.0)), "of weight 0.0"),
        (replace(big_is_beautiful, function=meddling), "changes the profile"),
    ],
)
def test_a_rule_that_misbehaves_fails_with_a_sentence_that_says_how(wrong: Rule, sentence: str) -> None:
    with pytest.raises(ConformanceError, match=f"the rule 'big is beautiful' .*{sentence}"):
        check_rule(wrong)
