"""Plans that somebody else has written, or edited: a named error before anything is trained, whatever is in them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optselect import Budget, TorchWorkload, select
from optselect.configuration import Configuration
from optselect.errors import OptselectError, PlanFormatError
from optselect.plan import ModelFingerprint, OptimizerPlan, ParamGroup
from tests.support.cases import case
from tests.support.small import loader, net, vectors


@pytest.fixture(scope="module")
def plan() -> OptimizerPlan:
    torch.manual_seed(0)
    workload = TorchWorkload(net(), nn.CrossEntropyLoss(), loader(), loader(vectors(48)), steps=12)
    return select(workload, Budget(steps=40), candidates=["adamw", "momentum"])


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the numbers and words of `value` stand."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in items:
        yield from places(each, (*path, name))
    if path and not isinstance(value, dict | list):
        yield path


def put(data: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(data))
    inner: Any = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return changed


# Of evidence, anything that JSON can say; of a profile's measured parts the same number may be missing.
ANYTHING = {"value", "versions"}


def test_no_value_of_another_kind_is_taken_anywhere(plan: OptimizerPlan) -> None:
    data = plan.to_dict()
    found = [path for path in places(json.loads(json.dumps(data))) if not ANYTHING & set(map(str, path))]

    for path in found:
        for wrong in ({"a": [1]}, [[[1]]], "\ud800", math.nan, math.inf, 10**400):
            with case(path, wrong), pytest.raises(OptselectError):
                OptimizerPlan.from_dict(put(data, path, wrong))


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a parameter left out": lambda data: data["param_groups"][0]["parameters"].pop(),
    "a group left out": lambda data: data["param_groups"].pop(),
    "a parameter twice": lambda data: data["param_groups"][0]["parameters"].append(
        data["param_groups"][1]["parameters"][0]
    ),
    "a parameter that is none": lambda data: data["param_groups"][0]["parameters"].append("no.such.weight"),
    "a headline rate that is not used": lambda data: data["hyperparameters"].update(lr=1e9),
    "a group's rate that is not shown": lambda data: data["param_groups"][0]["hyperparameters"].update(lr=1e9),
    "a decay that is not shown": lambda data: data["param_groups"][0]["hyperparameters"].update(weight_decay=0.7),
    "a rate below zero": lambda data: [
        each.update(lr=-0.1)
        for each in (data["hyperparameters"], *(g["hyperparameters"] for g in data["param_groups"]))
    ],
    "a warmup without an end": lambda data: data["schedule"].update(warmup_steps=10**6),
    "a warmup of more digits than any number": lambda data: data["schedule"].update(warmup_steps=10**400),
    "no step": lambda data: data.update(total_steps=0),
    "steps that are words": lambda data: data.update(total_steps="32"),
    "steps that are true": lambda data: data.update(total_steps=True),
    "a negative cost": lambda data: data.update(search_steps=-1),
    "a mode of its own": lambda data: data.update(mode="up"),
    "a comparison of its own": lambda data: data.update(compare="hours"),
    "a trial's pace below zero": lambda data: data["trials"][0].update(pace=-1.0),
    "a trial's pace in words": lambda data: data["trials"][0].update(pace="fast"),
    "a kind of reason that is none": lambda data: data["reasons"][0].update(kind="whim"),
    "a trial's state that is none": lambda data: data["trials"][0].update(state="asleep"),
    "one layer in place of two": lambda data: data["param_groups"][0].update(layers=[1]),
    "a shape of words": lambda data: data["model_fingerprint"]["shapes"].update({"head.bias": ["a"]}),
    "frozen but trained": lambda data: data["model_fingerprint"].update(frozen=["head.bias"]),
}


def test_what_cannot_be_meant_is_refused_by_name(plan: OptimizerPlan) -> None:
    for name, edit in EDITS.items():
        data = json.loads(json.dumps(plan.to_dict()))
        edit(data)
        with case(name), pytest.raises(PlanFormatError):
            OptimizerPlan.from_dict(data)


@pytest.mark.parametrize(
    "text, says",
    [
        ('{"version": 2, "version": 2}', "'version' twice"),
        ('{"version": 2, "lead": NaN}', "holds NaN"),
        ('{"version": 2, "lead": -Infinity}', "holds -Infinity"),
        ('{"version": 2, "x": ' + "9" * 5_000 + "}", "digits"),
        ('{"version": 2, "x": "\\ud800"}', "malformed"),
        ('{"a":' * 100_000, "no plan can be read"),
    ],
)
def test_a_file_that_json_does_not_allow_is_refused(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)

    with pytest.raises(PlanFormatError, match=says):
        OptimizerPlan.load(tmp_path / "plan.json")


def test_what_a_search_writes_is_taken(plan: OptimizerPlan, tmp_path: Path) -> None:
    plan.save(tmp_path / "plan.json")

    assert OptimizerPlan.load(tmp_path / "plan.json") == plan


def by_hand(**values: Any) -> OptimizerPlan:
    model = nn.Linear(3, 2)
    group = ParamGroup(name="all", optimizer="momentum", parameters=("weight", "bias"), hyperparameters=values)
    return OptimizerPlan(
        configuration=Configuration(optimizer="momentum", hyperparameters=values),
        model_fingerprint=ModelFingerprint.of(model),
        param_groups=(group,),
    )


def test_a_plan_made_by_hand_is_checked_when_it_is_built() -> None:
    for name, wrong in {
        "a rate that is none": by_hand(lr=math.nan),
        "a momentum below zero": by_hand(lr=0.1, momentum=-1.0),
        "a name the optimizer does not know": by_hand(lr=0.1, momentun=0.9),
        "no groups": OptimizerPlan(
            configuration=Configuration(optimizer="sgd"), model_fingerprint=ModelFingerprint.of(nn.Linear(3, 2))
        ),
    }.items():
        with case(name), pytest.raises(OptselectError):
            wrong.build(nn.Linear(3, 2))
