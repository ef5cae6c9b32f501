"""However many workers share a search, and whatever becomes of them, it is the search of one."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from torch import Tensor

from optselect import Budget
from optselect.briefing import METHOD, Method
from optselect.configuration import Evaluation, Trial
from optselect.pipeline import Selection, make_selection
from optselect.search.outcome import Outcome
from optselect.search.progress import Silent
from optselect.search.race import Job, Race
from optselect.search.worker import Desk
from optselect.settings import Settings
from optselect.study.claims import Claim, Claims
from optselect.study.reading import Look
from optselect.study.study import TrialStudy
from tests.benchmarks.workers import wide_race
from tests.laws.playing import (
    GOLDEN,
    Judge,
    judges_untrained,
    plain,
    pure_suggestion,
    race_of,
    recorded,
    suggestions_by,
    trained_length,
)
from tests.support.fleet import Fleet, Ran, judged
from tests.support.searches import Meter, training
from tests.support.searches import plain as plain_plan

SPECS = {
    f"{path.stem.removeprefix('races_')}: {name}": race["spec"]
    for path in sorted(GOLDEN.glob("races_*.json"))
    if path.name != "races_gaussian.json"
    for name, race in recorded(path.name).items()
    # What is over by the clock depends on the clock.
    if race["spec"]["searches"] and race["spec"]["seconds"] is None
}
COUNTS = (1, 2, 4, 8)


def set_up(spec: Mapping[str, Any]) -> tuple[Race, Judge]:
    race = race_of(spec)
    judge = Judge(spec=spec, horizon=trained_length(race))
    if judges_untrained(race):
        race = replace(race, untrained=Evaluation(value=judge.untrained()))
    return race, judge


def ran(spec: Mapping[str, Any], count: int, **options: Any) -> Ran:
    race, judge = set_up(spec)

    def outcome(job: Job, known: Trial | None) -> Outcome:
        configuration = plain(job.configuration.to_dict())
        fails = judge.fails(configuration, job.seed, job.until)
        value = None if fails else judge.value(configuration, job.seed, job.until)
        found = judged(value, job, known, race)
        return replace(found, error=RuntimeError("the model does not bear it")) if fails else found

    def takes(job: Job, chance: random.Random) -> float:
        """As long as its micro-batches, give or take, and now and then ten times as long."""
        return job.until / 40 * math.exp(chance.gauss(0.0, 0.4)) * (10.0 if chance.random() < 0.05 else 1.0)

    with suggestions_by(pure_suggestion):
        return Fleet(race, outcome, count=count, takes=takes, **options).run()


def said(found: Ran) -> list[Any]:
    """What was run in which place, and what every trial came to."""
    jobs = [(job.stage, job.configuration.key, job.seed, job.until) for job in found.sequence]
    trials = [(trial.configuration.key, trial.seed, trial.values, trial.cap, trial.state) for trial in found.trials]
    return [jobs, trials]


@pytest.mark.parametrize("name", SPECS)
def test_the_search_of_several_workers_is_that_of_one(name: str) -> None:
    spec = SPECS[name]
    race, _ = set_up(spec)

    found = [ran(spec, count, seed=count) for count in COUNTS]

    golden = [[*job[:1], job[2], job[3]] for job in played(name)]
    assert [[job.stage, job.seed, job.until] for job in found[0].sequence] == golden
    assert [said(each) for each in found] == [said(found[0])] * len(COUNTS)
    assert [each.twice for each in found] == [0] * len(COUNTS)
    assert all(each.spent <= race.left for each in found)


def played(name: str) -> list[list[Any]]:
    """The jobs of the golden record."""
    file, _, race = name.partition(": ")
    jobs: list[list[Any]] = recorded(f"races_{file}.json")[race]["golden"]["jobs"]
    return jobs


@pytest.mark.parametrize("name", [name for name in SPECS if name.startswith(("budgets", "faults"))])
def test_the_search_of_workers_that_die_is_that_of_one_that_does_not(name: str) -> None:
    alone = ran(SPECS[name], 1)

    found = ran(SPECS[name], 4, dies=0.25, lease_seconds=3.0, seed=7)

    assert said(found) == said(alone)
    assert found.twice == 0
    assert all(seconds <= 6.0 for seconds in found.lost)


def test_who_begins_at_the_same_moment_on_other_memory_goes_by_what_the_quicker_one_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def worker(method: Method = METHOD) -> Selection:
        torch.manual_seed(0)
        settings = Settings(budget=Budget(steps=90), storage=tmp_path / "study.journal")
        return make_selection(training(), settings, progress=Silent(), method=method)

    quicker: list[Selection] = []
    begin = TrialStudy.begin

    def overtaken(study: TrialStudy, *args: Any, **options: Any) -> int:
        # Just before this worker begins its first trial, another has begun, and ended.
        monkeypatch.setattr(TrialStudy, "begin", begin)
        quicker.append(worker())
        return begin(study, *args, **options)

    monkeypatch.setattr(TrialStudy, "begin", overtaken)

    slower = worker(replace(METHOD, paused_bytes=0))

    assert plain_plan(slower.plan) == plain_plan(quicker[0].plan)
    assert slower.study is not None
    assert len([trial for trial in slower.study.look().trials if trial.judged]) == len(slower.plan.trials)


def left_and_joined(path: Path, factor: list[float], later: float = 1.0) -> tuple[Meter, Selection, Meter, Selection]:
    """A search that is left in its first trial and gone on with at another factor of the loss; and one of the latter.

    No code says the factor: only what is measured does.
    """

    def searched(storage: Path | None, meter: Meter) -> Selection:
        def loss(output: Tensor, target: Tensor) -> Tensor:
            return factor[0] * meter(output, target)

        torch.manual_seed(0)
        settings = Settings(budget=Budget(steps=90), storage=storage)
        return make_selection(training(loss), settings, progress=Silent())

    with pytest.raises(KeyboardInterrupt):
        searched(path, Meter(raises={8: KeyboardInterrupt()}))
    factor[0] = later
    meters = Meter(), Meter()
    return meters[0], searched(path, meters[0]), meters[1], searched(None, meters[1])


def test_who_joins_a_search_takes_one_pass_to_see_that_it_is_of_its_training(tmp_path: Path) -> None:
    meter, joined, alone_meter, alone = left_and_joined(tmp_path / "study.journal", [1.0])

    assert plain_plan(joined.plan) == plain_plan(alone.plan)
    assert alone.profile.gradient.passes > 1
    assert meter.training == alone_meter.training - alone.profile.gradient.passes + 1


def test_who_would_join_a_search_of_another_training_begins_its_own(tmp_path: Path) -> None:
    meter, own, alone_meter, alone = left_and_joined(tmp_path / "study.journal", [1.0], later=3.0)

    assert plain_plan(own.plan) == plain_plan(alone.plan)
    assert meter.training == alone_meter.training + 1
    assert own.study is not None
    assert own.study.study.study_name.endswith("-2")


def test_workers_that_look_at_the_same_moment_take_different_jobs_but_one_alone_takes_the_first() -> None:
    race = wide_race(64)
    study = TrialStudy(optuna.create_study())

    def wanted(chance: int) -> int:
        """The place of what a worker would take."""
        desk, places = Desk(Claims(study)), []
        desk._chance = random.Random(chance)

        def take(look: Look, *job: Any, turn: int, **known: Any) -> Claim:
            places.append(turn)
            raise KeyboardInterrupt

        desk.claims.take = take  # type: ignore[method-assign]  # asked for, and not taken
        with pytest.raises(KeyboardInterrupt):
            desk.step(race)
        return places[0]

    alone = {wanted(chance) for chance in range(8)}
    # The baseline's course guides the others, so it comes first.
    for _ in range(16):
        step = Desk(Claims(study)).step(race)
        if step.turn is not None and step.turn.place == 0:
            Desk(Claims(study)).leave(step, race, judged(1.0, step.turn.job, None, race), 1.0)
    beside = [wanted(chance) for chance in range(16)]

    assert alone == {0}
    assert len(set(beside)) > len(beside) / 2
