"""The recorded trainings that a plan rests on: as values, as they counted when the choice was made."""

from __future__ import annotations

import torch
from torch import nn

from optselect import OptimizerPlan, TorchWorkload, measure, select
from optselect.plan.neighbour import neighbours_of
from optselect.rules.portfolio import advice, leaving_out
from tests.support.small import loader, net, vectors


def planned(**options: str) -> OptimizerPlan:
    torch.manual_seed(0)
    return select(TorchWorkload(net(), nn.CrossEntropyLoss(), loader(vectors()), steps=40), 0, **options)  # type: ignore[arg-type]


def test_they_are_those_that_the_portfolio_was_asked_by_in_its_order() -> None:
    profile = measure(TorchWorkload(net(), nn.CrossEntropyLoss(), loader(vectors()), steps=40))
    asked = advice(profile, lambda _: True).alike

    found = neighbours_of(profile)

    assert [each.name for each in found] == [each.recorded.name for each in asked[: len(found)]]
    assert all(
        min(there.recorded.regrets) <= each.best[0].regret + 1e-4 for each, there in zip(found, asked, strict=False)
    )


def test_a_plan_keeps_them_through_json_where_the_record_had_a_say_and_only_there() -> None:
    plan = planned()

    assert plan.neighbours
    assert OptimizerPlan.from_dict(plan.to_dict()).neighbours == plan.neighbours
    assert planned(rules="classic").neighbours == ()


def test_a_family_that_is_left_out_is_no_neighbour() -> None:
    nearest = planned().neighbours[0]

    with leaving_out(nearest.family):
        others = planned().neighbours

    assert nearest.family not in {each.family for each in others}
