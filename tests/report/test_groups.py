"""The tables of a model's layers and of a plan's groups."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from optselect import FineTuning, OptimizerPlan, Thaw, TorchWorkload, select
from optselect.parameters.anatomy import anatomy_of
from optselect.parameters.execution import execution_recorded
from optselect.plan import ParamGroup
from optselect.profile.model import profile_model
from optselect.report.groups import (
    GROUP_HEADER,
    LAYER_HEADER,
    LAYER_NUMBERS,
    aligned,
    group_rows,
    group_table,
    layer_rows,
)
from tests.support.architectures import ConvNet, lora_wrapped, minilm
from tests.support.small import loader, net, vectors

POLICY = FineTuning(head_lr_ratio=10.0, freeze="hidden", thaw=Thaw(step=5, parameters=r"body\.0"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def planned(policy: FineTuning | None = None) -> OptimizerPlan:
    workload = TorchWorkload(net(), nn.CrossEntropyLoss(), loader(vectors()), steps=40)
    return select(workload, 0, candidates=["adamw"], fine_tuning=policy or "auto")


def layers(model: nn.Module, policy: FineTuning | None = None) -> list[tuple[str, ...]]:
    inputs = torch.randn(8, 1, 8, 8) if isinstance(model, ConvNet) else torch.randint(1, 99, (8, 8))
    before = profile_model(model)
    with torch.no_grad(), execution_recorded(model) as execution:
        model(inputs)
    return layer_rows(anatomy_of(model, order=execution.order), policy, fresh=before.fresh)


def test_a_group_says_what_it_is_for_where_it_lies_and_its_rate() -> None:
    rows = {row[0]: row[1:] for row in group_rows(planned(POLICY))}

    head = rows["adamw/head/decay"]
    assert head[:3] == ("head", "2", "48")
    assert head[3].endswith(", ×10")
    assert rows["adamw/backbone/decay/frozen"][:3] == ("hidden matrix", "1", "256")
    assert rows["adamw/backbone/decay/thaw 1"][3].endswith("joins at step 5")


def test_what_is_frozen_in_the_model_itself_has_a_row() -> None:
    model = net()
    model.hidden.requires_grad_(False)
    workload = TorchWorkload(model, nn.CrossEntropyLoss(), loader(vectors()), steps=40)

    rows = group_rows(select(workload, 0))

    assert rows[-1] == ("frozen", "", "", "272", "", "", "")


def test_the_facts_about_a_group_survive_json() -> None:
    plan = planned(POLICY)

    stored = OptimizerPlan.from_dict(json.loads(json.dumps(plan.to_dict())))

    assert stored.param_groups == plan.param_groups


def test_a_group_that_was_stored_before_these_facts_were_is_read() -> None:
    group = ParamGroup(name="sgd", optimizer="sgd", parameters=("weight",), hyperparameters={"lr": 0.1})
    old = {key: value for key, value in group.to_dict().items() if key not in {"rate", "roles", "layers"}}

    assert ParamGroup.from_dict(old) == group


def test_the_explanation_shows_each_group_once() -> None:
    plan = planned(POLICY)

    explained = plan.explain()

    table = group_table(plan)
    for line in aligned(table.header, table.rows, table.numbers):
        assert explained.count(f"\n  {line}\n") == 1
    assert [explained.count(f" {group.name} ") for group in plan.param_groups] == [1] * len(plan.param_groups)


def test_a_row_says_besides_only_what_the_plan_does_not_say_already() -> None:
    workload = TorchWorkload(net(), nn.CrossEntropyLoss(), loader(vectors()), steps=40)

    rows = group_rows(select(workload, 0, candidates=["muon"]))

    assert {row[0]: row[-1] for row in rows} == {
        "muon/decay": "",
        "adamw/decay": "beta1=0.9 beta2=0.999",
        "adamw/no_decay": "beta1=0.9 beta2=0.999",
    }


def test_a_column_without_a_word_is_left_out() -> None:
    plan = planned()
    bare = replace(plan, param_groups=tuple(replace(group, roles=(), layers=None) for group in plan.param_groups))

    assert group_table(bare).header == ("group", "parameters", "lr", "decay")


def test_layers_come_from_input_to_output() -> None:
    rows = layers(ConvNet())

    assert [(row[0], row[1], row[2], row[5]) for row in rows] == [
        ("0", "features.0", "convolution", "yes"),
        ("0", "features", "bias, norm", "no"),
        ("1", "features.3", "convolution", "yes"),
        ("1", "features", "bias, norm", "no"),
        ("2", "classifier", "head", "yes"),
        ("2", "classifier", "head", "no"),
    ]


def test_a_policy_shows_in_the_rates_of_the_layers() -> None:
    rows = layers(ConvNet(), FineTuning(head_lr_ratio=10.0, layer_decay=0.5, freeze=r"features\.1"))

    rates = {(row[1], row[5]): row[4] for row in rows}
    assert rates["features.0", "yes"] == "×0.25"
    assert rates["features.3", "yes"] == "×0.5"
    assert rates["classifier", "yes"] == "×10"
    assert rates["features.1", "no"] == "×0.25, frozen"


def test_adapters_and_what_is_frozen_have_rows_of_their_own() -> None:
    rows = layers(lora_wrapped())

    adapters = [row for row in rows if "adapter" in row[2]]
    assert [(row[0], row[3], row[4]) for row in adapters] == [
        ("1", "512", "×1"),
        ("2", "512", "×1"),
        ("3", "512", "×1"),
    ]
    assert {row[4] for row in rows if "hidden matrix" in row[2]} == {"frozen"}


def test_what_is_new_in_a_trained_model_is_marked() -> None:
    rows = layers(minilm(pretrained=True))

    assert {row[1] for row in rows if "new" in row[1]} == {"pooler.dense (new)", "classifier (new)"}


def test_lines_are_cut_to_fit_a_terminal() -> None:
    row = ("group" * 20, "role" * 20, "1 to 3", "5,000", "0.001, joins at step 7", "0.01", "momentum=0.9")

    lines = aligned(GROUP_HEADER, [row], (3,))

    assert max(map(len, lines)) <= 98
    assert "5,000" in lines[1]


def test_numbers_stand_at_the_right() -> None:
    rows = [("0", "a", "norm", "5", "×1", "no"), ("10", "b", "norm", "1,000", "×1", "no")]

    lines = aligned(LAYER_HEADER, rows, LAYER_NUMBERS)

    assert lines[1].startswith("    0  a")
    assert lines[1].index(" 5  ×1") + 2 == lines[2].index("1,000  ×1") + 5
