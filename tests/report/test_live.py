"""What a person sees of a search."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.text import Text
from torch import nn

from optselect import Budget, TorchWorkload, select
from optselect.configuration import Configuration, Evaluation
from optselect.configuration.trial import Trial
from optselect.pipeline import make_selection
from optselect.report import headline
from optselect.report.live import LogProgress, TableProgress, closing, copies, cost_at_most, opening, progress_for
from optselect.report.notebook import NotebookProgress
from optselect.search.outcome import Outcome
from optselect.search.progress import Progress, Silent
from optselect.search.race import Job, Race
from optselect.settings import Settings
from optselect.study.claims import Claim
from optselect.workload.room import Free, room_for
from tests.support.small import loader, vectors

GIB = 2**30


def searched(progress: Progress, storage: Any = None, limit: int = 50, **options: Any) -> Any:
    torch.manual_seed(0)
    workload = TorchWorkload(nn.Linear(6, 3), nn.CrossEntropyLoss(), loader(), loader(vectors(48)), steps=16, **options)
    settings = Settings(budget=Budget(steps=limit), storage=storage, study_name="study")
    return make_selection(workload, settings, progress=progress).plan


def test_the_table_shows_every_trial_the_budget_and_what_came_of_it() -> None:
    output = io.StringIO()
    console = Console(file=output, width=140, force_terminal=True)

    plan = searched(TableProgress(console))

    shown = output.getvalue()
    assert "of 50 micro-batches spent" in shown
    assert all(trial.configuration.optimizer in shown for trial in plan.trials)
    assert "judged by validation loss" in shown
    assert all(proposal.optimizer in shown for proposal in plan.proposals)


def test_the_log_has_one_line_for_each_job(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="optselect"):
        plan = searched(LogProgress())

    lines = [record.getMessage() for record in caplog.records if "before it" in record.getMessage()]
    assert len(lines) >= len(plan.trials)
    assert all("of 50 micro-batches spent" in line for line in lines)


@pytest.mark.parametrize("kind", ["table", "log"])
def test_a_search_that_goes_on_shows_the_trials_before_it(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = io.StringIO()
    table = TableProgress(Console(file=output, width=140, force_terminal=True))
    first = searched(Silent(), tmp_path / "study.journal")

    with caplog.at_level(logging.INFO, logger="optselect"):
        searched(table if kind == "table" else LogProgress(), tmp_path / "study.journal", limit=90)

    shown = [line for line in (caplog.text if kind == "log" else output.getvalue()).splitlines() if "earlier" in line]
    assert len(first.trials) > 1
    assert all(any(f"{trial.value:.5g}" in line for line in shown) for trial in first.trials)


@pytest.mark.parametrize("kind", ["table", "log"])
def test_at_the_end_stand_the_choice_and_its_cost(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    output = io.StringIO()
    table = TableProgress(Console(file=output, width=140, force_terminal=True))

    with caplog.at_level(logging.INFO, logger="optselect"):
        plan = searched(table if kind == "table" else LogProgress())

    end = " ".join((caplog.text if kind == "log" else output.getvalue()).split("chosen")[-1].split())
    assert plan.optimizer in end
    assert f"the choice cost {plan.search_steps} micro-batches" in end


def test_a_narrow_terminal_shows_every_value_whole() -> None:
    output = io.StringIO()

    plan = searched(TableProgress(Console(file=output, width=60, force_terminal=True)))

    assert all(f"{trial.value:.5g}" in output.getvalue() for trial in plan.trials)
    assert max(map(len, Text.from_ansi(output.getvalue()).plain.splitlines())) <= 60


def test_in_a_low_terminal_the_running_trial_is_seen_and_at_the_end_all_of_them() -> None:
    output = io.StringIO()

    plan = searched(TableProgress(Console(file=output, width=100, height=9, force_terminal=True)), limit=120)

    frames = Text.from_ansi(output.getvalue()).plain.split("optimizer ")
    running = [frame for frame in frames if "running" in frame]
    assert len(plan.trials) > 4
    assert len(running) >= len(plan.trials)
    assert "more" in running[-1]
    assert len([line for line in frames[-1].splitlines() if re.search(r"\d+ +\d\.\d", line)]) >= len(plan.trials)


@pytest.mark.parametrize(
    "limits, words",
    [
        ({"steps": 500}, "at most 500 micro-batches (5.00 of the training)"),
        ({"steps": 500, "training": 1_000}, "at most 500 micro-batches (0.50 of the training)"),
        ({"steps": 500, "seconds": 60.0}, "at most 60 s or about 500 micro-batches (5.00 of the training), whichever"),
        ({"steps": None, "trials": 6}, "at most 6 trials of at most 100 micro-batches each"),
    ],
)
def test_what_a_search_may_cost_is_said_in_terms_of_its_limits(limits: dict[str, Any], words: str) -> None:
    own = Configuration(optimizer="user")

    assert words in cost_at_most(Race(arms=(own,), baseline=own, horizon=100, **limits))


def test_no_share_is_said_of_a_training_whose_length_is_not_known() -> None:
    own = Configuration(optimizer="user")

    said = cost_at_most(Race(arms=(own,), baseline=own, horizon=1_000, steps=1_000, length_known=False))

    assert said == "the search costs at most 1000 micro-batches"


def test_silence_is_silent(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="optselect"):
        searched(Silent())

    assert capsys.readouterr().out == ""
    assert not caplog.records


def test_the_kind_of_progress_changes_no_choice() -> None:
    plans = [searched(each) for each in (Silent(), LogProgress(), TableProgress(Console(file=io.StringIO())))]

    assert plans[0].trials == plans[1].trials == plans[2].trials


def test_where_there_is_no_terminal_the_progress_is_logged() -> None:
    assert isinstance(progress_for(True), LogProgress)  # as users pass it


@pytest.mark.parametrize(
    "outcome, words",
    [
        (Outcome(evaluation=None, cost=1.0, reached=1, error=ZeroDivisionError()), "ZeroDivisionError"),
        (Outcome(evaluation=None, cost=1.0, reached=1), "diverged"),
        (Outcome(evaluation=Evaluation(value=0.25), cost=1.0, reached=1), "0.25"),
    ],
)
def test_every_end_of_a_trial_is_shown(outcome: Outcome, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr("optselect.search.worker.TrialRunner.run", lambda *_, **__: outcome)

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


OWN: Any = {"user_optimizer": lambda of: (torch.optim.SGD(of.parameters(), lr=0.01), None)}


@pytest.mark.parametrize("width", [80, 200])
def test_the_first_lines_say_what_is_to_beat_what_it_costs_and_how_to_change_that(width: int) -> None:
    output = io.StringIO()

    searched(TableProgress(Console(file=output, width=width, height=24, force_terminal=True)), **OWN)

    shown = " ".join(Text.from_ansi(output.getvalue()).plain.partition("stage")[0].split())
    assert "judged by validation loss" in shown
    assert "to beat: yours: SGD lr=0.01" in shown
    assert re.search(r"at most 50 micro-batches \(3\.12 of the training\), about [\d.]+ (s|min)", shown)
    assert "budget= changes that, budget=0 tries nothing" in shown


def test_the_time_that_a_search_will_take_is_its_micro_batches_at_the_pace_of_the_profile() -> None:
    own = Configuration(optimizer="user")
    race = Race(arms=(own,), baseline=own, horizon=100, steps=1_000, spent=100.0)

    said = [cost_at_most(race, pace).rpartition(", about ")[2] for pace in (0.01, 0.2, 10.0)]

    assert said == ["9 s", "3 min", "2.5 h"]


def test_where_parts_of_a_model_are_put_aside_its_bound_and_what_that_costs_are_one_line() -> None:
    own = Configuration(optimizer="user")
    race = Race(arms=(own, Configuration(optimizer="adamw")), baseline=own, horizon=100, steps=100)
    room = room_for(GIB, Free(device=GIB, host=8 * GIB, disk=20 * GIB), Path())

    said = [copies(replace(room, seconds=seconds), race, 0.5) for seconds in (None, 3.0)]

    assert said[0] == (
        "the weights of each process, 1 GiB, are put aside once in host memory (it is in 25% of the 8 GiB that are "
        "free there); trials that wait take up to 5 GiB on disk (25% of what is free there)"
    )
    assert said[1] == f"{said[0]}; each trial puts them back in about 3 s or 6.0 micro-batches, the first 2 in 6 s"


def test_the_column_of_values_is_headed_by_what_trials_are_judged_by_and_the_best_is_marked() -> None:
    output = io.StringIO()

    plan = searched(TableProgress(Console(file=output, width=200, force_terminal=True)))

    table = Text.from_ansi(output.getvalue()).plain.rpartition("optimizer ")[2]
    marked = [line for line in table.splitlines() if "best so far" in line]
    last = max(rung for trial in plan.trials for rung in trial.values)
    assert "validation loss" in table.splitlines()[0]
    assert len(marked) == 1
    assert f"{min(trial.values[last] for trial in plan.trials if last in trial.values):.5g}" in marked[0]


def test_a_running_trial_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.StringIO()
    monkeypatch.setattr("optselect.report.live._SECONDS_BETWEEN", -1.0)

    plan = searched(TableProgress(Console(file=output, width=200, force_terminal=True)), limit=120)

    first = min(min(trial.values) for trial in plan.trials)
    frames = Text.from_ansi(output.getvalue()).plain
    assert f"0/{first}" in frames
    assert f"{first}/{first}" in frames


def test_a_notebook_shows_one_table_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def display(html: str) -> Any:
        drawn.append(html)
        return drawn.append

    plan = searched(NotebookProgress(opening, closing, display), **OWN)

    assert "running" in drawn[0]
    assert "to beat: yours: SGD lr=0.01" in drawn[-1]
    assert ">validation loss</th>" in drawn[-1]
    assert all(f">{trial.value:.5g}</td>" in drawn[-1] for trial in plan.trials)
    assert f"chosen: {headline(plan)}" in drawn[-1]
    assert len({html.count("<table>") for html in drawn}) == 1


def test_without_progress_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    workload = TorchWorkload(nn.Linear(6, 3), nn.CrossEntropyLoss(), loader(), loader(vectors(48)), steps=16)

    plan = select(workload, Budget(steps=50), progress=False)

    assert plan.trials
    assert capsys.readouterr() == ("", "")


# --- several workers ----------------------------------------------------------------------------------------------

SGD, ADAMW = (Configuration(optimizer=name, hyperparameters={"lr": 0.125}) for name in ("sgd", "adamw"))
RACE = Race(arms=(SGD, ADAMW), baseline=SGD, horizon=40, steps=100)
MINE = Job(configuration=SGD, seed=0, until=10, stage="arms")
ELSEWHERE = Trial(configuration=ADAMW, values={10: 0.375}, reached=10)


def claim(worker: str) -> Claim:
    here = {"machine": f"{worker} boot", "pid": 7, "started": None}
    return Claim(number=3, configuration=ADAMW, seed=0, until=20, turn=2, stage="halves", worker=here)


@pytest.mark.parametrize("kind", ["table", "notebook"])
def test_a_table_shows_what_other_workers_are_at_what_they_have_judged_and_who_was_lost(kind: str) -> None:
    output = io.StringIO()
    drawn: list[str] = []

    def display(html: object) -> Callable[[object], None]:
        drawn.append(str(html))
        return lambda later: drawn.append(str(later))

    notebook = NotebookProgress(opening, closing, display)
    table = TableProgress(Console(file=output, width=140, force_terminal=True))
    progress: Progress = table if kind == "table" else notebook

    with progress:
        progress.started(MINE, RACE, [])
        progress.finished(MINE, Outcome(evaluation=Evaluation(value=0.25), cost=11.0, reached=10))
        progress.alongside([claim("one")], [claim("other")])
        progress.started(MINE, RACE, [ELSEWHERE])
        progress.waiting()

    shown = output.getvalue() if kind == "table" else drawn[-1]
    assert "at one:7" in shown
    assert "lost: other:7" in shown
    assert "0.375" in shown


def test_a_log_says_once_whom_it_waits_for_and_what_others_have_judged(caplog: pytest.LogCaptureFixture) -> None:
    progress = LogProgress()

    with caplog.at_level(logging.INFO, logger="optselect"):
        progress.started(MINE, RACE, [])
        progress.finished(MINE, Outcome(evaluation=Evaluation(value=0.25), cost=11.0, reached=10))
        progress.alongside([claim("one")], [])
        progress.waiting()
        progress.waiting()
        progress.started(MINE, RACE, [ELSEWHERE])

    assert [line for line in caplog.messages if "waits" in line] == ["waits until others have ended: adamw at one:7"]
    assert [line for line in caplog.messages if line.startswith("elsewhere: adamw lr=0.125, constant: value 0.375")]
