"""What a user may ask for, and what is said where it cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from optselect import AutoOptimizer, ConfigurationError, OptselectError
from optselect.errors import PlanError, nearest
from optselect.settings import Settings
from tests.support.plans import searched

WRONG: dict[str, tuple[Any, str]] = {
    "a name alone": ("adamw", "write ['adamw']"),
    "a class alone": (torch.optim.AdamW, "the class AdamW; write 'adamw'"),
    "a class among them": (["adam", torch.optim.SGD], "the class SGD; write 'sgd'"),
    "a class that is not in the catalogue": ([dict], "registered first"),
    "an object": ([torch.optim.AdamW([torch.zeros(1)])], "an object of AdamW; write 'adamw'"),
    "a number": (3, "a sequence of names"),
    "nothing": ([], "candidates is empty"),
    "capitals": (["adamW"], "Did you mean 'adamw'?"),
    "two as near": (["adamv"], "Did you mean 'adam' or 'adamw'?"),
}


@pytest.mark.parametrize("candidates, says", WRONG.values(), ids=WRONG)
def test_candidates_that_cannot_be_meant_are_refused_with_what_to_write(candidates: Any, says: str) -> None:
    with pytest.raises(OptselectError) as refused:
        AutoOptimizer(candidates=candidates)

    assert says in str(refused.value)


def test_candidates_of_any_sequence_are_the_same_settings() -> None:
    assert Settings(candidates=["adamw", "sgd"]) == Settings(candidates=("adamw", "sgd"))


def test_a_name_is_near_where_nothing_but_capitals_differ() -> None:
    assert nearest("LION ", ["adam", "lion"]) == " Did you mean 'lion'?"


def test_the_chosen_plan_is_there_or_an_error() -> None:
    auto = AutoOptimizer()

    with pytest.raises(PlanError, match="fit first"):
        _ = auto.chosen

    auto.plan = searched()
    assert auto.chosen is auto.plan


def test_a_setting_that_cannot_be_meant_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="above 0 and below 1"):
        AutoOptimizer(risk=2.0)
