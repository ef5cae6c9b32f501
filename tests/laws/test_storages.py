"""Whatever keeps the study, a search that is killed again and again, or cut off from it, ends as if nobody had."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from optselect import Budget, OptimizerPlan
from tests.support.postgres import Cluster
from tests.support.proxies import proxy_over
from tests.support.searches import Meter, choose, plain, training

BUDGET = Budget(steps=90)


class Killed(KeyboardInterrupt):
    """Stands for any death of the process."""


class Stopping(Meter):
    """A loss during which, at one call, the server is stopped for a moment."""

    def __init__(self, cluster: Cluster, at: int) -> None:
        super().__init__()
        self.cluster, self.at = cluster, at

    def __call__(self, *args: Any) -> Any:
        if self.training == self.at:
            self.cluster.stop(at_once=True)
            threading.Timer(0.3, self.cluster.start).start()
            self.at = 0
        return super().__call__(*args)


def searched(storage: str | None, loss: Meter) -> OptimizerPlan:
    """A process of its own, as far as the search can tell."""
    torch.manual_seed(0)
    return choose(training(loss), BUDGET, storage=storage)


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, Any], int]:
    """The plan of a search that nobody disturbs, and its calls of the loss."""
    meter = Meter()
    return plain(searched(None, meter)), meter.training + meter.forward


@pytest.fixture(params=["journal", "sqlite", "postgres", "a proxy over postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "journal":
        yield str(tmp_path / "study.journal")
    elif request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/study.db"
    else:
        url = request.getfixturevalue("postgres").database()
        with ExitStack() as stack:
            yield stack.enter_context(proxy_over(url)) if "proxy" in request.param else url


def test_a_search_killed_again_and_again_ends_with_the_plan_of_the_undisturbed_one(
    storage: str, whole: tuple[dict[str, Any], int]
) -> None:
    plan = None
    for share in (0.15, 0.4, 0.55, 0.7, 0.95, 2.0):
        try:
            plan = searched(storage, Meter(raises={int(share * whole[1]): Killed()}))
        except Killed:
            continue
        break

    assert plan is not None
    assert plain(plan) == whole[0]


@pytest.mark.parametrize("at", [12, 20, 45])
def test_a_search_whose_server_is_cut_off_for_a_moment_ends_with_that_plan_too(
    at: int, postgres: Cluster, whole: tuple[dict[str, Any], int]
) -> None:
    loss = Stopping(postgres, at)

    plan = searched(postgres.database(), loss)

    assert loss.at == 0
    assert plain(plan) == whole[0]
