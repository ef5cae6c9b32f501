"""The race run for real: kept in a study, killed, taken up again."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from torch import Tensor, nn

from optselect import Budget, OptimizerPlan, TorchWorkload, catalogue
from optselect.configuration import Configuration, Evaluation
from optselect.configuration.trial import Trial
from optselect.errors import SearchError
from optselect.pipeline import Selection, make_selection
from optselect.search.progress import Silent
from optselect.search.race import Job, Race
from optselect.search.runner import TIMING_COST, TrialRunner
from optselect.search.worker import has_time_for
from optselect.settings import Settings
from optselect.study.journal import journal_storage
from optselect.study.study import TrialStudy
from tests.support.searches import plain
from tests.support.small import loader, vectors

STEPS = 16
# Enough for arms, promotions and a finish.
BUDGET = Budget(steps=90)


class Killed(KeyboardInterrupt):
    """Stands for any death of the process."""


class Clock:
    """Counts the loss's calls and dies at one of them."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.calls = 0
        self.training = 0
        self.dies_at = dies_at

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        self.training += torch.is_grad_enabled()
        if self.calls == self.dies_at:
            raise Killed
        return nn.functional.cross_entropy(output, target)


class Small(nn.Module):
    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.1), nn.Tanh(), nn.Linear(8, 3))
        self.gain = gain

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.layers(inputs) * self.gain
        return output


def run(storage: Any, clock: Any = None, *, budget: Budget = BUDGET, gain: float = 1.0, **settings: Any) -> Selection:
    """A process of its own, as far as the search can tell: same seed, new objects."""
    torch.manual_seed(0)
    workload = TorchWorkload(Small(gain), clock or Clock(), loader(), loader(vectors(48)), steps=STEPS)
    return make_selection(workload, Settings(budget=budget, storage=storage, **settings), progress=Silent())


def said(plan: OptimizerPlan) -> dict[str, Any]:
    """All of a plan but the memory that was free, and how long a step took."""
    return plain(plan)


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, Any], int, int]:
    """The plan of an uninterrupted search, its calls of the loss, and those with gradients."""
    clock = Clock()
    return said(run(None, clock).plan), clock.calls, clock.training


@pytest.mark.parametrize("share", [0.02, 0.06, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 0.999])
def test_a_search_killed_anywhere_ends_with_the_plan_of_the_uninterrupted_one(
    share: float, whole: tuple[dict[str, Any], int, int], tmp_path: Path
) -> None:
    path = tmp_path / "study.journal"
    with pytest.raises(Killed):
        run(path, Clock(dies_at=max(int(share * whole[1]), 1)))

    assert said(run(path).plan) == whole[0]


def test_a_search_killed_again_and_again_ends_with_that_plan_too(
    whole: tuple[dict[str, Any], int, int], tmp_path: Path
) -> None:
    path = tmp_path / "study.journal"
    plan = None
    for dies_at in range(30, 500, 9):
        try:
            plan = run(path, Clock(dies_at=dies_at)).plan
        except Killed:
            continue
        break

    assert plan is not None
    assert said(plan) == whole[0]


@pytest.mark.parametrize("method", ["begin", "report", "take", "finish", "keep_untrained", "close"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_search_killed_while_it_writes_ends_with_that_plan_too(
    method: str, when: str, whole: tuple[dict[str, Any], int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.journal"
    original = getattr(TrialStudy, method)
    calls: list[int] = []

    def dying(self: TrialStudy, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == (1 if method in ("keep_untrained", "close") else 2):
            if when == "after":
                original(self, *args, **kwargs)
            raise Killed
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(TrialStudy, method, dying)
        with pytest.raises(Killed):
            run(path)

    assert said(run(path).plan) == whole[0]


def test_a_search_killed_between_two_lines_of_the_journal_ends_with_that_plan_too(
    whole: tuple[dict[str, Any], int, int], tmp_path: Path
) -> None:
    path = tmp_path / "study.journal"
    run(path)
    lines = path.read_bytes().splitlines(keepends=True)
    steps = max(len(lines) // 18, 1)

    for count in range(1, len(lines), steps):
        torn = tmp_path / f"{count}.journal"
        torn.write_bytes(b"".join(lines[:count]) + lines[count][: len(lines[count]) // 2])

        assert said(run(torn).plan) == whole[0]


def test_the_untrained_model_is_judged_once_for_a_search(
    whole: tuple[dict[str, Any], int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.journal"
    measured: list[Evaluation] = []
    original = TrialRunner.untrained

    def counted(self: TrialRunner) -> Evaluation:
        measured.append(original(self))
        return measured[-1]

    monkeypatch.setattr(TrialRunner, "untrained", counted)
    with pytest.raises(Killed):
        run(path, Clock(dies_at=whole[1] // 2))
    kept = TrialStudy(optuna.load_study(study_name=None, storage=journal_storage(path))).untrained()

    run(path)

    assert len(measured) == 1
    assert kept is not None
    assert (kept.value, len(kept.batches)) == (measured[0].value, 3)


def test_a_killed_search_repeats_no_finished_trial(whole: tuple[dict[str, Any], int, int], tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    with pytest.raises(Killed):
        run(path, Clock(dies_at=whole[1] // 2))
    before = len([1 for trial in optuna_trials(path) if trial.intermediate_values])

    clock = Clock()
    run(path, clock)

    assert before >= 2
    # The profile, the half that was left, and what a promotion takes to catch up.
    assert clock.training < whole[2]


def optuna_trials(path: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    (summary,) = optuna.get_all_study_summaries(storage)
    return optuna.load_study(study_name=summary.study_name, storage=storage).get_trials()


def test_a_finished_search_is_not_searched_again(whole: tuple[dict[str, Any], int, int], tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    run(path)
    trials = optuna_trials(path)

    clock = Clock()
    plan = run(path, clock).plan

    assert said(plan) == whole[0]
    # One pass shows that it is of this training.
    assert clock.calls == 1
    assert optuna_trials(path) == trials


def test_a_search_that_its_clock_ended_is_over_and_not_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    budget = Budget(seconds=0.3)
    first = run(path, budget=budget).plan

    second = run(path, budget=budget).plan

    assert said(second) == said(first)


def test_a_job_that_would_not_end_in_time_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def ticking(output: Tensor, target: Tensor) -> Tensor:
        now[0] += torch.is_grad_enabled()  # a second for each micro-batch
        return nn.functional.cross_entropy(output, target)

    monkeypatch.setattr("optselect.search.worker.time.monotonic", lambda: now[0])
    plan = run(None, ticking, budget=Budget(seconds=30)).plan

    assert plan.profile is not None
    spent = now[0] - plan.profile.gradient.passes - 2 * TIMING_COST
    assert 20 < spent <= 30  # rungs of four, and no job of twelve at the end


def test_a_limit_in_seconds_keeps_the_first_job_from_overrunning_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def ticking(output: Tensor, target: Tensor) -> Tensor:
        now[0] += torch.is_grad_enabled()
        return nn.functional.cross_entropy(output, target)

    monkeypatch.setattr("optselect.search.worker.time.monotonic", lambda: now[0])
    torch.manual_seed(0)
    # A quarter of it would take 1,000 seconds.
    workload = TorchWorkload(Small(), ticking, loader(), loader(vectors(48)), steps=4_000)
    plan = make_selection(workload, Settings(budget=Budget(seconds=60)), progress=Silent()).plan

    assert len(plan.trials) > 1
    assert plan.profile is not None
    timing = 2 * TIMING_COST
    assert 40 < now[0] - plan.profile.gradient.passes - timing <= 60
    assert now[0] <= plan.search_steps


def test_the_clock_counts_the_passes_of_a_closure() -> None:
    fast, closure = (Configuration(optimizer=name, hyperparameters={"lr": 1.0}) for name in ("adamw", "lbfgs"))
    race = Race(arms=(fast,), baseline=fast, horizon=40, steps=None, seconds=110.0, specs=(catalogue.get("lbfgs"),))
    begun = Trial(
        number=0, configuration=fast, seed=0, values={10: 1.0}, cost=10, reached=10, state="running", seconds=10.0
    )

    has_time = [
        has_time_for(Job(configuration=each, seed=1, until=10, stage="arms"), race, [begun]) for each in (fast, closure)
    ]

    assert has_time == [True, False]


def test_time_spent_before_a_kill_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def ticking(output: Tensor, target: Tensor) -> Tensor:
        now[0] += torch.is_grad_enabled()
        if now[0] == dies_at:
            raise Killed
        return nn.functional.cross_entropy(output, target)

    monkeypatch.setattr("optselect.search.worker.time.monotonic", lambda: now[0])
    dies_at = 23.0
    with pytest.raises(Killed):
        run(tmp_path / "study.journal", ticking, budget=Budget(seconds=30))

    plan = run(tmp_path / "study.journal", ticking, budget=Budget(seconds=30)).plan

    assert plan.trials == run(None, ticking, budget=Budget(seconds=30)).plan.trials


def test_a_trial_that_runs_is_in_the_study(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    with pytest.raises(Killed):
        run(path, Clock(dies_at=30))

    last = optuna_trials(path)[-1]

    assert last.state == TrialState.RUNNING
    assert last.datetime_start is not None
    assert last.intermediate_values == {}
    assert last.user_attrs["candidate"]


def test_a_larger_budget_goes_on_from_a_study_of_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    small = run(path, budget=Budget(steps=45), study_name="mine").plan
    clock = Clock()

    large = run(path, clock, budget=Budget(steps=150), study_name="mine").plan

    assert clock.training < 150
    assert len(large.trials) > len(small.trials)
    assert {trial.configuration.key for trial in small.trials} <= {trial.configuration.key for trial in large.trials}


def test_every_trial_of_a_finished_search_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    plan = run(path, budget=Budget(steps=120)).plan

    trials = optuna_trials(path)

    states = {trial.state for trial in trials}
    assert states <= {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}
    assert TrialState.COMPLETE in states
    top = max(step for trial in trials for step in trial.intermediate_values)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert all(max(trial.intermediate_values) == top for trial in complete)
    assert all(trial.value == trial.intermediate_values[top] for trial in complete)
    assert len(trials) == len(plan.trials)


def test_another_run_never_continues_a_study_by_mistake(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    names = set()
    for settings in ({}, {"seed": 1}, {"candidates": ["sgd"]}, {"rules": "classic"}, {"gain": 2.0}):
        selection = run(path, **settings)
        assert selection.study is not None
        names.add(selection.study.study.study_name)

    # The gain is no parameter, and measured all the same.
    assert len(names) == 5


def test_after_the_training_the_same_search_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    first = run(path)
    assert first.study is not None
    first.study.mark_used()

    clock = Clock()
    second = run(path, clock)

    assert second.study is not None
    assert second.study.study.study_name == f"{first.study.study.study_name}-2"
    assert clock.training > BUDGET.steps / 2 if BUDGET.steps else False


class Trap(nn.Module):
    """A small model with a bug that can be mended from outside."""

    bug: Exception | float | None = None

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Linear(6, 3)
        nn.init.zeros_(self.layers.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.layers(inputs)
        if self.bug is not None and self.layers.weight.detach().any():
            if isinstance(self.bug, Exception):
                raise self.bug
            return output * self.bug
        return output


@pytest.mark.parametrize("bug, error", [(ZeroDivisionError("mine"), ZeroDivisionError), (float("nan"), SearchError)])
def test_when_every_trial_failed_a_rerun_with_the_cause_mended_searches_anew(
    bug: Any, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def attempt() -> Selection:
        torch.manual_seed(0)
        workload = TorchWorkload(Trap(), Clock(), loader(), loader(vectors(48)), steps=STEPS)
        settings = Settings(budget=BUDGET, storage=tmp_path / "study.journal")
        return make_selection(workload, settings, progress=Silent())

    monkeypatch.setattr(Trap, "bug", bug)
    with pytest.raises(error):
        attempt()

    monkeypatch.setattr(Trap, "bug", None)
    assert attempt().plan.trials


def test_a_failed_trial_is_logged_with_its_error_and_kept_in_the_study(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def moody(output: Tensor, target: Tensor) -> Tensor:
        if output.detach().abs().max() > 2:
            raise ValueError("too large")
        return nn.functional.cross_entropy(output, target)

    path = tmp_path / "study.journal"
    with caplog.at_level(logging.WARNING, logger="optselect"):
        plan = run(path, moody, budget=Budget(steps=130), candidates=["momentum", "adamw"]).plan

    failed = [trial for trial in plan.trials if "ValueError" in trial.note]
    assert failed
    assert "ValueError('too large')" in caplog.text
    assert len([trial for trial in optuna_trials(path) if trial.state == TrialState.FAIL]) == len(failed)


def test_a_diverged_trial_counts_as_the_worst_finite_value_seen(tmp_path: Path) -> None:
    def fragile(output: Tensor, target: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(output, target)
        return loss * torch.nan if output.detach().abs().max() > 2 else loss

    path = tmp_path / "study.journal"
    run(path, fragile, budget=Budget(steps=130), candidates=["momentum", "adamw"])

    trials = optuna_trials(path)
    capped = [trial for trial in trials if "diverged" in str(trial.user_attrs)]
    finite = [value for trial in trials for value in trial.intermediate_values.values()]
    assert capped
    for trial in capped:
        assert trial.state == TrialState.PRUNED
        assert list(trial.intermediate_values.values())[-1] >= min(finite)
