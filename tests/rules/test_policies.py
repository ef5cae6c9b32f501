"""Which policies are worth trying on which model."""

from dataclasses import replace

import pytest

from optselect.configuration.policy import FineTuning
from optselect.profile import DataProfile, GradientProfile, ModelProfile, Profile
from optselect.rules import policies

MODEL = ModelProfile(
    parameters=900,
    frozen=100,
    tensors=4,
    kinds={"linear": 900},
    at_initialisation=False,
    fresh=("head",),
    head=("head.weight", "head.bias"),
)
TRAINED = Profile(data=DataProfile(), model=MODEL, gradient=GradientProfile(passes=3))


def test_a_trained_model_has_policies_worth_trying_each_with_a_reason_and_a_source() -> None:
    found = policies(TRAINED)

    assert found
    assert all(each.mechanism and each.cites for each in found)
    assert len({each.fine_tuning.describe() for each in found}) == len(found)


@pytest.mark.parametrize("fresh", [(), ("pooler",), ("he",)])
def test_where_the_head_is_not_new_it_is_no_other_part(fresh: tuple[str, ...]) -> None:
    found = policies(replace(TRAINED, model=replace(MODEL, fresh=fresh)))

    assert found
    assert all(each.fine_tuning.head_lr_ratio == 1.0 and not each.fine_tuning.thaw for each in found)


def test_a_new_head_has_a_rate_of_its_own_only_where_a_new_layer_learns_ten_times_as_fast() -> None:
    convolutional = replace(MODEL, kinds={"conv": 900}, batch_norm=True)

    assert [each.fine_tuning.head_lr_ratio for each in policies(TRAINED)] == [10.0, 1.0, 10.0]
    assert [each.fine_tuning for each in policies(replace(TRAINED, model=convolutional))] == [
        FineTuning(layer_decay=0.9)
    ]


@pytest.mark.parametrize("untrained", [True, None])
def test_what_is_not_known_to_be_trained_has_none(untrained: bool | None) -> None:
    assert policies(replace(TRAINED, model=replace(MODEL, at_initialisation=untrained))) == ()


def test_a_model_that_is_mostly_frozen_leaves_nothing_to_order() -> None:
    assert policies(replace(TRAINED, model=replace(MODEL, parameters=10, frozen=990))) == ()
