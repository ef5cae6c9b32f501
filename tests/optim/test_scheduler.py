"""A schedule as a torch scheduler."""

import io
import json
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from optselect.configuration.schedule import Schedule
from optselect.errors import ConfigurationError
from optselect.optim.scheduler import ScheduledLR

TOTAL = 12


def optimizer_of(*rates: float) -> Optimizer:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.zeros(2))], "lr": rate} for rate in rates])


def rates_over(scheduler: ScheduledLR, steps: int) -> list[list[float]]:
    """The rates that each of the next steps has."""
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def test_each_step_has_the_peak_times_the_factor_computed_by_hand() -> None:
    scheduler = ScheduledLR(optimizer_of(0.5, 0.1), Schedule(kind="cosine", warmup_steps=3), TOTAL)

    rates = rates_over(scheduler, TOTAL)

    factors = [0.25, 0.5, 0.75] + [(1 + math.cos(math.pi * step / 9)) / 2 for step in range(9)]
    assert rates == [pytest.approx([0.5 * factor, 0.1 * factor]) for factor in factors]


def test_a_cosine_without_warmup_is_torchs_own() -> None:
    ours = ScheduledLR(optimizer_of(0.5), Schedule(kind="cosine", final=0.1), TOTAL)
    optimizer = optimizer_of(0.5)
    torchs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=TOTAL, eta_min=0.05)

    theirs = []
    for _ in range(TOTAL):
        theirs.append([optimizer.param_groups[0]["lr"]])
        optimizer.step()
        torchs.step()

    assert rates_over(ours, TOTAL) == [pytest.approx(rate) for rate in theirs]


def test_the_last_rate_holds_beyond_the_end() -> None:
    scheduler = ScheduledLR(optimizer_of(0.5), Schedule(kind="linear", final=0.1), TOTAL)

    with pytest.warns(UserWarning, match="beyond the 12 steps") as said:
        rates = rates_over(scheduler, TOTAL + 5)

    assert len(said) == 1
    assert rates[TOTAL:] == [rates[TOTAL - 1]] * 5


def test_a_schedule_without_a_length_is_refused_where_it_needs_one() -> None:
    with pytest.raises(ConfigurationError, match="length of the training"):
        ScheduledLR(optimizer_of(0.5), Schedule(kind="linear"), None)


def test_a_warmup_alone_needs_no_length() -> None:
    assert rates_over(ScheduledLR(optimizer_of(1.0), Schedule(warmup_steps=1), None), 3) == [[0.5], [1.0], [1.0]]


def test_a_group_that_joins_midway_follows_the_schedule_from_its_own_peak() -> None:
    scheduler = ScheduledLR(optimizer_of(0.5), Schedule(kind="linear"), TOTAL)
    rates_over(scheduler, 6)

    scheduler.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))], "lr": 0.2})

    rates = rates_over(scheduler, 4)
    assert rates[0] == pytest.approx([0.25, 0.2])
    assert rates[1:] == [pytest.approx([0.5 * left / 12, 0.2 * left / 12]) for left in (5, 4, 3)]


def test_the_state_holds_builtins_only() -> None:
    scheduler = ScheduledLR(optimizer_of(0.5), Schedule(kind="wsd", warmup_steps=2), TOTAL)
    rates_over(scheduler, 3)

    state = scheduler.state_dict()

    assert json.loads(json.dumps(state)) == state


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    stored = io.BytesIO()
    torch.save(state, stored)
    stored.seek(0)
    loaded: dict[str, Any] = torch.load(stored, weights_only=True)
    return loaded


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("kind", ["constant", "linear", "cosine", "wsd"])
@pytest.mark.filterwarnings("ignore:the training goes on beyond")
def test_saved_and_loaded_midway_it_goes_on_as_if_uninterrupted(kind: Any, joined: bool) -> None:
    schedule = Schedule(kind=kind, warmup_steps=4, final=0.05)
    scheduler = ScheduledLR(optimizer_of(0.5), schedule, TOTAL)
    rates_over(scheduler, 5)
    if joined:
        scheduler.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3))], "lr": 0.2})
        rates_over(scheduler, 1)

    resumed = ScheduledLR(optimizer_of(*([0.5, 0.2] if joined else [0.5])), Schedule(), None)
    resumed.optimizer.load_state_dict(through_a_file(scheduler.optimizer.state_dict()))
    resumed.load_state_dict(through_a_file(scheduler.state_dict()))

    assert (resumed.schedule, resumed.total_steps) == (schedule, TOTAL)
    assert rates_over(resumed, TOTAL) == rates_over(scheduler, TOTAL)


def test_the_last_rates_are_those_of_the_groups() -> None:
    scheduler = ScheduledLR(optimizer_of(0.5, 0.1), Schedule(kind="linear"), TOTAL)
    rates_over(scheduler, 3)

    assert scheduler.get_last_lr() == [group["lr"] for group in scheduler.optimizer.param_groups]


@pytest.mark.parametrize("told", [(), (None,), (7,), (0.25,)])
def test_each_call_is_one_step_whatever_it_is_told(told: tuple[Any, ...]) -> None:
    optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=1.0)
    scheduler = ScheduledLR(optimizer, Schedule(kind="linear"), 10)

    for _ in range(3):
        optimizer.step()
        scheduler.step(*told)

    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.7)
