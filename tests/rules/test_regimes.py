"""For each regime a real small training gives the profile, the rules and the proposals that suit it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from optselect import TorchWorkload, measure
from optselect.profile import Profile
from optselect.rules import CLASSIC, FACTS, propose, regime, tally
from optselect.rules.voting import RULES_ALONE
from tests.support import trainings

# They speak on nearly every training, so they tell no regime from another.
EVERYWHERE = {"several optimizers are better than one", "a line search needs the same loss twice"}


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a training should give: facts by path, the measured rules that speak, the first proposals in order."""

    training: Callable[[], TorchWorkload]
    facts: Mapping[str, Any]
    rules: set[str]
    first: list[str]
    start: str = "from random weights"
    against: set[str] = field(default_factory=set)


FRESH = {"model.at_initialisation": True, "gradient.sparse": ()}

REGIMES = {
    "BatchNorm CNN": Expected(
        training=trainings.batchnorm_cnn,
        facts=FRESH | {"model.batch_norm": True, "data.label_kind": "multiclass", "data.size": 1_797},
        rules={"a convolutional net with batchnorm favours nesterov"},
        first=["momentum", "nadam"],
    ),
    "short training of a BatchNorm CNN": Expected(
        training=trainings.short_batchnorm_cnn,
        facts=FRESH | {"model.batch_norm": True, "steps": 300},
        rules={
            "a convolutional net with batchnorm favours nesterov",
            "a short training of a convolutional net favours nadam",
        },
        first=["nadam"],
    ),
    "ViT": Expected(
        training=trainings.vision_transformer,
        facts=FRESH | {"data.sequence_length": None, "data.batch_size": 64, "model.depth": 4},
        rules={
            "attention favours adaptive steps",
            "attention at a large batch outruns momentum",
            "hidden matrices favour muon",
        },
        first=["muon", "nadam", "adamw"],
        start="a transformer from random weights",
        against={"sgd", "momentum"},
    ),
    "causal transformer": Expected(
        training=trainings.causal_transformer,
        facts=FRESH | {"data.label_kind": "tokens", "data.sequence_length": 64, "model.tied": 1},
        rules={
            "attention favours adaptive steps",
            "hidden matrices favour muon",
            "rare classes favour adaptive steps",
        },
        first=["nadam", "muon", "adamw"],
        start="a language model",
        against={"sgd"},
    ),
    "LSTM": Expected(
        training=trainings.lstm,
        facts=FRESH | {"data.sequence_length": 24, "data.label_kind": "multiclass"},
        rules={"recurrent nets favour adaptive steps", "hidden matrices favour muon"},
        first=["nadam", "muon", "rmsprop"],
        against={"sgd"},
    ),
    "GRU": Expected(
        training=trainings.gru,
        facts=FRESH | {"data.sequence_length": 24, "data.label_kind": "continuous"},
        rules={"recurrent nets favour adaptive steps", "hidden matrices favour muon"},
        first=["nadam", "muon", "rmsprop"],
        against={"sgd"},
    ),
    "bag of sparse features": Expected(
        training=trainings.bag_of_sparse_features,
        facts={"gradient.sparse": ("bag.weight",), "data.label_kind": "binary"},
        rules={"sparse gradients favour adagrad", "momentum is slow on sparse gradients"},
        first=["adagrad", "sparse_adam", "muon"],
        start="a bag of sparse features",
    ),
    "matrix factorisation": Expected(
        training=trainings.matrix_factorisation,
        facts={"gradient.sparse": ("users.weight", "items.weight"), "data.label_kind": "continuous"},
        rules={
            "matrix factorisation favours long adaptive steps",
            "sparse gradients favour adagrad",
            "momentum is slow on sparse gradients",
        },
        first=["adagrad", "sparse_adam", "momentum"],
        start="matrix factorisation",
    ),
    "wide sparse linear model": Expected(
        training=trainings.wide_sparse_linear,
        facts={"model.depth": 1, "gradient.sparse": (), "data.features": 5_000},
        rules={"sparse features of a shallow model do not need adagrad"},
        first=["nadam", "momentum", "adagrad"],
    ),
    "tabular MLP": Expected(
        training=trainings.tabular_mlp,
        facts=FRESH | {"data.sequence_length": None, "data.features": 16, "data.classes": 5},
        rules={"tabular networks train best with muon", "hidden matrices favour muon"},
        first=["muon", "nadam", "adamw"],
    ),
    "small overfitting tabular set": Expected(
        training=trainings.small_overfitting_table,
        facts=FRESH | {"data.size": 442, "data.label_kind": "continuous"},
        rules={
            "a small noisy regression wants cautious steps",
            "tabular networks train best with muon",
            "hidden matrices favour muon",
        },
        first=["adamw", "rmsprop"],
        start="a small noisy regression",
    ),
    "long-tailed classes": Expected(
        training=trainings.long_tailed_classes,
        facts=FRESH | {"data.label_kind": "multiclass", "model.depth": 1},
        rules={"rare classes favour adaptive steps"},
        first=["nadam", "adamw", "adam"],
        against={"sgd", "momentum"},
    ),
    "pretrained transformer": Expected(
        training=trainings.pretrained_transformer,
        facts={"model.at_initialisation": False, "data.classes": 5},
        rules={
            "a pretrained transformer favours what trained it",
            "attention favours adaptive steps",
            "few samples for a pretrained transformer need bias correction",
        },
        first=["adamw", "nadam"],
        start="fine-tuning a transformer",
        against={"muon", "sgd"},
    ),
    "pretrained CNN": Expected(
        training=trainings.pretrained_cnn,
        facts={"model.at_initialisation": False, "model.batch_norm": True},
        rules={
            "a pretrained convolutional net takes either",
            "a short training of a convolutional net favours nadam",
        },
        first=["nadam", "adamw"],
        start="fine-tuning a convolutional net with BatchNorm",
    ),
    "GNN on one graph": Expected(
        training=trainings.one_graph,
        facts=FRESH | {"data.edges": 400, "data.batches": 1, "model.graph": True, "model.dropout": 0.5},
        rules={"a net for one graph favours adam", "hidden matrices favour muon"},
        first=["adam"],
        start="one graph in a full batch",
        against={"lbfgs"},
    ),
    "GNN on many graphs": Expected(
        training=trainings.many_graphs,
        facts=FRESH | {"data.edges": 20, "data.batches": 10, "data.sequence_length": None},
        rules={"a net for many graphs favours nesterov", "hidden matrices favour muon"},
        first=["momentum", "nadam"],
    ),
    "full-batch tiny problem": Expected(
        training=trainings.full_batch,
        facts={"data.batches": 1, "data.size": 100, "model.dropout": 0.0},
        rules={
            "a small full batch problem can be solved with curvature",
            "tabular networks train best with muon",
        },
        first=["adam", "lbfgs"],
    ),
    "bfloat16 weights": Expected(
        training=trainings.bfloat16_weights,
        facts={"model.dtypes": ("bfloat16",), "model.half_precision": True},
        rules={
            "half precision weights lose small steps",
            "tabular networks train best with muon",
            "hidden matrices favour muon",
        },
        first=["muon", "nadam", "adamw"],
        against={"adafactor"},
    ),
}

each_regime = pytest.mark.parametrize("name", REGIMES)


@functools.cache
def profile_of(name: str) -> Profile:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return measure(REGIMES[name].training())


def scores(name: str) -> dict[str, float]:
    cast = tally(profile_of(name), RULES_ALONE)
    return {optimizer: sum(vote.weight for vote in votes) for optimizer, votes in cast.items()}


@each_regime
def test_the_profile_sees_what_the_training_is(name: str) -> None:
    expected = REGIMES[name].facts

    assert {path: profile_of(name).quantity(path) for path in expected} == expected


@each_regime
def test_the_rules_of_the_regime_speak_and_no_others(name: str) -> None:
    spoke = {vote.rule for votes in tally(profile_of(name), RULES_ALONE).values() for vote in votes}

    assert spoke - EVERYWHERE - {rule.name for rule in (*CLASSIC, *FACTS)} == REGIMES[name].rules


@each_regime
def test_what_suits_the_regime_is_proposed_first(name: str) -> None:
    first = REGIMES[name].first

    proposed = [proposal.optimizer for proposal in propose(profile_of(name), rules=RULES_ALONE)]

    assert proposed[: len(first)] == first


@each_regime
def test_what_the_rules_speak_against_is_not_proposed(name: str) -> None:
    proposed = {proposal.optimizer for proposal in propose(profile_of(name), rules=RULES_ALONE)}

    assert REGIMES[name].against.isdisjoint(proposed)


@each_regime
def test_the_prior_is_that_of_the_regime(name: str) -> None:
    assert regime(profile_of(name)).name == REGIMES[name].start


@each_regime
def test_every_measured_quantity_is_json_both_ways(name: str) -> None:
    assert Profile.from_dict(profile_of(name).to_dict()) == profile_of(name)


def test_rows_of_rare_classes_pull_gradient_descent_below_zero() -> None:
    assert scores("long-tailed classes")["sgd"] < 0


def test_the_whole_of_a_pretrained_transformer_is_not_given_to_muon() -> None:
    assert scores("pretrained transformer")["muon"] < 0


@pytest.mark.parametrize("name", ["GNN on one graph", "BatchNorm CNN"])
def test_a_line_search_is_only_for_a_loss_that_stays_the_same(name: str) -> None:
    assert scores(name)["lbfgs"] < 0


def test_adam_on_one_graph_starts_at_the_rate_of_the_papers() -> None:
    assert propose(profile_of("GNN on one graph"), rules=RULES_ALONE)[0].hyperparameters["lr"] == 0.01


def test_schedule_free_averaging_is_spoken_for_on_a_transformer() -> None:
    # A plug-in, so it is not proposed unasked.
    assert scores("ViT")["schedulefree_adamw"] > 0
