"""One worker of a small search, in a process of its own: `python -m tests.laws.worker_run URL FILE BUDGET`.

It leaves its plan in FILE, and beside it, as FILE.cost, the micro-batches that it has run. Each takes a moment, so that
a job can be seen while it runs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from optselect import Budget, OptimizerPlan
from optselect.pipeline import make_selection
from optselect.search.progress import Silent
from optselect.settings import Settings
from optselect.study import claims
from tests.support.searches import Meter, training

LEASE_SECONDS = 5.0
NAME = "shared"


def plan_of(storage: str | None, budget: int, *, pause: float = 0.0, joins: float = 0.0) -> tuple[OptimizerPlan, float]:
    """What the search comes to, and what it has cost here."""
    meter = Meter()

    def loss(output: Tensor, target: Tensor) -> Tensor:
        time.sleep(pause)
        return meter(output, target)

    torch.manual_seed(0)
    settings = Settings(budget=Budget(steps=budget), storage=storage, study_name=NAME)
    return make_selection(training(loss), settings, progress=Silent(), joins_within=joins).plan, meter.cost


if __name__ == "__main__":
    claims.LEASE_SECONDS = LEASE_SECONDS
    url, file, budget, joins = sys.argv[1:]
    plan, cost = plan_of(url, int(budget), pause=0.07, joins=float(joins))
    Path(f"{file}.cost").write_text(repr(cost))
    plan.save(Path(file))
