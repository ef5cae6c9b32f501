"""The user's own optimizer at another rate is the one with other numbers written into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from optselect.configuration import LR_SCALE, USER, WEIGHT_DECAY_SCALE, Configuration
from optselect.optim.rescaling import scaled

FACTOR = 0.25

# Each gets the optimizer and the factor that a person would have written into every learning rate.
SCHEDULERS: dict[str, Callable[[Optimizer, float], Any]] = {
    "step": lambda o, f: StepLR(o, 3),
    "exponential": lambda o, f: ExponentialLR(o, 0.9),
    "cosine": lambda o, f: CosineAnnealingLR(o, 12, eta_min=0.01 * f),
    "restarts": lambda o, f: CosineAnnealingWarmRestarts(o, 5, eta_min=0.01 * f),
    "linear": lambda o, f: LinearLR(o, 0.1, total_iters=5),
    "polynomial": lambda o, f: PolynomialLR(o, 9),
    "lambda": lambda o, f: LambdaLR(o, lambda step: 1 / (1 + step)),
    "one cycle": lambda o, f: OneCycleLR(o, [0.8 * f, 0.4 * f], total_steps=12),
    "cyclic": lambda o, f: CyclicLR(o, [0.1 * f, 0.2 * f], [0.8 * f, 0.9 * f], step_size_up=3),
    "sequence": lambda o, f: SequentialLR(o, [ConstantLR(o, 0.1, 3), CosineAnnealingLR(o, 9, eta_min=0.01 * f)], [3]),
    "chain": lambda o, f: ChainedScheduler([LinearLR(o, 0.1, total_iters=4), ExponentialLR(o, 0.9)]),
}


def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))


def adamw(network: nn.Module, factor: float = 1.0) -> torch.optim.AdamW:
    first, second = (list(part.parameters()) for part in network.children())
    parts: list[dict[str, Any]] = [{"params": first}, {"params": second, "lr": 0.2 * factor}]
    return torch.optim.AdamW(parts, lr=0.4 * factor, weight_decay=0.1)


def rates(optimizer: Optimizer, scheduler: LRScheduler, steps: int = 12) -> list[list[float]]:
    """The rates of every group at every step."""
    found = []
    for _ in range(steps):
        found.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_schedule_is_that_of_the_numbers_written_by_hand(name: str) -> None:
    make = SCHEDULERS[name]
    written = adamw(model(), FACTOR)
    by_hand = rates(written, make(written, FACTOR))
    optimizer = adamw(model())
    scheduler = make(optimizer, 1.0)

    scaled((optimizer, scheduler), lr_scale=FACTOR)

    assert torch.allclose(torch.tensor(rates(optimizer, scheduler)), torch.tensor(by_hand), rtol=1e-6)


def test_a_plateau_is_left_downwards_to_scaled_floors() -> None:
    optimizer = adamw(model())
    scheduler = ReduceLROnPlateau(optimizer, factor=0.1, patience=0, min_lr=0.1)

    scaled([optimizer, scheduler], lr_scale=0.5)

    for _ in range(6):
        scheduler.step(1.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.05]


@pytest.mark.parametrize(
    "form",
    [
        lambda o, s: o,
        lambda o, s: [o],
        lambda o, s: ([o], [s]),
        lambda o, s: ([o], [{"scheduler": s, "interval": "step"}]),
        lambda o, s: {"optimizer": o, "lr_scheduler": s},
        lambda o, s: {"optimizer": o, "lr_scheduler": {"scheduler": s, "interval": "step"}},
        lambda o, s: {"optimizer": o, "lr_scheduler": {"scheduler": s}, "again": (o, s)},
    ],
)
def test_every_form_of_configure_optimizers_comes_back_as_it_was_with_its_rates_scaled_once(form: Any) -> None:
    optimizer = adamw(model())
    configured = form(optimizer, StepLR(optimizer, 3))

    result = scaled(configured, lr_scale=FACTOR, weight_decay_scale=10.0)

    assert result is configured
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.05])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1.0, 1.0]


def test_groups_that_join_later_have_the_scaled_rates() -> None:
    network = model()
    optimizer = torch.optim.SGD(network[0].parameters(), lr=0.4, weight_decay=0.1)  # type: ignore[index]

    scaled(optimizer, lr_scale=FACTOR, weight_decay_scale=2.0)
    optimizer.add_param_group({"params": list(network[1].parameters())})  # type: ignore[index]

    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.1, 0.2), (0.1, 0.2)]


def test_without_factors_nothing_is_touched() -> None:
    optimizer = adamw(model())
    before = optimizer.state_dict()

    scaled(optimizer)

    assert optimizer.state_dict() == before


def test_a_factor_of_one_is_the_users_own_as_it_is() -> None:
    own = Configuration(optimizer=USER)

    moved = own.at_rate(3.0)

    assert moved.at_rate(1.0) == own
    assert moved.scales == {LR_SCALE: 3.0}
    assert (own.rate, moved.rate) == (1.0, 3.0)


def test_a_configuration_says_what_it_does_to_the_users_own() -> None:
    scales = {LR_SCALE: 0.316, WEIGHT_DECAY_SCALE: 2.0}

    words = Configuration(optimizer=USER, hyperparameters=scales).describe()

    assert words == "your own optimizer, its learning rate × 0.316 and its weight decay × 2"
