"""optuna-dashboard opens the study of a search as it is."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from wsgiref.util import setup_testing_defaults

import pytest
import torch
from torch import nn

from optselect import Budget, OptimizerPlan, TorchWorkload, select
from optselect.study.journal import journal_storage
from tests.support.small import loader, net, vectors

dashboard = pytest.importorskip("optuna_dashboard", reason="an extra: pip install 'optselect[dashboard]'")


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search") / "optselect_study.journal"


@pytest.fixture(scope="module")
def plan(journal: Path) -> OptimizerPlan:
    torch.manual_seed(0)
    workload = TorchWorkload(net(), nn.CrossEntropyLoss(), loader(vectors()), loader(vectors(48)), steps=40)
    return select(workload, Budget(steps=160), storage=str(journal))


@pytest.fixture(scope="module")
def study(plan: OptimizerPlan, journal: Path) -> dict[str, Any]:
    """What the dashboard's API says of the only study."""
    application = dashboard.wsgi(journal_storage(journal))

    def get(path: str) -> Any:
        environment: dict[str, Any] = {"PATH_INFO": path}
        setup_testing_defaults(environment)
        statuses: list[str] = []
        body = b"".join(application(environment, lambda status, *_: statuses.append(status)))
        assert statuses == ["200 OK"]
        return json.loads(body)

    (summary,) = get("/api/studies")["study_summaries"]
    found: dict[str, Any] = get(f"/api/studies/{summary['study_id']}")
    return found


def test_every_trial_is_there_with_its_optimizer_its_rate_and_its_schedule(
    study: dict[str, Any], plan: OptimizerPlan
) -> None:
    shown = [{each["name"]: each["param_external_value"] for each in trial["params"]} for trial in study["trials"]]

    assert [(each["optimizer"], float(each["lr"]), each["schedule"]) for each in shown] == [
        (
            trial.configuration.optimizer,
            trial.configuration.hyperparameters["lr"],
            trial.configuration.schedule.kind,
        )
        for trial in plan.trials
    ]


def test_every_rung_is_a_point_of_the_learning_curves(study: dict[str, Any], plan: OptimizerPlan) -> None:
    curves = [{each["step"]: each["value"] for each in trial["intermediate_values"]} for trial in study["trials"]]

    assert study["has_intermediate_values"]
    assert curves == [trial.values for trial in plan.trials]


def test_the_study_says_what_was_judged_and_which_way(study: dict[str, Any], plan: OptimizerPlan) -> None:
    attributes = {each["key"]: each["value"] for each in study["user_attrs"]}

    assert study["directions"] == ["minimize"]
    assert attributes["monitor"] == plan.monitor


def test_all_trials_share_one_space_so_that_importance_can_be_told(study: dict[str, Any]) -> None:
    assert {each["name"] for each in study["intersection_search_space"]} == {"lr", "optimizer", "schedule"}


def test_the_command_of_the_how_to_page_serves_the_journal_file(plan: OptimizerPlan, journal: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), journal.name, "--port", str(port), "--quiet"]

    with subprocess.Popen(command, cwd=journal.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            served = patiently(f"http://127.0.0.1:{port}/api/studies")
        finally:
            server.terminate()

    assert len(served["study_summaries"]) == 1


def patiently(address: str) -> Any:
    """What is served there, once it is."""
    for _ in range(600):
        try:
            with urlopen(address, timeout=30) as answer:  # noqa: S310  # our own server
                return json.load(answer)
        except OSError:  # nobody listens yet, or takes long
            time.sleep(0.2)
    raise TimeoutError(address)
