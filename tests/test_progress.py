"""What a person sees of a search."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from optselect import Budget, TorchWorkload
from optselect.evaluate import Outcome
from optselect.pipeline import Settings, make_selection
from optselect.progress import LogProgress, Progress, Silent, TableProgress, default_progress
from tests.small import loader, vectors


def searched(progress: Progress, **options: Any) -> Any:
    torch.manual_seed(0)
    workload = TorchWorkload(nn.Linear(6, 3), nn.CrossEntropyLoss(), loader(), loader(vectors(48)), steps=16, **options)
    return make_selection(workload, Settings(budget=Budget(steps=50)), progress=progress).plan


def test_the_table_shows_every_trial_the_budget_and_what_came_of_it() -> None:
    output = io.StringIO()
    console = Console(file=output, width=140, force_terminal=True)

    plan = searched(TableProgress(console))

    shown = output.getvalue()
    assert "of 50 micro-batches spent" in shown
    assert all(trial.configuration.optimizer in shown for trial in plan.trials)
    assert "judged" in shown
    assert all(proposal.optimizer in shown for proposal in plan.proposals)


def test_the_log_has_one_line_for_each_job(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="optselect"):
        plan = searched(LogProgress())

    lines = [record.getMessage() for record in caplog.records if "to micro-batch" in record.getMessage()]
    assert len(lines) >= len(plan.trials)
    assert all("of 50 micro-batches spent" in line for line in lines)


def test_silence_is_silent(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="optselect"):
        searched(Silent())

    assert capsys.readouterr().out == ""
    assert not caplog.records


def test_the_kind_of_progress_changes_no_choice() -> None:
    plans = [searched(each) for each in (Silent(), LogProgress(), TableProgress(Console(file=io.StringIO())))]

    assert plans[0].trials == plans[1].trials == plans[2].trials


def test_where_there_is_no_terminal_the_progress_is_logged() -> None:
    assert isinstance(default_progress(), LogProgress)


@pytest.mark.parametrize(
    "outcome, words",
    [
        (Outcome(value=None, cost=1.0, reached=1, error=ZeroDivisionError()), "ZeroDivisionError"),
        (Outcome(value=None, cost=1.0, reached=1), "diverged"),
        (Outcome(value=0.25, cost=1.0, reached=1), "0.25"),
    ],
)
def test_every_end_of_a_trial_is_shown(outcome: Outcome, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr("optselect.search.TrialRunner.run", lambda *_: outcome)

    try:
        searched(TableProgress(Console(file=output, width=140, force_terminal=True)))
    except Exception as error:  # noqa: BLE001  # a search of nothing but failures ends in an error
        assert outcome.value is None, error  # noqa: PT017  # the table is what is looked at

    assert words in output.getvalue()


def test_the_table_shows_the_factors_on_the_users_own_rate() -> None:
    output = io.StringIO()
    console = Console(file=output, width=140, force_terminal=True)

    plan = searched(TableProgress(console), user_optimizer=lambda of: (torch.optim.SGD(of.parameters(), lr=0.01), None))

    assert any(trial.configuration.optimizer == "user" for trial in plan.trials)
    assert "× 1" in output.getvalue()
