"""`optselect portfolio long`: methods on recorded workloads at their greatest length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optselect.recipes.bench.training import Run, Trainings
from optselect.recipes.portfolio import long
from optselect.recipes.portfolio.build import Outcome
from optselect.recipes.portfolio.grid import AT_LENGTH, BASELINE
from optselect.recipes.portfolio.record import Job, Training
from optselect.testing import PROFILES

COSINE = "AdamW 1e-3, cosine"
RATES = {"adamw 0.0003 cosine": 1.2, "adamw 0.001 cosine": 0.8, "adamw 0.003 cosine": 0.6, "adamw 0.01 cosine": 1.5}


def recorded(name: str) -> Outcome:
    """Plain AdamW ends at 1.0, the best rate of its cosine at .6, and all else at 2.0."""
    ends = {point: RATES.get(point, 1.0 if point == BASELINE.name else 2.0) for point in AT_LENGTH[long.LENGTH]}
    trainings = {
        point: Training(
            job=Job(workload=name, length=long.LENGTH, point=point), values=(2.0, end), test=end, seconds=0.001
        )
        for point, end in ends.items()
    }
    profile = PROFILES["small perceptron"]
    return Outcome(name=name, family="rows", length=long.LENGTH, profile=profile, trainings=trainings)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every training end at .8, and note whose it was."""
    names: list[str] = []

    def ends(self: object, task: Any, data: Any, recipe: Any, seed: int) -> Run:
        del self, data, recipe, seed
        names.append(task.name)
        return Run(val=0.8, test=0.8, seconds=1.0)

    monkeypatch.setattr(Trainings, "run", ends)
    return names


def test_a_method_is_told_by_how_far_behind_the_best_recorded_point_it_ended(
    tmp_path: Path, trained: list[str]
) -> None:
    scores = long.compare([recorded("satellite")], tmp_path, methods=[COSINE], say=lambda _: None)

    assert [(score.method, round(score.regret, 6), score.cost) for score in scores] == [
        (COSINE, 0.5, 0.0),
        ("sweep of 4 rates", 0.0, 4.0),
    ]
    assert len(trained) == 1


def test_what_was_run_is_not_run_again(tmp_path: Path, trained: list[str]) -> None:
    runs = [long.compare([recorded("satellite")], tmp_path, methods=[COSINE], say=lambda _: None) for _ in range(2)]

    assert runs[0] == runs[1]
    assert len(trained) == 1


def test_a_table_has_a_row_for_each_method_and_a_column_for_each_workload(tmp_path: Path, trained: list[str]) -> None:
    found = [recorded("satellite"), recorded("friedman")]

    table = long.report(long.compare(found, tmp_path, methods=[COSINE], say=lambda _: None)).splitlines()

    assert table[0].split(" | ")[-2:] == ["satellite", "friedman |"]
    assert [line.split(" | ")[0] for line in table[2:]] == [f"| {COSINE}", "| sweep of 4 rates"]
    assert len(trained) == 2
