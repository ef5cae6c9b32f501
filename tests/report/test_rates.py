"""What the schedule's figure and table show is what the built scheduler does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optselect import FineTuning, OptimizerPlan, Thaw, TorchWorkload, select
from optselect.report.page import as_html
from optselect.report.rates import rates_of
from tests.support.small import loader, net, vectors

POLICY = FineTuning(head_lr_ratio=10.0, freeze="hidden", thaw=Thaw(step=7, parameters=r"body\.0"))


def planned(policy: FineTuning) -> OptimizerPlan:
    torch.manual_seed(0)
    workload = TorchWorkload(net(), nn.CrossEntropyLoss(), loader(vectors()), steps=40)
    return select(workload, 0, candidates=["adamw"], fine_tuning=policy)


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
def test_a_rate_is_what_the_scheduler_sets_at_every_step() -> None:
    plan = planned(POLICY)
    optimizer, scheduler = plan.build(net(), total_steps=40)
    assert scheduler is not None

    done = []
    for _ in range(40):
        done.append({group["name"]: group["lr"] for group in optimizer.param_groups})
        scheduler.step()

    shown = [
        {
            group.name: rate
            for line in rates_of(plan)
            if (rate := line.at(step, plan.schedule, 40)) is not None
            for group in line.groups
        }
        for step in range(40)
    ]
    assert plan.schedule.warmup_steps > 1
    assert shown == [pytest.approx(rates) for rates in done]


def test_groups_that_differ_in_decay_alone_share_a_line_and_what_is_frozen_has_none() -> None:
    lines = rates_of(planned(POLICY))

    assert {line.label for line in lines} == {"adamw/backbone/thaw 1", "adamw/backbone", "adamw/head"}


def test_the_page_says_when_a_line_is_drawn_without_knowing_its_beginning() -> None:
    known = as_html(planned(POLICY))
    waiting = as_html(planned(FineTuning(thaw=Thaw(patience=2))))

    words = "as if what waits for a plateau had joined"
    assert (words in known, words in waiting) == (False, True)
