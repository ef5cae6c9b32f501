"""However many workers share a search, and whatever becomes of them, it is the search of one."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from optselect import Budget
from optselect.briefing import METHOD, Method
from optselect.configuration import Evaluation, Trial
from optselect.pipeline import Selection, make_selection
from optselect.search.outcome import Outcome
from optselect.search.progress import Silent
from optselect.search.race import Job, Race
from optselect.settings import Settings
from optselect.study.study import TrialStudy
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
from tests.support.searches import plain as plain_plan
from tests.support.searches import training

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
