"""Trials that are compared at equal time: a slower optimizer gets fewer steps. The clock is a counter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from torch import nn

from optselect import Budget, ConfigurationError, OptimizerPlan, TorchWorkload
from optselect.budget import VALIDATION_COST
from optselect.catalogue import get
from optselect.configuration import USER, Configuration, Evaluation, FineTuning, Schedule, Thaw, Trial
from optselect.pipeline import Selection, make_selection
from optselect.rules.voting import RULES_ALONE
from optselect.search.outcome import Outcome
from optselect.search.pace import as_trained, count_in_time, in_time
from optselect.search.progress import Silent
from optselect.search.race import Job, Race
from optselect.search.reasons import equal_time, pace
from optselect.search.runner import TIMING_COST, TrialRunner
from optselect.settings import Settings
from optselect.study.study import TrialStudy
from optselect.workload.stopwatch import Stopwatch
from tests.support.small import loader, net, vectors

STEPS = 120
ADAMW = Configuration(optimizer="adamw", hyperparameters={"lr": 1e-3, "weight_decay": 0.01})
SGD = Configuration(
    optimizer="sgd",
    hyperparameters={"lr": 0.1, "weight_decay": 1e-7},
    schedule=Schedule(kind="linear", warmup_steps=10),
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


class Timed(TorchWorkload):
    """A micro-batch takes a second, or what `seconds` says of its optimizer; `value` judges it after so many."""

    def __init__(
        self,
        clock: list[float],
        seconds: dict[str, float] | None = None,
        value: Callable[[str, int], float] | None = None,
        *,
        steps: int | None = STEPS,
        dies_at: float = math.inf,
    ) -> None:
        torch.manual_seed(0)
        super().__init__(
            net(), nn.functional.cross_entropy, loader(), loader(vectors(48), shuffle=False), steps=steps or 1
        )
        self.steps = steps
        self.clock, self.seconds, self.value, self.dies_at = clock, seconds or {}, value, dies_at
        self.longest: dict[str, int] = {}

    @property
    def optimizer(self) -> str:
        return type(self._training.optimizers[0]).__name__.lower()

    def train(self, micro_batches: int) -> Sequence[float | None]:
        losses = super().train(micro_batches)
        self.clock[0] += micro_batches * self.seconds.get(self.optimizer, 1.0)
        self.longest[self.optimizer] = max(self.longest.get(self.optimizer, 0), self._training.position)
        if self.clock[0] >= self.dies_at:
            raise KeyboardInterrupt
        return losses

    def validate(self) -> Evaluation:
        judged = super().validate()
        if self.value is None:
            return judged
        return Evaluation(value=self.value(self.optimizer, self._training.position))


def searched(workload: TorchWorkload, compare: Any = "seconds", **options: Any) -> Selection:
    # One arm for each candidate.
    given: dict[str, Any] = {
        "budget": Budget(steps=600),
        "candidates": ["adamw", "sgd"],
        "rules": RULES_ALONE,
        **options,
    }
    return make_selection(workload, Settings(compare=compare, **given), progress=Silent())


def race(**slowness: float) -> Race:
    return Race(
        arms=(ADAMW, SGD),
        baseline=ADAMW,
        horizon=STEPS,
        steps=1_000,
        specs=(get("adamw"), get("sgd")),
        slowness={"adamw": 1.0, **slowness} if slowness else {},
    )


def run(workload: TorchWorkload, told: Race, *jobs: tuple[Configuration, int]) -> list[Outcome]:
    with workload.borrowed():
        runner = TrialRunner(workload)
        runner.take_up(told, None)
        return [runner.run(configuration, 0, until) for configuration, until in jobs]


# --- how long a micro-batch takes ---------------------------------------------------------------


def test_the_pace_of_a_trial_is_the_median_of_its_stretches_without_the_first(clock: list[float]) -> None:
    watch = Stopwatch(nn.Linear(2, 1))
    assert watch.pace is None

    for seconds in (90.0, 20.0, 40.0, 20.0):
        with watch.over(10):
            clock[0] += seconds

    assert watch.pace == 2.0


def test_the_only_stretch_counts(clock: list[float]) -> None:
    watch = Stopwatch(nn.Linear(2, 1))

    with watch.over(10):
        clock[0] += 30.0

    assert watch.pace == 3.0


def test_a_stretch_that_raises_is_not_timed(clock: list[float]) -> None:
    watch = Stopwatch(nn.Linear(2, 1))

    with pytest.raises(ZeroDivisionError), watch.over(1):
        raise ZeroDivisionError

    assert watch.pace is None


def test_an_outcome_says_how_long_a_micro_batch_took_and_equals_one_of_another_pace(clock: list[float]) -> None:
    (quick,) = run(Timed(clock), race(), (SGD, 50))
    (slow,) = run(Timed(clock, {"sgd": 3.0}), race(), (SGD, 50))

    assert (quick.pace, slow.pace) == (1.0, 3.0)
    assert quick == slow


def test_the_plan_says_how_long_a_step_takes_beside_the_baselines(clock: list[float]) -> None:
    plan = searched(Timed(clock, {"sgd": 1.4}, better_per_step), compare="steps").plan

    assert plan.optimizer == "sgd"
    (said,) = plan.reasons_of("pace")
    assert said == "a step with it takes 1.4 times as long as with the baseline (1.4 s, 1 s)"
    assert said.value == pytest.approx(1.4)
    assert said in " ".join(plan.explain().split())
    assert {trial.configuration.optimizer: trial.pace for trial in plan.trials} == {"adamw": 1.0, "sgd": 1.4}


def test_a_step_is_several_micro_batches_where_gradients_are_accumulated() -> None:
    trials = [Trial(configuration=ADAMW, pace=0.0022), Trial(configuration=SGD, pace=0.0011)]

    (said,) = pace(SGD, race(), trials, 4)

    assert said == "a step with it takes 0.5 times as long as with the baseline (4.4 ms, 8.8 ms)"


def test_another_rate_takes_no_other_time() -> None:
    trials = [Trial(configuration=ADAMW, pace=1.0), Trial(configuration=ADAMW.at_rate(0.01), pace=1.1)]

    assert list(pace(ADAMW.at_rate(0.01), race(), trials, 1)) == []


@pytest.mark.parametrize("known", [(None, 1.0), (1.0, None), (0.0, 1.0)])
def test_nothing_is_said_of_a_time_that_is_not_known(known: tuple[float | None, float | None]) -> None:
    trials = [Trial(configuration=each, pace=it) for each, it in zip((ADAMW, SGD), known, strict=True)]

    assert list(pace(SGD, race(), trials, 1)) == []


# --- as much time ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "count, slowness, expected", [(25, 1.0, 25), (25, 2.5, 10), (100, 3.0, 33), (3, 10.0, 1), (0, 2.0, 0)]
)
def test_so_many_micro_batches_take_as_long(count: int, slowness: float, expected: int) -> None:
    assert count_in_time(count, slowness) == expected


def test_a_slower_candidate_is_trained_as_long_as_the_baseline_not_as_far(clock: list[float]) -> None:
    workload = Timed(clock, {"sgd": 2.5})

    base, slow, further = run(workload, race(sgd=2.5), (ADAMW, 30), (SGD, 30), (SGD, 60))

    assert workload.longest == {"adamw": 30, "sgd": 24}
    assert [outcome.reached for outcome in (base, slow, further)] == [30, 30, 60]
    judging = 3 * VALIDATION_COST + 8 * VALIDATION_COST  # BatchNorm's statistics, too
    assert [outcome.cost for outcome in (base, slow, further)] == pytest.approx([30 + judging] * 3)
    assert clock[0] == 30 + 60


def test_a_trial_that_goes_on_is_the_one_that_was_never_put_aside(clock: list[float]) -> None:
    told = race(sgd=2.6)

    *_, in_parts = run(Timed(clock), told, (SGD, 31), (SGD, 77))
    (whole,) = run(Timed(clock), told, (SGD, 77))

    assert in_parts.value == whole.value


def test_its_schedule_ends_with_its_time(clock: list[float]) -> None:
    workload = Timed(clock)

    run(workload, race(sgd=2.5), (SGD, STEPS))

    scheduler: Any = workload._training.schedulers[0]
    assert (scheduler.total_steps, scheduler.schedule.warmup_steps, scheduler.last_epoch) == (48, 4, 48)


def test_thaws_keep_their_share_and_the_users_own_optimizer_keeps_all() -> None:
    policy = FineTuning(head="head", thaw=Thaw(step=50))
    own = Configuration(optimizer=USER)

    fitted = in_time(replace(SGD, fine_tuning=policy), 2.5)

    assert fitted.fine_tuning is not None
    assert [thaw.step for thaw in fitted.fine_tuning.thaws] == [20]
    assert fitted.rate == SGD.rate
    assert in_time(own, 2.5) == own


def test_a_trial_that_diverges_counts_the_time_that_it_took(clock: list[float]) -> None:
    workload = Timed(clock)
    workload._loss_fn = lambda output, target: nn.functional.cross_entropy(output, target) * math.nan

    (outcome,) = run(workload, race(sgd=2.5), (SGD, 100))

    assert (outcome.value, outcome.reached, outcome.cost) == (None, 50, 50)


def test_a_micro_batch_counts_its_time_however_many_passes_it_takes() -> None:
    closure = Configuration(optimizer="lbfgs", hyperparameters={"lr": 1.0})
    job = Job(configuration=closure, seed=0, until=10, stage="arms")
    at_steps = replace(race(), specs=(get("lbfgs"),))

    costs = [each.cost_of_job(job, None) for each in (at_steps, replace(at_steps, slowness={"lbfgs": 20.0}))]

    assert costs == [250, 10]


# --- the choice -----------------------------------------------------------------------------------


def better_per_step(optimizer: str, steps: int) -> float:
    """SGD comes as far in two steps as AdamW in three."""
    return math.exp(-steps / (40.0 if optimizer == "sgd" else 60.0))


@pytest.mark.parametrize("compare, chosen", [("steps", "sgd"), ("seconds", "adamw")])
def test_the_slow_candidate_wins_by_steps_and_loses_by_time(compare: str, chosen: str, clock: list[float]) -> None:
    plan = searched(Timed(clock, {"sgd": 2.5}, better_per_step), compare).plan

    assert (plan.optimizer, plan.compare, plan.total_steps) == (chosen, compare, STEPS)


def test_one_that_wins_by_time_gets_as_many_steps_as_there_is_time_for(clock: list[float]) -> None:
    plan = searched(Timed(clock, {"sgd": 1.25}, better_per_step)).plan

    assert (plan.optimizer, plan.compare, plan.total_steps) == ("sgd", "seconds", 96)
    (chosen,) = [trial for trial in plan.trials if trial.configuration == plan.configuration]
    assert plan.schedule.warmup_steps < 96
    assert chosen.reached == max(chosen.values)
    said = [str(reason) for reason in plan.reasons_of("pace")]
    assert said[1] == (
        "trials were compared at equal time: a micro-batch with it counts as 1.2 of the baseline's, so its training "
        "ends after 96 of 120 steps, which take as long"
    )
    assert plan.build(net())[1].total_steps == 96  # type: ignore[union-attr]


def test_a_faster_candidate_gets_no_more_steps_than_the_training_has(clock: list[float]) -> None:
    workload = Timed(clock, {"sgd": 0.5}, better_per_step)

    plan = searched(workload).plan

    assert (plan.optimizer, plan.total_steps) == ("sgd", STEPS)
    assert workload.longest["sgd"] <= STEPS


@pytest.mark.parametrize("steps", [200, 400, 900])
def test_the_budget_is_held_in_time(steps: int, clock: list[float]) -> None:
    selection = searched(Timed(clock, {"sgd": 2.5}, better_per_step), budget=Budget(steps=steps))

    judged = sum(len(trial.judged) for trial in selection.plan.trials) + 1
    spent = clock[0] + selection.profile.gradient.passes + judged * (3 + 8) * VALIDATION_COST
    # A stretch of SGD ends with a whole micro-batch: at most half of one later.
    assert 0.3 * steps < spent <= steps + 2.5 * judged
    assert selection.plan.search_steps <= steps


def test_what_timing_takes_counts(clock: list[float]) -> None:
    plan = searched(Timed(clock, {"sgd": 2.5}, better_per_step)).plan
    judging = (3 + 8) * VALIDATION_COST

    assert plan.profile is not None
    trials = sum(max(trial.judged) + len(trial.judged) * judging for trial in plan.trials)
    timing = TIMING_COST + 2.5 * TIMING_COST
    assert plan.search_steps == pytest.approx(plan.profile.gradient.passes + timing + judging + trials, abs=1)


def test_what_cannot_be_timed_within_a_tenth_of_the_budget_takes_no_part(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    names = ["sgd", "momentum", "adamw", "rmsprop", "adagrad", "radam", "nadam"]
    caplog.set_level("INFO", "optselect")

    plan = searched(Timed(clock), candidates=names, budget=Budget(steps=150)).plan

    left_out = next(message for message in caplog.messages if message.startswith("not compared"))
    tried = {trial.configuration.optimizer for trial in plan.trials}
    assert tried
    assert not any(name in left_out.partition(": ")[2].split(", ") for name in tried)


def test_where_no_time_can_be_measured_all_count_alike(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrialRunner, "seconds_per_micro_batch", lambda *_: None)

    plan = searched(Timed(clock, {"sgd": 2.5}, better_per_step)).plan

    assert (plan.optimizer, plan.total_steps) == ("sgd", STEPS)


def test_a_training_of_unknown_length_is_compared_at_equal_time_and_has_no_end(clock: list[float]) -> None:
    workload = Timed(clock, {"sgd": 2.5}, better_per_step, steps=None)

    plan = searched(workload).plan

    assert (plan.compare, plan.total_steps) == ("seconds", None)
    assert workload.longest["sgd"] < workload.longest["adamw"]


def test_seconds_are_laid_out_at_the_baselines_pace(clock: list[float]) -> None:
    plan = searched(Timed(clock, {"sgd": 2.5}, better_per_step), budget=Budget(seconds=300)).plan

    assert plan.profile is not None
    assert 150 < plan.search_steps - plan.profile.gradient.passes - 3.5 * TIMING_COST <= 300


def test_a_shorter_training_is_searched_and_the_whole_one_ends_in_time(clock: list[float]) -> None:
    def far_better(optimizer: str, steps: int) -> float:
        return math.exp(-steps / (300.0 if optimizer == "sgd" else 3_000.0))

    workload = Timed(clock, {"sgd": 1.25}, far_better, steps=8_000)
    plan = searched(workload, budget=Budget(steps=2_000)).plan

    assert plan.optimizer == "sgd"
    assert plan.reasons_of("transfer")
    assert plan.total_steps == 6_400
    assert plan.schedule.warmup_steps <= 6_400


def test_trials_stand_in_the_plan_as_they_were_trained() -> None:
    trial = as_trained(race(sgd=2.5), Trial(configuration=SGD, values={30: 1.0}, reached=30))

    assert trial.configuration.schedule.warmup_steps == 4
    assert (trial.values, trial.reached) == ({30: 1.0}, 30)


def test_nothing_is_said_of_time_where_steps_are_compared() -> None:
    assert list(equal_time(race(), SGD, steps=48, whole=STEPS)) == []


# --- later ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dies_at", [5.0, 20.0, 70.0, 200.0])
def test_a_killed_search_goes_on_with_the_paces_that_it_has_measured(
    dies_at: float, tmp_path: Path, clock: list[float]
) -> None:
    whole = searched(Timed(clock, {"sgd": 1.25}, better_per_step)).plan
    clock[0] = 0.0
    storage = tmp_path / "study.journal"
    with pytest.raises(KeyboardInterrupt):
        searched(Timed(clock, {"sgd": 1.25}, better_per_step, dies_at=dies_at), storage=storage)

    # As if the machine were busy with something else now.
    seconds = {"sgd": 3.0} if dies_at > 10 else {"sgd": 1.25}
    plan = searched(Timed(clock, seconds, better_per_step), storage=storage).plan

    assert (plan.configuration, plan.total_steps, plan.trials) == (whole.configuration, 96, whole.trials)


def test_a_search_at_equal_steps_is_not_gone_on_with_at_equal_time(tmp_path: Path, clock: list[float]) -> None:
    storage = tmp_path / "study.journal"
    searched(Timed(clock, value=better_per_step), "steps", storage=storage)

    searched(Timed(clock, value=better_per_step), "seconds", storage=storage)

    assert len(optuna.get_all_study_names(storage_of(storage))) == 2


def storage_of(path: Path) -> Any:
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    return optuna.storages.JournalStorage(backend)


def test_a_study_keeps_the_pace_of_the_last_report() -> None:
    study = TrialStudy(optuna.create_study())
    number = study.begin(SGD, 0, ["sgd"])
    for until, seconds in ((10, 0.5), (20, 0.0123456), (30, None)):
        study.report(number, until=until, reached=until, value=1.0, cost=10.0, pace=seconds)

    (trial,) = study.trials()

    assert trial.pace == 0.0123
    assert Trial.from_dict(trial.to_dict()).pace == 0.0123
    assert trial == replace(trial, pace=None)


def test_the_plan_remembers_what_trials_were_compared_at(clock: list[float]) -> None:
    plan = searched(Timed(clock, {"sgd": 1.25}, better_per_step)).plan

    again = OptimizerPlan.from_dict(plan.to_dict())

    assert again == plan
    assert again.compare == "seconds"
    assert again.explain() == plan.explain()
    assert OptimizerPlan.from_dict({**plan.to_dict(), "compare": "steps"}).compare == "steps"


def test_a_plan_of_before_was_compared_at_equal_steps(clock: list[float]) -> None:
    data = searched(Timed(clock, value=better_per_step), "steps").plan.to_dict()

    assert "compare" not in data
    assert OptimizerPlan.from_dict(data).compare == "steps"


def test_compare_is_one_of_two_words() -> None:
    with pytest.raises(ConfigurationError, match=r"compare is 'steps' or 'seconds'.*got 'hours'"):
        Settings(compare="hours")  # type: ignore[arg-type]


def test_without_trials_nothing_is_timed_and_the_training_keeps_its_length(clock: list[float]) -> None:
    workload = Timed(clock)

    plan = searched(workload, budget=0).plan

    assert (plan.compare, plan.total_steps, workload.longest) == ("steps", STEPS, {})
