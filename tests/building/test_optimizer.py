"""A plan and a model become a torch optimizer."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from optselect import catalogue
from optselect.building.groups import param_groups
from optselect.building.optimizer import build, build_groups
from optselect.configuration import USER, Configuration
from optselect.configuration.schedule import Schedule
from optselect.errors import (
    ConfigurationError,
    PlanFormatError,
    PlanMismatchError,
    UnknownOptimizerError,
    UnsupportedModuleError,
)
from optselect.optim.composite import CompositeOptimizer
from optselect.parameters.anatomy import anatomy_of
from optselect.plan import ModelFingerprint, OptimizerPlan, ParamGroup
from tests.support.small import loader, net, sentences, vectors, words


def plan_for(
    model: nn.Module,
    optimizer: str,
    values: dict[str, Any] | None = None,
    *,
    schedule: Schedule | None = None,
    total_steps: int | None = 20,
    sparse: tuple[str, ...] = (),
) -> OptimizerPlan:
    hyperparameters = {**catalogue.get(optimizer).defaults(), **(values or {})}
    configuration = Configuration(optimizer=optimizer, hyperparameters=hyperparameters, schedule=schedule or Schedule())
    return OptimizerPlan(
        configuration=Configuration(
            optimizer=optimizer, hyperparameters=hyperparameters, schedule=configuration.schedule
        ),
        param_groups=param_groups(anatomy_of(model, sparse=sparse), configuration),
        total_steps=total_steps,
        model_fingerprint=ModelFingerprint.of(model),
        sparse=sparse,
    )


def decayed(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """The groups as one writes them by hand."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    return [
        {"params": matrices, "weight_decay": decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]


By = Callable[[nn.Module], Optimizer]
HAND_BUILT: dict[str, tuple[dict[str, Any], By]] = {
    "sgd": ({"lr": 0.1, "weight_decay": 1e-3}, lambda m: torch.optim.SGD(decayed(m, 1e-3), lr=0.1)),
    "momentum": (
        {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 1e-3},
        lambda m: torch.optim.SGD(decayed(m, 1e-3), lr=0.1, momentum=0.8, nesterov=True),
    ),
    "adam": ({"lr": 0.01, "weight_decay": 1e-4}, lambda m: torch.optim.Adam(decayed(m, 1e-4), lr=0.01)),
    "adamw": (
        {"lr": 0.01, "beta1": 0.85, "beta2": 0.99, "weight_decay": 0.1},
        lambda m: torch.optim.AdamW(decayed(m, 0.1), lr=0.01, betas=(0.85, 0.99)),
    ),
    "amsgrad": (
        {"lr": 0.01, "weight_decay": 1e-4},
        lambda m: torch.optim.Adam(decayed(m, 1e-4), lr=0.01, amsgrad=True),
    ),
    "nadam": (
        {"lr": 0.01, "weight_decay": 0.1},
        lambda m: torch.optim.NAdam(decayed(m, 0.1), lr=0.01, decoupled_weight_decay=True),
    ),
}


def train(model: nn.Module, optimizer: Optimizer, scheduler: Any, data: Any, epochs: int = 2) -> None:
    torch.manual_seed(5)
    for _ in range(epochs):
        for inputs, target in loader(data, shuffle=False):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), target).backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("name", HAND_BUILT)
def test_what_is_built_trains_as_torchs_own_with_the_same_values(name: str) -> None:
    values, by_hand = HAND_BUILT[name]
    model, reference = net(), net()

    optimizer, scheduler = plan_for(model, name, values).build(model)

    train(model, optimizer, scheduler, vectors())
    train(reference, by_hand(reference), None, vectors())
    assert type(optimizer) is type(by_hand(reference))
    assert all(map(torch.equal, weights(model), weights(reference)))


def test_a_schedule_is_the_hand_written_one_step_by_step() -> None:
    model, reference = net(), net()
    plan = plan_for(model, "sgd", {"lr": 0.1, "weight_decay": 1e-7}, schedule=Schedule(kind="cosine"), total_steps=12)

    optimizer, scheduler = plan.build(model)

    train(model, optimizer, scheduler, vectors())
    by_hand = torch.optim.SGD(decayed(reference, 1e-7), lr=0.1)
    train(reference, by_hand, torch.optim.lr_scheduler.CosineAnnealingLR(by_hand, T_max=12), vectors())
    for one, other in zip(weights(model), weights(reference), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["linear", "cosine", "wsd"])
def test_the_given_length_overrides_that_of_the_plan(kind: Any) -> None:
    model = net()
    plan = plan_for(model, "sgd", schedule=Schedule(kind=kind), total_steps=1_000_000)

    _, scheduler = plan.build(model, total_steps=2)

    assert getattr(scheduler, "total_steps", None) == 2


def test_a_rate_that_never_changes_needs_no_scheduler_and_one_that_warms_up_does() -> None:
    model = net()

    assert plan_for(model, "sgd").build(model)[1] is None
    assert plan_for(model, "sgd", schedule=Schedule(warmup_steps=1)).build(model)[1] is not None


def test_a_schedule_without_a_length_is_refused() -> None:
    model = net()
    with pytest.raises(ConfigurationError, match="pass total_steps"):
        plan_for(model, "sgd", schedule=Schedule(kind="cosine"), total_steps=None).build(model)


def test_several_optimizers_are_built_as_one_that_equals_them_stepped_by_hand() -> None:
    model, reference = words(), words()
    plan = plan_for(model, "sparse_adam", {"lr": 0.01}, sparse=("table.weight",))

    optimizer, scheduler = plan.build(model)

    assert isinstance(optimizer, CompositeOptimizer)
    train(model, optimizer, scheduler, sentences())
    rest = nn.ModuleList([reference.hidden, reference.head])
    decay = catalogue.get("adamw").space["weight_decay"].centre
    sparse = torch.optim.SparseAdam([reference.table.weight], lr=0.01)
    dense = torch.optim.AdamW(decayed(rest, float(decay)), lr=0.01)
    by_hand = CompositeOptimizer({"sparse": sparse, "dense": dense})
    train(reference, by_hand, None, sentences())
    assert all(map(torch.equal, weights(model), weights(reference)))


def available(name: str) -> bool:
    spec = catalogue.get(name)
    return spec.extra is None and not spec.closure and name != "sparse_adam"


@pytest.mark.parametrize("name", [name for name in catalogue.names() if available(name)])
@pytest.mark.parametrize("model, data, sparse", [(net, vectors, ()), (words, sentences, ("table.weight",))])
def test_every_optimizer_of_torch_trains_a_dense_and_a_sparse_model(
    name: str, model: Any, data: Any, sparse: tuple[str, ...]
) -> None:
    module = model()
    before = weights(module)

    with torch.sparse.check_sparse_tensor_invariants(enable=True):  # else torch warns that it does not check
        optimizer, scheduler = plan_for(module, name, schedule=Schedule(kind="cosine"), sparse=sparse).build(module)
        train(module, optimizer, scheduler, data(), epochs=1)

    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())
    # A bias before a BatchNorm has a gradient of exactly zero.
    moved = [not torch.equal(*pair) for pair in zip(weights(module), before, strict=True) if pair[0].ndim >= 2]
    assert all(moved)


def test_lbfgs_is_built_with_one_group() -> None:
    model = net()

    optimizer, _ = plan_for(model, "lbfgs").build(model)

    assert isinstance(optimizer, torch.optim.LBFGS)


def test_a_plan_for_another_model_is_refused_before_anything_is_built() -> None:
    with pytest.raises(PlanMismatchError, match="new: "):
        build(plan_for(nn.Linear(6, 3), "sgd"), net())


def test_groups_that_name_a_parameter_the_model_lacks_are_refused() -> None:
    groups = [ParamGroup(name="sgd", optimizer="sgd", parameters=("weight", "wight"), hyperparameters={"lr": 0.1})]

    with pytest.raises(PlanMismatchError, match="wight"):
        build_groups(groups, Schedule(), nn.Linear(2, 2), None)


def test_a_plan_that_keeps_the_users_optimizer_asks_for_it() -> None:
    model = net()
    plan = OptimizerPlan(configuration=Configuration(optimizer=USER), model_fingerprint=ModelFingerprint.of(model))

    with pytest.raises(UnsupportedModuleError, match="own="):
        plan.build(model)


def test_a_plan_that_keeps_the_users_optimizer_scales_what_the_user_builds() -> None:
    model = net()
    plan = OptimizerPlan(
        configuration=Configuration(optimizer=USER, hyperparameters={"lr_scale": 0.5}),
        model_fingerprint=ModelFingerprint.of(model),
    )

    optimizer, scheduler = plan.build(model, own=lambda of: (torch.optim.SGD(of.parameters(), lr=0.2), None))

    assert ([group["lr"] for group in optimizer.param_groups], scheduler) == ([0.1], None)


def two_groups(first: dict[str, Any], second: dict[str, Any], optimizer: str = "adamw") -> list[ParamGroup]:
    return [
        ParamGroup(name="one", optimizer=optimizer, parameters=("weight",), hyperparameters=first),
        ParamGroup(name="two", optimizer=optimizer, parameters=("bias",), hyperparameters=second),
    ]


@pytest.mark.parametrize("first, second", [({"lr": 0.1}, {"lr": 0.1, "weight_decay": 0.0}), ({"lr": 0.1}, {})])
def test_groups_of_one_optimizer_with_different_hyperparameters_are_refused(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    for groups in (two_groups(first, second), two_groups(second, first)):
        with pytest.raises(PlanFormatError, match="give all of them in each group"):
            build_groups(groups, Schedule(), nn.Linear(2, 2), None)


def test_groups_differ_in_what_they_say_and_in_nothing_else() -> None:
    groups = two_groups(
        {"lr": 0.1, "beta1": 0.8, "beta2": 0.9, "weight_decay": 0.5},
        {"lr": 0.2, "beta1": 0.7, "beta2": 0.9, "weight_decay": 0.0},
    )

    optimizer, _ = build_groups(groups, Schedule(), nn.Linear(2, 2), None)

    seen = [(group["name"], group["lr"], group["betas"], group["weight_decay"]) for group in optimizer.param_groups]
    assert seen == [("one", 0.1, (0.8, 0.9), 0.5), ("two", 0.2, (0.7, 0.9), 0.0)]


def test_an_optimizer_that_is_not_in_the_catalogue_is_refused_by_name() -> None:
    with pytest.raises(UnknownOptimizerError, match="Did you mean 'nadam'"):
        build_groups(two_groups({}, {}, optimizer="ndam"), Schedule(), nn.Linear(2, 2), None)
