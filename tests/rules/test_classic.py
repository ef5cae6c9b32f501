"""The classic rules alone answer as the textbook does, and say what has been found since."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from optselect import OptimizerPlan, TorchWorkload, select
from optselect.rules import CLASSIC
from tests.support import trainings

ANSWERS = {
    "small dense data": (
        trainings.tabular_mlp,
        {"adam", "adamw", "nadam", "amsgrad"},
        "small data sets favour adam",
    ),
    "large data": (trainings.large_table, {"sgd", "momentum"}, "large data sets favour sgd"),
    "sequences": (trainings.lstm, {"rmsprop", "adagrad"}, "sequences favour rmsprop and adagrad"),
    "sparse gradients": (
        trainings.bag_of_sparse_features,
        {"sparse_adam", "adagrad"},
        "sparse data favour adagrad and sparse adam",
    ),
    "sparse features": (
        trainings.wide_sparse_linear,
        {"adagrad"},
        "sparse data favour adagrad and sparse adam",
    ),
    "saddle points": (
        trainings.deep_table,
        {"momentum", "nadam", "amsgrad"},
        "many saddle points favour momentum",
    ),
}
RULES = {rule.name: rule for rule in CLASSIC}

each_answer = pytest.mark.parametrize("training, family, reason", ANSWERS.values(), ids=ANSWERS)


def by_the_book(training: Callable[[], TorchWorkload]) -> OptimizerPlan:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return select(training(), 0, rules="classic")


def said(plan: OptimizerPlan) -> str:
    """The explanation without its line breaks."""
    return " ".join(plan.explain().split())


@each_answer
def test_the_classic_rules_alone_give_the_textbooks_answer(
    training: Callable[[], TorchWorkload], family: set[str], reason: str
) -> None:
    plan = by_the_book(training)

    assert plan.optimizer in family
    assert plan.trials == ()


@each_answer
def test_the_answer_comes_with_its_textbook_reason_and_the_evidence_against_it(
    training: Callable[[], TorchWorkload], family: set[str], reason: str
) -> None:
    rule = RULES[reason]

    text = said(by_the_book(training))

    assert f"{rule.mechanism} [textbook: {rule.cites}] but: {rule.counter}" in text


@each_answer
def test_the_textbooks_answer_costs_five_passes_at_most(
    training: Callable[[], TorchWorkload], family: set[str], reason: str
) -> None:
    assert by_the_book(training).search_steps <= 5
