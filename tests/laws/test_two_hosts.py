"""Workers on two hosts, the database on one of them: a link that is cut costs one job, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from optselect import OptimizerPlan
from optselect.study.storage import storage_of
from tests.laws.worker_run import LEASE_SECONDS, NAME, plan_of
from tests.support.hosts import Host, two_hosts
from tests.support.postgres import Cluster, running_cluster
from tests.support.searches import plain

BUDGET = 90
ROOT = Path(__file__).parents[2]
_LOOK_SECONDS, _PATIENCE_SECONDS = 0.02, 90.0
# A silent link is given up sooner than by itself, which takes half a minute.
_QUICK = "?connect_timeout=2&tcp_user_timeout=1000"


@contextmanager
def worker(host: Host, url: str, plan: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker on `host`; what it says stands beside its plan."""
    line = host.line(sys.executable, "-m", "tests.laws.worker_run", url + _QUICK, str(plan), str(BUDGET), "0")
    with plan.with_suffix(".log").open("wb") as said:
        process = subprocess.Popen(line, cwd=ROOT, stdout=said, stderr=said)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Watch:
    """What stands in the study, as the host of the database sees it."""

    def __init__(self, cluster: Cluster, url: str) -> None:
        self._storage = storage_of(cluster.by_file(url.rpartition("/")[2]))
        optuna.create_study(storage=self._storage, study_name=NAME, load_if_exists=True)

    def trials(self) -> list[FrozenTrial]:
        return optuna.load_study(storage=self._storage, study_name=NAME).get_trials(deepcopy=False)

    def held_by(self, process: subprocess.Popen[bytes]) -> str | None:
        """The token of the claim that it holds."""
        return next((claim["token"] for claim in self._claims(TrialState.RUNNING) if _is_of(claim, process)), None)

    def given_back(self, token: str) -> bool:
        return any(claim["token"] == token for claim in self._claims(TrialState.FAIL))

    def _claims(self, state: TrialState) -> list[Mapping[str, Any]]:
        claims = (trial.user_attrs.get("optselect:claim") for trial in self.trials() if trial.state == state)
        return [claim for claim in claims if claim is not None]


def _is_of(claim: Mapping[str, Any], process: subprocess.Popen[bytes]) -> bool:
    return bool(claim["worker"]["pid"] == process.pid)


def until(happens: Any, *processes: subprocess.Popen[bytes]) -> Any:
    """Wait until `happens` gives something, which it does while the `processes` run."""
    ends = time.monotonic() + _PATIENCE_SECONDS
    while not (found := happens()):
        assert time.monotonic() < ends
        assert all(process.poll() in (None, 0) for process in processes)
        time.sleep(_LOOK_SECONDS)
    return found


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    pytest.importorskip("psycopg")
    pytest.importorskip("sqlalchemy")
    with two_hosts() as hosts:
        yield hosts


@pytest.mark.slow
def test_a_link_that_is_cut_costs_the_job_behind_it_and_nothing_else(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    here, there = hosts
    alone, _ = plan_of(None, BUDGET)
    plans = {host: tmp_path / f"{name}.json" for host, name in ((here, "here"), (there, "there"))}

    with running_cluster(here) as cluster:
        url = cluster.database()
        watch = Watch(cluster, url)
        with worker(here, url, plans[here]) as near, worker(there, url, plans[there]) as far:
            token = until(lambda: watch.held_by(far), near, far)
            there.cut()
            cut = time.monotonic()
            until(lambda: watch.given_back(token), near, far)
            stood = time.monotonic() - cut
            until(lambda: "is away" in plans[there].with_suffix(".log").read_text(), near, far)
            there.heal()
            ended = [near.wait(_PATIENCE_SECONDS), far.wait(_PATIENCE_SECONDS)]
        trials = watch.trials()

    assert ended == [0, 0]
    assert stood <= 2 * LEASE_SECONDS
    said = plans[there].with_suffix(".log").read_text()
    assert "was given back to others meanwhile" in said
    assert [plain(OptimizerPlan.load(file)) for file in plans.values()] == [plain(alone)] * 2
    abouts = [
        (trial.user_attrs["optselect:configuration"], trial.user_attrs["optselect:seed"], name, about)
        for trial in trials
        for name, about in trial.user_attrs.items()
        if name.startswith("optselect:at ") and "turn" in about
    ]
    assert max(Counter(tuple(each[:3]) for each in abouts).values()) == 1
    assert sum(about["cost"] for *_, about in abouts) <= BUDGET
    assert not [trial for trial in trials if trial.state == TrialState.RUNNING]
