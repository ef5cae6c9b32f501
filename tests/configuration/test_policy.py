"""What a policy says, and what it says about each parameter of a model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from torch import nn

from optselect import catalogue
from optselect.building.groups import param_groups
from optselect.configuration import Configuration
from optselect.configuration.policy import FineTuning, Thaw
from optselect.errors import ConfigurationError
from optselect.parameters.anatomy import anatomy_of
from optselect.plan import ParamGroup


class Pretrained(nn.Module):
    """Three blocks below a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.blocks = nn.ModuleList(nn.ModuleDict({"norm": nn.LayerNorm(8), "map": nn.Linear(8, 8)}) for _ in range(2))
        self.head = nn.Linear(8, 3)


NAMES = [name for name, _ in Pretrained().named_parameters()]


def grouped(policy: FineTuning | None, optimizer: str = "adamw", model: nn.Module | None = None) -> list[ParamGroup]:
    hyperparameters = {**catalogue.get(optimizer).defaults(), "lr": 1e-3}
    configuration = Configuration(optimizer=optimizer, hyperparameters=hyperparameters, fine_tuning=policy)
    return list(param_groups(anatomy_of(model or Pretrained()), configuration))


def rates(policy: FineTuning) -> dict[str, float]:
    return {
        name: round(float(group.hyperparameters["lr"]) / 1e-3, 9)
        for group in grouped(policy)
        for name in group.parameters
    }


def joining(policy: FineTuning) -> dict[str, str]:
    return {
        name: group.joins.describe() if group.joins else "" for group in grouped(policy) for name in group.parameters
    }


@pytest.mark.parametrize(
    "policy",
    [
        FineTuning(),
        FineTuning(head_lr_ratio=10.0, layer_decay=0.9, no_decay="embedding", freeze=("norm",)),
        FineTuning(rates={"^embedding": 0.1}, head="head", layers=("embedding", r"blocks\.\d")),
        FineTuning(thaw=[Thaw(step=3, layers=1), Thaw(patience=2)]),
    ],
)
def test_a_policy_is_json_both_ways(policy: FineTuning) -> None:
    assert FineTuning.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy


def test_without_a_policy_a_configuration_has_the_key_it_had_before_there_were_policies() -> None:
    assert "fine_tuning" not in Configuration(optimizer="adamw").to_dict()


def test_two_policies_make_two_configurations() -> None:
    one, other = (Configuration(optimizer="adamw", fine_tuning=FineTuning(layer_decay=d)) for d in (0.9, 0.8))

    assert one.key != other.key


def test_the_head_learns_faster_by_its_ratio() -> None:
    found = rates(FineTuning(head_lr_ratio=10.0))

    assert {name: rate for name, rate in found.items() if rate != 1.0} == {"head.weight": 10.0, "head.bias": 10.0}


def test_each_layer_learns_slower_than_the_one_above_it_by_the_decay() -> None:
    found = rates(FineTuning(layer_decay=0.5))

    shown = ("head.weight", "blocks.1.map.weight", "blocks.0.norm.weight", "embedding.weight")
    assert [found[name] for name in shown] == [1.0, 0.5, 0.25, 0.125]


def test_frozen_layers_are_counted() -> None:
    model = Pretrained()
    model.blocks[1].requires_grad_(False)

    groups = grouped(FineTuning(layer_decay=0.5), model=model)

    (lowest,) = {group.hyperparameters["lr"] for group in groups if "embedding.weight" in group.parameters}
    assert lowest == 0.125e-3


def test_parts_that_are_treated_alike_are_one_group() -> None:
    groups = grouped(FineTuning(no_decay="embedding"))

    assert [group.name for group in groups] == ["adamw/decay", "adamw/no_decay"]
    assert "embedding.weight" in groups[1].parameters


def test_groups_are_named_by_their_parts() -> None:
    groups = grouped(FineTuning(head_lr_ratio=10.0, thaw=Thaw(step=5)))

    assert {group.name for group in groups} == {
        "adamw/head/decay",
        "adamw/head/no_decay",
        "adamw/backbone/decay/thaw 1",
        "adamw/backbone/no_decay/thaw 1",
    }


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "momentum"])
def test_every_trainable_parameter_is_in_exactly_one_group_whatever_the_policy(optimizer: str) -> None:
    policy = FineTuning(head_lr_ratio=10.0, layer_decay=0.8, thaw=[Thaw(step=2, layers=1), Thaw(step=4)])

    groups = grouped(policy, optimizer)

    assert sorted(name for group in groups for name in group.parameters) == sorted(NAMES)
    assert len({group.name for group in groups}) == len(groups)


def test_rates_by_pattern_take_the_place_of_depth() -> None:
    found = rates(FineTuning(layer_decay=0.5, rates={"^embedding": 0.3}))

    assert (found["embedding.weight"], found["blocks.1.map.weight"]) == (0.3, 0.5)


def test_what_no_thaw_names_trains_from_the_beginning() -> None:
    found = joining(FineTuning(thaw=Thaw(step=7, parameters="embedding")))

    assert {name for name, when in found.items() if when} == {"embedding.weight"}


def test_a_thaw_without_a_name_is_of_all_but_the_head() -> None:
    found = joining(FineTuning(thaw=Thaw(step=7)))

    assert {name for name, when in found.items() if not when} == {"head.weight", "head.bias"}


def test_layers_thaw_from_the_top_and_the_rest_stays_frozen_unless_it_is_thawed() -> None:
    found = joining(FineTuning(thaw=Thaw(step=7, layers=1)))

    assert found["blocks.1.map.weight"] == "joins at step 7"
    assert found["blocks.0.map.weight"] == found["embedding.weight"] == "frozen"


def test_times_become_steps() -> None:
    policy = FineTuning(thaw=[Thaw(epoch=1, layers=1), Thaw(share=0.5)])

    timed = policy.timed(steps_per_epoch=10, total_steps=40)

    assert [thaw.step for thaw in timed.thaws] == [10, 20]


def test_functions_are_written_as_the_names_they_match() -> None:
    def is_embedding(name: str) -> bool:
        return name.startswith("embedding")

    named = FineTuning(freeze=is_embedding, rates={lambda name: "blocks" in name: 0.5}).named(NAMES)

    assert named.freeze == (r"^embedding\.weight$",)
    assert FineTuning.from_dict(json.loads(json.dumps(named.to_dict()))) == named
    assert rates(named)["blocks.0.map.weight"] == 0.5


def test_the_layers_can_be_said() -> None:
    found = rates(FineTuning(layer_decay=0.5, layers=(r"^blocks\.1", "^embedding", r"^blocks\.0")))

    assert [found[name] for name in ("blocks.0.map.bias", "embedding.weight", "blocks.1.map.bias")] == [
        0.5,
        0.25,
        0.125,
    ]


def test_the_head_can_be_said() -> None:
    found = rates(FineTuning(head_lr_ratio=3.0, head=r"blocks\.1"))

    assert {name for name, rate in found.items() if rate == 3.0} == {n for n in NAMES if n.startswith("blocks.1")}


class Tied(nn.Module):
    """The output layer is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.map = nn.Linear(8, 8)
        self.out = nn.Linear(8, 10, bias=False)
        self.out.weight = self.embedding.weight


class Encoder(nn.Module):
    """Blocks alike, and no output layer after them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)) for _ in range(3))


BAD: list[tuple[Any, type[nn.Module], str]] = [
    (FineTuning(freeze="no_such"), Pretrained, r"freeze: 'no_such' matches none of the 11 .*embedding\.weight"),
    (FineTuning(no_decay="no_such"), Pretrained, "no_decay: 'no_such' matches none"),
    (FineTuning(head="no_such"), Pretrained, "head: 'no_such' matches none"),
    (FineTuning(rates={"no_such": 2.0}), Pretrained, "rates: 'no_such' matches none"),
    (FineTuning(thaw=Thaw(step=1, parameters="no_such")), Pretrained, "thaw: .*no_such.* matches none"),
    (
        FineTuning(rates={"embedding": 2.0, "weight": 3.0}),
        Pretrained,
        r"rates claims embedding\.weight twice, by 'embedding' and by 'weight'",
    ),
    (
        FineTuning(thaw=[Thaw(step=1, parameters="norm"), Thaw(step=2, parameters=r"blocks\.0")]),
        Pretrained,
        r"thaw claims blocks\.0\.norm\.weight twice",
    ),
    (
        FineTuning(freeze="embedding", thaw=Thaw(step=2, parameters="embedding")),
        Pretrained,
        r"both claim embedding\.weight",
    ),
    (FineTuning(layers=("embedding", r"blocks\.0")), Pretrained, r"no pattern for blocks\.1\.norm\.weight"),
    (FineTuning(layers=("embedding", "blocks", "map")), Pretrained, r"layers claims blocks\.0\.map\.weight twice"),
    (FineTuning(head_lr_ratio=2.0), Tied, "speaks of the head, but the model has none"),
    (FineTuning(thaw=Thaw(step=3)), Tied, "speaks of the head, but the model has none"),
    (FineTuning(head_lr_ratio=2.0), Encoder, r"none that can be found .*name it with FineTuning\(head=…\)"),
    (FineTuning(freeze="."), Pretrained, "nothing to train at the beginning"),
    (FineTuning(thaw=[Thaw(step=2), Thaw(step=3)]), Pretrained, "nothing is left to join in thaw 2"),
]


@pytest.mark.parametrize("policy, kind, sentence", BAD)
def test_a_policy_that_does_not_fit_the_model_is_refused_by_name(
    policy: FineTuning, kind: type[nn.Module], sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        grouped(policy, model=kind())


def test_a_head_that_is_frozen_by_hand_cannot_be_meant() -> None:
    model = Pretrained()
    model.head.requires_grad_(False)

    with pytest.raises(ConfigurationError, match="has none that can be found"):
        grouped(FineTuning(head_lr_ratio=2.0), model=model)


@pytest.mark.parametrize("policy", [FineTuning(head_lr_ratio=2.0), FineTuning(thaw=Thaw(step=2))])
@pytest.mark.parametrize("optimizer", ["lbfgs", "prodigy"])
def test_an_optimizer_with_one_rate_refuses_rates_and_thaws(optimizer: str, policy: FineTuning) -> None:
    with pytest.raises(ConfigurationError, match=f"{optimizer} trains all parameters at one learning rate"):
        grouped(policy, optimizer)


@pytest.mark.parametrize("optimizer", ["lbfgs", "prodigy"])
def test_an_optimizer_with_one_rate_may_leave_parts_frozen(optimizer: str) -> None:
    groups = grouped(FineTuning(freeze="embedding"), optimizer)

    assert [group.parameters for group in groups if group.joins] == [("embedding.weight",)]


IMPOSSIBLE: list[tuple[Any, str]] = [
    (lambda: FineTuning(layer_decay=1.5), "layer_decay .* got 1.5"),
    (lambda: FineTuning(layer_decay=0.0), "layer_decay"),
    (lambda: FineTuning(head_lr_ratio=0.0), "head_lr_ratio .* use freeze"),
    (lambda: FineTuning(rates={"a": float("inf")}), r"rates\['a'\]"),
    (lambda: FineTuning(freeze="("), r"freeze takes regular expressions .* '\('"),
    (lambda: FineTuning(head=(3,)), "head takes regular expressions"),  # type: ignore[arg-type]  # the point
    (Thaw, "got none of them"),
    (lambda: Thaw(epoch=1, step=2), "got epoch, step"),
    (lambda: Thaw(epoch=0), "epoch must be 1 or more"),
    (lambda: Thaw(share=1.0), "share is a share"),
    (lambda: Thaw(step=1, layers=0), "layers counts from the top"),
    (lambda: Thaw(step=1, layers=1, parameters="a"), "got both"),
]


@pytest.mark.parametrize("make, sentence", IMPOSSIBLE)
def test_what_cannot_be_meant_is_refused_at_once(make: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        make()


@pytest.mark.parametrize(
    "thaws, steps_per_epoch, total, sentence",
    [
        ([Thaw(epoch=2)], None, 100, "the length of an epoch is not known"),
        ([Thaw(share=0.5)], 10, None, "whose length is not known"),
        ([Thaw(step=8), Thaw(step=8)], 10, 100, r"not after the one before it \(step 8\)"),
        ([Thaw(epoch=10)], 10, 100, "the training ends after 100"),
    ],
)
def test_a_time_that_cannot_come_is_refused(
    thaws: list[Thaw], steps_per_epoch: int | None, total: int | None, sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        FineTuning(thaw=thaws).timed(steps_per_epoch, total)


def test_a_policy_says_itself_in_words() -> None:
    policy = FineTuning(head_lr_ratio=10, layer_decay=0.9, thaw=Thaw(epoch=1))

    assert policy.describe() == "head ×10, layer decay 0.9, the backbone joins at epoch 1"


def test_the_model_is_left_as_it_was_by_laying_a_policy_on_it() -> None:
    model = Pretrained()

    grouped(FineTuning(freeze="embedding", thaw=Thaw(step=2, parameters="blocks")), model=model)

    assert all(parameter.requires_grad for parameter in model.parameters())
