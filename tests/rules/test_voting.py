"""From votes to proposals."""

import warnings
from dataclasses import replace
from typing import Any

import pytest

from optselect import catalogue
from optselect.errors import ConfigurationError, UnknownOptimizerError, UnsupportedModuleError
from optselect.profile import DataProfile, GradientProfile, ModelProfile, Profile
from optselect.rules import (
    BASELINE,
    CLASSIC,
    DEFAULT,
    Evidence,
    Rule,
    RuleWarning,
    Vote,
    configuration,
    propose,
    resolve,
    rule,
    tally,
    vetoes,
)
from optselect.rules.rule import Answer
from optselect.rules.voting import RULES_ALONE
from optselect.testing import PROFILES
from tests.support.cases import case

PERCEPTRON = PROFILES["small perceptron"]


def make(
    kinds: dict[str, int],
    *,
    steps: int | None = 400,
    of_data: dict[str, Any],
    of_model: dict[str, Any] | None = None,
    sparse: tuple[str, ...] = (),
) -> Profile:
    return Profile(
        data=DataProfile(**of_data),
        model=ModelProfile(
            **{
                "parameters": sum(kinds.values()),
                "tensors": 10,
                "kinds": kinds,
                "depth": 4,
                "at_initialisation": True,
                **(of_model or {}),
            }
        ),
        gradient=GradientProfile(passes=3, sparse=sparse),
        steps=steps,
    )


CASES = {
    "tabular perceptron": (PERCEPTRON, {"muon", "nadam", "adamw"}),
    "small regression": (PROFILES["small regression"], {"adamw", "rmsprop"}),
    "convolutional net with batchnorm": (PROFILES["convolutional net with batchnorm"], {"momentum", "nadam"}),
    "vision transformer": (
        make(
            {"attention": 30_000, "linear": 60_000},
            of_data={"size": 5_000, "batch_size": 32, "batches": 150, "label_kind": "multiclass"},
            of_model={"muon_share": 0.96},
        ),
        {"muon", "nadam", "adamw"},
    ),
    "causal transformer": (
        make(
            {"attention": 30_000, "linear": 60_000, "embedding": 10_000},
            of_data={
                "size": 9_000,
                "batch_size": 12,
                "label_kind": "tokens",
                "sequence_length": 64,
                "batches": 9,
            },
            of_model={"muon_share": 0.9},
        ),
        {"muon", "nadam", "rmsprop"},
    ),
    "recurrent net": (
        make(
            {"recurrent": 19_000, "linear": 1_000},
            of_data={"size": 270, "batch_size": 32, "batches": 9, "sequence_length": 29},
            of_model={"muon_share": 0.6},
        ),
        {"nadam", "muon", "rmsprop"},
    ),
    "bag of sparse embeddings": (
        make(
            {"embedding": 320_000, "linear": 2_000},
            of_data={"size": 8_000, "batch_size": 64, "batches": 120, "label_kind": "binary"},
            of_model={"muon_share": 0.005},
            sparse=("bag.weight",),
        ),
        {"adagrad", "sparse_adam", "muon"},
    ),
    "matrix factorisation": (PROFILES["matrix factorisation"], {"adagrad", "sparse_adam"}),
    "long-tailed classes": (
        make(
            {"linear": 100_000},
            of_data={"size": 10**6, "batch_size": 256, "batches": 4_000, "rare_class_share": 0.9},
        ),
        {"nadam", "adamw", "adam"},
    ),
    "pretrained transformer": (PROFILES["pretrained transformer"], {"adamw", "nadam"}),
    "pretrained convolutional net": (
        make(
            {"conv": 4_000_000, "linear": 500_000},
            of_data={"size": 5_000, "batch_size": 32, "batches": 150},
            of_model={"at_initialisation": False, "batch_norm": True},
        ),
        {"nadam", "adamw"},
    ),
    "full batch": (
        make({"linear": 50}, of_data={"size": 100, "batch_size": 100, "batches": 1, "label_kind": "multiclass"}),
        {"adam", "lbfgs"},
    ),
}
EVERY = [*((name, profile) for name, (profile, _) in CASES.items()), *PROFILES.items()]


@pytest.mark.parametrize("profile, expected", CASES.values(), ids=CASES)
def test_each_kind_of_training_gets_the_optimizers_that_suit_it(profile: Profile, expected: set[str]) -> None:
    proposed = {proposal.optimizer for proposal in propose(profile)}

    assert expected <= proposed


@pytest.mark.parametrize(
    "case, first",
    [
        ("tabular perceptron", "muon"),
        ("small regression", "adamw"),
        ("convolutional net with batchnorm", "momentum"),
        ("vision transformer", "muon"),
        ("causal transformer", "muon"),
        ("recurrent net", "nadam"),
        ("bag of sparse embeddings", "adagrad"),
        ("matrix factorisation", "adagrad"),
        ("long-tailed classes", "nadam"),
        ("pretrained transformer", "adamw"),
        ("pretrained convolutional net", "nadam"),
        ("full batch", "adam"),
    ],
)
def test_the_best_suited_comes_first(case: str, first: str) -> None:
    profile, _ = CASES[case]

    assert propose(profile, rules=RULES_ALONE)[0].optimizer == first


def test_there_are_three_to_five_proposals_best_first() -> None:
    for name, profile in EVERY:
        with case(name):
            scores = [proposal.score for proposal in propose(profile, rules=RULES_ALONE)]

            assert 3 <= len(scores) <= 5
            assert scores == sorted(scores, reverse=True)


def test_the_textbook_and_the_evidence_have_a_seat_each() -> None:
    for name, profile in EVERY:
        with case(name):
            seats = [proposal.seat for proposal in propose(profile)]

            assert (seats.count("classic"), seats.count("evidence")) == (1, 1)


def test_the_classic_seat_is_the_classic_sets_own_pick() -> None:
    for name, profile in EVERY:
        with case(name):
            (seated,) = [proposal.optimizer for proposal in propose(profile) if proposal.seat == "classic"]

            assert seated == propose(profile, rules="classic")[0].optimizer


def test_only_torchs_own_are_proposed_unasked() -> None:
    for name, profile in EVERY:
        with case(name):
            assert {catalogue.get(proposal.optimizer).extra for proposal in propose(profile)} == {None}


def test_a_fine_tuned_transformer_is_not_proposed_muon() -> None:
    assert "muon" not in {proposal.optimizer for proposal in propose(CASES["pretrained transformer"][0])}


def test_a_proposal_starts_at_the_prior() -> None:
    first = propose(PERCEPTRON, rules=RULES_ALONE)[0]

    assert (first.hyperparameters, first.schedule) == configuration(first.optimizer, PERCEPTRON)


def test_the_same_profile_gives_the_same_proposals() -> None:
    assert propose(PERCEPTRON) == propose(Profile.from_dict(PERCEPTRON.to_dict()))


# --- the textbook alone

DENSE = {"size": 1_000, "batch_size": 32, "batches": 32}


@pytest.mark.parametrize(
    "profile, family",
    [
        (make({"linear": 1_000}, of_data=DENSE), {"adam", "adamw", "nadam", "amsgrad"}),
        (make({"linear": 1_000}, of_data=DENSE | {"size": 10**6}), {"sgd", "momentum"}),
        (make({"recurrent": 1_000}, of_data=DENSE | {"sequence_length": 20}), {"rmsprop", "adagrad"}),
        (make({"linear": 1_000}, of_data=DENSE | {"density": 0.01}), {"adagrad"}),
        (make({"embedding": 1_000}, of_data=DENSE, sparse=("table",)), {"sparse_adam", "adagrad"}),
        (make({"linear": 1_000}, of_data=DENSE, of_model={"depth": 40}), {"momentum", "nadam", "amsgrad"}),
        (
            make({"linear": 1_000}, of_data=DENSE | {"size": 10**6}, of_model={"depth": 40}),
            {"momentum", "nadam", "amsgrad"},
        ),
    ],
    ids=[
        "small dense data: Adam family",
        "large data: SGD",
        "sequences: RMSprop or Adagrad",
        "sparse data: Adagrad",
        "sparse gradients: SparseAdam or Adagrad",
        "saddle points, small data: momentum, NAdam or AMSGrad",
        "saddle points, large data: momentum, NAdam or AMSGrad",
    ],
)
def test_the_classic_rules_alone_give_the_textbooks_answer(profile: Profile, family: set[str]) -> None:
    first = propose(profile, rules="classic")[0]

    assert first.optimizer in family
    assert all(vote.counter for vote in first.because)


# --- candidates


def test_candidates_are_all_there_is() -> None:
    proposed = propose(PERCEPTRON, candidates=["sgd", "muon", "adadelta"], rules=RULES_ALONE)

    assert [proposal.optimizer for proposal in proposed] == ["muon", "sgd", "adadelta"]


def test_the_users_own_optimizer_is_a_candidate_with_nothing_to_set() -> None:
    (own,) = propose(PERCEPTRON, candidates=["user"])

    assert (own.optimizer, own.seat, dict(own.hyperparameters)) == ("user", "baseline", {})


def test_a_candidate_named_twice_is_proposed_once() -> None:
    assert len(propose(PERCEPTRON, candidates=["adadelta", "adadelta"])) == 1


def test_an_unknown_candidate_is_an_error_that_suggests_the_nearest() -> None:
    with pytest.raises(UnknownOptimizerError, match=r"Did you mean 'user'\?"):
        propose(PERCEPTRON, candidates=["usr"])


def test_a_candidate_that_a_fact_forbids_is_an_error_that_says_the_fact() -> None:
    with pytest.raises(UnsupportedModuleError, match="'sparse_adam' cannot train this model: no gradient is sparse"):
        propose(PERCEPTRON, candidates=["adam", "sparse_adam"])


def test_a_closure_is_no_obstacle_when_asked_for_by_name() -> None:
    (proposal,) = propose(PERCEPTRON, candidates=["lbfgs"])

    assert proposal.score < 0


@pytest.mark.parametrize("candidates, sentence", [([], "candidates is empty"), ("adam", "a sequence of names")])
def test_candidates_that_cannot_be_meant_are_an_error(candidates: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        propose(PERCEPTRON, candidates=candidates)


def test_a_plug_in_is_proposed_when_it_is_asked_for() -> None:
    if not catalogue.get("schedulefree_adamw").available:
        pytest.skip("pip install 'optselect[plugins]'")

    (proposal,) = propose(PERCEPTRON, candidates=["schedulefree_adamw"])

    assert proposal.because


# --- vetoes


def test_what_a_fact_forbids_is_not_proposed() -> None:
    complex_ = replace(PERCEPTRON, model=replace(PERCEPTRON.model, complex=True))

    forbidden = {vote.optimizer for vote in vetoes(complex_)}

    assert forbidden.isdisjoint(proposal.optimizer for proposal in propose(complex_))


def test_the_reasons_of_a_veto_stay_within_reach() -> None:
    reasons = {vote.optimizer: vote.rule for vote in vetoes(PERCEPTRON)}

    assert reasons == {"sparse_adam": "no gradient is sparse"}


@pytest.mark.parametrize("rules", ["classic", []])
def test_facts_hold_whatever_the_rules(rules: Any) -> None:
    assert vetoes(PERCEPTRON, rules) == vetoes(PERCEPTRON)


def test_without_a_word_for_any_the_common_choice_remains() -> None:
    proposed = [proposal.optimizer for proposal in propose(PERCEPTRON, rules=[])]

    assert proposed == ["adamw"]


def test_without_memory_for_any_state_gradient_descent_remains() -> None:
    cramped = replace(PERCEPTRON, model=replace(PERCEPTRON.model, memory_free=0))

    assert [proposal.optimizer for proposal in propose(cramped, rules=[])] == ["sgd"]


# --- rules of one's own


@rule(cites="our own experience", strength="measured")
def our_data_love_adamax(profile: Profile) -> Answer:
    """It has always been so."""
    return Vote(optimizer="adamax", because=Evidence(quantity="data.size", value=profile.data.size), weight=9.0)


@rule(cites="our own experience", strength="measured")
def our_data_love_lion(profile: Profile) -> Answer:
    """It has always been so."""
    return Vote(optimizer="lion", because=Evidence(quantity="data.size", value=profile.data.size), weight=9.0)


@rule(cites="nobody")
def broken(profile: Profile) -> Answer:
    """It divides by zero."""
    return Vote(optimizer="adam", because=Evidence(quantity="x", value=1 // 0))


@rule(cites="nobody")
def misspelt(profile: Profile) -> Answer:
    """It votes for what is not there."""
    return Vote(optimizer="loin", because=Evidence(quantity="x", value=1))


def test_a_users_rule_is_summed_with_ours() -> None:
    assert propose(PERCEPTRON, rules=[*DEFAULT, our_data_love_adamax])[0].optimizer == "adamax"


def test_a_plug_in_is_proposed_when_a_users_rule_votes_for_it() -> None:
    assert propose(PERCEPTRON, rules=[*DEFAULT, our_data_love_lion])[0].optimizer == "lion"


@pytest.mark.parametrize("wrong", [broken, misspelt], ids=["it raises", "it votes for an unknown name"])
def test_a_rule_that_fails_is_named_and_left_out(wrong: Rule) -> None:
    with pytest.warns(RuleWarning, match=f"the rule '{wrong.name}' was left out"):
        proposals = propose(PERCEPTRON, rules=[*DEFAULT, wrong])

    assert proposals == propose(PERCEPTRON)


def test_our_rules_fail_on_nothing() -> None:
    with warnings.catch_warnings(record=True) as caught:
        for profile in PROFILES.values():
            tally(profile)

    assert caught == []


def test_the_rules_argument_names_a_set_or_is_one() -> None:
    assert (resolve("default"), resolve("classic"), resolve([broken])) == (DEFAULT, CLASSIC, (broken,))


@pytest.mark.parametrize("wrong", ["modern", 3, None, [lambda profile: None]])
def test_other_rules_arguments_are_an_error(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="rules must be 'default', 'classic' or a sequence"):
        resolve(wrong)


def test_the_baseline_is_torchs_adamw_as_it_comes() -> None:
    torch = pytest.importorskip("torch")
    defaults = torch.optim.AdamW([torch.zeros(1)]).defaults

    assert BASELINE.hyperparameters == {name: defaults[name] for name in ("lr", "weight_decay")}
    assert BASELINE.schedule.kind == "constant"
