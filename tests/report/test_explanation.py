"""What a plan says of itself: everything, in lines that fit a terminal, and the same as Markdown."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optselect import Budget, OptimizerPlan, TorchWorkload, select
from optselect.configuration import Configuration, Trial
from optselect.plan import ModelFingerprint, Reason
from optselect.profile import Profile
from optselect.recipes.cli.commands import main
from optselect.report.explanation import claim, headline
from optselect.rules import CLASSIC, DEFAULT, Evidence, Vote, rule
from optselect.rules.rule import _RULES, Answer
from tests.support.plans import searched as searched_plan
from tests.support.small import loader, net, sentences, vectors, words


@pytest.fixture(scope="module")
def searched() -> OptimizerPlan:
    """Sparse gradients, so that the plan is one of two optimizers and has votes of every kind."""
    torch.manual_seed(0)
    workload = TorchWorkload(words(), nn.CrossEntropyLoss(), loader(sentences()), loader(sentences(48)), steps=40)
    return select(workload, Budget(steps=200), risk=0.9)


@pytest.fixture(scope="module")
def unsearched() -> OptimizerPlan:
    torch.manual_seed(0)
    return select(TorchWorkload(net(), nn.CrossEntropyLoss(), loader(vectors()), steps=40), 0)


@pytest.fixture(scope="module")
def bare() -> OptimizerPlan:
    """Written by hand: nothing was measured, proposed or tried."""
    return OptimizerPlan(
        configuration=Configuration(optimizer="sgd", hyperparameters={"lr": 0.1}),
        model_fingerprint=ModelFingerprint.of(nn.Linear(3, 2)),
    )


@pytest.fixture(scope="module")
def unwieldy(searched: OptimizerPlan) -> OptimizerPlan:
    """Long words, long errors, many lines."""
    profile = searched.profile
    assert profile is not None
    long = replace(profile, gradient=replace(profile.gradient, sparse=("layer." * 40 + "weight",)))
    failed = replace(searched.trials[0], values={}, note="RuntimeError: " + "no luck\nat all, " * 30)
    return replace(searched, profile=long, trials=(*searched.trials, failed))


PLANS = ["searched", "unsearched", "bare", "unwieldy"]
each_plan = pytest.mark.parametrize("name", PLANS)


def said(plan: OptimizerPlan) -> str:
    """The explanation without its line breaks."""
    return " ".join(plan.explain().split())


def plain(markdown: str) -> str:
    """Markdown without its markup."""
    unmarked = re.sub(r"^(#+|\s*-) |^\| (--- \| )*---|(?<!\\)\|", "", markdown, flags=re.MULTILINE)
    return " ".join(re.sub(r"\\(.)", r"\1", unmarked).split())


@each_plan
def test_no_line_is_wider_than_a_hundred_columns(name: str, request: pytest.FixtureRequest) -> None:
    lines = request.getfixturevalue(name).explain().splitlines()

    assert max(map(len, lines)) <= 100


@each_plan
def test_markdown_says_the_same(name: str, request: pytest.FixtureRequest) -> None:
    plan = request.getfixturevalue(name)

    words_of_it = plain(plan.explain(markdown=True)).lower().split()

    # The text breaks words that are wider than a line.
    assert "".join(words_of_it) == "".join(said(plan).lower().split())


@each_plan
def test_a_stored_plan_explains_itself_word_for_word(name: str, request: pytest.FixtureRequest) -> None:
    plan = request.getfixturevalue(name)

    stored = OptimizerPlan.from_dict(json.loads(json.dumps(plan.to_dict())))

    assert stored.explain() == plan.explain()


def test_the_choice_comes_first(searched: OptimizerPlan) -> None:
    assert searched.explain().splitlines()[0] == headline(searched)
    assert searched.optimizer in headline(searched)


def test_every_reason_for_the_choice_is_said(searched: OptimizerPlan) -> None:
    assert [reason for reason in searched.reasons if " ".join(str(reason).split()) not in said(searched)] == []


def test_the_profile_takes_five_entries(unsearched: OptimizerPlan) -> None:
    entries = [
        line.split(":")[0].strip()
        for line in unsearched.explain().splitlines()
        if re.match(r"  (data|targets|model|gradients|training): ", line)
    ]

    assert entries == ["data", "targets", "model", "gradients", "training"]


def test_every_vote_is_said_with_its_weight_and_the_measured_value(searched: OptimizerPlan) -> None:
    text = said(searched)

    missing = [
        vote.rule
        for proposal in searched.proposals
        for vote in (*proposal.because, *proposal.against)
        if f"{'+' if vote.weight > 0 else '-'} {abs(vote.weight):.2g} {claim(vote, proposal.optimizer)}: "
        f"{vote.because.describe()}" not in text
    ]

    assert missing == []


def test_votes_against_an_optimizer_are_shown_with_it(searched: OptimizerPlan) -> None:
    asked = select(
        TorchWorkload(words(), nn.CrossEntropyLoss(), loader(sentences()), steps=40), 0, candidates=["momentum"]
    )

    assert "- 0.5 momentum is slow on sparse gradients" in said(asked)


def test_every_rule_that_spoke_gives_its_mechanism_and_source_once(searched: OptimizerPlan) -> None:
    text = said(searched)

    for vote in {vote.rule: vote for proposal in searched.proposals for vote in proposal.votes}.values():
        assert text.count(vote.mechanism) == 1
        assert vote.cites in text


def test_a_classic_reason_stands_beside_what_has_been_found_since(searched: OptimizerPlan) -> None:
    spoke = {vote.rule for proposal in searched.proposals for vote in proposal.votes}
    classic = [each for each in CLASSIC if each.name in spoke]

    missing = [each.name for each in classic if f"but: {each.counter}" not in said(searched)]

    assert classic
    assert missing == []


def test_every_trial_is_said(searched: OptimizerPlan) -> None:
    text = said(searched)

    assert searched.trials
    assert [trial for trial in searched.trials if trial.configuration.describe() not in text] == []


def test_every_group_the_schedule_and_the_length_are_said(searched: OptimizerPlan) -> None:
    text = said(searched)

    assert all(f" {group.name} {', '.join(group.roles)} " in text for group in searched.param_groups)
    assert f"schedule: {searched.schedule.describe()}, 40 steps" in text


def test_the_cost_is_said_of_the_choice_and_of_the_profile(searched: OptimizerPlan) -> None:
    profile = searched.profile
    assert profile is not None

    text = said(searched)

    assert "the choice cost " in text
    assert f"the profile took {profile.gradient.passes} forward and backward passes and read 96 rows" in text


@pytest.mark.parametrize("markdown", [False, True])
def test_the_command_line_says_the_same(
    searched: OptimizerPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, markdown: bool
) -> None:
    searched.save(tmp_path / "plan.json")

    status = main(["explain", str(tmp_path / "plan.json"), *(["--markdown"] if markdown else [])])

    assert (status, capsys.readouterr().out) == (0, searched.explain(markdown=markdown) + "\n")


def test_the_users_own_optimizer_has_no_settings_to_list() -> None:
    plan = OptimizerPlan(
        configuration=Configuration(optimizer="user"), model_fingerprint=ModelFingerprint.of(nn.Linear(3, 2))
    )

    assert plan.explain() == "your own optimizer, as it is"


def test_markup_in_what_is_quoted_shows_as_it_is(bare: OptimizerPlan) -> None:
    plan = replace(bare, reasons=(Reason(kind="trial", text="a*b*c, <b>, [x](y), `z`, _m_ and a_b | c"),))

    assert r"a\*b\*c, \<b\>, \[x\](y), \`z\`, \_m\_ and a_b \| c" in plan.explain(markdown=True)


# --- what is stored of a vote -----------------------------------------------------------------------


@rule(cites="our own experience", strength="measured", counter="one task")
def our_data_love_adamax(profile: Profile) -> Answer:
    """It has always been so."""
    return Vote(optimizer="adamax", because=Evidence(quantity="data.size", value=profile.data.size), weight=9.0)


def test_a_users_rule_is_explained_like_ours() -> None:
    workload = TorchWorkload(net(), nn.CrossEntropyLoss(), loader(vectors()), steps=40)

    plan = select(workload, 0, rules=[*DEFAULT, our_data_love_adamax])

    assert "It has always been so. [measured: our own experience] but: one task" in said(plan)


def test_a_rule_that_is_not_found_any_more_explains_itself_by_name_and_evidence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workload = TorchWorkload(net(), nn.CrossEntropyLoss(), loader(vectors()), steps=40)
    stored = select(workload, 0, rules=[our_data_love_adamax]).to_dict()
    monkeypatch.delitem(_RULES, our_data_love_adamax.name)

    section = OptimizerPlan.from_dict({**stored, "reasons": []}).explain()

    assert "+ 9 our data love adamax: data.size = 96" in section
    assert "our own experience" not in section


def test_a_vote_is_stored_without_what_its_rule_says(searched: OptimizerPlan) -> None:
    stored = json.dumps([proposal.to_dict() for proposal in searched.proposals])

    votes = [vote for proposal in searched.proposals for vote in proposal.votes]
    assert votes
    assert [vote.rule for vote in votes if vote.rule not in stored] == []
    assert [vote.cites for vote in votes if vote.cites in stored] == []


def test_a_plan_of_two_hundred_trials_takes_less_than_64_kib_of_a_checkpoint(searched: OptimizerPlan) -> None:
    trial = Trial(
        configuration=replace(
            Configuration.from_dict(searched.trials[0].configuration.to_dict()),
            hyperparameters=dict.fromkeys(("lr", "beta1", "beta2", "weight_decay"), 0.1 + 0.2),
        ),
        seed=1,
        values={40: 0.1 + 0.7, 100: 0.1 + 0.2},
        reached=100,
        state="complete",
    )

    checkpoint = io.BytesIO()
    torch.save(replace(searched, trials=(trial,) * 200).to_dict(), checkpoint)

    assert len(checkpoint.getvalue()) <= 64 * 1024


def test_every_vote_of_every_rule_survives_json(searched: OptimizerPlan) -> None:
    votes: list[Any] = [vote for proposal in searched.proposals for vote in proposal.votes]

    again = [Vote.from_dict(json.loads(json.dumps(vote.to_dict()))) for vote in votes]

    assert [vars(vote) for vote in again] == [vars(vote) for vote in votes]


@pytest.mark.parametrize("columns", [80, 95, 110])
def test_the_text_is_as_wide_as_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))

    longest = max(map(len, searched_plan().explain().splitlines()))

    assert columns - 15 < longest <= columns


def test_a_width_that_is_asked_for_counts_more_than_the_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")

    assert 75 < max(map(len, searched_plan().explain(width=90).splitlines())) <= 90
