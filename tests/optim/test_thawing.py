"""Parts that join a training after it has begun: a resumed run is the one that never stopped."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from optselect import catalogue
from optselect.building.groups import param_groups
from optselect.building.optimizer import build_groups
from optselect.configuration import Configuration
from optselect.configuration.policy import FineTuning, Thaw
from optselect.configuration.schedule import Schedule
from optselect.errors import ResumeError
from optselect.optim.scheduler import ScheduledLR
from optselect.parameters.anatomy import anatomy_of
from optselect.plan import ModelFingerprint, OptimizerPlan

STEPS = 12
LATER = FineTuning(head_lr_ratio=5.0, layer_decay=0.8, thaw=[Thaw(step=4, layers=1), Thaw(step=8)])
# Adagrad makes its state when it is made; Muon has nothing to train before the hidden matrices join; Schedule-Free
# keeps its modes and sums in the groups.
OPTIMIZERS = ["adamw", "momentum", "adagrad", "muon", "schedulefree_adamw", "soap"]


def made(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = (nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    return nn.Sequential(*layers)


def plan(optimizer: str = "adamw", policy: FineTuning = LATER, schedule: Schedule | None = None) -> OptimizerPlan:
    configuration = Configuration(
        optimizer=optimizer, hyperparameters=catalogue.get(optimizer).defaults(), fine_tuning=policy
    )
    model = made()
    return OptimizerPlan(
        configuration=Configuration(
            optimizer=optimizer,
            hyperparameters=configuration.hyperparameters,
            schedule=schedule or Schedule(kind="cosine", warmup_steps=2),
            fine_tuning=policy,
        ),
        model_fingerprint=ModelFingerprint.of(model),
        param_groups=param_groups(anatomy_of(model), configuration),
        total_steps=STEPS,
    )


def loss_of(model: nn.Module, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(5, 6, generator=generator)
    return F.cross_entropy(model(inputs), inputs[:, :3].argmax(1))


def train(model: nn.Module, optimizer: Optimizer, scheduler: Any, first: int, last: int) -> None:
    if hasattr(optimizer, "train"):
        optimizer.train()
    for step in range(first, last):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()
        scheduler.step()


def begun(plan: OptimizerPlan, model: nn.Module, **options: Any) -> tuple[Optimizer, ScheduledLR]:
    optimizer, scheduler = plan.build(model, **options)
    assert isinstance(scheduler, ScheduledLR)
    return optimizer, scheduler


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_parts_stand_still_until_they_join_and_move_afterwards(optimizer: str) -> None:
    model = made()
    start = copy.deepcopy(model.state_dict())
    parts = begun(plan(optimizer), model)

    moved = []
    for first in (0, 4, 8):
        train(model, *parts, first, first + 4)
        moved.append({name.split(".")[0] for name, value in model.state_dict().items() if not value.equal(start[name])})

    assert moved == [{"5"}, {"3", "5"}, {"0", "1", "3", "5"}]


@pytest.mark.parametrize("stop", [3, 4, 5, 8, 9])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_resumed_before_at_or_after_a_thaw_is_the_uninterrupted_one(optimizer: str, stop: int) -> None:
    whole = made()
    uninterrupted = begun(plan(optimizer), whole)
    train(whole, *uninterrupted, 0, STEPS)
    half = made()
    parts = begun(plan(optimizer), half)
    train(half, *parts, 0, stop)
    saved = io.BytesIO()
    torch.save([half.state_dict(), *(part.state_dict() for part in parts), parts[1].thawed], saved)
    saved.seek(0)

    weights, optimizer_state, scheduler_state, thawed = torch.load(saved)
    rest = made(seed=5)
    rest.load_state_dict(weights)
    resumed = begun(plan(optimizer), rest, thawed=thawed)
    resumed[0].load_state_dict(optimizer_state)
    resumed[1].load_state_dict(scheduler_state)
    train(rest, *resumed, stop, STEPS)

    assert all(one.equal(other) for one, other in zip(rest.parameters(), whole.parameters(), strict=True))
    assert rates(resumed[0]) == rates(uninterrupted[0])


def rates(optimizer: Optimizer) -> dict[str, float]:
    return {group["name"]: float(group["lr"]) for group in optimizer.param_groups}


def test_what_is_frozen_for_good_is_in_no_group() -> None:
    model = made()

    optimizer, _ = plan(policy=FineTuning(freeze="^0")).build(model)

    assert not any(parameter.requires_grad for parameter in model[0].parameters())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


def test_a_constant_schedule_still_thaws() -> None:
    model = made()
    parts = begun(plan(schedule=Schedule()), model)

    train(model, *parts, 0, STEPS)

    assert all(parameter.requires_grad for parameter in model.parameters())


def test_what_joins_warms_up_to_the_rate_of_the_schedule() -> None:
    model = made()
    optimizer, scheduler = begun(plan(schedule=Schedule(warmup_steps=3)), model)
    train(model, optimizer, scheduler, 0, 3)
    factors = []

    for step in range(3, 8):
        train(model, optimizer, scheduler, step, step + 1)
        joined = [group for group in optimizer.param_groups if "thaw 1" in group["name"]]
        factors.append(round(joined[0]["lr"] / joined[0]["initial_lr"], 6))

    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_a_plateau_thaws_after_its_patience_and_the_wait_is_saved() -> None:
    policy = FineTuning(thaw=Thaw(patience=2))
    model = made()
    optimizer, scheduler = begun(plan(policy=policy), model)
    before = [scheduler.observe(value) for value in (1.0, 0.9, 0.95)]
    saved = scheduler.state_dict()

    _, later = begun(plan(policy=policy), made())
    later.load_state_dict(saved)

    assert [*before, scheduler.observe(0.91), later.observe(0.91)] == [False, False, False, True, True]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert len(optimizer.param_groups) == 4


def test_a_large_value_is_an_improvement_where_large_is_good() -> None:
    _, scheduler = begun(plan(policy=FineTuning(thaw=Thaw(patience=1))), made())

    assert [scheduler.observe(value, "max") for value in (0.5, 0.6, 0.6)] == [False, False, True]


def test_states_of_another_number_of_thaws_are_refused_with_what_to_do() -> None:
    model = made()
    parts = begun(plan(), model)
    train(model, *parts, 0, 5)
    _, other = begun(plan(), made())

    with pytest.raises(ResumeError, match=r"thawed=1"):
        other.load_state_dict(parts[1].state_dict())


def test_more_thaws_than_the_plan_has_are_refused() -> None:
    with pytest.raises(ResumeError, match="had 3 thaws behind it, but the plan has 2"):
        plan().build(made(), thawed=3)


def test_a_plan_with_thaws_is_json_both_ways() -> None:
    own = plan()

    assert OptimizerPlan.from_dict(own.to_dict()) == own


def test_gradients_from_before_the_freezing_do_not_move_what_joins() -> None:
    model = made()
    loss_of(model, 0).backward()
    configuration = Configuration(
        optimizer="sgd", hyperparameters={"lr": 0.1}, fine_tuning=FineTuning(thaw=Thaw(step=1))
    )
    optimizer, scheduler = build_groups(param_groups(anatomy_of(model), configuration), Schedule(), model, STEPS)

    train(model, optimizer, scheduler, 0, 1)

    assert all(parameter.grad is None for parameter in model[0].parameters())
