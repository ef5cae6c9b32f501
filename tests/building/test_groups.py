"""A configuration laid out on a model."""

from collections.abc import Callable, Sequence
from itertools import chain, product

import pytest
import torch
from torch import nn

from optselect import catalogue
from optselect.building.groups import param_groups
from optselect.configuration import Configuration
from optselect.errors import UnsupportedModuleError
from optselect.parameters.anatomy import anatomy_of
from optselect.plan import ParamGroup
from tests.support.cases import case
from tests.support.small import net, words

DENSE = [name for name in catalogue.names() if catalogue.get(name).extra is None and name != "sparse_adam"]


class Zoo(nn.Module):
    """One of everything that is grouped in a way of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.conv = nn.Conv1d(8, 8, 3)
        self.norm = nn.LayerNorm(8)
        self.recurrent = nn.GRU(8, 8)
        self.hidden = nn.Linear(8, 8)
        self.scale = nn.Parameter(torch.ones(()))
        self.head = nn.Linear(8, 3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)


def grouped(model: nn.Module, optimizer: str, sparse: Sequence[str] = (), **values: float) -> tuple[ParamGroup, ...]:
    hyperparameters = {**catalogue.get(optimizer).defaults(), **values}
    configuration = Configuration(optimizer=optimizer, hyperparameters=hyperparameters)
    return param_groups(anatomy_of(model, sparse=sparse), configuration)


def group_of(groups: tuple[ParamGroup, ...], parameter: str) -> ParamGroup:
    (group,) = (group for group in groups if parameter in group.parameters)
    return group


def trainable(model: nn.Module) -> list[str]:
    return sorted(name for name, parameter in model.named_parameters() if parameter.requires_grad)


def test_each_trainable_parameter_is_in_exactly_one_group() -> None:
    models: tuple[Callable[[], nn.Module], ...] = (Zoo, net, words)
    for name, model in product(DENSE, models):
        with case(name, model):
            module = model()

            groups = grouped(module, name)

            assert sorted(chain.from_iterable(group.parameters for group in groups)) == trainable(module)
            assert len({group.name for group in groups}) == len(groups)


def test_norms_biases_and_vectors_are_never_decayed() -> None:
    for name in DENSE:
        with case(name):
            module = Zoo()

            for group in grouped(module, name):
                decay = catalogue.get(group.optimizer).decay
                if decay is not None and group.hyperparameters[decay] != 0.0:
                    assert all(module.get_parameter(parameter).ndim >= 2 for parameter in group.parameters)
                    assert not any("norm" in parameter or "bias" in parameter for parameter in group.parameters)


def test_matrices_convolutions_and_recurrent_weights_are_decayed_as_the_configuration_says() -> None:
    groups = grouped(Zoo(), "adamw", weight_decay=0.07)

    for parameter in ("conv.weight", "hidden.weight", "head.weight", "recurrent.weight_hh_l0"):
        assert group_of(groups, parameter).hyperparameters["weight_decay"] == 0.07


def test_a_frozen_parameter_is_left_out() -> None:
    assert not any("frozen" in name for group in grouped(Zoo(), "sgd") for name in group.parameters)


@pytest.mark.parametrize("model", [nn.Linear(3, 3).requires_grad_(False), nn.ReLU()])
def test_a_model_with_nothing_to_train_is_refused(model: nn.Module) -> None:
    with pytest.raises(UnsupportedModuleError, match="no trainable parameter"):
        grouped(model, "adamw")


def test_sparse_gradients_go_to_an_optimizer_that_takes_them() -> None:
    for name in DENSE:
        with case(name):
            groups = grouped(words(), name, sparse=("table.weight",))

            assert catalogue.get(group_of(groups, "table.weight").optimizer).sparse


def test_sparse_gradients_stay_with_the_chosen_optimizer_where_it_can_and_are_not_decayed() -> None:
    groups = grouped(words(), "momentum", sparse=("table.weight",), weight_decay=1e-4)

    table = group_of(groups, "table.weight")
    assert table.optimizer == "momentum"
    assert table.hyperparameters["weight_decay"] == 0.0
    assert group_of(groups, "hidden.weight").hyperparameters["weight_decay"] == 1e-4


def test_sparse_adam_takes_the_sparse_parameters_and_its_partner_the_others() -> None:
    groups = grouped(words(), "sparse_adam", sparse=("table.weight",), lr=0.02)

    by_optimizer = {
        name: sorted(chain.from_iterable(group.parameters for group in groups if group.optimizer == name))
        for name in {group.optimizer for group in groups}
    }
    assert by_optimizer == {
        "sparse_adam": ["table.weight"],
        "adamw": ["head.bias", "head.weight", "hidden.bias", "hidden.weight"],
    }
    assert {group.hyperparameters["lr"] for group in groups} == {0.02}


def test_muon_gets_hidden_matrices_only() -> None:
    groups = grouped(Zoo(), "muon")

    muon = [name for group in groups if group.optimizer == "muon" for name in group.parameters]
    assert "hidden.weight" in muon
    assert {"embedding.weight", "head.weight", "conv.weight", "norm.weight", "scale"}.isdisjoint(muon)


def test_muon_on_a_model_without_hidden_matrices_is_its_partner() -> None:
    assert {group.optimizer for group in grouped(nn.Linear(8, 3), "muon")} == {"adamw"}


def test_the_partner_takes_the_chosen_rate_within_its_own_bounds() -> None:
    groups = grouped(Zoo(), "muon", lr=0.5)

    adamw = group_of(groups, "head.weight").hyperparameters
    assert catalogue.get("adamw").space["lr"].contains(adamw["lr"])


def test_the_chosen_optimizer_comes_first_and_its_decayed_group_before_the_other() -> None:
    groups = grouped(Zoo(), "muon")

    assert [group.optimizer for group in groups] == sorted((g.optimizer for g in groups), key=["muon", "adamw"].index)
    assert [group.name for group in groups if group.optimizer == "adamw"] == ["adamw/decay", "adamw/no_decay"]


def test_an_optimizer_that_takes_one_group_gets_one() -> None:
    assert [group.name for group in grouped(Zoo(), "lbfgs")] == ["lbfgs"]
    assert len(grouped(words(), "lbfgs", sparse=("table.weight",))) == 1


def test_tied_parameters_are_trained_once() -> None:
    model = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4), nn.Linear(4, 8, bias=False))
    model[2].weight = model[0].weight

    groups = grouped(model, "adamw")

    assert sorted(chain.from_iterable(group.parameters for group in groups)) == ["0.weight", "1.bias", "1.weight"]


def test_hyperparameters_that_are_not_given_come_from_the_prior() -> None:
    groups = param_groups(anatomy_of(Zoo()), Configuration(optimizer="momentum", hyperparameters={"lr": 0.2}))

    values = group_of(groups, "hidden.weight").hyperparameters
    assert values == {**catalogue.get("momentum").defaults(), "lr": 0.2}


def test_a_sparse_complex_parameter_that_nothing_can_train_is_refused_by_name() -> None:
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(4, 2, dtype=torch.complex64))

    with pytest.raises(UnsupportedModuleError, match=r"adamw cannot train table of shape \[4, 2\]"):
        grouped(Complex(), "adamw", sparse=("table",))
